//! The frame of `trunkline trace`, from its fields.

use std::str::FromStr;

use trunkline_core::{Mac, Pcp, Tag, Tpid, Vid};

use crate::frame_text;

/// Shortest frame on an Ethernet, without the FCS, in octets.
const SHORTEST: usize = 60;
/// A type for local experiments (IEEE 802 clause 9.2.4).
const LOCAL_EXPERIMENT: [u8; 2] = [0x88, 0xb5];

/// A tag as `VID` or `VID:PCP`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VlanTag(Tag);

impl FromStr for VlanTag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (vid, pcp) = text.split_once(':').unwrap_or((text, "0"));
        let vid =
            vid.parse().ok().and_then(Vid::new).ok_or_else(|| format!("{vid} is no VLAN: 0 to 4095"))?;
        let pcp =
            pcp.parse().ok().and_then(Pcp::new).ok_or_else(|| format!("{pcp} is no priority: 0 to 7"))?;
        Ok(Self(Tag::new(Tpid::Dot1Q, pcp, vid)))
    }
}

/// A shortest frame with these fields, in hexadecimal.
pub(super) fn hex(dst: Mac, src: Mac, tags: &[VlanTag]) -> String {
    let mut frame = [dst.octets(), src.octets()].concat();
    frame.extend(tags.iter().flat_map(|tag| tag.0.to_bytes()));
    frame.extend(LOCAL_EXPERIMENT);
    frame.resize(frame.len().max(SHORTEST), 0);
    frame_text::hex(&frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_read_and_checked() {
        assert_eq!("100:5".parse::<VlanTag>().unwrap().0.to_bytes(), [0x81, 0, 0xa0, 100]);
        assert_eq!("7".parse::<VlanTag>().unwrap().0.to_bytes(), [0x81, 0, 0, 7]);
        for text in ["4096", "1:8", "", "x", "1:"] {
            assert!(text.parse::<VlanTag>().is_err(), "{text}");
        }
    }

    #[test]
    fn tags_stand_between_addresses_and_type() {
        let mac = Mac::new([2, 0, 0, 0, 0, 1]);
        let text = hex(mac, mac, &["3".parse().unwrap(), "4".parse().unwrap()]);
        assert!(text.starts_with("020000000001020000000001810000038100000488b5"), "{text}");
        assert_eq!(text.len(), 120);
    }
}
