//! The flow cache alone: keys, actions and sets.

use super::*;
use crate::{Mac, Pcp, Start, Tpid};

const A: Mac = Mac::new([2, 0, 0, 0, 0, 1]);
const B: Mac = Mac::new([2, 0, 0, 0, 0, 2]);

/// A frame's start, with `rest` after its addresses.
fn start(dst: Mac, src: Mac, rest: [u8; 6]) -> Start {
    let octets = [&dst.octets()[..], &src.octets(), &rest].concat();
    Start::read(octets.first_chunk().unwrap())
}

fn key(rest: [u8; 6], ifindex: u32) -> FlowKey {
    key_of(start(A, B, rest), ifindex, Hook::Xdp)
}

fn key_of(start: Start, ifindex: u32, hook: Hook) -> FlowKey {
    FlowKey::new(start.split().0, ifindex, hook)
}

const UNTAGGED: [u8; 6] = [8, 0, 0x45, 0, 0x81, 0];

fn tagged(tpid: [u8; 2], tci: u16) -> [u8; 6] {
    let [high, low] = tci.to_be_bytes();
    [tpid[0], tpid[1], high, low, 8, 0]
}

#[test]
fn each_tag_hook_and_device_has_a_key_of_its_own() {
    let (customer, service) = ([0x81, 0], [0x88, 0xa8]);
    let keys = [
        key(UNTAGGED, 7),
        key(UNTAGGED, 8),
        key(tagged(customer, 0), 7),
        key(tagged(service, 0), 7),
        key(tagged(customer, 0x1000), 7),
        key(tagged(customer, 0x200a), 7),
        key(tagged(customer, 0xffff), 7),
        key_of(start(A, B, UNTAGGED), 7, Hook::Tc),
        key_of(start(B, A, UNTAGGED), 7, Hook::Xdp),
    ];
    for (place, a) in keys.iter().enumerate() {
        assert!(keys[place + 1..].iter().all(|b| a != b), "{a:?}");
    }
    for stacked in [[0x81, 0, 0, 1, 0x88, 0xa8], [0x88, 0xa8, 0, 1, 0x81, 0]] {
        assert!(start(A, B, stacked).split().1.is_none());
    }
}

#[test]
fn payload_is_not_part_of_a_key() {
    assert_eq!(key([8, 0, 0x45, 0, 0, 84], 7), key([8, 0, 0x45, 0xb8, 0x81, 0], 7));
    assert_eq!(key([0x81, 0, 0, 9, 8, 0], 7), key([0x81, 0, 0, 9, 0x86, 0xdd], 7));
}

#[test]
fn neighbouring_addresses_have_places_of_their_own() {
    type Pair = fn(Mac) -> [Mac; 2];
    let pairs: [Pair; 3] = [|mac| [mac, A], |mac| [A, mac], |mac| [mac, mac]];
    for (rest, pair) in pairs.iter().flat_map(|pair| [(UNTAGGED, pair), (tagged([0x81, 0], 9), pair)]) {
        let mut places = std::collections::BTreeSet::new();
        for low in 0..256_u32 {
            let [.., a, b] = low.to_be_bytes();
            let [dst, src] = pair(Mac::new([2, 0, 0, 0, a, b]));
            let key = key_of(start(dst, src, rest), 7, Hook::Xdp);
            places.insert(key.hash() >> (64 - 14));
        }
        assert!(places.len() > 230, "{}", places.len());
    }
}

fn found(tag: TagOp) -> Found {
    let vid = Vid::new(4095).unwrap();
    Found { ingress: 3, egress: 1023, vid, tag, longest: 9018, checks: Checks::new(true, false) }
}

#[test]
fn a_cached_action_is_as_it_was_found() {
    let tags = [Tpid::Dot1Q, Tpid::Dot1Ad].into_iter().flat_map(|tpid| {
        [(0, 5), (1, 0), (100, 7), (4095, 0)]
            .map(|(vid, pcp)| Tag::new(tpid, Pcp::new(pcp).unwrap(), Vid::new(vid).unwrap()))
    });
    let edits = tags.flat_map(|tag| [TagOp::Push(tag), TagOp::Replace(tag)]);
    for edit in edits.chain([TagOp::Keep, TagOp::Pop]) {
        let vids = match edit {
            // A tag that is written has the frame's VLAN, or none.
            TagOp::Push(tag) | TagOp::Replace(tag) if tag.vid() != Vid::ZERO => vec![tag.vid()],
            _ => [0, 1, 77, 4095].map(|vid| Vid::new(vid).unwrap()).to_vec(),
        };
        for vid in vids {
            for checks in [(false, false), (true, false), (false, true), (true, true)] {
                let found = Found { vid, checks: Checks::new(checks.0, checks.1), ..found(edit) };
                let action = abi::CachedAction::new(&found);
                assert_eq!((action.ingress(), action.egress(), action.longest), (3, 1023, 9018));
                assert_eq!((action.edit(), action.vid(), action.checks()), (edit, vid, found.checks));
                let told = (action.checks().partial_checksums(), action.checks().leaves_tcp());
                assert_eq!(told, checks);
            }
        }
    }
    assert_eq!(abi::CachedAction::new(&Found { longest: 65_553, ..found(TagOp::Keep) }).longest, 65_535);
}

/// The action for frames from device `n`.
fn to(n: u16) -> abi::CachedAction {
    abi::CachedAction::new(&Found { egress: n, ..found(TagOp::Keep) })
}

#[test]
fn a_flow_is_remembered_for_its_key_and_as_long_as_it_is_valid() {
    let (this, other) = (key(UNTAGGED, 7), key(UNTAGGED, 8));
    for start in [0, 1 << 32, (1 << 32) - 500] {
        let mut set = abi::FlowSet::default();
        assert_eq!(set.find(&this, 0, 0), None);
        let until = start + 1000;
        set.insert(&this, Validity { generation: 9, until }, start, to(7), || unreachable!());
        assert_eq!(set.find(&this, 9, until - 1), Some(&to(7)));
        assert_eq!(set.find(&other, 9, until - 1), None);
        for (generation, ticks) in [(9, until), (8, until - 1), (10, until - 1), (9, until + (1 << 31))] {
            assert_eq!(set.find(&this, generation, ticks), None);
        }
    }
}

#[test]
fn two_flows_share_a_set_and_give_way_now_and_then() {
    let [a, b, c] = [7, 8, 9].map(|device| key(UNTAGGED, device));
    let validity = Validity { generation: 9, until: 1000 };
    let mut set = abi::FlowSet::default();
    set.insert(&a, validity, 500, to(7), || unreachable!());
    set.insert(&b, validity, 500, to(8), || unreachable!());
    let of = |set: &abi::FlowSet| [a, b, c].map(|key| set.find(&key, 9, 500).map(abi::CachedAction::egress));
    assert_eq!(of(&set), [Some(7), Some(8), None]);
    for random in 1..8 {
        set.insert(&c, validity, 500, to(9), || random);
        assert_eq!(of(&set), [Some(7), Some(8), None]);
    }
    let full = set;
    set.insert(&c, validity, 500, to(9), || 0);
    assert_eq!(of(&set), [None, Some(8), Some(9)]);
    set = full;
    set.insert(&c, validity, 500, to(9), || 8);
    assert_eq!(of(&set), [Some(7), None, Some(9)]);
    // In another generation, or another second, the first flow takes the whole set.
    set.insert(&a, Validity { generation: 10, until: 1000 }, 500, to(7), || unreachable!());
    assert_eq!([a, b, c].map(|key| set.find(&key, 10, 500).is_some()), [true, false, false]);
    set = full;
    set.insert(&c, Validity { generation: 9, until: 2000 }, 1000, to(9), || unreachable!());
    assert_eq!([a, b, c].map(|key| set.find(&key, 9, 1000).is_some()), [false, false, true]);
}
