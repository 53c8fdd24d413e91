//! The pipeline on tables in memory: its rules one by one, then its invariants on random input.

use core::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use super::*;
use crate::abi::{
    PORT_ACCEPT_TAGGED, PORT_HAS_EXCLUDED, PORT_LEAVES_DEI, PORT_PARTIAL_CHECKSUMS, PORT_PRIORITY_TAGS,
};
use crate::abi::{
    PORT_ACCEPTS_GSO, PORT_PROTECTED, PORT_PVID_HAS_TPID, PORT_TARGET, PORT_TC_FOLLOWS, PORT_TC_TARGET,
    PORT_VALID,
};
use crate::{
    Clock, FlowCache, Mac, TagOp, VidSet,
    abi::{Bridge, NO_VID, Port},
};
use proptest::prelude::*;

const NOW_S: u32 = 1000;
const A: Mac = Mac::new([2, 0, 0, 0, 0, 0xa]);
const B: Mac = Mac::new([2, 0, 0, 0, 0, 0xb]);

/// Ports 1, 2, ... on the devices 101, 102, ...; one active bridge, 0.
struct Memory {
    hook: Cell<Hook>,
    ports: Vec<Port>,
    bridge: Bridge,
    now_s: Cell<u32>,
    fdb: RefCell<BTreeMap<FdbKey, FdbEntry>>,
    generation: Cell<u64>,
    /// The stations that the agent was asked to show.
    asked: RefCell<Vec<(Mac, u16)>>,
    /// The flow cache, if there is one.
    flows: Option<RefCell<BTreeMap<u64, abi::FlowSet>>>,
}

impl Tables for Memory {
    fn hook(&self) -> Hook {
        self.hook.get()
    }
    fn port_no(&self, ifindex: u32) -> Option<u16> {
        let port_no = ifindex.checked_sub(100)?;
        (1..=self.ports.len() as u32).contains(&port_no).then_some(port_no as u16)
    }
    fn port(&self, port_no: u16) -> Option<&Port> {
        self.ports.get(usize::from(port_no).checked_sub(1)?)
    }
    fn bridge(&self, bridge_no: u16) -> Option<&Bridge> {
        (bridge_no == 0).then_some(&self.bridge)
    }
    fn fdb(&self, key: &FdbKey) -> Option<FdbEntry> {
        self.fdb.borrow().get(key).copied()
    }
    fn learn(&self, key: &FdbKey, entry: FdbEntry, limit: u32) -> Result<(), PuntReason> {
        let mut fdb = self.fdb.borrow_mut();
        if fdb.values().filter(|known| known.port == entry.port).count() as u32 >= limit {
            return Err(PuntReason::LearningLimit);
        }
        fdb.insert(*key, entry);
        Ok(())
    }
    fn update(&self, key: &FdbKey, entry: FdbEntry) {
        self.fdb.borrow_mut().insert(*key, entry);
    }
    fn ask_to_show(&self, key: &FdbKey, port: u16) {
        self.asked.borrow_mut().push((key.mac, port));
    }
}

impl Clock for Memory {
    fn now_s(&self) -> u32 {
        self.now_s.get()
    }
    fn ticks(&self) -> u64 {
        self.now_s().into()
    }
    fn until(&self, ticks: u64) -> u64 {
        ticks + 1
    }
}

impl FlowCache for Memory {
    fn generation(&self) -> u64 {
        self.generation.get()
    }
    fn invalidate_flows(&self) {
        self.generation.set(self.generation.get() + 1);
    }
    fn read_flows<R>(&self, place: u64, read: impl FnOnce(&abi::FlowSet) -> Option<R>) -> Option<R> {
        read(self.flows.as_ref()?.borrow().get(&place)?)
    }
    fn write_flows(&self, place: u64, change: impl FnOnce(&mut abi::FlowSet)) {
        if let Some(flows) = &self.flows {
            change(flows.borrow_mut().entry(place).or_default());
        }
    }
    fn random(&self) -> u32 {
        0
    }
}

fn vid(vid: u16) -> Vid {
    Vid::new(vid).unwrap()
}

fn access(t: u16) -> Port {
    Port {
        pvid: t,
        untagged: t,
        flags: PORT_VALID | PORT_TARGET | PORT_PVID_HAS_TPID,
        mtu: 1500,
        learning_limit: 100,
        members: [vid(t)].into_iter().collect(),
        ..Port::UNUSED
    }
}

fn trunk() -> Port {
    Port {
        pvid: 0,
        untagged: NO_VID,
        flags: PORT_VALID | PORT_TARGET | PORT_ACCEPT_TAGGED,
        members: VidSet::ALL,
        ..access(0)
    }
}

fn memory(ports: &[Port]) -> Memory {
    let bridge = Bridge::new(NOW_S + 5, 75, 300);
    Memory {
        hook: Cell::new(Hook::Xdp),
        ports: ports.to_vec(),
        bridge,
        fdb: RefCell::default(),
        generation: Cell::new(1),
        asked: RefCell::default(),
        now_s: Cell::new(NOW_S),
        flows: Some(RefCell::default()),
    }
}

impl Memory {
    fn station(self, mac: Mac, vlan: u16, port: u16, age_s: u32) -> Self {
        let entry = FdbEntry { port, fixed: false, shown_s: NOW_S - age_s };
        self.fdb.borrow_mut().insert(key(mac, vlan), entry);
        self
    }
    fn run(&self, port_no: u32, frame: &[u8]) -> Verdict {
        switch(frame, self, 100 + port_no).verdict
    }
    fn entry(&self, mac: Mac, vlan: u16) -> Option<FdbEntry> {
        self.fdb(&key(mac, vlan))
    }
}

fn key(mac: Mac, vlan: u16) -> FdbKey {
    FdbKey { bridge: 0, vid: vid(vlan), mac }
}

fn frame(dst: Mac, src: Mac, rest: &[u8]) -> Vec<u8> {
    let mut frame = [&dst.octets()[..], &src.octets(), rest].concat();
    frame.resize(frame.len().max(60), 0);
    frame
}

fn untagged(dst: Mac, src: Mac) -> Vec<u8> {
    frame(dst, src, &[0xab, 0xcd])
}

fn tagged(dst: Mac, src: Mac, tci: u16) -> Vec<u8> {
    let [a, b] = tci.to_be_bytes();
    frame(dst, src, &[0x81, 0, a, b, 0xab, 0xcd])
}

/// Two stations, known and fresh, on two access ports of VLAN 10.
fn pair() -> Memory {
    memory(&[access(10), access(10)]).station(A, 10, 1, 0).station(B, 10, 2, 0)
}

#[test]
fn known_unicast_is_forwarded() {
    let verdict = pair().run(1, &untagged(B, A));
    assert_eq!(verdict, Verdict::Forward { port: 2, tag: TagOp::Keep });
}

#[test]
fn third_frame_of_a_conversation_is_the_first_forwarded() {
    let tables = memory(&[access(10), trunk()]);
    assert_eq!(tables.run(1, &untagged(B, A)), Verdict::Punt(PuntReason::NewSource));
    assert_eq!(tables.run(2, &tagged(A, B, 10)), Verdict::Punt(PuntReason::NewSource));
    assert!(matches!(tables.run(1, &untagged(B, A)), Verdict::Forward { port: 2, tag: TagOp::Push(_) }));
    assert_eq!(tables.run(2, &tagged(A, B, 10)), Verdict::Forward { port: 1, tag: TagOp::Pop });
}

#[test]
fn a_device_that_is_no_port_is_left_alone() {
    assert_eq!(pair().run(3, &untagged(B, A)), Verdict::Punt(PuntReason::NotAPort));
    let mut tables = pair();
    tables.ports[0].flags = 0;
    assert_eq!(tables.run(1, &untagged(B, A)), Verdict::Punt(PuntReason::NotAPort));
}

#[test]
fn nothing_moves_without_a_lease() {
    let mut tables = pair();
    tables.bridge.lease_s = NOW_S;
    assert_eq!(tables.run(1, &untagged(B, A)), Verdict::Punt(PuntReason::StaleHeartbeat));
    tables.bridge.lease_s = 0;
    assert_eq!(tables.run(1, &untagged(B, Mac::new([2; 6]))), Verdict::Punt(PuntReason::BridgeSuspended));
    assert_eq!(tables.entry(Mac::new([2; 6]), 10), None, "and nothing is learned");
}

#[test]
fn frames_that_are_ovs_business_are_punted() {
    let tables = pair();
    let group = Mac::new([1, 0, 0x5e, 0, 0, 1]);
    for (frame, reason) in [
        (untagged(B, A)[..17].to_vec(), PuntReason::ShortFrame),
        (frame(B, A, &[0x81, 0, 0, 0, 0x81, 0]), PuntReason::StackedTags),
        (untagged(B, group), PuntReason::GroupSource),
        (untagged(Mac::BROADCAST, A), PuntReason::GroupDestination),
        (untagged(group, A), PuntReason::GroupDestination),
        (untagged(Mac::new([0, 0xe0, 0x2b, 0, 0, 4]), A), PuntReason::ReservedDestination),
        (untagged(Mac::new([2; 6]), A), PuntReason::UnknownDestination),
    ] {
        assert_eq!(tables.run(1, &frame), Verdict::Punt(reason));
    }
}

#[test]
fn frames_outside_the_ports_vlans_are_dropped_but_announcements_are_shown() {
    let tables = pair();
    assert_eq!(tables.run(1, &tagged(B, A, 10)), Verdict::Drop(DropReason::VlanNotAdmitted));
    let lldp = Mac::new([1, 0x80, 0xc2, 0, 0, 0xe]);
    assert_eq!(tables.run(1, &tagged(lldp, A, 10)), Verdict::Punt(PuntReason::GroupDestination));
}

#[test]
fn excluded_vlans_are_left_alone_tagged_or_not() {
    let mut host_vlan = trunk();
    host_vlan.flags |= PORT_HAS_EXCLUDED;
    host_vlan.excluded.insert(vid(100));
    host_vlan.members.remove(vid(100));
    let mut flooded = access(10);
    flooded.flags |= PORT_HAS_EXCLUDED;
    flooded.excluded.insert(vid(10));
    let tables = memory(&[host_vlan, flooded]);
    assert_eq!(tables.run(1, &tagged(B, A, 100)), Verdict::Punt(PuntReason::ExcludedVlan));
    assert_eq!(tables.run(2, &untagged(B, A)), Verdict::Punt(PuntReason::ExcludedVlan));
    assert_eq!(tables.entry(A, 10), None, "a flooded VLAN is not learned");
}

#[test]
fn a_moved_station_is_moved_and_shown_to_ovs() {
    for frame in [untagged(B, A), untagged(Mac::BROADCAST, A)] {
        let tables = pair();
        assert_eq!(tables.run(2, &frame), Verdict::Punt(PuntReason::MovedSource));
        assert_eq!(tables.entry(A, 10).unwrap().port, 2);
    }
}

#[test]
fn reserved_destinations_do_not_move_a_station() {
    let tables = pair();
    let bpdu = untagged(Mac::new([1, 0x80, 0xc2, 0, 0, 0]), A);
    assert_eq!(tables.run(2, &bpdu), Verdict::Punt(PuntReason::ReservedDestination));
    assert_eq!(tables.entry(A, 10).unwrap().port, 1);
}

#[test]
fn the_agent_is_asked_to_show_a_station_before_a_frame_has_to() {
    let there = || Verdict::Forward { port: 2, tag: TagOp::Keep };
    for (age_s, asked) in [(36, vec![]), (37, vec![(A, 1)]), (74, vec![(A, 1)])] {
        let tables = memory(&[access(10), access(10)]).station(A, 10, 1, age_s).station(B, 10, 2, 0);
        assert_eq!(tables.run(1, &untagged(B, A)), there(), "after {age_s} s");
        assert_eq!(*tables.asked.borrow(), asked, "after {age_s} s");
        assert_eq!(tables.entry(A, 10).unwrap().shown_s, NOW_S - age_s, "that is the agent's");
    }
}

#[test]
fn a_frame_to_a_group_shows_its_station() {
    let tables = memory(&[access(10), access(10)]).station(A, 10, 1, 40).station(B, 10, 2, 0);
    assert_eq!(tables.run(1, &untagged(Mac::BROADCAST, A)), Verdict::Punt(PuntReason::GroupDestination));
    assert_eq!(tables.entry(A, 10).unwrap().shown_s, NOW_S);
    assert!(tables.asked.borrow().is_empty());
}

#[test]
fn a_station_due_for_a_refresh_is_shown_to_ovs_once() {
    let tables = memory(&[access(10), access(10)]).station(A, 10, 1, 75).station(B, 10, 2, 0);
    assert_eq!(tables.run(1, &untagged(B, A)), Verdict::Punt(PuntReason::RefreshSource));
    assert_eq!(tables.run(1, &untagged(B, A)), Verdict::Forward { port: 2, tag: TagOp::Keep });
}

#[test]
fn an_expired_destination_is_unknown() {
    let tables = memory(&[access(10), access(10)]).station(A, 10, 1, 0).station(B, 10, 2, 300);
    assert_eq!(tables.run(1, &untagged(B, A)), Verdict::Punt(PuntReason::UnknownDestination));
}

#[test]
fn an_operators_entry_neither_moves_nor_needs_a_refresh() {
    let tables = pair();
    tables.update(&key(A, 10), FdbEntry { port: 2, fixed: true, shown_s: 0 });
    tables.update(&key(B, 10), FdbEntry { port: 2, fixed: true, shown_s: 0 });
    assert_eq!(tables.run(1, &untagged(B, A)), Verdict::Forward { port: 2, tag: TagOp::Keep });
    assert_eq!(tables.entry(A, 10).unwrap().port, 2);
}

#[test]
fn a_port_at_its_learning_limit_still_talks_through_ovs() {
    let mut tables = pair();
    tables.ports[0].learning_limit = 1;
    assert_eq!(tables.run(1, &untagged(B, Mac::new([2; 6]))), Verdict::Punt(PuntReason::LearningLimit));
    assert_eq!(tables.entry(Mac::new([2; 6]), 10), None);
    assert_eq!(tables.run(1, &untagged(B, A)), Verdict::Forward { port: 2, tag: TagOp::Keep });
}

#[test]
fn a_destination_on_the_ingress_port_is_dropped() {
    let tables = pair().station(Mac::new([2; 6]), 10, 1, 0);
    assert_eq!(tables.run(1, &untagged(Mac::new([2; 6]), A)), Verdict::Drop(DropReason::SamePort));
}

#[test]
fn protected_ports_do_not_talk_to_each_other() {
    let mut tables = pair();
    tables.ports[0].flags |= PORT_PROTECTED;
    assert_eq!(tables.run(1, &untagged(B, A)), Verdict::Forward { port: 2, tag: TagOp::Keep });
    tables.ports[1].flags |= PORT_PROTECTED;
    tables.invalidate_flows();
    assert_eq!(tables.run(1, &untagged(B, A)), Verdict::Drop(DropReason::Protected));
}

#[test]
fn what_cannot_be_sent_directly_is_punted() {
    let unreachable: [fn(&mut Port); 3] =
        [|out| out.flags &= !PORT_TARGET, |out| out.members = VidSet::EMPTY, |out| out.bridge = 1];
    for change in unreachable {
        let mut tables = pair();
        change(&mut tables.ports[1]);
        assert_eq!(tables.run(1, &untagged(B, A)), Verdict::Punt(PuntReason::UnreachableDestination));
    }
}

#[test]
fn each_hook_has_its_own_targets() {
    for (flag, hook, other) in [(PORT_TARGET, Hook::Xdp, Hook::Tc), (PORT_TC_TARGET, Hook::Tc, Hook::Xdp)] {
        let mut tables = pair();
        tables.ports[1].flags = tables.ports[1].flags & !PORT_TARGET | flag;
        // Twice, so that neither takes what was remembered at the other.
        for _ in 0..2 {
            tables.hook.set(hook);
            assert_eq!(tables.run(1, &untagged(B, A)), Verdict::Forward { port: 2, tag: TagOp::Keep });
            tables.hook.set(other);
            let verdict = tables.run(1, &untagged(B, A));
            assert_eq!(verdict, Verdict::Punt(PuntReason::UnreachableDestination), "{other:?}");
        }
    }
}

#[test]
fn where_tc_follows_xdp_leaves_the_stations_alone() {
    for (age_s, port, reason) in [
        (None, 1, PuntReason::NewSource),
        (Some(0), 2, PuntReason::MovedSource),
        (Some(80), 1, PuntReason::RefreshSource),
        (Some(400), 1, PuntReason::NewSource),
    ] {
        let mut tables = pair();
        tables.ports[0].flags |= PORT_TC_FOLLOWS;
        tables.fdb.borrow_mut().remove(&key(A, 10));
        if let Some(age_s) = age_s {
            tables = tables.station(A, 10, port, age_s);
        }
        let before = tables.fdb.borrow().clone();
        assert_eq!(tables.run(1, &untagged(B, A)), Verdict::Punt(reason));
        assert_eq!((&before, tables.generation.get()), (&*tables.fdb.borrow(), 1));
        tables.hook.set(Hook::Tc);
        assert_eq!(tables.run(1, &untagged(B, A)), Verdict::Punt(reason));
        assert_eq!(tables.entry(A, 10), Some(FdbEntry { port: 1, fixed: false, shown_s: NOW_S }));
    }
}

#[test]
fn tcp_towards_who_takes_super_frames_is_left_to_tc_where_that_follows() {
    let packet = |protocol| {
        let ip = [0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        frame(B, A, &[&[8, 0][..], &ip, &[0; 20]].concat())
    };
    let (tcp, icmp) = (packet(6), packet(1));
    for (follows, takes, left) in [
        (0, 0, false),
        (PORT_TC_FOLLOWS, 0, false),
        (0, PORT_ACCEPTS_GSO, false),
        (PORT_TC_FOLLOWS, PORT_ACCEPTS_GSO, true),
    ] {
        let mut tables = pair();
        tables.ports[0].flags |= follows;
        tables.ports[1].flags |= takes | PORT_TC_TARGET;
        // What is remembered of one must not decide about the other.
        for frame in [&icmp, &tcp, &icmp, &tcp] {
            let verdict = tables.run(1, frame);
            if left && frame == &tcp {
                assert_eq!(verdict, Verdict::Punt(PuntReason::TcpToMerge));
            } else {
                assert!(matches!(verdict, Verdict::Forward { port: 2, .. }), "{verdict:?}");
            }
        }
        tables.hook.set(Hook::Tc);
        assert!(matches!(tables.run(1, &tcp), Verdict::Forward { port: 2, .. }));
    }
}

#[test]
fn the_mtu_counts_the_payload_behind_at_most_one_tag() {
    let tables = memory(&[trunk(), access(10)]).station(A, 10, 1, 0).station(B, 10, 2, 0);
    let mut frame = tagged(B, A, 10);
    frame.resize(18 + 1500, 0);
    assert_eq!(tables.run(1, &frame), Verdict::Forward { port: 2, tag: TagOp::Pop });
    frame.push(0);
    assert_eq!(tables.run(1, &frame), Verdict::Punt(PuntReason::OverMtu));
    let mut frame = untagged(A, B);
    frame.resize(14 + 1500, 0);
    assert!(matches!(tables.run(2, &frame), Verdict::Forward { port: 1, .. }));
    frame.push(0);
    assert_eq!(tables.run(2, &frame), Verdict::Punt(PuntReason::OverMtu));
}

#[test]
fn a_service_tag_counts_against_the_mtu() {
    let tables = memory(&[trunk(), access(10)]).station(A, 10, 1, 0).station(B, 10, 2, 0);
    let mut frame = frame(B, A, &[0x88, 0xa8, 0, 10, 0xab, 0xcd]);
    frame.resize(14 + 1500, 0);
    assert_eq!(tables.run(1, &frame), Verdict::Forward { port: 2, tag: TagOp::Pop });
    frame.push(0);
    assert_eq!(tables.run(1, &frame), Verdict::Punt(PuntReason::OverMtu));
}

#[test]
fn nothing_is_learned_from_a_frame_that_open_vswitch_may_not_receive() {
    let mut tables = memory(&[trunk(), access(10)]).station(B, 10, 2, 0);
    tables.ports[1].mtu = 9000;
    let mut too_long = tagged(B, A, 10);
    too_long.resize(18 + 1501, 0);
    assert_eq!(tables.run(1, &too_long), Verdict::Punt(PuntReason::OverMtu));
    let mut too_short = tagged(B, A, 10);
    too_short.truncate(19);
    assert_eq!(tables.run(1, &too_short), Verdict::Punt(PuntReason::ShortFrame));
    assert_eq!(tables.entry(A, 10), None);
    too_short.push(0);
    assert_eq!(tables.run(1, &too_short), Verdict::Punt(PuntReason::NewSource));
}

#[test]
fn a_frame_that_is_too_short_does_not_go_where_longer_ones_went() {
    let tables = memory(&[trunk(), access(10)]).station(A, 10, 1, 0).station(B, 10, 2, 0);
    let frame = tagged(B, A, 10);
    assert_eq!(tables.run(1, &frame), Verdict::Forward { port: 2, tag: TagOp::Pop });
    assert_eq!(tables.run(1, &frame[..19]), Verdict::Punt(PuntReason::ShortFrame));
}

#[test]
fn a_drop_eligible_frame_is_left_to_a_datapath_that_clears_the_bit() {
    let mut tables = memory(&[trunk(), access(10)]).station(A, 10, 1, 0).station(B, 10, 2, 0);
    let eligible = tagged(B, A, 0x100a);
    assert_eq!(tables.run(1, &eligible), Verdict::Forward { port: 2, tag: TagOp::Pop });
    tables.ports[0].flags |= PORT_LEAVES_DEI;
    tables.invalidate_flows();
    assert_eq!(tables.run(1, &eligible), Verdict::Punt(PuntReason::DropEligible));
    assert_eq!(tables.run(1, &tagged(B, A, 10)), Verdict::Forward { port: 2, tag: TagOp::Pop });
}

#[test]
fn frames_after_the_first_are_forwarded_by_what_was_remembered_of_it() {
    let mut tables = pair();
    let forward = Verdict::Forward { port: 2, tag: TagOp::Keep };
    assert_eq!(tables.run(1, &untagged(B, A)), forward);
    // Behind the cache's back, which nothing else does.
    tables.ports[1].flags |= PORT_PROTECTED;
    tables.ports[0].flags |= PORT_PROTECTED;
    assert_eq!(tables.run(1, &untagged(B, A)), forward);
    let mut too_long = untagged(B, A);
    too_long.resize(1515, 0);
    assert_eq!(tables.run(1, &too_long), Verdict::Punt(PuntReason::OverMtu));
    // Another flow, another second, another generation.
    assert_eq!(tables.run(2, &untagged(A, B)), Verdict::Drop(DropReason::Protected));
    tables.now_s.set(NOW_S + 1);
    assert_eq!(tables.run(1, &untagged(B, A)), Verdict::Drop(DropReason::Protected));
    tables.now_s.set(NOW_S);
    tables.invalidate_flows();
    assert_eq!(tables.run(1, &untagged(B, A)), Verdict::Drop(DropReason::Protected));
}

#[test]
fn a_move_invalidates_what_was_remembered() {
    let tables = memory(&[access(10), access(10), access(10)]).station(A, 10, 1, 0).station(B, 10, 2, 0);
    assert_eq!(tables.run(1, &untagged(B, A)), Verdict::Forward { port: 2, tag: TagOp::Keep });
    assert_eq!(tables.run(3, &untagged(A, B)), Verdict::Punt(PuntReason::MovedSource));
    assert_eq!(tables.run(1, &untagged(B, A)), Verdict::Forward { port: 3, tag: TagOp::Keep });
    assert_eq!(tables.run(2, &untagged(A, B)), Verdict::Punt(PuntReason::MovedSource));
}

#[test]
fn an_open_checksum_is_never_forwarded_from_a_port_that_may_have_one() {
    // IPv4, TCP: the pseudo-header sum of 0.0.0.0 to 0.0.0.0, protocol 6, length 20 is 26.
    let mut ip = vec![8, 0, 0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6];
    ip.resize(2 + 20 + 16, 0);
    ip.extend([0, 26, 0, 0]);
    let tables = pair();
    assert_eq!(tables.run(1, &frame(B, A, &ip)), Verdict::Forward { port: 2, tag: TagOp::Keep });
    let mut tables = pair();
    tables.ports[0].flags |= PORT_PARTIAL_CHECKSUMS;
    assert_eq!(tables.run(1, &frame(B, A, &ip)), Verdict::Punt(PuntReason::PartialChecksum));
}

prop_compose! {
    fn any_port()(
        mode in 0..4, t in 0..12_u16, trunks in proptest::collection::vec(0..12_u16, 0..4),
        flags in any::<[bool; 8]>(), bridge in 0..2_u16,
    ) -> Port {
        let mut members: VidSet = trunks.iter().map(|id| vid(*id)).collect();
        if trunks.is_empty() { members = VidSet::ALL; }
        let mut port = match mode {
            0 => access(t),
            1 => Port { pvid: if members.contains(Vid::ZERO) { 0 } else { NO_VID }, members, ..trunk() },
            _ => {
                members.insert(vid(t));
                let untagged = if mode == 2 { NO_VID } else { t };
                let mut port = Port { pvid: t, untagged, members, ..trunk() };
                port.flags |= PORT_PVID_HAS_TPID;
                port
            }
        };
        port.bridge = if bridge == 1 && flags[4] { 1 } else { 0 };
        for (bit, set) in [PORT_PROTECTED, PORT_PARTIAL_CHECKSUMS, PORT_PRIORITY_TAGS].into_iter().zip(flags) {
            if set { port.flags |= bit; }
        }
        if flags[3] { port.flags &= !PORT_TARGET; }
        if flags[5] { port.flags |= PORT_TC_TARGET; }
        if flags[6] { port.flags |= PORT_TC_FOLLOWS; }
        if flags[7] { port.flags |= PORT_ACCEPTS_GSO; }
        port
    }
}

/// An address from a small set, so that frames meet stations; sometimes any address.
fn any_mac() -> impl Strategy<Value = Mac> {
    prop_oneof![8 => (0..6_u8).prop_map(|n| Mac::new([2, 0, 0, 0, 0, n])), 1 => any::<[u8; 6]>().prop_map(Mac::new)]
}

fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let rest = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..80),
        (0..12_u16, 0..16_u16, 40..1600_usize).prop_map(|(vid, high, length)| {
            let [a, b] = (high << 12 | vid).to_be_bytes();
            let mut rest = vec![0x81, 0, a, b, 0xab, 0xcd];
            rest.resize(length, 0);
            rest
        }),
        (40..1600_usize).prop_map(|length| {
            let mut rest = vec![0xab, 0xcd];
            rest.resize(length, 0);
            rest
        }),
    ];
    (any_mac(), any_mac(), rest)
        .prop_map(|(dst, src, rest)| [&dst.octets()[..], &src.octets(), &rest].concat())
}

/// What happens to a switch.
#[derive(Clone, Debug)]
enum Event {
    /// A frame, on this port.
    Frame(u32, Hook, Vec<u8>),
    /// Time passes.
    Seconds(u32),
    /// The agent writes a port's rules.
    Rules(usize, Box<Port>),
    /// The agent forgets a station.
    Forget(Mac, u16),
}

fn any_hook() -> impl Strategy<Value = Hook> {
    prop_oneof![Just(Hook::Xdp), Just(Hook::Tc)]
}

fn any_event() -> impl Strategy<Value = Event> {
    // Few flows, so that their frames come again.
    let vlan = prop_oneof![
        Just(vec![0xab, 0xcd]),
        (0..12_u16).prop_map(|vid| {
            let [a, b] = vid.to_be_bytes();
            vec![0x81, 0, a, b, 0xab, 0xcd]
        })
    ];
    let station = || (0..3_u8).prop_map(|n| Mac::new([2, 0, 0, 0, 0, n]));
    let length = prop_oneof![Just(60_usize), Just(1515)];
    let frame = (1..4_u32, any_hook(), station(), station(), vlan, length).prop_map(
        |(port, hook, dst, src, rest, length)| {
            let mut octets = frame(dst, src, &rest);
            octets.resize(length, 0);
            Event::Frame(port, hook, octets)
        },
    );
    prop_oneof![
        40 => frame,
        2 => (0..100_u32).prop_map(Event::Seconds),
        1 => (0..3_usize, any_port()).prop_map(|(place, port)| Event::Rules(place, Box::new(port))),
        1 => (station(), 0..12_u16).prop_map(|(mac, vlan)| Event::Forget(mac, vlan)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    /// With the flow cache every frame has the outcome, and leaves the stations, that it would without.
    #[test]
    fn the_flow_cache_makes_no_difference(
        ports in proptest::collection::vec(any_port(), 3),
        events in proptest::collection::vec(any_event(), 1..120),
    ) {
        let mut cached = memory(&ports);
        cached.bridge.lease_s = u32::MAX;
        let mut plain = Memory { flows: None, bridge: cached.bridge, ..memory(&ports) };
        for event in events {
            match event {
                Event::Frame(port, hook, octets) => {
                    cached.hook.set(hook);
                    plain.hook.set(hook);
                    let outcomes = [&cached, &plain].map(|tables| switch(&octets[..], tables, 100 + port));
                    prop_assert_eq!(outcomes[0], outcomes[1]);
                }
                Event::Seconds(seconds) => {
                    for tables in [&cached, &plain] {
                        tables.now_s.set(tables.now_s.get() + seconds);
                    }
                }
                Event::Rules(place, rules) => {
                    for tables in [&mut cached, &mut plain] {
                        tables.ports[place] = *rules;
                        tables.invalidate_flows();
                    }
                }
                Event::Forget(mac, vlan) => {
                    for tables in [&cached, &plain] {
                        tables.fdb.borrow_mut().remove(&key(mac, vlan));
                        tables.invalidate_flows();
                    }
                }
            }
            prop_assert_eq!(&*cached.fdb.borrow(), &*plain.fdb.borrow());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    /// Whatever the tables and the frame: never out of a non-member port, never back out of the ingress port,
    /// never to another bridge, never protected to protected, never over the MTU, never a group destination,
    /// and never a frame by which the FDB changed.
    #[test]
    fn forwarding_keeps_the_invariants(
        ports in proptest::collection::vec(any_port(), 2..5),
        stations in proptest::collection::vec((any_mac(), 0..12_u16, 0..6_u16, 0..400_u32), 0..24),
        frames in proptest::collection::vec((0..6_u32, any_hook(), any_frame()), 1..12),
    ) {
        let mut tables = memory(&ports);
        for (mac, vlan, port, age_s) in stations {
            tables = tables.station(mac, vlan, port, age_s);
        }
        for (port_no, hook, frame) in frames {
            tables.hook.set(hook);
            let before = tables.fdb.borrow().clone();
            let outcome = switch(&frame[..], &tables, 100 + port_no);
            let changed = before != *tables.fdb.borrow();
            let at = tables.port_no(100 + port_no).and_then(|port_no| tables.port(port_no));
            prop_assert!(!changed || hook == Hook::Tc || at.is_some_and(|port| !port.has(PORT_TC_FOLLOWS)));
            let Verdict::Forward { port, tag } = outcome.verdict else { continue };
            let ingress = usize::from(outcome.ingress.unwrap());
            let (from, to) = (&tables.ports[ingress - 1], tables.port(port).unwrap());
            let header = Header::parse(frame.first_chunk().unwrap());
            prop_assert!(!changed);
            prop_assert_ne!(usize::from(port), ingress);
            prop_assert_eq!(from.bridge, to.bridge);
            prop_assert!(to.members.contains(outcome.vid.unwrap()));
            prop_assert!(from.members.contains(outcome.vid.unwrap()));
            let target = if hook == Hook::Xdp { PORT_TARGET } else { PORT_TC_TARGET };
            prop_assert!(to.has(PORT_VALID | target));
            prop_assert!(!from.has(PORT_PROTECTED) || !to.has(PORT_PROTECTED));
            prop_assert!(!header.dst.is_group() && !header.src.is_group());
            let header_len = if header.tag.is_none() { 14 } else { 18 };
            prop_assert!(frame.len() <= 1500 + header_len);
            let sent = match (tag, header.tag) {
                (TagOp::Keep, received) => received,
                (TagOp::Push(tag), None) | (TagOp::Replace(tag), Some(_)) => Some(tag),
                (TagOp::Pop, Some(_)) => None,
                (op, received) => panic!("{op:?} on {received:?}"),
            };
            // On the wire after the port: its VLAN, or no VLAN where that one leaves untagged.
            let on_wire = sent.map_or(Vid::ZERO, |tag| tag.vid());
            let expected = if to.untagged == outcome.vid.unwrap().get() { Vid::ZERO } else { outcome.vid.unwrap() };
            prop_assert_eq!(on_wire, expected);
        }
    }

    /// Parsing and judging never panic, whatever the octets.
    #[test]
    fn any_octets_are_judged(frame in proptest::collection::vec(any::<u8>(), 0..120), port_no in 0..4_u32) {
        let _ = pair().run(port_no, &frame);
        let _ = Payload::of(&frame[..]).map(|payload| l4_checksum(&frame[..], &payload));
    }
}
