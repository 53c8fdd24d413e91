//! The forwarding database: which station is on which port.
//!
//! Open vSwitch's MAC table is the authority, and ours is a subset of it. A station enters ours only with a
//! frame that also goes through Open vSwitch, and is used only as long as Open vSwitch keeps a station that
//! it last saw then.

use crate::{Mac, Vid};

/// A station: an address in a VLAN of a bridge (independent VLAN learning, 802.1Q clause 8.8).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FdbKey {
    /// The bridge (`BridgeNo`).
    pub bridge: u16,
    /// The VLAN.
    pub vid: Vid,
    /// The address.
    pub mac: Mac,
}

/// Where a station is, and when Open vSwitch last saw a frame of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FdbEntry {
    /// The port (`PortNo`).
    pub port: u16,
    /// Whether the operator has added it (`fdb/add`): then it does not move, is not learned and does not age.
    pub fixed: bool,
    /// When a frame of the station last went through Open vSwitch, in seconds of the monotonic clock.
    pub shown_s: u32,
}

/// The age of an entry, in comparison with the limits of its bridge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Freshness {
    /// Open vSwitch saw the station recently.
    Fresh,
    /// Open vSwitch has to see a frame of it again.
    Due,
    /// Open vSwitch may have forgotten it.
    Expired,
}

impl FdbEntry {
    /// In [`FdbEntry::port`]: the number of no port. The station is out of use: frames to it go through Open
    /// vSwitch, and a frame from it puts it on the port where it arrives.
    pub const ASIDE: u16 = u16::MAX;

    /// Compares the entry's age at `now_s` with the limits. All times are in seconds of one clock; an entry
    /// from the future (another CPU's clock was ahead) is fresh.
    #[inline(always)]
    pub const fn freshness(self, now_s: u32, refresh_s: u32, ageing_s: u32) -> Freshness {
        if self.fixed {
            return Freshness::Fresh;
        }
        let age_s = now_s.saturating_sub(self.shown_s);
        if age_s >= ageing_s {
            Freshness::Expired
        } else if age_s >= refresh_s {
            Freshness::Due
        } else {
            Freshness::Fresh
        }
    }

    /// Returns whether the station, if it sends now, has to be shown to Open vSwitch: `show_s` or more have
    /// passed since it was last shown.
    #[inline(always)]
    pub const fn is_to_be_shown(self, now_s: u32, show_s: u32) -> bool {
        !self.fixed && now_s.saturating_sub(self.shown_s) >= show_s
    }

    /// Encodes the entry in one word, so that it is read and written in one piece. Bits 17 to 31 are zero.
    #[inline(always)]
    pub const fn to_word(self) -> u64 {
        (self.shown_s as u64) << 32 | (self.fixed as u64) << 16 | self.port as u64
    }

    /// Decodes the entry in a word, whatever bits 17 to 31 are.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self { port: word as u16, fixed: word & 1 << 16 != 0, shown_s: (word >> 32) as u32 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEARNED: FdbEntry = FdbEntry { port: 7, fixed: false, shown_s: 1000 };

    #[test]
    fn ages_through_due_to_expired() {
        for (now_s, expected) in [
            (990, Freshness::Fresh),
            (1000, Freshness::Fresh),
            (1074, Freshness::Fresh),
            (1075, Freshness::Due),
            (1299, Freshness::Due),
            (1300, Freshness::Expired),
        ] {
            assert_eq!(LEARNED.freshness(now_s, 75, 300), expected, "at {now_s}");
        }
    }

    #[test]
    fn an_operators_entry_does_not_age() {
        assert_eq!(FdbEntry { fixed: true, ..LEARNED }.freshness(u32::MAX, 75, 300), Freshness::Fresh);
    }

    #[test]
    fn word_form_round_trips() {
        for entry in [LEARNED, FdbEntry { port: u16::MAX, fixed: true, shown_s: u32::MAX }] {
            assert_eq!(FdbEntry::from_word(entry.to_word()), entry);
        }
    }
}
