//! One `RTM_NEWLINK` message to one [`Link`], without what other families know.

use std::collections::BTreeSet;
use std::fs;

use netlink_packet_core::Nla;
use rtnetlink::packet_route::link::{
    InfoData, InfoKind, InfoTun, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
    LinkXdp, XdpAttached,
};
use trunkline_core::Vid;

use super::{Link, LinkKind, Peer, XdpAttachment, XdpMode};

const IFLA_TUN_TYPE: u16 = 3;
const IFLA_TUN_VNET_HDR: u16 = 5;
const IFLA_TUN_MULTI_QUEUE: u16 = 7;
const IFF_TAP: u8 = 2;

/// What of a message decides the kind.
#[derive(Default)]
struct Raw {
    info_kind: Option<InfoKind>,
    info_data: Option<InfoData>,
    lower: Option<u32>,
    lower_elsewhere: bool,
    bus_device: Option<String>,
    bus: Option<String>,
}

/// The link this message describes; `None` for a message without index or name.
pub(super) fn link(message: &LinkMessage) -> Option<Link> {
    let header = &message.header;
    let mut raw = Raw::default();
    let mut link = Link {
        ifindex: header.index,
        incarnation: 0,
        name: String::new(),
        mtu: 0,
        up: header.flags.contains(LinkFlags::Up),
        carrier: header.flags.contains(LinkFlags::LowerUp),
        mac: None,
        kind: LinkKind::Bridge,
        master: None,
        xdp: None,
        xdp_features: None,
        rx_vlan_offload: None,
        rx_stag_offload: None,
        tx_vlan_offload: None,
        gro: None,
        peer: None,
        vlan_children: BTreeSet::new(),
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Address(address) => link.mac = address.as_slice().try_into().ok(),
            LinkAttribute::Controller(master) => link.master = (*master != 0).then_some(*master),
            LinkAttribute::Xdp(xdp) => link.xdp = attachment(xdp),
            LinkAttribute::Link(lower) => raw.lower = (*lower != 0).then_some(*lower),
            LinkAttribute::LinkNetNsId(_) => raw.lower_elsewhere = true,
            LinkAttribute::ParentDevName(device) => raw.bus_device = Some(device.clone()),
            LinkAttribute::ParentDevBusName(bus) => raw.bus = Some(bus.clone()),
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    match info {
                        LinkInfo::Kind(kind) => raw.info_kind = Some(kind.clone()),
                        LinkInfo::Data(data) => raw.info_data = Some(data.clone()),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    link.kind = kind(raw, header.link_layer_type, &link.name);
    (link.ifindex != 0 && !link.name.is_empty()).then_some(link)
}

fn kind(raw: Raw, layer: LinkLayerType, name: &str) -> LinkKind {
    let Raw { info_kind, info_data, lower, lower_elsewhere, bus_device, bus } = raw;
    let Some(info_kind) = info_kind else {
        return match layer {
            LinkLayerType::Ether => LinkKind::Physical { driver: driver(bus, bus_device, name) },
            other => LinkKind::Other(other.to_string().to_lowercase()),
        };
    };
    match (info_kind, info_data) {
        (InfoKind::Veth, _) => LinkKind::Veth {
            peer: match lower {
                _ if lower_elsewhere => Peer::Elsewhere,
                Some(peer) => Peer::Here(peer),
                None => Peer::Unknown,
            },
        },
        (InfoKind::Tun, Some(InfoData::Tun(facts))) => tun(&facts),
        (InfoKind::Vlan, Some(InfoData::Vlan(facts))) => {
            vlan(&facts, if lower_elsewhere { None } else { lower })
                .unwrap_or(LinkKind::Other("vlan".to_owned()))
        }
        (InfoKind::Bond, _) => LinkKind::Bond,
        (InfoKind::Bridge, _) => LinkKind::Bridge,
        (InfoKind::MacVlan | InfoKind::MacVtap, _) => LinkKind::Macvlan,
        (InfoKind::Other(kind), _) if kind == "openvswitch" => LinkKind::OpenVSwitch,
        (other, _) => LinkKind::Other(other.to_string()),
    }
}

/// The crate leaves a tun device's facts (`drivers/net/tun.c`, `tun_fill_info`) as bytes.
fn tun(facts: &[InfoTun]) -> LinkKind {
    let fact = |kind: u16| {
        let fact = facts.iter().find(|fact| fact.kind() == kind && fact.value_len() == 1)?;
        let mut value = [0];
        fact.emit_value(&mut value);
        Some(value[0])
    };
    match fact(IFLA_TUN_TYPE) {
        Some(IFF_TAP) => LinkKind::Tap {
            // Without the fact, the cautious reading.
            vnet_hdr: fact(IFLA_TUN_VNET_HDR).is_none_or(|flag| flag != 0),
            multi_queue: fact(IFLA_TUN_MULTI_QUEUE).is_some_and(|flag| flag != 0),
        },
        _ => LinkKind::Other("tun".to_owned()),
    }
}

fn vlan(facts: &[InfoVlan], parent: Option<u32>) -> Option<LinkKind> {
    let vid =
        facts.iter().find_map(|fact| if let InfoVlan::Id(vid) = fact { Vid::new(*vid) } else { None })?;
    let protocol =
        facts.iter().find_map(|fact| if let InfoVlan::Protocol(tpid) = fact { Some(*tpid) } else { None });
    let ethertype = protocol.map_or(0x8100, u16::from);
    Some(LinkKind::Vlan { parent, vid, ethertype })
}

fn attachment(facts: &[LinkXdp]) -> Option<XdpAttachment> {
    let mut mode = None;
    let mut prog_id = 0;
    for fact in facts {
        match fact {
            LinkXdp::Attached(XdpAttached::Driver) => mode = Some(XdpMode::Native),
            LinkXdp::Attached(XdpAttached::SocketBuffer) => mode = Some(XdpMode::Generic),
            LinkXdp::Attached(XdpAttached::Hardware) => mode = Some(XdpMode::Offloaded),
            LinkXdp::Attached(XdpAttached::Multiple | XdpAttached::Other(_)) => mode = Some(XdpMode::Multi),
            LinkXdp::ProgId(id) | LinkXdp::DrvProgId(id) => prog_id = *id,
            _ => {}
        }
    }
    mode.map(|mode| XdpAttachment { prog_id, mode })
}

/// The driver's name: by the device on its bus (told by netlink since Linux 5.14), which holds in every
/// namespace, else by the interface's name, which sysfs knows in the namespace it was mounted in.
fn driver(bus: Option<String>, device: Option<String>, name: &str) -> String {
    let path = match (bus, device) {
        (Some(bus), Some(device)) if !bus.contains('/') && !device.contains('/') => {
            format!("/sys/bus/{bus}/devices/{device}/driver")
        }
        _ => format!("/sys/class/net/{name}/device/driver"),
    };
    let target = fs::read_link(path).unwrap_or_default();
    target.file_name().map(|driver| driver.to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::{NlaBuffer, Parseable};

    use super::*;

    fn message(attributes: Vec<LinkAttribute>) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.index = 5;
        message.header.link_layer_type = LinkLayerType::Ether;
        message.attributes = attributes;
        message.attributes.push(LinkAttribute::IfName("x0".to_owned()));
        message
    }

    fn info(kind: InfoKind, data: Option<InfoData>) -> LinkAttribute {
        let mut infos = vec![LinkInfo::Kind(kind)];
        infos.extend(data.map(LinkInfo::Data));
        LinkAttribute::LinkInfo(infos)
    }

    fn tun_fact(bytes: &[u8]) -> InfoTun {
        InfoTun::parse(&NlaBuffer::new(bytes)).unwrap()
    }

    #[test]
    fn tap_flags_are_read_from_bytes() {
        let tap = [5, 0, 3, 0, 2, 0, 0, 0];
        let hdr = [5, 0, 5, 0, 1, 0, 0, 0];
        let no_hdr = [5, 0, 5, 0, 0, 0, 0, 0];
        let queues = [5, 0, 7, 0, 1, 0, 0, 0];
        let kind = |facts: &[[u8; 8]]| tun(&facts.iter().map(|fact| tun_fact(fact)).collect::<Vec<_>>());
        assert_eq!(kind(&[tap, no_hdr]), LinkKind::Tap { vnet_hdr: false, multi_queue: false });
        assert_eq!(kind(&[tap, hdr, queues]), LinkKind::Tap { vnet_hdr: true, multi_queue: true });
        assert_eq!(kind(&[tap]), LinkKind::Tap { vnet_hdr: true, multi_queue: false }, "unknown is cautious");
        assert_eq!(kind(&[[5, 0, 3, 0, 1, 0, 0, 0], no_hdr]), LinkKind::Other("tun".to_owned()));
    }

    #[test]
    fn a_veth_peer_is_only_here_without_a_namespace_id() {
        let kind = |attributes| link(&message(attributes)).unwrap().kind;
        let veth = || info(InfoKind::Veth, None);
        assert_eq!(kind(vec![veth(), LinkAttribute::Link(7)]), LinkKind::Veth { peer: Peer::Here(7) });
        assert_eq!(
            kind(vec![LinkAttribute::Link(7), veth(), LinkAttribute::LinkNetNsId(0)]),
            LinkKind::Veth { peer: Peer::Elsewhere }
        );
        assert_eq!(kind(vec![veth()]), LinkKind::Veth { peer: Peer::Unknown });
    }

    #[test]
    fn kinds_are_told_apart() {
        let kind = |attributes| link(&message(attributes)).unwrap().kind;
        assert_eq!(kind(vec![]), LinkKind::Physical { driver: String::new() });
        assert_eq!(kind(vec![info(InfoKind::Other("openvswitch".to_owned()), None)]), LinkKind::OpenVSwitch);
        assert_eq!(kind(vec![info(InfoKind::Dummy, None)]), LinkKind::Other("dummy".to_owned()));
        let facts = InfoData::Vlan(vec![InfoVlan::Protocol(0x88a8.into()), InfoVlan::Id(30)]);
        let vid = Vid::new(30).unwrap();
        assert_eq!(
            kind(vec![info(InfoKind::Vlan, Some(facts)), LinkAttribute::Link(2)]),
            LinkKind::Vlan { parent: Some(2), vid, ethertype: 0x88a8 }
        );
    }

    #[test]
    fn an_attached_program_is_read_with_its_mode() {
        let read = |xdp| link(&message(vec![LinkAttribute::Xdp(xdp)])).unwrap().xdp;
        assert_eq!(read(vec![LinkXdp::Attached(XdpAttached::None)]), None);
        assert_eq!(
            read(vec![LinkXdp::Attached(XdpAttached::Driver), LinkXdp::ProgId(9), LinkXdp::DrvProgId(9)]),
            Some(XdpAttachment { prog_id: 9, mode: XdpMode::Native })
        );
    }
}
