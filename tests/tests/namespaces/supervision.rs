//! A part of the agent that dies or ends takes the whole process with it, and Open vSwitch forwards.
//!
//! A debug build fails on purpose where `TRUNKLINE_FAULT` says, as soon as a file exists.

use std::fs;
use std::time::Duration;

use trunkline_tests::{BRIDGE, Frame, Switch, say, station, wait_for};

use crate::tape::{converse, three_access_ports};

/// Kinds of faults, with the status that the process ends with: `None` for a signal (`abort`).
const FAULTS: [(&str, Option<i32>); 2] = [("panic", None), ("end", Some(1))];

/// What a part does when it fails: `act` has it do something if it only works when asked.
fn fails(kind: &str, part: &str, ends_with: Option<i32>, act: impl Fn(&Switch)) {
    fails_and_then(kind, part, ends_with, act, "p2");
}

/// The same, after which the frames of the conversation arrive at this port.
fn fails_and_then(kind: &str, part: &str, ends_with: Option<i32>, act: impl Fn(&Switch), port: &str) {
    let mut switch = three_access_ports();
    let file = switch.ovs().rundir().join("fault");
    switch.start_agent_with(&[("TRUNKLINE_FAULT", &format!("{kind}:{part}:{}", file.display()))]);
    if switch.agent().is_none() {
        return;
    }
    switch.wait_accelerated();
    let (a, b) = (station(), station());
    let (there, back) = (Frame::new(a, b), Frame::new(b, a));
    converse(&switch, ("p1", &there), ("p2", &back));

    fs::write(&file, "").expect("a file in the run directory");
    act(&switch);
    let mut agent = switch.take_agent().expect("it was started");
    let status = agent.wait_end(Duration::from_secs(20));
    let log = agent.log();
    assert_eq!(status.code(), ends_with, "{kind} of the part to {part}: {status}\n{log}");
    assert!(log.contains(part) || log.contains("fault on purpose"), "it says which:\n{log}");
    wait_for("XDP to be gone", Duration::from_secs(5), || {
        switch.netns().devices_with_xdp().is_empty().then_some(())
    });
    let before = switch.ovs().frames_handled(BRIDGE);
    for _ in 0..10 {
        let frame = there.another();
        assert_eq!(switch.exchange_expecting(&[("p1", &frame)], Some(1)).ports(&frame), [port]);
    }
    assert_eq!(switch.ovs().frames_handled(BRIDGE) - before, 10, "every frame is Open vSwitch's");
}

#[test]
fn parts_that_last_as_long_as_the_agent_take_it_with_them() {
    let parts = [
        "read the database",
        "serve the command line",
        "follow the kernel's devices",
        "follow a bridge's flows",
    ];
    for (kind, ends_with) in FAULTS {
        for part in parts {
            fails(kind, part, ends_with, |_| {});
        }
    }
    say("supervision: 4 parts that last, each panicked once and ended once");
}

#[test]
fn a_question_that_panics_takes_the_agent_with_it() {
    let set = |column: &'static str| {
        move |switch: &Switch| drop(switch.ovs().vsctl(&format!("set Port p3 {column}")))
    };
    fails("panic", "poll", None, |_| {});
    // An operator's change of something else than VLANs has the bridge asked anew.
    fails("panic", "probe", None, set("other_config:priority-tags=always"));
    fails("panic", "barrier", None, |switch| drop(switch.ovs().vsctl("--no-wait set Port p3 tag=11")));
    fails("panic", "drain", None, set("tag=11"));
    // The stations of a port that is gone are freed; p3 is all that is left in the VLAN.
    fails_and_then("panic", "free", None, |switch| drop(switch.ovs().vsctl("del-port p2")), "p3");
    say("supervision: 5 short-lived parts, each panicked once");
}
