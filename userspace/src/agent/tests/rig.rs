//! The agent over a dataplane in memory, and everything around it played by the test.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use trunkline_core::{FdbEntry, FdbKey, Mac, Vid};

use crate::agent::Agent;
use crate::applied::{DatabaseEvent, Watch};
use crate::config::VswitchdRun;
use crate::dataplane::{InstalledPort, LEASE_S, Memory, PortNo};
use crate::event::{Effect, Event, HostFacts, Poll, Probe};
use crate::fdb::NOWHERE;
use crate::fixture::{Database, shared, taps};
use crate::links::{Link, LinkEvent};
use crate::openflow::{OpenFlowEvent, PortFlags};
use crate::ovsdb::OvsdbEvent;
use crate::report::{BridgeStatus, PortStatus};
use crate::unixctl::{FdbAge, FdbRow, FdbStats, FlowTable, OfPort};

/// The kernel's number of our program.
pub(super) const OURS: u32 = 7;

/// What ovs-vswitchd knows of a bridge.
#[derive(Clone, Debug)]
pub(super) struct Vswitchd {
    pub(super) flow_table: FlowTable,
    pub(super) port_flags: BTreeMap<u16, PortFlags>,
    pub(super) stations: Vec<FdbRow>,
    pub(super) stats: FdbStats,
    /// What keeps it from answering.
    pub(super) trouble: Option<String>,
}

impl Default for Vswitchd {
    fn default() -> Self {
        Self {
            flow_table: FlowTable::NormalOnly,
            port_flags: BTreeMap::new(),
            stations: Vec::new(),
            stats: FdbStats::default(),
            trouble: None,
        }
    }
}

pub(super) struct Rig {
    pub(super) agent: Agent<Memory>,
    pub(super) database: Database,
    pub(super) links: BTreeMap<u32, Link>,
    pub(super) vswitchd: BTreeMap<String, Vswitchd>,
    pub(super) host: HostFacts,
    pub(super) effects: VecDeque<Effect>,
    /// Devices whose rx-vlan-offload cannot be switched.
    pub(super) fixed: bool,
    /// What questions found when they were asked: the oldest that an answer may tell of.
    asked: BTreeMap<(u64, bool), (FlowTable, Vec<FdbRow>)>,
    /// Whether answers tell of the stations of that moment, rather than of the latest.
    pub(super) early: bool,
    /// Every effect there was.
    pub(super) log: Vec<Effect>,
    pub(super) now_s: u32,
    /// The thread that reads the database.
    watch: Watch,
    /// Events of the database that it has passed, and the agent has yet to hear.
    pub(super) passed: VecDeque<DatabaseEvent>,
    /// Whether the agent does not run, and what it will hear then.
    pub(super) stopped: bool,
    pub(super) backlog: VecDeque<Event>,
}

impl Rig {
    /// An agent that knows nothing yet.
    pub(super) fn new(database: Database) -> Self {
        let run = VswitchdRun { pid: 1, file: (1, 100), written: (0, 0) };
        Self {
            agent: Agent::new(Memory::default(), Vec::new(), Some(OURS), false),
            database,
            links: taps(6),
            vswitchd: BTreeMap::new(),
            host: HostFacts { vswitchd: Some(run), vlan_devices_possible: true },
            effects: VecDeque::new(),
            fixed: false,
            asked: BTreeMap::new(),
            early: false,
            log: Vec::new(),
            now_s: 1000,
            watch: Watch::default(),
            passed: VecDeque::new(),
            stopped: false,
            backlog: VecDeque::new(),
        }
    }

    /// `br0` with `p1` and `p2`, switching.
    pub(super) fn running() -> Self {
        Self::running_with(|_| {})
    }

    pub(super) fn running_with(change: impl FnOnce(&mut Self)) -> Self {
        let mut rig = Self::new(Database::small());
        change(&mut rig);
        rig.tick();
        rig.read_links();
        rig.hear(OvsdbEvent::Connected);
        rig.read_database();
        rig.answer();
        rig
    }

    /// ovs-vswitchd is another process with the same number, as in a container.
    pub(super) fn restart_vswitchd(&mut self) {
        let run = self.host.vswitchd.as_mut().expect("it runs");
        run.file.1 += 1;
    }

    pub(super) fn feed(&mut self, event: Event) {
        // Of the database it hears in another way.
        let waits = !self.backlog.is_empty() && !matches!(event, Event::Tick(_) | Event::Database(_));
        if self.stopped && matches!(event, Event::Tick(_)) {
            // Seconds that have passed are not told later.
        } else if self.stopped || waits {
            self.backlog.push_back(event);
        } else {
            self.hand_over(event);
        }
    }

    fn hand_over(&mut self, event: Event) {
        let effects = self.agent.handle(event, self.now_s);
        for effect in &effects {
            let (Effect::Probe { bridge, question, .. } | Effect::Poll { bridge, question, .. }) = effect
            else {
                continue;
            };
            let side = self.side(bridge);
            let found = (side.flow_table.clone(), side.stations.clone());
            self.asked.insert((*question, matches!(effect, Effect::Poll { .. })), found);
        }
        self.log.extend(effects.iter().cloned());
        self.effects.extend(effects);
        let dataplane = &self.agent.dataplane;
        for (bridge, lease_s) in dataplane.leases(self.now_s) {
            assert!(dataplane.installed.active.contains_key(&bridge), "{bridge:?} switches off the record");
            assert!(lease_s <= self.now_s + LEASE_S, "{bridge:?}");
        }
    }

    /// The thread that reads the database hears of something.
    pub(super) fn pass(&mut self, event: OvsdbEvent) {
        let event = self.watch.pass(event);
        self.agent.dataplane.gate().trip(&event.affected()).unwrap();
        self.passed.push_back(event);
    }

    /// The agent hears of what that thread has passed, one thing at a time. Whether there was something.
    pub(super) fn take_passed(&mut self) -> bool {
        if self.stopped {
            return false;
        }
        let Some(event) = self.passed.pop_front() else { return false };
        self.agent.dataplane.gate().acknowledge();
        // As `run` does.
        self.hand_over(Event::Vswitchd(self.host.vswitchd));
        self.hand_over(Event::Database(event));
        true
    }

    /// Both hear of something, and of all that was before.
    pub(super) fn hear(&mut self, event: OvsdbEvent) {
        self.pass(event);
        while self.take_passed() {}
    }

    pub(super) fn read_database(&mut self) {
        self.hear(OvsdbEvent::Changed(self.database.snapshot()));
    }

    /// The agent hears of the oldest of what happened while it was stopped. Whether there was something.
    pub(super) fn take_backlog(&mut self) -> bool {
        if self.stopped {
            return false;
        }
        let Some(event) = self.backlog.pop_front() else { return false };
        self.hand_over(event);
        true
    }

    pub(super) fn read_links(&mut self) {
        self.feed(Event::Links(LinkEvent::Snapshot(Arc::new(shared(&self.links)))));
    }

    pub(super) fn tick(&mut self) {
        self.now_s += 1;
        self.feed(Event::Tick(self.host));
    }

    /// So many seconds pass, and all questions are answered.
    pub(super) fn wait(&mut self, seconds: u32) {
        for _ in 0..seconds {
            self.tick();
            self.answer();
        }
    }

    /// Answers everything, until nothing is asked any more.
    pub(super) fn answer(&mut self) {
        for _ in 0..100 {
            let Some(effect) = self.effects.pop_front() else { return };
            self.execute(effect);
        }
        panic!("no end of effects: {:?}", self.effects);
    }

    /// Does what `run` does.
    pub(super) fn execute(&mut self, effect: Effect) {
        match effect {
            Effect::Barrier { update, .. } => self.feed(Event::BarrierPassed(update)),
            Effect::Probe { bridge, question, .. } => {
                let (flow_table, stations) = self.found(&bridge, question, false);
                let side = self.side(&bridge);
                let version = "3.1.0".to_owned();
                let answer = side.trouble.clone().map_or(Ok(Probe { version, flow_table, stations }), Err);
                self.feed(Event::Probed { bridge, question, answer });
            }
            Effect::Poll { bridge, question, known, flows } => {
                let (flow_table, stations) = self.found(&bridge, question, true);
                let side = self.side(&bridge);
                let stations = (known != Some(side.stats)).then_some(stations);
                let poll = Poll { flow_table: flows.then_some(flow_table), stats: side.stats, stations };
                let answer = side.trouble.clone().map_or(Ok(poll), Err);
                self.feed(Event::Polled { bridge, question, answer });
            }
            Effect::Show { bridge, question, frames } => {
                // It learns the station on the port, wherever it had it.
                for (ofport, frame) in frames {
                    let (last, vid) = (frame[11], self.vid(ofport));
                    let stations = &mut self.side(&bridge).stations;
                    stations.retain(|row| (row.vid, row.mac) != (vid, mac(last)));
                    stations.push(row(last, vid, ofport));
                }
                self.feed(Event::Shown { bridge, question, answer: Ok(()) });
            }
            Effect::Follow(bridges) => {
                for bridge in bridges {
                    self.follow(&bridge);
                }
            }
            Effect::RxVlanOffload { ifindex, on, .. } => {
                if self.fixed {
                    let cause = "the driver does not let it".to_owned();
                    return self.feed(Event::OffloadRefused { ifindex, cause });
                }
                if let Some(link) = self.links.get_mut(&ifindex) {
                    link.rx_vlan_offload = Some(on);
                    self.read_links();
                }
            }
        }
    }

    /// The flow table and the stations in an answer.
    fn found(&mut self, bridge: &str, question: u64, poll: bool) -> (FlowTable, Vec<FdbRow>) {
        let (flow_table, stations) = self.asked[&(question, poll)].clone();
        let stations = if self.early { stations } else { self.side(bridge).stations.clone() };
        (flow_table, stations)
    }

    /// The VLAN of a port, by the rules that are installed.
    fn vid(&self, ofport: u16) -> u16 {
        self.installed().get(&u32::from(ofport)).map_or(0, |port| port.rules.pvid)
    }

    /// A bridge's OpenFlow connection comes up.
    pub(super) fn follow(&mut self, bridge: &str) {
        self.feed(Event::OpenFlow(OpenFlowEvent::Connected { bridge: bridge.to_owned() }));
        self.tell_flags(bridge);
    }

    pub(super) fn unfollow(&mut self, bridge: &str) {
        let cause = "closed".to_owned();
        self.feed(Event::OpenFlow(OpenFlowEvent::Disconnected { bridge: bridge.to_owned(), cause }));
    }

    pub(super) fn tell_flags(&mut self, bridge: &str) {
        let flags = self.side(bridge).port_flags.clone();
        self.feed(Event::OpenFlow(OpenFlowEvent::PortFlags { bridge: bridge.to_owned(), flags }));
    }

    pub(super) fn set_flows(&mut self, bridge: &str, flow_table: FlowTable) {
        self.side(bridge).flow_table = flow_table;
        self.feed(Event::OpenFlow(OpenFlowEvent::FlowsChanged { bridge: bridge.to_owned() }));
    }

    pub(super) fn side(&mut self, bridge: &str) -> &mut Vswitchd {
        self.vswitchd.entry(bridge.to_owned()).or_default()
    }

    /// A change as `ovs-vsctl` makes it: announced, applied, confirmed, and everything asked for.
    pub(super) fn vsctl(&mut self, change: impl FnOnce(&mut Database)) {
        change(&mut self.database);
        self.database.announce();
        self.read_database();
        self.database.confirm();
        self.read_database();
        self.answer();
    }

    /// The same without waiting, and nothing answered yet.
    pub(super) fn write(&mut self, change: impl FnOnce(&mut Database)) {
        change(&mut self.database);
        self.read_database();
    }

    pub(super) fn bridge(&self, name: &str) -> BridgeStatus {
        let bridges = self.agent.status().bridges;
        for bridge in &bridges {
            assert_eq!(bridge.reason.is_some(), bridge.reason_code.is_some(), "{bridge:?}");
        }
        bridges.into_iter().find(|bridge| bridge.name == name).unwrap()
    }

    pub(super) fn port(&self, name: &str) -> PortStatus {
        let bridges = self.agent.status().bridges.into_iter();
        let port = bridges.flat_map(|bridge| bridge.ports).find(|port| port.name == name).unwrap();
        assert_eq!(port.reason.is_some(), port.reason_code.is_some(), "{port:?}");
        port
    }

    /// Whether programs let a bridge switch.
    pub(super) fn active(&self, bridge: &str) -> bool {
        let leases = self.agent.dataplane.leases(self.now_s);
        self.agent.bridge_no(bridge).is_some_and(|number| leases.contains_key(&number))
    }

    /// What is installed, by device.
    pub(super) fn installed(&self) -> BTreeMap<u32, InstalledPort> {
        let ports = &self.agent.dataplane.installed.ports;
        ports.values().map(|port| (port.ifindex, port.clone())).collect()
    }

    pub(super) fn devices(&self) -> Vec<u32> {
        self.installed().into_keys().collect()
    }

    /// Both tables learn a station on a port of `br0`.
    pub(super) fn learn(&mut self, last: u8, vid: u16, ifindex: u16) {
        let (place, port) = self
            .agent
            .dataplane
            .installed
            .ports
            .iter()
            .find(|(_, port)| port.ifindex == u32::from(ifindex))
            .expect("an installed port");
        let key = FdbKey { bridge: port.rules.bridge, vid: Vid::new(vid).unwrap(), mac: mac(last) };
        let entry = FdbEntry { port: place.0, fixed: false, shown_s: self.now_s };
        self.agent.dataplane.stations.insert(key, entry);
        let side = self.side("br0");
        side.stations.push(row(last, vid, ifindex));
        side.stats.learned += 1;
    }

    /// Those of the learned stations that frames are forwarded to.
    pub(super) fn in_use(&self) -> Vec<u8> {
        let stations = self.agent.dataplane.stations.iter();
        let used = stations.filter(|(_, entry)| PortNo(entry.port) != NOWHERE);
        used.map(|(key, _)| key.mac.octets()[5]).collect()
    }

    /// The last octets of our stations.
    pub(super) fn stations(&self) -> Vec<u8> {
        self.agent.dataplane.stations.keys().map(|key| key.mac.octets()[5]).collect()
    }
}

pub(super) fn mac(last: u8) -> Mac {
    Mac::new([2, 0, 0, 0, 0, last])
}

pub(super) fn row(last: u8, vid: u16, ofport: u16) -> FdbRow {
    FdbRow { port: OfPort::Number(ofport), vid, mac: mac(last), age: FdbAge::Seconds(1) }
}
