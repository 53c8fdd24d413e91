//! Device features (`ethtool -k` and `-K`) over the `ethtool` family (Linux 5.6,
//! `Documentation/networking/ethtool-netlink.rst`).
//!
//! Features are asked for as compact bitsets: names for every bit of every device are kilobytes each. Which bit
//! is which differs between kernels and is asked once.

use std::collections::BTreeMap;

use genetlink::GenetlinkHandle;

use super::LinkError;
use super::genl::{self, Family, attributes, find, number, put, put_nest};

const STRSET_GET: u8 = 1;
const FEATURES_GET: u8 = 11;
const FEATURES_SET: u8 = 12;

const HEADER: u16 = 1;
const HEADER_DEV_INDEX: u16 = 1;
const HEADER_FLAGS: u16 = 3;
const FLAG_COMPACT_BITSETS: u32 = 1;

const STRSET_STRINGSETS: u16 = 2;
const STRINGSETS_STRINGSET: u16 = 1;
const STRINGSET_ID: u16 = 1;
const STRINGSET_STRINGS: u16 = 3;
const STRINGS_STRING: u16 = 1;
const STRING_INDEX: u16 = 1;
const STRING_VALUE: u16 = 2;
/// `ETH_SS_FEATURES`.
const SET_OF_FEATURES: u32 = 4;

const FEATURES_WANTED: u16 = 3;
const FEATURES_ACTIVE: u16 = 4;
const BITSET_BITS: u16 = 3;
const BITSET_VALUE: u16 = 4;
const BITS_BIT: u16 = 1;
const BIT_NAME: u16 = 2;
const BIT_VALUE: u16 = 3;

const RX_VLAN: &str = "rx-vlan-hw-parse";
const RX_STAG: &str = "rx-vlan-stag-hw-parse";
const TX_VLAN: &str = "tx-vlan-hw-insert";
const GRO: &str = "rx-gro";

/// The family, and the group that announces changed features.
#[derive(Clone, Debug)]
pub(super) enum Ethtool {}

impl Family for Ethtool {
    const NAME: &'static str = "ethtool";
}

pub(super) const GROUP: &str = "monitor";

/// The bit numbers of the features that matter here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bits {
    rx_vlan: Option<u32>,
    rx_stag: Option<u32>,
    tx_vlan: Option<u32>,
    gro: Option<u32>,
}

/// Whether those features are active; `None`: this kernel does not know the feature.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Features {
    pub(super) rx_vlan: Option<bool>,
    pub(super) rx_stag: Option<bool>,
    pub(super) tx_vlan: Option<bool>,
    pub(super) gro: Option<bool>,
}

/// The kernel's bit numbers; none of them on a kernel without the family.
pub(super) async fn bits(handle: &mut GenetlinkHandle) -> Result<Bits, LinkError> {
    let mut request = Vec::new();
    put_nest(&mut request, HEADER, |_| {});
    put_nest(&mut request, STRSET_STRINGSETS, |sets| {
        put_nest(sets, STRINGSETS_STRINGSET, |set| put(set, STRINGSET_ID, &SET_OF_FEATURES.to_ne_bytes()));
    });
    let answers = genl::ask::<Ethtool>(handle, STRSET_GET, request, "names of device features").await?;
    let mut bits = Bits::default();
    for answer in answers.unwrap_or_default() {
        read_names(&answer, &mut bits);
    }
    Ok(bits)
}

fn read_names(answer: &[u8], bits: &mut Bits) {
    let sets = find(answer, STRSET_STRINGSETS).unwrap_or_default();
    let strings =
        find(sets, STRINGSETS_STRINGSET).and_then(|set| find(set, STRINGSET_STRINGS)).unwrap_or_default();
    for (_, string) in attributes(strings).filter(|(kind, _)| *kind == STRINGS_STRING) {
        let index = find(string, STRING_INDEX).and_then(number);
        let name = find(string, STRING_VALUE).unwrap_or_default();
        match std::str::from_utf8(name.strip_suffix(b"\0").unwrap_or(name)) {
            Ok(RX_VLAN) => bits.rx_vlan = index,
            Ok(RX_STAG) => bits.rx_stag = index,
            Ok(TX_VLAN) => bits.tx_vlan = index,
            Ok(GRO) => bits.gro = index,
            _ => {}
        }
    }
}

/// The active features of all devices by ifindex.
pub(super) async fn all(
    handle: &mut GenetlinkHandle,
    bits: Bits,
) -> Result<BTreeMap<u32, Features>, LinkError> {
    let answers =
        genl::dump::<Ethtool>(handle, FEATURES_GET, question(None), "dump of device features").await?;
    Ok(answers.unwrap_or_default().iter().filter_map(|answer| parse(answer, bits)).collect())
}

/// Switches the taking off of received 802.1Q tags on or off, and says whether it was on.
///
/// Off is what a program needs that reads tags in the frame. The driver is asked afterwards what came of it.
///
/// # Errors
/// The device is gone ([`LinkError::is_absent`]), the kernel refuses, or the driver has the feature fixed.
pub async fn set_rx_vlan_offload(ifindex: u32, on: bool) -> Result<bool, LinkError> {
    const WHAT: &str = "switching rx-vlan-offload";
    let mut handle = genl::open()?;
    let bits = bits(&mut handle).await?;
    let unknown =
        || LinkError::Broken { what: WHAT, cause: "the kernel does not know the feature".to_owned() };
    let was = one(&mut handle, ifindex, bits).await?.rx_vlan.ok_or_else(unknown)?;
    if was == on {
        return Ok(was);
    }
    genl::ask::<Ethtool>(&mut handle, FEATURES_SET, switch(ifindex, RX_VLAN, on), WHAT)
        .await?
        .ok_or_else(unknown)?;
    match one(&mut handle, ifindex, bits).await?.rx_vlan {
        Some(is) if is == on => Ok(was),
        _ => Err(LinkError::Fixed { ifindex, wanted: if on { "on" } else { "off" } }),
    }
}

async fn one(handle: &mut GenetlinkHandle, ifindex: u32, bits: Bits) -> Result<Features, LinkError> {
    let answers =
        genl::ask::<Ethtool>(handle, FEATURES_GET, question(Some(ifindex)), "device features").await?;
    let answers = answers.unwrap_or_default();
    Ok(answers
        .iter()
        .find_map(|answer| parse(answer, bits))
        .map(|(_, features)| features)
        .unwrap_or_default())
}

fn question(ifindex: Option<u32>) -> Vec<u8> {
    let mut request = Vec::new();
    put_nest(&mut request, HEADER, |header| {
        if let Some(ifindex) = ifindex {
            put(header, HEADER_DEV_INDEX, &ifindex.to_ne_bytes());
        }
        put(header, HEADER_FLAGS, &FLAG_COMPACT_BITSETS.to_ne_bytes());
    });
    request
}

fn switch(ifindex: u32, name: &str, on: bool) -> Vec<u8> {
    let mut request = Vec::new();
    put_nest(&mut request, HEADER, |header| put(header, HEADER_DEV_INDEX, &ifindex.to_ne_bytes()));
    put_nest(&mut request, FEATURES_WANTED, |bitset| {
        put_nest(bitset, BITSET_BITS, |bits| {
            put_nest(bits, BITS_BIT, |bit| {
                put(bit, BIT_NAME, &[name.as_bytes(), b"\0"].concat());
                if on {
                    put(bit, BIT_VALUE, &[]);
                }
            });
        });
    });
    request
}

fn parse(answer: &[u8], bits: Bits) -> Option<(u32, Features)> {
    let ifindex = number(find(find(answer, HEADER)?, HEADER_DEV_INDEX)?)?;
    let active = find(find(answer, FEATURES_ACTIVE)?, BITSET_VALUE)?;
    let test = |bit: Option<u32>| -> Option<bool> {
        let bit = usize::try_from(bit?).ok()?;
        let word = active.get(bit / 32 * 4..bit / 32 * 4 + 4).and_then(number)?;
        Some(word >> (bit % 32) & 1 == 1)
    };
    let features = Features {
        rx_vlan: test(bits.rx_vlan),
        rx_stag: test(bits.rx_stag),
        tx_vlan: test(bits.tx_vlan),
        gro: test(bits.gro),
    };
    Some((ifindex, features))
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;

    #[test]
    fn bit_numbers_come_from_the_kernels_names() {
        #[rustfmt::skip]
        let answer = [
            60, 0, 2, 0x80, 56, 0, 1, 0x80,
            8, 0, 1, 0, 4, 0, 0, 0,
            44, 0, 3, 0x80,
            24, 0, 1, 0x80, 8, 0, 1, 0, 14, 0, 0, 0, 11, 0, 2, 0, b'r', b'x', b'-', b'g', b'r', b'o', 0, 0,
            16, 0, 1, 0x80, 8, 0, 1, 0, 15, 0, 0, 0, 4, 0, 2, 0,
        ];
        let mut bits = Bits::default();
        read_names(&answer, &mut bits);
        assert_eq!(bits, Bits { gro: Some(14), ..Bits::default() });
    }

    #[test]
    fn active_features_are_read_from_a_compact_bitset() {
        #[rustfmt::skip]
        let answer = [
            16, 0, 1, 0x80, 8, 0, 1, 0, 7, 0, 0, 0, 4, 0, 2, 0,
            28, 0, 4, 0x80, 4, 0, 1, 0, 8, 0, 2, 0, 40, 0, 0, 0, 12, 0, 4, 0, 0, 0x40, 0, 0, 0x02, 0, 0, 0,
        ];
        let bits = Bits { rx_vlan: Some(33), rx_stag: Some(32), tx_vlan: Some(64), gro: Some(14) };
        let features = Features { rx_vlan: Some(true), rx_stag: Some(false), tx_vlan: None, gro: Some(true) };
        assert_eq!(parse(&answer, bits), Some((7, features)));
        assert_eq!(parse(&answer[..16], bits), None, "no bitset");
    }

    #[test]
    fn a_feature_is_switched_by_name() {
        #[rustfmt::skip]
        let expected = [
            12, 0, 1, 0x80, 8, 0, 1, 0, 7, 0, 0, 0,
            28, 0, 3, 0x80, 24, 0, 3, 0x80, 20, 0, 1, 0x80,
            11, 0, 2, 0, b'r', b'x', b'-', b'g', b'r', b'o', 0, 0,
            4, 0, 3, 0,
        ];
        assert_eq!(switch(7, GRO, true), expected);
        assert_eq!(switch(7, GRO, false).len(), expected.len() - 4);
    }
}
