//! The verdict on a frame, and the reason.

use crate::Tag;

/// What is done with a frame.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It leaves through a port, after an edit of its tag.
    Forward {
        /// The port (`PortNo`).
        port: u16,
        /// The edit of its tag.
        tag: TagOp,
    },
    /// It goes up to Open vSwitch, untouched.
    Punt(PuntReason),
    /// It is dropped, as Open vSwitch would certainly do.
    Drop(DropReason),
}

/// The edit that turns the tag as received into the tag as sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TagOp {
    /// Leave the frame as it is, DEI bit included.
    Keep,
    /// Insert this tag after the addresses.
    Push(Tag),
    /// Remove the tag.
    Pop,
    /// Overwrite the tag.
    Replace(Tag),
}

/// Declares an enum of reasons with the labels that counters and JSON show.
macro_rules! reasons {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $label:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u8)]
        pub enum $name { $($(#[$doc])* $variant,)* }

        impl $name {
            /// All reasons, in the order of their counters.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Returns the name shown to people and scripts.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)* }
            }

            /// Returns the index of its counter.
            #[inline(always)]
            pub const fn index(self) -> usize {
                self as usize
            }
        }
    };
}

reasons! {
    /// Why a frame goes up to Open vSwitch.
    PuntReason {
        /// The device is not, or not yet, a port of an accelerated bridge.
        NotAPort = "not_a_port",
        /// The agent has not renewed the lease in time.
        StaleHeartbeat = "stale_heartbeat",
        /// The bridge's configuration is being changed.
        BridgeSuspended = "bridge_suspended",
        /// Shorter than an Ethernet header with a tag and the two octets that the kernel requires behind it.
        ShortFrame = "short_frame",
        /// Two tags or more.
        StackedTags = "stacked_tags",
        /// A VLAN that is never accelerated on this port: an 802.1Q device of the host takes it, or the
        /// bridge floods it (`flood_vlans`).
        ExcludedVlan = "excluded_vlan",
        /// Multicast or broadcast source, which is never learned.
        GroupSource = "group_source",
        /// First frame of a station in this VLAN.
        NewSource = "new_source",
        /// A station that was on another port before.
        MovedSource = "moved_source",
        /// A known station that Open vSwitch has to see again, or it would age out there.
        RefreshSource = "refresh_source",
        /// A new station, but the FDB has no room.
        FdbFull = "fdb_full",
        /// A new station, but the port may not learn more.
        LearningLimit = "learning_limit",
        /// Multicast or broadcast destination.
        GroupDestination = "group_destination",
        /// Reserved destination: consumed or dropped by Open vSwitch.
        ReservedDestination = "reserved_destination",
        /// No such station in this VLAN: Open vSwitch floods the frame.
        UnknownDestination = "unknown_destination",
        /// The program cannot send to the station's port.
        UnreachableDestination = "unreachable_destination",
        /// Longer than the MTU of its port or of the port that it would leave through.
        OverMtu = "over_mtu",
        /// The tag's drop-eligible bit is set, and Open vSwitch's datapath would clear it.
        DropEligible = "drop_eligible",
        /// The sender left the TCP or UDP checksum to hardware that this frame would not pass.
        PartialChecksum = "partial_checksum",
        /// It cannot be told whether the sender left a checksum to hardware.
        UnknownChecksum = "unknown_checksum",
        /// TCP that the XDP program leaves to the tc program behind it, which gets it merged into
        /// super-frames.
        TcpToMerge = "tcp_to_merge",
        /// The kernel gave no room for inserting a tag.
        NoHeadroom = "no_headroom",
    }
}

reasons! {
    /// Why a frame is dropped.
    DropReason {
        /// The port does not admit this VLAN.
        VlanNotAdmitted = "vlan_not_admitted",
        /// The destination is on the port that the frame arrived on.
        SamePort = "same_port",
        /// Both ports are protected.
        Protected = "protected",
        /// Its tag could not be replaced because memory ran out, and it is no longer the frame that was
        /// received.
        EditFailed = "edit_failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_count_up_and_labels_differ() {
        let mut labels = std::collections::BTreeSet::new();
        for (place, reason) in PuntReason::ALL.iter().enumerate() {
            assert_eq!(reason.index(), place);
            assert!(labels.insert(reason.label()), "{} twice", reason.label());
        }
        for (place, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(reason.index(), place);
            assert!(labels.insert(reason.label()), "{} twice", reason.label());
        }
    }
}
