//! What keeps a single port with Open vSwitch, and what its rules need beside the VLANs.

use trunkline_core::{Vid, VidSet, abi};

use crate::dataplane::Hooks;
use crate::links::{Link, LinkKind};
use crate::openflow::PortFlags;
use crate::ovsdb::{BridgeRow, InterfaceRow, PortRow};

use super::hook;

/// The first thing that is not on the allow-list, as a sentence.
pub(super) fn gate(
    row: &PortRow,
    interface: &InterfaceRow,
    link: Option<&Link>,
    flags: Option<&PortFlags>,
) -> Option<String> {
    type_gate(interface)
        .or_else(|| settings_gate(row, interface))
        .or_else(|| hook::word_gate(interface))
        .or_else(|| flags.and_then(flags_gate))
        .or_else(|| state_gate(interface, link))
}

fn type_gate(interface: &InterfaceRow) -> Option<String> {
    match interface.r#type.as_str() {
        "" | "system" | "internal" => None,
        "patch" => Some("it is a patch port".to_owned()),
        kind => Some(format!("its type is {kind}")),
    }
}

fn settings_gate(row: &PortRow, interface: &InterfaceRow) -> Option<String> {
    let enabled = |map: &std::collections::BTreeMap<String, String>, key: &str| {
        map.get(key).is_some_and(|value| value == "true")
    };
    let (port, device) = (&row.name, &interface.name);
    // Written out only for the setting that is found: most ports have none.
    [
        (
            row.bond_fake_iface,
            "it has a fake bond interface (Port.bond_fake_iface)",
            format_args!("clear port {port} bond_fake_iface"),
        ),
        (
            row.lacp.as_deref().is_some_and(|lacp| lacp != "off"),
            "it speaks LACP (Port.lacp)",
            format_args!("clear port {port} lacp"),
        ),
        (row.qos.is_some(), "QoS shapes its traffic (Port.qos)", format_args!("clear port {port} qos")),
        (
            interface.ingress_policing_rate > 0,
            "ingress policing limits its traffic (Interface.ingress_policing_rate)",
            format_args!("set interface {device} ingress_policing_rate=0"),
        ),
        (
            interface.ingress_policing_kpkts_rate > 0,
            "ingress policing limits its traffic (Interface.ingress_policing_kpkts_rate)",
            format_args!("set interface {device} ingress_policing_kpkts_rate=0"),
        ),
        (
            enabled(&interface.bfd, "enable"),
            "it runs BFD (Interface.bfd)",
            format_args!("clear interface {device} bfd"),
        ),
        (
            interface.cfm_mpid.is_some(),
            "it runs CFM (Interface.cfm_mpid)",
            format_args!("clear interface {device} cfm_mpid"),
        ),
        (
            enabled(&interface.lldp, "enable"),
            "it speaks LLDP (Interface.lldp)",
            format_args!("clear interface {device} lldp"),
        ),
    ]
    .into_iter()
    .find_map(|(set, reason, way_out)| set.then(|| format!("{reason}; `ovs-vsctl {way_out}` ends that")))
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

/// Whether the driver takes tags off received frames, and could be told not to.
pub(super) fn hides_tags(link: &Link) -> bool {
    matches!(link.kind, LinkKind::Physical { .. }) && link.rx_vlan_offload == Some(true)
}

/// Which programs can send to a port.
#[derive(Clone, Copy, Debug)]
pub(super) struct Targets {
    pub(super) xdp: bool,
    pub(super) tc: bool,
}

/// The VLAN rules with everything else that the program has to know.
pub(super) fn complete(
    rules: abi::Port,
    bridge: &BridgeRow,
    row: &PortRow,
    link: &Link,
    hooks: Hooks,
    targets: Targets,
) -> abi::Port {
    // What the host stacks on an internal port is on the far side of it.
    let host_vlans = link.vlan_children.iter().map(|child| child.vid).filter(|_| hooks != Hooks::Host);
    let flooded = bridge.flood_vlans.iter().filter_map(|vid| Vid::new(*vid));
    let excluded: VidSet = host_vlans.chain(flooded).collect();
    let flag = |set: bool, flag: u16| if set { flag } else { 0 };
    abi::Port {
        flags: rules.flags
            | abi::PORT_VALID
            | flag(row.protected, abi::PORT_PROTECTED)
            | flag(targets.xdp, abi::PORT_TARGET)
            | flag(targets.tc, abi::PORT_TC_TARGET)
            | flag(hooks == Hooks::Host, abi::PORT_INTERNAL)
            | flag(hooks == Hooks::XdpAndTc, abi::PORT_TC_FOLLOWS)
            | flag(hooks == Hooks::Tc, abi::PORT_ACCEPTS_GSO)
            | flag(!matches!(link.kind, LinkKind::Physical { .. }), abi::PORT_PARTIAL_CHECKSUMS)
            | flag(!excluded.is_empty(), abi::PORT_HAS_EXCLUDED)
            | flag(bridge.datapath_type == "netdev", abi::PORT_LEAVES_DEI),
        mtu: link.mtu,
        ifindex: link.ifindex,
        excluded,
        ..rules
    }
}
