//! What is set by OpenFlow only.

use super::rig::Rig;
use super::{other_flows, probes};
use crate::openflow::PortFlags;
use crate::unixctl::FlowTable;

#[test]
fn openflow_rule_gates_the_bridge_until_it_is_gone() {
    let mut rig = Rig::running();
    rig.set_flows("br0", other_flows());
    assert!(!rig.active("br0"), "at once");
    rig.answer();
    assert!(rig.devices().is_empty());
    assert!(rig.bridge("br0").reason.unwrap().contains("priority=1,actions=drop"));
    rig.set_flows("br0", FlowTable::NormalOnly);
    rig.answer();
    assert!(rig.active("br0") && rig.devices() == [1, 2]);
}

#[test]
fn openflow_rule_that_nobody_told_of_is_found_by_polling() {
    let mut rig = Rig::running();
    rig.side("br0").flow_table = other_flows();
    rig.wait(11);
    assert!(!rig.active("br0") && rig.devices().is_empty());
    rig.side("br0").flow_table = FlowTable::NormalOnly;
    rig.wait(11);
    assert!(rig.active("br0"));
}

#[test]
fn flows_that_change_all_the_time_are_not_asked_for_all_the_time() {
    let mut rig = Rig::running();
    rig.tick();
    let before = probes(&rig);
    for _ in 0..1000 {
        rig.set_flows("br0", FlowTable::NormalOnly);
        rig.answer();
    }
    assert!(probes(&rig) - before <= 10);
    assert!(!rig.active("br0"));
    rig.wait(1);
    assert!(rig.active("br0"), "and it goes on");
}

#[test]
fn port_flag_gates_the_port_until_it_is_cleared() {
    let mut rig = Rig::running();
    rig.side("br0").port_flags.insert(1, PortFlags { no_forward: true, ..PortFlags::default() });
    rig.tell_flags("br0");
    assert!(!rig.active("br0"), "at once");
    rig.answer();
    assert!(rig.active("br0") && rig.devices() == [2]);
    assert!(rig.port("p1").reason.unwrap().contains("no-forward"));
    rig.side("br0").port_flags.clear();
    rig.tell_flags("br0");
    assert!(rig.active("br0") && rig.devices() == [1, 2]);
}

#[test]
fn without_openflow_the_flags_are_not_known_and_the_bridge_waits() {
    let mut rig = Rig::running();
    rig.unfollow("br0");
    rig.wait(5);
    assert!(!rig.active("br0"));
    assert!(rig.bridge("br0").reason.unwrap().contains("port flags cannot be read: closed"));
    rig.follow("br0");
    rig.answer();
    assert!(rig.active("br0"));
}
