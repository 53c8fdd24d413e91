//! Tables that fill up, frames that are too long, checksums that are not finished: Open vSwitch gets them.

use trunkline_core::Mac;
use trunkline_tests::{Frame, Switch, Vlan, station};

use crate::tape::{converse, same_with_and_without, three_access_ports};

/// More than any port's learning limit.
const MANY: usize = 1500;

#[test]
fn stations_beyond_the_learning_limit_are_served_by_open_vswitch() {
    let switch = three_access_ports().accelerated();
    let (a, b) = (station(), station());
    let (there, back) = (Frame::new(a, b), Frame::new(b, a));
    converse(&switch, ("p3", &there), ("p2", &back));
    for _ in 0..2 {
        let crowd: Vec<Frame> = (0..MANY).map(|_| Frame::new(station(), b)).collect();
        let mut exchange = switch.begin();
        for some in crowd.chunks(64) {
            let frames: Vec<(&str, &Frame)> = some.iter().map(|frame| ("p1", frame)).collect();
            exchange.send(&frames, Some(frames.len()));
        }
        let arrived = exchange.finish();
        for frame in &crowd {
            assert_eq!(arrived.ports(frame), ["p2"]);
        }
    }
    let before = switch.forwarded("p3");
    let frame = there.another();
    assert_eq!(switch.exchange_one("p3", &frame).ports(&frame), ["p2"]);
    assert!(before.is_none() || switch.forwarded("p3") > before, "another port's stations are still known");
}

#[test]
fn longest_frames_and_longer_ones() {
    let build = || {
        Switch::new()
            .port("p1", Vlan::Access(10))
            .port("t1", Vlan::Trunk(vec![10]))
            .port("p2", Vlan::Access(10))
    };
    same_with_and_without(build, |tape| {
        for far in ["t1", "p2"] {
            let (a, b) = (station(), station());
            let tag = (far == "t1").then(|| trunkline_tests::tag(trunkline_core::Tpid::Dot1Q, 0, false, 10));
            converse(tape, ("p1", &Frame::new(a, b)), (far, &Frame::new(b, a).tagged(tag)));
            // The Ethernet type is followed by this and 12 octets; the MTU is 1500.
            for payload in [1484, 1488, 1489, 1492, 1493] {
                tape.step(&format!("{payload} to {far}"), "p1", &Frame::new(a, b).payload(payload));
            }
        }
    });
}

#[test]
fn datagram_with_an_unfinished_checksum_is_left_to_open_vswitch() {
    same_with_and_without(three_access_ports, |tape| {
        let (a, b) = (station(), station());
        let there = Frame::new(a, b);
        converse(tape, ("p1", &there), ("p2", &Frame::new(b, a)));
        let before = tape.forwarded("p1");
        tape.step("unfinished", "p1", &Frame::new(a, b).udp(false));
        assert_eq!(tape.forwarded("p1"), before, "not by the fast path");
        tape.step("finished", "p1", &Frame::new(a, b).udp(true));
        assert!(before.is_none() || tape.forwarded("p1") > before, "by the fast path");
    });
}

#[test]
fn reserved_group_and_stacked_frames_are_treated_as_by_open_vswitch() {
    let build = || three_access_ports().port("t1", Vlan::Trunk(vec![]));
    same_with_and_without(build, |tape| {
        let destinations = [
            [0x01, 0x80, 0xc2, 0, 0, 0],
            [0x01, 0x80, 0xc2, 0, 0, 0x0e],
            [0x01, 0x80, 0xc2, 0, 0, 0x10],
            [0x00, 0xe0, 0x2b, 0, 0, 0],
            [0x01, 0x00, 0x5e, 0, 0, 1],
            [0x33, 0x33, 0, 0, 0, 1],
            [0; 6],
        ];
        for destination in destinations {
            for _ in 0..2 {
                tape.step(
                    &format!("to {destination:02x?}"),
                    "p1",
                    &Frame::new(station(), Mac::new(destination)),
                );
            }
        }
        tape.step("from a group address", "p1", &Frame::new(Mac::new([0x03, 0, 0, 0, 0, 9]), station()));
        let (a, b) = (station(), station());
        tape.step("to its own port, unknown", "p1", &Frame::new(a, b));
        tape.step("to its own port", "p1", &Frame::new(b, a));
        tape.step("to its own port again", "p1", &Frame::new(a, b));
    });
}
