//! Random cases. What is drawn are small numbers, so that a failing case shrinks to few ports, VLANs and frames.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use trunkline_core::Mac;

use super::{Case, MAX_PORTS, PortSettings, Step};

/// Frames of a case on average, without those that introduce its stations.
pub const FRAMES: usize = 40;

/// A runner for so many frames in all, as [`FRAMES`] says, on random cases that depend on nothing but the seed. A case that
/// fails is made smaller by proptest in `shrinking` steps at most; `Case::shrink` does the rest.
///
/// # Panics
/// When there are more frames than cases can be counted.
pub fn runner(seed: u64, frames: u64, shrinking: u32) -> TestRunner {
    let mut octets = [0; 32];
    octets[..8].copy_from_slice(&seed.to_le_bytes());
    let config = ProptestConfig {
        cases: u32::try_from(frames.div_ceil(FRAMES as u64)).expect("not so many"),
        failure_persistence: None,
        max_shrink_iters: shrinking,
        ..Default::default()
    };
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &octets))
}

/// VLANs at which rules change, and ordinary ones.
const VIDS: [u16; 7] = [0, 1, 2, 10, 100, 4094, 4095];
/// VLANs that a case's ports share, or frames would hardly ever be admitted anywhere.
const SHARED: usize = 3;
const STATIONS: u8 = 8;
const BROADCAST: Mac = Mac::BROADCAST;
const STRANGER: Mac = Mac::new([2, 0, 0, 0, 0, 0x99]);
/// Reserved destinations, and their neighbours that are not.
const SPECIAL: [[u8; 6]; 10] = [
    [0x01, 0x80, 0xc2, 0, 0, 0x00],
    [0x01, 0x80, 0xc2, 0, 0, 0x0e],
    [0x01, 0x80, 0xc2, 0, 0, 0x10],
    [0x00, 0xe0, 0x2b, 0, 0, 0x00],
    [0x00, 0xe0, 0x2b, 0, 0, 0x01],
    [0x00, 0xe0, 0x2b, 0, 0, 0x04],
    [0x01, 0x00, 0x0c, 0xcc, 0xcc, 0xc7],
    [0x01, 0x00, 0x0c, 0xcc, 0xcc, 0xc8],
    [0x01, 0x00, 0x5e, 0, 0, 1],
    [0x33, 0x33, 0, 0, 0, 1],
];

/// A VLAN of a case: one of the shared ones, or any.
#[derive(Clone, Copy, Debug)]
enum Vlan {
    Shared(usize),
    Any(u16),
}

#[derive(Clone, Debug)]
struct RawPort {
    mode: Option<&'static str>,
    tag: Option<Vlan>,
    trunks: Vec<Vlan>,
    priority_tags: Option<&'static str>,
    protected: bool,
    tap: bool,
}

#[derive(Clone, Copy, Debug)]
struct RawTag {
    service: bool,
    pcp: u8,
    dei: bool,
    vlan: Vlan,
}

#[derive(Clone, Copy, Debug)]
enum Destination {
    /// The station so many places further.
    Station(u8),
    Itself,
    Stranger,
    Address([u8; 6]),
}

#[derive(Clone, Debug)]
struct RawFrame {
    src: u8,
    group_src: bool,
    /// A port other than the station's own.
    away: Option<usize>,
    dst: Destination,
    tags: Vec<RawTag>,
    body: Vec<u8>,
    length: usize,
}

#[derive(Clone, Debug)]
struct RawStatic {
    early: bool,
    station: u8,
    port: usize,
    vlan: Vlan,
}

fn any_vlan() -> impl Strategy<Value = Vlan> {
    prop_oneof![
        9 => Just(Vlan::Shared(0)),
        6 => (1..SHARED).prop_map(Vlan::Shared),
        2 => select(&VIDS[..]).prop_map(Vlan::Any),
        1 => (0..4096_u16).prop_map(Vlan::Any),
    ]
}

fn any_port() -> impl Strategy<Value = RawPort> {
    let mode = prop_oneof![
        5 => Just(None),
        4 => Just(Some("trunk")),
        4 => Just(Some("native-tagged")),
        4 => Just(Some("native-untagged")),
        2 => Just(Some("access")),
        1 => Just(Some("dot1q-tunnel")),
    ];
    let tag = prop_oneof![3 => Just(None), 6 => any_vlan().prop_map(Some), 1 => Just(Some(Vlan::Any(0)))];
    let trunks = prop_oneof![
        4 => Just(Vec::new()),
        6 => vec(prop_oneof![6 => any_vlan(), 1 => Just(Vlan::Any(0)), 1 => Just(Vlan::Any(4095))], 1..5),
    ];
    let priority_tags = prop_oneof![
        4 => Just(None),
        4 => select(&["never", "if-nonzero", "always", "true"][..]).prop_map(Some),
    ];
    (mode, tag, trunks, priority_tags, proptest::bool::weighted(0.3), proptest::bool::weighted(0.3)).prop_map(
        |(mode, tag, trunks, priority_tags, protected, tap)| RawPort {
            mode,
            tag,
            trunks,
            priority_tags,
            protected,
            tap,
        },
    )
}

fn any_tag(vlan: impl Strategy<Value = Vlan>) -> impl Strategy<Value = RawTag> {
    let pcp = prop_oneof![Just(0_u8), 0..8_u8];
    (proptest::bool::weighted(0.25), pcp, proptest::bool::weighted(0.2), vlan)
        .prop_map(|(service, pcp, dei, vlan)| RawTag { service, pcp, dei, vlan })
}

fn any_tags() -> impl Strategy<Value = Vec<RawTag>> {
    prop_oneof![
        10 => Just(Vec::new()),
        6 => any_tag(Just(Vlan::Any(0))).prop_map(|tag| vec![tag]),
        20 => any_tag(any_vlan()).prop_map(|tag| vec![tag]),
        1 => vec(any_tag(any_vlan()), 2..4),
    ]
}

/// The type and what follows it: what no protocol knows, IPv4, ARP, LLC, LLDP, LACP, and tags of other protocols.
fn any_body() -> impl Strategy<Value = Vec<u8>> {
    let ethertype = select(&[0x0800_u16, 0x0806, 0x0026, 0x88cc, 0x8809, 0x9100, 0x86dd, 0x8100][..]);
    prop_oneof![
        6 => Just(vec![0xab, 0xcd]),
        2 => (ethertype, vec(any::<u8>(), 0..24)).prop_map(|(ethertype, rest)| {
            [&ethertype.to_be_bytes()[..], &rest].concat()
        }),
        2 => (select(&[1_u8, 6, 17, 47][..]), vec(any::<u8>(), 16)).prop_map(|(protocol, rest)| {
            [&[8, 0, 0x45, 0, 0, 46, 0, 1, 0x40, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2][..], &rest].concat()
        }),
    ]
}

fn any_frame() -> impl Strategy<Value = RawFrame> {
    let dst = prop_oneof![
        30 => (1..STATIONS).prop_map(Destination::Station),
        1 => Just(Destination::Itself),
        2 => Just(Destination::Stranger),
        2 => select(&SPECIAL[..]).prop_map(Destination::Address),
        1 => Just(Destination::Address(BROADCAST.octets())),
    ];
    let away = prop_oneof![9 => Just(None), 1 => (0..MAX_PORTS).prop_map(Some)];
    let length = prop_oneof![12 => Just(60_usize), 1 => 14..24_usize, 1 => 1500..1530_usize];
    let group_src = proptest::bool::weighted(0.02);
    (0..STATIONS, group_src, away, dst, any_tags(), any_body(), length).prop_map(
        |(src, group_src, away, dst, tags, body, length)| RawFrame {
            src,
            group_src,
            away,
            dst,
            tags,
            body,
            length,
        },
    )
}

fn any_static() -> impl Strategy<Value = RawStatic> {
    (any::<bool>(), 0..=STATIONS, 0..MAX_PORTS, any_vlan())
        .prop_map(|(early, station, port, vlan)| RawStatic { early, station, port, vlan })
}

/// A random case: stations that introduce themselves by broadcasts in the VLANs of their ports, an operator's entries,
/// and frames between them.
pub fn any_case() -> impl Strategy<Value = Case> {
    let introductions = vec(prop_oneof![1 => 0..16_u8, 3 => Just(15_u8)], usize::from(STATIONS));
    let flooded = prop_oneof![7 => Just(Vec::new()), 1 => vec(any_vlan(), 1..3)];
    (
        subsequence(VIDS.to_vec(), SHARED),
        vec(any_port(), 3..=MAX_PORTS),
        flooded,
        introductions,
        vec(any_static(), 0..4),
        vec(any_frame(), 1..2 * FRAMES),
    )
        .prop_map(|(shared, ports, flooded, introductions, statics, frames)| {
            let world = Shape { shared, ports: ports.len() };
            let vids = |vlans: &[Vlan]| vlans.iter().map(|vlan| world.vid(*vlan)).collect::<BTreeSet<u16>>();
            let early = statics.iter().filter(|entry| entry.early).map(|entry| world.entry(entry));
            let late = statics.iter().filter(|entry| !entry.early).map(|entry| world.entry(entry));
            let introductions = (0..STATIONS).zip(introductions).flat_map(|(n, how)| world.introduce(n, how));
            let frames = frames.iter().map(|frame| world.frame(frame));
            let settings = |port: &RawPort| PortSettings {
                vlan_mode: port.mode.map(str::to_owned),
                tag: port.tag.map(|vlan| world.vid(vlan)),
                trunks: vids(&port.trunks),
                priority_tags: port.priority_tags.map(str::to_owned),
                protected: port.protected,
                tap: port.tap,
            };
            Case {
                about: String::new(),
                ports: ports.iter().map(settings).collect(),
                flood_vlans: vids(&flooded),
                steps: early.chain(introductions).chain(late).chain(frames).collect(),
            }
        })
}

/// What the numbers of a case stand for.
struct Shape {
    shared: Vec<u16>,
    ports: usize,
}

impl Shape {
    fn vid(&self, vlan: Vlan) -> u16 {
        match vlan {
            Vlan::Shared(place) => self.shared[place],
            Vlan::Any(vid) => vid,
        }
    }

    /// The port number, from 1.
    fn port(&self, place: usize) -> usize {
        place % self.ports + 1
    }

    fn entry(&self, entry: &RawStatic) -> Step {
        let mac = if entry.station == STATIONS { STRANGER } else { station(entry.station) };
        Step::fixed(self.port(entry.port), self.vid(entry.vlan), mac)
    }

    /// Broadcasts of a station from its port: without a tag (bit 0 of `how`) and in the shared VLANs (bits 1 to 3).
    fn introduce(&self, n: u8, how: u8) -> Vec<Step> {
        let in_vlan = |vid: u16| [0x81, 0, (vid >> 8) as u8, vid as u8].to_vec();
        let tags = [Vec::new()].into_iter().chain(self.shared.iter().map(|vid| in_vlan(*vid)));
        let chosen = (0..).zip(tags).filter(|(bit, _)| how & 1 << bit != 0);
        let frame = |tag: Vec<u8>| {
            [&BROADCAST.octets()[..], &station(n).octets(), &tag, &[0xab, 0xcd], &[0; 46]].concat()
        };
        chosen.map(|(_, tag)| Step::frame(self.port(usize::from(n)), &frame(tag))).collect()
    }

    fn frame(&self, frame: &RawFrame) -> Step {
        let mut src = station(frame.src);
        let dst = match frame.dst {
            Destination::Station(further) => station((frame.src + further) % STATIONS),
            Destination::Itself => src,
            Destination::Stranger => STRANGER,
            Destination::Address(address) => Mac::new(address),
        };
        src = Mac::from_u64(src.as_u64() | u64::from(frame.group_src) << 40);
        let tags: Vec<u8> = frame.tags.iter().flat_map(|tag| self.tag(*tag)).collect();
        let mut bytes = [&dst.octets()[..], &src.octets(), &tags, &frame.body].concat();
        bytes.resize(frame.length, 0);
        Step::frame(self.port(frame.away.unwrap_or(usize::from(frame.src))), &bytes)
    }

    fn tag(&self, tag: RawTag) -> [u8; 4] {
        let [a, b] = if tag.service { [0x88, 0xa8] } else { [0x81, 0x00] };
        let [c, d] = (u16::from(tag.pcp) << 13 | u16::from(tag.dei) << 12 | self.vid(tag.vlan)).to_be_bytes();
        [a, b, c, d]
    }
}

/// The last one has the address of zeros, which Open vSwitch learns like any other.
fn station(n: u8) -> Mac {
    if n + 1 == STATIONS { Mac::new([0; 6]) } else { Mac::new([2, 0, 0, 0, 0, n + 1]) }
}
