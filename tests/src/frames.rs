//! Frames to send, each with a number of its own, by which it is known again wherever and whenever it arrives.

use std::sync::atomic::{AtomicU64, Ordering};

use trunkline_core::{Mac, Pcp, Tag, Tpid, Vid};

/// Every frame ends with this and its number.
const MARK: [u8; 4] = *b"TKLN";
const TRAILER_LEN: usize = 12;
/// IEEE 802 local experimental Ethernet type 1.
const EXPERIMENTAL: u16 = 0x88b5;
/// The least payload of an Ethernet frame.
const SHORTEST_PAYLOAD: usize = 46;

/// An address no other station has.
pub fn station() -> Mac {
    static COUNT: AtomicU64 = AtomicU64::new(1);
    let [_, _, _, b, c, d, e, f] = COUNT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    Mac::new([0x02, b, c, d, e, f])
}

/// A tag with its drop-eligible bit.
///
/// # Panics
/// On numbers out of range.
pub fn tag(tpid: Tpid, pcp: u8, dei: bool, vid: u16) -> Tag {
    let (pcp, vid) = (Pcp::new(pcp).expect("a priority"), Vid::new(vid).expect("a VLAN"));
    Tag::from_wire(tpid, u16::from(pcp.get()) << 13 | u16::from(dei) << 12 | vid.get())
}

/// A frame and its number.
#[derive(Clone, Debug)]
pub struct Frame {
    dst: Mac,
    src: Mac,
    tag: Option<Tag>,
    /// From the Ethernet type on, up to the trailer.
    body: Vec<u8>,
    id: u64,
}

impl Frame {
    /// An untagged frame of the least length, of no protocol that any host reacts to.
    pub fn new(src: Mac, dst: Mac) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(1);
        let mut body = EXPERIMENTAL.to_be_bytes().to_vec();
        body.resize(2 + SHORTEST_PAYLOAD - TRAILER_LEN, 0);
        Self { dst, src, tag: None, body, id: COUNT.fetch_add(1, Ordering::Relaxed) }
    }

    /// To all stations.
    pub fn broadcast(src: Mac) -> Self {
        Self::new(src, Mac::BROADCAST)
    }

    /// Another frame of the same form: same addresses, same tag, its own number.
    pub fn another(&self) -> Self {
        let mut frame = Self::new(self.src, self.dst);
        (frame.tag, frame.body) = (self.tag, self.body.clone());
        frame
    }

    /// With one tag.
    pub fn tagged(mut self, tag: impl Into<Option<Tag>>) -> Self {
        self.tag = tag.into();
        self
    }

    /// With `length` octets between the Ethernet type and the trailer.
    pub fn payload(mut self, length: usize) -> Self {
        self.body.resize(2 + length, 0x5a);
        self
    }

    /// A UDP datagram from 10.0.0.1 to 10.0.0.2, port 7, its checksum right or (`finished` false) as a sender leaves
    /// it that trusts in hardware: only the sum of the pseudo-header.
    pub fn udp(mut self, finished: bool) -> Self {
        let (addresses, ports) = ([10, 0, 0, 1, 10, 0, 0, 2], [0x30, 0x39, 0, 7]);
        let data_len = 32;
        let udp_len = u16::try_from(8 + data_len + TRAILER_LEN).expect("short");
        let ip_head = [&[0x45, 0][..], &(udp_len + 20).to_be_bytes(), &[0, 1, 0x40, 0, 64, 17]].concat();
        let ip_checksum = !sum(&[&ip_head[..], &addresses].concat());
        let udp_head = [&ports[..], &udp_len.to_be_bytes()].concat();
        let data = vec![0x5a; data_len];
        let pseudo = [&addresses[..], &[0, 17], &udp_len.to_be_bytes()].concat();
        let checksum = if finished {
            !sum(&[&pseudo[..], &udp_head, &[0, 0], &data, &trailer(self.id)].concat())
        } else {
            sum(&pseudo)
        };
        self.body = [
            &[0x08, 0x00][..],
            &ip_head,
            &ip_checksum.to_be_bytes(),
            &addresses,
            &udp_head,
            &checksum.to_be_bytes(),
            &data,
        ]
        .concat();
        self
    }

    /// The number.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// What follows the tags, Ethernet type included.
    pub fn body(&self) -> Vec<u8> {
        [&self.body[..], &trailer(self.id)].concat()
    }

    /// As on the wire, without the frame check sequence.
    pub fn bytes(&self) -> Vec<u8> {
        let tag = self.tag.map(Tag::to_bytes);
        [&self.dst.octets()[..], &self.src.octets(), tag.as_ref().map_or(&[], |tag| &tag[..]), &self.body()]
            .concat()
    }
}

fn trailer(id: u64) -> Vec<u8> {
    [&MARK[..], &id.to_be_bytes()].concat()
}

/// The number of a received frame; `None` for a frame that is not ours.
pub fn frame_id(bytes: &[u8]) -> Option<u64> {
    let (_, trailer) = bytes.split_last_chunk::<TRAILER_LEN>()?;
    let (mark, id) = trailer.split_first_chunk::<4>()?;
    (*mark == MARK).then(|| u64::from_be_bytes(id.try_into().expect("eight octets are left")))
}

/// The ones' complement sum (RFC 1071).
fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    u16::try_from(sum).expect("folded")
}

#[cfg(test)]
mod tests {
    use super::*;
    use trunkline_core::{L4Checksum, Payload, l4_checksum};

    #[test]
    fn frame_is_known_again_by_its_number() {
        let frame = Frame::new(station(), station()).tagged(tag(Tpid::Dot1Q, 5, true, 10));
        let bytes = frame.bytes();
        assert_eq!(bytes[12..16], [0x81, 0x00, 0xb0, 0x0a]);
        assert_eq!((bytes.len(), frame_id(&bytes)), (64, Some(frame.id())));
        assert_eq!(frame_id(&[0; 60]), None);
    }

    #[test]
    fn udp_checksum_is_finished_or_visibly_not() {
        let checksum = |finished| {
            let bytes = Frame::new(station(), station()).udp(finished).bytes();
            assert_eq!(sum(&bytes[14..34]), 0xffff);
            l4_checksum(&bytes[..], &Payload::of(&bytes[..]).expect("one"))
        };
        assert_eq!(checksum(true), L4Checksum::Complete);
        assert_eq!(checksum(false), L4Checksum::Partial);
    }
}
