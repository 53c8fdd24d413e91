//! What keeps a whole bridge with Open vSwitch, and its times.

use crate::dataplane::BridgeTimes;
use crate::ovsdb::{BridgeRow, ManagerRow, OpenVSwitchRow, Uuid};
use crate::unixctl::FlowTable;

use super::{BridgeFacts, World, mirror};

/// `mac-aging-time` where it is unset, and its bounds (OVS `lib/mac-learning.c`), in seconds.
const AGEING_S: (u32, u32, u32) = (300, 15, 3600);
/// `mac-table-size` where it is unset, and its bounds.
const TABLE_SIZE: (u32, u32, u32) = (8192, 10, 1_000_000);

/// The first setting that is not on the allow-list, as a sentence.
pub(super) fn gate(world: &World<'_>, host: &OpenVSwitchRow, uuid: Uuid, row: &BridgeRow) -> Option<String> {
    if !world.selected.is_empty() && !world.selected.contains(&row.name) {
        return Some("it is not among the bridges named with --bridge".to_owned());
    }
    host_gate(host).or_else(|| settings_gate(world, uuid, row)).or_else(|| in_band_gate(world, host, row))
}

fn host_gate(host: &OpenVSwitchRow) -> Option<String> {
    let set = |key: &str| host.other_config.get(key).is_some_and(|value| value == "true");
    [
        ("flow-restore-wait", "ovs-vswitchd does not switch", ""),
        ("hw-offload", "flows may be in hardware", ", with a restart of ovs-vswitchd,"),
    ]
    .into_iter()
    .find(|(key, _, _)| set(key))
    .map(|(key, why, and)| {
        format!(
            "Open_vSwitch other_config:{key} is set, so {why}; `ovs-vsctl remove open_vswitch . other_config {key}`{and} \
             ends that"
        )
    })
}

fn settings_gate(world: &World<'_>, uuid: Uuid, row: &BridgeRow) -> Option<String> {
    if !matches!(row.datapath_type.as_str(), "" | "system" | "netdev") {
        return Some(format!("its datapath_type {} is unknown", row.datapath_type));
    }
    if let Some(reason) = mirror::bridge_gate(world, row) {
        return Some(reason);
    }
    let mut sets = world.rows.flow_sample_collector_sets.iter();
    let sampled = sets.find(|(_, set)| set.bridge == Some(uuid)).map(|(set, _)| set.to_string());
    let name = &row.name;
    let clear = |column: &str| format!("clear bridge {name} {column}");
    [
        (
            !row.controller.is_empty(),
            "an OpenFlow controller decides about its flows (Bridge.controller)",
            format!("del-controller {name}"),
        ),
        (
            !row.flow_tables.is_empty(),
            "it has flow table settings (Bridge.flow_tables)",
            clear("flow_tables"),
        ),
        (
            row.stp_enable,
            "spanning tree decides about its ports (Bridge.stp_enable)",
            format!("set bridge {name} stp_enable=false"),
        ),
        (
            row.rstp_enable,
            "rapid spanning tree decides about its ports (Bridge.rstp_enable)",
            format!("set bridge {name} rstp_enable=false"),
        ),
        (row.netflow.is_some(), "NetFlow accounts for its traffic (Bridge.netflow)", clear("netflow")),
        (row.sflow.is_some(), "sFlow samples its traffic (Bridge.sflow)", clear("sflow")),
        (row.ipfix.is_some(), "IPFIX samples its traffic (Bridge.ipfix)", clear("ipfix")),
        (
            sampled.is_some(),
            "IPFIX may sample its traffic (Flow_Sample_Collector_Set)",
            format!("destroy flow_sample_collector_set {}", sampled.unwrap_or_default()),
        ),
        (
            row.auto_attach.is_some(),
            "auto-attach may change its VLANs (Bridge.auto_attach)",
            clear("auto_attach"),
        ),
    ]
    .into_iter()
    .find_map(|(set, reason, way_out)| set.then(|| format!("{reason}; `ovs-vsctl {way_out}` ends that")))
}

/// A remote manager that is not out of band puts hidden flows into every bridge (OVS `connmgr.c`, `in-band.c`).
fn in_band_gate(world: &World<'_>, host: &OpenVSwitchRow, row: &BridgeRow) -> Option<String> {
    if row.other_config.get("disable-in-band").is_some_and(|value| value == "true") {
        return None;
    }
    host.manager_options.iter().filter_map(|uuid| world.rows.managers.get(uuid)).find(|manager| in_band(manager)).map(
        |manager| {
            format!(
                "manager {} is in-band; `ovs-vsctl set bridge {} other_config:disable-in-band=true` ends that",
                manager.target, row.name
            )
        },
    )
}

fn in_band(manager: &ManagerRow) -> bool {
    let remote = manager.target.strip_prefix("tcp:").or_else(|| manager.target.strip_prefix("ssl:"));
    let out_of_band = manager.connection_mode.as_deref() == Some("out-of-band");
    remote.is_some_and(|host| !host.starts_with("127.") && !host.starts_with("[::1]")) && !out_of_band
}

/// What its flows have against it.
pub(super) fn flow_gate(facts: &BridgeFacts) -> Option<String> {
    match &facts.flow_table {
        FlowTable::NormalOnly => None,
        FlowTable::Empty => Some("it has no OpenFlow flow at all and drops everything".to_owned()),
        FlowTable::Other { first, count } => Some(format!(
            "it has {count} OpenFlow flow(s) other than the plain NORMAL one, the first: {first}"
        )),
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

/// A number as OVS reads it: unset, 0 and unreadable are the default, others are brought within bounds.
fn setting(row: &BridgeRow, key: &str, (default, least, most): (u32, u32, u32)) -> u32 {
    match row.other_config.get(key).and_then(|value| value.trim().parse::<i64>().ok()) {
        None | Some(0) => default,
        Some(value) => u32::try_from(value).map_or(least, |value| value.clamp(least, most)),
    }
}
