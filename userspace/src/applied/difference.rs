//! How two states of the database differ, as far as ovs-vswitchd goes by it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::ovsdb::{BridgeRow, InterfaceRow, PortRow, Rows, Uuid};

/// In which columns two states of a bridge's configuration differ.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Difference {
    /// In some that do not wake ovs-vswitchd.
    silent: bool,
    /// In some that do.
    pub(super) alerting: bool,
    /// In others than `tag`, `trunks` and `vlan_mode` of ports that remain.
    pub(super) further: bool,
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

/// The bridges in whose configuration two states of the database differ, by name.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Differences(pub(super) BTreeMap<String, Difference>);

impl Differences {
    /// Compares two states. If there is no old one, every bridge is new.
    pub(super) fn between(old: Option<&Rows>, new: &Rows) -> Self {
        let nothing = Rows::default();
        let old = old.unwrap_or(&nothing);
        let all = host_differs(old, new) || old.flow_sample_collector_sets != new.flow_sample_collector_sets;
        let by_name = |rows: &'_ Rows| -> BTreeMap<String, Arc<BridgeRow>> {
            rows.bridges.values().map(|row| (row.name.clone(), row.clone())).collect()
        };
        let (before, mut after) = (by_name(old), by_name(new));
        let mut found: BTreeMap<_, _> = before
            .into_iter()
            .map(|(name, a)| match after.remove(&name) {
                Some(b) if !all => (name, bridge_difference(old, new, &a, &b)),
                _ => (name, Difference::FURTHER),
            })
            .collect();
        found.extend(after.into_keys().map(|name| (name, Difference::FURTHER)));
        found.retain(|_, difference| *difference != Difference::NONE);
        Self(found)
    }

    /// Returns the names of the bridges.
    pub fn bridges(&self) -> BTreeSet<String> {
        self.0.keys().cloned().collect()
    }
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
