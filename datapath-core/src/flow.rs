//! The flow cache: what became of the last frame of the same form.
//!
//! Where a frame goes depends on the device and the hook it came from, its addresses and its tag (its [`Form`]), on the tables, and on
//! the second. So a verdict is remembered under its form, with a stamp of the tables' generation and the second, and is
//! as good as a new one while both are the same: a change of the configuration, a move and the passing of time show at
//! once. What also depends on the rest of the frame, its length, protocol and checksum, is looked at each time.
//!
//! Only [`Verdict::Forward`] is remembered; whatever concerns Open vSwitch or is dropped takes the long way.

use crate::{Header, Hook, Tag, TagOp, Tagging, Tpid, Vid, abi};

/// What decides where a frame goes, but for the tables and the time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Form {
    ifindex: u32,
    addresses: [u64; 2],
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
    /// The egress device's, in octets.
    pub(crate) mtu: u32,
    /// Whether a frame with an unfinished checksum is left to Open vSwitch.
    pub(crate) partial_checksums: bool,
    /// Whether TCP is left to the tc program, which gets it merged.
    pub(crate) leaves_tcp: bool,
}

impl Form {
    /// The form of a frame, unless it is of no interest to the cache.
    #[inline(always)]
    pub(crate) const fn new(header: &Header, ifindex: u32, hook: Hook) -> Option<Self> {
        let (kind, tci) = match header.tagging {
            Tagging::Untagged => (0, 0),
            Tagging::Single(tag) => match tag.tpid() {
                Tpid::Dot1Q => (1, tag.tci()),
                Tpid::Dot1Ad => (2, tag.tci()),
            },
            Tagging::Stacked => return None,
        };
        // What can be reached is another matter at each hook.
        let kind = match hook {
            Hook::Xdp => kind,
            Hook::Tc => kind | 4,
        };
        // An address has 48 bits; the tag goes above them.
        let addresses = [(tci as u64) << 48 | header.dst.as_u64(), kind << 48 | header.src.as_u64()];
        Some(Self { ifindex, addresses })
    }

    /// The one place in the cache where the form may be.
    #[inline(always)]
    pub(crate) const fn place(&self) -> u32 {
        // Multiplicative hashing (Knuth, TAOCP 6.4): addresses differ in their low bits, and the product's high bits
        // depend on all of them.
        const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
        let [dst, src] = self.addresses;
        let mixed = dst ^ src.rotate_left(23) ^ (self.ifindex as u64) << 32;
        (mixed.wrapping_mul(GOLDEN) >> (64 - abi::FLOW_PLACES.trailing_zeros())) as u32
    }
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
            addresses: form.addresses,
            stamp: stamp.0,
            ifindex: form.ifindex,
            mtu: self.mtu,
            ingress: self.ingress,
            egress: self.egress,
            vid: self.vid.get(),
            edit,
            tag,
            partial_checksums: self.partial_checksums as u16,
            leaves_tcp: self.leaves_tcp as u16,
        }
    }

    /// What is remembered, if it is of this form and still valid.
    #[inline(always)]
    pub(crate) const fn from_abi(flow: &abi::Flow, form: &Form, stamp: Stamp) -> Option<Self> {
        if flow.addresses[0] != form.addresses[0]
            || flow.addresses[1] != form.addresses[1]
            || flow.ifindex != form.ifindex
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
            mtu: flow.mtu,
            partial_checksums: flow.partial_checksums != 0,
            leaves_tcp: flow.leaves_tcp != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Mac, Pcp};

    fn header(tagging: Tagging) -> Header {
        Header { dst: Mac::new([2, 0, 0, 0, 0, 1]), src: Mac::new([2, 0, 0, 0, 0, 2]), tagging }
    }

    fn form(tagging: Tagging, ifindex: u32) -> Form {
        Form::new(&header(tagging), ifindex, Hook::Xdp).expect("of interest")
    }

    fn tagged(tpid: Tpid, tci: u16) -> Tagging {
        Tagging::Single(Tag::from_wire(tpid, tci))
    }

    #[test]
    fn each_tag_and_device_is_a_form_of_its_own() {
        let forms = [
            form(Tagging::Untagged, 7),
            form(Tagging::Untagged, 8),
            form(tagged(Tpid::Dot1Q, 0), 7),
            form(tagged(Tpid::Dot1Ad, 0), 7),
            form(tagged(Tpid::Dot1Q, 0x1000), 7),
            form(tagged(Tpid::Dot1Q, 0x200a), 7),
            form(tagged(Tpid::Dot1Q, 0xffff), 7),
            Form::new(&header(Tagging::Untagged), 7, Hook::Tc).expect("of interest"),
        ];
        for (place, a) in forms.iter().enumerate() {
            assert!(forms[place + 1..].iter().all(|b| a != b), "{a:?}");
        }
        assert_eq!(Form::new(&header(Tagging::Stacked), 7, Hook::Tc), None);
    }

    #[test]
    fn neighbouring_addresses_have_places_of_their_own() {
        let mut places = std::collections::BTreeSet::new();
        for low in 0..256_u32 {
            let [.., a, b] = low.to_be_bytes();
            let src = Mac::new([2, 0, 0, 0, a, b]);
            let form =
                Form::new(&Header { src, ..header(Tagging::Untagged) }, 7, Hook::Xdp).expect("of interest");
            assert!(form.place() < abi::FLOW_PLACES);
            places.insert(form.place());
        }
        assert!(places.len() > 230, "{}", places.len());
    }

    #[test]
    fn a_flow_is_remembered_for_its_form_and_stamp_only() {
        let tag = Tag::new(Tpid::Dot1Ad, Pcp::new(5).unwrap(), Vid::new(100).unwrap());
        for tag in [TagOp::Keep, TagOp::Push(tag), TagOp::Pop, TagOp::Replace(tag)] {
            for partial_checksums in [false, true] {
                let (vid, leaves_tcp) = (Vid::new(4095).unwrap(), !partial_checksums);
                let flow =
                    Flow { ingress: 3, egress: 1023, vid, tag, mtu: 9000, partial_checksums, leaves_tcp };
                let (this, stamp) = (form(Tagging::Untagged, 7), Stamp::new(9, 1000));
                let remembered = flow.to_abi(&this, stamp);
                assert_eq!(Flow::from_abi(&remembered, &this, stamp), Some(flow));
                assert_eq!(Flow::from_abi(&remembered, &form(Tagging::Untagged, 8), stamp), None);
                for other in [Stamp::new(9, 1001), Stamp::new(8, 1000)] {
                    assert_eq!(Flow::from_abi(&remembered, &this, other), None);
                }
            }
        }
    }
}
