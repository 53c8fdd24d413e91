//! The fast path follows what Open vSwitch has applied, not what the database says.

use std::time::{Duration, Instant};

use trunkline_core::Tpid;
use trunkline_tests::{BRIDGE, Frame, Switch, Vlan, station, tag};

use crate::tape::{Tape, converse, same_with_and_without, three_access_ports};

const SILENT: &str = "was written without waiting";

fn with_a_trunk() -> Switch {
    three_access_ports().port("t1", Vlan::Trunk(vec![10, 20]))
}

/// A conversation between p1 and VLAN 10 of the trunk.
fn talk(tape: &Tape) -> (Frame, Frame) {
    let (a, b) = (station(), station());
    let (there, back) = (Frame::new(a, b), Frame::new(b, a).tagged(tag(Tpid::Dot1Q, 0, false, 10)));
    converse(tape, ("p1", &there), ("t1", &back));
    tape.settle();
    (there, back)
}

fn explains_the_wait(tape: &mut Tape, sentence: &str) {
    tape.wait_status("the wait to be explained", |status| {
        status.bridge(BRIDGE).is_some_and(|bridge| {
            !bridge.accelerated && bridge.reason.as_ref().is_some_and(|reason| reason.contains(sentence))
        })
    });
}

/// For long enough that whoever reads only the database would have acted.
fn nothing_changes(tape: &mut Tape, label: &str, there: &Frame, back: &Frame) {
    for _ in 0..4 {
        tape.step_to(label, "p1", &there.another(), &["t1"]);
        tape.step_to(label, "t1", &back.another(), &["p1"]);
    }
}

#[test]
fn trunks_that_are_written_without_waiting_wait_for_open_vswitch() {
    same_with_and_without(with_a_trunk, |tape| {
        let (there, back) = talk(tape);
        tape.ovs().vsctl("--no-wait set Port t1 trunks=20");
        nothing_changes(tape, "written, not applied", &there, &back);
        explains_the_wait(tape, SILENT);
        tape.ovs().vsctl(&format!("set Bridge {BRIDGE} external_ids:any=change"));
        tape.settle();
        tape.step_to("applied with the next change", "p1", &there.another(), &["p2", "p3"]);
        assert_eq!(tape.step("not admitted", "t1", &back.another()), [""; 0]);
        tape.wait_accelerated();
        tape.ovs().vsctl("set Port t1 trunks=10,20");
        tape.settle();
        tape.wait_accelerated();
        converse(tape, ("p1", &there), ("t1", &back));
    });
}

/// Any event of any device makes ovs-vswitchd apply what is written, and nothing in the database tells of it.
#[test]
fn trunks_that_were_applied_unseen_and_taken_back_are_still_uncertain() {
    same_with_and_without(with_a_trunk, |tape| {
        let (there, back) = talk(tape);
        tape.ovs().vsctl("--no-wait set Port t1 trunks=20");
        tape.netns().run("ip link set lo up");
        tape.step_until("applied unseen", "t1", &back, &[]);
        tape.ovs().vsctl("--no-wait set Port t1 trunks=10,20");
        explains_the_wait(tape, SILENT);
        tape.settle();
        for _ in 0..4 {
            assert_eq!(tape.step("taken back, not applied", "t1", &back.another()), [""; 0]);
            tape.step("taken back, not applied", "p1", &there.another());
        }
        tape.ovs().vsctl(&format!("set Bridge {BRIDGE} external_ids:any=change"));
        tape.settle();
        tape.wait_accelerated();
        converse(tape, ("p1", &there), ("t1", &back));
    });
}

#[test]
fn spanning_tree_that_is_written_without_waiting_waits_for_open_vswitch() {
    same_with_and_without(with_a_trunk, |tape| {
        let (there, back) = talk(tape);
        tape.ovs().vsctl(&format!("--no-wait set Bridge {BRIDGE} stp_enable=true"));
        nothing_changes(tape, "written, not applied", &there, &back);
        tape.ovs().vsctl(&format!("set Bridge {BRIDGE} external_ids:any=change"));
        tape.settle();
        assert_eq!(tape.step("the port is listening", "p1", &there.another()), [""; 0]);
        tape.wait_status("spanning tree to be named", |status| {
            let reason = status.bridge(BRIDGE).and_then(|bridge| bridge.reason.as_ref());
            reason.is_some_and(|reason| reason.contains("Bridge.stp_enable"))
        });
        tape.ovs().vsctl(&format!("set Bridge {BRIDGE} stp_enable=false"));
        tape.settle();
        tape.wait_accelerated();
        converse(tape, ("p1", &there), ("t1", &back));
    });
}

/// ovs-vswitchd tries to connect 1, 3 and 7 s after the database went away, and knows of no change until then. Its userspace
/// datapath does not forward meanwhile (`bridge_run` without the lock), so there are no frames to compare.
#[test]
fn tag_that_is_written_before_open_vswitch_has_connected_again_waits_for_it() {
    same_with_and_without(three_access_ports, |tape| {
        let (a, b) = (station(), station());
        let (there, back) = (Frame::new(a, b), Frame::new(b, a));
        converse(tape, ("p1", &there), ("p2", &back));
        tape.settle();
        tape.restart_ovsdb_after(Duration::from_millis(3500));
        tape.ovs().vsctl("--no-wait set Port p2 tag=20");
        explains_the_wait(tape, "have yet to connect");
        tape.step_until("connected", "p1", &there, &["p3"]);
        tape.wait_accelerated();
        tape.ovs().vsctl("set Port p2 tag=10");
        tape.settle();
        converse(tape, ("p1", &there), ("p2", &back));
    });
}

/// A tag wakes ovs-vswitchd although nobody waits.
#[test]
fn tag_that_is_written_without_waiting_is_followed_within_a_second() {
    same_with_and_without(three_access_ports, |tape| {
        let (a, b) = (station(), station());
        let (there, back) = (Frame::new(a, b), Frame::new(b, a));
        converse(tape, ("p1", &there), ("p2", &back));
        tape.settle();
        for (vid, expected) in [(20, &["p3"][..]), (10, &["p2", "p3"])] {
            tape.ovs().vsctl(&format!("--no-wait set Port p2 tag={vid}"));
            let start = Instant::now();
            tape.step_until("the new tag", "p1", &there, expected);
            let followed = start.elapsed();
            assert!(followed < Duration::from_secs(1), "followed after {followed:?}");
            tape.wait_accelerated();
        }
        tape.wait_accelerated();
        converse(tape, ("p1", &there), ("p2", &back));
    });
}
