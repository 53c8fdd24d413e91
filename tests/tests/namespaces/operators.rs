//! Stations that the operator enters and removes.

use std::time::{Duration, Instant};

use trunkline_tests::{BRIDGE, Frame, station};

use crate::tape::{converse, same_with_and_without, three_access_ports};

/// Open vSwitch tells nobody; the agent asks every second.
const NOTICED: Duration = Duration::from_secs(3);

fn within(limit: Duration, what: &str, work: impl FnOnce()) {
    let start = Instant::now();
    work();
    assert!(start.elapsed() < limit, "{what} took {:?}", start.elapsed());
}

#[test]
fn entry_of_the_operator_directs_frames_until_it_is_removed() {
    same_with_and_without(three_access_ports, |tape| {
        let (a, b) = (station(), station());
        let (there, back) = (Frame::new(a, b), Frame::new(b, a));
        converse(tape, ("p1", &there), ("p2", &back));
        tape.settle();
        tape.ovs().appctl(&format!("fdb/add {BRIDGE} p3 10 {b}"));
        within(NOTICED, "the entry", || tape.step_until("to the entry", "p1", &there, &["p3"]));
        tape.wait_fast("p1", &there);
        // An entry does not move, whatever the station does.
        tape.step("from another port than the entry's", "p2", &back.another());
        tape.step_to("to the entry still", "p1", &there.another(), &["p3"]);
        tape.ovs().appctl(&format!("fdb/flush {BRIDGE}"));
        tape.step("to the entry after a flush", "p1", &there.another());
        tape.ovs().appctl(&format!("fdb/del {BRIDGE} 10 {b}"));
        within(NOTICED, "the removal", || tape.step_until("removed", "p1", &there, &["p2", "p3"]));
        converse(tape, ("p1", &there), ("p2", &back));
    });
}
