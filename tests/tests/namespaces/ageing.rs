//! Stations whose frames Open vSwitch hardly sees must not age out of its table.

use std::thread;
use std::time::{Duration, Instant};

use trunkline_tests::{BRIDGE, Frame, Switch, Vlan, station};

use crate::tape::converse;

#[test]
fn stream_through_the_fast_path_keeps_both_stations_in_open_vswitchs_table() {
    let switch = Switch::new().port("p1", Vlan::Access(10)).port("p2", Vlan::Access(10));
    switch.ovs().vsctl(&format!("set Bridge {BRIDGE} other_config:mac-aging-time=15"));
    let switch = switch.accelerated();
    let (a, b) = (station(), station());
    let (there, back) = (Frame::new(a, b), Frame::new(b, a));
    converse(&switch, ("p1", &there), ("p2", &back));
    let before = ["p1", "p2"].map(|port| switch.forwarded(port));
    let (start, mut sent) = (Instant::now(), 0_u64);
    while start.elapsed() < Duration::from_secs(40) {
        let (there, back) = (there.another(), back.another());
        switch.send("p1", &there);
        switch.send("p2", &back);
        sent += 1;
        thread::sleep(Duration::from_millis(10));
        if sent.is_multiple_of(50) {
            switch.drain();
            let table = switch.ovs().fdb(BRIDGE);
            for (mac, port) in [(a, "p1"), (b, "p2")] {
                let known = table.iter().any(|row| row.0 == port && row.1 == 10 && row.2 == mac.to_string());
                assert!(known, "after {:?}, {mac} is not at {port}: {table:?}", start.elapsed());
            }
        }
    }
    for (port, before) in ["p1", "p2"].into_iter().zip(before) {
        let fast = switch.forwarded(port).zip(before).map(|(after, before)| after - before);
        assert!(
            fast.is_none_or(|fast| fast >= sent * 9 / 10),
            "{fast:?} of {sent} frames from {port} were fast"
        );
    }
}
