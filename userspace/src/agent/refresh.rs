//! From everything that is known to the steps that follow from it.

use std::collections::BTreeSet;

use tracing::{debug, warn};
use trunkline_core::abi;

use super::{Agent, FULL_REFRESH_S, Failure, RETRY_S, Refusal, Watched};
use crate::dataplane::{BridgeNo, BridgeTimes, Dataplane, Hooks, Installed, InstalledPort, Op, PortNo};
use crate::desired::{self, DesiredBridge, DesiredPort, Reason, World};
use crate::event::Effect;
use crate::ovsdb::Rows;
use crate::plan::{Plan, plan};

/// What is to become of a bridge at this moment.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Disposition {
    /// Something is not certain: its ports stay, and it does not switch.
    Held,
    /// It is Open vSwitch's.
    GivenBack,
    Switching,
}

impl<D: Dataplane> Agent<D> {
    /// Compiles, compares, and takes the steps in between.
    pub(super) fn refresh(&mut self) {
        let Some(rows) = self.applied.latest().cloned() else { return };
        self.note_suspensions();
        self.desired = self.compile(&rows);
        self.follow();
        self.invalidate_uncertain();
        let mut target = self.target();
        let mut next = plan(self.dataplane.installed(), &target);
        let unasked = self.to_be_asked_first(&next, &target);
        if !unasked.is_empty() {
            unasked.into_iter().for_each(|bridge| self.invalidate(bridge));
            target = self.target();
            next = plan(self.dataplane.installed(), &target);
        }
        self.take_steps(&next);
        self.full_refresh_s = self.now_s + FULL_REFRESH_S;
        self.unsettled = next != Plan::default();
        self.numbers.retain(self.dataplane.installed());
        self.switch_offloads();
        self.ask();
    }

    fn compile(&self, rows: &Rows) -> Vec<DesiredBridge> {
        let facts = self.watched.iter();
        let facts = facts.filter_map(|(name, watched)| Some((name.clone(), watched.facts()?))).collect();
        let refused = self.offloads.iter().filter_map(|(ifindex, offload)| {
            Some((*ifindex, Reason::RxVlanOffload { cause: offload.refused.clone()? }))
        });
        let without_xdp = self.without_xdp.iter().map(|(ifindex, refusal)| (*ifindex, refusal.cause.clone()));
        let mut desired = desired::compile(&World {
            rows,
            links: &self.links,
            facts: &facts,
            selected: &self.selected,
            our_program: self.our_program,
            tcx: self.tcx,
            without_xdp: &without_xdp.chain(refused).collect(),
            vlan_devices_possible: self.host.vlan_devices_possible,
        });
        for port in desired.iter_mut().flat_map(|bridge| &mut bridge.ports) {
            let failure = port.ifindex.and_then(|ifindex| self.failed.get(&ifindex));
            if let (Some(failure), Ok(_)) = (failure, &port.rules) {
                port.rules = Err(failure.cause.clone());
            }
        }
        desired
    }

    /// Has the bridges followed by OpenFlow whose flows are of interest, and no others: to ask a bridge with a
    /// controller and a million flows would be a bad turn.
    fn follow(&mut self) {
        let eligible = self.desired.iter().filter(|bridge| bridge.eligible);
        let follow: Vec<String> = eligible.map(|bridge| bridge.name.clone()).collect();
        if follow != self.followed {
            for name in self.followed.iter().filter(|name| !follow.contains(name)) {
                if let Some(watched) = self.watched.get_mut(name) {
                    watched.unfollow();
                }
            }
            self.followed.clone_from(&follow);
            self.effects.push(Effect::Follow(follow));
        }
    }

    /// The bridges that these steps would let switch, or go on to switch, without having been asked for what they need.
    fn to_be_asked_first(&self, plan: &Plan, target: &Installed) -> BTreeSet<BridgeNo> {
        let ports = &self.dataplane.installed().ports;
        let unasked = |op: &Op| match op {
            // One that has to be suspended for a change switches again only after it has been asked anew.
            Op::Suspend(bridge) => target.active.contains_key(bridge).then_some(*bridge),
            // After a change of VLANs the last answer does, but no further than that its ports have other rules.
            Op::Remove(place) => {
                let bridge = ports.get(place).map(|port| BridgeNo(port.rules.bridge));
                bridge.filter(|bridge| self.switches_unasked(*bridge))
            }
            Op::Install(place, new) => {
                let same = |old: &InstalledPort| old.ifindex == new.ifindex && old.hooks == new.hooks;
                let bridge = BridgeNo(new.rules.bridge);
                (!ports.get(place).is_some_and(same) && self.switches_unasked(bridge)).then_some(bridge)
            }
            Op::Drain | Op::Flush(_) => None,
        };
        // Whether Open vSwitch forgets an operator's entry with such a change is not certain.
        let asks_first = |bridge: &BridgeNo| {
            let watched = self.numbers.bridge_name(*bridge).and_then(|name| self.watched.get(name));
            watched.is_some_and(|watched| watched.asks_first(self.now_s)) && self.switches_unasked(*bridge)
        };
        let activated = plan.activate.keys().copied().filter(asks_first);
        plan.steps.iter().filter_map(unasked).chain(activated).collect()
    }

    /// Whether a suspended bridge would switch again by an answer that it has switched by before.
    fn switches_unasked(&self, bridge: BridgeNo) -> bool {
        let watched = self.numbers.bridge_name(bridge).and_then(|name| self.watched.get(name));
        !self.dataplane.installed().active.contains_key(&bridge) && watched.is_some_and(Watched::is_in_use)
    }

    /// What was answered before a change says nothing after it. A change of VLANs leaves flows as they are, and stations
    /// are taken out of use before the bridge switches again.
    fn invalidate_uncertain(&mut self) {
        for bridge in &self.desired {
            let in_doubt = self.uncertainty(&bridge.name).is_some() && !self.holds_for_vlans(&bridge.name);
            if (!bridge.eligible || in_doubt)
                && let Some(watched) = self.watched.get_mut(&bridge.name)
            {
                watched.invalidate();
            }
        }
    }

    fn disposition(&self, bridge: &DesiredBridge) -> Disposition {
        if self.uncertainty(&bridge.name).is_some() {
            Disposition::Held
        } else if bridge.reason.is_some() {
            Disposition::GivenBack
        } else if self.hold_reason(&bridge.name).is_some() {
            Disposition::Held
        } else {
            Disposition::Switching
        }
    }

    /// The state to install.
    fn target(&mut self) -> Installed {
        let mut target = Installed::default();
        let mut desired = std::mem::take(&mut self.desired);
        let held = desired.iter().filter(|bridge| self.disposition(bridge) == Disposition::Held);
        let held: BTreeSet<BridgeNo> =
            held.filter_map(|bridge| self.numbers.known_bridge(&bridge.name)).collect();
        let installed = self.dataplane.installed().ports.iter();
        let kept = installed.filter(|(place, port)| {
            held.contains(&BridgeNo(port.rules.bridge)) && self.is_current(**place, port)
        });
        target.ports.extend(kept.map(|(place, port)| (*place, port.clone())));

        let mut devices = BTreeSet::new();
        for bridge in &mut desired {
            if self.disposition(bridge) != Disposition::Switching {
                continue;
            }
            match self.numbers.bridge(&bridge.name) {
                Ok(number) => {
                    target.active.insert(number, bridge.times);
                    for port in &mut bridge.ports {
                        self.place(number, port, &mut devices, &mut target);
                    }
                }
                Err(cause) => bridge.reason = Some(cause),
            }
        }
        self.desired = desired;
        target
    }

    fn place(
        &mut self,
        bridge: BridgeNo,
        port: &mut DesiredPort,
        devices: &mut BTreeSet<u32>,
        target: &mut Installed,
    ) {
        let (Ok(rules), Some(chosen), Some(ifindex)) = (&port.rules, &port.hook, port.ifindex) else {
            return;
        };
        let Some(link) = self.links.get(&ifindex) else { return };
        let place =
            if devices.insert(ifindex) { self.numbers.port(ifindex) } else { Err(Reason::SharedDevice) };
        let installed = &self.dataplane.installed().ports;
        match place {
            // It is put in again when it is out.
            Ok(place) if installed.get(&place).is_some_and(|port| !self.is_current(place, port)) => {}
            Ok(place) => {
                let rules = abi::Port { bridge: bridge.0, ..*rules };
                let device = link.name.clone();
                target.ports.insert(place, InstalledPort { ifindex, device, hooks: chosen.hooks, rules });
            }
            Err(cause) => port.rules = Err(cause),
        }
    }

    /// Whether the device is still the one that the program was put on. One that went away has lost the program, even
    /// if another has its index now.
    fn is_current(&self, place: PortNo, port: &InstalledPort) -> bool {
        let link = self.links.get(&port.ifindex);
        link.is_some_and(|link| self.incarnations.get(&place) == Some(&link.incarnation))
    }

    /// Takes the steps. If one fails that makes a change safe or is part of one, no bridge begins to switch: the rest
    /// is planned again.
    pub(super) fn take_steps(&mut self, plan: &Plan) {
        let mut incomplete: Option<Reason> = None;
        for op in &plan.steps {
            match op {
                Op::Suspend(bridge) => {
                    let name = self.numbers.bridge_name(*bridge);
                    if !name.is_some_and(|name| self.holds_for_vlans(name)) {
                        self.invalidate(*bridge);
                    }
                }
                Op::Install(..) | Op::Remove(_) if incomplete.is_some() => continue,
                _ => {}
            }
            let Err(cause) = self.step(op) else { continue };
            match op {
                Op::Suspend(_) | Op::Drain | Op::Flush(_) => incomplete = Some(cause),
                Op::Install(port, _) if self.dataplane.installed().ports.contains_key(port) => {
                    incomplete = Some(cause);
                }
                // What could not be added is not in the next.
                Op::Install(..) | Op::Remove(_) => {}
            }
        }
        for (bridge, times) in &plan.activate {
            let activated = match &incomplete {
                Some(cause) => Err(cause.clone()),
                None => self.activate(*bridge, *times),
            };
            if let Err(cause) = activated {
                self.postpone(*bridge, cause);
            }
        }
    }

    fn step(&mut self, op: &Op) -> Result<(), Reason> {
        debug!(?op, "step");
        let done = self.dataplane.apply(op);
        if let Err(error) = &done {
            warn!(%error, "Open vSwitch keeps what this was about");
        }
        if let Op::Install(place, port) = op
            && let Some(link) = self.links.get(&port.ifindex)
        {
            let (incarnation, retry_s) = (link.incarnation, self.now_s + RETRY_S);
            match &done {
                Ok(()) => drop(self.incarnations.insert(*place, incarnation)),
                // tc alone may do.
                Err(error) if port.hooks == Hooks::XdpAndTc => {
                    let cause = Reason::XdpRefused { cause: error.to_string() };
                    let refusal = Refusal { link: link.clone(), cause };
                    self.without_xdp.insert(port.ifindex, refusal);
                }
                Err(error) => {
                    let cause = Reason::InstallFailed { cause: error.to_string() };
                    let failure = Failure { incarnation, cause, retry_s };
                    self.failed.insert(port.ifindex, failure);
                }
            }
        }
        done.map_err(|error| Reason::StepFailed { cause: error.to_string() })
    }

    /// Lets a bridge switch, and has its stations confirmed. If the database has news of it that the agent has yet to hear, nothing
    /// happens: it is planned again with these, or a second later.
    fn activate(&mut self, bridge: BridgeNo, times: BridgeTimes) -> Result<(), Reason> {
        debug!(?bridge, ?times, "activate");
        let Some(name) = self.numbers.bridge_name(bridge).map(str::to_owned) else { return Ok(()) };
        let known = self.watched.get_mut(&name).and_then(|watched| watched.known_mut());
        let rows = known.ok_or(Reason::AskedAgain)?.stations.take();
        let reconciled = match &rows {
            Some(rows) => self.reconcile(&name, rows, u32::MAX, self.now_s).map(drop),
            None => Ok(()),
        };
        let activated = reconciled.and_then(|()| self.dataplane.activate(bridge, &name, times, self.now_s));
        let activated = match activated {
            Ok(activated) => activated,
            Err(error) => {
                self.on_trouble(&name, &error);
                return Ok(());
            }
        };
        let Some(watched) = self.watched.get_mut(&name) else { return Ok(()) };
        if activated {
            watched.told = None;
            self.effects.extend(watched.confirm(&name, &mut self.questions, self.now_s));
        } else if let Some(known) = watched.known_mut() {
            known.stations = rows;
        }
        Ok(())
    }

    /// The bridge is asked again, in a moment.
    fn postpone(&mut self, bridge: BridgeNo, cause: Reason) {
        let name = self.numbers.bridge_name(bridge);
        if let Some(watched) = name.and_then(|name| self.watched.get_mut(name)) {
            watched.failed(cause, self.now_s);
        }
    }

    /// What is known of a bridge beside the database is worth nothing from now on.
    fn invalidate(&mut self, bridge: BridgeNo) {
        let name = self.numbers.bridge_name(bridge);
        if let Some(watched) = name.and_then(|name| self.watched.get_mut(name)) {
            watched.invalidate();
        }
    }

    /// Sends the questions that are open.
    pub(super) fn ask(&mut self) {
        for bridge in &self.desired {
            if bridge.eligible
                && self.uncertainty(&bridge.name).is_none()
                && let Some(watched) = self.watched.get_mut(&bridge.name)
            {
                self.effects.extend(watched.ask(&bridge.name, &mut self.questions, self.now_s));
            }
        }
    }
}
