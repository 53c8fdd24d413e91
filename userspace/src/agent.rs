//! The agent's state: from events to a switching fast path.
//!
//! No I/O happens here but through the [`Dataplane`]; what has to be asked or done elsewhere is returned as
//! [`Effect`]s. Every event ends in [`Agent::refresh`], which compiles the desired state anew, compares it with what
//! is installed and takes the steps between. A bridge whose applied configuration, flows or stations are not certain at
//! this moment is *held*: its ports stay as they are, and all its frames go to Open vSwitch.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tracing::{debug, info, warn};
use trunkline_core::abi;

use crate::applied::{Applied, Next};
use crate::dataplane::{BridgeNo, Dataplane, DataplaneError, Installed, InstalledPort, Op, PortNo};
use crate::desired::{self, BridgeFacts, DesiredBridge, DesiredPort, World};
use crate::event::{Effect, Event, HostFacts, Poll, Probe};
use crate::fdb;
use crate::links::{LinkEvent, Links};
use crate::openflow::{OpenFlowEvent, PortFlags};
use crate::ovsdb::{OvsdbEvent, Rows};
use crate::plan::{Numbers, plan};
use crate::unixctl::FdbStats;

/// A port on which a step failed is tried again after so many seconds, or when its device changes.
const RETRY_S: u32 = 10;
/// The table of stations is swept for expired ones so often, in seconds.
const SWEEP_S: u32 = 10;
/// The flow table is asked for so often where OpenFlow tells of its changes, in seconds; else every second.
const FLOWS_S: u32 = 10;

/// What the agent knows of a bridge beside the database.
#[derive(Default, Debug)]
pub(crate) struct Watched {
    /// Counts the moments from which on old answers are worthless.
    generation: u64,
    /// The generation that was asked for, while the answer is out.
    asked: Option<u64>,
    /// The answer and its generation.
    answer: Option<(u64, Probe)>,
    port_flags: BTreeMap<u16, PortFlags>,
    /// OpenFlow tells of changes at once.
    followed: bool,
    stats: Option<FdbStats>,
    trouble: Option<String>,
    /// After trouble, when to ask again, in seconds.
    again_s: u32,
}

/// The state of the agent.
pub struct Agent<D> {
    pub(crate) dataplane: D,
    selected: Vec<String>,
    our_program: Option<u32>,
    pub(crate) applied: Applied,
    /// Whether the database is connected, or why not.
    pub(crate) database: Result<(), String>,
    pub(crate) ovs_version: Option<String>,
    links: Arc<Links>,
    links_trouble: Option<String>,
    host: HostFacts,
    watched: BTreeMap<String, Watched>,
    followed: Vec<String>,
    numbers: Numbers,
    failed: BTreeMap<u32, Failure>,
    offload: BTreeMap<u32, Result<(), String>>,
    pub(crate) desired: Vec<DesiredBridge>,
    effects: Vec<Effect>,
    now_s: u32,
}

#[derive(Debug)]
struct Failure {
    incarnation: u32,
    cause: String,
    retry_s: u32,
}

impl<D: Dataplane> Agent<D> {
    /// An agent that knows nothing yet. `selected` are the bridges to accelerate, none for all.
    pub fn new(dataplane: D, selected: Vec<String>, our_program: Option<u32>) -> Self {
        Self {
            dataplane,
            selected,
            our_program,
            applied: Applied::default(),
            database: Err("not connected yet".to_owned()),
            ovs_version: None,
            links: Arc::default(),
            links_trouble: Some("not read yet".to_owned()),
            host: HostFacts { vswitchd_pid: None, vlan_devices_possible: true },
            watched: BTreeMap::new(),
            followed: Vec::new(),
            numbers: Numbers::default(),
            failed: BTreeMap::new(),
            offload: BTreeMap::new(),
            desired: Vec::new(),
            effects: Vec::new(),
            now_s: 0,
        }
    }

    /// Takes one event, at a time in seconds of the monotonic clock, and returns what has to be done outside.
    pub fn handle(&mut self, event: Event, now_s: u32) -> Vec<Effect> {
        self.now_s = now_s;
        match event {
            Event::Ovsdb(event) => self.on_ovsdb(event),
            Event::Links(event) => self.on_links(event),
            Event::OpenFlow(event) => self.on_openflow(event),
            Event::Probed { bridge, generation, answer } => self.on_probed(&bridge, generation, answer),
            Event::Polled { bridge, answer } => self.on_polled(&bridge, answer),
            Event::Settled(token) => self.applied.settled(token),
            Event::OffloadRefused { ifindex, cause } => {
                self.offload.insert(ifindex, Err(cause));
            }
            Event::Tick(host) => self.on_tick(host),
        }
        self.refresh();
        std::mem::take(&mut self.effects)
    }

    /// Gives every port back to Open vSwitch. Tries everything; returns all failures, and what is left to do outside.
    pub fn give_back(&mut self) -> (Vec<DataplaneError>, Vec<Effect>) {
        let installed = self.dataplane.installed().clone();
        let steps = plan(&installed, &Installed::default());
        let failures = steps.iter().filter_map(|op| self.dataplane.apply(op, self.now_s).err()).collect();
        self.desired.clear();
        self.ask_for_tags();
        (failures, std::mem::take(&mut self.effects))
    }

    /// Prolongs the leases of the active bridges.
    pub fn renew(&mut self) {
        if let Err(error) = self.dataplane.renew(self.now_s) {
            warn!(%error, "the lease of the fast path was not prolonged");
        }
    }

    fn on_ovsdb(&mut self, event: OvsdbEvent) {
        match event {
            OvsdbEvent::Connected => {
                info!("connected to the database");
                self.database = Ok(());
            }
            OvsdbEvent::Disconnected { cause } => {
                warn!(cause, "the database is out of reach: Open vSwitch has all frames");
                self.database = Err(cause);
                self.invalidate_all();
            }
            OvsdbEvent::Changed(rows) => {
                let before = self.applied.latest().cloned();
                let next = self.applied.update(rows.clone());
                if let Next::Settle(token) = next {
                    self.effects.push(Effect::Settle(token));
                }
                for name in names(&rows) {
                    let watched = self.watched.entry(name.to_owned()).or_default();
                    // What was learned and asked before the change says nothing after it.
                    let same = before.as_ref().is_some_and(|before| {
                        crate::applied::difference(before, &rows, name) == crate::applied::Difference::None
                    });
                    if !same {
                        watched.generation += 1;
                    }
                }
                let names: BTreeSet<&str> = names(&rows).collect();
                self.watched.retain(|name, _| names.contains(name.as_str()));
                let follow: Vec<String> = self.watched.keys().cloned().collect();
                if follow != self.followed {
                    self.followed.clone_from(&follow);
                    self.effects.push(Effect::Follow(follow));
                }
            }
        }
    }

    fn on_links(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Snapshot(links) => {
                self.links_trouble = None;
                self.failed.retain(|ifindex, failure| {
                    links.get(ifindex).is_some_and(|link| link.incarnation == failure.incarnation)
                });
                self.offload.retain(|ifindex, _| links.contains_key(ifindex));
                self.forget_vanished(&links);
                self.links = links;
            }
            LinkEvent::Failed { cause } => {
                warn!(cause, "the kernel's devices cannot be followed: Open vSwitch has all frames");
                self.links_trouble = Some(cause);
            }
        }
    }

    /// A device that went away and came back under the same index has lost its program; so has its port, then.
    fn forget_vanished(&mut self, links: &Links) {
        let vanished: Vec<PortNo> = self
            .dataplane
            .installed()
            .ports
            .iter()
            .filter(|(_, port)| match (self.links.get(&port.ifindex), links.get(&port.ifindex)) {
                (Some(old), Some(new)) => old.incarnation != new.incarnation,
                (_, new) => new.is_none(),
            })
            .map(|(number, _)| *number)
            .collect();
        for port in vanished {
            self.step(&Op::Remove(port));
            self.step(&Op::Flush(port));
        }
    }

    fn on_openflow(&mut self, event: OpenFlowEvent) {
        let (OpenFlowEvent::Connected { bridge }
        | OpenFlowEvent::FlowsChanged { bridge }
        | OpenFlowEvent::PortFlags { bridge, .. }
        | OpenFlowEvent::Disconnected { bridge, .. }) = &event;
        let Some(watched) = self.watched.get_mut(bridge) else { return };
        match event {
            OpenFlowEvent::Connected { .. } => watched.followed = true,
            OpenFlowEvent::FlowsChanged { .. } => {}
            OpenFlowEvent::PortFlags { flags, .. } => {
                watched.port_flags = flags;
                return;
            }
            OpenFlowEvent::Disconnected { bridge, cause } => {
                debug!(bridge, cause, "OpenFlow connection lost");
                // Most likely ovs-vswitchd ended; the answer to the next question will tell.
                watched.followed = false;
            }
        }
        watched.generation += 1;
    }

    fn on_probed(&mut self, bridge: &str, generation: u64, answer: Result<Probe, String>) {
        let Some(watched) = self.watched.get_mut(bridge) else { return };
        watched.asked = None;
        match answer {
            Ok(probe) => {
                self.ovs_version = Some(probe.version.clone());
                watched.trouble = None;
                watched.stats = None;
                watched.answer = Some((generation, probe));
            }
            Err(cause) => {
                if watched.trouble.as_ref() != Some(&cause) {
                    warn!(bridge, cause, "Open vSwitch has all frames of the bridge");
                }
                watched.trouble = Some(cause);
                watched.again_s = self.now_s + 1;
                watched.answer = None;
            }
        }
    }

    fn on_polled(&mut self, bridge: &str, answer: Result<Poll, String>) {
        let Some(watched) = self.watched.get_mut(bridge) else { return };
        match answer {
            Ok(poll) => {
                watched.stats = Some(poll.stats);
                if let (Some((_, probe)), Some(flow_table)) = (&mut watched.answer, poll.flow_table) {
                    probe.flow_table = flow_table;
                }
                if let Some(rows) = poll.stations {
                    self.reconcile(bridge, &rows);
                }
            }
            Err(_) => watched.generation += 1,
        }
    }

    fn on_tick(&mut self, host: HostFacts) {
        if self.host.vswitchd_pid.is_some()
            && host.vswitchd_pid.is_some()
            && self.host.vswitchd_pid != host.vswitchd_pid
        {
            info!(pid = host.vswitchd_pid, "ovs-vswitchd was restarted");
            self.applied.restarted();
            self.invalidate_all();
        }
        self.host = HostFacts { vswitchd_pid: host.vswitchd_pid.or(self.host.vswitchd_pid), ..host };
        self.renew();
        self.failed.retain(|_, failure| failure.retry_s > self.now_s);
        if self.now_s.is_multiple_of(SWEEP_S) {
            self.sweep();
        }
        for (bridge, watched) in self.watched.iter().filter(|(_, watched)| watched.answer.is_some()) {
            let flows = !watched.followed || self.now_s.is_multiple_of(FLOWS_S);
            // Now and then the stations are compared although nothing seems to have changed.
            let known = if self.now_s.is_multiple_of(SWEEP_S) { None } else { watched.stats };
            self.effects.push(Effect::Poll { bridge: bridge.clone(), known, flows });
        }
    }

    /// Compares our stations of a bridge with Open vSwitch's and corrects ours.
    fn reconcile(&mut self, bridge: &str, rows: &[crate::unixctl::FdbRow]) {
        let Some(number) = self.numbers.known_bridge(bridge) else { return };
        let ports = self.ports_by_ofport(bridge, number);
        let stations = match self.dataplane.stations() {
            Ok(stations) => stations,
            Err(error) => {
                warn!(%error, bridge, "suspended");
                self.step(&Op::Suspend(number));
                return;
            }
        };
        for (key, entry) in fdb::reconcile(&stations, number, &ports, rows) {
            debug!(bridge, vlan = key.vid.get(), mac = %key.mac, ?entry, "station corrected");
            if let Err(error) = self.dataplane.set_station(&key, entry) {
                warn!(%error, bridge, "suspended");
                self.step(&Op::Suspend(number));
                return;
            }
        }
    }

    fn ports_by_ofport(&self, bridge: &str, number: BridgeNo) -> BTreeMap<u16, PortNo> {
        let Some(desired) = self.desired.iter().find(|desired| desired.name == bridge) else {
            return BTreeMap::new();
        };
        let installed = &self.dataplane.installed().ports;
        let place = |port: &DesiredPort| {
            let place = self.numbers.known_port(number, port.ifindex?)?;
            installed.contains_key(&place).then_some((port.ofport?, place))
        };
        desired.ports.iter().filter_map(place).collect()
    }

    fn sweep(&mut self) {
        let stations = match self.dataplane.stations() {
            Ok(stations) => stations,
            Err(error) => return warn!(%error, "expired stations stay until the next sweep"),
        };
        let installed = self.dataplane.installed().clone();
        let ageing_s = |bridge| installed.active.get(&bridge).map(|times| times.ageing_s);
        let (expired, mut counts) = fdb::age(&stations, ageing_s, self.now_s);
        let forgotten = expired.iter().map(|key| self.dataplane.set_station(key, None));
        let mut results: Vec<_> = forgotten.collect();
        for port in installed.ports.keys() {
            results.push(self.dataplane.recount(*port, counts.remove(port).unwrap_or(0)));
        }
        if let Some(error) = results.into_iter().find_map(Result::err) {
            warn!(%error, "the sweep of the stations is incomplete");
        }
    }

    fn invalidate_all(&mut self) {
        self.watched.values_mut().for_each(|watched| watched.generation += 1);
    }

    /// Why a bridge cannot be judged at this moment; `None` if it can.
    pub(crate) fn hold(&self, bridge: &str) -> Option<String> {
        if let Err(cause) = &self.database {
            return Some(format!("the database is out of reach: {cause}"));
        }
        if let Some(cause) = &self.links_trouble {
            return Some(format!("the kernel's devices cannot be read: {cause}"));
        }
        if let Some(reason) = self.applied.hold(bridge) {
            return Some(reason.to_owned());
        }
        match self.watched.get(bridge) {
            Some(Watched { trouble: Some(trouble), .. }) => Some(trouble.clone()),
            Some(Watched { answer: Some((answered, _)), generation, .. }) if answered == generation => None,
            _ => Some("ovs-vswitchd is being asked for its flows and stations".to_owned()),
        }
    }

    /// Compiles, compares, and takes the steps in between.
    fn refresh(&mut self) {
        let Some(rows) = self.applied.latest().cloned() else { return };
        self.ask(&rows);
        self.desired = self.compile(&rows);
        self.ask_for_tags();
        let target = self.target();
        let installed = self.dataplane.installed().clone();
        if installed != target {
            let steps = plan(&installed, &target);
            self.carry_out(&steps);
        }
        self.give_back_numbers(&target);
    }

    /// Sends the questions that are open, one at a time for each bridge.
    fn ask(&mut self, rows: &Rows) {
        if self.database.is_err() {
            return;
        }
        for name in names(rows) {
            if self.applied.hold(name).is_some() {
                continue;
            }
            let Some(watched) = self.watched.get_mut(name) else { continue };
            let known =
                watched.answer.as_ref().is_some_and(|(generation, _)| *generation == watched.generation);
            if !known && watched.asked.is_none() && watched.again_s <= self.now_s {
                watched.asked = Some(watched.generation);
                let generation = watched.generation;
                self.effects.push(Effect::Probe { bridge: name.to_owned(), generation });
            }
        }
    }

    fn compile(&self, rows: &Rows) -> Vec<DesiredBridge> {
        let facts = self.watched.iter().filter_map(|(name, watched)| {
            let (_, probe) = watched.answer.as_ref()?;
            let facts =
                BridgeFacts { flow_table: probe.flow_table.clone(), port_flags: watched.port_flags.clone() };
            Some((name.clone(), facts))
        });
        let mut desired = desired::compile(&World {
            rows,
            links: &self.links,
            facts: &facts.collect(),
            selected: &self.selected,
            our_program: self.our_program,
            vlan_devices_possible: self.host.vlan_devices_possible,
        });
        for port in desired.iter_mut().flat_map(|bridge| &mut bridge.ports) {
            let Some(ifindex) = port.ifindex else { continue };
            if let Some(failure) = self.failed.get(&ifindex)
                && port.rules.is_ok()
            {
                port.rules = Err(failure.cause.clone());
            }
            if let Some(Err(cause)) = self.offload.get(&ifindex)
                && port.wants_tags_in_frame
            {
                port.rules =
                    Err(format!("rx-vlan-offload hides tags from XDP and cannot be switched off: {cause}"));
            }
        }
        desired
    }

    /// Has rx-vlan-offload switched off where it stands in the way, and on again where it no longer does.
    fn ask_for_tags(&mut self) {
        let ports = |held: bool| {
            let bridges = self.desired.iter().filter(move |bridge| held || bridge.reason.is_none());
            bridges.flat_map(|bridge| &bridge.ports)
        };
        let wanted: BTreeSet<u32> =
            ports(false).filter(|port| port.wants_tags_in_frame).filter_map(|port| port.ifindex).collect();
        let kept: BTreeSet<u32> = ports(false)
            .filter(|port| port.wants_tags_in_frame || port.rules.is_ok())
            .chain(ports(true).filter(|port| self.is_installed(port)))
            .filter_map(|port| port.ifindex)
            .collect();
        for ifindex in wanted {
            if self.offload.contains_key(&ifindex) {
                continue;
            }
            self.offload.insert(ifindex, Ok(()));
            self.switch_offload(ifindex, false);
        }
        let restored: Vec<u32> =
            self.offload.keys().copied().filter(|ifindex| !kept.contains(ifindex)).collect();
        for ifindex in restored {
            if let Some(Ok(())) = self.offload.remove(&ifindex) {
                self.switch_offload(ifindex, true);
            }
        }
    }

    fn is_installed(&self, port: &DesiredPort) -> bool {
        self.dataplane.installed().ports.values().any(|installed| Some(installed.ifindex) == port.ifindex)
    }

    fn switch_offload(&mut self, ifindex: u32, on: bool) {
        let Some(link) = self.links.get(&ifindex) else { return };
        self.effects.push(Effect::RxVlanOffload { ifindex, device: link.name.clone(), on });
    }

    /// The state to install: bridges that are held keep their ports and do not switch.
    fn target(&mut self) -> Installed {
        let mut target = Installed::default();
        let desired = std::mem::take(&mut self.desired);
        for bridge in &desired {
            let Some(number) = self.numbers.bridge(&bridge.name) else { continue };
            if self.hold(&bridge.name).is_some() {
                let installed = self.dataplane.installed().ports.iter();
                let kept = installed.filter(|(_, port)| port.rules.bridge == number.0);
                target.ports.extend(kept.map(|(place, port)| (*place, port.clone())));
            } else if bridge.reason.is_none() {
                target.active.insert(number, bridge.times);
                for port in &bridge.ports {
                    if let Some((place, port)) = self.place(number, port) {
                        target.ports.insert(place, port);
                    }
                }
            }
        }
        self.desired = desired;
        target
    }

    fn place(&mut self, bridge: BridgeNo, port: &DesiredPort) -> Option<(PortNo, InstalledPort)> {
        let (Ok(rules), Some(ifindex)) = (&port.rules, port.ifindex) else { return None };
        let link = self.links.get(&ifindex)?;
        match self.numbers.port(bridge, ifindex) {
            Ok(place) => {
                let rules = abi::Port { bridge: bridge.0, ..*rules };
                Some((place, InstalledPort { ifindex, device: link.name.clone(), rules }))
            }
            Err(cause) => {
                let incarnation = link.incarnation;
                self.failed.insert(ifindex, Failure { incarnation, cause, retry_s: self.now_s + RETRY_S });
                None
            }
        }
    }

    fn carry_out(&mut self, steps: &[Op]) {
        for op in steps {
            if let Op::Activate(number, _) = op {
                // Before it switches again, no station may be in our table that is not in Open vSwitch's.
                let bridge = self
                    .desired
                    .iter()
                    .find(|bridge| self.numbers.known_bridge(&bridge.name) == Some(*number));
                let Some(name) = bridge.map(|bridge| bridge.name.clone()) else { continue };
                let rows = self.watched.get(&name).and_then(|watched| watched.answer.as_ref());
                let Some(rows) = rows.map(|(_, probe)| probe.stations.clone()) else { continue };
                self.reconcile(&name, &rows);
            }
            self.step(op);
        }
    }

    fn step(&mut self, op: &Op) {
        debug!(?op, "step");
        let Err(error) = self.dataplane.apply(op, self.now_s) else { return };
        warn!(%error, "Open vSwitch keeps what this was about");
        if let Op::Install(_, port) = op
            && let Some(link) = self.links.get(&port.ifindex)
        {
            let incarnation = link.incarnation;
            let failure = Failure { incarnation, cause: error.to_string(), retry_s: self.now_s + RETRY_S };
            self.failed.insert(port.ifindex, failure);
        }
    }

    fn give_back_numbers(&mut self, target: &Installed) {
        let installed = self.dataplane.installed();
        let bridges = self.desired.iter().filter_map(|bridge| self.numbers.known_bridge(&bridge.name));
        let bridges = bridges.chain(installed.active.keys().copied()).collect();
        let ports = installed.ports.keys().chain(target.ports.keys()).copied().collect();
        self.numbers.retain(&bridges, &ports);
    }

    /// The number of an accelerated port, by the names of its bridge and of itself.
    pub(crate) fn installed_port(&self, bridge: &str, port: &DesiredPort) -> Option<PortNo> {
        let place = self.numbers.known_port(self.numbers.known_bridge(bridge)?, port.ifindex?)?;
        self.dataplane.installed().ports.contains_key(&place).then_some(place)
    }

    /// The number of a bridge.
    pub(crate) fn bridge_no(&self, bridge: &str) -> Option<BridgeNo> {
        self.numbers.known_bridge(bridge)
    }

    /// Whether a bridge switches by itself now.
    pub(crate) fn is_active(&self, bridge: &str) -> bool {
        let number = self.numbers.known_bridge(bridge);
        number.is_some_and(|number| self.dataplane.installed().active.contains_key(&number))
    }

    /// The time of the last event, in seconds of the monotonic clock.
    pub(crate) fn now_s(&self) -> u32 {
        self.now_s
    }

    /// Whether everything that should be installed is.
    pub(crate) fn is_settled(&self) -> bool {
        self.database.is_ok()
            && self.failed.is_empty()
            && self.desired.iter().all(|bridge| {
                bridge.reason.is_some() || (self.hold(&bridge.name).is_none() && self.is_active(&bridge.name))
            })
    }
}

fn names(rows: &Rows) -> impl Iterator<Item = &str> {
    rows.bridges.values().map(|row| row.name.as_str())
}

#[cfg(test)]
mod tests;
