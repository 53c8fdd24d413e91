//! From what Open vSwitch has applied to what the fast path should do: pure, and with a reason for everything that is
//! left alone.
//!
//! A bridge is accelerated only if all of its settings are on the allow-list: either mirrored here or without effect
//! on forwarding. The same holds for each port. Whatever is outside gates the smallest scope that is certainly safe,
//! and says so in a sentence that names the row and the way out.

mod bridge;
mod hook;
mod mirror;
mod port;
mod reason;
mod smap;
mod vlan;

use std::collections::BTreeMap;
use std::sync::Arc;

use trunkline_core::abi;

use crate::dataplane::{BridgeTimes, Hooks};
use crate::links::{Link, Links, NotATarget};
use crate::openflow::PortFlags;
use crate::ovsdb::{BridgeRow, InterfaceRow, OpenVSwitchRow, PortRow, Rows, Uuid};
use crate::unixctl::FlowTable;

use port::Targets;

pub use hook::Chosen;
pub use reason::Reason;
pub use vlan::{VlanMode, VlanRules};

/// What ovs-vswitchd says of a bridge and the database does not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BridgeFacts {
    /// Its OpenFlow tables.
    pub flow_table: FlowTable,
    /// OpenFlow port flags, by OpenFlow port number; ports without flags may be absent.
    pub port_flags: BTreeMap<u16, PortFlags>,
}

/// Everything the compilation looks at.
#[derive(Clone, Copy, Debug)]
pub struct World<'w> {
    /// The database, as far as Open vSwitch has applied it.
    pub rows: &'w Rows,
    /// The kernel's devices.
    pub links: &'w Links,
    /// Facts by bridge name. A bridge without facts is not accelerated yet.
    pub facts: &'w BTreeMap<String, BridgeFacts>,
    /// The bridges to accelerate; empty for all.
    pub selected: &'w [String],
    /// The kernel's number of our program, to tell it from others.
    pub our_program: Option<u32>,
    /// Whether the kernel has tcx, and the tc program is loaded.
    pub tcx: bool,
    /// Devices that the XDP program cannot be put on, as was found out, and why; by interface index.
    pub without_xdp: &'w BTreeMap<u32, Reason>,
    /// Whether 802.1Q devices can exist anywhere on this host, behind which a veth could hide a tag.
    pub vlan_devices_possible: bool,
}

/// A bridge, compiled.
#[derive(Clone, PartialEq, Debug)]
pub struct DesiredBridge {
    /// `Bridge.name`
    pub name: String,
    /// `Bridge.datapath_type`, `system` where that is empty.
    pub datapath: String,
    /// Why none of it is accelerated.
    pub reason: Option<Reason>,
    /// Its settings are fine, so its flows are worth asking for.
    pub eligible: bool,
    /// Refresh and ageing.
    pub times: BridgeTimes,
    /// `mac-table-size`: the most stations that Open vSwitch keeps.
    pub table_size: u32,
    /// All its ports, accelerated or not, by name.
    pub ports: Vec<DesiredPort>,
}

/// A port, compiled.
#[derive(Clone, PartialEq, Debug)]
pub struct DesiredPort {
    /// `Port.name`
    pub name: String,
    /// The device's interface index, if it exists.
    pub ifindex: Option<u32>,
    /// `Interface.ofport`, if Open vSwitch has opened it.
    pub ofport: Option<u16>,
    /// What people know it by.
    pub vlan: VlanRules,
    /// The rules for the program (with bridge 0), or why the port is left to Open vSwitch.
    pub rules: Result<abi::Port, Reason>,
    /// Where its frames are taken, if they are.
    pub hook: Option<Chosen>,
    /// Why the XDP program cannot send to the port, although frames from it are accelerated, and some of the bridge's
    /// ports have that program alone.
    pub not_a_target: Option<NotATarget>,
    /// The device must have its rx-vlan-offload switched off before the program may run on it.
    pub wants_tags_in_frame: bool,
}

/// Compiles the bridges of the database, in the order of their names.
pub fn compile(world: &World<'_>) -> Vec<DesiredBridge> {
    let Some(host) = &world.rows.open_vswitch else { return Vec::new() };
    let devices: Devices<'_> = world.links.values().map(|link| (link.name.as_str(), link.as_ref())).collect();
    let mut bridges: Vec<_> = host
        .bridges
        .iter()
        .filter_map(|uuid| {
            world.rows.bridges.get(uuid).map(|row| compile_bridge(world, &devices, host, *uuid, row))
        })
        .collect();
    bridges.sort_by(|a, b| a.name.cmp(&b.name));
    bridges
}

/// The kernel's devices by name.
type Devices<'w> = BTreeMap<&'w str, &'w Link>;

fn compile_bridge(
    world: &World<'_>,
    devices: &Devices<'_>,
    host: &OpenVSwitchRow,
    uuid: Uuid,
    row: &BridgeRow,
) -> DesiredBridge {
    let gate = bridge::gate(world, host, uuid, row);
    let facts = world.facts.get(&row.name);
    let table_size = bridge::table_size(row);
    let mut rows: Vec<_> =
        row.ports.iter().filter_map(|uuid| Some((*uuid, world.rows.ports.get(uuid)?))).collect();
    rows.sort_by_key(|(_, port)| &port.name);
    let mut ports: Vec<_> = rows
        .into_iter()
        .map(|(uuid, port)| {
            let mirrored = mirror::port_gate(world, row, uuid);
            compile_port(world, devices, row, port, mirrored, facts, table_size)
        })
        .collect();
    // Where tc follows, it sends what XDP cannot.
    let xdp_alone = |port: &DesiredPort| port.hook.as_ref().is_some_and(|chosen| chosen.hooks == Hooks::Xdp);
    if !ports.iter().any(xdp_alone) {
        ports.iter_mut().for_each(|port| port.not_a_target = None);
    }
    DesiredBridge {
        name: row.name.clone(),
        datapath: if row.datapath_type.is_empty() { "system".to_owned() } else { row.datapath_type.clone() },
        eligible: gate.is_none(),
        reason: gate.or_else(|| bridge::flow_gate(facts?)),
        times: bridge::times(row),
        table_size,
        ports,
    }
}

fn compile_port(
    world: &World<'_>,
    devices: &Devices<'_>,
    bridge: &BridgeRow,
    row: &PortRow,
    mirrored: Option<Reason>,
    facts: Option<&BridgeFacts>,
    table_size: u32,
) -> DesiredPort {
    let interfaces: Vec<&Arc<InterfaceRow>> =
        row.interfaces.iter().filter_map(|uuid| world.rows.interfaces.get(uuid)).collect();
    let vlan = VlanRules::new(row);
    let single = match interfaces[..] {
        [single] => Some(single.as_ref()),
        _ => None,
    };
    let ofport =
        single.and_then(|interface| interface.ofport).and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0);
    let link = single.and_then(|interface| devices.get(interface.name.as_str()).copied());
    let flags = ofport.and_then(|ofport| facts?.port_flags.get(&ofport));
    let hook = match single {
        Some(interface) => port::gate(row, interface, link, flags).and_then(|link| match mirrored {
            Some(reason) => Err(reason),
            None => Ok((hook::choose(world, bridge, interface, link)?, link)),
        }),
        None => Err(Reason::Bond { interfaces: interfaces.len() }),
    };
    let not_a_target = link.and_then(|link| link.can_be_redirected_to().err());
    let targets = Targets { xdp: not_a_target.is_none(), tc: hook::tc(world, bridge).is_ok() };
    let rules = match &hook {
        Ok((Chosen { hooks, .. }, link)) => vlan.compile().map(|rules| {
            let rules = port::complete(rules, bridge, row, link, *hooks, targets);
            abi::Port { learning_limit: table_size, ..rules }
        }),
        Err(reason) => Err(reason.clone()),
    };
    let hides_tags = hook.as_ref().is_ok_and(|(chosen, link)| chosen.hooks.xdp() && port::hides_tags(link));
    DesiredPort {
        name: row.name.clone(),
        ifindex: link.map(|link| link.ifindex),
        ofport,
        vlan,
        wants_tags_in_frame: rules.is_ok() && hides_tags,
        not_a_target: if rules.is_ok() { not_a_target } else { None },
        rules: match rules {
            Ok(_) if hides_tags => Err(Reason::SwitchingRxVlanOffload),
            rules => rules,
        },
        hook: hook.ok().map(|(chosen, _)| chosen),
    }
}

#[cfg(test)]
mod tests;
