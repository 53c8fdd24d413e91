//! The few OpenFlow 1.0 messages needed, from `openflow-1.0.h`, `openflow-common.h` and `nicira-ext.h`.

use std::collections::BTreeMap;

use thiserror::Error;

use super::PortFlags;

const VERSION: u8 = 1;
const HEADER_LEN: usize = 8;
const PHY_PORT_LEN: usize = 48;

const HELLO: u8 = 0;
const HELLO_VERSION_BITMAP: u16 = 1;
const ERROR: u8 = 1;
const ECHO_REQUEST: u8 = 2;
const ECHO_REPLY: u8 = 3;
const VENDOR: u8 = 4;
const GET_CONFIG_REQUEST: u8 = 7;
const GET_CONFIG_REPLY: u8 = 8;
const SET_CONFIG: u8 = 9;
const PORT_STATUS: u8 = 12;
const PACKET_OUT: u8 = 13;
const STATS_REQUEST: u8 = 16;
const STATS_REPLY: u8 = 17;
const BARRIER_REQUEST: u8 = 18;
const BARRIER_REPLY: u8 = 19;

const STATS_PORT_DESC: u16 = 13;
const STATS_VENDOR: u16 = 0xffff;
const STATS_MORE: u16 = 1;

const NICIRA: u32 = 0x2320;
const NXT_SET_ASYNC_CONFIG: u32 = 19;
const NXT_SET_CONTROLLER_ID: u32 = 20;
const NXT_FLOW_MONITOR_PAUSED: u32 = 22;
const NXT_FLOW_MONITOR_RESUMED: u32 = 23;
const NXST_FLOW_MONITOR: u32 = 2;
/// ADD, DELETE and MODIFY; neither the flows there are, nor their actions.
const NXFMF_CHANGES: u16 = 1 << 1 | 1 << 2 | 1 << 3;
const OFPP_NONE: u16 = 0xffff;
const OFPP_NORMAL: u16 = 0xfffa;
const OFPAT_OUTPUT: u16 = 0;
const NO_BUFFER: u32 = u32::MAX;
const ALL_TABLES: u8 = 0xff;

const PORT_STATUS_DELETE: u8 = 1;
const PORT_STATUS_ALL: u32 = 0b111;
const FRAGMENTS: u16 = 3;

const NO_RECV: u32 = 1 << 2;
const NO_FLOOD: u32 = 1 << 4;
const NO_FWD: u32 = 1 << 5;

/// Numbers of the questions, by which their answers are known. What the switch says of its own accord has 0.
pub(super) const UNASKED: u32 = 0;
pub(super) const GET_CONFIG_XID: u32 = 1;
pub(super) const MONITOR_XID: u32 = 2;
pub(super) const PORTS_XID: u32 = 3;
pub(super) const BARRIER_XID: u32 = 4;
pub(super) const FIRST_ECHO_XID: u32 = 5;

/// Any but 0, and unlikely to be any `controller(id=…)` action's.
const CONTROLLER_ID: u16 = 0x746c;

/// Why bytes are no OpenFlow 1.0 message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub(super) enum WireError {
    #[error("the peer speaks OpenFlow version {0}, not 1.0, or no OpenFlow at all")]
    Version(u8),
    #[error("the peer sent an OpenFlow message of type {0} with an impossible length")]
    Length(u8),
}

/// A message from the switch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Incoming {
    Hello {
        /// Whether the switch may speak OpenFlow 1.0.
        offers_us: bool,
    },
    Error {
        kind: u16,
        code: u16,
    },
    /// With the reply to send.
    EchoRequest(Vec<u8>),
    EchoReply {
        xid: u32,
    },
    Config {
        xid: u32,
        fragments: u16,
    },
    /// From now on changes of flows are told.
    Monitoring {
        xid: u32,
    },
    /// All that was asked before has been done.
    Barrier {
        xid: u32,
    },
    Ports {
        xid: u32,
        ports: BTreeMap<u16, PortFlags>,
        more: bool,
    },
    PortPut(u16, PortFlags),
    PortGone(u16),
    FlowsChanged,
    Other,
}

fn message(kind: u8, xid: u32, body: &[&[u8]]) -> Vec<u8> {
    let body = body.concat();
    // The longest message made here is an echo's reply, which is as long as its request.
    let [high, low] = ((HEADER_LEN + body.len()) as u16).to_be_bytes();
    let mut bytes = vec![VERSION, kind, high, low];
    bytes.extend(xid.to_be_bytes());
    bytes.extend(body);
    bytes
}

fn vendor(subtype: u32, body: &[&[u8]]) -> Vec<u8> {
    message(VENDOR, UNASKED, &[&NICIRA.to_be_bytes(), &subtype.to_be_bytes(), &body.concat()])
}

pub(super) fn hello() -> Vec<u8> {
    message(HELLO, UNASKED, &[])
}

/// Takes a controller id other than 0.
pub(super) fn set_controller_id() -> Vec<u8> {
    vendor(NXT_SET_CONTROLLER_ID, &[&[0; 6], &CONTROLLER_ID.to_be_bytes()])
}

/// Port status only: no packets, no expired flows. The pairs are for the two roles.
pub(super) fn set_async_config() -> Vec<u8> {
    let ports = PORT_STATUS_ALL.to_be_bytes();
    vendor(NXT_SET_ASYNC_CONFIG, &[&[0; 8], &ports, &ports, &[0; 8]])
}

/// Nothing at all, for either role.
pub(super) fn mute() -> Vec<u8> {
    vendor(NXT_SET_ASYNC_CONFIG, &[&[0; 24]])
}

pub(super) fn get_config() -> Vec<u8> {
    message(GET_CONFIG_REQUEST, GET_CONFIG_XID, &[])
}

/// Leaves the handling of fragments as it is, and sets a miss length other than 0.
pub(super) fn set_config(fragments: u16) -> Vec<u8> {
    message(SET_CONFIG, UNASKED, &[&fragments.to_be_bytes(), &1u16.to_be_bytes()])
}

/// Wants to hear of every change to any flow in any table.
pub(super) fn monitor_flows() -> Vec<u8> {
    let stats = [&STATS_VENDOR.to_be_bytes()[..], &[0; 2], &NICIRA.to_be_bytes()].concat();
    let subtype = [&NXST_FLOW_MONITOR.to_be_bytes()[..], &[0; 4]].concat();
    let (id, match_len) = (1u32.to_be_bytes(), [0; 2]);
    let watched: [&[u8]; 6] =
        [&id, &NXFMF_CHANGES.to_be_bytes(), &OFPP_NONE.to_be_bytes(), &match_len, &[ALL_TABLES], &[0; 5]];
    message(STATS_REQUEST, MONITOR_XID, &[&stats, &subtype, &watched.concat()])
}

/// Asks for all ports. (The features reply of OpenFlow 1.0 leaves out those beyond its 64 KiB.)
pub(super) fn describe_ports() -> Vec<u8> {
    message(STATS_REQUEST, PORTS_XID, &[&STATS_PORT_DESC.to_be_bytes(), &[0; 2]])
}

/// Has the frame handled by NORMAL as if it had come in by the port (`struct ofp10_packet_out`, `struct
/// ofp10_action_output`).
pub(super) fn packet_out(in_port: u16, frame: &[u8]) -> Vec<u8> {
    let action = [OFPAT_OUTPUT, 8, OFPP_NORMAL, 0].map(u16::to_be_bytes).concat();
    let head = [&NO_BUFFER.to_be_bytes()[..], &in_port.to_be_bytes(), &(action.len() as u16).to_be_bytes()];
    message(PACKET_OUT, UNASKED, &[&head.concat(), &action, frame])
}

/// Asks for a word when all that was asked before has been done.
pub(super) fn barrier() -> Vec<u8> {
    message(BARRIER_REQUEST, BARRIER_XID, &[])
}

pub(super) fn echo_request(xid: u32) -> Vec<u8> {
    message(ECHO_REQUEST, xid, &[])
}

/// The length of the message that `bytes` begin with, if all of it is there.
pub(super) fn complete_message(bytes: &[u8]) -> Result<Option<usize>, WireError> {
    let [version, kind, high, low, ..] = *bytes else { return Ok(None) };
    // A hello may offer, and an error may be in, another version.
    if version != VERSION && !matches!(kind, HELLO | ERROR) || version == 0 {
        return Err(WireError::Version(version));
    }
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length < HEADER_LEN {
        return Err(WireError::Length(kind));
    }
    Ok((bytes.len() >= length).then_some(length))
}

/// Reads one complete message.
pub(super) fn parse(bytes: &[u8]) -> Result<Incoming, WireError> {
    let Some((&[_, kind, _, _, x0, x1, x2, x3], body)) = bytes.split_first_chunk::<HEADER_LEN>() else {
        return Err(WireError::Length(bytes.get(1).copied().unwrap_or_default()));
    };
    let xid = u32::from_be_bytes([x0, x1, x2, x3]);
    let parsed = match kind {
        HELLO => hello_offers(body).map(|offers_us| Incoming::Hello { offers_us }),
        ERROR => error(body),
        ECHO_REQUEST => Some(Incoming::EchoRequest(message(ECHO_REPLY, xid, &[body]))),
        ECHO_REPLY => Some(Incoming::EchoReply { xid }),
        GET_CONFIG_REPLY => be16(body).map(|flags| Incoming::Config { xid, fragments: flags & FRAGMENTS }),
        BARRIER_REPLY => Some(Incoming::Barrier { xid }),
        PORT_STATUS => port_status(body),
        STATS_REPLY => stats(xid, body),
        VENDOR => vendor_message(body),
        _ => Some(Incoming::Other),
    };
    parsed.ok_or(WireError::Length(kind))
}

/// `ofp_hello_elem_versionbitmap` of OpenFlow 1.3.1: without one, all versions up to the header's are meant.
fn hello_offers(mut elements: &[u8]) -> Option<bool> {
    while !elements.is_empty() {
        let (kind, length) = (be16(elements)?, usize::from(be16(elements.get(2..)?)?));
        if kind == HELLO_VERSION_BITMAP {
            return Some(be32(elements.get(4..length)?)? & 1 << VERSION != 0);
        }
        elements = elements.get(length.max(4).next_multiple_of(8)..).unwrap_or_default();
    }
    Some(true)
}

fn error(body: &[u8]) -> Option<Incoming> {
    Some(Incoming::Error { kind: be16(body)?, code: be16(body.get(2..)?)? })
}

fn port_status(body: &[u8]) -> Option<Incoming> {
    let (head, port) = body.split_first_chunk::<8>()?;
    let (number, flags) = phy_port(port.first_chunk()?);
    Some(if head[0] == PORT_STATUS_DELETE {
        Incoming::PortGone(number)
    } else {
        Incoming::PortPut(number, flags)
    })
}

fn stats(xid: u32, body: &[u8]) -> Option<Incoming> {
    let more = be16(body.get(2..)?)? & STATS_MORE != 0;
    let content = body.get(4..)?;
    match be16(body)? {
        STATS_PORT_DESC => {
            let (ports, rest) = content.as_chunks::<PHY_PORT_LEN>();
            let ports = || ports.iter().map(phy_port).collect();
            rest.is_empty().then(|| Incoming::Ports { xid, ports: ports(), more })
        }
        STATS_VENDOR if be32(content)? == NICIRA && be32(content.get(4..)?)? == NXST_FLOW_MONITOR => {
            // The reply to the request itself has nothing after vendor, subtype and padding.
            let updates = content.get(12..)?;
            Some(if updates.is_empty() { Incoming::Monitoring { xid } } else { Incoming::FlowsChanged })
        }
        _ => Some(Incoming::Other),
    }
}

fn vendor_message(body: &[u8]) -> Option<Incoming> {
    let (vendor, subtype) = (be32(body)?, be32(body.get(4..)?)?);
    Some(match (vendor, subtype) {
        // More changes than the socket could take: what happened meanwhile is unknown.
        (NICIRA, NXT_FLOW_MONITOR_PAUSED | NXT_FLOW_MONITOR_RESUMED) => Incoming::FlowsChanged,
        _ => Incoming::Other,
    })
}

/// `struct ofp10_phy_port`: number, Ethernet address, name, flags, and what is of no interest here.
fn phy_port(port: &[u8; PHY_PORT_LEN]) -> (u16, PortFlags) {
    let [
        n0,
        n1,
        _,
        _,
        _,
        _,
        _,
        _,
        name @ ..,
        c0,
        c1,
        c2,
        c3,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
    ] = port;
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    let config = u32::from_be_bytes([*c0, *c1, *c2, *c3]);
    let flags = PortFlags {
        name: String::from_utf8_lossy(name).into_owned(),
        no_receive: config & NO_RECV != 0,
        no_forward: config & NO_FWD != 0,
        no_flood: config & NO_FLOOD != 0,
    };
    (u16::from_be_bytes([*n0, *n1]), flags)
}

fn be16(bytes: &[u8]) -> Option<u16> {
    bytes.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

fn be32(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests;
