//! The transport layer: whether a frame carries TCP, and whether hardware still has to fill in its TCP or UDP
//! checksum.
//!
//! A sender with checksum offload (a container behind a veth, a guest behind a tap) writes only the folded
//! pseudo-header sum and leaves the rest to the device. The kernel keeps that fact beside the frame, where an
//! XDP program cannot see it, and a redirect loses it. But the value in the frame shows it: it equals the
//! pseudo-header sum, which a finished checksum does only once in 65,536 frames. Where the value could be
//! hidden (tunnels, extension headers, protocols with other checksums) the answer is [`L4Checksum::Unknown`].

use crate::{Frame, Payload};

/// The state of a frame's transport checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum L4Checksum {
    /// It is finished, or there is none.
    Complete,
    /// It equals the pseudo-header sum, so it is most likely unfinished.
    Partial,
    /// It cannot be told which.
    Unknown,
}

// Types and ports of two octets are compared as they are in the frame, read in little-endian order.
const IPV4: u16 = 0x0800_u16.swap_bytes();
const IPV6: u16 = 0x86dd_u16.swap_bytes();

const ICMP: u8 = 1;
const IGMP: u8 = 2;
const TCP: u8 = 6;
const UDP: u8 = 17;
const IPV6_FRAGMENT: u8 = 44;
const ESP: u8 = 50;
const AH: u8 = 51;
const ICMPV6: u8 = 58;
const IPV6_NO_NEXT: u8 = 59;
const OSPF: u8 = 89;
const PIM: u8 = 103;
const VRRP: u8 = 112;

/// Returns whether the payload is TCP in IPv4, fragment or not, or right behind an IPv6 header: what the
/// kernel may merge with its neighbours, and what must not overtake them.
#[inline(always)]
pub fn carries_tcp<F: Frame + ?Sized>(frame: &F, payload: &Payload) -> bool {
    let Payload { ethertype, offset } = *payload;
    let protocol = match ethertype {
        IPV4 => frame.window::<1>(offset + 9),
        IPV6 => frame.window::<1>(offset + 6),
        _ => None,
    };
    protocol == Some(&[TCP])
}

/// Judges the checksum in a frame's payload. IPv4 is checked for first, because most frames carry it.
#[inline(always)]
pub fn l4_checksum<F: Frame + ?Sized>(frame: &F, payload: &Payload) -> L4Checksum {
    let Payload { ethertype, offset } = *payload;
    if ethertype == IPV4 {
        return ipv4(frame, offset);
    }
    match ethertype.swap_bytes() {
        0x86dd => ipv6(frame, offset),
        // MPLS, PPPoE sessions, NSH and bridged Ethernet carry packets whose checksums may be unfinished.
        0x8847 | 0x8848 | 0x8864 | 0x894f | 0x6558 => L4Checksum::Unknown,
        _ => L4Checksum::Complete,
    }
}

/// Judges IPv4 (RFC 791 section 3.1). A fragment is complete: the kernel fills the checksum in before it
/// fragments.
#[inline(always)]
fn ipv4<F: Frame + ?Sized>(frame: &F, offset: usize) -> L4Checksum {
    const FRAGMENT: u64 = (0x3fff_u16.swap_bytes() as u64) << 16;
    const PROTOCOL: u64 = 0xff << 40;
    /// Subtracts the 20 octets of the header from the total length, in ones' complement.
    const LESS_HEADER: u64 = !20_u16.swap_bytes() as u64;

    // Version and length of the header, total length; fragment and protocol; the addresses; what follows the
    // header.
    let Some([first, second, addresses, next]) = frame.words(offset) else { return L4Checksum::Unknown };
    if first & 0xff != 0x45 {
        return L4Checksum::Unknown;
    }
    let sum = (first >> 16 & 0xffff) + LESS_HEADER + halves(addresses);
    // Both in one comparison, because most frames are not fragments.
    match second & (FRAGMENT | PROTOCOL) {
        UDP_WHOLE => udp(next, sum),
        TCP_WHOLE => tcp(frame, offset + 20, sum),
        _ if second & FRAGMENT != 0 => L4Checksum::Complete,
        _ => other((second >> 40) as u8),
    }
}

const UDP_WHOLE: u64 = (UDP as u64) << 40;
const TCP_WHOLE: u64 = (TCP as u64) << 40;

/// Judges IPv6 (RFC 8200 section 3). A fragment is complete, as above.
#[inline(always)]
fn ipv6<F: Frame + ?Sized>(frame: &F, offset: usize) -> L4Checksum {
    // Version, length and next header; the same two and the first quarter of the source; then two quarters in
    // each word.
    let Some([first, a, b, c]) = frame.words(offset) else { return L4Checksum::Unknown };
    let Some([_, _, d, e]) = frame.words(offset + 12) else { return L4Checksum::Unknown };
    let sum = (first >> 32 & 0xffff) + (a >> 32) + halves(b) + halves(c) + (d >> 32) + halves(e);
    match (first >> 48) as u8 {
        UDP => match frame.window::<8>(offset + 40) {
            Some(header) => udp(u64::from_le_bytes(*header), sum),
            None => L4Checksum::Unknown,
        },
        TCP => tcp(frame, offset + 40, sum),
        IPV6_FRAGMENT => L4Checksum::Complete,
        next => other(next),
    }
}

/// Returns the sum of the two 32-bit words in a 64-bit word.
#[inline(always)]
const fn halves(word: u64) -> u64 {
    (word >> 32) + (word & 0xffff_ffff)
}

// `sum` is that of the pseudo-header (RFC 9293 section 3.1, RFC 768, RFC 8200 section 8.1) without the
// protocol, made of words of 16 or 32 bits as they are in the frame, read in little-endian order. In ones'
// complement neither the width of the words nor their byte order makes a difference (RFC 1071 section 2).

#[inline(always)]
fn udp(header: u64, sum: u64) -> L4Checksum {
    let (port, checksum) = ((header >> 16) as u16, (header >> 48) as u16);
    // Without an outer checksum, or on the port of a tunnel, an inner checksum may be unfinished.
    if checksum == 0 || is_tunnel_port(port) {
        return L4Checksum::Unknown;
    }
    judge(checksum, sum + ((UDP as u64) << 8))
}

#[inline(always)]
fn tcp<F: Frame + ?Sized>(frame: &F, offset: usize, sum: u64) -> L4Checksum {
    let Some(checksum) = frame.window::<2>(offset + 16) else { return L4Checksum::Unknown };
    judge(u16::from_le_bytes(*checksum), sum + ((TCP as u64) << 8))
}

#[inline(always)]
fn judge(checksum: u16, sum: u64) -> L4Checksum {
    // In ones' complement, a number and the complement of an equal one add up to all ones.
    if is_all_ones(sum + u64::from(!checksum)) { L4Checksum::Partial } else { L4Checksum::Complete }
}

#[inline(always)]
fn other(protocol: u8) -> L4Checksum {
    match protocol {
        ICMP | IGMP | ICMPV6 | IPV6_NO_NEXT | ESP | AH | OSPF | PIM | VRRP => L4Checksum::Complete,
        _ => L4Checksum::Unknown,
    }
}

/// Returns whether a destination port, as in the frame, is that of a tunnel: VXLAN (IANA's and Linux's own),
/// Geneve, VXLAN-GPE, GRE and MPLS in UDP.
#[inline(always)]
const fn is_tunnel_port(port: u16) -> bool {
    const VXLAN: u16 = 4789_u16.swap_bytes();
    const LINUX_VXLAN: u16 = 8472_u16.swap_bytes();
    const GENEVE: u16 = 6081_u16.swap_bytes();
    const VXLAN_GPE: u16 = 4790_u16.swap_bytes();
    const GRE: u16 = 4754_u16.swap_bytes();
    const MPLS: u16 = 6635_u16.swap_bytes();
    matches!(port, VXLAN | LINUX_VXLAN | GENEVE | VXLAN_GPE | GRE | MPLS)
}

/// Whether the sum of the 16-bit words, in ones' complement (RFC 1071), of a number below 2^40 and above 0 is
/// all ones.
#[inline(always)]
const fn is_all_ones(sum: u64) -> bool {
    let sum = (sum >> 16) + (sum & 0xffff);
    // Below 2^25 now, and below 2^17 then: all ones once or twice.
    let sum = (sum >> 16) + (sum & 0xffff);
    sum == 0xffff || sum == 2 * 0xffff
}

#[cfg(test)]
mod tests {
    use super::*;

    fn l4_checksum(frame: &[u8]) -> L4Checksum {
        super::l4_checksum(frame, &Payload::of(frame).expect("one"))
    }

    fn carries_tcp(frame: &[u8]) -> bool {
        super::carries_tcp(frame, &Payload::of(frame).expect("one"))
    }

    const SRC4: [u8; 4] = [10, 0, 0, 1];
    const DST4: [u8; 4] = [10, 0, 0, 2];

    fn sum(bytes: &[u8]) -> u16 {
        let mut sum = 0_u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
        }
        while sum > 0xffff {
            sum = (sum >> 16) + (sum & 0xffff);
        }
        u16::try_from(sum).unwrap()
    }

    fn pseudo4(protocol: u8, length: usize) -> Vec<u8> {
        let length = u16::try_from(length).unwrap().to_be_bytes();
        [&SRC4[..], &DST4, &[0, protocol], &length].concat()
    }

    /// An Ethernet frame with an IPv4 packet whose transport checksum, at `place`, is finished or not.
    fn ipv4_frame(protocol: u8, segment: &[u8], place: usize, finished: bool) -> Vec<u8> {
        let mut segment = segment.to_vec();
        let pseudo = pseudo4(protocol, segment.len());
        segment[place..place + 2].copy_from_slice(&sum(&pseudo).to_be_bytes());
        if finished {
            let checksum = !sum(&segment);
            segment[place..place + 2].copy_from_slice(&checksum.to_be_bytes());
        }
        let length = u16::try_from(20 + segment.len()).unwrap().to_be_bytes();
        let ip = [0x45, 0, length[0], length[1], 0, 1, 0x40, 0, 64, protocol, 0, 0];
        [&[2; 12][..], &[8, 0], &ip, &SRC4, &DST4, &segment].concat()
    }

    fn tcp_segment() -> Vec<u8> {
        let mut segment =
            vec![0x12, 0x34, 0x50, 0x00, 1, 2, 3, 4, 5, 6, 7, 8, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0];
        segment.extend(b"some payload, and then some");
        segment
    }

    #[test]
    fn tells_an_open_tcp_checksum_from_a_finished_one() {
        let segment = tcp_segment();
        assert_eq!(l4_checksum(&ipv4_frame(6, &segment, 16, false)[..]), L4Checksum::Partial);
        assert_eq!(l4_checksum(&ipv4_frame(6, &segment, 16, true)[..]), L4Checksum::Complete);
    }

    #[test]
    fn tells_an_open_udp_checksum_from_a_finished_one() {
        let datagram = [0x12, 0x34, 0x50, 0, 0, 13, 0, 0, b'h', b'e', b'l', b'l', b'o'];
        assert_eq!(l4_checksum(&ipv4_frame(17, &datagram, 6, false)[..]), L4Checksum::Partial);
        assert_eq!(l4_checksum(&ipv4_frame(17, &datagram, 6, true)[..]), L4Checksum::Complete);
    }

    #[test]
    fn finds_the_packet_behind_a_tag() {
        let mut frame = ipv4_frame(6, &tcp_segment(), 16, false);
        frame.splice(12..12, [0x81, 0, 0, 10]);
        assert_eq!(l4_checksum(&frame[..]), L4Checksum::Partial);
        assert!(carries_tcp(&frame[..]));
    }

    #[test]
    fn tells_tcp_from_the_rest() {
        let v4 = |protocol| ipv4_frame(protocol, &tcp_segment(), 16, true);
        assert!(carries_tcp(&v4(6)[..]));
        let mut later_fragment = v4(6);
        later_fragment[21] = 9;
        assert!(carries_tcp(&later_fragment[..]));
        for other in [1, 17, 132] {
            assert!(!carries_tcp(&v4(other)[..]), "IP protocol {other}");
        }
        let v6 = |next| [&[2; 12][..], &[0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, next, 64], &[0; 52]].concat();
        assert!(carries_tcp(&v6(6)[..]) && !carries_tcp(&v6(17)[..]));
        let arp = [&[2; 12][..], &[8, 6], &[6; 28]].concat();
        assert!(!carries_tcp(&arp[..]));
        assert!(!carries_tcp(&v4(6)[..20]), "cut short");
    }

    #[test]
    fn ipv6_tcp_both_ways() {
        for finished in [false, true] {
            let mut segment = tcp_segment();
            let length = u8::try_from(segment.len()).unwrap();
            let addresses: Vec<u8> = (0..32_u8).map(|byte| byte.wrapping_mul(7) ^ 0x80).collect();
            let pseudo = [&addresses[..], &[0, length, 0, 6]].concat();
            segment[16..18].copy_from_slice(&sum(&pseudo).to_be_bytes());
            if finished {
                let checksum = !sum(&segment);
                segment[16..18].copy_from_slice(&checksum.to_be_bytes());
            }
            let frame =
                [&[2; 12][..], &[0x86, 0xdd, 0x60, 0, 0, 0, 0, length, 6, 64], &addresses, &segment].concat();
            let expected = if finished { L4Checksum::Complete } else { L4Checksum::Partial };
            assert_eq!(l4_checksum(&frame[..]), expected);
        }
    }

    #[test]
    fn what_may_hide_an_open_checksum_is_unknown() {
        let vxlan = [0x12, 0x34, 0x12, 0xb5, 0, 12, 0, 0, 1, 2, 3, 4];
        assert_eq!(l4_checksum(&ipv4_frame(17, &vxlan, 6, true)[..]), L4Checksum::Unknown, "VXLAN");
        for protocol in [4, 41, 47, 132] {
            let frame = ipv4_frame(protocol, &tcp_segment(), 16, true);
            assert_eq!(l4_checksum(&frame[..]), L4Checksum::Unknown, "IP protocol {protocol}");
        }
        let mut options = ipv4_frame(6, &tcp_segment(), 16, true);
        options[14] = 0x46;
        assert_eq!(l4_checksum(&options[..]), L4Checksum::Unknown, "IPv4 options");
        let mut no_checksum = ipv4_frame(17, &[0, 1, 0, 2, 0, 8, 0, 0], 6, true);
        no_checksum[40..42].fill(0);
        assert_eq!(l4_checksum(&no_checksum[..]), L4Checksum::Unknown, "UDP without a checksum");
        let cut = ipv4_frame(6, &tcp_segment(), 16, true);
        assert_eq!(l4_checksum(&cut[..40]), L4Checksum::Unknown, "cut short");
    }

    #[test]
    fn fragments_arp_and_icmp_have_nothing_open() {
        let mut fragment = ipv4_frame(6, &tcp_segment(), 16, false);
        fragment[20] = 0x20;
        assert_eq!(l4_checksum(&fragment[..]), L4Checksum::Complete);
        assert_eq!(l4_checksum(&ipv4_frame(1, &tcp_segment(), 2, false)[..]), L4Checksum::Complete);
        let arp = [&[2; 12][..], &[8, 6], &[0; 28]].concat();
        assert_eq!(l4_checksum(&arp[..]), L4Checksum::Complete);
    }
}
