//! Every pair of kinds, access and trunk, talking both ways: with the agent, whatever works without it, and nothing in a
//! VLAN where it does not belong.

use std::time::Duration;

use trunkline_tests::{
    BRIDGE, End, Guest, GuestKind, Netns, Place, Relayed, Switch, Vlan, per_port, ping, tcp, udp,
    udp_segmented,
};

use crate::bystander::Bystander;
use crate::skip::kernel_datapath;

const VID: u16 = 10;
const TRANSFER: usize = 2 << 20;
/// Two subnets of one VLAN: the host has two ports in it, and must know by which of them it reaches whom.
const NET: u8 = 10;
const HOSTS_TRUNK_NET: u8 = 11;

/// A guest, and the subnets in which it has addresses.
struct Party {
    guest: Guest,
    number: u8,
    nets: &'static [u8],
}

impl Party {
    fn at(&self, net: u8) -> Place<'_> {
        self.guest.at(net, self.number)
    }

    fn name(&self) -> &str {
        self.guest.port()
    }

    /// Whether it is the bridge's own port, of which there is no second.
    fn is_host_trunk(&self) -> bool {
        self.guest.port() == BRIDGE
    }
}

/// One switch with two parties of every kind, and two that have nothing to do with them.
struct Scene {
    ones: Vec<Party>,
    others: Vec<Party>,
    bystander: Bystander,
    stranger: Bystander,
    switch: Switch,
}

fn scene() -> Scene {
    use GuestKind::{Internal, Macvtap, MovedInternal, Tap, Veth};
    let access = [("tap", Tap), ("veth", Veth), ("int", Internal), ("mvt", Macvtap)];
    let trunk = [("tapt", Tap), ("uplink", Veth), ("intt", MovedInternal), ("mvtt", Macvtap)];
    let mut switch = Switch::new();
    quiet_arp(switch.netns());
    // A kind's second guest is like the first, but for the host, which is only one.
    let second = |kind| if kind == Internal { MovedInternal } else { kind };
    let mut parties = [Vec::new(), Vec::new()];
    for (name, kind, vlan) in access
        .map(|(name, kind)| (name, kind, Vlan::Access(VID)))
        .into_iter()
        .chain(trunk.map(|(name, kind)| (name, kind, Vlan::Trunk(vec![]))))
    {
        for (place, kind) in [kind, second(kind)].into_iter().enumerate() {
            let port = format!("{name}{}", place + 1);
            let guest = Guest::connect(&switch, BRIDGE, kind, &port, &vlan);
            let nets: &[u8] = if kind == Internal { &[NET] } else { &[NET, HOSTS_TRUNK_NET] };
            parties[place].push((guest, vlan != Vlan::Access(VID), nets));
        }
    }
    let [mut ones, others] = parties;
    // The bridge's own port, a trunk, with an 802.1Q device on top.
    switch.netns().run(&format!("ip link set {BRIDGE} up"));
    ones.push((Guest::host(switch.netns(), BRIDGE), true, &[HOSTS_TRUNK_NET]));
    let mut number = 0;
    let [ones, others] = [ones, others].map(|parties| {
        let addressed = parties.into_iter().map(|(guest, tagged, nets)| {
            number += 1;
            tagged.then(|| guest.stack_vlan(VID));
            for net in nets {
                guest.address(tagged.then_some(VID), *net, number);
            }
            Party { guest, number, nets }
        });
        addressed.collect()
    });
    let bystander = Bystander::new(&mut switch, "bystander", VID);
    let stranger = Bystander::new(&mut switch, "stranger", VID + 10);
    Scene { ones, others, bystander, stranger, switch }
}

/// An address is asked for, and answered, only at its own device, although the host has several in the VLAN.
fn quiet_arp(netns: &Netns) {
    netns.run("sysctl -q net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2");
}

/// All that two can say to each other; what failed.
fn talk(one: Place<'_>, other: Place<'_>) -> Vec<String> {
    let mut results = vec![
        ping(one.v4(), other.v4()),
        udp(one.v4(), other.v4()),
        udp_segmented(one.v4(), other.v4()),
        udp_segmented(other.v6(), one.v6()),
    ];
    for end in FAMILIES {
        results.extend([super_frames(one, other, end), super_frames(other, one, end)]);
    }
    results.into_iter().filter_map(Result::err).collect()
}

/// A place's end by one version of IP.
type Family = for<'a> fn(&Place<'a>) -> End<'a>;

const FAMILIES: [Family; 2] = [|place| place.v4(), |place| place.v6()];

/// A transfer by TCP, which must go in super-frames: of two segments each at least, as a slow stack makes them small.
/// The device of an internal port does not count what the fast path takes from it; then the receiver's is asked.
fn super_frames(from: Place<'_>, to: Place<'_>, end: Family) -> Result<(), String> {
    let counters = || [from, to].map(|place| place.guest().counters());
    let [sender, receiver] = counters();
    tcp(end(&from), end(&to), TRANSFER)?;
    let [sent, received] = counters();
    let (sent, received) = (sent - sender, received - receiver);
    let (frames, octets) = if sent.tx_bytes > TRANSFER as u64 / 2 {
        (sent.tx_frames, sent.tx_bytes)
    } else {
        (received.rx_frames, received.rx_bytes)
    };
    if octets > 1800 * frames {
        Ok(())
    } else {
        Err(format!("TCP to {} without super-frames: {sent:?} {received:?}", end(&to).address))
    }
}

/// Lets each be heard, and waits: the frames of a station that has just come are left to Open vSwitch for a moment.
fn introduce(ones: &[Party], others: &[Party]) {
    for (one, other) in ones.iter().zip(others.iter().cycle()) {
        let net = common_net(one, other);
        ping(one.at(net).v4(), other.at(net).v4()).unwrap();
    }
    std::thread::sleep(Duration::from_secs(3));
}

fn common_net(one: &Party, other: &Party) -> u8 {
    *one.nets.iter().find(|net| other.nets.contains(net)).expect("a common subnet")
}

/// What went wrong, for each pair of kinds (each way, as both talk) and beside them.
fn run(scene: &Scene, whose: &str) -> Vec<String> {
    let Scene { ones, others, bystander, stranger, .. } = scene;
    let mut wrong = Vec::new();
    introduce(ones, others);
    for (place, one) in ones.iter().enumerate() {
        for other in others.iter().skip(if one.is_host_trunk() { 0 } else { place }) {
            let begin = std::time::Instant::now();
            let net = common_net(one, other);
            let name = format!("{} and {}", one.name(), other.name());
            let known = wrong.len();
            let errors = |party: &Party| party.guest.checksum_errors();
            let before = errors(one) + errors(other);
            wrong.extend(talk(one.at(net), other.at(net)).into_iter().map(|what| format!("{name}: {what}")));
            let bad = errors(one) + errors(other) - before;
            if bad > 0 {
                wrong.push(format!("{name}: {bad} wrong checksums"));
            }
            let misdirected = bystander.misdirected();
            if misdirected > 0 {
                wrong.push(format!("{name}: {misdirected} frames to a station that they are not for"));
            }
            eprintln!("{whose}: {name}: {:.1?} {:?}", begin.elapsed(), &wrong[known..]);
        }
    }
    let strays = stranger.received().count();
    if strays > 0 {
        wrong.push(format!("{strays} frames in a VLAN where nobody sends"));
    }
    for party in ones.iter().chain(others) {
        let Some(relay) = party.guest.relay() else { continue };
        for (way, relayed) in [("from", relay.from_guest()), ("to", relay.to_guest())] {
            eprintln!("{whose}: {way} {}: {relayed}", party.name());
            if relayed.refused > 0 || !is_offloaded(relayed) {
                wrong.push(format!("{way} {}: {relayed}", party.name()));
            }
        }
    }
    wrong
}

/// Whether the traffic was what a guest with offloads makes of it.
fn is_offloaded(relayed: Relayed) -> bool {
    // A party that is in one pair sends 4 MiB, which is 64 of the longest.
    relayed.gso > 20 && relayed.partial > relayed.gso
}

#[test]
fn every_pair_of_kinds_talks_with_all_offloads() {
    if !kernel_datapath("every_pair_of_kinds_talks_with_all_offloads") {
        return;
    }
    let mut fast = scene();
    fast.switch.start_agent();
    fast.switch.wait_status("the agent to be ready", |status| status.ready);
    let mut wrong = run(&fast, "with the agent");
    if let Some(agent) = fast.switch.agent() {
        let (status, stats) = (agent.status(), agent.stats());
        for line in per_port(&status, &stats) {
            eprintln!("{line}");
            let took_part = !["bystander", "stranger"].contains(&line.port.as_str());
            if took_part && status.accelerates(&line.port) && line.forwarded < 100 {
                wrong.push(format!("{} is said to be accelerated, and is not: {line}", line.port));
            }
        }
    }
    drop(fast);
    if !wrong.is_empty() {
        // Only what Open vSwitch does by itself can be asked of the agent.
        let alone = run(&scene(), "alone");
        panic!("with the agent:\n{}\nalone:\n{}", wrong.join("\n"), alone.join("\n"));
    }
}
