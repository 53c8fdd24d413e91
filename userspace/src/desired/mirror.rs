//! What mirrors keep with Open vSwitch.
//!
//! A mirror copies frames that come in by its source ports and frames that leave by its destination ports; VLANs (and a
//! filter, from Open vSwitch 3.4 on) only narrow that. Its output port neither gets other frames nor are its own taken
//! (OVS `ofproto/ofproto-dpif-xlate.c`, `mirror_packet`, `xlate_normal`). So those ports are left alone, and with them
//! the frames to them, as their stations are not learned. The bridge as a whole is left where all of its ports are
//! sources and destinations, and where the copies go to a VLAN, which is any port.

use crate::ovsdb::{BridgeRow, MirrorRow, Uuid};

use super::World;

fn mirrors<'w>(world: &World<'w>, bridge: &BridgeRow) -> impl Iterator<Item = (Uuid, Option<&'w MirrorRow>)> {
    let rows = &world.rows.mirrors;
    bridge.mirrors.iter().map(|uuid| (*uuid, rows.get(uuid).map(AsRef::as_ref)))
}

/// The mirror that needs the whole bridge, as a sentence.
pub(super) fn bridge_gate(world: &World<'_>, bridge: &BridgeRow) -> Option<String> {
    let all = |row: &MirrorRow| row.select_all || row.output_vlan.is_some();
    mirrors(world, bridge).find(|(_, row)| row.is_none_or(all)).map(|(uuid, row)| {
        let name = row.map_or_else(|| uuid.to_string(), |row| row.name.clone());
        format!(
            "mirror {name} copies its traffic; `ovs-vsctl clear bridge {} mirrors` removes it",
            bridge.name
        )
    })
}

/// The mirror that has to do with a port, as a sentence.
pub(super) fn port_gate(world: &World<'_>, bridge: &BridgeRow, port: Uuid) -> Option<String> {
    mirrors(world, bridge).find_map(|(_, row)| {
        let row = row?;
        let what = if row.output_port == Some(port) {
            format!("mirror {} sends its copies to it", row.name)
        } else if row.select_src_port.contains(&port) || row.select_dst_port.contains(&port) {
            format!("mirror {} copies its traffic", row.name)
        } else {
            return None;
        };
        Some(format!("{what}; `ovs-vsctl clear bridge {} mirrors` removes it", bridge.name))
    })
}
