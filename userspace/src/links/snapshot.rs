//! All links at one moment, as near as three dumps come to that.
//!
//! A device that changes between the dumps is announced, and read again then. One that is missing from a later
//! dump counts as offering nothing until it has been read again.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::StreamExt;
use genetlink::GenetlinkHandle;
use netlink_packet_core::{NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};

use super::ethtool::{self, Bits};
use super::{
    Link, LinkError, LinkKind, Links, Peer, PeerFacts, VlanChild, XdpFeatures, XdpMode, genl, parse,
    xdp_features,
};

const WHAT: &str = "dump of links";
/// A dump during which links come and go is repeated this often; each change is announced anyway.
const ATTEMPTS: usize = 3;

/// The sockets questions go through.
pub(super) struct Source {
    route: rtnetlink::Handle,
    genl: GenetlinkHandle,
    bits: Bits,
}

impl Source {
    /// Opens the sockets in the current network namespace.
    pub(super) async fn open() -> Result<Self, LinkError> {
        let opened = rtnetlink::new_connection();
        let (mut connection, route, _) =
            opened.map_err(|source| LinkError::Socket { what: "route netlink socket", source })?;
        connection.set_forward_done(true);
        tokio::spawn(connection);
        let mut genl = genl::open()?;
        let bits = ethtool::bits(&mut genl).await?;
        Ok(Self { route, genl, bits })
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

    async fn dump_links(&mut self) -> Result<Vec<Link>, LinkError> {
        for _ in 1..ATTEMPTS {
            if let (links, true) = self.dump_links_once().await? {
                return Ok(links);
            }
        }
        Ok(self.dump_links_once().await?.0)
    }

    /// The links, and whether none came or went meanwhile.
    async fn dump_links_once(&mut self) -> Result<(Vec<Link>, bool), LinkError> {
        let broken = |cause: String| LinkError::Broken { what: WHAT, cause };
        let mut question = LinkMessage::default();
        question.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetLink(question));
        request.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        let mut answers = self.route.request(request).map_err(|cause| broken(cause.to_string()))?;

        let mut links = Vec::new();
        let mut consistent = true;
        while let Some(answer) = answers.next().await {
            consistent &= answer.header.flags & NLM_F_DUMP_INTR == 0;
            match answer.payload {
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(message)) => {
                    links.extend(parse::link(&message));
                }
                NetlinkPayload::Error(error) => {
                    return Err(LinkError::Refused { what: WHAT, source: error.to_io() });
                }
                NetlinkPayload::Done(done) if done.code < 0 => {
                    return Err(LinkError::Refused {
                        what: WHAT,
                        source: std::io::Error::from_raw_os_error(-done.code),
                    });
                }
                NetlinkPayload::Done(_) => return Ok((links, consistent)),
                _ => {}
            }
        }
        Err(broken("the answer ended early".to_owned()))
    }
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
