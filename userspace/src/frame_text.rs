//! A frame as people write it down for `trunkline trace`: in hexadecimal, from the destination address on.

use trunkline_core::Tpid;

/// Octets of both addresses and the type, without which a frame is none; the kernel runs no program on less
/// (`ETH_HLEN`).
const HEADER: usize = 14;
/// Octets that a tag adds.
const TAG: usize = 4;
/// Octets in front of the type, or of the first tag.
const ADDRESSES: usize = 12;
/// Most octets of a frame: above jumbo frames, and below what a request to the agent holds.
const LONGEST: usize = 16_384;

/// Octets as hexadecimal digits.
pub(crate) fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// Reads a frame. Blanks and colons between octets are fine.
///
/// # Errors
/// A sentence that says what is missing.
pub(crate) fn parse(text: &str) -> Result<Vec<u8>, String> {
    let Some(frame) = unhex(text) else {
        return Err(format!("{text:?} is not a frame: write pairs of hexadecimal digits"));
    };
    let tagged = frame.get(ADDRESSES..).and_then(<[u8]>::first_chunk).map(|field| u16::from_be_bytes(*field));
    let tag = if tagged.and_then(Tpid::from_ethertype).is_some() { TAG } else { 0 };
    match frame.len() {
        length if length < HEADER + tag => Err(format!(
            "{length} octets are not a frame, which has {} at least: two addresses, {} and any payload; add what is \
             missing, or give --dst and --src instead",
            HEADER + tag,
            if tag == 0 { "a type" } else { "a tag, a type" },
        )),
        length if length > LONGEST => Err(format!(
            "{length} octets are too many for a frame, which has {LONGEST} at most: shorten the payload, of which only \
             the length matters"
        )),
        _ => Ok(frame),
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace() && *byte != b':').collect();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let octet = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.chunks(2).map(|pair| pair.iter().all(u8::is_ascii_hexdigit).then(|| octet(pair))?).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNTAGGED: &str = "02:00:00:00:00:01 02:00:00:00:00:02 0800";
    const TAGGED: &str = "020000000001020000000002 8100000a 0800";

    #[test]
    fn hexadecimal_round_trips_and_refuses_the_rest() {
        assert_eq!(unhex("00:1f ff"), Some(vec![0, 0x1f, 0xff]));
        assert_eq!(unhex(&hex(&[1, 2, 0xab])), Some(vec![1, 2, 0xab]));
        for text in ["0", "+1", "zz", "0x01"] {
            assert_eq!(unhex(text), None, "{text}");
        }
    }

    #[test]
    fn the_shortest_frame_has_a_whole_header() {
        assert_eq!(parse(UNTAGGED).map(|frame| frame.len()), Ok(14));
        assert_eq!(parse(TAGGED).map(|frame| frame.len()), Ok(18));
        let error = parse("02000000000102000000").unwrap_err();
        assert!(
            error.starts_with("10 octets are not a frame, which has 14 at least: two addresses, a type"),
            "{error}"
        );
        let error = parse(&TAGGED[..TAGGED.len() - 2]).unwrap_err();
        assert!(
            error.starts_with("17 octets are not a frame, which has 18 at least: two addresses, a tag"),
            "{error}"
        );
        assert!(parse("").unwrap_err().contains("0 octets"));
        assert!(parse("no frame").unwrap_err().contains("hexadecimal"));
    }

    #[test]
    fn the_longest_frame_fits_into_a_request() {
        let frame = |length| [UNTAGGED, &"00".repeat(length - HEADER)].concat();
        assert!(parse(&frame(LONGEST)).is_ok());
        assert!(parse(&frame(LONGEST + 1)).unwrap_err().contains("16384 at most"));
        assert!(2 * LONGEST as u64 + 1024 < crate::control::LONGEST_REQUEST);
    }
}
