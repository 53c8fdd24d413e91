//! What keeps a device from taking part in XDP.

use thiserror::Error;

use crate::coded::coded;

coded! {
    /// Why no native XDP program can be attached that redirects frames.
    NoXdp {
        NoDriverXdp = "no_driver_xdp": "its driver has no native XDP with redirection",
        StagOffload = "rx_vlan_stag_offload":
            "its driver takes 802.1ad tags off received frames (rx-vlan-stag-hw-parse)",
        NoTapXdp = "no_tap_xdp": "this kernel's taps have no native XDP",
        PeerQueues = "peer_queues":
            "the veth peer has more transmit queues than this end has receive queues",
        PeerMtu { mtu: u32, limit: usize } = "peer_mtu":
            "the veth peer's MTU {mtu} is above {limit}, the most XDP can take",
        Bond = "kernel_bond": "it is a kernel bond",
        Vlan = "vlan_device": "it is a VLAN device, which has no native XDP",
        Bridge = "linux_bridge": "it is a Linux bridge, which has no native XDP",
        Macvlan = "macvlan_device": "it is a macvlan device, which has no native XDP",
        OpenVSwitch = "internal_device": "it is an internal port, which has no native XDP",
        Other { kind: String } = "other_device": "it is of the kind {kind}, which has no native XDP",
    }
}

/// Why a frame that is redirected to a device would be lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum NotATarget {
    /// A driver without `ndo_xdp_xmit`.
    #[error("its driver takes no redirected frames")]
    Driver,
    /// A driver that sets `ndo_xdp_xmit` up together with a program.
    #[error("its driver takes no redirected frames without an XDP program of its own")]
    NoProgram,
    /// A tap of an old kernel.
    #[error("this kernel's taps take no redirected frames")]
    Tap,
    /// A veth whose peer does not poll.
    #[error("the veth peer has neither GRO nor an XDP program, so redirected frames would be lost")]
    PeerDoesNotPoll,
    /// A veth whose peer is here, and an old kernel.
    #[error("whether the veth peer has GRO cannot be asked")]
    PeerUnknown,
    /// A veth whose peer is not here, and an old kernel.
    #[error("the veth peer is in another network namespace and this kernel does not tell its settings")]
    PeerElsewhere,
}
