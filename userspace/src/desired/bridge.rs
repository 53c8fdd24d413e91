//! What keeps a whole bridge with Open vSwitch, and its times.

use crate::dataplane::BridgeTimes;
use crate::ovsdb::{BridgeRow, ManagerRow, OpenVSwitchRow, Uuid};
use crate::unixctl::FlowTable;

use super::reason::About;
use super::{BridgeFacts, Reason, World, mirror, smap};

/// `mac-aging-time` where it is unset, and its bounds (OVS `lib/mac-learning.c`), in seconds.
const AGEING_S: (u32, u32, u32) = (300, 15, 3600);
/// `mac-table-size` where it is unset, and its bounds.
const TABLE_SIZE: (u32, u32, u32) = (8192, 10, 1_000_000);

/// The first setting that is not on the allow-list.
pub(super) fn gate(world: &World<'_>, host: &OpenVSwitchRow, uuid: Uuid, row: &BridgeRow) -> Option<Reason> {
    if !world.selected.is_empty() && !world.selected.contains(&row.name) {
        return Some(Reason::NotSelected);
    }
    host_gate(host).or_else(|| settings_gate(world, uuid, row)).or_else(|| in_band_gate(world, host, row))
}

fn host_gate(host: &OpenVSwitchRow) -> Option<Reason> {
    if smap::is_true(&host.other_config, "flow-restore-wait") {
        Some(Reason::FlowRestoreWait)
    } else if smap::is_true(&host.other_config, "hw-offload") {
        Some(Reason::HwOffload)
    } else {
        None
    }
}

fn settings_gate(world: &World<'_>, uuid: Uuid, row: &BridgeRow) -> Option<Reason> {
    if !matches!(row.datapath_type.as_str(), "" | "system" | "netdev") {
        return Some(Reason::DatapathType { datapath_type: row.datapath_type.clone() });
    }
    if let Some(reason) = mirror::bridge_gate(world, row) {
        return Some(reason);
    }
    let settings: [(bool, About); 7] = [
        (!row.controller.is_empty(), |bridge| Reason::Controller { bridge }),
        (!row.flow_tables.is_empty(), |bridge| Reason::FlowTables { bridge }),
        (row.stp_enable, |bridge| Reason::Stp { bridge }),
        (row.rstp_enable, |bridge| Reason::Rstp { bridge }),
        (row.netflow.is_some(), |bridge| Reason::Netflow { bridge }),
        (row.sflow.is_some(), |bridge| Reason::Sflow { bridge }),
        (row.ipfix.is_some(), |bridge| Reason::Ipfix { bridge }),
    ];
    if let Some((_, reason)) = settings.into_iter().find(|(set, _)| *set) {
        return Some(reason(row.name.clone()));
    }
    let mut sets = world.rows.flow_sample_collector_sets.iter();
    if let Some((set, _)) = sets.find(|(_, set)| set.bridge == Some(uuid)) {
        return Some(Reason::FlowSampleCollectorSet { set: *set });
    }
    row.auto_attach.map(|_| Reason::AutoAttach { bridge: row.name.clone() })
}

/// A remote manager that is not out of band puts hidden flows into every bridge (OVS `connmgr.c`, `in-band.c`).
fn in_band_gate(world: &World<'_>, host: &OpenVSwitchRow, row: &BridgeRow) -> Option<Reason> {
    if smap::is_true(&row.other_config, "disable-in-band") {
        return None;
    }
    let mut managers = host.manager_options.iter().filter_map(|uuid| world.rows.managers.get(uuid));
    let manager = managers.find(|manager| in_band(manager))?;
    Some(Reason::InBandManager { target: manager.target.clone(), bridge: row.name.clone() })
}

fn in_band(manager: &ManagerRow) -> bool {
    let remote = manager.target.strip_prefix("tcp:").or_else(|| manager.target.strip_prefix("ssl:"));
    let out_of_band = manager.connection_mode.as_deref() == Some("out-of-band");
    remote.is_some_and(|host| !host.starts_with("127.") && !host.starts_with("[::1]")) && !out_of_band
}

/// What its flows have against it.
pub(super) fn flow_gate(facts: &BridgeFacts) -> Option<Reason> {
    match &facts.flow_table {
        FlowTable::NormalOnly => None,
        FlowTable::Empty => Some(Reason::NoFlow),
        FlowTable::Other { first, count } => Some(Reason::OtherFlows { count: *count, first: first.clone() }),
    }
}

/// Ageing as Open vSwitch applies it, and a refresh well within it.
pub(super) fn times(row: &BridgeRow) -> BridgeTimes {
    let ageing_s = setting(row, "mac-aging-time", AGEING_S);
    BridgeTimes { refresh_s: ageing_s / 2, ageing_s }
}

/// The size of Open vSwitch's table.
pub(super) fn table_size(row: &BridgeRow) -> u32 {
    setting(row, "mac-table-size", TABLE_SIZE)
}

/// A number with its bounds: unset, 0 and unreadable are the default, others are brought within them.
fn setting(row: &BridgeRow, key: &str, (default, least, most): (u32, u32, u32)) -> u32 {
    match smap::int(&row.other_config, key) {
        None | Some(0) => default,
        Some(value) => u32::try_from(value).map_or(least, |value| value.clamp(least, most)),
    }
}
