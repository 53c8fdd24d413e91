mod devices;
mod openflow;
mod random;
mod rig;

use trunkline_core::abi;

use crate::event::{Effect, Event, Probe};
use crate::fixture::{Database, tap};
use crate::links::LinkEvent;
use crate::ovsdb::{OvsdbEvent, Uuid};
use crate::unixctl::{FdbAge, FdbStats, FlowTable};

use rig::{Rig, row};

fn other_flows() -> FlowTable {
    FlowTable::Other { first: "priority=1,actions=drop".to_owned(), count: 1 }
}

fn probes(rig: &Rig) -> usize {
    rig.log.iter().filter(|effect| matches!(effect, Effect::Probe { .. })).count()
}

#[test]
fn bridge_is_active_once_everything_is_known() {
    let mut rig = Rig::new(Database::small());
    assert!(!rig.agent.status().ready);
    rig.tick();
    rig.hear(OvsdbEvent::Connected);
    rig.read_database();
    assert!(!rig.agent.status().ready);
    rig.answer();
    assert!(rig.bridge("br0").reason.unwrap().contains("devices cannot be read"));
    rig.read_links();
    assert!(!rig.active("br0") && rig.devices().is_empty(), "not before flows and stations are known");
    rig.answer();
    assert!(rig.active("br0") && rig.agent.status().ready);
    assert_eq!(rig.devices(), [1, 2]);
    let port = rig.port("p1");
    assert_eq!((port.hook.as_str(), port.accelerated, port.reason), ("xdp-native", true, None));
    assert_eq!(rig.agent.status().ovs.version.as_deref(), Some("3.1.0"));
}

#[test]
fn nothing_is_ready_before_the_database_is_read() {
    let mut rig = Rig::new(Database::new());
    rig.tick();
    rig.read_links();
    rig.hear(OvsdbEvent::Connected);
    assert!(!rig.agent.status().ready && !rig.agent.status().ovs.connected);
    rig.read_database();
    assert!(rig.agent.status().ready, "there is nothing to accelerate");
}

#[test]
fn announced_change_suspends_at_once_and_is_installed_after_it_was_applied_and_asked_about() {
    let mut rig = Rig::running();
    let port = rig.database.port("p1");
    (port.tag, port.protected) = (Some(20), true);
    rig.database.announce();
    rig.read_database();
    assert!(!rig.active("br0"));
    assert_eq!(rig.bridge("br0").reason.unwrap(), "ovs-vswitchd is applying a change of configuration");
    rig.wait(3);
    assert_eq!(rig.installed()[&1].rules.pvid, 10, "not before it is applied");
    rig.database.confirm();
    rig.read_database();
    assert!(!rig.active("br0"), "not before ovs-vswitchd was asked");
    rig.answer();
    assert!(rig.active("br0"));
    assert_eq!(rig.installed()[&1].rules.pvid, 20);
}

/// A tag is changed, and ovs-vswitchd says that it has applied that; nobody has been asked yet.
fn retag(rig: &mut Rig, tag: u16) {
    rig.write(|database| {
        database.port("p1").tag = Some(tag);
        database.announce();
    });
    rig.write(Database::confirm);
}

#[test]
fn change_of_vlans_is_in_force_when_it_was_applied_and_stations_are_confirmed_later() {
    let mut rig = Rig::running();
    rig.learn(1, 10, 1);
    rig.learn(2, 10, 2);
    rig.write(|database| {
        database.port("p1").tag = Some(20);
        database.announce();
    });
    assert!(!rig.active("br0"));
    rig.wait(3);
    assert!(!rig.active("br0") && rig.installed()[&1].rules.pvid == 10, "not before it is applied");
    rig.side("br0").stations.remove(0); // As Open vSwitch does.
    rig.write(Database::confirm);
    assert!(rig.active("br0") && rig.installed()[&1].rules.pvid == 20);
    assert!(rig.in_use().is_empty() && !rig.agent.status().ready);
    rig.answer();
    assert_eq!((rig.in_use(), rig.stations()), (vec![2], vec![2]));
    assert!(rig.active("br0") && rig.agent.status().ready);
}

#[test]
fn stations_have_their_age_back_when_they_are_confirmed() {
    let mut rig = Rig::running();
    rig.learn(2, 10, 2);
    let before = rig.agent.dataplane.stations.clone();
    rig.wait(5);
    for tag in [20, 10] {
        retag(&mut rig, tag);
        rig.tick();
    }
    assert!(rig.in_use().is_empty(), "the second change came before the answer");
    rig.answer();
    assert_eq!(rig.agent.dataplane.stations, before);
}

#[test]
fn station_that_moved_unseen_is_not_used_and_one_that_was_seen_since_keeps_its_place() {
    let mut rig = Rig::running();
    rig.learn(1, 10, 2);
    rig.learn(2, 10, 2);
    rig.write(|database| {
        database.port("p1").tag = Some(20);
        database.announce();
    });
    rig.side("br0").stations[0] = row(1, 20, 1);
    rig.write(Database::confirm);
    rig.learn(2, 10, 2);
    assert_eq!(rig.in_use(), [2], "it has sent a frame");
    rig.learn(1, 20, 1);
    rig.answer();
    assert_eq!(rig.in_use(), [2, 1], "by VLAN");
}

#[test]
fn late_confirmation_does_not_take_a_station_back() {
    let mut rig = Rig::running();
    rig.learn(1, 10, 1);
    retag(&mut rig, 20);
    retag(&mut rig, 10);
    rig.early = true;
    rig.side("br0").stations.clear();
    rig.learn(1, 10, 2);
    let place = rig.agent.dataplane.stations.values().next().unwrap().port;
    rig.answer();
    let places: Vec<u16> = rig.agent.dataplane.stations.values().map(|entry| entry.port).collect();
    assert!(places.is_empty() || places == [place], "{places:?}");
}

#[test]
fn whoever_changes_more_than_vlans_is_asked_first() {
    type Change = fn(&mut Rig);
    let changes: [(&str, Change); 7] = [
        ("another column", |rig| rig.database.port("p2").protected = true),
        ("a port", |rig| rig.database.add_port("br0", "p3", 3).tag = Some(10)),
        ("the ageing time", |rig| {
            let config = &mut rig.database.bridge("br0").other_config;
            config.insert("mac-aging-time".to_owned(), "20".to_owned());
        }),
        ("flows", |rig| rig.set_flows("br0", FlowTable::NormalOnly)),
        ("ovs-vswitchd", |rig| {
            rig.restart_vswitchd();
            rig.feed(Event::Vswitchd(rig.host.vswitchd));
        }),
        ("a device", |rig| {
            rig.links.get_mut(&2).unwrap().incarnation += 1;
            rig.read_links();
        }),
        ("the devices", |rig| {
            rig.feed(Event::Links(LinkEvent::Failed { cause: "no memory".to_owned() }));
            rig.read_links();
        }),
    ];
    for (what, change) in changes {
        let mut rig = Rig::running();
        rig.database.port("p1").tag = Some(20);
        rig.database.announce();
        rig.read_database();
        change(&mut rig);
        rig.effects.clear();
        rig.read_database();
        rig.database.announce();
        rig.read_database();
        rig.write(Database::confirm);
        assert!(!rig.active("br0"), "{what}");
        rig.answer();
        assert!(rig.active("br0") && rig.agent.status().ready, "{what}");
    }
}

#[test]
fn bridge_with_an_operators_entry_is_asked_first() {
    let mut rig = Rig::running();
    rig.side("br0").stations = vec![crate::unixctl::FdbRow { age: FdbAge::Static, ..row(9, 10, 2) }];
    rig.side("br0").stats.current += 1;
    rig.wait(1);
    retag(&mut rig, 20);
    assert!(!rig.active("br0"));
    rig.answer();
    assert!(rig.active("br0") && rig.stations() == [9]);
    rig.side("br0").stations.clear();
    rig.side("br0").stats.current -= 1;
    rig.wait(1);
    retag(&mut rig, 10);
    assert!(rig.active("br0"), "it is gone");
}

#[test]
fn bridge_is_held_when_its_stations_cannot_be_confirmed() {
    let mut rig = Rig::running();
    rig.learn(2, 10, 2);
    rig.side("br0").trouble = Some("no answer".to_owned());
    retag(&mut rig, 20);
    assert!(rig.active("br0"));
    rig.answer();
    assert!(!rig.active("br0"));
    assert_eq!(rig.bridge("br0").reason.unwrap(), "no answer");
    rig.side("br0").trouble = None;
    rig.wait(2);
    assert!(rig.active("br0") && rig.agent.status().ready);
}

#[test]
fn changes_without_end_are_asked_about_first_after_some() {
    let mut rig = Rig::running();
    for round in 0..20u16 {
        rig.write(|database| {
            database.port("p1").tag = Some(20 + round);
            database.announce();
        });
        rig.write(Database::confirm);
    }
    assert!(!rig.active("br0") && probes(&rig) <= 12);
    rig.wait(1);
    assert!(rig.active("br0"));
}

#[test]
fn answer_to_a_question_from_before_a_change_counts_for_nothing() {
    let mut rig = Rig::running();
    rig.set_flows("br0", FlowTable::NormalOnly);
    let old = rig.effects.pop_back().expect("a question");
    rig.set_flows("br0", other_flows());
    let new = rig.effects.pop_back().expect("another one");
    rig.execute(old);
    assert!(!rig.active("br0"));
    rig.execute(new);
    assert!(rig.bridge("br0").reason.unwrap().contains("OpenFlow"));
}

#[test]
fn poll_from_before_a_change_counts_for_nothing() {
    let mut rig = Rig::running();
    for _ in 0..9 {
        rig.wait(1);
    }
    rig.tick();
    let poll = rig.effects.pop_back().expect("a poll");
    assert!(matches!(poll, Effect::Poll { flows: true, .. }), "{poll:?}");
    rig.set_flows("br0", other_flows());
    rig.answer();
    let Effect::Poll { bridge, question, .. } = poll else { unreachable!() };
    let stale = crate::event::Poll {
        flow_table: Some(FlowTable::NormalOnly),
        stats: FdbStats::default(),
        stations: None,
    };
    rig.feed(Event::Polled { bridge, question, answer: Ok(stale) });
    assert!(rig.bridge("br0").reason.unwrap().contains("OpenFlow"));
}

#[test]
fn change_without_announcement_waits_for_a_barrier() {
    let mut rig = Rig::running();
    rig.write(|database| database.port("p1").tag = Some(20));
    assert!(!rig.active("br0"));
    let Some(Effect::Barrier { update, connecting: false }) = rig.effects.pop_front() else {
        panic!("ovs-vswitchd is not waited for")
    };
    assert!(rig.effects.is_empty(), "nothing is asked before");
    rig.wait(2);
    assert!(!rig.active("br0"));
    rig.feed(Event::BarrierPassed(update));
    rig.answer();
    assert!(rig.active("br0") && rig.installed()[&1].rules.pvid == 20);
}

#[test]
fn silent_change_is_waited_for_with_a_sentence() {
    let mut rig = Rig::running();
    rig.write(|database| database.port("p1").vlan_mode = Some("native-tagged".into()));
    rig.answer();
    rig.wait(30);
    assert!(!rig.active("br0") && !rig.agent.status().ready);
    assert!(rig.bridge("br0").reason.unwrap().contains("written without waiting"));
    assert!(!rig.installed()[&1].rules.has(abi::PORT_ACCEPT_TAGGED), "the old rules stay");
    rig.vsctl(|_| {});
    assert!(rig.active("br0") && rig.installed()[&1].rules.has(abi::PORT_ACCEPT_TAGGED));
}

#[test]
fn retagged_port_loses_its_stations_and_no_other_does() {
    let mut rig = Rig::running();
    rig.learn(1, 10, 1);
    rig.learn(2, 10, 2);
    rig.side("br0").stations.remove(0); // As Open vSwitch does.
    rig.vsctl(|database| database.port("p1").tag = Some(20));
    assert_eq!(rig.stations(), [2]);
}

#[test]
fn stations_that_open_vswitch_lacks_are_forgotten_before_the_bridge_switches_again() {
    let mut rig = Rig::running();
    rig.learn(1, 10, 1);
    rig.learn(2, 10, 2);
    rig.set_flows("br0", FlowTable::NormalOnly);
    rig.side("br0").stations.clear();
    assert_eq!(rig.stations(), [1, 2]);
    rig.answer();
    assert!(rig.active("br0") && rig.stations().is_empty());
}

#[test]
fn flush_and_operators_entries_are_noticed_by_polling() {
    let mut rig = Rig::running();
    rig.learn(1, 10, 1);
    rig.wait(1);
    assert_eq!(rig.stations(), [1]);
    let side = rig.side("br0");
    side.stations = vec![crate::unixctl::FdbRow { age: FdbAge::Static, ..row(9, 10, 2) }];
    side.stats.current += 1;
    rig.wait(1);
    assert_eq!(rig.stations(), [9]);
    rig.side("br0").stations.clear(); // Without a trace in the counters.
    rig.wait(11);
    assert!(rig.stations().is_empty());
}

/// Puts an operator's entry into Open vSwitch's table.
fn enter_static(rig: &mut Rig, last: u8) {
    let side = rig.side("br0");
    side.stations.push(crate::unixctl::FdbRow { age: FdbAge::Static, ..row(last, 10, 2) });
    side.stats.current += 1;
}

fn fixed(rig: &Rig) -> Vec<u8> {
    let stations = rig.agent.dataplane.stations.iter().filter(|(_, entry)| entry.fixed);
    stations.map(|(key, _)| key.mac.octets()[5]).collect()
}

#[test]
fn learned_stations_make_way_for_an_operators_entry() {
    let mut rig = Rig::running();
    rig.agent.dataplane.capacity = 3;
    for last in [1, 2, 3] {
        rig.learn(last, 10, 1);
    }
    enter_static(&mut rig, 9);
    rig.wait(1);
    assert!(rig.active("br0") && rig.stations().len() <= 3);
    assert_eq!(fixed(&rig), [9]);
    rig.wait(30);
    assert!(rig.active("br0") && rig.agent.status().ready);
    assert_eq!((fixed(&rig), rig.stations().len()), (vec![9], 3), "others have come back");
}

#[test]
fn bridge_whose_operators_entries_have_no_room_is_open_vswitchs_until_there_is() {
    let mut rig = Rig::running();
    rig.learn(1, 10, 1);
    rig.agent.dataplane.capacity = 1;
    enter_static(&mut rig, 8);
    enter_static(&mut rig, 9);
    rig.wait(20);
    assert!(!rig.active("br0"));
    let reason = rig.bridge("br0").reason.unwrap();
    assert!(
        reason.contains("station 02:00:00:00:00:09 in VLAN 10") && reason.contains("--fdb-size"),
        "{reason}"
    );
    rig.agent.dataplane.capacity = 2;
    rig.wait(2);
    assert!(rig.active("br0") && rig.agent.status().ready);
    assert_eq!(fixed(&rig), [8, 9]);
}

#[test]
fn expired_stations_are_swept() {
    let mut rig = Rig::running();
    rig.learn(1, 10, 1);
    rig.wait(299);
    assert_eq!(rig.stations(), [1]);
    rig.side("br0").stations.clear();
    rig.wait(12);
    assert!(rig.stations().is_empty());
}

#[test]
fn mirror_has_the_ports_given_back_until_it_is_removed() {
    let mut rig = Rig::running();
    rig.vsctl(|database| database.add_mirror("br0", "m0"));
    assert!(rig.devices().is_empty() && !rig.active("br0"));
    let bridge = rig.bridge("br0");
    assert!(bridge.reason.unwrap().contains("mirror m0"));
    assert_eq!(bridge.reason_code.as_deref(), Some("mirrored"));
    let port = rig.port("p1");
    assert!(port.reason.unwrap().starts_with("bridge br0: mirror m0"));
    assert_eq!(port.reason_code.as_deref(), Some("bridge_not_accelerated"));
    assert!(rig.agent.status().ready, "all that is wanted is in place");
    let asked = probes(&rig);
    rig.wait(30);
    assert_eq!(probes(&rig), asked, "its flows are of no interest");
    rig.vsctl(|database| database.bridge("br0").mirrors.clear());
    assert!(rig.active("br0") && rig.devices() == [1, 2]);
}

#[test]
fn bridge_with_a_controller_is_neither_asked_nor_followed() {
    let rig = Rig::running_with(|rig| {
        rig.database.add_bridge("br-int");
        rig.database.bridge("br-int").controller.insert(Uuid(99));
    });
    assert!(rig.active("br0"));
    for effect in &rig.log {
        match effect {
            Effect::Probe { bridge, .. } | Effect::Poll { bridge, .. } => assert_eq!(bridge, "br0"),
            Effect::Follow(bridges) => assert_eq!(bridges, &["br0"]),
            _ => {}
        }
    }
}

#[test]
fn lost_database_suspends_until_it_has_been_read_again() {
    let mut rig = Rig::running();
    rig.learn(1, 10, 1);
    rig.hear(OvsdbEvent::Disconnected { cause: "db.sock: gone".to_owned() });
    assert!(!rig.active("br0") && rig.devices() == [1, 2]);
    assert!(rig.agent.status().ovs.reason.unwrap().contains("db.sock"));
    rig.wait(5);
    rig.hear(OvsdbEvent::Connected);
    rig.answer();
    assert!(!rig.active("br0"), "what was read last is out of date");
    rig.database.port("p2").protected = true;
    rig.read_database();
    assert!(!rig.active("br0"));
    rig.answer();
    assert!(rig.active("br0") && rig.installed()[&2].rules.has(abi::PORT_PROTECTED));
    assert_eq!(rig.stations(), [1], "no station is lost by it");
}

#[test]
fn unreadable_devices_suspend_and_the_answer_from_before_does_not_count() {
    let mut rig = Rig::running();
    rig.learn(1, 10, 1);
    rig.feed(Event::Links(LinkEvent::Failed { cause: "no memory".to_owned() }));
    assert!(!rig.active("br0"));
    rig.side("br0").stations.clear();
    rig.read_links();
    assert!(!rig.active("br0"));
    rig.answer();
    assert!(rig.active("br0") && rig.stations().is_empty());
}

#[test]
fn restarted_vswitchd_is_asked_anew_and_has_applied_what_waited() {
    let mut rig = Rig::running();
    rig.learn(1, 10, 1);
    rig.write(|database| database.port("p1").trunks.extend([5]));
    rig.answer();
    rig.tick();
    assert!(!rig.active("br0"));
    let run = rig.host.vswitchd.take();
    rig.tick();
    rig.side("br0").stations.clear();
    rig.host.vswitchd = run;
    rig.restart_vswitchd();
    rig.tick();
    rig.answer();
    assert!(rig.active("br0") && rig.stations().is_empty());
}

#[test]
fn vswitchd_that_does_not_answer_is_asked_once_a_second() {
    let mut rig = Rig::running();
    rig.side("br0").trouble = Some("ovs-vswitchd is not running".to_owned());
    rig.wait(1);
    assert!(!rig.active("br0"));
    let before = probes(&rig);
    rig.wait(20);
    assert!((19..=21).contains(&(probes(&rig) - before)));
    assert_eq!(rig.bridge("br0").reason.unwrap(), "ovs-vswitchd is not running");
    rig.side("br0").trouble = None;
    rig.wait(1);
    assert!(rig.active("br0"));
}

#[test]
fn slow_vswitchd_is_polled_once_at_a_time() {
    let mut rig = Rig::running();
    for _ in 0..9 {
        rig.tick();
    }
    assert_eq!(rig.effects.len(), 1, "{:?}", rig.effects);
}

#[test]
fn added_port_is_accelerated_and_a_deleted_one_forgotten() {
    let mut rig = Rig::running();
    rig.vsctl(|database| database.add_port("br0", "p3", 3).tag = Some(10));
    assert_eq!(rig.devices(), [1, 2, 3]);
    rig.learn(3, 10, 3);
    rig.side("br0").stations.clear();
    rig.vsctl(|database| database.move_port("p3", None));
    assert!(rig.active("br0") && rig.devices() == [1, 2] && rig.stations().is_empty());
}

#[test]
fn deleted_bridge_leaves_nothing() {
    let mut rig = Rig::running();
    rig.learn(1, 10, 1);
    rig.vsctl(|database| database.delete_bridge("br0"));
    let crate::dataplane::Memory { installed, stations, .. } = &rig.agent.dataplane;
    assert!(installed.ports.is_empty() && installed.active.is_empty());
    assert!(stations.is_empty() && rig.agent.dataplane.leases(rig.now_s).is_empty());
    assert_eq!(rig.log.last(), Some(&Effect::Follow(vec![])));
}

#[test]
fn bridge_that_is_deleted_and_created_again_is_asked_anew() {
    let mut rig = Rig::running();
    let question = |rig: &Rig| match rig.log.iter().rfind(|effect| matches!(effect, Effect::Probe { .. })) {
        Some(Effect::Probe { question, .. }) => *question,
        _ => unreachable!(),
    };
    rig.set_flows("br0", FlowTable::NormalOnly);
    let old = question(&rig);
    rig.effects.clear();
    rig.vsctl(|database| database.delete_bridge("br0"));
    rig.database.add_bridge("br0");
    rig.database.move_port("p1", Some("br0"));
    rig.database.announce();
    rig.read_database();
    rig.database.confirm();
    rig.read_database();
    rig.follow("br0");
    let answer =
        Probe { version: "3.1.0".to_owned(), flow_table: FlowTable::NormalOnly, stations: Vec::new() };
    rig.feed(Event::Probed { bridge: "br0".to_owned(), question: old, answer: Ok(answer) });
    assert!(!rig.active("br0"), "that was another bridge's answer");
    rig.answer();
    assert!(rig.active("br0") && rig.devices() == [1]);
}

#[test]
fn port_that_moves_to_another_bridge_is_switched_there() {
    for (names, from, to) in [(["br0", "br1"], "br0", "br1"), (["br0", "abc"], "br0", "abc")] {
        let mut rig = Rig::running_with(|rig| {
            rig.database.add_bridge(names[1]);
            rig.database.add_port(names[1], "p3", 3).tag = Some(10);
        });
        assert_eq!(rig.devices(), [1, 2, 3]);
        rig.learn(1, 10, 1);
        let number = |rig: &Rig, bridge: &str| rig.agent.bridge_no(bridge).unwrap().0;
        assert_eq!(rig.installed()[&1].rules.bridge, number(&rig, from));
        rig.vsctl(|database| database.move_port("p1", Some(to)));
        assert!(rig.active(from) && rig.active(to));
        assert_eq!(rig.installed()[&1].rules.bridge, number(&rig, to));
        assert!(rig.stations().is_empty() && rig.port("p1").accelerated);
        assert!(rig.agent.status().ready);
    }
}

#[test]
fn two_bridges_are_suspended_each_for_itself() {
    let mut rig = Rig::running_with(|rig| {
        rig.database.add_bridge("br1");
        rig.database.add_port("br1", "p3", 3).tag = Some(10);
    });
    rig.write(|database| database.port("p3").tag = Some(11));
    assert!(rig.active("br0") && !rig.active("br1"));
    rig.set_flows("br0", FlowTable::NormalOnly);
    assert!(!rig.active("br0"));
    rig.answer();
    assert!(rig.active("br0") && rig.active("br1"));
}

#[test]
fn selected_bridges_are_the_only_ones() {
    let mut rig = Rig::new(Database::small());
    rig.agent = crate::agent::Agent::new(Default::default(), vec!["br1".to_owned()], None, false);
    rig.database.add_bridge("br1");
    rig.database.add_port("br1", "p3", 3).tag = Some(10);
    rig.read_links();
    rig.read_database();
    rig.answer();
    assert!(rig.active("br1") && rig.devices() == [3]);
    assert!(rig.bridge("br0").reason.unwrap().contains("--bridge"));
}

#[test]
fn more_bridges_and_ports_than_fit_are_left_alone_with_a_reason() {
    let mut rig = Rig::new(Database::new());
    for number in 1..=130u16 {
        let (bridge, port) = (format!("br{number:03}"), format!("q{number}"));
        rig.database.add_bridge(&bridge);
        rig.database.add_port(&bridge, &port, number).tag = Some(10);
        rig.links.insert(u32::from(number), tap(&port, u32::from(number)));
    }
    rig.read_links();
    rig.read_database();
    for _ in 0..5 {
        let effects: Vec<_> = rig.effects.drain(..).collect();
        effects.into_iter().for_each(|effect| rig.execute(effect));
    }
    assert_eq!(rig.devices().len(), abi::MAX_BRIDGES as usize);
    assert!(rig.bridge("br130").reason.unwrap().contains("128 bridges are accelerated already"));
}

#[test]
fn ports_beyond_the_limit_are_left_alone_with_a_reason() {
    let mut rig = Rig::new(Database::small());
    for number in 3..=1026u16 {
        let port = format!("q{number:04}");
        rig.database.add_port("br0", &port, number).tag = Some(10);
        rig.links.insert(u32::from(number), tap(&port, u32::from(number)));
    }
    rig.read_links();
    rig.read_database();
    rig.answer();
    assert!(rig.active("br0"));
    assert_eq!(rig.devices().len(), abi::MAX_PORTS as usize);
    assert!(rig.port("q1026").reason.unwrap().contains("1024 ports are accelerated already"));
    rig.vsctl(|database| database.move_port("p1", None));
    rig.wait(1);
    assert_eq!(rig.devices().len(), abi::MAX_PORTS as usize, "a place has become free");
}

#[test]
fn everything_is_given_back() {
    let mut rig = Rig::running();
    rig.learn(1, 10, 1);
    let (failures, effects) = rig.agent.give_back();
    assert!(failures.is_empty() && effects.is_empty());
    let crate::dataplane::Memory { installed, stations, .. } = &rig.agent.dataplane;
    assert!(installed.ports.is_empty() && installed.active.is_empty());
    assert!(stations.is_empty() && rig.agent.dataplane.leases(rig.now_s).is_empty());
}
