//! What ovs-vswitchd has applied of what the database says.
//!
//! A client that waits (`ovs-vsctl` without `--no-wait`) increments `next_cfg` together with its change, and
//! ovs-vswitchd sets `cur_cfg` to it when the change is in force. Between the two a bridge with a change in it is
//! held: neither the old rules nor the new ones are certain. A change without that announcement is of one of two kinds.
//! Most columns wake ovs-vswitchd, so the change is in force a moment later: *alerting*. `Port.trunks`,
//! `Port.vlan_mode`, `Bridge.stp_enable` and `Bridge.rstp_enable` do not (`vswitchd/bridge.c`): such a *silent* change
//! waits until something else wakes it, and so does the fast path.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::ovsdb::{BridgeRow, InterfaceRow, PortRow, Rows, Uuid};

/// How two states of a bridge's configuration differ, the worse the greater.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Difference {
    /// In nothing that decides about forwarding.
    None,
    /// In columns that do not wake ovs-vswitchd.
    Silent,
    /// In columns that do.
    Alerting,
}

/// What to do after an update.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// Nothing; the state is settled, or ovs-vswitchd's word is awaited.
    Wait,
    /// Make sure that ovs-vswitchd has been through its main loop since, then call [`Applied::settled`] with this.
    Settle(u64),
}

/// Follows the database and knows which bridges to hold.
#[derive(Default, Debug)]
pub struct Applied {
    latest: Option<Arc<Rows>>,
    announced: Option<Arc<Rows>>,
    applied: Option<Arc<Rows>>,
    token: u64,
}

impl Applied {
    /// The newest state.
    pub fn latest(&self) -> Option<&Arc<Rows>> {
        self.latest.as_ref()
    }

    /// Takes the state after a transaction.
    pub fn update(&mut self, rows: Arc<Rows>) -> Next {
        let (next, current) = cfg(&rows);
        let (known_next, known_current) = self.latest.as_deref().map_or((i64::MIN, i64::MIN), cfg);
        if next != known_next {
            self.announced = Some(rows.clone());
        }
        if current >= next && (current != known_current || self.applied.is_none()) {
            self.applied = self.announced.clone();
        }
        self.latest = Some(rows);
        self.token += 1;
        if current >= next && self.worst() == Difference::Alerting {
            Next::Settle(self.token)
        } else {
            Next::Wait
        }
    }

    /// ovs-vswitchd has been through its main loop since the update with this token. Whatever it was woken for, it has
    /// applied everything.
    pub fn settled(&mut self, token: u64) {
        if token == self.token {
            self.restarted();
        }
    }

    /// ovs-vswitchd has started anew, and begins by applying everything.
    pub fn restarted(&mut self) {
        self.applied.clone_from(&self.latest);
    }

    /// Why a bridge has to be held, if it has to.
    pub fn hold(&self, bridge: &str) -> Option<&'static str> {
        let (Some(applied), Some(latest)) = (&self.applied, &self.latest) else {
            return Some("ovs-vswitchd has not applied its configuration yet");
        };
        match difference(applied, latest, bridge) {
            Difference::None => None,
            Difference::Silent if cfg(latest).0 <= cfg(latest).1 => Some(
                "a change of trunks, vlan_mode, stp_enable or rstp_enable was written without waiting, and ovs-vswitchd \
                 applies it only with the next change (any `ovs-vsctl set` without --no-wait)",
            ),
            Difference::Silent | Difference::Alerting => {
                Some("ovs-vswitchd is applying a change of configuration")
            }
        }
    }

    fn worst(&self) -> Difference {
        let (Some(applied), Some(latest)) = (&self.applied, &self.latest) else { return Difference::None };
        let names: BTreeSet<&str> =
            applied.bridges.values().chain(latest.bridges.values()).map(|row| row.name.as_str()).collect();
        names.into_iter().map(|name| difference(applied, latest, name)).max().unwrap_or(Difference::None)
    }
}

/// `next_cfg` and `cur_cfg`.
fn cfg(rows: &Rows) -> (i64, i64) {
    rows.open_vswitch.as_ref().map_or((0, 0), |row| (row.next_cfg, row.cur_cfg))
}

/// How the configuration of a bridge differs between two states of the database.
pub fn difference(old: &Arc<Rows>, new: &Arc<Rows>, bridge: &str) -> Difference {
    if Arc::ptr_eq(old, new) {
        return Difference::None;
    }
    match (find(old, bridge), find(new, bridge)) {
        (None, None) => Difference::None,
        (Some(a), Some(b)) => {
            if host_differs(old, new) || old.mirrors != new.mirrors || sets_differ(old, new) {
                return Difference::Alerting;
            }
            bridge_difference(a, b).max(ports_difference(old, new, &a.ports, &b.ports))
        }
        _ => Difference::Alerting,
    }
}

fn find<'r>(rows: &'r Rows, name: &str) -> Option<&'r Arc<BridgeRow>> {
    rows.bridges.values().find(|row| row.name == name)
}

fn host_differs(old: &Rows, new: &Rows) -> bool {
    let essence = |rows: &Rows| {
        let host = rows.open_vswitch.as_ref();
        host.map(|host| (host.other_config.clone(), host.manager_options.clone()))
    };
    old.managers != new.managers || essence(old) != essence(new)
}

fn sets_differ(old: &Rows, new: &Rows) -> bool {
    old.flow_sample_collector_sets != new.flow_sample_collector_sets
}

fn bridge_difference(old: &Arc<BridgeRow>, new: &Arc<BridgeRow>) -> Difference {
    if Arc::ptr_eq(old, new) || old == new {
        return Difference::None;
    }
    let silent =
        BridgeRow { stp_enable: new.stp_enable, rstp_enable: new.rstp_enable, ..BridgeRow::clone(old) };
    if silent == **new { Difference::Silent } else { Difference::Alerting }
}

fn ports_difference(old: &Rows, new: &Rows, a: &BTreeSet<Uuid>, b: &BTreeSet<Uuid>) -> Difference {
    if a != b {
        return Difference::Alerting;
    }
    a.iter().map(|port| port_difference(old, new, *port)).max().unwrap_or(Difference::None)
}

fn port_difference(old: &Rows, new: &Rows, port: Uuid) -> Difference {
    let (Some(a), Some(b)) = (old.ports.get(&port), new.ports.get(&port)) else {
        return Difference::Alerting;
    };
    let own = if Arc::ptr_eq(a, b) || a == b {
        Difference::None
    } else {
        let silent =
            PortRow { trunks: b.trunks.clone(), vlan_mode: b.vlan_mode.clone(), ..PortRow::clone(a) };
        if silent == **b { Difference::Silent } else { Difference::Alerting }
    };
    let interfaces = a.interfaces.iter().any(|interface| {
        match (old.interfaces.get(interface), new.interfaces.get(interface)) {
            (Some(a), Some(b)) => !Arc::ptr_eq(a, b) && settings(a) != settings(b),
            (a, b) => a.is_some() != b.is_some(),
        }
    });
    if interfaces { Difference::Alerting } else { own }
}

/// An interface without what ovs-vswitchd writes itself, and without what only we read.
fn settings(row: &InterfaceRow) -> InterfaceRow {
    InterfaceRow { ofport: None, error: None, ifindex: None, external_ids: Default::default(), ..row.clone() }
}

#[cfg(test)]
mod tests;
