//! What mirrors keep with Open vSwitch.
//!
//! A mirror copies frames that come in by its source ports and frames that leave by its destination ports; VLANs (and a
//! filter, from Open vSwitch 3.4 on) only narrow that. Its output port neither gets other frames nor are its own taken
//! (OVS `ofproto/ofproto-dpif-xlate.c`, `mirror_packet`, `xlate_normal`). So those ports are left alone, and with them
//! the frames to them, as their stations are not learned. The bridge as a whole is left where all of its ports are
//! sources and destinations, and where the copies go to a VLAN, which is any port.

use crate::ovsdb::{BridgeRow, MirrorRow, Uuid};

use super::{Reason, World};

fn mirrors<'w>(world: &World<'w>, bridge: &BridgeRow) -> impl Iterator<Item = (Uuid, Option<&'w MirrorRow>)> {
    let rows = &world.rows.mirrors;
    bridge.mirrors.iter().map(|uuid| (*uuid, rows.get(uuid).map(AsRef::as_ref)))
}

/// The mirror that needs the whole bridge.
pub(super) fn bridge_gate(world: &World<'_>, bridge: &BridgeRow) -> Option<Reason> {
    let all = |row: &MirrorRow| row.select_all || row.output_vlan.is_some();
    let (uuid, row) = mirrors(world, bridge).find(|(_, row)| row.is_none_or(all))?;
    let mirror = row.map_or_else(|| uuid.to_string(), |row| row.name.clone());
    Some(Reason::Mirrored { mirror, bridge: bridge.name.clone() })
}

/// The mirror that has to do with a port.
pub(super) fn port_gate(world: &World<'_>, bridge: &BridgeRow, port: Uuid) -> Option<Reason> {
    mirrors(world, bridge).find_map(|(_, row)| {
        let row = row?;
        let names = || (row.name.clone(), bridge.name.clone());
        if row.output_port == Some(port) {
            let (mirror, bridge) = names();
            Some(Reason::MirrorOutput { mirror, bridge })
        } else if row.select_src_port.contains(&port) || row.select_dst_port.contains(&port) {
            let (mirror, bridge) = names();
            Some(Reason::Mirrored { mirror, bridge })
        } else {
            None
        }
    })
}
