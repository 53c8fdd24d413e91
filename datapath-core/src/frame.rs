//! What the switch reads of a frame: both addresses and at most one tag, from a window of fixed length.

use crate::{Mac, Tag};

/// Octets of a frame that [`Header::parse`] looks at: two addresses, a tag and the type after it.
pub const HEADER_LEN: usize = 18;

/// Octets of the shortest frame that the switch judges. The kernel frees a shorter one with a tag before
/// anybody sees it (`skb_vlan_untag`, net/core/skbuff.c), and no frame without a tag is so short on a wire.
pub const SHORTEST: usize = 20;

/// Octets of a header without a tag.
pub const PLAIN_LEN: usize = 14;

/// A frame as the switch sees it. The length of a window is known at compile time, because the verifier
/// accepts a bounds check against a constant, but not against a value.
pub trait Frame {
    /// Returns the length in octets, from the destination address to the last octet before the FCS.
    ///
    /// Not a `u32`: the verifier refuses a subtraction of pointers into a frame in 32 bits.
    fn len(&self) -> usize;

    /// Returns whether the frame has no octets.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the `N` octets from `offset` on, if the frame has them. A tag beside the frame is not among
    /// them.
    fn window<const N: usize>(&self, offset: usize) -> Option<&[u8; N]>;

    /// Returns four words of the 28 octets from `offset` on, if the frame has them: eight octets each from
    /// the offsets 0, 4, 12 and 20 on, in little-endian order. These offsets suit an IPv4 header.
    #[inline(always)]
    fn words(&self, offset: usize) -> Option<[u64; 4]> {
        let octets = self.window::<28>(offset)?;
        let word = |start: usize| octets[start..].first_chunk().map(|word| u64::from_le_bytes(*word));
        Some([word(0)?, word(4)?, word(12)?, word(20)?])
    }

    /// Returns the start of the frame; [`Start::NONE`] if the frame is too short. A tag that the kernel keeps
    /// beside the frame is put where it would be in the frame.
    #[inline(always)]
    fn start(&self) -> Start {
        self.window::<SHORTEST>(0).and_then(|octets| octets.first_chunk()).map_or(Start::NONE, Start::read)
    }

    /// Returns whether a device takes the frame that takes none longer than this. A super-frame always fits,
    /// because it is segmented before it is sent.
    #[inline(always)]
    fn fits(&self, longest: usize) -> bool {
        self.len() <= longest
    }
}

/// The first octets of a frame in as few words as possible: what a [`Header`] is parsed from.
///
/// It represents a frame that is too short as well: for an `Option`, the compiler would carry along parts
/// that were never written, which the verifier refuses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Start {
    /// Octets 0 to 15 in little-endian order: addresses, type and, behind the type of a tag, its TCI.
    pub(crate) words: [u64; 2],
    /// Octets 16 and 17 in little-endian order: the type behind a tag.
    pub(crate) inner: u16,
    /// Whether the frame is long enough.
    pub(crate) complete: bool,
}

impl Start {
    /// The start of a frame that is too short.
    pub const NONE: Self = Self { words: [0; 2], inner: 0, complete: false };

    /// Returns the start with octets 0 to 7, 8 to 15 and 16 to 17, each in little-endian order.
    #[inline(always)]
    pub const fn new(words: [u64; 2], inner: u16) -> Self {
        Self { words, inner, complete: true }
    }

    /// Returns the start of a frame whose tag, if it has one, is in the frame.
    #[inline(always)]
    pub const fn read(octets: &[u8; HEADER_LEN]) -> Self {
        let [a0, a1, a2, a3, a4, a5, a6, a7, b0, b1, b2, b3, b4, b5, b6, b7, u0, u1] = *octets;
        let first = u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]);
        let second = u64::from_le_bytes([b0, b1, b2, b3, b4, b5, b6, b7]);
        Self::new([first, second], u16::from_le_bytes([u0, u1]))
    }

    /// Returns the start of a frame whose tag is beside it: from octets 0 to 7, 8 to 11 and 12 to 13, in
    /// little-endian order.
    #[inline(always)]
    pub const fn with_tag(first: u64, second: u32, ethertype: u16, tag: Tag) -> Self {
        Self::new([first, second as u64 | (u32::from_le_bytes(tag.to_bytes()) as u64) << 32], ethertype)
    }

    /// Splits the start into the header (addresses, then tag or type) and what the frame carries, if
    /// anything.
    #[inline(always)]
    pub(crate) const fn split(&self) -> ([u64; 2], Payload) {
        let [first, second] = self.words;
        let outer = (second >> 32) as u16;
        if self.complete && !announces_tag(outer) {
            let payload = Payload { ethertype: outer, offset: PLAIN_LEN };
            return ([first, second & 0xffff_ffff_ffff], payload);
        }
        let whole = self.complete && !announces_tag(self.inner);
        (self.words, Payload { ethertype: self.inner, offset: if whole { HEADER_LEN } else { 0 } })
    }

    /// Parses the header.
    #[inline(always)]
    pub const fn parse(self) -> Header {
        let [a0, a1, a2, a3, a4, a5, a6, a7] = self.words[0].to_le_bytes();
        let [b0, b1, b2, b3, t0, t1, c0, c1] = self.words[1].to_le_bytes();
        let tagged = announces_tag(u16::from_le_bytes([t0, t1]));
        let stacked = tagged && announces_tag(self.inner);
        let tag = Tag::from_word(if tagged && !stacked { u32::from_be_bytes([t0, t1, c0, c1]) } else { 0 });
        let (dst, src) = (Mac::new([a0, a1, a2, a3, a4, a5]), Mac::new([a6, a7, b0, b1, b2, b3]));
        Header { dst, src, tag, stacked }
    }
}

/// What a frame carries behind its header, which has at most one tag.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Payload {
    /// The type, its octets in little-endian order.
    pub(crate) ethertype: u16,
    /// Where it begins, in octets; 0 if there is none.
    pub(crate) offset: usize,
}

impl Payload {
    /// Returns whether there is none: the frame is too short, or has two tags.
    ///
    /// It is not an `Option`, for which compilers may carry along a register that was never written, which
    /// verifiers refuse.
    #[inline(always)]
    pub(crate) const fn is_none(&self) -> bool {
        self.offset == 0
    }

    /// Returns the payload of a frame, unless the frame is too short or has two tags.
    #[must_use]
    pub fn of<F: Frame + ?Sized>(frame: &F) -> Option<Self> {
        let (_, payload) = frame.start().split();
        (!payload.is_none()).then_some(payload)
    }
}

/// Returns whether these two octets, in little-endian order, are a TPID.
#[inline(always)]
const fn announces_tag(octets: u16) -> bool {
    const CUSTOMER: u16 = u16::from_le_bytes([0x81, 0x00]);
    const SERVICE: u16 = u16::from_le_bytes([0x88, 0xa8]);
    octets == CUSTOMER || octets == SERVICE
}

/// Where a program gets frames, which decides how it can send them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hook {
    /// In the driver, where the octets of a frame are all that is known of it.
    Xdp,
    /// At tc, with all that the kernel knows of a frame: segments, a checksum that is not filled in yet, a
    /// tag beside it.
    Tc,
}

impl Frame for [u8] {
    fn len(&self) -> usize {
        <[u8]>::len(self)
    }

    fn window<const N: usize>(&self, offset: usize) -> Option<&[u8; N]> {
        self.get(offset..)?.first_chunk()
    }
}

/// The part of a frame that decides where it goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Destination address.
    pub dst: Mac,
    /// Source address.
    pub src: Mac,
    /// The tag, if there is exactly one.
    pub tag: Option<Tag>,
    /// Whether there are two tags or more.
    pub stacked: bool,
}

impl Header {
    /// Reads a header (IEEE 802.3 clause 3.2, 802.1Q clause 9).
    #[inline(always)]
    pub const fn parse(octets: &[u8; HEADER_LEN]) -> Self {
        Start::read(octets).parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tpid;

    const MACS: [u8; 12] = [2, 0, 0, 0, 0, 0xd, 2, 0, 0, 0, 0, 0x5];

    fn parse(rest: [u8; 6]) -> Header {
        let mut octets = [0; HEADER_LEN];
        octets[..12].copy_from_slice(&MACS);
        octets[12..].copy_from_slice(&rest);
        Header::parse(&octets)
    }

    #[test]
    fn untagged() {
        let header = parse([0x08, 0x00, 0x45, 0, 0x81, 0x00]);
        assert_eq!((header.tag, header.stacked), (None, false));
        assert_eq!(header.dst, Mac::new([2, 0, 0, 0, 0, 0xd]));
        assert_eq!(header.src, Mac::new([2, 0, 0, 0, 0, 0x5]));
    }

    #[test]
    fn one_tag_of_either_type() {
        for (bytes, tpid) in [([0x81, 0x00], Tpid::Dot1Q), ([0x88, 0xa8], Tpid::Dot1Ad)] {
            let header = parse([bytes[0], bytes[1], 0x70, 0x64, 0x08, 0x00]);
            assert_eq!((header.tag, header.stacked), (Some(Tag::from_wire(tpid, 0x7064)), false));
        }
    }

    #[test]
    fn a_tag_beside_the_frame_is_as_good_as_one_in_it() {
        let tag = Tag::from_wire(Tpid::Dot1Ad, 0x7064);
        let within = [&MACS[..], &tag.to_bytes(), &[0x08, 0x06]].concat();
        let beside = [&MACS[..], &[0x08, 0x06]].concat();
        let (first, second) = (beside[..8].try_into().unwrap(), beside[8..12].try_into().unwrap());
        let ethertype = u16::from_le_bytes([0x08, 0x06]);
        let start = Start::with_tag(u64::from_le_bytes(first), u32::from_le_bytes(second), ethertype, tag);
        assert_eq!(start, Start::read(within.first_chunk().unwrap()));
    }

    #[test]
    fn a_type_that_ovs_does_not_treat_as_a_tag_is_payload() {
        let header = parse([0x91, 0x00, 0, 1, 0x81, 0x00]);
        assert_eq!((header.tag, header.stacked), (None, false));
    }

    #[test]
    fn a_tag_after_a_tag_is_a_stack() {
        for stack in [[0x81, 0x00, 0, 1, 0x88, 0xa8], [0x88, 0xa8, 0, 1, 0x81, 0x00]] {
            let header = parse(stack);
            assert_eq!((header.tag, header.stacked), (None, true));
        }
    }
}
