//! Whether a device can take part in XDP redirection, and if not, why.

use super::{Link, LinkKind, NoXdp, NotATarget, Peer, XdpFeatures, XdpMode};

/// Drivers with `ndo_xdp_xmit` in Linux 5.15, the oldest kernel supported. Asked only before Linux 6.3.
const REDIRECT_TARGETS: [&str; 10] =
    ["bnxt_en", "ena", "i40e", "ice", "igb", "igc", "ixgbe", "mlx5_core", "sfc", "virtio_net"];

/// `VETH_XDP_HEADROOM`, `sizeof(struct skb_shared_info)` rounded to a cache line, and the Ethernet header:
/// what a page must hold besides the payload for `veth_xdp_set` to take a program (`drivers/net/veth.c`).
const VETH_PAGE_OVERHEAD: usize = 256 + 320 + 14;

impl Link {
    /// Whether a native XDP program can be attached that redirects frames.
    ///
    /// Another program already there ([`Link::xdp`]), a tap's virtio header and rx-vlan-offload are not looked
    /// at: what to do about those is the caller's. The attachment itself may still fail, for a physical
    /// device's MTU or a veth peer's in another namespace.
    ///
    /// # Errors
    /// The reason why not.
    pub fn native_xdp(&self) -> Result<(), NoXdp> {
        match &self.kind {
            LinkKind::Physical { .. } => {
                self.offers_native_xdp(NoXdp::NoDriverXdp)?;
                if self.rx_stag_offload == Some(true) { Err(NoXdp::StagOffload) } else { Ok(()) }
            }
            LinkKind::Tap { .. } => self.offers_native_xdp(NoXdp::NoTapXdp),
            LinkKind::Veth { .. } => {
                self.offers_native_xdp(NoXdp::PeerQueues)?;
                let limit = rustix::param::page_size().saturating_sub(VETH_PAGE_OVERHEAD);
                match self.peer {
                    Some(peer) if peer.mtu as usize > limit => Err(NoXdp::PeerMtu { mtu: peer.mtu, limit }),
                    _ => Ok(()),
                }
            }
            LinkKind::Bond => Err(NoXdp::Bond),
            LinkKind::Vlan { .. } => Err(NoXdp::Vlan),
            LinkKind::Bridge => Err(NoXdp::Bridge),
            LinkKind::Macvlan => Err(NoXdp::Macvlan),
            LinkKind::OpenVSwitch => Err(NoXdp::OpenVSwitch),
            LinkKind::Other(kind) => Err(NoXdp::Other { kind: kind.clone() }),
        }
    }

    /// Whether a frame redirected to this device is sent rather than dropped without a word.
    ///
    /// Physical drivers mostly offer it only while they have a program themselves: ask again after attaching.
    ///
    /// # Errors
    /// The reason why not.
    pub fn can_be_redirected_to(&self) -> Result<(), NotATarget> {
        match &self.kind {
            LinkKind::Veth { peer } => self.veth_target(*peer),
            LinkKind::Tap { .. } => self.offers_target(true, NotATarget::Tap),
            LinkKind::Physical { driver } => {
                let native = self.xdp.is_some_and(|xdp| matches!(xdp.mode, XdpMode::Native | XdpMode::Multi));
                let known = native && REDIRECT_TARGETS.contains(&driver.as_str());
                self.offers_target(known, if native { NotATarget::Driver } else { NotATarget::NoProgram })
            }
            _ => self.offers_target(false, NotATarget::Driver),
        }
    }

    /// The kernel's answer is about what the peer asked for when it was last asked: `ethtool -K` on a peer that
    /// is down changes the peer and not the answer (`veth_set_features`). So a peer in sight is asked too.
    fn veth_target(&self, peer: Peer) -> Result<(), NotATarget> {
        const WHY: NotATarget = NotATarget::PeerDoesNotPoll;
        match (peer, self.peer.and_then(|peer| peer.polls)) {
            (Peer::Here(_), Some(polls)) => self.offers_target(polls, WHY).and(said(polls, WHY)),
            _ if self.xdp_features.is_some() => self.offers_target(false, WHY),
            (Peer::Here(_), None) => Err(NotATarget::PeerUnknown),
            (Peer::Elsewhere | Peer::Unknown, _) => Err(NotATarget::PeerElsewhere),
        }
    }

    fn offers_native_xdp(&self, why_not: NoXdp) -> Result<(), NoXdp> {
        let needed = XdpFeatures(XdpFeatures::BASIC.0 | XdpFeatures::REDIRECT.0);
        // An older kernel answers when the program is attached.
        said(self.xdp_features.is_none_or(|features| features.contains(needed)), why_not)
    }

    fn offers_target(&self, if_unknown: bool, why_not: NotATarget) -> Result<(), NotATarget> {
        said(
            self.xdp_features.map_or(if_unknown, |features| features.contains(XdpFeatures::NDO_XMIT)),
            why_not,
        )
    }
}

fn said<E>(can: bool, why_not: E) -> Result<(), E> {
    if can { Ok(()) } else { Err(why_not) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::{PeerFacts, XdpAttachment};
    use super::*;

    fn link(kind: LinkKind, features: Option<u64>) -> Link {
        Link {
            ifindex: 5,
            incarnation: 0,
            name: "x0".to_owned(),
            mtu: 1500,
            up: true,
            carrier: true,
            mac: None,
            kind,
            master: None,
            xdp: None,
            xdp_features: features.map(XdpFeatures),
            rx_vlan_offload: Some(false),
            rx_stag_offload: Some(false),
            tx_vlan_offload: Some(false),
            gro: Some(false),
            peer: None,
            vlan_children: BTreeSet::new(),
        }
    }

    fn veth(peer: Peer, features: Option<u64>, polls: Option<bool>) -> Link {
        let facts = polls.map(|polls| PeerFacts { mtu: 1500, polls: Some(polls), tx_vlan_offload: None });
        Link { peer: facts, ..link(LinkKind::Veth { peer }, features) }
    }

    #[test]
    fn a_veth_is_a_target_only_if_its_peer_polls() {
        for (peer, features, polls, can) in [
            (Peer::Here(6), Some(0x67), Some(true), true),
            (Peer::Here(6), Some(0x67), Some(false), false), // The kernel's stale answer.
            (Peer::Here(6), Some(0x23), Some(true), false),
            (Peer::Here(6), Some(0), Some(true), false),
            (Peer::Elsewhere, Some(0x67), None, true),
            (Peer::Elsewhere, Some(0x23), None, false),
            (Peer::Here(6), None, Some(true), true),
            (Peer::Here(6), None, Some(false), false),
            (Peer::Here(6), None, None, false),
            (Peer::Elsewhere, None, None, false),
            (Peer::Unknown, None, None, false),
        ] {
            let link = veth(peer, features, polls);
            assert_eq!(link.can_be_redirected_to().is_ok(), can, "{peer:?} {features:?} {polls:?}");
        }
    }

    #[test]
    fn a_veth_takes_a_program_up_to_a_page() {
        let mut link = veth(Peer::Here(6), Some(0x67), Some(true));
        let limit = u32::try_from(rustix::param::page_size() - 590).unwrap();
        link.peer = Some(PeerFacts { mtu: limit, polls: Some(true), tx_vlan_offload: None });
        assert_eq!(link.native_xdp(), Ok(()));
        link.peer = Some(PeerFacts { mtu: limit + 1, polls: Some(true), tx_vlan_offload: None });
        assert!(link.native_xdp().unwrap_err().to_string().contains("MTU"));
        assert!(
            veth(Peer::Elsewhere, Some(0), None).native_xdp().unwrap_err().to_string().contains("queues")
        );
    }

    #[test]
    fn a_physical_device_of_an_old_kernel_is_judged_by_its_driver() {
        let mut nic = link(LinkKind::Physical { driver: "ice".to_owned() }, None);
        assert_eq!(nic.native_xdp(), Ok(()));
        assert!(nic.can_be_redirected_to().is_err(), "no program of its own");
        nic.xdp = Some(XdpAttachment { prog_id: 1, mode: XdpMode::Native });
        assert_eq!(nic.can_be_redirected_to(), Ok(()));
        nic.kind = LinkKind::Physical { driver: "e1000e".to_owned() };
        assert!(nic.can_be_redirected_to().is_err());
    }

    #[test]
    fn service_tags_taken_off_by_the_card_rule_it_out() {
        let mut nic = link(LinkKind::Physical { driver: "ice".to_owned() }, Some(0x7f));
        nic.rx_stag_offload = Some(true);
        assert!(nic.native_xdp().unwrap_err().to_string().contains("802.1ad"));
    }

    #[test]
    fn other_kinds_are_left_alone() {
        assert!(link(LinkKind::Bond, Some(0x7f)).native_xdp().is_err());
        assert!(link(LinkKind::OpenVSwitch, Some(0)).can_be_redirected_to().is_err());
        assert!(link(LinkKind::Bridge, None).can_be_redirected_to().is_err());
        assert!(
            link(LinkKind::Tap { vnet_hdr: false, multi_queue: false }, None).can_be_redirected_to().is_ok()
        );
    }
}
