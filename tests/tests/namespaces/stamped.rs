//! A switch on which it can be told who sent a frame: Open vSwitch stamps what it sends ([`Stamp`]), the fast
//! path does not.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

use trunkline_core::Mac;
use trunkline_tests::{BRIDGE, Frame, Stamp, Switch, Vlan, Wire, frame_id, patience, wait_readable};

/// All frames of a test fit, so that none is lost while nobody reads.
const QUEUE: usize = 50_000;
/// No frame of a test is longer.
const LONGEST: usize = 2048;
/// Sent at once before looking at what arrived.
const BATCH: usize = 32;
/// Nothing more is expected once nothing has arrived for so long.
const QUIET: Duration = Duration::from_millis(150);
const WARM: Duration = Duration::from_secs(20);

/// See the module.
pub(crate) struct Stamped {
    switch: Switch,
    ports: BTreeMap<&'static str, (Wire, Stamp)>,
}

/// A frame that arrived. Numbers rise from each frame of a test to the next.
pub(crate) struct Arrival {
    pub(crate) port: &'static str,
    pub(crate) source: Mac,
    pub(crate) destination: Mac,
    pub(crate) id: u64,
    pub(crate) by_ovs: bool,
}

/// Two stations, each with its port.
pub(crate) type Pair = ((&'static str, Mac), (&'static str, Mac));

impl Stamped {
    /// With taps as access ports of this VLAN.
    pub(crate) fn new(switch: Switch, ports: &[&'static str], vid: u16) -> Self {
        let mut stamped = Self { switch, ports: BTreeMap::new() };
        for port in ports {
            stamped.add(BRIDGE, port, &Vlan::Access(vid));
        }
        stamped
    }

    /// Adds a tap as a port of a bridge.
    pub(crate) fn add(&mut self, bridge: &str, port: &'static str, vlan: &Vlan) {
        self.switch.plug(port);
        self.switch.netns().run(&format!("ip link set {port} txqueuelen {QUEUE}"));
        let stamp = Stamp::attach(self.switch.netns(), port);
        self.switch.ovs().vsctl(&format!("add-port {bridge} {port} {}", vlan.columns().join(" ")));
        self.ports.insert(port, (self.switch.wire(port), stamp));
    }

    /// Starts the agent, if there is a program under test, and waits until these ports have the fast path.
    /// Returns whether there is one.
    pub(crate) fn accelerate(&mut self, ports: &[&str]) -> bool {
        self.switch.start_agent();
        self.wait_ports(ports);
        self.switch.agent().is_some()
    }

    /// Waits until these ports have the fast path.
    pub(crate) fn wait_ports(&mut self, ports: &[&str]) {
        self.switch.wait_status("the ports to be accelerated", |status| {
            ports.iter().all(|port| status.accelerates(port))
        });
    }

    /// Takes in what has arrived.
    pub(crate) fn take(&self, mut see: impl FnMut(Arrival)) -> usize {
        let (mut buffer, mut count) = ([0; LONGEST], 0);
        for (port, (wire, _)) in &self.ports {
            while let Some(length) = wire.receive_into(&mut buffer) {
                let frame = &buffer[..length];
                // What else arrives is Open vSwitch's own.
                let (Some(id), Some(addresses)) = (frame_id(frame), frame.first_chunk::<12>()) else {
                    continue;
                };
                let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5] = *addresses;
                let destination = Mac::new([d0, d1, d2, d3, d4, d5]);
                let source = Mac::new([s0, s1, s2, s3, s4, s5]);
                let by_ovs = Stamp::take_off(&mut buffer[..length]);
                see(Arrival { port, source, destination, id, by_ovs });
                count += 1;
            }
        }
        count
    }

    /// Takes in what arrives until all is quiet.
    pub(crate) fn take_all(&self, mut see: impl FnMut(Arrival)) {
        let quiet = patience(QUIET);
        let mut last = Instant::now();
        while last.elapsed() < quiet {
            wait_readable(self.ports.values().map(|(wire, _)| wire), quiet - last.elapsed().min(quiet));
            if self.take(&mut see) > 0 {
                last = Instant::now();
            }
        }
    }

    /// Sends frames in order, each from a port, and takes in what arrives until all is quiet.
    pub(crate) fn exchange_all(
        &self,
        frames: impl IntoIterator<Item = (&'static str, Frame)>,
        mut see: impl FnMut(Arrival),
    ) {
        for (place, (port, frame)) in frames.into_iter().enumerate() {
            self.switch.send(port, &frame);
            if place % BATCH == 0 {
                self.take(&mut see);
            }
        }
        self.take_all(see);
    }

    /// Lets every pair talk until the frames of each take the fast path both ways; without an agent, until
    /// they arrive. The counters must agree.
    ///
    /// # Panics
    /// When that takes too long.
    pub(crate) fn warm(&self, pairs: &[Pair]) {
        let deadline = Instant::now() + patience(WARM);
        let by_counters =
            || pairs.first().and_then(|((a, _), (b, _))| self.forwarded(a).zip(self.forwarded(b)));
        let before = by_counters();
        let mut cold: Vec<&Pair> = pairs.iter().collect();
        while !cold.is_empty() {
            assert!(Instant::now() < deadline, "{} pairs do not come to talk by the fast path", cold.len());
            let talk = cold.iter().flat_map(|((a_port, a), (b_port, b))| {
                [(*a_port, Frame::new(*a, *b)), (*b_port, Frame::new(*b, *a))]
            });
            let mut warm = BTreeSet::new();
            self.exchange_all(talk, |Arrival { port, source, destination, by_ovs, .. }| {
                if !by_ovs || before.is_none() {
                    warm.insert((source, destination, port));
                }
            });
            cold.retain(|((a_port, a), (b_port, b))| {
                !(warm.contains(&(*a, *b, *b_port)) && warm.contains(&(*b, *a, *a_port)))
            });
        }
        if let Some(((a, b), (a_now, b_now))) = before.zip(by_counters()) {
            let count = pairs.len() as u64;
            assert!(
                a_now - a >= count && b_now - b >= count,
                "{} and {} of {count} pairs",
                a_now - a,
                b_now - b
            );
        }
    }

    /// Whether a frame from `from` to `to`, which is at `port`, is forwarded by the fast path now; `None` if
    /// it does not arrive there.
    pub(crate) fn is_fast(&self, from: (&'static str, Mac), (port, to): (&'static str, Mac)) -> Option<bool> {
        let frame = Frame::new(from.1, to);
        let (wanted, mut fast) = (frame.id(), None);
        self.exchange_all([(from.0, frame)], |arrival| {
            if arrival.id == wanted && arrival.port == port {
                fast = Some(!arrival.by_ovs);
            }
        });
        fast
    }
}

impl Deref for Stamped {
    type Target = Switch;

    fn deref(&self) -> &Switch {
        &self.switch
    }
}

impl DerefMut for Stamped {
    fn deref_mut(&mut self) -> &mut Switch {
        &mut self.switch
    }
}
