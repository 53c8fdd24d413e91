//! The agent's state: from events to a switching fast path.
//!
//! No I/O happens here but through the [`Dataplane`]; what has to be asked or done elsewhere is returned as
//! [`Effect`]s. Every event that changes something ends in [`Agent::refresh`], which compiles the desired state anew,
//! compares it with what is installed and takes the steps between. A bridge whose applied configuration, flows or
//! stations are not certain at this moment is *held*: its ports stay as they are, and all its frames go to Open
//! vSwitch. A bridge that was suspended switches again only after ovs-vswitchd has been asked for its flows and stations
//! anew, unless that was for a change of its ports' VLANs and nothing else.
//!
//! While a bridge is suspended, its stations may move unseen. So it begins to switch without them, and has each back with
//! the first frame that it sends, or when ovs-vswitchd, asked since, says that it is where it was.

mod answers;
mod offload;
mod refresh;
mod show;
mod stations;
mod trace;
mod view;
mod watched;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tracing::{debug, info, warn};

use crate::applied::{Applied, DatabaseEvent, Next};
use crate::config::VswitchdRun;
use crate::dataplane::{BridgeNo, Dataplane, DataplaneError, Installed, PortNo};
use crate::desired::{DesiredBridge, DesiredPort, Reason};
use crate::event::{Effect, Event, HostFacts};
use crate::links::{Link, LinkEvent, Links};
use crate::openflow::OpenFlowEvent;
use crate::plan::{IdAllocator, Plan, plan};

use offload::Offload;
use watched::Watched;

/// A port on which a step failed is tried again after so many seconds, or when its device changes.
const RETRY_S: u32 = 10;
/// Everything is looked at at least so often, in seconds, although nothing seems to have changed.
const FULL_REFRESH_S: u32 = 60;

/// If nothing is heard for so many seconds, not even that one has passed, the process did not run.
const MISSED_S: u32 = 3;

/// The state of the agent.
pub struct Agent<D> {
    dataplane: D,
    selected: Vec<String>,
    our_program: Option<u32>,
    tcx: bool,
    applied: Applied,
    /// Whether the database is connected and read, or why not.
    database: Result<(), String>,
    ovs_version: Option<String>,
    links: Arc<Links>,
    links_trouble: Option<String>,
    host: HostFacts,
    watched: BTreeMap<String, Watched>,
    /// Questions asked so far: each has its number, so that no answer is taken for another's.
    questions: u64,
    followed: Vec<String>,
    numbers: IdAllocator,
    failed: BTreeMap<u32, Failure>,
    without_xdp: BTreeMap<u32, Refusal>,
    /// Of the devices of installed ports, when the program was put on them.
    incarnations: BTreeMap<PortNo, u32>,
    offloads: BTreeMap<u32, Offload>,
    desired: Vec<DesiredBridge>,
    effects: Vec<Effect>,
    now_s: u32,
    swept_s: u32,
    /// When to look at everything, in seconds, if nothing happens before.
    full_refresh_s: u32,
    /// Whether the last look at everything led to steps: what they freed, or could not do, may call for others.
    unsettled: bool,
}

/// A device on which the program could not be put.
#[derive(Debug)]
struct Failure {
    incarnation: u32,
    cause: Reason,
    retry_s: u32,
}

/// A device that did not take both programs, as it was then. It is not asked again before it has changed, as asking
/// interrupts its bridge.
#[derive(Debug)]
struct Refusal {
    link: Arc<Link>,
    cause: Reason,
}

impl<D: Dataplane> Agent<D> {
    /// An agent that knows nothing yet. `selected` are the bridges to accelerate, none for all; `our_program` is the XDP
    /// program's number, and `tcx` whether the tc program can be used.
    pub fn new(dataplane: D, selected: Vec<String>, our_program: Option<u32>, tcx: bool) -> Self {
        Self {
            dataplane,
            selected,
            our_program,
            tcx,
            applied: Applied::default(),
            database: Err("not connected yet".to_owned()),
            ovs_version: None,
            links: Arc::default(),
            links_trouble: Some("not read yet".to_owned()),
            host: HostFacts { vswitchd: None, vlan_devices_possible: true },
            watched: BTreeMap::new(),
            questions: 0,
            followed: Vec::new(),
            numbers: IdAllocator::default(),
            failed: BTreeMap::new(),
            without_xdp: BTreeMap::new(),
            incarnations: BTreeMap::new(),
            offloads: BTreeMap::new(),
            desired: Vec::new(),
            effects: Vec::new(),
            now_s: 0,
            swept_s: 0,
            full_refresh_s: 0,
            unsettled: false,
        }
    }

    /// Takes one event, at a time in seconds of the monotonic clock, and returns what has to be done outside.
    pub fn handle(&mut self, event: Event, now_s: u32) -> Vec<Effect> {
        let missed = self.has_missed_time(now_s);
        self.now_s = now_s;
        let changed = match event {
            Event::Database(event) => self.on_database(event),
            Event::Links(event) => self.on_links(event),
            Event::OpenFlow(event) => self.on_openflow(event),
            Event::Probed { bridge, question, answer } => self.on_probed(&bridge, question, answer),
            Event::Polled { bridge, question, answer } => self.on_polled(&bridge, question, answer),
            Event::Show(shows) => {
                self.on_show(&shows);
                false
            }
            Event::Shown { bridge, question, answer } => {
                self.on_shown(&bridge, question, answer);
                false
            }
            Event::BarrierPassed(update) => {
                let next = self.applied.barrier_passed(update);
                self.set_barrier(next);
                true
            }
            Event::OffloadRefused { ifindex, cause } => self.on_offload_refused(ifindex, cause),
            Event::Vswitchd(run) => {
                self.look_for_restart(run);
                false
            }
            Event::Tick(host) => self.on_tick(host),
        };
        if changed || missed {
            self.refresh();
        }
        std::mem::take(&mut self.effects)
    }

    /// Whether there was a time in which nothing was heard: the process was stopped, or could not run. What was known before, and
    /// would have been told in that time, may be out of date.
    fn has_missed_time(&mut self, now_s: u32) -> bool {
        let missed = self.now_s != 0 && now_s.saturating_sub(self.now_s) >= MISSED_S;
        if missed {
            warn!(seconds = now_s - self.now_s, "nothing was heard for too long: Open vSwitch is asked anew");
            self.watched.values_mut().for_each(Watched::invalidate);
        }
        missed
    }

    /// Gives every port back to Open vSwitch. Tries everything; returns all failures, and what is left to do outside.
    pub fn give_back(&mut self) -> (Vec<DataplaneError>, Vec<Effect>) {
        let Plan { steps, .. } = plan(self.dataplane.installed(), &Installed::default());
        let failures = steps.iter().filter_map(|op| self.dataplane.apply(op).err()).collect();
        self.desired.clear();
        self.switch_offloads();
        (failures, std::mem::take(&mut self.effects))
    }

    /// Extends the leases of the active bridges. Returns whether some have run out, or could not be extended.
    fn renew(&mut self) -> bool {
        if let Err(error) = self.dataplane.renew(self.now_s) {
            warn!(%error, "the lease of the fast path was not extended");
        }
        let suspended = self.note_suspensions();
        for bridge in &suspended {
            warn!(
                bridge,
                "its lease ran out: Open vSwitch has all its frames until its flows and stations are known anew"
            );
        }
        !suspended.is_empty()
    }

    /// Takes note of the bridges that are suspended meanwhile, and returns their names. What was said of them is to be asked anew,
    /// unless they are held for a change of VLANs: flows are as they were, and stations are set aside in any case.
    fn note_suspensions(&mut self) -> Vec<String> {
        let suspended = self.dataplane.take_suspended();
        let names = suspended.into_iter().filter_map(|bridge| self.numbers.bridge_name(bridge));
        let names: Vec<String> = names.map(str::to_owned).collect();
        for name in &names {
            if !self.holds_for_vlans(name)
                && let Some(watched) = self.watched.get_mut(name)
            {
                watched.invalidate();
            }
        }
        names
    }

    fn on_database(&mut self, event: DatabaseEvent) -> bool {
        match event {
            // What is known may be long out of date; the complete state follows.
            DatabaseEvent::Connected => {
                self.database = Err("it is being read".to_owned());
                self.applied.reconnected();
            }
            DatabaseEvent::Disconnected { cause } => {
                warn!(cause, "the database is out of reach: Open vSwitch has all frames");
                self.database = Err(cause);
            }
            DatabaseEvent::Changed { rows, differences } => {
                if self.database.is_err() {
                    info!("the database is connected");
                }
                self.database = Ok(());
                let names: BTreeSet<String> = rows.bridges.values().map(|row| row.name.clone()).collect();
                self.watched.retain(|name, _| names.contains(name));
                for name in names {
                    self.watched.entry(name).or_default();
                }
                let next = self.applied.update(rows, differences);
                self.set_barrier(next);
            }
        }
        true
    }

    fn set_barrier(&mut self, next: Next) {
        if let Next::Barrier { update, connecting } = next {
            self.effects.push(Effect::Barrier { update, connecting });
        }
    }

    fn on_links(&mut self, event: LinkEvent) -> bool {
        match event {
            LinkEvent::Snapshot(links) => {
                self.links_trouble = None;
                self.failed.retain(|ifindex, failure| {
                    links.get(ifindex).is_some_and(|link| link.incarnation == failure.incarnation)
                });
                self.without_xdp.retain(|ifindex, refusal| links.get(ifindex) == Some(&refusal.link));
                self.links = links;
            }
            LinkEvent::Failed { cause } => {
                warn!(cause, "the kernel's devices cannot be followed: Open vSwitch has all frames");
                self.links_trouble = Some(cause);
            }
        }
        true
    }

    fn on_openflow(&mut self, event: OpenFlowEvent) -> bool {
        let (OpenFlowEvent::Connected { bridge }
        | OpenFlowEvent::FlowsChanged { bridge }
        | OpenFlowEvent::PortFlags { bridge, .. }
        | OpenFlowEvent::Disconnected { bridge, .. }) = &event;
        let Some(watched) = self.watched.get_mut(bridge) else { return false };
        match event {
            OpenFlowEvent::Connected { .. } => watched.unfollow(),
            OpenFlowEvent::FlowsChanged { .. } => watched.invalidate(),
            OpenFlowEvent::PortFlags { flags, .. } => watched.port_flags = Ok(flags),
            OpenFlowEvent::Disconnected { bridge, cause } => {
                // Most likely ovs-vswitchd ended; if not, its flags and flows may change unnoticed.
                debug!(bridge, cause, "OpenFlow connection lost");
                watched.unfollow();
                watched.port_flags = Err(Reason::PortFlagsUnreadable { cause });
            }
        }
        true
    }

    /// Whether anything may have come of the second that has passed.
    fn on_tick(&mut self, host: HostFacts) -> bool {
        let replaced = self.look_for_restart(host.vswitchd);
        let host = HostFacts { vswitchd: self.host.vswitchd, ..host };
        let mut changed = self.unsettled || replaced || host != self.host;
        self.host = host;
        changed |= self.renew();
        let failures = self.failed.len();
        self.failed.retain(|_, failure| failure.retry_s > self.now_s);
        changed |= failures != self.failed.len();
        if self.now_s >= self.swept_s + stations::SWEEP_S {
            self.swept_s = self.now_s;
            self.sweep();
        }
        changed |= self.now_s >= self.full_refresh_s;
        for (bridge, watched) in &mut self.watched {
            self.effects.extend(watched.poll(bridge, self.now_s));
        }
        if !changed {
            // Time alone may call for these.
            self.ask();
        }
        changed
    }

    /// Whether ovs-vswitchd was started anew: then what was said before is worth nothing.
    fn look_for_restart(&mut self, run: Option<VswitchdRun>) -> bool {
        let replaced = match (self.host.vswitchd, run) {
            (Some(before), Some(now)) => before != now,
            _ => false,
        };
        if replaced {
            info!(pid = run.map(|run| run.pid), "ovs-vswitchd was restarted");
            self.applied.restarted();
            self.watched.values_mut().for_each(Watched::invalidate);
        } else {
            self.applied.not_restarted();
        }
        self.host.vswitchd = run.or(self.host.vswitchd);
        replaced
    }

    /// Why a bridge cannot be judged at this moment; `None` if it can.
    fn hold_reason(&self, bridge: &str) -> Option<Reason> {
        self.uncertainty(bridge).or_else(|| match self.watched.get(bridge) {
            Some(watched) => watched.hold_reason(),
            None => Some(Reason::NewBridge),
        })
    }

    /// Whether a bridge is held for a change of its ports' VLANs, and would switch by what is known of it but for that.
    fn holds_for_vlans(&self, bridge: &str) -> bool {
        self.database.is_ok()
            && self.links_trouble.is_none()
            && self.applied.holds_for_vlans(bridge)
            && self.watched.get(bridge).is_some_and(Watched::is_in_use)
    }

    /// Why not even its configuration is certain.
    fn uncertainty(&self, bridge: &str) -> Option<Reason> {
        if let Err(cause) = &self.database {
            return Some(Reason::DatabaseUnreachable { cause: cause.clone() });
        }
        if let Some(cause) = &self.links_trouble {
            return Some(Reason::DevicesUnreadable { cause: cause.clone() });
        }
        self.applied.hold_reason(bridge)
    }

    /// The number of an accelerated port of a bridge.
    fn installed_port(&self, bridge: BridgeNo, port: &DesiredPort) -> Option<PortNo> {
        let place = self.numbers.known_port(port.ifindex?)?;
        let installed = self.dataplane.installed().ports.get(&place)?;
        (installed.rules.bridge == bridge.0).then_some(place)
    }

    /// The number of a bridge.
    fn bridge_no(&self, bridge: &str) -> Option<BridgeNo> {
        self.numbers.known_bridge(bridge)
    }

    /// Whether a bridge switches by itself now.
    fn is_active(&self, bridge: &str) -> bool {
        let number = self.numbers.known_bridge(bridge);
        number.is_some_and(|number| self.dataplane.installed().active.contains_key(&number))
    }
}

#[cfg(test)]
mod tests;
