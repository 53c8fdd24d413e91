//! A station beyond a trunk: what it answers to ARP requests and to pings (RFC 826, RFC 792).

use std::net::Ipv4Addr;

use trunkline_core::Pcp;
use trunkline_core::{HEADER_LEN, Header, Mac, Tag, Tpid, Vid};

const ARP: [u8; 2] = [0x08, 0x06];
const IPV4: [u8; 2] = [0x08, 0x00];
/// Ethernet and IPv4, hardware and protocol address lengths.
const ARP_HEAD: [u8; 6] = [0, 1, 8, 0, 6, 4];

/// A station in one VLAN.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Station {
    pub(super) vid: Vid,
    pub(super) mac: Mac,
    pub(super) address: Ipv4Addr,
    /// It sends without a tag, as the native VLAN of its port allows. What it receives is tagged all the same.
    pub(super) native: bool,
}

impl Station {
    /// The frame with which it answers, if it does.
    pub(super) fn answer(&self, frame: &[u8]) -> Option<Vec<u8>> {
        let header = Header::parse(frame.first_chunk::<HEADER_LEN>()?);
        let tag = header.tag?;
        if tag.vid() != self.vid {
            return None;
        }
        let (kind, payload) = frame.get(16..)?.split_first_chunk::<2>()?;
        let payload = match *kind {
            ARP => self.answer_arp(payload)?,
            IPV4 if header.dst == self.mac => self.answer_ping(payload)?,
            _ => return None,
        };
        let tag = (!self.native).then(|| Tag::new(Tpid::Dot1Q, Pcp::ZERO, self.vid).to_bytes());
        let tag = tag.as_ref().map_or(&[][..], |tag| &tag[..]);
        Some([&header.src.octets()[..], &self.mac.octets(), tag, kind, &payload].concat())
    }

    fn answer_arp(&self, packet: &[u8]) -> Option<Vec<u8>> {
        let (head, rest) = packet.split_first_chunk::<8>()?;
        let (sender, target) = (rest.get(..10)?, rest.get(16..20)?);
        let asks = head[..6] == ARP_HEAD && head[6..] == [0, 1] && target == self.address.octets();
        asks.then(|| {
            [&ARP_HEAD[..], &[0, 2], &self.mac.octets(), &self.address.octets(), sender, &[0; 18]].concat()
        })
    }

    fn answer_ping(&self, packet: &[u8]) -> Option<Vec<u8>> {
        let head_len = usize::from(*packet.first()? & 0x0f) * 4;
        let total_len = usize::from(u16::from_be_bytes(*packet.get(2..)?.first_chunk()?));
        let packet = packet.get(..total_len)?;
        let is_ping = packet.get(9) == Some(&1) && packet.get(head_len) == Some(&8);
        if !is_ping || packet.get(16..20)? != self.address.octets() {
            return None;
        }
        let mut reply = packet.to_vec();
        // Swapping the addresses leaves the IP header's checksum right.
        reply[12..16].copy_from_slice(&packet[16..20]);
        reply[16..20].copy_from_slice(&packet[12..16]);
        reply[head_len] = 0;
        let checksum = reply.get_mut(head_len + 2..)?.first_chunk_mut::<2>()?;
        // The type went from 8 to 0 (RFC 1624).
        let sum = u32::from(u16::from_be_bytes(*checksum)) + 0x0800;
        *checksum = (((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes();
        Some(reply)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKING: [u8; 6] = [2, 0, 0, 0, 0, 1];

    fn station(native: bool) -> Station {
        let (vid, mac) = (Vid::new(6).unwrap(), Mac::new([2, 0, 0, 0, 0, 6]));
        Station { vid, mac, address: Ipv4Addr::new(10, 0, 6, 1), native }
    }

    fn frame(vid: u8, rest: &[u8]) -> Vec<u8> {
        [&[2, 0, 0, 0, 0, 6][..], &ASKING, &[0x81, 0, 0, vid], rest].concat()
    }

    fn arp_request() -> Vec<u8> {
        [&[8, 6][..], &ARP_HEAD, &[0, 1], &ASKING, &[10, 0, 6, 9], &[0; 6], &[10, 0, 6, 1]].concat()
    }

    #[test]
    fn answers_arp_in_its_own_vlan_only() {
        let answer = station(false).answer(&frame(6, &arp_request())).unwrap();
        assert_eq!(answer[..18], [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 6, 0x81, 0, 0, 6, 8, 6]);
        assert_eq!(answer[26..36], [2, 0, 0, 0, 0, 6, 10, 0, 6, 1]);
        assert_eq!(station(false).answer(&frame(7, &arp_request())), None);
        assert_eq!(station(true).answer(&frame(6, &arp_request())).unwrap()[12..14], [8, 6], "without a tag");
    }

    #[test]
    fn answers_a_ping_with_a_right_checksum() {
        let ip = [0x45, 0, 0, 28, 0, 0, 0, 0, 64, 1, 0, 0, 10, 0, 6, 9, 10, 0, 6, 1];
        for checksum in [0xf7ff_u16 - 0x0102, 0xf900] {
            let [a, b] = checksum.to_be_bytes();
            let ping = [&[8, 0][..], &ip, &[8, 0, a, b, 0, 0, 1, 2]].concat();
            let answer = station(false).answer(&frame(6, &ping)).unwrap();
            assert_eq!(answer[30..38], [10, 0, 6, 1, 10, 0, 6, 9]);
            let sum = (u32::from(checksum) + 0x0800) % 0xffff;
            assert_eq!(answer[38], 0);
            assert_eq!(u32::from(u16::from_be_bytes([answer[40], answer[41]])), sum);
        }
    }
}
