//! Every ordered pair of port kinds and every frame form: the right port and the right tags, byte for byte as Open
//! vSwitch alone, the third frame of each conversation by the fast path.

use std::collections::BTreeSet;
use std::time::Duration;

use trunkline_core::{Tag, Tpid};
use trunkline_tests::{Deliveries, Frame, Ovs, Stats, Switch, Vlan, is_slow, station, tag, wait_for};

/// The kinds, each with two ports on the bridge: `<name>-1` and `<name>-2`.
fn kinds() -> [(&'static str, Vlan); 6] {
    [
        ("access", Vlan::Access(10)),
        ("trunk", Vlan::Trunk(vec![])),
        ("listed", Vlan::Trunk(vec![10, 20])),
        ("listed0", Vlan::Trunk(vec![0, 10, 20])),
        ("ntagged", Vlan::NativeTagged(10, vec![10, 20])),
        ("nuntagged", Vlan::NativeUntagged(10, vec![])),
    ]
}

fn switch() -> Switch {
    kinds().into_iter().fold(Switch::new(), |switch, (name, vlan)| {
        switch.port(&format!("{name}-1"), vlan.clone()).port(&format!("{name}-2"), vlan)
    })
}

/// Untagged, and every tag of the matrix; VID 0 makes priority tags.
fn forms() -> Vec<Option<Tag>> {
    let mut forms = vec![None];
    for tpid in [Tpid::Dot1Q, Tpid::Dot1Ad] {
        for (pcp, dei) in [(0, false), (0, true), (5, false), (5, true)] {
            forms.extend([0, 10, 20, 30].map(|vid| Some(tag(tpid, pcp, dei, vid))));
        }
    }
    forms
}

/// The VLAN of a frame that arrives in this form, if the port admits it.
fn admitted(port: &Vlan, form: Option<Tag>) -> Option<u16> {
    let vid = form.map_or(0, |tag| tag.vid().get());
    match port {
        Vlan::Access(native) => (vid == 0).then_some(*native),
        Vlan::Trunk(_) => carries(port, vid).then_some(vid),
        Vlan::NativeTagged(native, _) | Vlan::NativeUntagged(native, _) if vid == 0 => Some(*native),
        Vlan::NativeTagged(..) | Vlan::NativeUntagged(..) => carries(port, vid).then_some(vid),
    }
}

/// Whether the port is in the VLAN.
fn carries(port: &Vlan, vid: u16) -> bool {
    match port {
        Vlan::Access(native) => vid == *native,
        Vlan::Trunk(list) => list.is_empty() || list.contains(&vid),
        Vlan::NativeTagged(native, list) | Vlan::NativeUntagged(native, list) => {
            vid == *native || (vid != 0 && (list.is_empty() || list.contains(&vid)))
        }
    }
}

/// The form in which a host at this port sends in this VLAN.
fn own_form(port: &Vlan, vid: u16) -> Option<Tag> {
    match port {
        Vlan::Access(_) => None,
        Vlan::NativeUntagged(native, _) if vid == *native => None,
        Vlan::Trunk(_) if vid == 0 => None,
        _ => Some(tag(Tpid::Dot1Q, 0, false, vid)),
    }
}

/// One conversation.
struct Case {
    from: String,
    to: String,
    form: Option<Tag>,
    /// There, unknown; back; there again.
    frames: [Frame; 3],
    /// Ports that the first frame must reach.
    flood: Vec<String>,
}

impl Case {
    /// Whether the two can talk: the frame is admitted, and its VLAN is on the other's port.
    fn is_conversation(&self) -> bool {
        self.flood.contains(&self.to)
    }
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (from, from_vlan) in &kinds() {
        for (to, to_vlan) in &kinds() {
            for form in forms() {
                let (a, b) = (station(), station());
                let there = Frame::new(a, b).tagged(form);
                let vlan = admitted(from_vlan, form);
                let back = Frame::new(b, a).tagged(vlan.and_then(|vid| own_form(to_vlan, vid)));
                let (from, to) = (format!("{from}-1"), format!("{to}-2"));
                let members =
                    kinds().into_iter().filter(|(_, port)| vlan.is_some_and(|vid| carries(port, vid)));
                let mut flood: Vec<String> =
                    members.flat_map(|(name, _)| [format!("{name}-1"), format!("{name}-2")]).collect();
                flood.retain(|port| *port != from);
                flood.sort();
                let frames = [there.clone(), back, there.another()];
                cases.push(Case { from, to, form, frames, flood });
            }
        }
    }
    cases
}

/// What one switch did with all cases.
struct Run {
    rounds: [Deliveries; 3],
    /// With the agent: the counters before the third frames, and after.
    stats: Option<[Stats; 2]>,
}

fn run(switch: &mut Switch, cases: &[Case]) -> Run {
    let talks: Vec<&Case> = cases.iter().filter(|case| case.is_conversation()).collect();
    let there = |case: &Case| case.from.clone();
    let first = round(switch, cases.iter().map(|case| (there(case), &case.frames[0], case.flood.len())));
    let second = round(switch, talks.iter().map(|case| (case.to.clone(), &case.frames[1], 1)));
    if is_slow() && switch.agent().is_some() {
        teach_again(switch, &talks);
    }
    let before = switch.agent().map(|agent| agent.stats());
    let third = round(switch, talks.iter().map(|case| (there(case), &case.frames[2], 1)));
    let after = switch.agent().map(|agent| agent.stats());
    Run { rounds: [first, second, third], stats: before.zip(after).map(<[_; 2]>::from) }
}

/// Repeats the conversations whose stations the fast path does not know.
fn teach_again(switch: &mut Switch, talks: &[&Case]) {
    wait_for("the fast path to know all stations", Duration::from_secs(10), || {
        let known: BTreeSet<String> = switch.agent()?.fdb().into_iter().map(|row| row.mac).collect();
        let is_known = |frame: &Frame| known.contains(&source(frame));
        let forgotten: Vec<&&Case> =
            talks.iter().filter(|case| !case.frames[..2].iter().all(is_known)).collect();
        for case in &forgotten {
            let [there, back, _] = &case.frames;
            switch.exchange_expecting(&[(&case.from, &there.another())], Some(1));
            switch.exchange_expecting(&[(&case.to, &back.another())], Some(1));
        }
        forgotten.is_empty().then_some(())
    });
}

/// A frame's source, as `fdb show` has it.
fn source(frame: &Frame) -> String {
    frame.bytes()[6..12].iter().map(|octet| format!("{octet:02x}")).collect::<Vec<_>>().join(":")
}

/// Sends (port, frame, how many will arrive), waiting now and then, so that no queue runs over.
fn round<'a>(switch: &Switch, frames: impl Iterator<Item = (String, &'a Frame, usize)>) -> Deliveries {
    let frames: Vec<_> = frames.collect();
    let mut exchange = switch.begin();
    for some in frames.chunks(64) {
        let sent: Vec<(&str, &Frame)> = some.iter().map(|(port, frame, _)| (port.as_str(), *frame)).collect();
        exchange.send(&sent, Some(some.iter().map(|(_, _, copies)| copies).sum()));
    }
    exchange.finish()
}

/// Whether the fast path leaves the frame to Open vSwitch, whose userspace datapath clears the drop-eligible bit: the
/// kernel hands it the tag beside the frame, and `eth_push_vlan` (`lib/packets.c`) puts it back without the bit.
fn is_left_to_ovs(form: Option<Tag>) -> bool {
    Ovs::datapath_type() == "netdev" && form.is_some_and(Tag::dei)
}

#[test]
fn every_pair_of_port_kinds_and_every_frame_form() {
    let cases = cases();
    let alone = run(&mut switch(), &cases);
    let fast = run(&mut switch().accelerated(), &cases);
    for case in &cases {
        let name = format!("{} to {}, {:x?}", case.from, case.to, case.form);
        for (run, whose) in [(&alone, "Open vSwitch alone"), (&fast, "with the agent")] {
            assert_eq!(run.rounds[0].ports(&case.frames[0]), case.flood, "first frame {whose}: {name}");
            if case.is_conversation() {
                assert_eq!(
                    run.rounds[1].ports(&case.frames[1]),
                    [case.from.as_str()],
                    "second {whose}: {name}"
                );
                assert_eq!(run.rounds[2].ports(&case.frames[2]), [case.to.as_str()], "third {whose}: {name}");
            }
        }
        for (place, (with, without)) in fast.rounds.iter().zip(&alone.rounds).enumerate() {
            let frame = &case.frames[place];
            assert_eq!(with.of(frame), without.of(frame), "frame {} of {name}", place + 1);
        }
    }
    let Some([before, after]) = &fast.stats else { return };
    for (kind, _) in kinds() {
        let port = format!("{kind}-1");
        let conversations = cases
            .iter()
            .filter(|case| case.from == port && case.is_conversation() && !is_left_to_ovs(case.form))
            .count();
        let [before, after] = [before, after].map(|stats| stats.port(&port).rx);
        let forwarded = after.forwarded.frames - before.forwarded.frames;
        assert_eq!(
            forwarded, conversations as u64,
            "third frames from {port} by the fast path: {before:?} {after:?}"
        );
    }
}
