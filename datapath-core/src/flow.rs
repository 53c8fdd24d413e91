//! The flow cache: what became of the last frame of the same form.
//!
//! Where a frame goes depends on the device and the hook it came from, its addresses and its tag (its [`Form`], which has its
//! type too), on the tables, and on the second. So a verdict is remembered under its form, with the tables' generation and the
//! end of the second, and is as good as a new one in that generation until then: a change of the configuration, a move and the
//! passing of time show at once. What also depends on the rest of the frame, its length, protocol and checksum, is looked at
//! each time.
//!
//! A form is made of the frame's octets as they are, before they are parsed: finding a verdict is most of what the program
//! does to most frames.
//!
//! Each form has one place. Where another's valid verdict is, it takes the place now and then only: so the verdicts of forms
//! with many frames remain, and of more forms than there are places some do.
//!
//! Only [`Verdict::Forward`] is remembered; whatever concerns Open vSwitch or is dropped takes the long way.

use crate::{Hook, Tag, TagOp, Vid, abi};

/// What decides where a frame goes, but for the tables and the time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Form {
    start: [u64; 2],
    /// The interface index, and in its highest bit (indices have 31) the hook: what can be reached is another matter at each.
    device: u32,
}

/// How long a verdict is valid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Validity {
    /// Generation of the tables.
    pub(crate) generation: u64,
    /// In ticks of the clock.
    pub(crate) until: u64,
}

/// What is looked for in each frame of a form.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Checks(u32);

/// Where frames of a form go, and what such a frame must be like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Route {
    pub(crate) ingress: u16,
    pub(crate) egress: u16,
    pub(crate) vid: Vid,
    pub(crate) tag: TagOp,
    /// Length that the egress device takes, in octets, received header included.
    pub(crate) longest: u32,
    pub(crate) checks: Checks,
}

impl Route {
    /// Nowhere.
    pub(crate) const NONE: Self =
        Self { ingress: 0, egress: 0, vid: Vid::ZERO, tag: TagOp::Keep, longest: 0, checks: Checks(0) };
}

impl Form {
    /// Of a frame with this header, as [`crate::Start::split`] has it.
    #[inline(always)]
    pub(crate) const fn new(header: [u64; 2], ifindex: u32, hook: Hook) -> Self {
        let at_tc = match hook {
            Hook::Xdp => 0,
            Hook::Tc => 1 << 31,
        };
        Self { start: header, device: ifindex | at_tc }
    }

    /// What the one place in the cache where the form may be is found by.
    #[inline(always)]
    pub(crate) const fn hash(&self) -> u64 {
        // Multiplicative hashing (Knuth, TAOCP 6.4): the product's high bits depend on all bits. Addresses differ in their
        // last octets, which are in different places of the two words.
        const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
        let [first, second] = self.start;
        let mixed = first ^ second ^ self.device as u64;
        mixed.wrapping_mul(GOLDEN)
    }
}

impl Checks {
    const PARTIAL_CHECKSUMS: u32 = 1 << 0;
    const LEAVES_TCP: u32 = 1 << 1;

    /// Whether a frame with an unfinished checksum is left to Open vSwitch, and whether TCP is left to the tc program, which
    /// gets it merged.
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

const KEEP: u16 = 0;
const PUSH: u16 = 1;
const POP: u16 = 2;
const REPLACE: u16 = 3;

impl abi::Flow {
    /// To be remembered.
    #[inline(always)]
    pub(crate) const fn new(form: &Form, validity: Validity, route: &Route) -> Self {
        let (edit, tag) = match route.tag {
            TagOp::Keep => (KEEP, 0),
            TagOp::Push(tag) => (PUSH, tag.to_word()),
            TagOp::Pop => (POP, 0),
            TagOp::Replace(tag) => (REPLACE, tag.to_word()),
        };
        Self {
            start: form.start,
            generation: validity.generation,
            until: validity.until,
            device: form.device,
            longest: route.longest,
            ingress: route.ingress,
            egress: route.egress,
            vid: route.vid.get(),
            edit,
            tag,
            checks: route.checks.0,
            reserved: 0,
        }
    }

    /// Whether it is of this form, and valid in this generation and at this tick.
    #[inline(always)]
    pub(crate) const fn is_of(&self, form: &Form, generation: u64, ticks: u64) -> bool {
        self.start[0] == form.start[0]
            && self.start[1] == form.start[1]
            && self.device == form.device
            && self.is_valid(generation, ticks)
    }

    #[inline(always)]
    pub(crate) const fn is_valid(&self, generation: u64, ticks: u64) -> bool {
        self.generation == generation && ticks < self.until
    }

    /// What a frame has to be looked at for.
    #[inline(always)]
    pub(crate) const fn checks(&self) -> Checks {
        Checks(self.checks)
    }

    /// The edit that its tag needs.
    #[inline(always)]
    pub(crate) const fn edit(&self) -> TagOp {
        match (self.edit, Tag::from_word(self.tag)) {
            (PUSH, Some(tag)) => TagOp::Push(tag),
            (REPLACE, Some(tag)) => TagOp::Replace(tag),
            (POP, _) => TagOp::Pop,
            _ => TagOp::Keep,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Mac, Pcp, Start, Tpid};

    const A: Mac = Mac::new([2, 0, 0, 0, 0, 1]);
    const B: Mac = Mac::new([2, 0, 0, 0, 0, 2]);

    /// A frame's start, with `rest` after its addresses.
    fn start(dst: Mac, src: Mac, rest: [u8; 6]) -> Start {
        let octets = [&dst.octets()[..], &src.octets(), &rest].concat();
        Start::read(octets.first_chunk().unwrap())
    }

    fn form(rest: [u8; 6], ifindex: u32) -> Form {
        form_of(start(A, B, rest), ifindex, Hook::Xdp)
    }

    fn form_of(start: Start, ifindex: u32, hook: Hook) -> Form {
        Form::new(start.split().0, ifindex, hook)
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
            form_of(start(A, B, UNTAGGED), 7, Hook::Tc),
            form_of(start(B, A, UNTAGGED), 7, Hook::Xdp),
        ];
        for (place, a) in forms.iter().enumerate() {
            assert!(forms[place + 1..].iter().all(|b| a != b), "{a:?}");
        }
        for stacked in [[0x81, 0, 0, 1, 0x88, 0xa8], [0x88, 0xa8, 0, 1, 0x81, 0]] {
            assert!(start(A, B, stacked).split().1.is_none());
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
                let form = form_of(start(dst, src, rest), 7, Hook::Xdp);
                places.insert(form.hash() >> (64 - 14));
            }
            assert!(places.len() > 230, "{}", places.len());
        }
    }

    #[test]
    fn a_flow_is_remembered_for_its_form_and_as_long_as_it_is_valid() {
        let tag = Tag::new(Tpid::Dot1Ad, Pcp::new(5).unwrap(), Vid::new(100).unwrap());
        let (vid, longest) = (Vid::new(4095).unwrap(), 9018);
        for tag in [TagOp::Keep, TagOp::Push(tag), TagOp::Pop, TagOp::Replace(tag)] {
            for (partial_checksums, leaves_tcp) in
                [(false, false), (true, false), (false, true), (true, true)]
            {
                let checks = Checks::new(partial_checksums, leaves_tcp);
                assert_eq!(
                    (checks.partial_checksums(), checks.leaves_tcp()),
                    (partial_checksums, leaves_tcp)
                );
                let route = Route { ingress: 3, egress: 1023, vid, tag, longest, checks };
                let this = form(UNTAGGED, 7);
                let flow = abi::Flow::new(&this, Validity { generation: 9, until: 1000 }, &route);
                assert_eq!((flow.edit(), flow.checks()), (tag, checks));
                assert!(flow.is_of(&this, 9, 999) && !flow.is_of(&form(UNTAGGED, 8), 9, 999));
                for (generation, ticks) in [(9, 1000), (8, 999), (10, 999)] {
                    assert!(!flow.is_of(&this, generation, ticks));
                }
            }
        }
    }
}
