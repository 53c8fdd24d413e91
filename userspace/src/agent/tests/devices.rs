//! Devices come, go and change; programs and offloads with them.

use super::rig::Rig;
use super::{other_flows, probes};
use crate::event::Effect;
use crate::fixture::nic;
use crate::links::{Link, XdpAttachment, XdpMode};

#[test]
fn device_that_vanishes_takes_its_port_and_stations_along() {
    let mut rig = Rig::running();
    rig.learn(1, 10, 1);
    rig.learn(2, 10, 2);
    let gone = rig.links.remove(&1).unwrap();
    rig.read_links();
    assert_eq!((rig.devices(), rig.stations()), (vec![2], vec![2]));
    assert!(!rig.active("br0"), "Open vSwitch may flush more");
    rig.answer();
    assert!(rig.active("br0") && rig.port("p1").reason.unwrap().contains("no device p1"));

    // It comes back with another index, and Open vSwitch is late.
    let new = Link { ifindex: 9, ..gone };
    rig.links.insert(9, new);
    rig.read_links();
    rig.answer();
    assert!(rig.port("p1").reason.unwrap().contains("Open vSwitch still has the old one"));
    rig.write(|database| database.interface("p1").ifindex = Some(9));
    rig.answer();
    assert!(rig.active("br0") && rig.devices() == [2, 9]);
}

#[test]
fn device_that_was_replaced_under_its_index_is_attached_to_again() {
    let mut rig = Rig::running();
    rig.learn(1, 10, 1);
    rig.links.get_mut(&1).unwrap().incarnation = 1;
    rig.read_links();
    assert!(!rig.active("br0") && rig.devices() == [2] && rig.stations().is_empty());
    rig.answer();
    assert!(rig.active("br0") && rig.devices() == [1, 2]);
}

#[test]
fn renamed_device_is_not_its_port_any_more() {
    let mut rig = Rig::running();
    rig.links.get_mut(&1).unwrap().name = "other".to_owned();
    rig.read_links();
    rig.answer();
    assert!(rig.active("br0") && rig.devices() == [2]);
}

#[test]
fn another_mtu_is_installed_after_a_new_question_and_keeps_the_stations() {
    let mut rig = Rig::running();
    rig.learn(1, 10, 1);
    rig.links.get_mut(&1).unwrap().mtu = 9000;
    rig.read_links();
    assert!(!rig.active("br0"));
    rig.answer();
    assert!(rig.active("br0") && rig.installed()[&1].rules.mtu == 9000);
    assert_eq!(rig.stations(), [1]);
}

#[test]
fn somebody_elses_program_keeps_the_port_out() {
    let foreign = Some(XdpAttachment { prog_id: 99, mode: XdpMode::Native });
    let mut rig = Rig::running_with(|rig| rig.links.get_mut(&1).unwrap().xdp = foreign);
    assert!(rig.active("br0") && rig.devices() == [2]);
    let port = rig.port("p1");
    assert!(port.reason.unwrap().contains("another XDP program (id 99)"));
    assert_eq!(port.reason_code.as_deref(), Some("foreign_xdp"));
    rig.links.get_mut(&1).unwrap().xdp = None;
    rig.read_links();
    assert_eq!(rig.devices(), [1, 2]);
}

#[test]
fn failed_install_is_tried_again_later_and_leaves_the_bridge_in_peace() {
    let mut rig = Rig::running_with(|rig| rig.agent.dataplane.vanished.extend([1]));
    assert!(rig.active("br0") && rig.devices() == [2]);
    assert!(!rig.agent.status().ready);
    rig.wait(1);
    assert!(rig.port("p1").reason.unwrap().contains("cannot attach"));
    let before = probes(&rig);
    for _ in 0..40 {
        rig.wait(1);
        assert!(rig.active("br0"));
    }
    assert_eq!(probes(&rig), before, "not suspended even for a moment");
    rig.agent.dataplane.vanished.clear();
    rig.wait(11);
    assert!(rig.devices() == [1, 2] && rig.agent.status().ready);
}

#[test]
fn failed_install_is_tried_again_at_once_on_a_new_device() {
    let mut rig = Rig::running_with(|rig| rig.agent.dataplane.vanished.extend([1]));
    rig.agent.dataplane.vanished.clear();
    rig.links.get_mut(&1).unwrap().incarnation = 1;
    rig.read_links();
    assert_eq!(rig.devices(), [1, 2]);
}

fn offload(rig: &Rig) -> Vec<bool> {
    let switched = rig.log.iter().filter_map(|effect| match effect {
        Effect::RxVlanOffload { ifindex: 1, on, .. } => Some(*on),
        _ => None,
    });
    switched.collect()
}

fn running_with_a_nic(change: impl FnOnce(&mut Rig)) -> Rig {
    Rig::running_with(|rig| {
        rig.links.insert(1, Link { rx_vlan_offload: Some(true), ..nic("p1", 1) });
        change(rig);
    })
}

#[test]
fn offload_is_switched_off_for_the_program_and_on_after_it() {
    let mut rig = running_with_a_nic(|_| {});
    assert!(rig.active("br0") && rig.devices() == [1, 2]);
    assert_eq!(offload(&rig), [false]);
    rig.vsctl(|database| database.add_mirror("br0", "m0"));
    assert_eq!(offload(&rig), [false, true]);
    assert_eq!(rig.links[&1].rx_vlan_offload, Some(true));
    rig.vsctl(|database| database.bridge("br0").mirrors.clear());
    assert_eq!(offload(&rig), [false, true, false]);
    assert_eq!(rig.devices(), [1, 2]);
    let (failures, effects) = rig.agent.give_back();
    assert!(
        failures.is_empty() && matches!(effects[..], [Effect::RxVlanOffload { ifindex: 1, on: true, .. }])
    );
}

#[test]
fn offload_of_a_bridge_that_its_flows_rule_out_is_not_touched() {
    let rig = running_with_a_nic(|rig| rig.side("br0").flow_table = other_flows());
    assert_eq!(offload(&rig), [] as [bool; 0]);
}

#[test]
fn offload_that_cannot_be_switched_is_the_reason() {
    let mut rig = running_with_a_nic(|rig| rig.fixed = true);
    rig.wait(30);
    assert!(rig.active("br0") && rig.devices() == [2]);
    assert!(rig.port("p1").reason.unwrap().contains("cannot be switched off: the driver does not let it"));
    assert_eq!(offload(&rig), [false], "asked once");
    assert!(rig.agent.status().ready);
}

#[test]
fn where_offload_cannot_be_switched_tc_takes_the_port() {
    let mut rig = running_with_a_nic(|rig| (rig.fixed, rig.agent.tcx) = (true, true));
    rig.wait(30);
    assert!(rig.active("br0") && rig.devices() == [1, 2]);
    let port = rig.port("p1");
    assert!(port.hook == "tc" && port.hook_reason.unwrap().contains("cannot be switched off"));
    assert_eq!(offload(&rig), [false], "asked once");
    assert!(rig.agent.status().ready);
}

#[test]
fn a_device_that_takes_no_xdp_program_has_tc_until_it_changes() {
    let mut rig = Rig::running_with(|rig| {
        rig.agent.tcx = true;
        rig.agent.dataplane.without_xdp.extend([1]);
    });
    rig.wait(1);
    rig.answer();
    let hooks = |rig: &mut Rig| [rig.port("p1").hook, rig.port("p2").hook];
    assert!(rig.active("br0") && rig.devices() == [1, 2]);
    assert_eq!(hooks(&mut rig), ["tc", "xdp+tc"]);
    assert!(rig.port("p1").hook_reason.unwrap().contains("XDP is not possible: cannot attach to p1"));
    assert!(rig.agent.status().ready);
    rig.agent.dataplane.without_xdp.clear();
    rig.wait(30);
    assert_eq!(hooks(&mut rig), ["tc", "xdp+tc"], "not tried again");
    rig.links.get_mut(&1).unwrap().mtu = 1400;
    rig.read_links();
    rig.answer();
    assert_eq!(hooks(&mut rig), ["xdp+tc", "xdp+tc"]);
}

#[test]
fn offload_that_somebody_switches_on_again_takes_the_port_out_for_a_while() {
    let mut rig = running_with_a_nic(|_| {});
    rig.wait(20);
    rig.links.get_mut(&1).unwrap().rx_vlan_offload = Some(true);
    rig.read_links();
    assert!(!rig.active("br0"), "a tag may be hidden from now on");
    rig.answer();
    assert_eq!((rig.devices(), offload(&rig)), (vec![1, 2], vec![false, false]));
    rig.links.get_mut(&1).unwrap().rx_vlan_offload = Some(true);
    rig.read_links();
    rig.answer();
    assert_eq!((rig.devices(), offload(&rig).len()), (vec![2], 2), "not fought over");
    rig.wait(11);
    assert_eq!(rig.devices(), [1, 2]);
}

#[test]
fn replaced_device_has_its_own_offload() {
    let mut rig = running_with_a_nic(|_| {});
    let link = rig.links.get_mut(&1).unwrap();
    (link.incarnation, link.rx_vlan_offload) = (1, Some(true));
    rig.read_links();
    rig.answer();
    assert_eq!((rig.devices(), offload(&rig)), (vec![1, 2], vec![false, false]));
}
