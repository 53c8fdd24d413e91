//! The frames that are sent: UDP in IPv4, as short as Ethernet allows.

/// Octets at the start of a frame that a forwarding program may change: addresses and tag.
pub const REWRITTEN: usize = 16;

/// The start of a frame as a program writes it.
pub type Header = [u8; REWRITTEN];

/// Octets of the shortest frame on the wire.
pub const SHORTEST: usize = 64;
/// Of these, the FCS, which no program sees.
const FCS: usize = 4;

/// The station that sends.
pub const SENDER: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];
/// The station that receives.
pub const RECEIVER: [u8; 6] = [0x02, 0, 0, 0, 0, 0x02];

/// A frame from [`SENDER`] to `dst`, perhaps with an 802.1Q tag, whose checksums are right.
pub fn frame(dst: [u8; 6], vid: Option<u16>) -> Vec<u8> {
    sized(dst, vid, SHORTEST)
}

/// The same, of another size on the wire.
pub fn sized(dst: [u8; 6], vid: Option<u16>, size: usize) -> Vec<u8> {
    let tag = vid.map_or(vec![], |vid| [[0x81, 0x00], vid.to_be_bytes()].concat());
    let mut frame = [&dst[..], &SENDER, &tag, &[0x08, 0x00]].concat();
    let packet_length = size - FCS - frame.len();
    frame.extend(packet(packet_length as u16));
    frame
}

/// The start of a frame between two stations, which goes on as an untagged one of [`frame`].
pub fn header(dst: [u8; 6], src: [u8; 6]) -> Header {
    let mut header = [0; REWRITTEN];
    header.copy_from_slice(&frame(dst, None)[..REWRITTEN]);
    header[6..12].copy_from_slice(&src);
    header
}

/// An address of a station of many, each with a number of its own.
pub fn station(kind: u8, number: u32) -> [u8; 6] {
    let [a, b, c, d] = number.to_be_bytes();
    [0x02, kind, a, b, c, d]
}

/// The frame with its tag taken off or put on; its payload stays.
pub fn retagged(frame: &[u8], vid: Option<u16>) -> Vec<u8> {
    let (addresses, rest) = frame.split_at(12);
    let rest = rest.strip_prefix(&[0x81, 0x00]).map_or(rest, |tagged| &tagged[2..]);
    let tag = vid.map_or(vec![], |vid| [[0x81, 0x00], vid.to_be_bytes()].concat());
    [addresses, &tag, rest].concat()
}

/// An IPv4 packet with a UDP datagram (RFC 791, RFC 768) to the discard port.
fn packet(length: u16) -> Vec<u8> {
    let [l0, l1] = length.to_be_bytes();
    let mut ip = vec![0x45, 0, l0, l1, 0, 1, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    let checksum = !sum(&ip);
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    let udp_length = (length - 20).to_be_bytes();
    let mut udp = [&[0x10, 0, 0, 9][..], &udp_length, &[0, 0]].concat();
    udp.resize(usize::from(length) - 20, 0x55);
    let checksum = !sum(&[&ip[12..20], &[0, 17], &udp_length, &udp].concat());
    udp[6..8].copy_from_slice(&checksum.to_be_bytes());
    [ip, udp].concat()
}

/// The ones' complement sum of RFC 1071.
fn sum(octets: &[u8]) -> u16 {
    let mut sum: u32 =
        octets.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use trunkline_core::{L4Checksum, Payload, l4_checksum};

    use super::*;

    #[test]
    fn frames_are_as_short_as_allowed_and_have_finished_checksums() {
        for (vid, payload) in [(None, 14), (Some(10), 18)] {
            let frame = frame(RECEIVER, vid);
            assert_eq!(frame.len(), 60);
            assert_eq!(sum(&frame[payload..payload + 20]), 0xffff);
            assert_eq!(l4_checksum(&frame[..], &Payload::of(&frame[..]).unwrap()), L4Checksum::Complete);
        }
    }

    #[test]
    fn retagging_changes_the_tag_alone() {
        let tagged = frame(RECEIVER, Some(10));
        let untagged = retagged(&tagged, None);
        assert_eq!(untagged.len(), 56);
        assert_eq!(retagged(&untagged, Some(10)), tagged);
    }
}
