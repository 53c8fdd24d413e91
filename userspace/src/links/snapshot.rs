//! All links at one moment, as near as three dumps come to that.
//!
//! A device that changes between the dumps is announced, and read again then. One that is missing from a later
//! dump counts as offering nothing until it has been read again.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::Arc;

use genetlink::GenetlinkHandle;
use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};

use super::ethtool::{self, Bits};
use super::{
    Link, LinkError, LinkKind, Links, Peer, PeerFacts, VlanChild, XdpFeatures, XdpMode, genl, parse,
    xdp_features,
};

const WHAT: &str = "dump of links";
/// Octets of one datagram of the dump (the kernel's `netlink_dump` fills 32 KiB, or more if a single link takes more).
const LONGEST: usize = 128 << 10;
/// A dump during which links come and go is repeated this often; each change is announced anyway.
const ATTEMPTS: usize = 3;

/// The sockets questions go through.
pub(super) struct Source {
    genl: GenetlinkHandle,
    bits: Bits,
    secrets: RandomState,
    /// What the last dump of links came to, in one number; `None` if links came or went meanwhile.
    digest: Option<u64>,
}

impl Source {
    /// Opens the sockets in the current network namespace.
    pub(super) async fn open() -> Result<Self, LinkError> {
        let mut genl = genl::open()?;
        let bits = ethtool::bits(&mut genl).await?;
        Ok(Self { genl, bits, secrets: RandomState::new(), digest: None })
    }

    /// The generic netlink socket, to ask for multicast groups.
    pub(super) fn genl(&self) -> &GenetlinkHandle {
        &self.genl
    }

    /// Reads everything.
    pub(super) async fn links(&mut self, incarnations: &HashMap<u32, u32>) -> Result<Links, LinkError> {
        let mut links = self.dump_links().await?;
        let xdp_features = xdp_features::all(&mut self.genl).await?;
        let features = ethtool::all(&mut self.genl, self.bits).await?;
        for link in &mut links {
            link.incarnation = incarnations.get(&link.ifindex).copied().unwrap_or_default();
            link.xdp_features = xdp_features
                .as_ref()
                .map(|all| all.get(&link.ifindex).copied().unwrap_or(XdpFeatures::default()));
            let features = features.get(&link.ifindex).copied().unwrap_or_default();
            link.rx_vlan_offload = features.rx_vlan;
            link.rx_stag_offload = features.rx_stag;
            link.tx_vlan_offload = features.tx_vlan;
            link.gro = features.gro;
        }
        Ok(join(links))
    }

    /// Whether a dump of links is the same as when they were last read. It is compared unread, as reading takes much
    /// longer: hardly anything ever changes unannounced.
    pub(super) async fn is_unchanged(&mut self) -> Result<bool, LinkError> {
        let before = self.digest;
        let digest = self.dump_links_once(|_: &[u8]| {}).await?;
        Ok(digest.is_some() && digest == before)
    }

    async fn dump_links(&mut self) -> Result<Vec<Link>, LinkError> {
        let mut links = Vec::new();
        for _ in 0..ATTEMPTS {
            links.clear();
            // A link of a kind that the crate cannot read is not one that frames could be forwarded to.
            let read = |message: &[u8]| {
                if let Ok(NetlinkMessage {
                    payload: NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(message)),
                    ..
                }) = NetlinkMessage::deserialize(message)
                {
                    links.extend(parse::link(&message));
                }
            };
            self.digest = self.dump_links_once(read).await?;
            if self.digest.is_some() {
                break;
            }
        }
        Ok(links)
    }

    /// Takes every link's message, and returns a number for them all; `None` if links came or went meanwhile. Each message
    /// is done with before the next is looked at: parsed, it takes 13 KiB, of which a [`Link`] is a fraction.
    async fn dump_links_once(&mut self, mut take: impl FnMut(&[u8])) -> Result<Option<u64>, LinkError> {
        let failed = |source| LinkError::Socket { what: WHAT, source };
        let kernel = SocketAddr::new(0, 0);
        let mut socket = TokioSocket::new(NETLINK_ROUTE).map_err(failed)?;
        socket.socket_mut().bind(&kernel).map_err(failed)?;
        socket.send_to(&question(), &kernel).await.map_err(failed)?;

        let mut digest = self.secrets.build_hasher();
        let mut consistent = true;
        let mut received = Vec::with_capacity(LONGEST);
        loop {
            received.clear();
            socket.recv(&mut received).await.map_err(failed)?;
            let mut rest = &received[..];
            while !rest.is_empty() {
                let message = NetlinkBuffer::new_checked(rest)
                    .map_err(|cause| LinkError::Broken { what: WHAT, cause: cause.to_string() })?;
                let (message, after) =
                    rest.split_at(rest.len().min((message.length() as usize).next_multiple_of(4)));
                rest = after;
                let header = NetlinkBuffer::new(message);
                consistent &= header.flags() & NLM_F_DUMP_INTR == 0;
                if header.message_type() >= NLMSG_MIN_TYPE {
                    // The number of the socket is in the header.
                    let (fixed, attributes) =
                        header.payload().split_at(header.payload().len().min(IFINFOMSG));
                    digest.write(fixed);
                    for (kind, value) in
                        genl::attributes(attributes).filter(|(kind, _)| !SKIPPED.contains(kind))
                    {
                        digest.write_u16(kind);
                        digest.write(value);
                    }
                    take(message);
                    continue;
                }
                let Ok(answer) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(message) else {
                    continue;
                };
                match answer.payload {
                    NetlinkPayload::Error(error) => return Err(refused(error.to_io())),
                    NetlinkPayload::Done(done) if done.code < 0 => {
                        return Err(refused(std::io::Error::from_raw_os_error(-done.code)));
                    }
                    NetlinkPayload::Done(_) => return Ok(consistent.then(|| digest.finish())),
                    _ => {}
                }
            }
        }
    }
}

fn refused(source: std::io::Error) -> LinkError {
    LinkError::Refused { what: WHAT, source }
}

/// From here on, message types are those of a family (`include/uapi/linux/netlink.h`).
const NLMSG_MIN_TYPE: u16 = 0x10;

/// Octets of a link's message before its attributes (`struct ifinfomsg`).
const IFINFOMSG: usize = 16;
/// `IFLA_STATS` and `IFLA_STATS64`, which the kernel sends unasked and which change with each frame, and `IFLA_AF_SPEC`, what
/// address families have to say: half of the message.
const SKIPPED: [u16; 3] = [7, 23, 26];

/// The request for all links.
fn question() -> Vec<u8> {
    let mut question = LinkMessage::default();
    question.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetLink(question));
    request.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    request.finalize();
    let mut octets = vec![0; request.buffer_len()];
    request.serialize(&mut octets);
    octets
}

/// Fills in what links say of each other.
fn join(links: Vec<Link>) -> Links {
    let mut peers = HashMap::new();
    let mut children: HashMap<u32, Vec<VlanChild>> = HashMap::new();
    for link in &links {
        let native = link.xdp.is_some_and(|xdp| matches!(xdp.mode, XdpMode::Native | XdpMode::Multi));
        let polls = if native { Some(true) } else { link.gro };
        peers.insert(link.ifindex, PeerFacts { mtu: link.mtu, polls, tx_vlan_offload: link.tx_vlan_offload });
        if let LinkKind::Vlan { parent: Some(parent), vid, ethertype } = link.kind {
            children.entry(parent).or_default().push(VlanChild { vid, ethertype });
        }
    }
    let complete = |mut link: Link| {
        if let LinkKind::Veth { peer: Peer::Here(peer) } = link.kind {
            link.peer = peers.get(&peer).copied();
        }
        link.vlan_children = children.remove(&link.ifindex).unwrap_or_default().into_iter().collect();
        (link.ifindex, Arc::new(link))
    };
    links.into_iter().map(complete).collect()
}
