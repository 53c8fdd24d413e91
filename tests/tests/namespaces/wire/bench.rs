//! A switch that stays, and is given one case after the other.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use trunkline::unixctl::{FdbAge, FdbRow, Unixctl};
use trunkline_tests::cases::{Case, MAX_PORTS};
use trunkline_tests::{BRIDGE, Frame, Ovs, Stamp, Switch, Wire, frame_id, station};

/// A second bridge, whose frames tell that Open vSwitch is done with those of the first.
const FENCE: &str = "fence";
const LIMIT: Duration = Duration::from_secs(15);
/// With Open vSwitch's datapath in the kernel there is no telling; a frame is not under way for longer.
const QUIET: Duration = Duration::from_millis(100);

/// Where one frame arrived, and as what.
pub(super) type Arrived = BTreeMap<usize, Vec<Vec<u8>>>;

/// Taps `p1` to `p8` on a bridge, with OpenFlow numbers 1 to 8.
pub(super) struct Bench {
    switch: Switch,
    wires: Vec<Wire>,
    fence: [Wire; 2],
    // On the ports of a switch with the agent.
    stamps: Vec<Stamp>,
    unixctl: Unixctl,
    runtime: Runtime,
    turn: u16,
}

impl Bench {
    pub(super) fn new() -> Self {
        let mut switch = Switch::new();
        let names = (1..=MAX_PORTS).map(|n| format!("p{n}"));
        let mut words =
            format!("add-br {FENCE} -- set Bridge {FENCE} datapath_type={}", Ovs::datapath_type());
        let taps: Vec<(String, &str)> = names
            .map(|name| (name, BRIDGE))
            .chain(["f1", "f2"].map(|name| (name.to_owned(), FENCE)))
            .collect();
        for (place, (name, bridge)) in taps.iter().enumerate() {
            switch.plug(name);
            words +=
                &format!(" -- add-port {bridge} {name} -- set Interface {name} ofport_request={}", place + 1);
        }
        switch.ovs().vsctl(&words);
        // Without cached flows it learns at once, rather than up to a second later from their counters.
        switch.ovs().vsctl("set Open_vSwitch . other_config:flow-limit=0");
        let wires = (1..=MAX_PORTS).map(|n| switch.wire(&format!("p{n}"))).collect();
        let fence = ["f1", "f2"].map(|name| switch.wire(name));
        let unixctl = Unixctl::with_time_out(switch.ovs().rundir(), LIMIT);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let bench = Self { switch, wires, fence, stamps: Vec::new(), unixctl, runtime, turn: 0 };
        bench.wait_uncached();
        bench
    }

    /// With the agent, if there is one, and with stamps on what Open vSwitch sends.
    pub(super) fn accelerated(mut self) -> Self {
        let stamp = |n| Stamp::attach(self.switch.netns(), &format!("p{n}"));
        self.stamps = (1..=MAX_PORTS).map(stamp).collect();
        self.switch = self.switch.accelerated();
        self
    }

    pub(super) fn has_agent(&mut self) -> bool {
        self.switch.agent().is_some()
    }

    /// The new limit counts once the revalidators have run.
    fn wait_uncached(&self) {
        let deadline = Instant::now() + LIMIT;
        loop {
            self.call("revalidator/purge", &[]);
            let probe = Frame::broadcast(station());
            self.fence[0].send(&probe.bytes());
            thread::sleep(QUIET);
            let cached = self.switch.ovs().appctl("dpctl/dump-flows");
            if cached.trim().is_empty() {
                break;
            }
            assert!(Instant::now() < deadline, "flows are cached whatever the limit: {cached}");
        }
    }

    /// Gives the bridge the case's settings, and an empty FDB, which ovs-vswitchd and the agent have taken up.
    pub(super) fn configure(&mut self, case: &Case, accelerates: impl Fn(usize) -> bool) {
        self.call("fdb/flush", &[BRIDGE]);
        let fixed: Vec<_> = self.stations().into_iter().filter(|row| row.age == FdbAge::Static).collect();
        // An entry in a VLAN of `flood_vlans` can only be removed when that is no longer one.
        if !fixed.is_empty() {
            self.switch.ovs().vsctl(&format!("clear Bridge {BRIDGE} flood_vlans"));
        }
        for FdbRow { vid, mac, .. } in fixed {
            self.call("fdb/del", &[BRIDGE, &vid.to_string(), &mac.to_string()]);
        }
        self.switch.ovs().vsctl(&case.as_columns(BRIDGE));
        self.catch_up();
        self.switch.wait_status("the case's ports", |status| {
            (1..=MAX_PORTS).all(|n| status.accelerates(&format!("p{n}")) == accelerates(n))
        });
        assert_eq!(self.stations(), [], "the FDB is empty");
    }

    /// Changes something that matters to no frame, the VLAN of the bridge's own port, and waits until the agent has
    /// taken that up: it asks for the stations on the way, and its status shows when it has been through.
    pub(super) fn catch_up(&mut self) {
        self.turn = self.turn % 4000 + 1;
        let turn = self.turn;
        self.switch.ovs().vsctl(&format!("set Port {BRIDGE} tag={turn}"));
        self.switch.wait_status("the agent to catch up", |status| {
            status.ready && status.port(BRIDGE).is_some_and(|port| port.tag == Some(turn))
        });
    }

    /// The agent's stations: (VLAN, address, port), in order.
    pub(super) fn agents_stations(&mut self) -> Option<Vec<(u16, String, String)>> {
        let rows = self.switch.agent()?.fdb().into_iter().filter(|row| row.bridge == BRIDGE);
        let mut stations: Vec<_> = rows.map(|row| (row.vlan, row.mac, row.port)).collect();
        stations.sort();
        Some(stations)
    }

    pub(super) fn add_station(&self, port: usize, vid: u16, mac: &str) {
        self.call("fdb/add", &[BRIDGE, &format!("p{port}"), &vid.to_string(), mac]);
    }

    /// Open vSwitch's.
    pub(super) fn stations(&self) -> Vec<FdbRow> {
        self.runtime.block_on(self.unixctl.fdb_show(BRIDGE)).expect("fdb/show")
    }

    /// Sends one frame at a port, and returns what had arrived when all was done.
    pub(super) fn exchange(&self, port: usize, frame: &[u8]) -> Arrived {
        self.wires[port - 1].send(frame);
        if Ovs::datapath_type() == "netdev" {
            // One thread polls all ports in turn. When the first frame through the other bridge has arrived, it may
            // still have `port` before it; when the second one has, it has been round.
            self.fence();
            self.fence();
        } else {
            thread::sleep(QUIET);
        }
        let mut arrived = Arrived::new();
        for (place, wire) in self.wires.iter().enumerate() {
            while let Some(bytes) = wire.receive() {
                arrived.entry(place + 1).or_default().push(bytes);
            }
        }
        arrived
    }

    fn fence(&self) {
        let frame = Frame::broadcast(station());
        self.fence[0].send(&frame.bytes());
        let deadline = Instant::now() + LIMIT;
        while self.fence[1].receive().and_then(|bytes| frame_id(&bytes)) != Some(frame.id()) {
            assert!(Instant::now() < deadline, "a broadcast does not arrive");
            self.fence[1].wait(Duration::from_millis(10));
        }
    }

    fn call(&self, command: &str, args: &[&str]) -> String {
        let said = self.runtime.block_on(self.unixctl.call(command, args));
        said.unwrap_or_else(|error| panic!("{command} {args:?}: {error}"))
    }
}
