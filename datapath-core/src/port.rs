//! The VLAN rules of a port, compiled: which VLAN a frame is in, and which tag it leaves with.
//!
//! Open vSwitch's VLAN modes exist only in the agent, which compiles each of them into fields of
//! [`abi::Port`]:
//!
//! | mode | `pvid` | `untagged` | accept tagged | `members` |
//! |---|---|---|---|---|
//! | access t | t | t | no | {t} |
//! | trunk T (empty: all) | 0 if 0 ∈ T | – | yes | T |
//! | native-tagged t, T | t | – | yes | T ∪ {t} |
//! | native-untagged t, T | t | t | yes | T ∪ {t} |
//!
//! With native VLANs other than 0, VLAN 0 is not a member.

use crate::{
    Pcp, Tag, TagOp, Tpid, Vid,
    abi::{self, NO_VID},
};

/// What a port does with priority tags on the way out (`Port.other_config:priority-tags`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PriorityTags {
    /// The default: none beyond what a trunk port emits by itself.
    #[default]
    Never,
    /// `if-nonzero`, and the legacy `true`.
    IfNonzero,
    /// `always`.
    Always,
}

/// A frame's VLAN on the bridge, and the tag that represents it there (OVS `struct xvlan`, its first slot).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Classified {
    /// The VLAN, in which the FDB has the frame's stations.
    pub vid: Vid,
    tpid: Option<Tpid>,
    pcp: Pcp,
}

impl abi::Port {
    /// A port that is not in use.
    pub const UNUSED: Self = Self {
        bridge: 0,
        pvid: NO_VID,
        untagged: NO_VID,
        flags: 0,
        mtu: 0,
        learning_limit: 0,
        ifindex: 0,
        reserved: [0; 3],
        members: crate::VidSet::EMPTY,
        excluded: crate::VidSet::EMPTY,
    };

    /// Returns whether all these `PORT_*` bits are set.
    #[inline(always)]
    pub const fn has(&self, flags: u16) -> bool {
        self.flags & flags == flags
    }

    /// Returns the VLAN of a frame that arrives with `tag` (or without one); `None` if the port does not
    /// admit it (`input_vid_is_valid` and `xvlan_input_translate`, OVS `ofproto/ofproto-dpif-xlate.c`).
    #[inline(always)]
    pub const fn classify(&self, tag: Option<Tag>) -> Option<Classified> {
        match tag {
            Some(tag) if tag.vid().get() != 0 => {
                if self.has(abi::PORT_ACCEPT_TAGGED) && self.members.contains(tag.vid()) {
                    Some(Classified { vid: tag.vid(), tpid: Some(tag.tpid()), pcp: tag.pcp() })
                } else {
                    None
                }
            }
            _ if self.pvid == NO_VID => None,
            Some(priority) => {
                let vid = Vid::from_tci(self.pvid);
                Some(Classified { vid, tpid: Some(priority.tpid()), pcp: priority.pcp() })
            }
            None => {
                let tpid = if self.has(abi::PORT_PVID_HAS_TPID) { Some(Tpid::Dot1Q) } else { None };
                Some(Classified { vid: Vid::from_tci(self.pvid), tpid, pcp: Pcp::ZERO })
            }
        }
    }

    /// Returns the edit with which a frame that arrived with `received` leaves through this port
    /// (`xvlan_output_translate` and `xvlan_put`, OVS `ofproto/ofproto-dpif-xlate.c`).
    #[inline(always)]
    pub const fn egress(&self, frame: Classified, received: Option<Tag>) -> TagOp {
        let (tpid, vid, pcp) = if self.untagged == frame.vid.get() {
            (None, Vid::ZERO, if self.has(abi::PORT_PRIORITY_TAGS) { frame.pcp } else { Pcp::ZERO })
        } else {
            (frame.tpid, frame.vid, frame.pcp)
        };
        let tagged =
            vid.get() != 0 || pcp.get() != 0 || (self.has(abi::PORT_PRIORITY_TAGS_ALWAYS) && tpid.is_some());
        let tpid = match tpid {
            Some(tpid) => tpid,
            None => Tpid::Dot1Q,
        };
        let sent = Tag::new(tpid, pcp, vid);
        match received {
            None if tagged => TagOp::Push(sent),
            None => TagOp::Keep,
            Some(_) if !tagged => TagOp::Pop,
            Some(received) if received.same_but_dei(sent) => TagOp::Keep,
            Some(_) => TagOp::Replace(sent),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::VidSet;
    use crate::abi::*;

    fn vid(vid: u16) -> Vid {
        Vid::new(vid).unwrap()
    }

    fn tag(pcp: u8, id: u16) -> Tag {
        Tag::new(Tpid::Dot1Q, Pcp::new(pcp).unwrap(), vid(id))
    }

    fn members(vids: &[u16]) -> VidSet {
        vids.iter().map(|id| vid(*id)).collect()
    }

    fn access(t: u16) -> Port {
        let flags = PORT_VALID | PORT_PVID_HAS_TPID;
        Port { pvid: t, untagged: t, flags, members: members(&[t]), ..Port::UNUSED }
    }

    fn trunk(pvid: u16, vids: VidSet) -> Port {
        Port { pvid, flags: PORT_VALID | PORT_ACCEPT_TAGGED, members: vids, ..Port::UNUSED }
    }

    fn native(t: u16, untagged: u16) -> Port {
        let flags = PORT_VALID | PORT_ACCEPT_TAGGED | PORT_PVID_HAS_TPID;
        Port { pvid: t, untagged, flags, members: members(&[t, 20]), ..Port::UNUSED }
    }

    fn through(from: &Port, to: &Port, received: Option<Tag>) -> Option<TagOp> {
        from.classify(received).map(|frame| to.egress(frame, received))
    }

    #[test]
    fn access_port_drops_tagged_frames_even_of_its_own_vlan() {
        assert_eq!(access(10).classify(Some(tag(0, 10))), None);
        assert_eq!(access(10).classify(Some(tag(0, 11))), None);
    }

    #[test]
    fn access_to_trunk_pushes_and_back_pops() {
        let trunk = trunk(NO_VID, members(&[10]));
        assert_eq!(through(&access(10), &trunk, None), Some(TagOp::Push(tag(0, 10))));
        assert_eq!(through(&trunk, &access(10), Some(tag(5, 10))), Some(TagOp::Pop));
    }

    #[test]
    fn priority_tag_becomes_the_vlans_tag_and_keeps_its_priority() {
        let trunk = trunk(NO_VID, VidSet::ALL);
        assert_eq!(through(&access(10), &trunk, Some(tag(6, 0))), Some(TagOp::Replace(tag(6, 10))));
        assert_eq!(through(&access(10), &access(10), Some(tag(6, 0))), Some(TagOp::Pop));
    }

    #[test]
    fn trunk_without_vlan_0_does_not_admit_untagged_frames() {
        let listed = trunk(NO_VID, members(&[10]));
        assert_eq!(listed.classify(None), None);
        assert_eq!(listed.classify(Some(tag(3, 0))), None);
        assert_eq!(listed.classify(Some(tag(3, 11))), None);
    }

    #[test]
    fn trunk_emits_a_priority_tag_by_itself_but_only_with_a_priority() {
        let all = trunk(0, VidSet::ALL);
        assert_eq!(through(&all, &all, None), Some(TagOp::Keep));
        assert_eq!(through(&all, &all, Some(tag(0, 0))), Some(TagOp::Pop));
        assert_eq!(through(&all, &all, Some(tag(3, 0))), Some(TagOp::Keep));
    }

    #[test]
    fn native_vlan_leaves_tagged_or_untagged_by_mode() {
        let all = trunk(0, VidSet::ALL);
        assert_eq!(through(&all, &native(10, NO_VID), Some(tag(1, 10))), Some(TagOp::Keep));
        assert_eq!(through(&all, &native(10, 10), Some(tag(1, 10))), Some(TagOp::Pop));
        assert_eq!(through(&native(10, 10), &all, None), Some(TagOp::Push(tag(0, 10))));
        assert_eq!(through(&all, &native(10, 10), Some(tag(1, 20))), Some(TagOp::Keep));
    }

    #[test]
    fn priority_tags_if_nonzero_keeps_the_priority_of_frames_that_leave_untagged() {
        let mut port = access(10);
        port.flags |= PORT_PRIORITY_TAGS;
        let all = trunk(0, VidSet::ALL);
        assert_eq!(through(&all, &port, Some(tag(5, 10))), Some(TagOp::Replace(tag(5, 0))));
        assert_eq!(through(&all, &port, Some(tag(0, 10))), Some(TagOp::Pop));
    }

    #[test]
    fn priority_tags_always_tags_vlan_0_but_not_what_came_untagged_from_a_trunk() {
        let mut port = trunk(0, VidSet::ALL);
        port.flags |= PORT_PRIORITY_TAGS | PORT_PRIORITY_TAGS_ALWAYS;
        let all = trunk(0, VidSet::ALL);
        assert_eq!(through(&all, &port, Some(tag(0, 0))), Some(TagOp::Keep));
        assert_eq!(through(&access(0), &port, None), Some(TagOp::Push(tag(0, 0))));
        assert_eq!(through(&all, &port, None), Some(TagOp::Keep));
    }

    #[test]
    fn drop_eligible_bit_stays_on_a_kept_tag_and_is_lost_on_a_new_one() {
        let all = trunk(0, VidSet::ALL);
        let eligible = Tag::from_wire(Tpid::Dot1Q, 0x700a);
        assert_eq!(through(&all, &all, Some(eligible)), Some(TagOp::Keep));
        let priority = Tag::from_wire(Tpid::Dot1Q, 0x7000);
        assert_eq!(through(&access(10), &all, Some(priority)), Some(TagOp::Replace(tag(3, 10))));
    }
}
