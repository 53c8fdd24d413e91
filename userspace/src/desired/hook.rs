//! Where a port's frames are taken: chosen from facts, or by the operator's word.
//!
//! XDP is the fast one. tc keeps what XDP would lose: super-frames, checksums left to hardware, tags beside the frame,
//! and the way into the host. It takes tcx (Linux 6.6) and Open vSwitch's kernel datapath: the userspace datapath reads
//! a copy of each frame before tc, which would then go out twice.

use crate::dataplane::Hooks;
use crate::links::{Link, LinkKind, Peer};
use crate::ovsdb::{BridgeRow, InterfaceRow};

use super::{Reason, World};

/// `external_ids` key of an Interface with which an operator chooses the hook.
pub(super) const KEY: &str = "trunkline-hook";

/// The hooks of a port, and why these.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chosen {
    /// The hooks.
    pub hooks: Hooks,
    /// As a sentence.
    pub reason: String,
}

/// Chooses; an error says why the port stays with Open vSwitch.
pub(super) fn choose(
    world: &World<'_>,
    bridge: &BridgeRow,
    interface: &InterfaceRow,
    link: &Link,
) -> Result<Chosen, Reason> {
    let word = interface.external_ids.get(KEY).map(String::as_str);
    let tc = tc(world, bridge);
    let asked = |possible: Result<(), Reason>, hooks| match (possible, word.unwrap_or_default()) {
        (Ok(()), word) => {
            Ok(Chosen { hooks, reason: format!("external_ids:{KEY}={word} is set on its interface") })
        }
        (Err(cause), word) => Err(Reason::HookUnavailable { word: word.to_owned(), cause: Box::new(cause) }),
    };
    if interface.r#type == "internal" {
        return match word {
            None => internal(tc, bridge, interface, link),
            Some("tc") => asked(internal(tc, bridge, interface, link).map(drop), Hooks::Host),
            Some(_) => asked(Err(Reason::NoXdpOnInternal), Hooks::Xdp),
        };
    }
    match word {
        None => by_facts(world, interface, link, tc),
        Some("xdp") => asked(xdp(world, interface, link), Hooks::Xdp),
        Some("tc") => asked(tc.and(ethernet(link)), Hooks::Tc),
        Some(_) => asked(tc.and(xdp(world, interface, link)), Hooks::XdpAndTc),
    }
}

/// Whether the operator's word is one that is known, and not the one for leaving the port alone.
pub(super) fn word_gate(interface: &InterfaceRow) -> Option<Reason> {
    match interface.external_ids.get(KEY).map(String::as_str) {
        None | Some("xdp" | "tc" | "xdp+tc") => None,
        Some("none") => Some(Reason::HookNone),
        Some(other) => Some(Reason::HookUnknown { word: other.to_owned() }),
    }
}

/// Whether the tc programs can be used on this bridge.
pub(super) fn tc(world: &World<'_>, bridge: &BridgeRow) -> Result<(), Reason> {
    if bridge.datapath_type == "netdev" {
        return Err(Reason::UserspaceDatapath);
    }
    if !world.tcx {
        return Err(Reason::NoTcx);
    }
    Ok(())
}

fn internal(
    tc: Result<(), Reason>,
    bridge: &BridgeRow,
    interface: &InterfaceRow,
    link: &Link,
) -> Result<Chosen, Reason> {
    let what = if interface.name == bridge.name { "the bridge's own port" } else { "an internal port" };
    match (tc, &link.kind) {
        (Ok(()), LinkKind::OpenVSwitch) => {
            Ok(Chosen { hooks: Hooks::Host, reason: format!("it is {what}, and the host sends through tc") })
        }
        (Ok(()), _) => Err(Reason::NotInternal { what, device: link.name.clone() }),
        (Err(cause), _) => Err(Reason::InternalPort { what, cause: Box::new(cause) }),
    }
}

fn by_facts(
    world: &World<'_>,
    interface: &InterfaceRow,
    link: &Link,
    tc: Result<(), Reason>,
) -> Result<Chosen, Reason> {
    let chosen = |hooks, reason: &str| Ok(Chosen { hooks, reason: reason.to_owned() });
    // To an internal port, for one, XDP cannot send; what it passes on has a second chance.
    let fast = |why: &str| match &tc {
        Ok(()) => chosen(Hooks::XdpAndTc, &format!("{why}, and tc sends where XDP cannot")),
        Err(_) => chosen(Hooks::Xdp, why),
    };
    match (&link.kind, xdp(world, interface, link), &tc) {
        (LinkKind::Tap { vnet_hdr: true, .. }, _, Ok(())) => {
            chosen(Hooks::Tc, "its tap has a virtio header (vnet_hdr), whose offloads tc keeps")
        }
        (LinkKind::Tap { vnet_hdr: true, .. }, _, Err(cause)) => {
            Err(Reason::VnetHdr { cause: Box::new(cause.clone()) })
        }
        (LinkKind::Tap { .. }, Ok(()), _) => {
            fast("its tap has no virtio header (vnet_hdr), so XDP loses no offloads")
        }
        (LinkKind::Veth { .. }, _, Ok(())) => chosen(Hooks::Tc, "tc keeps the offloads of a veth"),
        (LinkKind::Veth { .. }, Ok(()), Err(cause)) => Ok(Chosen {
            hooks: Hooks::Xdp,
            reason: format!("{cause}; frames with an unfinished checksum go through Open vSwitch"),
        }),
        (LinkKind::Physical { .. } | LinkKind::Tap { .. }, Err(cause), Ok(())) => {
            Ok(Chosen { hooks: Hooks::Tc, reason: format!("XDP is not possible: {cause}") })
        }
        (_, Ok(()), _) => fast("its driver has native XDP"),
        (_, Err(cause), _) => Err(cause),
    }
}

/// Whether the XDP program can be put on the device, and sees all it has to.
fn xdp(world: &World<'_>, interface: &InterfaceRow, link: &Link) -> Result<(), Reason> {
    link.native_xdp().map_err(Reason::Device)?;
    if let Some(xdp) = &link.xdp
        && world.our_program != Some(xdp.prog_id)
    {
        return Err(Reason::ForeignXdp { program: xdp.prog_id });
    }
    if let Some(cause) = world.without_xdp.get(&link.ifindex) {
        return Err(cause.clone());
    }
    match &link.kind {
        LinkKind::Veth { peer } => hidden_tags(world, interface, link, *peer),
        _ => Ok(()),
    }
}

/// A veth hands a tag over beside the frame if its peer has tx-vlan-offload and an 802.1Q device; the XDP program would
/// take such a frame for an untagged one. What cannot be ruled out needs the operator's word.
fn hidden_tags(world: &World<'_>, interface: &InterfaceRow, link: &Link, peer: Peer) -> Result<(), Reason> {
    if !world.vlan_devices_possible {
        return Ok(());
    }
    let asked = interface.external_ids.get(KEY).is_some_and(|word| word.starts_with("xdp"));
    match (peer, link.peer.and_then(|peer| peer.tx_vlan_offload)) {
        (Peer::Here(_), Some(false)) => Ok(()),
        (Peer::Here(_), _) => Err(Reason::PeerHidesTags),
        (Peer::Elsewhere | Peer::Unknown, _) if asked => Ok(()),
        (Peer::Elsewhere | Peer::Unknown, _) => {
            Err(Reason::PeerMayHideTags { device: interface.name.clone() })
        }
    }
}

/// Whether it is a device with frames of its own, and not one that stands for others.
fn ethernet(link: &Link) -> Result<(), Reason> {
    match link.kind {
        LinkKind::Physical { .. } | LinkKind::Tap { .. } | LinkKind::Veth { .. } => Ok(()),
        // The reason says what it is.
        _ => link.native_xdp().map_err(Reason::Device),
    }
}
