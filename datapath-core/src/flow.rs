//! The flow cache: what became of the last frame of the same form.
//!
//! Where a frame goes depends on the device and the hook it came from, its addresses and its tag (its [`Form`], which has its
//! type too), on the tables, and on the second. So a verdict is remembered under its form, with a stamp of the tables'
//! generation and the second, and is as good as a new one while both are the same: a change of the configuration, a move and
//! the passing of time show at once. What also depends on the rest of the frame, its length, protocol and checksum, is looked
//! at each time.
//!
//! A form is made of the frame's octets as they are, before they are parsed: finding a verdict is most of what the program
//! does to most frames.
//!
//! Only [`Verdict::Forward`] is remembered; whatever concerns Open vSwitch or is dropped takes the long way.

use crate::{Hook, Start, Tag, TagOp, Vid, abi};

/// What decides where a frame goes, but for the tables and the time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Form {
    start: [u64; 2],
    /// The interface index, and in its highest bit (indices have 31) the hook: what can be reached is another matter at each.
    device: u32,
}

/// When a verdict was found: it is valid at no other time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stamp(u64);

/// A remembered verdict, and what a frame must be like for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Flow {
    pub(crate) ingress: u16,
    pub(crate) egress: u16,
    pub(crate) vid: Vid,
    pub(crate) tag: TagOp,
    /// Length that the egress device takes, in octets, received header included.
    pub(crate) longest: u32,
    /// Whether the frame has a tag as received.
    pub(crate) tagged: bool,
    /// Whether a frame with an unfinished checksum is left to Open vSwitch.
    pub(crate) partial_checksums: bool,
    /// Whether TCP is left to the tc program, which gets it merged.
    pub(crate) leaves_tcp: bool,
}

impl Form {
    /// The form of a frame, unless it is of no interest to the cache.
    #[inline(always)]
    pub(crate) const fn new(start: &Start, ifindex: u32, hook: Hook) -> Option<Self> {
        let [first, second] = start.words;
        let tagged = announces_tag((second >> 32) as u16);
        if !start.complete || tagged && announces_tag(start.inner) {
            return None;
        }
        // Behind another type, the last two octets are payload.
        let second = if tagged { second } else { second & 0xffff_ffff_ffff };
        let at_tc = match hook {
            Hook::Xdp => 0,
            Hook::Tc => 1 << 31,
        };
        Some(Self { start: [first, second], device: ifindex | at_tc })
    }

    /// The one place in the cache where the form may be.
    #[inline(always)]
    pub(crate) const fn place(&self) -> u32 {
        // Multiplicative hashing (Knuth, TAOCP 6.4): the product's high bits depend on all bits. Addresses differ in their
        // last octets, which the rotation keeps from meeting.
        const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
        let [first, second] = self.start;
        let mixed = first ^ second.rotate_left(40) ^ self.device as u64;
        let product = mixed.wrapping_mul(GOLDEN);
        ((product ^ product << 27) >> (64 - abi::FLOW_PLACES.trailing_zeros())) as u32
    }
}

/// Whether these two octets, in little-endian order, are a TPID.
#[inline(always)]
const fn announces_tag(octets: u16) -> bool {
    const CUSTOMER: u16 = u16::from_le_bytes([0x81, 0x00]);
    const SERVICE: u16 = u16::from_le_bytes([0x88, 0xa8]);
    octets == CUSTOMER || octets == SERVICE
}

impl Stamp {
    /// For what is read from the tables after their generation.
    #[inline(always)]
    pub(crate) const fn new(generation: u32, now_s: u32) -> Self {
        Self((generation as u64) << 32 | now_s as u64)
    }
}

const KEEP: u16 = 0;
const PUSH: u16 = 1;
const POP: u16 = 2;
const REPLACE: u16 = 3;

const PARTIAL_CHECKSUMS: u32 = 1 << 0;
const LEAVES_TCP: u32 = 1 << 1;
const TAGGED: u32 = 1 << 2;

impl Flow {
    /// To be remembered.
    #[inline(always)]
    pub(crate) const fn to_abi(self, form: &Form, stamp: Stamp) -> abi::Flow {
        let (edit, tag) = match self.tag {
            TagOp::Keep => (KEEP, 0),
            TagOp::Push(tag) => (PUSH, tag.to_word()),
            TagOp::Pop => (POP, 0),
            TagOp::Replace(tag) => (REPLACE, tag.to_word()),
        };
        abi::Flow {
            start: form.start,
            stamp: stamp.0,
            device: form.device,
            longest: self.longest,
            ingress: self.ingress,
            egress: self.egress,
            vid: self.vid.get(),
            edit,
            tag,
            flags: if self.partial_checksums { PARTIAL_CHECKSUMS } else { 0 }
                | if self.leaves_tcp { LEAVES_TCP } else { 0 }
                | if self.tagged { TAGGED } else { 0 },
        }
    }

    /// What is remembered, if it is of this form and still valid.
    #[inline(always)]
    pub(crate) const fn from_abi(flow: &abi::Flow, form: &Form, stamp: Stamp) -> Option<Self> {
        if flow.start[0] != form.start[0]
            || flow.start[1] != form.start[1]
            || flow.device != form.device
            || flow.stamp != stamp.0
        {
            return None;
        }
        let tag = match flow.edit {
            KEEP => TagOp::Keep,
            PUSH => TagOp::Push(Tag::from_word(flow.tag)),
            POP => TagOp::Pop,
            _ => TagOp::Replace(Tag::from_word(flow.tag)),
        };
        Some(Self {
            ingress: flow.ingress,
            egress: flow.egress,
            vid: Vid::from_tci(flow.vid),
            tag,
            longest: flow.longest,
            tagged: flow.flags & TAGGED != 0,
            partial_checksums: flow.flags & PARTIAL_CHECKSUMS != 0,
            leaves_tcp: flow.flags & LEAVES_TCP != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Mac, Pcp, Tpid};

    const A: Mac = Mac::new([2, 0, 0, 0, 0, 1]);
    const B: Mac = Mac::new([2, 0, 0, 0, 0, 2]);

    /// A frame's start, with `rest` after its addresses.
    fn start(dst: Mac, src: Mac, rest: [u8; 6]) -> Start {
        let octets = [&dst.octets()[..], &src.octets(), &rest].concat();
        Start::read(octets.first_chunk().unwrap())
    }

    fn form(rest: [u8; 6], ifindex: u32) -> Form {
        Form::new(&start(A, B, rest), ifindex, Hook::Xdp).expect("of interest")
    }

    const UNTAGGED: [u8; 6] = [8, 0, 0x45, 0, 0x81, 0];

    fn tagged(tpid: [u8; 2], tci: u16) -> [u8; 6] {
        let [high, low] = tci.to_be_bytes();
        [tpid[0], tpid[1], high, low, 8, 0]
    }

    #[test]
    fn each_tag_hook_and_device_is_a_form_of_its_own() {
        let (customer, service) = ([0x81, 0], [0x88, 0xa8]);
        let forms = [
            form(UNTAGGED, 7),
            form(UNTAGGED, 8),
            form(tagged(customer, 0), 7),
            form(tagged(service, 0), 7),
            form(tagged(customer, 0x1000), 7),
            form(tagged(customer, 0x200a), 7),
            form(tagged(customer, 0xffff), 7),
            Form::new(&start(A, B, UNTAGGED), 7, Hook::Tc).expect("of interest"),
            Form::new(&start(B, A, UNTAGGED), 7, Hook::Xdp).expect("of interest"),
        ];
        for (place, a) in forms.iter().enumerate() {
            assert!(forms[place + 1..].iter().all(|b| a != b), "{a:?}");
        }
        for stacked in [[0x81, 0, 0, 1, 0x88, 0xa8], [0x88, 0xa8, 0, 1, 0x81, 0]] {
            assert_eq!(Form::new(&start(A, B, stacked), 7, Hook::Tc), None);
        }
    }

    #[test]
    fn payload_is_not_part_of_a_form() {
        assert_eq!(form([8, 0, 0x45, 0, 0, 84], 7), form([8, 0, 0x45, 0xb8, 0x81, 0], 7));
        assert_eq!(form([0x81, 0, 0, 9, 8, 0], 7), form([0x81, 0, 0, 9, 0x86, 0xdd], 7));
    }

    #[test]
    fn neighbouring_addresses_have_places_of_their_own() {
        type Pair = fn(Mac) -> [Mac; 2];
        let pairs: [Pair; 3] = [|mac| [mac, A], |mac| [A, mac], |mac| [mac, mac]];
        for (rest, pair) in pairs.iter().flat_map(|pair| [(UNTAGGED, pair), (tagged([0x81, 0], 9), pair)]) {
            let mut places = std::collections::BTreeSet::new();
            for low in 0..256_u32 {
                let [.., a, b] = low.to_be_bytes();
                let [dst, src] = pair(Mac::new([2, 0, 0, 0, a, b]));
                let form = Form::new(&start(dst, src, rest), 7, Hook::Xdp).expect("of interest");
                assert!(form.place() < abi::FLOW_PLACES);
                places.insert(form.place());
            }
            assert!(places.len() > 230, "{}", places.len());
        }
    }

    #[test]
    fn a_flow_is_remembered_for_its_form_and_stamp_only() {
        let tag = Tag::new(Tpid::Dot1Ad, Pcp::new(5).unwrap(), Vid::new(100).unwrap());
        let (vid, longest) = (Vid::new(4095).unwrap(), 9018);
        for tag in [TagOp::Keep, TagOp::Push(tag), TagOp::Pop, TagOp::Replace(tag)] {
            for flags in 0..8_u8 {
                let [partial_checksums, leaves_tcp, tagged] = [1, 2, 4].map(|bit| flags & bit != 0);
                let flow = Flow {
                    ingress: 3,
                    egress: 1023,
                    vid,
                    tag,
                    longest,
                    tagged,
                    partial_checksums,
                    leaves_tcp,
                };
                let (this, stamp) = (form(UNTAGGED, 7), Stamp::new(9, 1000));
                let remembered = flow.to_abi(&this, stamp);
                assert_eq!(Flow::from_abi(&remembered, &this, stamp), Some(flow));
                assert_eq!(Flow::from_abi(&remembered, &form(UNTAGGED, 8), stamp), None);
                for other in [Stamp::new(9, 1001), Stamp::new(8, 1000)] {
                    assert_eq!(Flow::from_abi(&remembered, &this, other), None);
                }
            }
        }
    }
}
