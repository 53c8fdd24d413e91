//! What the switch reads of a frame: both addresses and at most one tag, from a fixed window.

use crate::{Mac, Tag, Tpid};

/// Octets of a frame that [`Header::parse`] looks at: two addresses, a tag and the type after it.
pub const HEADER_LEN: usize = 18;

/// A frame as the switch sees it. Windows have a length known at compile time, because the verifier
/// accepts a bounds check against a constant and not against a value.
pub trait Frame {
    /// Length in octets, from the destination address to the last octet before the FCS.
    ///
    /// Not a `u32`: the verifier refuses to have pointers into a frame subtracted in 32 bits.
    fn len(&self) -> usize;

    /// Whether there is nothing in the frame.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// `N` octets from `offset` on, if the frame has them. A tag beside the frame is not among them.
    fn window<const N: usize>(&self, offset: usize) -> Option<&[u8; N]>;

    /// Addresses and tags, also a tag that the kernel keeps beside the frame.
    #[inline(always)]
    fn header(&self) -> Option<Header> {
        self.window::<HEADER_LEN>(0).map(Header::parse)
    }

    /// Whether the device that it leaves by takes a frame of this length as it is, `payload` octets of it being
    /// header. True of a super-frame: it is cut into segments on the way.
    #[inline(always)]
    fn fits(&self, payload: usize, mtu: u32) -> bool {
        self.len() <= payload + mtu as usize
    }
}

/// Where a frame is met, which decides how it can be sent on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hook {
    /// In the driver: its octets are all there is to know.
    Xdp,
    /// With all that the kernel knows of it: segments, a checksum to be filled in, a tag beside it.
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

/// The tags in front of a frame's payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tagging {
    /// No tag.
    Untagged,
    /// One tag, and a payload that is not a tag.
    Single(Tag),
    /// Two tags or more.
    Stacked,
}

/// The part of a frame that decides where it goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Destination address.
    pub dst: Mac,
    /// Source address.
    pub src: Mac,
    /// Tags.
    pub tagging: Tagging,
}

impl Header {
    /// Reads a header (IEEE 802.3 clause 3.2, 802.1Q clause 9).
    #[inline(always)]
    pub const fn parse(octets: &[u8; HEADER_LEN]) -> Self {
        let [a @ .., t0, t1, c0, c1, u0, u1] = *octets;
        let [outer, tci, inner] =
            [u16::from_be_bytes([t0, t1]), u16::from_be_bytes([c0, c1]), u16::from_be_bytes([u0, u1])];
        Self::from_parts(a, outer, tci, inner)
    }

    /// A header of these addresses, the type after them and, if that announces a tag, the tag's TCI and the type after
    /// that.
    #[inline(always)]
    pub const fn from_parts(addresses: [u8; 12], outer: u16, tci: u16, inner: u16) -> Self {
        let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5] = addresses;
        let tagging = match Tpid::from_ethertype(outer) {
            None => Tagging::Untagged,
            Some(tpid) => match Tpid::from_ethertype(inner) {
                None => Tagging::Single(Tag::from_wire(tpid, tci)),
                Some(_) => Tagging::Stacked,
            },
        };
        Self { dst: Mac::new([d0, d1, d2, d3, d4, d5]), src: Mac::new([s0, s1, s2, s3, s4, s5]), tagging }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(header.tagging, Tagging::Untagged);
        assert_eq!(header.dst, Mac::new([2, 0, 0, 0, 0, 0xd]));
        assert_eq!(header.src, Mac::new([2, 0, 0, 0, 0, 0x5]));
    }

    #[test]
    fn one_tag_of_either_type() {
        for (bytes, tpid) in [([0x81, 0x00], Tpid::Dot1Q), ([0x88, 0xa8], Tpid::Dot1Ad)] {
            let header = parse([bytes[0], bytes[1], 0x70, 0x64, 0x08, 0x00]);
            assert_eq!(header.tagging, Tagging::Single(Tag::from_wire(tpid, 0x7064)));
        }
    }

    #[test]
    fn a_type_that_is_no_tag_to_ovs_is_payload() {
        assert_eq!(parse([0x91, 0x00, 0, 1, 0x81, 0x00]).tagging, Tagging::Untagged);
    }

    #[test]
    fn a_tag_after_a_tag_is_a_stack() {
        assert_eq!(parse([0x81, 0x00, 0, 1, 0x88, 0xa8]).tagging, Tagging::Stacked);
        assert_eq!(parse([0x88, 0xa8, 0, 1, 0x81, 0x00]).tagging, Tagging::Stacked);
    }
}
