//! What keeps a single port with Open vSwitch, and what its rules need beside the VLANs.

use trunkline_core::{Vid, VidSet, abi};

use crate::dataplane::Hooks;
use crate::links::{Link, LinkKind};
use crate::openflow::PortFlags;
use crate::ovsdb::{BridgeRow, InterfaceRow, PortRow};

use super::reason::About;
use super::{Reason, hook, smap};

/// The first thing that is not on the allow-list; else the device.
pub(super) fn gate<'w>(
    row: &PortRow,
    interface: &InterfaceRow,
    link: Option<&'w Link>,
    flags: Option<&PortFlags>,
) -> Result<&'w Link, Reason> {
    let gated = type_gate(interface)
        .or_else(|| settings_gate(row, interface))
        .or_else(|| hook::word_gate(interface))
        .or_else(|| flags.and_then(flags_gate));
    match gated {
        Some(reason) => Err(reason),
        None => device(interface, link),
    }
}

fn type_gate(interface: &InterfaceRow) -> Option<Reason> {
    match interface.r#type.as_str() {
        "" | "system" | "internal" => None,
        "patch" => Some(Reason::PatchPort),
        kind => Some(Reason::InterfaceType { kind: kind.to_owned() }),
    }
}

fn settings_gate(row: &PortRow, interface: &InterfaceRow) -> Option<Reason> {
    let speaks_lacp = row.lacp.as_deref().is_some_and(|lacp| lacp != "off");
    let (port, device) = (&row.name, &interface.name);
    let settings: [(bool, &String, About); 8] = [
        (row.bond_fake_iface, port, |port| Reason::FakeBond { port }),
        (speaks_lacp, port, |port| Reason::Lacp { port }),
        (row.qos.is_some(), port, |port| Reason::Qos { port }),
        (interface.ingress_policing_rate > 0, device, |device| Reason::Policing { device }),
        (interface.ingress_policing_kpkts_rate > 0, device, |device| Reason::PolicingPackets { device }),
        (smap::is_true(&interface.bfd, "enable"), device, |device| Reason::Bfd { device }),
        (interface.cfm_mpid.is_some(), device, |device| Reason::Cfm { device }),
        (smap::is_true(&interface.lldp, "enable"), device, |device| Reason::Lldp { device }),
    ];
    settings.into_iter().find_map(|(set, name, reason)| set.then(|| reason(name.clone())))
}

fn flags_gate(flags: &PortFlags) -> Option<Reason> {
    let gates: [(bool, About); 3] = [
        (flags.no_receive, |port| Reason::NoReceive { port }),
        (flags.no_forward, |port| Reason::NoForward { port }),
        (flags.no_flood, |port| Reason::NoFlood { port }),
    ];
    gates.into_iter().find_map(|(set, reason)| set.then(|| reason(flags.name.clone())))
}

/// The device, if Open vSwitch really has it, and this very one.
fn device<'w>(interface: &InterfaceRow, link: Option<&'w Link>) -> Result<&'w Link, Reason> {
    if let Some(cause) = &interface.error {
        return Err(Reason::InterfaceError { cause: cause.clone() });
    }
    if interface.ofport.is_none_or(|ofport| ofport <= 0) {
        return Err(Reason::NotOpened);
    }
    let device = || interface.name.clone();
    let link = link.ok_or_else(|| Reason::NoDevice { device: device() })?;
    if interface.ifindex.is_some_and(|ifindex| ifindex != i64::from(link.ifindex)) {
        return Err(Reason::DeviceReplaced { device: device() });
    }
    Ok(link)
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
