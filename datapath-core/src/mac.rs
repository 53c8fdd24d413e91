//! Ethernet addresses.

use core::fmt;

/// A 48-bit Ethernet address (IEEE 802 clause 8).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The broadcast address, `ff:ff:ff:ff:ff:ff`.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Whether the group bit is set: multicast or broadcast.
    #[inline(always)]
    pub const fn is_group(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// Whether NORMAL treats the destination as reserved: it neither forwards such a frame (unless
    /// `forward-bpdu` is set) nor learns from it. The exact list of `eth_addr_is_reserved`, OVS `lib/packets.c`.
    #[inline(always)]
    pub const fn is_reserved(self) -> bool {
        match self.0 {
            // Spanning tree and its kin, 802.1Q table 8-1.
            [0x01, 0x80, 0xc2, 0x00, 0x00, 0x00..=0x0f] => true,
            // Extreme Networks' EDP, EAPS and ESRP: the only unicast ones.
            [0x00, 0xe0, 0x2b, 0x00, 0x00, 0x00 | 0x04 | 0x06] => true,
            // Cisco's ISL, CDP and VTP, PVST+, STP uplink fast, and CFM.
            [0x01, 0x00, 0x0c, 0x00, 0x00, 0x00]
            | [0x01, 0x00, 0x0c, 0xcc, 0xcc, 0xcc | 0xcd | 0xc0..=0xc7]
            | [0x01, 0x00, 0x0c, 0xcd, 0xcd, 0xcd] => true,
            _ => false,
        }
    }

    /// The address as a number: its first octet is the most significant of 48 bits.
    #[inline(always)]
    pub const fn as_u64(self) -> u64 {
        let [a, b, c, d, e, f] = self.0;
        u64::from_be_bytes([0, 0, a, b, c, d, e, f])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(out, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

/// Why a text is no Ethernet address.
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
        if fields.next().is_some() { Err(ParseMacError) } else { Ok(Self(octets)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips() {
        let mac = Mac([0x50, 0x54, 0, 0, 0xab, 1]);
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
            (0..=255).filter(|f| Mac([a, b, c, d, e, *f]).is_reserved()).collect::<Vec<u8>>()
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
