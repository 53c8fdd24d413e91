//! The flow cache: what was done with the last frame of the same flow.
//!
//! Where a frame goes depends on its [`FlowKey`] (device, hook, addresses and tag; the type is in it as
//! well), on the tables, and on the second. So the action is remembered under the key, with the tables'
//! generation and the end of the second. In that generation and until then it is what the tables would give:
//! a change of the configuration, a move and the passing of time take effect at once. What depends on the
//! rest of the frame (length, protocol, checksum) is checked in each frame.
//!
//! A key is made of the frame's octets as they are, before they are parsed, because finding an action is most
//! of the work that the program does for most frames.
//!
//! Each key belongs to one [`abi::FlowSet`], which is a line of the processor's caches and 2-way. Where two
//! other valid flows are, a flow replaces one of them only with some of its frames. So flows with many frames
//! remain, and where there are more flows than places, some of them do.
//!
//! A set has only the low halves of generation and second. Generations are times in nanoseconds, so the
//! halves of two generations of the same second differ. The agent starts another generation long before the
//! clock's low half comes round, so that no old set is taken for a valid one.
//!
//! Only [`crate::Verdict::Forward`] is remembered. Frames that are punted or dropped take the slow path.

use crate::{Hook, Tag, TagOp, Tpid, Vid, abi};

/// What decides, with the tables and the time, where a frame goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FlowKey {
    header: [u64; 2],
    /// The interface index and, in the highest bit (an index has 31), the hook: each hook can send to other
    /// ports.
    device: u32,
}

/// How long an action is valid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Validity {
    /// Generation of the tables.
    pub(crate) generation: u64,
    /// End of the second, in ticks of the clock.
    pub(crate) until: u64,
}

/// What is checked in each frame of a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Checks(u16);

/// Where the frames of a flow go, and what is checked in each of them: a [`abi::CachedAction`] that is not
/// encoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Found {
    pub(crate) ingress: u16,
    pub(crate) egress: u16,
    pub(crate) vid: Vid,
    pub(crate) tag: TagOp,
    /// Length of the longest frame that both ports take, in octets, with the header as received.
    pub(crate) longest: u32,
    pub(crate) checks: Checks,
}

impl Found {
    /// A value for the time before anything is found.
    pub(crate) const NOTHING: Self =
        Self { ingress: 0, egress: 0, vid: Vid::ZERO, tag: TagOp::Keep, longest: 0, checks: Checks(0) };
}

impl FlowKey {
    /// Returns the key of a frame with this header, which comes from [`crate::Start::split`].
    #[inline(always)]
    pub(crate) const fn new(header: [u64; 2], ifindex: u32, hook: Hook) -> Self {
        let at_tc = match hook {
            Hook::Xdp => 0,
            Hook::Tc => 1 << 31,
        };
        Self { header, device: ifindex | at_tc }
    }

    /// Returns the hash whose high bits give the set that the key belongs to.
    #[inline(always)]
    pub(crate) const fn hash(&self) -> u64 {
        // Multiplicative hashing (Knuth, TAOCP 6.4): the high bits of the product depend on all bits.
        // Addresses differ mostly in their last octets, which are at different places in the two words.
        const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
        let [first, second] = self.header;
        let mixed = first ^ second ^ self.device as u64;
        mixed.wrapping_mul(GOLDEN)
    }
}

impl Checks {
    const PARTIAL_CHECKSUMS: u16 = 1 << 0;
    const LEAVES_TCP: u16 = 1 << 1;

    /// Returns the checks: whether frames with an unfinished checksum are left to Open vSwitch, and whether
    /// TCP is left to the tc program, which gets it merged.
    #[inline(always)]
    pub(crate) const fn new(partial_checksums: bool, leaves_tcp: bool) -> Self {
        Self(
            if partial_checksums { Self::PARTIAL_CHECKSUMS } else { 0 }
                | if leaves_tcp { Self::LEAVES_TCP } else { 0 },
        )
    }

    #[inline(always)]
    pub(crate) const fn none(self) -> bool {
        self.0 == 0
    }

    #[inline(always)]
    pub(crate) const fn partial_checksums(self) -> bool {
        self.0 & Self::PARTIAL_CHECKSUMS != 0
    }

    #[inline(always)]
    pub(crate) const fn leaves_tcp(self) -> bool {
        self.0 & Self::LEAVES_TCP != 0
    }
}

// The edit: two bits say what is done, the others what is written. Most tags that are pushed are customer
// tags with a VID, which need none of the others.
const KEEP: u16 = 0;
const PUSH: u16 = 1;
const POP: u16 = 2;
const REPLACE: u16 = 3;
const WHAT: u16 = 3;
/// The tag is a service tag (802.1ad).
const SERVICE: u16 = 1 << 2;
/// The tag is a priority tag: its VID is 0.
const PRIORITY: u16 = 1 << 3;

const PORT: u16 = (1 << abi::ACTION_PORT_BITS) - 1;

impl abi::CachedAction {
    /// Encodes what was found.
    #[inline(always)]
    pub(crate) const fn new(found: &Found) -> Self {
        let (what, tag) = match found.tag {
            TagOp::Keep => (KEEP, None),
            TagOp::Push(tag) => (PUSH, Some(tag)),
            TagOp::Pop => (POP, None),
            TagOp::Replace(tag) => (REPLACE, Some(tag)),
        };
        let vid = found.vid.get();
        let (written, tci) = match tag {
            Some(tag) => {
                let tpid = match tag.tpid() {
                    Tpid::Dot1Q => 0,
                    Tpid::Dot1Ad => SERVICE,
                };
                match tag.vid().get() {
                    0 => (tpid | PRIORITY, tag.tci() | vid),
                    _ => (tpid, tag.tci()),
                }
            }
            None => (0, vid),
        };
        Self {
            ingress: found.ingress & PORT | found.checks.0 << abi::ACTION_PORT_BITS,
            egress: found.egress & PORT | (what | written) << abi::ACTION_PORT_BITS,
            // Longer frames are left to Open vSwitch.
            longest: if found.longest > u16::MAX as u32 { u16::MAX } else { found.longest as u16 },
            tci,
        }
    }

    #[inline(always)]
    pub(crate) const fn ingress(&self) -> u16 {
        self.ingress & PORT
    }

    #[inline(always)]
    pub(crate) const fn egress(&self) -> u16 {
        self.egress & PORT
    }

    /// Returns the frames' VLAN.
    #[inline(always)]
    pub(crate) const fn vid(&self) -> Vid {
        Vid::from_tci(self.tci)
    }

    /// Returns what is checked in each frame.
    #[inline(always)]
    pub(crate) const fn checks(&self) -> Checks {
        Checks(self.ingress >> abi::ACTION_PORT_BITS)
    }

    /// Returns the edit of the tag.
    #[inline(always)]
    pub(crate) const fn edit(&self) -> TagOp {
        let edit = self.egress >> abi::ACTION_PORT_BITS;
        match edit {
            KEEP => TagOp::Keep,
            PUSH => TagOp::Push(Tag::from_wire(Tpid::Dot1Q, self.tci)),
            POP => TagOp::Pop,
            _ if edit & WHAT == PUSH => TagOp::Push(self.tag(edit)),
            _ => TagOp::Replace(self.tag(edit)),
        }
    }

    #[inline(always)]
    const fn tag(&self, edit: u16) -> Tag {
        let tpid = if edit & SERVICE == 0 { Tpid::Dot1Q } else { Tpid::Dot1Ad };
        let tci = if edit & PRIORITY == 0 { self.tci } else { self.tci & !0xfff };
        Tag::from_wire(tpid, tci)
    }
}

impl abi::FlowSet {
    /// More ticks than a second has: the clock counts at most 1,000.
    const SECOND: u32 = 1024;
    /// Of the frames whose flow is not in a full set, one in this many replaces another flow.
    const GIVES_WAY: u32 = 8;

    /// Returns the action for this key, if it is here and valid in this generation and at this tick.
    #[inline(always)]
    pub(crate) fn find(&self, key: &FlowKey, generation: u64, ticks: u64) -> Option<&abi::CachedAction> {
        if !self.is_valid(generation, ticks) {
            return None;
        }
        if self.has(0, key) {
            return Some(&self.actions[0]);
        }
        if self.has(1, key) { Some(&self.actions[1]) } else { None }
    }

    /// Inserts the action for a key that is not here. If two other flows are, a random number decides whether
    /// one of them is replaced, and which.
    #[inline(always)]
    pub(crate) fn insert(
        &mut self,
        key: &FlowKey,
        validity: Validity,
        ticks: u64,
        action: abi::CachedAction,
        random: impl FnOnce() -> u32,
    ) {
        if !self.is_valid(validity.generation, ticks) {
            (self.generation, self.until) = (validity.generation as u32, validity.until as u32);
            self.devices[1] = 0;
            self.put(0, key, action);
        } else if self.devices[1] == 0 {
            self.put(1, key, action);
        } else {
            let random = random();
            if random.is_multiple_of(Self::GIVES_WAY) {
                self.put(((random / Self::GIVES_WAY) & 1) as usize, key, action);
            }
        }
    }

    #[inline(always)]
    const fn is_valid(&self, generation: u64, ticks: u64) -> bool {
        self.generation == generation as u32
            && self.until.wrapping_sub(ticks as u32).wrapping_sub(1) < Self::SECOND
    }

    #[inline(always)]
    fn has(&self, place: usize, key: &FlowKey) -> bool {
        self.headers[place] == key.header && self.devices[place] == key.device
    }

    #[inline(always)]
    fn put(&mut self, place: usize, key: &FlowKey, action: abi::CachedAction) {
        self.headers[place] = key.header;
        self.devices[place] = key.device;
        self.actions[place] = action;
    }
}

#[cfg(test)]
mod tests;
