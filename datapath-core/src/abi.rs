//! Layouts of the BPF maps: what the agent writes and the programs read, and the other way round.
//!
//! All numbers are in the machine's own order. [`ABI_VERSION`] changes with every change here; the agent
//! refuses an object that was built with another version.

use core::sync::atomic::AtomicU64;

use bytemuck::{Pod, Zeroable};

use crate::{DropReason, PuntReason, VidSet};

/// Version of the layouts in this file.
pub const ABI_VERSION: u32 = 9;

/// Name of the constant in the BPF object that holds the version it was built for. Loading looks for it.
pub const ABI_SYMBOL: &str = "TRUNKLINE_ABI_9";

/// Most ports that can be accelerated at a time, on all bridges together. A `PortNo` is below it.
pub const MAX_PORTS: u32 = 1024;

/// Most bridges at a time. A `BridgeNo` is below it.
pub const MAX_BRIDGES: u32 = 128;

/// Slots of the table from interface index to port: an index takes the slot of its low bits.
pub const IFINDEX_SLOTS: u32 = 1 << 16;

/// Value of map `SLOTS`, an array by the low bits of an interface index: 8 octets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub struct Slot {
    /// The whole interface index, 0 in an empty slot.
    pub ifindex: u32,
    /// The port.
    pub port_no: u32,
}

/// Value of map `BRIDGES`, an array by `BridgeNo`: 16 octets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub struct Bridge {
    /// When the program has to stop switching by itself, in seconds of the monotonic clock; 0 suspends the
    /// bridge.
    pub lease_s: u32,
    /// How long a station may send before the agent is asked to show it to Open vSwitch, in seconds.
    pub show_s: u32,
    /// How long a station may send before a frame of it is punted to show it to Open vSwitch, in seconds.
    pub refresh_s: u32,
    /// How long after a station was last shown to Open vSwitch its entry may be used, in seconds.
    pub ageing_s: u32,
}

impl Bridge {
    /// Returns a bridge that may switch until `lease_s`. The agent has half of the time until the refresh to
    /// show a station.
    pub const fn new(lease_s: u32, refresh_s: u32, ageing_s: u32) -> Self {
        Self { lease_s, show_s: refresh_s / 2, refresh_s, ageing_s }
    }
}

/// An item of the ring buffer `SHOW`, in which a program asks the agent to show a station to Open vSwitch: 16
/// octets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub struct Show {
    /// The bridge (`BridgeNo`).
    pub bridge: u16,
    /// The VLAN.
    pub vid: u16,
    /// The port on which the station sends (`PortNo`).
    pub port: u16,
    /// The station's address.
    pub mac: [u8; 6],
    /// Zero.
    pub reserved: [u16; 2],
}

/// The request to the program that extends leases, which gets it as its frame: 16 octets, because no frame is
/// shorter than 14.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub struct Renewal {
    /// When the leases that have not run out are to end, in seconds of the monotonic clock.
    pub until_s: u32,
    /// Zero.
    pub reserved: [u32; 3],
}

/// Value of map `PORTS`, an array by `PortNo`: 1,056 octets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Port {
    /// The bridge (`BridgeNo`).
    pub bridge: u16,
    /// VLAN of frames that arrive without one, or [`NO_VID`].
    pub pvid: u16,
    /// VLAN that leaves without a tag, or [`NO_VID`].
    pub untagged: u16,
    /// Bits `PORT_*`.
    pub flags: u16,
    /// The device's MTU in octets.
    pub mtu: u32,
    /// Most stations that may be learned on this port.
    pub learning_limit: u32,
    /// The device, for the tc program to send to.
    pub ifindex: u32,
    /// Zero.
    pub reserved: [u32; 3],
    /// VLANs that the port admits and that leave through it.
    pub members: VidSet,
    /// VLANs, as on the wire or as classified, that are left to Open vSwitch (with [`PORT_HAS_EXCLUDED`]).
    pub excluded: VidSet,
}

/// In [`Port::pvid`] and [`Port::untagged`]: no VLAN.
pub const NO_VID: u16 = u16::MAX;

/// The port is in use.
pub const PORT_VALID: u16 = 1 << 0;
/// Frames with a VID other than 0 are admitted (if a member).
pub const PORT_ACCEPT_TAGGED: u16 = 1 << 1;
/// The port is protected: it sends nothing to other protected ports.
pub const PORT_PROTECTED: u16 = 1 << 2;
/// The XDP program can send frames to the device with a redirect.
pub const PORT_TARGET: u16 = 1 << 3;
/// Senders behind the port may leave checksums to hardware (veth, tap).
pub const PORT_PARTIAL_CHECKSUMS: u16 = 1 << 4;
/// `excluded` is not empty.
pub const PORT_HAS_EXCLUDED: u16 = 1 << 5;
/// `priority-tags=if-nonzero`, or `always` with the next bit too.
pub const PORT_PRIORITY_TAGS: u16 = 1 << 6;
/// `priority-tags=always`.
pub const PORT_PRIORITY_TAGS_ALWAYS: u16 = 1 << 7;
/// Open vSwitch treats frames without a tag as if they were tagged 0x8100 (access and native ports, not
/// trunks). This shows only in VLAN 0 under `priority-tags=always`.
pub const PORT_PVID_HAS_TPID: u16 = 1 << 8;
/// Drop-eligible frames are left to Open vSwitch: its userspace datapath clears the bit
/// (`netdev_linux_parse_vnet_hdr` and `eth_push_vlan`, OVS `lib/netdev-linux.c`), its kernel datapath keeps
/// it.
pub const PORT_LEAVES_DEI: u16 = 1 << 9;
/// The tc program can send frames to the device.
pub const PORT_TC_TARGET: u16 = 1 << 10;
/// An internal port: what is sent to it arrives in the host's stack, as if received by the device.
pub const PORT_INTERNAL: u16 = 1 << 11;
/// The tc program gets the frames that the XDP program on this port passes on.
pub const PORT_TC_FOLLOWS: u16 = 1 << 12;
/// The receiver behind the port accepts super-frames (GSO).
pub const PORT_ACCEPTS_GSO: u16 = 1 << 13;

/// A place for one station in a [`Bucket`]: 16 octets. `crate::table` defines the words.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Place {
    /// Which station it is.
    pub key: AtomicU64,
    /// Where the station is.
    pub entry: AtomicU64,
}

/// Places in a [`Bucket`].
pub const BUCKET_PLACES: u32 = 4;

/// Value of map `FDB`, an array that the agent maps into its memory: 64 octets, a line of the processor's
/// caches.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Bucket {
    /// Places for stations.
    pub places: [Place; BUCKET_PLACES as usize],
}

/// Value of map `FDB_HEADER`, an array of one that the agent maps into its memory: 64 octets.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct TableHeader {
    /// 1 while a station is being inserted, else 0.
    pub lock: AtomicU64,
    /// Stations inserted so far. Only the holder of the lock writes it.
    pub inserted: AtomicU64,
    /// Stations removed so far. Only the agent removes stations, and writes it.
    pub removed: AtomicU64,
    /// Zero.
    pub reserved: [u64; 5],
}

/// Value of map `FLOWS`, an array with as many sets for each CPU as the agent chooses, one CPU's after the
/// other's: 64 octets, which are a line of the processor's caches, as the map starts at a page. A set holds
/// two flows that were found in the same generation and second (`crate::flow`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub struct FlowSet {
    /// Low half of the generation of the tables in which the flows were found.
    pub generation: u32,
    /// Low half of the tick, by the programs' clock, at which the second ends in which they were found.
    pub until: u32,
    /// Addresses and type of each flow, and the TCI if the type is that of a tag: as received, in
    /// little-endian order.
    pub headers: [[u64; 2]; 2],
    /// Interface index of the device that the frames of each flow arrive on; the highest bit is set if the
    /// hook is tc. 0 in an empty place.
    pub devices: [u32; 2],
    /// What is done with the frames of each flow.
    pub actions: [CachedAction; 2],
}

/// What is done with the frames of a flow: 8 octets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct CachedAction {
    /// The port that they arrive on; the bits from [`ACTION_PORT_BITS`] on say what is checked in each of
    /// them.
    pub ingress: u16,
    /// The port that they leave through; the bits from [`ACTION_PORT_BITS`] on say how their tag is edited.
    pub egress: u16,
    /// Length of the longest frame that both ports take, as received, in octets.
    pub longest: u16,
    /// TCI of the tag that the edit writes. If it writes none, or one with VID 0, the VID is the frames'
    /// VLAN.
    pub tci: u16,
}

/// Bits of a port's number in a [`CachedAction`]. `crate::flow` defines the bits above.
pub const ACTION_PORT_BITS: u32 = 10;

/// Value of map `COUNTERS`, an array by CPU that the agent maps into its memory: the counters of one CPU, by
/// `PortNo`.
pub type CpuCounters = [Counters; MAX_PORTS as usize];

/// Counters of a port: 352 octets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Counters {
    /// Frames that arrived here and were forwarded by the programs.
    pub rx_frames: u64,
    /// Their octets as received.
    pub rx_bytes: u64,
    /// Frames that the programs sent out here.
    pub tx_frames: u64,
    /// Their octets as sent.
    pub tx_bytes: u64,
    /// Frames that arrived here and went up to Open vSwitch, by [`PuntReason::index`].
    pub punted: [u64; 32],
    /// Frames that arrived here and were dropped, by [`DropReason::index`].
    pub dropped: [u64; 8],
}

/// Value of map `TRACE`, an array of one: the question and the answer of `trunkline trace` (`crate::trace`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub struct Trace {
    /// In: the interface index on which the frame arrives.
    pub ifindex: u32,
    /// At the tc hook, in: the tag beside the frame as it arrives; out: as it leaves. TPID in the high half,
    /// TCI in the low one; 0 for none.
    pub beside: u32,
    /// Out: one of `TRACE_*`.
    pub kind: u16,
    /// Out: the egress port, or the index of the reason.
    pub detail: u16,
    /// Out: the VLAN of the frame, or [`NO_VID`] if it was not classified.
    pub vid: u16,
    /// Zero.
    pub reserved: u16,
    /// Out: the program's clock, in seconds.
    pub now_s: u32,
}

/// In [`Trace::kind`]: forwarded.
pub const TRACE_FORWARD: u16 = 1;
/// In [`Trace::kind`]: punted.
pub const TRACE_PUNT: u16 = 2;
/// In [`Trace::kind`]: dropped.
pub const TRACE_DROP: u16 = 3;

const _: () = {
    assert!(ABI_VERSION == 9 && matches!(ABI_SYMBOL.as_bytes(), b"TRUNKLINE_ABI_9"));
    assert!(size_of::<Slot>() == 8);
    assert!(size_of::<Bridge>() == 16 && size_of::<Renewal>() == 16 && size_of::<Show>() == 16);
    assert!(size_of::<Port>() == 1056);
    assert!(size_of::<Place>() == 16);
    assert!(size_of::<Bucket>() == 64 && size_of::<TableHeader>() == 64);
    assert!(size_of::<FlowSet>() == 64 && size_of::<CachedAction>() == 8);
    assert!(size_of::<Counters>() == 352);
    assert!(size_of::<Trace>() == 20);
    assert!(PuntReason::ALL.len() <= 32);
    assert!(DropReason::ALL.len() <= 8);
    // The words of a station have room for 7 bits of the bridge and 16 of the port.
    assert!(MAX_BRIDGES <= 1 << 7 && MAX_PORTS <= 1 << 16);
    assert!(MAX_PORTS <= 1 << ACTION_PORT_BITS);
};
