//! Plays the same scene on two switches, with and without the agent, and compares what was seen.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

use trunkline_tests::{Deliveries, Frame, Switch, Vlan, patience};

/// What arrived where, each copy by its [`form`].
type Seen = BTreeMap<String, Vec<String>>;

/// A switch, and what was seen on it so far.
pub(crate) struct Tape {
    switch: Switch,
    steps: Vec<(String, Seen)>,
}

impl Tape {
    /// Sends `frame` at `port` and records where it arrived and in what form. Also returns the ports.
    pub(crate) fn step(&mut self, label: &str, port: &str, frame: &Frame) -> Vec<String> {
        let seen = self.look(port, frame);
        let ports = seen.keys().cloned().collect();
        self.steps.push((label.to_owned(), seen));
        ports
    }

    /// Sends `frame` at `port`, waits until it has arrived at each of `ports`, and records that. On a busy machine
    /// Open vSwitch may take longer than [`Tape::step`] waits for frames of which it does not know.
    pub(crate) fn step_to(&mut self, label: &str, port: &str, frame: &Frame, ports: &[&str]) {
        let arrived = self.switch.exchange_expecting(&[(port, frame)], Some(ports.len()));
        let seen = seen(&arrived, frame);
        assert!(
            seen.keys().eq(ports),
            "{label}: a frame from {port} arrived at {:?}, not at {ports:?}",
            seen.keys()
        );
        self.steps.push((label.to_owned(), seen));
    }

    /// Sends copies of `frame` until they arrive at just these ports, and records that it came to this: for changes
    /// that Open vSwitch announces to nobody, which take the agent a moment to notice.
    pub(crate) fn step_until(&mut self, label: &str, port: &str, frame: &Frame, ports: &[&str]) {
        let deadline = Instant::now() + patience(Duration::from_secs(15));
        loop {
            let seen = self.look(port, &frame.another());
            if seen.keys().eq(ports) {
                self.steps.push((label.to_owned(), seen));
                return;
            }
            let at: Vec<&String> = seen.keys().collect();
            assert!(
                Instant::now() < deadline,
                "{label}: frames from {port} arrive at {at:?}, not at {ports:?}"
            );
        }
    }

    fn look(&self, port: &str, frame: &Frame) -> Seen {
        seen(&self.switch.exchange_one(port, frame), frame)
    }
}

fn seen(arrived: &Deliveries, frame: &Frame) -> Seen {
    let arrived = arrived.of(frame).into_iter();
    arrived.map(|(port, copies)| (port, copies.iter().map(|copy| form(copy, frame)).collect())).collect()
}

/// A received copy, less what differs between two switches anyway: addresses and number, which must be as sent.
fn form(copy: &[u8], sent: &Frame) -> String {
    assert_eq!(copy[..12], sent.bytes()[..12], "addresses");
    match copy[12..].strip_suffix(&sent.body()[..]) {
        Some(tags) => format!("tags {tags:02x?}, body as sent"),
        None => format!("body changed: {copy:02x?}"),
    }
}

impl Deref for Tape {
    type Target = Switch;

    fn deref(&self) -> &Switch {
        &self.switch
    }
}

impl DerefMut for Tape {
    fn deref_mut(&mut self) -> &mut Switch {
        &mut self.switch
    }
}

/// Plays `scene` on a switch without and on one with the agent.
pub(crate) fn same_with_and_without(build: impl Fn() -> Switch, scene: impl Fn(&mut Tape)) {
    let play = |switch| {
        let mut tape = Tape { switch, steps: Vec::new() };
        scene(&mut tape);
        tape.steps
    };
    let alone = play(build());
    let with_agent = play(build().accelerated());
    assert_eq!(with_agent, alone, "left with the agent, right Open vSwitch alone");
}

/// `p1` to `p3`, all in VLAN 10.
pub(crate) fn three_access_ports() -> Switch {
    ["p1", "p2", "p3"].into_iter().fold(Switch::new(), |switch, port| switch.port(port, Vlan::Access(10)))
}

/// A conversation between `a` at one port and `b` at another, until it takes the fast path in both directions.
pub(crate) fn converse(switch: &Switch, (a_port, a_to_b): (&str, &Frame), (b_port, b_to_a): (&str, &Frame)) {
    switch.exchange_one(a_port, &a_to_b.another());
    switch.exchange_expecting(&[(b_port, &b_to_a.another())], Some(1));
    // A frame that met a suspended bridge has taught the fast path nothing, so both go on talking.
    let forwarded = || Some((switch.forwarded(a_port)?, switch.forwarded(b_port)?));
    let deadline = Instant::now() + patience(Duration::from_secs(15));
    while let Some((a, b)) = forwarded() {
        switch.exchange_expecting(&[(a_port, &a_to_b.another())], Some(1));
        switch.exchange_expecting(&[(b_port, &b_to_a.another())], Some(1));
        if forwarded().is_some_and(|(a_now, b_now)| a_now > a && b_now > b) {
            break;
        }
        assert!(Instant::now() < deadline, "{a_port} and {b_port} do not come to talk by the fast path");
    }
    switch.wait_fast(a_port, a_to_b);
    switch.wait_fast(b_port, b_to_a);
}
