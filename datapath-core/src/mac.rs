//! Ethernet addresses.

use core::fmt;

/// A 48-bit Ethernet address (IEEE 802 clause 8).
///
/// Kept as a number whose most significant octet is the first on the wire. In a BPF program it costs
/// instructions to split a word into octets; so the address stays in one register from the frame to the
/// table's key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(u64);

impl Mac {
    /// The broadcast address, `ff:ff:ff:ff:ff:ff`.
    pub const BROADCAST: Self = Self::new([0xff; 6]);

    /// Returns the address with these octets, in the order of the wire.
    #[inline(always)]
    pub const fn new([a, b, c, d, e, f]: [u8; 6]) -> Self {
        Self((u32::from_be_bytes([a, b, c, d]) as u64) << 16 | u16::from_be_bytes([e, f]) as u64)
    }

    /// Returns the octets in the order of the wire.
    pub const fn octets(self) -> [u8; 6] {
        let [_, _, a, b, c, d, e, f] = self.0.to_be_bytes();
        [a, b, c, d, e, f]
    }

    /// Returns whether the group bit is set: multicast or broadcast.
    #[inline(always)]
    pub const fn is_group(self) -> bool {
        self.0 >> 40 & 1 != 0
    }

    /// Returns whether NORMAL treats the destination as reserved: it neither forwards such a frame (unless
    /// `forward-bpdu` is set) nor learns from it. This is exactly the list of `eth_addr_is_reserved`, OVS
    /// `lib/packets.c`.
    #[inline(always)]
    pub const fn is_reserved(self) -> bool {
        let own = self.0 as u32 & 0x00ff_ffff;
        match (self.0 >> 24) as u32 {
            // Spanning tree and other link-local protocols, 802.1Q table 8-1.
            0x0180c2 => own <= 0x00000f,
            // Extreme Networks' EDP, EAPS and ESRP: the only unicast addresses in the list.
            0x00e02b => matches!(own, 0x000000 | 0x000004 | 0x000006),
            // Cisco's ISL, CDP and VTP, PVST+, STP uplink fast, and CFM.
            0x01000c => matches!(own, 0x000000 | 0xcccccc | 0xcccccd | 0xccccc0..=0xccccc7 | 0xcdcdcd),
            _ => false,
        }
    }

    /// Returns the address as a number: its first octet is the most significant of 48 bits.
    #[inline(always)]
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// Returns the address with this number; bits above the 48th are ignored.
    #[inline(always)]
    pub const fn from_u64(number: u64) -> Self {
        Self(number & 0xffff_ffff_ffff)
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.octets();
        write!(out, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

/// A text is not an Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ParseMacError;

impl fmt::Display for ParseMacError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an Ethernet address is six hexadecimal octets, like 50:54:00:00:00:01")
    }
}

impl core::error::Error for ParseMacError {}

impl core::str::FromStr for Mac {
    type Err = ParseMacError;

    fn from_str(text: &str) -> Result<Self, ParseMacError> {
        let mut octets = [0; 6];
        let mut fields = text.split(':');
        for octet in &mut octets {
            let field = fields.next().ok_or(ParseMacError)?;
            if field.is_empty() || field.len() > 2 || !field.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(ParseMacError);
            }
            *octet = u8::from_str_radix(field, 16).map_err(|_| ParseMacError)?;
        }
        if fields.next().is_some() { Err(ParseMacError) } else { Ok(Self::new(octets)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips() {
        let mac = Mac::new([0x50, 0x54, 0, 0, 0xab, 1]);
        assert_eq!(mac.to_string(), "50:54:00:00:ab:01");
        assert_eq!(mac.to_string().parse(), Ok(mac));
    }

    #[test]
    fn malformed_texts_are_refused() {
        for text in ["", "1:2:3:4:5", "1:2:3:4:5:6:7", "1:2:3:4:5:+6", "1:2:3:4:5:100", "1:2:3:4:5:"] {
            assert_eq!(text.parse::<Mac>(), Err(ParseMacError), "{text:?}");
        }
    }

    #[test]
    fn reserved_addresses_are_exactly_those_of_ovs() {
        let reserved = |prefix: [u8; 5]| {
            let [a, b, c, d, e] = prefix;
            (0..=255).filter(|f| Mac::new([a, b, c, d, e, *f]).is_reserved()).collect::<Vec<u8>>()
        };
        assert_eq!(reserved([0, 0xe0, 0x2b, 0, 0]), [0, 4, 6]);
        assert_eq!(reserved([1, 0x80, 0xc2, 0, 0]), (0..16).collect::<Vec<u8>>());
        assert_eq!(reserved([1, 0, 0x0c, 0, 0]), [0]);
        assert_eq!(reserved([1, 0, 0x0c, 0xcd, 0xcd]), [0xcd]);
        let cisco: Vec<u8> = (0xc0..=0xc7).chain([0xcc, 0xcd]).collect();
        assert_eq!(reserved([1, 0, 0x0c, 0xcc, 0xcc]), cisco);
        assert_eq!(reserved([1, 0, 0x5e, 0, 0]), []);
    }
}
