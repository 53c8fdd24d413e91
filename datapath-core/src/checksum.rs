//! What the transport layer says: whether a frame carries TCP, and whether its TCP or UDP checksum is still to be filled
//! in by hardware.
//!
//! A sender with checksum offload (a container behind a veth, a guest behind a tap) writes only the folded
//! pseudo-header sum and leaves the rest to the device. The kernel keeps that fact beside the frame, where an XDP
//! program cannot see it and where a redirect loses it. The value itself gives it away: it equals the pseudo-header
//! sum, as a finished checksum does once in 65,536 frames. Where the value could be hidden (tunnels, extension
//! headers, protocols with other checksums) the answer is [`L4Checksum::Unknown`].

use crate::Frame;

/// What can be told of a frame's transport checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum L4Checksum {
    /// Finished, or there is none.
    Complete,
    /// Equal to the pseudo-header sum: most likely unfinished.
    Partial,
    /// It cannot be told.
    Unknown,
}

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;

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

/// Whether the payload at `offset` (14, or 18 behind a tag) is TCP in IPv4, fragment or not, or right behind an IPv6 header:
/// what the kernel may merge with its neighbours, and what comes between that.
#[inline(always)]
pub fn carries_tcp<F: Frame + ?Sized>(frame: &F, offset: usize) -> bool {
    let Some(ethertype) = frame.window::<2>(offset - 2) else { return false };
    let protocol = match u16::from_be_bytes(*ethertype) {
        IPV4 => frame.window::<1>(offset + 9),
        IPV6 => frame.window::<1>(offset + 6),
        _ => None,
    };
    protocol == Some(&[TCP])
}

/// Judges the payload at `offset` (14, or 18 behind a tag), whose Ethernet type stands right before it.
#[inline(always)]
pub fn l4_checksum<F: Frame + ?Sized>(frame: &F, offset: usize) -> L4Checksum {
    let Some(ethertype) = frame.window::<2>(offset - 2) else { return L4Checksum::Unknown };
    match u16::from_be_bytes(*ethertype) {
        IPV4 => ipv4(frame, offset),
        IPV6 => ipv6(frame, offset),
        // MPLS, PPPoE sessions, NSH and bridged Ethernet carry frames whose checksums may be left open.
        0x8847 | 0x8848 | 0x8864 | 0x894f | 0x6558 => L4Checksum::Unknown,
        _ => L4Checksum::Complete,
    }
}

/// RFC 791 section 3.1. A fragment is complete: the kernel fills the checksum in before it fragments.
#[inline(always)]
fn ipv4<F: Frame + ?Sized>(frame: &F, offset: usize) -> L4Checksum {
    let Some(ip) = frame.window::<20>(offset) else { return L4Checksum::Unknown };
    let [version_ihl, _, l0, l1, _, _, f0, f1, _, protocol, _, _, rest @ ..] = *ip;
    if version_ihl != 0x45 {
        return L4Checksum::Unknown;
    }
    if u16::from_be_bytes([f0, f1]) & 0x3fff != 0 {
        return L4Checksum::Complete;
    }
    let [a, b, c, d, e, f, g, h] = rest;
    let addresses = u64::from(u32::from_be_bytes([a, b, c, d])) + u64::from(u32::from_be_bytes([e, f, g, h]));
    let length = u16::from_be_bytes([l0, l1]).wrapping_sub(20);
    transport(frame, offset + 20, protocol, addresses + u64::from(length))
}

/// RFC 8200 section 3. A fragment is complete, as above.
#[inline(always)]
fn ipv6<F: Frame + ?Sized>(frame: &F, offset: usize) -> L4Checksum {
    let Some(fixed) = frame.window::<8>(offset) else { return L4Checksum::Unknown };
    let Some(addresses) = frame.window::<32>(offset + 8) else { return L4Checksum::Unknown };
    let [_, _, _, _, l0, l1, protocol, _] = *fixed;
    if protocol == IPV6_FRAGMENT {
        return L4Checksum::Complete;
    }
    let mut sum = u64::from(u16::from_be_bytes([l0, l1]));
    for word in addresses.as_chunks().0 {
        sum += u64::from(u32::from_be_bytes(*word));
    }
    transport(frame, offset + 40, protocol, sum)
}

/// `sum` is the pseudo-header's (RFC 9293 section 3.1, RFC 768, RFC 8200 section 8.1) less the protocol, in words of 16
/// or 32 bits: [`fold`] makes no difference between them.
#[inline(always)]
fn transport<F: Frame + ?Sized>(frame: &F, offset: usize, protocol: u8, sum: u64) -> L4Checksum {
    let checksum = match protocol {
        TCP => frame.window::<2>(offset + 16),
        UDP => {
            let Some(udp) = frame.window::<8>(offset) else { return L4Checksum::Unknown };
            let [_, _, p0, p1, _, _, c0, c1] = *udp;
            // Without an outer checksum, or on a tunnel's port, an inner one may be open.
            if (c0 | c1) == 0 || is_tunnel_port(u16::from_be_bytes([p0, p1])) {
                return L4Checksum::Unknown;
            }
            frame.window::<2>(offset + 6)
        }
        ICMP | IGMP | ICMPV6 | IPV6_NO_NEXT | ESP | AH | OSPF | PIM | VRRP => return L4Checksum::Complete,
        _ => return L4Checksum::Unknown,
    };
    let Some(checksum) = checksum else { return L4Checksum::Unknown };
    let difference = sum + u64::from(protocol) + u64::from(!u16::from_be_bytes(*checksum));
    // In ones' complement, equal numbers differ by all ones.
    if fold(difference) == 0xffff { L4Checksum::Partial } else { L4Checksum::Complete }
}

/// Destination ports of VXLAN (IANA's and Linux's own), Geneve, VXLAN-GPE, GRE and MPLS in UDP.
#[inline(always)]
const fn is_tunnel_port(port: u16) -> bool {
    matches!(port, 4789 | 8472 | 6081 | 4790 | 4754 | 6635)
}

/// The sum of the 16-bit words, in ones' complement (RFC 1071), of a number below 2^48.
#[inline(always)]
const fn fold(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum >> 16 & 0xffff) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    ((sum >> 16) + (sum & 0xffff)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(l4_checksum(&ipv4_frame(6, &segment, 16, false)[..], 14), L4Checksum::Partial);
        assert_eq!(l4_checksum(&ipv4_frame(6, &segment, 16, true)[..], 14), L4Checksum::Complete);
    }

    #[test]
    fn tells_an_open_udp_checksum_from_a_finished_one() {
        let datagram = [0x12, 0x34, 0x50, 0, 0, 13, 0, 0, b'h', b'e', b'l', b'l', b'o'];
        assert_eq!(l4_checksum(&ipv4_frame(17, &datagram, 6, false)[..], 14), L4Checksum::Partial);
        assert_eq!(l4_checksum(&ipv4_frame(17, &datagram, 6, true)[..], 14), L4Checksum::Complete);
    }

    #[test]
    fn finds_the_packet_behind_a_tag() {
        let mut frame = ipv4_frame(6, &tcp_segment(), 16, false);
        frame.splice(12..12, [0x81, 0, 0, 10]);
        assert_eq!(l4_checksum(&frame[..], 18), L4Checksum::Partial);
        assert!(carries_tcp(&frame[..], 18) && !carries_tcp(&frame[..], 14));
    }

    #[test]
    fn tells_tcp_from_the_rest() {
        let v4 = |protocol| ipv4_frame(protocol, &tcp_segment(), 16, true);
        assert!(carries_tcp(&v4(6)[..], 14));
        let mut later_fragment = v4(6);
        later_fragment[21] = 9;
        assert!(carries_tcp(&later_fragment[..], 14));
        for other in [1, 17, 132] {
            assert!(!carries_tcp(&v4(other)[..], 14), "IP protocol {other}");
        }
        let v6 = |next| [&[2; 12][..], &[0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, next, 64], &[0; 52]].concat();
        assert!(carries_tcp(&v6(6)[..], 14) && !carries_tcp(&v6(17)[..], 14));
        let arp = [&[2; 12][..], &[8, 6], &[6; 28]].concat();
        assert!(!carries_tcp(&arp[..], 14));
        assert!(!carries_tcp(&v4(6)[..20], 14), "cut short");
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
            assert_eq!(l4_checksum(&frame[..], 14), expected);
        }
    }

    #[test]
    fn what_may_hide_an_open_checksum_is_unknown() {
        let vxlan = [0x12, 0x34, 0x12, 0xb5, 0, 12, 0, 0, 1, 2, 3, 4];
        assert_eq!(l4_checksum(&ipv4_frame(17, &vxlan, 6, true)[..], 14), L4Checksum::Unknown, "VXLAN");
        for protocol in [4, 41, 47, 132] {
            let frame = ipv4_frame(protocol, &tcp_segment(), 16, true);
            assert_eq!(l4_checksum(&frame[..], 14), L4Checksum::Unknown, "IP protocol {protocol}");
        }
        let mut options = ipv4_frame(6, &tcp_segment(), 16, true);
        options[14] = 0x46;
        assert_eq!(l4_checksum(&options[..], 14), L4Checksum::Unknown, "IPv4 options");
        let mut no_checksum = ipv4_frame(17, &[0, 1, 0, 2, 0, 8, 0, 0], 6, true);
        no_checksum[40..42].fill(0);
        assert_eq!(l4_checksum(&no_checksum[..], 14), L4Checksum::Unknown, "UDP without a checksum");
        let cut = ipv4_frame(6, &tcp_segment(), 16, true);
        assert_eq!(l4_checksum(&cut[..40], 14), L4Checksum::Unknown, "cut short");
    }

    #[test]
    fn fragments_arp_and_icmp_have_nothing_open() {
        let mut fragment = ipv4_frame(6, &tcp_segment(), 16, false);
        fragment[20] = 0x20;
        assert_eq!(l4_checksum(&fragment[..], 14), L4Checksum::Complete);
        assert_eq!(l4_checksum(&ipv4_frame(1, &tcp_segment(), 2, false)[..], 14), L4Checksum::Complete);
        let arp = [&[2; 12][..], &[8, 6], &[0; 28]].concat();
        assert_eq!(l4_checksum(&arp[..], 14), L4Checksum::Complete);
    }
}
