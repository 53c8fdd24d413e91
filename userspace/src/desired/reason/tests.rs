use std::collections::BTreeSet;

use super::*;

/// The codes in the first column of the table of reasons in docs/operations.md.
fn documented() -> BTreeSet<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operations.md");
    let text = std::fs::read_to_string(path).unwrap();
    let table = text.lines().skip_while(|line| !line.starts_with("| `reason_code` |"));
    let rows = table.skip(2).take_while(|line| line.starts_with('|'));
    let codes = rows.flat_map(|row| row.split('|').nth(1).unwrap_or_default().split(','));
    codes.map(|code| code.trim().trim_matches('`').to_owned()).collect()
}

#[test]
fn codes_are_unique_and_in_snake_case() {
    let codes = Reason::codes();
    let unique: BTreeSet<_> = codes.iter().collect();
    assert_eq!(unique.len(), codes.len(), "{codes:?}");
    for code in codes {
        let mut words = code.split('_');
        let is_word = |word: &str| {
            !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
        };
        assert!(words.all(is_word) && code.starts_with(|c: char| c.is_ascii_lowercase()), "{code}");
    }
}

#[test]
fn every_code_is_documented_and_no_other() {
    let codes: BTreeSet<String> = Reason::codes().into_iter().map(str::to_owned).collect();
    assert_eq!(documented(), codes);
}

#[test]
fn a_reason_has_its_causes_in_its_sentence_and_a_code_of_its_own() {
    let device = Reason::Device(NoXdp::PeerMtu { mtu: 9000, limit: 3506 });
    assert_eq!(device.code(), "peer_mtu");
    let word = "xdp".to_owned();
    let unavailable = Reason::HookUnavailable { word, cause: Box::new(device) };
    assert_eq!(unavailable.code(), "hook_unavailable");
    assert_eq!(
        unavailable.to_string(),
        "external_ids:trunkline-hook=xdp cannot be had: the veth peer's MTU 9000 is above 3506, the most XDP can \
         take"
    );
    let of_bridge = Reason::OfBridge {
        bridge: "br0".to_owned(),
        cause: Box::new(Reason::Stp { bridge: "br0".to_owned() }),
    };
    assert_eq!(of_bridge.code(), "bridge_not_accelerated");
    assert_eq!(
        of_bridge.to_string(),
        "bridge br0: spanning tree decides about its ports (Bridge.stp_enable); \
         `ovs-vsctl set bridge br0 stp_enable=false` ends that"
    );
}
