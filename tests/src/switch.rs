//! A switch on the bench: a namespace, Open vSwitch, taps, and perhaps the agent.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::wire::wait_readable;
use crate::{Agent, Frame, Host, Netns, Ovs, Privileges, Stats, Status, Vlan, Wire, frame_id, patience};

/// The bridge of every switch.
pub const BRIDGE: &str = "br0";

// All of these with `patience`.

/// Nothing more is expected once nothing has arrived for so long.
const QUIET: Duration = Duration::from_millis(150);
/// The same, when all that was expected is there and only something excessive could come.
const SHORT_QUIET: Duration = Duration::from_millis(60);
const DEADLINE: Duration = Duration::from_secs(10);
/// Sent at once before looking at what arrived; a tap's queue holds 1,000.
const BATCH: usize = 32;

/// What arrived: for each frame's number and each port, the frames as received.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Deliveries(BTreeMap<u64, BTreeMap<String, Vec<Vec<u8>>>>);

impl Deliveries {
    /// Where this frame arrived, and as what.
    pub fn of(&self, frame: &Frame) -> BTreeMap<String, Vec<Vec<u8>>> {
        self.0.get(&frame.id()).cloned().unwrap_or_default()
    }

    /// The ports at which this frame arrived.
    ///
    /// # Panics
    /// When it arrived twice at a port.
    pub fn ports(&self, frame: &Frame) -> Vec<String> {
        let at = self.of(frame);
        for (port, copies) in &at {
            assert_eq!(copies.len(), 1, "frame {} arrived {} times at {port}", frame.id(), copies.len());
        }
        at.into_keys().collect()
    }

    /// The one form in which this frame arrived at this one port.
    ///
    /// # Panics
    /// When it arrived elsewhere, or more than once, or not.
    pub fn only(&self, frame: &Frame, port: &str) -> Vec<u8> {
        assert_eq!(self.ports(frame), [port], "where frame {} arrived", frame.id());
        self.of(frame).remove(port).into_iter().flatten().next().expect("checked")
    }

    /// How many frames arrived, copies counted.
    pub fn count(&self) -> usize {
        self.0.values().flat_map(BTreeMap::values).map(Vec::len).sum()
    }
}

/// See the module.
#[derive(Debug)]
pub struct Switch {
    agent: Option<Agent>,
    privileges: Privileges,
    wires: BTreeMap<String, Wire>,
    ovs: Ovs,
    netns: Netns,
}

impl Switch {
    /// A bridge without ports.
    #[expect(clippy::new_without_default, reason = "it starts daemons, which is more than a default value")]
    pub fn new() -> Self {
        let netns = Netns::new();
        let ovs = Ovs::start(&netns);
        let switch = Self { agent: None, privileges: Privileges::All, wires: BTreeMap::new(), ovs, netns };
        switch.add_bridge(BRIDGE);
        switch
    }

    /// With a tap as a port.
    pub fn port(mut self, name: &str, vlan: Vlan) -> Self {
        self.add_port(name, &vlan);
        self
    }

    /// With agents that may do so much.
    pub fn privileges(mut self, privileges: Privileges) -> Self {
        self.privileges = privileges;
        self
    }

    /// With the agent, accelerating all ports that have taps. Nothing when there is no program under test.
    pub fn accelerated(mut self) -> Self {
        self.start_agent();
        self.wait_accelerated();
        self
    }

    /// Adds a tap as a port.
    pub fn add_port(&mut self, name: &str, vlan: &Vlan) {
        self.plug(name);
        self.ovs.vsctl(&format!("add-port {BRIDGE} {name} {}", vlan.columns().join(" ")));
    }

    /// Adds a bridge without ports beside [`BRIDGE`].
    pub fn add_bridge(&self, name: &str) {
        let datapath = Ovs::datapath_type();
        self.ovs.vsctl(&format!("add-br {name} -- set Bridge {name} datapath_type={datapath}"));
    }

    /// Deletes a port and its tap.
    pub fn delete_port(&mut self, name: &str) {
        self.ovs.vsctl(&format!("del-port {BRIDGE} {name}"));
        self.unplug(name);
    }

    /// Creates a tap without telling Open vSwitch.
    pub fn plug(&mut self, name: &str) {
        self.wires.insert(name.to_owned(), self.netns.tap(name));
    }

    /// Deletes a tap without telling Open vSwitch.
    pub fn unplug(&mut self, name: &str) {
        self.wires.remove(name).unwrap_or_else(|| panic!("no tap {name}"));
    }

    /// Makes the host's own port (`br0`, in `vlan`) one that [`Self::exchange`] can send at and receive from.
    pub fn use_host_port(&mut self, vlan: u16) {
        self.ovs.vsctl(&format!("set Port {BRIDGE} tag={vlan}"));
        self.netns.run(&format!("ip link set {BRIDGE} up"));
        self.wires.insert(BRIDGE.to_owned(), self.netns.packet_socket(BRIDGE));
    }

    /// Connects a host in its own namespace by a veth; `name` is the port.
    pub fn add_host(&mut self, name: &str, vlan: &Vlan, address: &str) -> Host {
        let host = Host::connect(&self.netns, name, address);
        self.ovs.vsctl(&format!("add-port {BRIDGE} {name} {}", vlan.columns().join(" ")));
        host
    }

    /// The namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// The far end of a port's tap.
    ///
    /// # Panics
    /// When there is none.
    pub fn wire(&self, port: &str) -> Wire {
        self.wires.get(port).unwrap_or_else(|| panic!("no port {port}")).clone()
    }

    /// Open vSwitch.
    pub fn ovs(&self) -> &Ovs {
        &self.ovs
    }

    /// Stops and starts `ovsdb-server`.
    pub fn restart_ovsdb(&mut self) {
        self.restart_ovsdb_after(Duration::ZERO);
    }

    /// Stops `ovsdb-server`, and starts it after this time.
    pub fn restart_ovsdb_after(&mut self, time: Duration) {
        self.ovs.restart_ovsdb(&self.netns, time);
    }

    /// Stops and starts `ovs-vswitchd`.
    pub fn restart_vswitchd(&mut self) {
        self.ovs.restart_vswitchd(&self.netns);
    }

    /// Stops both daemons, for [`Self::start_ovs`] to start again.
    pub fn stop_ovs(&mut self) {
        self.ovs.stop();
    }

    /// Starts both daemons again.
    pub fn start_ovs(&mut self) {
        self.ovs.start_again(&self.netns);
    }

    /// Makes Open vSwitch take in the statistics of its flows, from which it would otherwise learn sources up to a
    /// second late: a station that moves right after sending would jump back to where it was.
    pub fn settle(&self) {
        self.ovs.appctl("revalidator/purge");
    }

    /// The agent, if there is one.
    pub fn agent(&mut self) -> Option<&mut Agent> {
        self.agent.as_mut()
    }

    /// Takes the agent away, to be stopped or killed.
    pub fn take_agent(&mut self) -> Option<Agent> {
        self.agent.take()
    }

    /// Starts the agent, if there is a program under test, without waiting for it.
    pub fn start_agent(&mut self) {
        self.start_agent_with(&[]);
    }

    /// Starts the agent with these variables in its environment.
    pub fn start_agent_with(&mut self, environment: &[(&str, &str)]) {
        self.agent = Agent::start_with(self.privileges, environment, &self.netns, self.ovs.rundir());
    }

    /// Waits until every tap's port has the fast path.
    pub fn wait_accelerated(&mut self) {
        let taps: Vec<String> = self.taps().cloned().collect();
        self.wait_status("every tap to be accelerated", |status| {
            taps.iter().all(|tap| status.accelerates(tap))
        });
    }

    /// Waits for a status, if there is an agent.
    pub fn wait_status(&mut self, what: &str, wanted: impl Fn(&Status) -> bool) -> Option<Status> {
        self.agent.as_mut().map(|agent| agent.wait_status(what, wanted))
    }

    /// What the agent says of itself, if there is one.
    pub fn status(&self) -> Option<Status> {
        self.agent.as_ref().map(Agent::status)
    }

    /// Its counters, if there is one.
    pub fn stats(&self) -> Option<Stats> {
        self.agent.as_ref().map(Agent::stats)
    }

    /// Frames forwarded by the fast path from this port so far; `None` without an agent.
    pub fn forwarded(&self, port: &str) -> Option<u64> {
        self.agent.as_ref().map(|agent| agent.stats().port(port).rx.forwarded.frames)
    }

    /// Sends one frame.
    pub fn send(&self, port: &str, frame: &Frame) {
        self.wires.get(port).unwrap_or_else(|| panic!("no port {port}")).send(&frame.bytes());
    }

    /// Sends one frame and waits for the delivery.
    pub fn exchange_one(&self, port: &str, frame: &Frame) -> Deliveries {
        self.exchange(&[(port, frame)])
    }

    /// Sends the frames in order, and returns what arrived until all was quiet.
    pub fn exchange(&self, frames: &[(&str, &Frame)]) -> Deliveries {
        self.exchange_expecting(frames, None)
    }

    /// The same, but waits (up to 10 s) until `expected` frames have arrived, copies counted, and then only a moment.
    pub fn exchange_expecting(&self, frames: &[(&str, &Frame)], expected: Option<usize>) -> Deliveries {
        let mut exchange = self.begin();
        exchange.send(frames, expected);
        exchange.finish()
    }

    /// An exchange in several steps.
    pub fn begin(&self) -> Exchange<'_> {
        self.drain();
        Exchange { switch: self, sent: BTreeSet::new(), deliveries: Deliveries::default(), expected: None }
    }

    /// What arrived of frames sent by [`Self::send`].
    pub fn collect(&self, frames: &[Frame]) -> Deliveries {
        let sent = frames.iter().map(Frame::id).collect();
        Exchange { switch: self, sent, deliveries: Deliveries::default(), expected: None }.finish()
    }

    /// Sends copies of `frame` until one takes the fast path: after a change, both tables have to learn first, by
    /// way of Open vSwitch. Without an agent, one copy.
    ///
    /// # Panics
    /// After 10 s.
    pub fn wait_fast(&self, port: &str, frame: &Frame) {
        let Some(before) = self.forwarded(port) else {
            self.exchange_one(port, &frame.another());
            return;
        };
        let deadline = Instant::now() + patience(DEADLINE);
        loop {
            let copy = frame.another();
            self.exchange_expecting(&[(port, &copy)], Some(1));
            if self.forwarded(port) > Some(before) {
                return;
            }
            let stats = self.agent.as_ref().map(|agent| agent.stats().port(port));
            assert!(Instant::now() < deadline, "no frame from {port} took the fast path: {stats:#?}");
        }
    }

    /// Throws away what has arrived.
    pub fn drain(&self) {
        for wire in self.wires.values() {
            while wire.receive().is_some() {}
        }
    }

    fn taps(&self) -> impl Iterator<Item = &String> {
        self.wires.keys().filter(|name| *name != BRIDGE)
    }
}

/// Frames under way, and what has arrived of them.
#[derive(Debug)]
pub struct Exchange<'a> {
    switch: &'a Switch,
    sent: BTreeSet<u64>,
    deliveries: Deliveries,
    /// Since the beginning; `None` once an expectation was not met or not known.
    expected: Option<usize>,
}

impl Exchange<'_> {
    /// Sends the frames in order. With `more` as the number of frames they will make arrive, waits for these.
    pub fn send(&mut self, frames: &[(&str, &Frame)], more: Option<usize>) {
        let first = self.sent.is_empty();
        self.sent.extend(frames.iter().map(|(_, frame)| frame.id()));
        for batch in frames.chunks(BATCH) {
            for (port, frame) in batch {
                self.switch.send(port, frame);
            }
            self.receive();
        }
        let before = if first { Some(0) } else { self.expected };
        self.expected = before.zip(more).map(|(before, more)| before + more);
        let deadline = Instant::now() + patience(DEADLINE);
        while let Some(expected) = self.expected
            && self.deliveries.count() < expected
        {
            if Instant::now() > deadline {
                // What is missing will not come; it is not waited for again.
                self.expected = None;
            }
            wait_readable(self.switch.wires.values(), Duration::from_millis(50));
            self.receive();
        }
    }

    /// Waits until all is quiet.
    pub fn finish(mut self) -> Deliveries {
        let quiet = patience(if self.expected.is_some() { SHORT_QUIET } else { QUIET });
        let mut last = Instant::now();
        while last.elapsed() < quiet {
            wait_readable(self.switch.wires.values(), quiet - last.elapsed().min(quiet));
            if self.receive() > 0 {
                last = Instant::now();
            }
        }
        self.deliveries
    }

    /// Takes in all that is there; frames of earlier exchanges are late, not wrong, and are left out.
    fn receive(&mut self) -> usize {
        let Self { switch, sent, deliveries: Deliveries(arrived), .. } = self;
        let mut count = 0;
        for (port, wire) in &switch.wires {
            while let Some(bytes) = wire.receive() {
                let id = match frame_id(&bytes) {
                    Some(id) => id,
                    None if is_own_protocol(&bytes) => continue,
                    None => panic!("{port} received a stranger: {bytes:02x?}"),
                };
                if sent.contains(&id) {
                    arrived.entry(id).or_default().entry(port.clone()).or_default().push(bytes);
                    count += 1;
                }
            }
        }
        count
    }
}

/// Whether Open vSwitch speaks for itself: spanning tree, LACP, LLDP, CFM (IEEE's addresses), BFD (Nicira's).
fn is_own_protocol(frame: &[u8]) -> bool {
    matches!(frame, [0x01, 0x80, 0xc2, ..] | [0x00 | 0x01, 0x23, 0x20, ..])
}

impl Drop for Switch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.ovs.log());
            if let Some(agent) = &self.agent {
                eprintln!("--- agent\n{}", agent.log());
            }
        }
    }
}
