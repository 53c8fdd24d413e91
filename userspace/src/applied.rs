//! What ovs-vswitchd has applied of what the database says.
//!
//! A client that waits (`ovs-vsctl` without `--no-wait`) increments `next_cfg` together with its change, and
//! ovs-vswitchd sets `cur_cfg` to it when the change is in force. A change without that announcement is of one of two
//! kinds. Most columns wake ovs-vswitchd, so the change is in force a moment later: *alerting*. `Port.trunks`,
//! `Port.vlan_mode`, `Bridge.stp_enable` and `Bridge.rstp_enable` do not (`vswitchd/bridge.c`): such a *silent* change
//! waits until something else wakes it, and so does the fast path.
//!
//! Every update has a number, and a change in it is *open* until it is certain that ovs-vswitchd has applied that
//! update. A change that is taken back is open all the same: ovs-vswitchd may have applied it in between. A bridge with
//! an open change is held. One thing cannot be known: a silent change that was waiting already when the agent
//! connected (or connected again), or that came in one message with the confirmation of another.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::dataplane::Affected;
use crate::ovsdb::{BridgeRow, InterfaceRow, OvsdbEvent, PortRow, Rows, Uuid};

/// In which columns two states of a bridge's configuration differ.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Difference {
    /// In some that do not wake ovs-vswitchd.
    silent: bool,
    /// In some that do.
    alerting: bool,
    /// In others than `tag`, `trunks` and `vlan_mode` of ports that remain.
    further: bool,
}

impl Difference {
    const NONE: Self = Self { silent: false, alerting: false, further: false };
    const FURTHER: Self = Self { alerting: true, further: true, ..Self::NONE };

    fn or(self, other: Self) -> Self {
        Self {
            silent: self.silent || other.silent,
            alerting: self.alerting || other.alerting,
            further: self.further || other.further,
        }
    }
}

/// What to do next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// Nothing; the state is settled, or ovs-vswitchd's word is awaited.
    Wait,
    /// Make sure that ovs-vswitchd has been through its main loop since, then call [`Applied::settled`].
    Settle {
        /// To be given back.
        token: u64,
        /// Whether it is to have time first to connect to the database again.
        connecting: bool,
    },
}

/// The newest updates with an open change, 0 for none.
#[derive(Clone, Copy, Default, Debug)]
struct Open {
    silent: u64,
    alerting: u64,
    /// Whether any of the changes since the bridge is held is of more than the VLANs of its ports.
    further: bool,
}

/// Follows the database and knows which bridges to hold.
#[derive(Default, Debug)]
pub struct Applied {
    latest: Option<Arc<Rows>>,
    /// The number of the newest update; they count from 1.
    newest: u64,
    /// By name of the bridge.
    open: BTreeMap<String, Open>,
    /// The update that changed `next_cfg` last.
    announced: u64,
    /// The update that woke ovs-vswitchd last.
    alerted: u64,
    /// The first update after the database was last out of reach, and whether that is still to come.
    returned: u64,
    away: bool,
    /// Whether ovs-vswitchd may have yet to connect to the database since, and whether something has changed meanwhile.
    connecting: bool,
    missing: bool,
    /// The newest update when the running ovs-vswitchd was last known not to have been replaced.
    seen: u64,
    /// What [`Applied::alerted`] was when the outstanding question was asked for, and whether it waits for a connection.
    settling: Option<(u64, bool)>,
}

impl Applied {
    /// The newest state.
    pub fn latest(&self) -> Option<&Arc<Rows>> {
        self.latest.as_ref()
    }

    /// The database is in reach again. What was changed and changed back meanwhile does not show in the next state, but
    /// ovs-vswitchd may be at work on it.
    pub fn reconnected(&mut self) {
        self.away = true;
    }

    /// Takes the state after a transaction (or after several, if the server put them together).
    pub fn update(&mut self, rows: Arc<Rows>) -> Next {
        self.newest += 1;
        let (next, current) = cfg(&rows);
        let (known_next, known_current) = self.latest.as_deref().map_or((i64::MIN, i64::MIN), cfg);
        let returns = std::mem::take(&mut self.away);
        // An agent that has just begun finds it connected.
        self.connecting |= returns && self.latest.is_some();
        for (bridge, difference) in differences(self.latest.as_deref(), &rows) {
            self.missing |= self.connecting;
            let open = self.open.entry(bridge).or_default();
            open.further |= difference.further;
            if difference.alerting {
                open.alerting = self.newest;
                self.alerted = self.newest;
            } else {
                open.silent = self.newest;
            }
        }
        if returns {
            self.returned = self.newest;
            for bridge in rows.bridges.values() {
                let open = self.open.entry(bridge.name.clone()).or_default();
                (open.alerting, open.further) = (self.newest, true);
            }
        }
        self.latest = Some(rows);

        let (announces, confirms) = (next != known_next, current == next && current != known_current);
        if announces {
            self.announced = self.newest;
            self.alerted = self.newest;
        }
        if current != known_current && !returns {
            (self.connecting, self.missing) = (false, false);
        }
        if confirms {
            // Where both came together, another change may have come after.
            self.certain(if announces { self.newest - 1 } else { self.announced });
        }
        self.next()
    }

    /// ovs-vswitchd has been through its main loop since [`Next::Settle`]. Whatever it was woken for, it has applied
    /// everything up to that update; silent changes only if it certainly was.
    pub fn settled(&mut self, token: u64) -> Next {
        let (alerted, connected) = self.settling.take().unwrap_or_default();
        if connected {
            (self.connecting, self.missing) = (false, false);
        }
        self.certain_of(alerted.min(token), token);
        self.next()
    }

    /// The ovs-vswitchd that ran is still the one that runs, or none does.
    pub fn not_restarted(&mut self) {
        self.seen = self.newest;
    }

    /// ovs-vswitchd has started anew, and begins by applying everything it finds.
    pub fn restarted(&mut self) {
        self.certain(self.seen);
        self.seen = self.newest;
    }

    /// Why a bridge has to be held, if it has to.
    pub fn hold(&self, bridge: &str) -> Option<&'static str> {
        if self.latest.is_none() {
            return Some("the database has not been read yet");
        }
        let open = self.open.get(bridge)?;
        Some(if open.alerting == 0 && open.silent > self.alerted {
            "a change of trunks, vlan_mode, stp_enable or rstp_enable was written without waiting, and ovs-vswitchd \
             applies it only with the next change (any `ovs-vsctl set` without --no-wait)"
        } else if self.missing {
            "the configuration has changed, and ovs-vswitchd may have yet to connect to the database again"
        } else {
            "ovs-vswitchd is applying a change of configuration"
        })
    }

    /// Whether a bridge is held for changes of its ports' VLANs, and for nothing else.
    pub fn holds_for_vlans(&self, bridge: &str) -> bool {
        self.open.get(bridge).is_some_and(|open| !open.further)
    }

    fn certain(&mut self, up_to: u64) {
        self.certain_of(up_to, up_to);
    }

    fn certain_of(&mut self, silent_up_to: u64, alerting_up_to: u64) {
        self.open.retain(|_, open| {
            let Open { silent, alerting, further: _ } = open;
            for (change, up_to) in [(&mut *silent, silent_up_to), (&mut *alerting, alerting_up_to)] {
                *change = if *change > up_to { *change } else { 0 };
            }
            *silent != 0 || *alerting != 0
        });
    }

    /// Whatever ovs-vswitchd was woken for after the last announcement, or is not lagging behind, is to be settled.
    fn next(&mut self) -> Next {
        let lagging = self.latest.as_deref().is_some_and(|rows| cfg(rows).0 != cfg(rows).1);
        let announced = if lagging { self.announced } else { 0 };
        let due = |open: &Open| {
            (open.silent > announced && open.silent <= self.alerted) || open.alerting > announced
        };
        if self.settling.is_some() || !self.open.values().any(due) {
            return Next::Wait;
        }
        self.settling = Some((self.alerted, self.missing));
        Next::Settle { token: self.alerted.max(self.returned), connecting: self.missing }
    }
}

/// `next_cfg` and `cur_cfg`.
fn cfg(rows: &Rows) -> (i64, i64) {
    rows.open_vswitch.as_ref().map_or((0, 0), |row| (row.next_cfg, row.cur_cfg))
}

/// Tells of each event of the database which bridges it is about.
#[derive(Default, Debug)]
pub struct Watch {
    last: Option<Arc<Rows>>,
}

impl Watch {
    /// The bridges whose forwarding the event may change.
    pub fn affected(&mut self, event: &OvsdbEvent) -> Affected {
        match event {
            // The complete state follows.
            OvsdbEvent::Connected => Affected::Bridges(BTreeSet::new()),
            OvsdbEvent::Disconnected { .. } => Affected::All,
            OvsdbEvent::Changed(rows) => {
                let last = self.last.replace(rows.clone());
                let differences = differences(last.as_deref(), rows).into_iter();
                Affected::Bridges(differences.map(|(name, _)| name).collect())
            }
        }
    }
}

/// The bridges in whose configuration two states of the database differ.
fn differences(old: Option<&Rows>, new: &Rows) -> Vec<(String, Difference)> {
    let nothing = Rows::default();
    let old = old.unwrap_or(&nothing);
    let all = host_differs(old, new) || old.flow_sample_collector_sets != new.flow_sample_collector_sets;
    let by_name = |rows: &'_ Rows| -> BTreeMap<String, Arc<BridgeRow>> {
        rows.bridges.values().map(|row| (row.name.clone(), row.clone())).collect()
    };
    let (before, mut after) = (by_name(old), by_name(new));
    let mut found: Vec<_> = before
        .into_iter()
        .map(|(name, a)| match after.remove(&name) {
            Some(b) if !all => (name, bridge_difference(old, new, &a, &b)),
            _ => (name, Difference::FURTHER),
        })
        .collect();
    found.extend(after.into_keys().map(|name| (name, Difference::FURTHER)));
    found.retain(|(_, difference)| *difference != Difference::NONE);
    found
}

fn host_differs(old: &Rows, new: &Rows) -> bool {
    let essence = |rows: &Rows| {
        let host = rows.open_vswitch.as_ref();
        host.map(|host| (host.other_config.clone(), host.manager_options.clone()))
    };
    old.managers != new.managers || essence(old) != essence(new)
}

fn bridge_difference(old: &Rows, new: &Rows, a: &Arc<BridgeRow>, b: &Arc<BridgeRow>) -> Difference {
    if a.mirrors.iter().any(|mirror| old.mirrors.get(mirror) != new.mirrors.get(mirror)) {
        return Difference::FURTHER;
    }
    let own = if Arc::ptr_eq(a, b) || a == b {
        Difference::NONE
    } else {
        let silent =
            BridgeRow { stp_enable: b.stp_enable, rstp_enable: b.rstp_enable, ..BridgeRow::clone(a) };
        Difference { silent: true, alerting: silent != **b, further: true }
    };
    own.or(ports_difference(old, new, &a.ports, &b.ports))
}

fn ports_difference(old: &Rows, new: &Rows, a: &BTreeSet<Uuid>, b: &BTreeSet<Uuid>) -> Difference {
    if a != b {
        return Difference::FURTHER;
    }
    a.iter().map(|port| port_difference(old, new, *port)).fold(Difference::NONE, Difference::or)
}

fn port_difference(old: &Rows, new: &Rows, port: Uuid) -> Difference {
    let (Some(a), Some(b)) = (old.ports.get(&port), new.ports.get(&port)) else {
        return Difference::FURTHER;
    };
    let own = if Arc::ptr_eq(a, b) || a == b {
        Difference::NONE
    } else {
        let silent =
            PortRow { trunks: b.trunks.clone(), vlan_mode: b.vlan_mode.clone(), ..PortRow::clone(a) };
        let vlans = PortRow { tag: b.tag, ..silent.clone() };
        Difference { silent: true, alerting: silent != **b, further: vlans != **b }
    };
    let interfaces = a.interfaces.iter().any(|interface| {
        match (old.interfaces.get(interface), new.interfaces.get(interface)) {
            (Some(a), Some(b)) => !Arc::ptr_eq(a, b) && settings(a) != settings(b),
            (a, b) => a.is_some() != b.is_some(),
        }
    });
    if interfaces { Difference::FURTHER } else { own }
}

/// An interface without what ovs-vswitchd writes itself, and without what only we read.
fn settings(row: &InterfaceRow) -> InterfaceRow {
    InterfaceRow { ofport: None, error: None, ifindex: None, external_ids: Default::default(), ..row.clone() }
}

#[cfg(test)]
mod tests;
