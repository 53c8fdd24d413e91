//! Stations that move.

use trunkline_core::Mac;
use trunkline_tests::{BRIDGE, Frame, Switch, station};

use crate::tape::{Tape, converse, same_with_and_without, three_access_ports};

/// `a` at p1 and `b` at p2 talk; then `b` shows itself at `place` by a frame to `destination` (`None`: to `a`).
fn move_station(tape: &mut Tape, place: &str, destination: Option<Mac>) -> Frame {
    let (a, b) = (station(), station());
    let a_to_b = Frame::new(a, b);
    converse(tape, ("p1", &a_to_b), ("p2", &Frame::new(b, a)));
    tape.settle();
    tape.step(
        "the station's first frame from its new place",
        place,
        &Frame::new(b, destination.unwrap_or(a)),
    );
    a_to_b
}

#[test]
fn station_that_sends_unicast_from_another_port_is_found_there_at_once() {
    same_with_and_without(three_access_ports, |tape| {
        for _ in 0..5 {
            let a_to_b = move_station(tape, "p3", None);
            tape.step_to("to the station that moved", "p1", &a_to_b.another(), &["p3"]);
            tape.wait_fast("p1", &a_to_b);
            tape.step_to("and by the fast path", "p1", &a_to_b.another(), &["p3"]);
        }
    });
}

#[test]
fn station_that_broadcasts_from_another_port_is_found_there_at_once() {
    same_with_and_without(three_access_ports, |tape| {
        for _ in 0..5 {
            let a_to_b = move_station(tape, "p3", Some(Mac::BROADCAST));
            tape.step_to("to the station that moved", "p1", &a_to_b.another(), &["p3"]);
            tape.wait_fast("p1", &a_to_b);
            tape.step_to("and by the fast path", "p1", &a_to_b.another(), &["p3"]);
        }
    });
}

#[test]
fn station_that_moves_to_and_fro_is_always_found() {
    same_with_and_without(three_access_ports, |tape| {
        let (a, b) = (station(), station());
        let (a_to_b, b_to_a) = (Frame::new(a, b), Frame::new(b, a));
        converse(tape, ("p1", &a_to_b), ("p2", &b_to_a));
        for place in ["p3", "p2", "p3", "p2"] {
            tape.settle();
            tape.step("from its new place", place, &b_to_a.another());
            assert_eq!(tape.step("to its new place", "p1", &a_to_b.another()), [place]);
        }
    });
}

/// The host's own port has no fast path: the agent hears of the move only when it asks Open vSwitch.
fn moves_to_the_host(destination: Option<Mac>) {
    let build = || {
        let mut switch = three_access_ports();
        switch.use_host_port(10);
        switch
    };
    same_with_and_without(build, |tape| {
        let a_to_b = move_station(tape, BRIDGE, destination);
        tape.step_until("to the station at the host", "p1", &a_to_b, &[BRIDGE]);
        for _ in 0..10 {
            assert_eq!(tape.step("it stays there", "p1", &a_to_b.another()), [BRIDGE]);
        }
    });
}

#[test]
fn station_that_sends_unicast_from_the_bridges_own_port_is_found_there() {
    moves_to_the_host(None);
}

#[test]
fn station_that_broadcasts_from_the_bridges_own_port_is_found_there() {
    moves_to_the_host(Some(Mac::BROADCAST));
}

#[test]
fn stations_on_the_bridges_own_port_are_reached_and_reach() {
    let build = || {
        let mut switch: Switch = three_access_ports();
        switch.use_host_port(10);
        switch
    };
    same_with_and_without(build, |tape| {
        let (a, host) = (station(), station());
        tape.step("from the host, unknown", BRIDGE, &Frame::new(host, a));
        tape.step("to the host", "p1", &Frame::new(a, host));
        // Until it is told, Open vSwitch floods by the flow that it has cached for the first frame.
        tape.settle();
        tape.step("from the host", BRIDGE, &Frame::new(host, a));
        tape.step("to the host again", "p1", &Frame::new(a, host));
    });
}
