//! 802.1Q tags and sets of VLANs.

use core::num::NonZeroU32;

use bytemuck::{Pod, Zeroable};

/// A VLAN identifier, 0..=4095 (802.1Q clause 9.6).
///
/// To Open vSwitch, 0 is a VLAN of its own (frames without a VLAN on a trunk), and 4095 is an ordinary one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Vid(u16);

impl Vid {
    /// VLAN 0: no VLAN, or a priority tag.
    pub const ZERO: Self = Self(0);

    /// Returns the identifier; `None` above 4095.
    pub const fn new(vid: u16) -> Option<Self> {
        if vid < 4096 { Some(Self(vid)) } else { None }
    }

    /// Returns the identifier in the low 12 bits of a TCI.
    #[inline(always)]
    pub const fn from_tci(tci: u16) -> Self {
        Self(tci & 0x0fff)
    }

    /// Returns the number, 0..=4095.
    #[inline(always)]
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl core::fmt::Display for Vid {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.fmt(out)
    }
}

/// A priority code point, 0..=7 (802.1Q clause 6.9.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pcp(u8);

impl Pcp {
    /// Best effort, the default priority.
    pub const ZERO: Self = Self(0);

    /// Returns the priority; `None` above 7.
    pub const fn new(pcp: u8) -> Option<Self> {
        if pcp < 8 { Some(Self(pcp)) } else { None }
    }

    /// Returns the number, 0..=7.
    #[inline(always)]
    pub const fn get(self) -> u8 {
        self.0
    }
}

/// A tag's protocol identifier. Open vSwitch accepts both as a tag of the VLAN (`eth_type_vlan`, OVS
/// `lib/packets.h`) and sends the one that it received.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tpid {
    /// 0x8100, the customer tag.
    Dot1Q,
    /// 0x88a8, the service tag.
    Dot1Ad,
}

impl Tpid {
    /// Returns the identifier with this number, if it announces a tag. 0x9100 and others do not.
    #[inline(always)]
    pub const fn from_ethertype(ethertype: u16) -> Option<Self> {
        match ethertype {
            0x8100 => Some(Self::Dot1Q),
            0x88a8 => Some(Self::Dot1Ad),
            _ => None,
        }
    }

    /// Returns the number, in host order.
    #[inline(always)]
    pub const fn ethertype(self) -> u16 {
        match self {
            Self::Dot1Q => 0x8100,
            Self::Dot1Ad => 0x88a8,
        }
    }
}

/// One tag on the wire: TPID, PCP, DEI and VID (802.1Q clause 9.5).
///
/// Kept as the number that its four octets form, TPID first, so that the BPF program writes it in one piece.
/// The number is never zero, so an `Option` of it is one word that is always written. For other types,
/// compilers may carry along a register that was never written, which verifiers refuse.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Tag(NonZeroU32);

impl Tag {
    const DEI: u32 = 1 << 12;

    /// Returns a tag as Open vSwitch pushes it: with DEI 0.
    #[inline(always)]
    pub const fn new(tpid: Tpid, pcp: Pcp, vid: Vid) -> Self {
        Self::from_wire(tpid, (pcp.0 as u16) << 13 | vid.0)
    }

    /// Returns a tag as received.
    #[inline(always)]
    pub const fn from_wire(tpid: Tpid, tci: u16) -> Self {
        match Self::from_word((tpid.ethertype() as u32) << 16 | tci as u32) {
            Some(tag) => tag,
            // Not reached: no TPID is zero.
            None => Self(NonZeroU32::MIN),
        }
    }

    /// Returns the protocol identifier.
    #[inline(always)]
    pub const fn tpid(self) -> Tpid {
        match Tpid::from_ethertype((self.to_word() >> 16) as u16) {
            Some(Tpid::Dot1Ad) => Tpid::Dot1Ad,
            _ => Tpid::Dot1Q,
        }
    }

    /// Returns priority, drop-eligible bit and VLAN.
    #[inline(always)]
    pub const fn tci(self) -> u16 {
        self.to_word() as u16
    }

    /// Returns the VLAN.
    #[inline(always)]
    pub const fn vid(self) -> Vid {
        Vid::from_tci(self.tci())
    }

    /// Returns the priority.
    #[inline(always)]
    pub const fn pcp(self) -> Pcp {
        Pcp((self.tci() >> 13) as u8)
    }

    /// Returns the drop-eligible bit.
    #[inline(always)]
    pub const fn dei(self) -> bool {
        self.to_word() & Self::DEI != 0
    }

    /// Returns the four octets on the wire.
    #[inline(always)]
    pub const fn to_bytes(self) -> [u8; 4] {
        self.to_word().to_be_bytes()
    }

    /// Returns the tag as a number.
    #[inline(always)]
    pub(crate) const fn to_word(self) -> u32 {
        self.0.get()
    }

    /// Returns the tag with this number, which must come from [`Self::to_word`]; `None` for 0.
    #[inline(always)]
    pub(crate) const fn from_word(word: u32) -> Option<Self> {
        match NonZeroU32::new(word) {
            Some(word) => Some(Self(word)),
            None => None,
        }
    }

    /// Returns whether the two are the same tag to Open vSwitch. It cannot represent the drop-eligible bit
    /// (bit 12 of a TCI is its "tag present" flag, OVS `lib/flow.c`). So DEI is not compared, and a tag that
    /// is the same in everything else keeps the DEI that it arrived with.
    #[inline(always)]
    pub const fn same_but_dei(self, other: Self) -> bool {
        self.to_word() | Self::DEI == other.to_word() | Self::DEI
    }
}

impl core::fmt::Debug for Tag {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let tpid = self.tpid().ethertype();
        write!(out, "Tag({tpid:#06x} pcp {} dei {} vid {})", self.pcp().0, self.dei(), self.vid())
    }
}

/// A set of VLANs: one bit for each of 4096. Also a map layout, 512 octets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct VidSet([u64; 64]);

impl VidSet {
    /// No VLAN.
    pub const EMPTY: Self = Self([0; 64]);
    /// All 4096 VLANs, 0 and 4095 included.
    pub const ALL: Self = Self([u64::MAX; 64]);

    /// Returns whether the set has this VLAN.
    #[inline(always)]
    pub const fn contains(&self, vid: Vid) -> bool {
        // The mask is for the verifier: it proves the index to be in bounds.
        self.0[(vid.0 >> 6) as usize & 63] & 1 << (vid.0 & 63) != 0
    }

    /// Adds a VLAN.
    pub const fn insert(&mut self, vid: Vid) {
        self.0[(vid.0 >> 6) as usize] |= 1 << (vid.0 & 63);
    }

    /// Removes a VLAN.
    pub const fn remove(&mut self, vid: Vid) {
        self.0[(vid.0 >> 6) as usize] &= !(1 << (vid.0 & 63));
    }

    /// Returns whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.0 == [0; 64]
    }

    /// Returns the VLANs in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = Vid> + '_ {
        (0..4096).map(Vid).filter(|vid| self.contains(*vid))
    }
}

impl FromIterator<Vid> for VidSet {
    fn from_iter<T: IntoIterator<Item = Vid>>(vids: T) -> Self {
        let mut set = Self::EMPTY;
        vids.into_iter().for_each(|vid| set.insert(vid));
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tag_bytes_are_tpid_then_tci() {
        let tag = Tag::new(Tpid::Dot1Ad, Pcp::new(5).unwrap(), Vid::new(0x123).unwrap());
        assert_eq!(tag.to_bytes(), [0x88, 0xa8, 0xa1, 0x23]);
        assert_eq!((tag.pcp().get(), tag.vid().get()), (5, 0x123));
    }

    #[test]
    fn a_tag_that_differs_in_dei_alone_is_the_same_tag() {
        let received = Tag::from_wire(Tpid::Dot1Q, 0x3064);
        assert!(received.same_but_dei(Tag::from_wire(Tpid::Dot1Q, 0x2064)));
        assert!(!received.same_but_dei(Tag::from_wire(Tpid::Dot1Q, 0x2065)));
        assert!(!received.same_but_dei(Tag::from_wire(Tpid::Dot1Ad, 0x3064)));
    }

    #[test]
    fn vid_set_holds_the_ends_of_the_range() {
        let ends = [0, 63, 64, 4095].map(|vid| Vid::new(vid).unwrap());
        let set = ends.into_iter().collect::<VidSet>();
        assert_eq!(set.iter().collect::<Vec<_>>(), ends);
        assert_eq!(VidSet::ALL.iter().count(), 4096);
    }
}
