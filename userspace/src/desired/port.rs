//! What keeps a single port with Open vSwitch, and what its rules need beside the VLANs.

use trunkline_core::{Vid, VidSet, abi};

use crate::links::{Link, LinkKind, Peer};
use crate::openflow::PortFlags;
use crate::ovsdb::{BridgeRow, InterfaceRow, PortRow};

use super::World;

/// `external_ids` key of an Interface with which an operator chooses the hook.
const HOOK: &str = "trunkline-hook";

/// The first thing that is not on the allow-list, as a sentence.
pub(super) fn gate(
    world: &World<'_>,
    bridge: &BridgeRow,
    row: &PortRow,
    interface: &InterfaceRow,
    link: Option<&Link>,
    flags: Option<&PortFlags>,
) -> Option<String> {
    type_gate(bridge, interface)
        .or_else(|| settings_gate(row, interface))
        .or_else(|| flags.and_then(flags_gate))
        .or_else(|| state_gate(interface, link))
        .or_else(|| link.and_then(|link| device_gate(world, interface, link)))
}

fn type_gate(bridge: &BridgeRow, interface: &InterfaceRow) -> Option<String> {
    match interface.r#type.as_str() {
        "" | "system" => None,
        "internal" if interface.name == bridge.name => Some("it is the bridge's own port".to_owned()),
        "internal" => Some("it is an internal port".to_owned()),
        "patch" => Some("it is a patch port".to_owned()),
        kind => Some(format!("its type is {kind}")),
    }
}

fn settings_gate(row: &PortRow, interface: &InterfaceRow) -> Option<String> {
    let enabled = |map: &std::collections::BTreeMap<String, String>, key: &str| {
        map.get(key).is_some_and(|value| value == "true")
    };
    let (port, device) = (&row.name, &interface.name);
    let clear = |column: &str| format!("clear port {port} {column}");
    let clear_interface = |column: &str| format!("clear interface {device} {column}");
    let zero = |column: &str| format!("set interface {device} {column}=0");
    [
        (
            row.bond_fake_iface,
            "it has a fake bond interface (Port.bond_fake_iface)",
            clear("bond_fake_iface"),
        ),
        (row.lacp.as_deref().is_some_and(|lacp| lacp != "off"), "it speaks LACP (Port.lacp)", clear("lacp")),
        (row.qos.is_some(), "QoS shapes its traffic (Port.qos)", clear("qos")),
        (
            interface.ingress_policing_rate > 0,
            "ingress policing limits its traffic (Interface.ingress_policing_rate)",
            zero("ingress_policing_rate"),
        ),
        (
            interface.ingress_policing_kpkts_rate > 0,
            "ingress policing limits its traffic (Interface.ingress_policing_kpkts_rate)",
            zero("ingress_policing_kpkts_rate"),
        ),
        (enabled(&interface.bfd, "enable"), "it runs BFD (Interface.bfd)", clear_interface("bfd")),
        (interface.cfm_mpid.is_some(), "it runs CFM (Interface.cfm_mpid)", clear_interface("cfm_mpid")),
        (enabled(&interface.lldp, "enable"), "it speaks LLDP (Interface.lldp)", clear_interface("lldp")),
    ]
    .into_iter()
    .find_map(|(set, reason, way_out)| set.then(|| format!("{reason}; `ovs-vsctl {way_out}` ends that")))
    .or_else(|| match interface.external_ids.get(HOOK).map(String::as_str) {
        None | Some("xdp") => None,
        Some("none") => Some(format!("external_ids:{HOOK}=none is set on its interface")),
        Some(other) => Some(format!("external_ids:{HOOK}={other} is not supported; known: xdp, none")),
    })
}

fn flags_gate(flags: &PortFlags) -> Option<String> {
    [(flags.no_receive, "receive"), (flags.no_forward, "forward"), (flags.no_flood, "flood")].into_iter().find_map(
        |(set, flag)| {
            set.then(|| {
                let port = &flags.name;
                format!("its OpenFlow port has the flag no-{flag}; `ovs-ofctl mod-port BRIDGE {port} {flag}` clears it")
            })
        },
    )
}

/// Whether Open vSwitch really has the device, and this very one.
fn state_gate(interface: &InterfaceRow, link: Option<&Link>) -> Option<String> {
    if let Some(error) = &interface.error {
        return Some(format!("Open vSwitch reports: {error}"));
    }
    if interface.ofport.is_none_or(|ofport| ofport <= 0) {
        return Some("Open vSwitch has not opened its device yet".to_owned());
    }
    let Some(link) = link else { return Some(format!("there is no device {}", interface.name)) };
    if interface.ifindex.is_some_and(|ifindex| ifindex != i64::from(link.ifindex)) {
        return Some(format!("its device {} is new, and Open vSwitch still has the old one", interface.name));
    }
    None
}

fn device_gate(world: &World<'_>, interface: &InterfaceRow, link: &Link) -> Option<String> {
    if let Err(reason) = link.native_xdp() {
        return Some(reason);
    }
    if let Some(xdp) = &link.xdp
        && world.our_program != Some(xdp.prog_id)
    {
        return Some(format!("another XDP program (id {}) is on its device", xdp.prog_id));
    }
    match &link.kind {
        LinkKind::Tap { vnet_hdr: true, .. } => {
            Some("its tap carries a virtio header (vnet_hdr), whose offloads XDP would lose".to_owned())
        }
        LinkKind::Veth { peer } => hidden_tag_gate(world, interface, link, *peer),
        _ => None,
    }
}

/// A veth hands a tag over beside the frame if its peer has tx-vlan-offload and an 802.1Q device; a program would take
/// such a frame for an untagged one. What cannot be ruled out needs the operator's word.
fn hidden_tag_gate(world: &World<'_>, interface: &InterfaceRow, link: &Link, peer: Peer) -> Option<String> {
    if !world.vlan_devices_possible || interface.external_ids.get(HOOK).is_some_and(|hook| hook == "xdp") {
        return None;
    }
    let name = &interface.name;
    let way_out = "switch that off there (`ethtool -K DEV txvlan off`)";
    match (peer, link.peer.and_then(|peer| peer.tx_vlan_offload)) {
        (Peer::Here(_), Some(false)) => None,
        (Peer::Here(_), _) => {
            Some(format!("its veth peer has tx-vlan-offload, which hides tags from XDP: {way_out}"))
        }
        (Peer::Elsewhere | Peer::Unknown, _) => Some(format!(
            "its veth peer is in another namespace and may hide tags from XDP (tx-vlan-offload): {way_out} and say so \
             with `ovs-vsctl set interface {name} external_ids:{HOOK}=xdp`"
        )),
    }
}

/// Whether the driver takes tags off received frames, and could be told not to.
pub(super) fn hides_tags(link: &Link) -> bool {
    matches!(link.kind, LinkKind::Physical { .. }) && link.rx_vlan_offload == Some(true)
}

/// The VLAN rules with everything else that the program has to know.
pub(super) fn complete(
    rules: abi::Port,
    bridge: &BridgeRow,
    row: &PortRow,
    link: &Link,
    target: bool,
) -> abi::Port {
    let host_vlans = link.vlan_children.iter().map(|child| child.vid);
    let flooded = bridge.flood_vlans.iter().filter_map(|vid| Vid::new(*vid));
    let excluded: VidSet = host_vlans.chain(flooded).collect();
    let flag = |set: bool, flag: u16| if set { flag } else { 0 };
    abi::Port {
        flags: rules.flags
            | abi::PORT_VALID
            | flag(row.protected, abi::PORT_PROTECTED)
            | flag(target, abi::PORT_TARGET)
            | flag(!matches!(link.kind, LinkKind::Physical { .. }), abi::PORT_PARTIAL_CHECKSUMS)
            | flag(!excluded.is_empty(), abi::PORT_HAS_EXCLUDED)
            | flag(bridge.datapath_type == "netdev", abi::PORT_LEAVES_DEI),
        mtu: link.mtu,
        excluded,
        ..rules
    }
}
