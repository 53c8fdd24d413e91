//! The kernel's network devices, as far as a fast path has to know them.
//!
//! [`watch`] sends the whole of them as one value after every change: an agent compares states and needs no
//! history. The facts come from three netlink families (rtnetlink, ethtool, netdev), because no single one
//! knows which device can be redirected to. A fact the running kernel cannot tell is `None`, never a guess.
//!
//! What the kernel does not announce is found by the dump every [`watch::RESYNC`], which is read if it is not the same as
//! before: an XDP program somebody else attaches through a `bpf_link`, and a tap's `vnet_hdr` flag when a second queue is
//! opened with another one.
//! A device that vanishes between two questions is absent from the next snapshot; nobody has to treat that
//! as an error.

mod ethtool;
mod facts;
mod genl;
mod hindrance;
mod parse;
mod snapshot;
mod watch;
mod xdp_features;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use thiserror::Error;
use trunkline_core::Vid;

pub use self::ethtool::set_rx_vlan_offload;
pub use self::hindrance::{NoXdp, NotATarget};
pub use self::watch::{RESYNC, watch};
pub use self::xdp_features::XdpFeatures;

/// Every device of the agent's network namespace, by ifindex.
pub type Links = BTreeMap<u32, Arc<Link>>;

/// What [`watch`] has to say.
#[derive(Clone, Debug)]
pub enum LinkEvent {
    /// All links, read after the last change.
    Snapshot(Arc<Links>),
    /// The kernel could not be asked; the last snapshot may be stale. Tried again every second.
    Failed {
        /// What failed, as a sentence.
        cause: String,
    },
}

/// A netlink exchange that did not work.
#[derive(Debug, Error)]
pub enum LinkError {
    /// No socket, or a multicast group that cannot be joined.
    #[error("{what}: {source}")]
    Socket {
        /// What the socket was for.
        what: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel refused a request. [`LinkError::is_absent`] tells a device that has gone.
    #[error("{what}: {source}")]
    Refused {
        /// What was asked.
        what: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The exchange itself broke: an answer ended early or did not parse.
    #[error("{what}: {cause}")]
    Broken {
        /// What was asked.
        what: &'static str,
        /// What was wrong with the answer.
        cause: String,
    },
    /// The driver kept a feature as it was.
    #[error("interface {ifindex}: the driver does not let rx-vlan-offload be switched {wanted}")]
    Fixed {
        /// The device.
        ifindex: u32,
        /// `on` or `off`.
        wanted: &'static str,
    },
}

impl LinkError {
    /// Whether the device asked about does not exist (any more).
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Refused { source, .. } if source.raw_os_error()
            == Some(rustix::io::Errno::NODEV.raw_os_error()))
    }
}

/// One network device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The kernel's index, in the agent's network namespace.
    pub ifindex: u32,
    /// Changes when the device was deleted, or moved out of the namespace, and one with the same index is
    /// here again: whatever was attached to or aimed at the index is gone then.
    pub incarnation: u32,
    /// The current name; it may change.
    pub name: String,
    /// Bytes of payload, without the Ethernet header.
    pub mtu: u32,
    /// Administratively up (`IFF_UP`).
    pub up: bool,
    /// The lower layer is up (`IFF_LOWER_UP`).
    pub carrier: bool,
    /// The Ethernet address, if it is an Ethernet device.
    pub mac: Option<[u8; 6]>,
    /// What it is.
    pub kind: LinkKind,
    /// The bridge, bond or OVS datapath it is enslaved to (`IFLA_MASTER`).
    pub master: Option<u32>,
    /// The XDP program on it, whoever put it there.
    pub xdp: Option<XdpAttachment>,
    /// What the driver offers (`NETDEV_A_DEV_XDP_FEATURES`); `None` before Linux 6.3.
    pub xdp_features: Option<XdpFeatures>,
    /// Whether received 802.1Q tags are taken off the frame (`rx-vlan-hw-parse`); `None`: cannot be asked.
    pub rx_vlan_offload: Option<bool>,
    /// The same for 802.1ad tags (`rx-vlan-stag-hw-parse`).
    pub rx_stag_offload: Option<bool>,
    /// Whether sent 802.1Q tags stay beside the frame for the "hardware" to insert (`tx-vlan-hw-insert`).
    pub tx_vlan_offload: Option<bool>,
    /// Generic receive offload (`rx-gro`).
    pub gro: Option<bool>,
    /// What is known of a veth's other end, when that is in this namespace.
    pub peer: Option<PeerFacts>,
    /// VLAN devices stacked on it in this namespace: the kernel takes their frames before any bridge does.
    /// Those that were moved to another namespace cannot be seen from here.
    pub vlan_children: BTreeSet<VlanChild>,
}

/// The kinds of device that are told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// An Ethernet device with a driver rather than a software kind.
    Physical {
        /// The driver's name as sysfs has it, `virtio_net`; empty if unknown.
        driver: String,
    },
    /// One end of a veth pair.
    Veth {
        /// The other end.
        peer: Peer,
    },
    /// A tap device; a layer 3 tun device is [`LinkKind::Other`].
    Tap {
        /// Frames carry a virtio header: checksums may be partial, frames super-sized.
        vnet_hdr: bool,
        /// Several queues may be opened.
        multi_queue: bool,
    },
    /// A kernel bond.
    Bond,
    /// A VLAN device.
    Vlan {
        /// The device it is stacked on, if that is in this namespace.
        parent: Option<u32>,
        /// Its VLAN.
        vid: Vid,
        /// The tags' protocol, `0x8100` or `0x88a8`.
        ethertype: u16,
    },
    /// A Linux bridge.
    Bridge,
    /// A macvlan or macvtap device.
    Macvlan,
    /// An internal port of the kernel's Open vSwitch datapath.
    OpenVSwitch,
    /// Anything else, by the kernel's name for it.
    Other(String),
}

/// Where a veth's other end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// In this namespace.
    Here(u32),
    /// In another network namespace.
    Elsewhere,
    /// The kernel does not say.
    Unknown,
}

/// What a veth's other end is set to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerFacts {
    /// Its MTU, which limits a program on this end.
    pub mtu: u32,
    /// It polls for redirected frames: GRO is on, or it has a native XDP program. `None`: cannot be asked.
    pub polls: Option<bool>,
    /// It hands 802.1Q tags over beside the frame, where a program on this end cannot see them.
    pub tx_vlan_offload: Option<bool>,
}

/// A VLAN device stacked on another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct VlanChild {
    /// Its VLAN.
    pub vid: Vid,
    /// The tags' protocol, `0x8100` or `0x88a8`.
    pub ethertype: u16,
}

/// An attached XDP program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XdpAttachment {
    /// The kernel's program id; with [`XdpMode::Multi`] the native one's.
    pub prog_id: u32,
    /// How it is attached.
    pub mode: XdpMode,
}

/// How an XDP program is attached (`IFLA_XDP_ATTACHED`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver.
    Native,
    /// On socket buffers, after the driver.
    Generic,
    /// On the card.
    Offloaded,
    /// Several of these at once.
    Multi,
}
