//! The loaded programs against the switching core: same tables, same frames, same outcome.
//!
//! Every case is judged twice, by `trunkline_core::switch` on the host and by the kernel through
//! `BPF_PROG_TEST_RUN`; the frame that leaves is compared with an edit done here. Needs CAP_BPF and CAP_NET_ADMIN.

use std::{cell::RefCell, collections::BTreeMap};

use proptest::{prelude::*, test_runner::TestRunner};
use trunkline::dataplane::{
    BridgeNo, BridgeTimes, Cpus, Dataplane as _, Hooks, InstalledPort, Kernel, LEASE_S, Op, Options, PortNo,
};
use trunkline_core::{
    Clock, FdbEntry, FdbKey, Header, Hook, Mac, PuntReason, Tables, Uncached, Verdict, Vid, VidSet, abi,
    switch,
};
use trunkline_tests::cases::{edited, traced};
use trunkline_tests::say;

const TIMES: BridgeTimes = BridgeTimes { refresh_s: 75, ageing_s: 300 };
/// Interface indexes of the ports under test; only the tables know them.
const FIRST_IFINDEX: u32 = 60_001;

struct Host<'t> {
    hook: Hook,
    case: &'t Case,
    now_s: u32,
    fdb: RefCell<BTreeMap<FdbKey, FdbEntry>>,
    bridge: abi::Bridge,
}

impl Tables for Host<'_> {
    fn hook(&self) -> Hook {
        self.hook
    }
    fn port_no(&self, ifindex: u32) -> Option<u16> {
        let port_no = ifindex.checked_sub(FIRST_IFINDEX)?;
        (port_no < self.case.ports.len() as u32).then_some(port_no as u16)
    }
    fn port(&self, port_no: u16) -> Option<&abi::Port> {
        // The kernel's array has unused ports where the case has none.
        const UNUSED: &abi::Port = &abi::Port::UNUSED;
        Some(self.case.ports.get(usize::from(port_no)).unwrap_or(UNUSED))
    }
    fn bridge(&self, _: u16) -> Option<&abi::Bridge> {
        Some(&self.bridge)
    }
    fn fdb(&self, key: &FdbKey) -> Option<FdbEntry> {
        self.fdb.borrow().get(key).copied()
    }
    fn learn(&self, _: &FdbKey, _: FdbEntry, _: u32) -> Result<(), PuntReason> {
        Ok(())
    }
    fn update(&self, _: &FdbKey, _: FdbEntry) {}
    fn ask_to_show(&self, _: &FdbKey, _: u16) {}
}

impl Clock for Host<'_> {
    fn now_s(&self) -> u32 {
        self.now_s
    }
    fn ticks(&self) -> u64 {
        self.now_s().into()
    }
    fn until(&self, ticks: u64) -> u64 {
        ticks + 1
    }
}

impl Uncached for Host<'_> {}

#[derive(Clone, Debug)]
struct Case {
    ports: Vec<abi::Port>,
    stations: Vec<(Mac, u16, u16, u32, bool)>,
    ingress: u32,
    frame: Vec<u8>,
}

fn now_s() -> u32 {
    rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse).tv_sec as u32
}

fn any_port() -> impl Strategy<Value = abi::Port> {
    (0..6_u16, 0..12_u16, any::<u16>(), proptest::collection::vec(0..6_u16, 0..6), any::<bool>()).prop_map(
        |(pvid, untagged, flags, vids, mostly)| {
            let known = abi::PORT_TC_FOLLOWS * 2 - 1;
            let targets = abi::PORT_TARGET | abi::PORT_TC_TARGET;
            let mut members: VidSet = vids.iter().filter_map(|vid| Vid::new(*vid)).collect();
            members.insert(Vid::new(pvid).unwrap());
            abi::Port {
                pvid: if pvid == 5 { abi::NO_VID } else { pvid },
                untagged: if untagged > 7 { abi::NO_VID } else { pvid },
                flags: flags & known | abi::PORT_VALID | if mostly { targets } else { 0 },
                mtu: 1500,
                learning_limit: 100,
                members,
                excluded: [Vid::new(untagged).unwrap()].into_iter().collect(),
                ..abi::Port::UNUSED
            }
        },
    )
}

fn any_mac() -> impl Strategy<Value = Mac> {
    prop_oneof![12 => (0..4_u8).prop_map(|n| Mac::new([2, 0, 0, 0, 0, n])), 1 => any::<[u8; 6]>().prop_map(Mac::new)]
}

fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let tag = prop_oneof![
        4 => Just(vec![]),
        8 => (any::<bool>(), 0..6_u16, 0..16_u16).prop_map(|(ad, vid, high)| {
            let [a, b] = (high << 12 | vid).to_be_bytes();
            if ad { vec![0x88, 0xa8, a, b] } else { vec![0x81, 0, a, b] }
        }),
        1 => proptest::collection::vec(any::<u8>(), 0..6),
    ];
    let transport = (any::<[u8; 8]>(), prop_oneof![Just(6_u8), Just(17), Just(1), Just(47)], any::<bool>())
        .prop_map(|(addresses, protocol, open)| {
            let mut ip = vec![8, 0, 0x45, 0, 0, 60, 0, 1, 0x40, 0, 64, protocol, 0, 0];
            ip.extend(addresses);
            ip.resize(2 + 60, 7);
            let words =
                |bytes: &[u8]| bytes.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum::<u32>();
            let sum = words(&addresses) + u32::from(protocol) + 40;
            let folded = ((sum >> 16) + (sum & 0xffff)) as u16;
            let at = 22 + if protocol == 6 { 16 } else { 6 };
            if open {
                ip[at..at + 2].copy_from_slice(&folded.to_be_bytes());
            }
            ip
        });
    let payload = prop_oneof![
        3 => (46..100_usize).prop_map(|length| [&[0xab, 0xcd][..], &vec![0x55; length]].concat()),
        1 => (1490..1510_usize).prop_map(|length| [&[0xab, 0xcd][..], &vec![0x55; length]].concat()),
        3 => transport,
        1 => proptest::collection::vec(any::<u8>(), 2..60),
    ];
    (any_mac(), any_mac(), tag, payload)
        .prop_map(|(d, s, tag, payload)| [&d.octets()[..], &s.octets(), &tag, &payload].concat())
}

fn any_case() -> impl Strategy<Value = Case> {
    let station = (any_mac(), 0..6_u16, 0..4_u16, 0..400_u32, proptest::bool::weighted(0.1));
    (
        proptest::collection::vec(any_port(), 2..4),
        proptest::collection::vec(station, 0..60),
        0..3_u32,
        any_frame(),
        proptest::bool::weighted(0.9),
    )
        .prop_map(|(ports, mut stations, ingress, frame, acquainted)| {
            // Most frames are of stations that have met, or hardly any would be forwarded.
            let port = ports.get(ingress as usize);
            let header = frame.first_chunk().map(Header::parse);
            if let (true, Some(port), Some(header)) = (acquainted, port, header)
                && let Some(classified) = port.classify(header.tag)
            {
                let vid = classified.vid.get();
                stations.push((header.dst, vid, (ingress as u16 + 1) % ports.len() as u16, 0, false));
                stations.push((header.src, vid, ingress as u16, 0, false));
            }
            stations.retain(|(mac, ..)| !mac.is_group());
            Case { ports, stations, ingress, frame }
        })
}

fn kernel() -> Kernel {
    Kernel::load(Options { stations: 1024, log: false }).expect("the programs load and pass the verifier")
}

#[test]
fn the_loaded_program_decides_as_the_core_does() {
    compare(Hook::Xdp);
}

#[test]
fn the_tc_program_decides_as_the_core_does() {
    compare(Hook::Tc);
}

/// Whether the kernel runs a tc program on such a frame for a test (`bpf_prog_test_run_skb`, Linux net/bpf/test_run.c): it
/// wants something behind the longest header, and new kernels refuse a type of IP without a whole IP header.
fn is_taken_at_tc(frame: &[u8]) -> bool {
    let Some(header) = frame.first_chunk().map(Header::parse) else { return false };
    let payload = if header.tag.is_none() { 14 } else { 18 };
    let least = match frame[payload - 2..payload] {
        [0x08, 0x00] => 20,
        [0x86, 0xdd] => 40,
        _ => 0,
    };
    frame.len() > 18 && frame.len() >= payload + least
}

/// Every case with a tag has it beside the frame at tc, as the kernel puts it there.
fn compare(hook: Hook) {
    let kernel = RefCell::new(kernel());
    let forwarded = RefCell::new(0);
    let mut runner =
        TestRunner::new(ProptestConfig { cases: 3000, failure_persistence: None, ..Default::default() });
    let result = runner.run(&any_case(), |case| {
        let mut kernel = kernel.borrow_mut();
        prop_assume!(hook == Hook::Xdp || is_taken_at_tc(&case.frame));
        // Taken once: a case judged over a change of the second would be judged twice at different times.
        let now_s = now_s();
        assert!(kernel.activate(BridgeNo(0), "br0", TIMES, now_s).unwrap());
        for (place, rules) in case.ports.iter().enumerate() {
            let ifindex = FIRST_IFINDEX + place as u32;
            // The tables are all that counts here; no device is behind the index, so nothing can be sent to it.
            let rules = abi::Port { flags: rules.flags & !abi::PORT_TARGET, ..*rules };
            let port = InstalledPort { ifindex, device: format!("port{place}"), hooks: Hooks::Xdp, rules };
            kernel.enter(PortNo(place as u16), &port).unwrap();
            kernel.overwrite_rules(PortNo(place as u16), &case.ports[place]).unwrap();
        }
        for place in case.ports.len()..4 {
            kernel.overwrite_rules(PortNo(place as u16), &abi::Port::UNUSED).unwrap();
        }
        let mut fdb = BTreeMap::new();
        let before: Vec<_> = kernel.stations().unwrap().into_iter().map(|(key, _)| (key, None)).collect();
        kernel.set_stations(&before).unwrap();
        for (mac, vid, port, age_s, fixed) in &case.stations {
            let key = FdbKey { bridge: 0, vid: Vid::new(*vid).unwrap(), mac: *mac };
            // Two seconds off the limits, so that the clock may step between the two judges.
            let age_s = if matches!(age_s, 72..=77 | 297..=302) { 0 } else { *age_s };
            let entry = FdbEntry { port: *port, fixed: *fixed, shown_s: now_s.saturating_sub(age_s) };
            kernel.set_station(&key, Some(entry)).unwrap();
            fdb.insert(key, entry);
        }
        let bridge = abi::Bridge::new(now_s + LEASE_S, TIMES.refresh_s, TIMES.ageing_s);
        let host = Host { hook, case: &case, now_s, fdb: RefCell::new(fdb), bridge };
        let outcome = switch(&case.frame[..], &host, FIRST_IFINDEX + case.ingress);
        let (trace, sent) = kernel.trace_at(hook, FIRST_IFINDEX + case.ingress, &case.frame).unwrap();
        prop_assert_eq!((trace.decision, trace.vid), traced(&outcome), "{:?}", outcome);
        prop_assert_eq!(&sent, &edited(&case.frame, outcome.verdict));
        if matches!(outcome.verdict, Verdict::Forward { .. }) {
            *forwarded.borrow_mut() += 1;
        }
        Ok(())
    });
    result.unwrap();
    let forwarded = forwarded.into_inner();
    assert!(forwarded > 100, "the cases forward frames now and then, not {forwarded} times");
}

/// The ports' own program on the loopback device, which is where a test run arrives.
#[test]
fn learning_counting_and_the_lease_work_in_the_kernel() {
    use aya::programs::{TestRun as _, TestRunOptions};
    let mut kernel = kernel();
    let now_s = now_s();
    let rules = abi::Port {
        pvid: 10,
        untagged: 10,
        flags: abi::PORT_VALID | abi::PORT_TARGET | abi::PORT_PVID_HAS_TPID,
        mtu: 1500,
        learning_limit: 2,
        members: VidSet::ALL,
        ..abi::Port::UNUSED
    };
    let trunk = abi::Port { untagged: abi::NO_VID, ..rules };
    for (place, rules) in [(0, rules), (1, trunk)] {
        // The loopback device is ifindex 1 in every namespace; the last one entered arrives first.
        kernel
            .enter(
                PortNo(place),
                &InstalledPort { ifindex: 1, device: "lo".into(), hooks: Hooks::Xdp, rules },
            )
            .unwrap();
    }
    kernel
        .enter(PortNo(0), &InstalledPort { ifindex: 1, device: "lo".into(), hooks: Hooks::Xdp, rules })
        .unwrap();
    let run = |kernel: &mut Kernel, src: u8, dst: u8| {
        let frame = [&[2, 0, 0, 0, 0, dst][..], &[2, 0, 0, 0, 0, src, 0xab, 0xcd], &[0; 46]].concat();
        let mut out = vec![0; 128];
        let options =
            TestRunOptions { data_in: Some(&frame), data_out: Some(&mut out), ..TestRunOptions::new() };
        let result = kernel.program().unwrap().test_run(options).unwrap();
        out.truncate(result.data_size_out as usize);
        (result.return_value, out)
    };
    const PASS: u32 = 2;
    const REDIRECT: u32 = 4;
    let punts =
        |kernel: &Kernel, reason: PuntReason| kernel.counters(PortNo(0)).unwrap().punted[reason.index()];

    assert_eq!(run(&mut kernel, 1, 9).0, PASS);
    assert_eq!(punts(&kernel, PuntReason::BridgeSuspended), 1, "no lease yet");
    assert!(kernel.activate(BridgeNo(0), "br0", TIMES, now_s).unwrap());
    assert_eq!(run(&mut kernel, 1, 9).0, PASS);
    assert_eq!(punts(&kernel, PuntReason::NewSource), 1);
    assert_eq!(run(&mut kernel, 1, 9).0, PASS);
    assert_eq!(punts(&kernel, PuntReason::UnknownDestination), 1);

    let there = FdbKey { bridge: 0, vid: Vid::new(10).unwrap(), mac: Mac::new([2, 0, 0, 0, 0, 9]) };
    kernel.set_station(&there, Some(FdbEntry { port: 1, fixed: false, shown_s: now_s })).unwrap();
    let (action, frame) = run(&mut kernel, 1, 9);
    assert_eq!(action, REDIRECT);
    assert_eq!(frame[12..18], [0x81, 0x00, 0, 10, 0xab, 0xcd]);
    let (rx, tx) = (kernel.counters(PortNo(0)).unwrap(), kernel.counters(PortNo(1)).unwrap());
    assert_eq!((rx.rx_frames, rx.rx_bytes, tx.tx_frames, tx.tx_bytes), (1, 60, 1, 64));

    assert_eq!(run(&mut kernel, 2, 9).0, PASS);
    assert_eq!(run(&mut kernel, 3, 9).0, PASS);
    assert_eq!(punts(&kernel, PuntReason::LearningLimit), 1, "two stations are the limit");
    kernel.apply(&Op::Flush([PortNo(0)].into())).unwrap();
    assert_eq!(run(&mut kernel, 3, 9).0, PASS);
    assert_eq!(punts(&kernel, PuntReason::NewSource), 3, "room again");

    kernel.renew(now_s + 1).unwrap();
    assert_eq!(run(&mut kernel, 3, 9).0, REDIRECT);
    // The programs' clock may be a little behind ours, and step to the next second later.
    assert!(kernel.activate(BridgeNo(0), "br0", TIMES, now_s - LEASE_S - 1).unwrap());
    assert_eq!(run(&mut kernel, 3, 9).0, PASS);
    assert_eq!(punts(&kernel, PuntReason::StaleHeartbeat), 1);
    kernel.renew(now_s).unwrap();
    assert_eq!(run(&mut kernel, 3, 9).0, PASS);
    assert_eq!(punts(&kernel, PuntReason::BridgeSuspended), 2, "a lease that ran out is not given back");
    assert_eq!(kernel.take_suspended(), [BridgeNo(0)].into());
    assert!(kernel.activate(BridgeNo(0), "br0", TIMES, now_s).unwrap());
    assert_eq!(run(&mut kernel, 3, 9).0, PASS);
    assert_eq!(punts(&kernel, PuntReason::NewSource), 4, "its stations are out of use");
    assert_eq!(run(&mut kernel, 3, 9).0, PASS);
    assert_eq!(punts(&kernel, PuntReason::UnreachableDestination), 1);
    let aside = FdbEntry { port: FdbEntry::ASIDE, fixed: false, shown_s: now_s };
    let entry = FdbEntry { port: 1, ..aside };
    assert!(kernel.confirm(BridgeNo(0), &[(there, [aside, entry])]).unwrap());
    assert_eq!(run(&mut kernel, 3, 9).0, REDIRECT);
    kernel.apply(&Op::Suspend(BridgeNo(0))).unwrap();
    assert_eq!(run(&mut kernel, 3, 9).0, PASS);
}

/// A frame of `len` octets from station `src` to `dst`, with `tag` after the addresses.
fn frame(src: u8, dst: u8, tag: &[u8], len: usize) -> Vec<u8> {
    let mut frame = [&[2, 0, 0, 0, 0, dst][..], &[2, 0, 0, 0, 0, src], tag, &[0xab, 0xcd]].concat();
    frame.resize(len, 0);
    frame
}

/// Two ports that both are the loopback device: frames come in by the first, which is in VLAN 10 untagged, and the
/// second is a trunk.
fn two_ports(kernel: &mut Kernel, more_flags: u16) {
    let targets = abi::PORT_TARGET | abi::PORT_TC_TARGET;
    let rules = abi::Port {
        pvid: 10,
        untagged: 10,
        flags: abi::PORT_VALID | targets | abi::PORT_PVID_HAS_TPID | abi::PORT_ACCEPT_TAGGED | more_flags,
        mtu: 1500,
        learning_limit: 100,
        ifindex: 1,
        members: VidSet::ALL,
        ..abi::Port::UNUSED
    };
    let trunk = abi::Port { untagged: 20, ..rules };
    for (place, rules) in [(1, trunk), (0, rules)] {
        let port = InstalledPort { ifindex: 1, device: "lo".into(), hooks: Hooks::Xdp, rules };
        kernel.enter(PortNo(place), &port).unwrap();
    }
    assert!(kernel.activate(BridgeNo(0), "br0", TIMES, now_s()).unwrap());
}

fn station(kernel: &mut Kernel, mac: u8, vid: u16, port: u16) {
    let key = FdbKey { bridge: 0, vid: Vid::new(vid).unwrap(), mac: Mac::new([2, 0, 0, 0, 0, mac]) };
    kernel.set_station(&key, Some(FdbEntry { port, fixed: false, shown_s: now_s() })).unwrap();
}

/// The tc program as on a port, with tags in the frame, as a program on the host may send them.
#[test]
fn the_tc_program_learns_counts_edits_and_lets_super_frames_through() {
    use aya::programs::{TestRun as _, TestRunOptions};
    const NEXT: u32 = u32::MAX;
    const REDIRECT: u32 = 7;
    const SHOT: u32 = 2;
    /// Place of `gso_size` in `struct __sk_buff`, and that structure's length (include/uapi/linux/bpf.h).
    const GSO_SIZE: usize = 176;
    let mut kernel = kernel();
    two_ports(&mut kernel, 0);
    let run = |kernel: &mut Kernel, frame: &[u8], gso_size: u32| {
        let (mut out, mut context) = (vec![0; frame.len() + 8], [0; 192]);
        context[GSO_SIZE..GSO_SIZE + 4].copy_from_slice(&gso_size.to_ne_bytes());
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            ..TestRunOptions::new()
        };
        let result = kernel.tc_program().unwrap().test_run(options).unwrap();
        out.truncate(result.data_size_out as usize);
        (result.return_value, out)
    };
    let punts =
        |kernel: &Kernel, reason: PuntReason| kernel.counters(PortNo(0)).unwrap().punted[reason.index()];

    let plain = frame(1, 9, &[], 60);
    assert_eq!(run(&mut kernel, &plain, 0).0, NEXT);
    assert_eq!(punts(&kernel, PuntReason::NewSource), 1);
    station(&mut kernel, 9, 10, 1);
    // The pushed tag is beside the frame.
    assert_eq!(run(&mut kernel, &plain, 0), (REDIRECT, plain.clone()));
    let tx = kernel.counters(PortNo(1)).unwrap();
    assert_eq!((tx.tx_frames, tx.tx_bytes), (1, 64));

    // VLAN 20 leaves the other port untagged.
    station(&mut kernel, 1, 20, 0);
    station(&mut kernel, 9, 20, 1);
    let tagged = frame(1, 9, &[0x81, 0, 0, 20], 64);
    assert_eq!(run(&mut kernel, &tagged, 0), (REDIRECT, plain));
    station(&mut kernel, 1, 30, 0);
    station(&mut kernel, 9, 30, 1);
    let kept = frame(1, 9, &[0x88, 0xa8, 0x30, 30], 64);
    assert_eq!(run(&mut kernel, &kept, 0), (REDIRECT, kept.clone()));
    station(&mut kernel, 2, 30, 0);
    assert_eq!(run(&mut kernel, &frame(1, 2, &[0x81, 0, 0, 30], 64), 0).0, SHOT);

    assert_eq!(run(&mut kernel, &frame(1, 9, &[], 1514), 0).0, REDIRECT);
    assert_eq!(run(&mut kernel, &frame(1, 9, &[], 1515), 0).0, NEXT);
    assert_eq!(punts(&kernel, PuntReason::OverMtu), 1);
    assert_eq!(run(&mut kernel, &frame(1, 9, &[], 1515), 1000).0, REDIRECT, "a super-frame");
}

#[test]
fn where_tc_follows_xdp_forwards_but_neither_learns_nor_counts_what_it_passes_on() {
    use aya::programs::{TestRun as _, TestRunOptions};
    const PASS: u32 = 2;
    const REDIRECT: u32 = 4;
    let mut kernel = kernel();
    two_ports(&mut kernel, abi::PORT_TC_FOLLOWS);
    let xdp = |kernel: &mut Kernel| {
        let plain = frame(1, 9, &[], 60);
        let options = TestRunOptions { data_in: Some(&plain), ..TestRunOptions::new() };
        kernel.program().unwrap().test_run(options).unwrap().return_value
    };
    let where_is = |kernel: &Kernel, mac: u8| {
        let stations = kernel.stations().unwrap();
        let found = stations.iter().find(|(key, _)| key.mac == Mac::new([2, 0, 0, 0, 0, mac]));
        found.map(|(_, entry)| (entry.port, entry.shown_s))
    };
    assert_eq!(xdp(&mut kernel), PASS);
    assert_eq!(where_is(&kernel, 1), None, "a new station");
    station(&mut kernel, 1, 10, 1);
    assert_eq!(xdp(&mut kernel), PASS);
    assert_eq!(where_is(&kernel, 1).map(|(port, _)| port), Some(1), "one that has moved");
    let long_ago_s = now_s() - TIMES.refresh_s - 2;
    let key = FdbKey { bridge: 0, vid: Vid::new(10).unwrap(), mac: Mac::new([2, 0, 0, 0, 0, 1]) };
    kernel.set_station(&key, Some(FdbEntry { port: 0, fixed: false, shown_s: long_ago_s })).unwrap();
    assert_eq!(xdp(&mut kernel), PASS);
    assert_eq!(where_is(&kernel, 1), Some((0, long_ago_s)), "one that is due");
    assert!(kernel.counters(PortNo(0)).unwrap().punted.iter().all(|count| *count == 0));

    station(&mut kernel, 1, 10, 0);
    station(&mut kernel, 9, 10, 1);
    assert_eq!(xdp(&mut kernel), REDIRECT);
    assert_eq!(kernel.counters(PortNo(0)).unwrap().rx_frames, 1);
}

/// One that comes after the programs were loaded has no sets in the flow cache, and no counters but its own.
#[test]
fn a_cpu_that_comes_later_forwards_and_counts() {
    use aya::programs::{TestRun as _, TestRunOptions};
    use rustix::thread::{CpuSet, sched_setaffinity};
    const REDIRECT: u32 = 4;
    let possible = aya::util::nr_cpus().unwrap() as u32;
    let cpus = Cpus { possible, running: 1 };
    let mut kernel = Kernel::load_for(Options { stations: 1024, log: false }, cpus).unwrap();
    two_ports(&mut kernel, 0);
    station(&mut kernel, 1, 10, 0);
    station(&mut kernel, 9, 10, 1);
    let plain = frame(1, 9, &[], 60);
    for cpu in 0..=1 {
        let mut only = CpuSet::new();
        only.set(cpu);
        if sched_setaffinity(None, &only).is_err() {
            return say(
                "skipped: a_cpu_that_comes_later_forwards_and_counts: this machine has no second CPU",
            );
        }
        for sent in 1..=3 {
            let options = TestRunOptions { data_in: Some(&plain), ..TestRunOptions::new() };
            assert_eq!(kernel.program().unwrap().test_run(options).unwrap().return_value, REDIRECT);
            assert_eq!(kernel.counters(PortNo(0)).unwrap().rx_frames, 3 * cpu as u64 + sent, "CPU {cpu}");
        }
    }
}

/// The log's level is a constant at load time, so the verifier removes the code behind it.
#[test]
fn logging_costs_nothing_where_it_is_off() {
    let size = |log| {
        let mut kernel = Kernel::load(Options { stations: 16, log }).unwrap();
        kernel.program().unwrap().info().unwrap().size_translated().unwrap()
    };
    let (without, with) = (size(false), size(true));
    assert!(without + 500 < with, "{without} octets of code without the log, {with} with it");
}

#[test]
fn a_full_fdb_forwards_through_ovs_and_loses_nobody() {
    use aya::programs::{TestRun as _, TestRunOptions};
    let mut kernel = Kernel::load(Options { stations: 16, log: false }).unwrap();
    assert!(kernel.activate(BridgeNo(0), "br0", TIMES, now_s()).unwrap());
    let rules = abi::Port {
        pvid: 0,
        untagged: 0,
        flags: abi::PORT_VALID,
        mtu: 1500,
        learning_limit: 1000,
        members: VidSet::ALL,
        ..abi::Port::UNUSED
    };
    kernel
        .enter(PortNo(0), &InstalledPort { ifindex: 1, device: "lo".into(), hooks: Hooks::Xdp, rules })
        .unwrap();
    for station in 0..64_u8 {
        let frame = [&[2, 0, 0, 0, 0, 0xff][..], &[2, 0, 0, 0, 1, station, 0xab, 0xcd], &[0; 46]].concat();
        let options = TestRunOptions { data_in: Some(&frame), ..TestRunOptions::new() };
        assert_eq!(kernel.program().unwrap().test_run(options).unwrap().return_value, 2);
    }
    let counters = kernel.counters(PortNo(0)).unwrap();
    let learned = kernel.stations().unwrap().len() as u64;
    assert_eq!(counters.punted[PuntReason::NewSource.index()], learned);
    assert_eq!(counters.punted[PuntReason::FdbFull.index()], 64 - learned);
    assert_eq!(learned, 16);
}

/// Places are not for others at once, but they are in the end: for the agent's entries, which wait, and for the program's.
/// As the agent does where an operator's entry finds no room.
#[test]
fn learned_stations_make_way_for_an_operators_entry() {
    let mut kernel = Kernel::load(Options { stations: 64, log: false }).unwrap();
    let key = |n: u16| {
        let [high, low] = n.to_be_bytes();
        FdbKey { bridge: 0, vid: Vid::new(10).unwrap(), mac: Mac::new([2, 0, 0, 1, high, low]) }
    };
    let learned = FdbEntry { port: 0, fixed: false, shown_s: now_s() };
    let full = (0..1000).find_map(|n| kernel.set_station(&key(n), Some(learned)).err());
    let full = full.expect("a table of 64 does not hold 1000").to_string();
    assert!(full.contains("in VLAN 10: the table is full") && full.contains("--fdb-size"), "{full}");

    let operators = (key(5000), Some(FdbEntry { port: 1, fixed: true, shown_s: 0 }));
    let known = kernel.stations().unwrap();
    let forgotten = known.iter().map(|(key, _)| (*key, None));
    kernel.set_stations(&forgotten.chain([operators]).collect::<Vec<_>>()).unwrap();
    let left = kernel.stations().unwrap();
    assert_eq!(left, [(operators.0, operators.1.unwrap())], "of {} stations", known.len());
}

#[test]
fn the_places_of_forgotten_stations_serve_others() {
    use aya::programs::{TestRun as _, TestRunOptions};
    const LIMIT: u8 = 16;
    let mut kernel = Kernel::load(Options { stations: LIMIT.into(), log: false }).unwrap();
    two_ports(&mut kernel, 0);
    let all = |kernel: &Kernel| -> Vec<_> {
        kernel.stations().unwrap().iter().map(|(key, _)| (*key, None)).collect()
    };
    for _ in 0..100 {
        (0..LIMIT).for_each(|mac| station(&mut kernel, mac, 10, 1));
        let stations = all(&kernel);
        assert_eq!(stations.len(), usize::from(LIMIT));
        kernel.set_stations(&stations).unwrap();
        assert_eq!(all(&kernel), []);
    }
    let group = FdbKey { bridge: 0, vid: Vid::new(10).unwrap(), mac: Mac::new([3, 0, 0, 0, 0, 1]) };
    assert!(kernel.set_station(&group, Some(FdbEntry { port: 1, fixed: true, shown_s: 0 })).is_err());
    let learn = |kernel: &mut Kernel, mac| {
        let frame = frame(mac, 0xff, &[], 60);
        let options = TestRunOptions { data_in: Some(&frame), ..TestRunOptions::new() };
        kernel.program().unwrap().test_run(options).unwrap();
        kernel.stations().unwrap().len() == 1
    };
    // One station, over and over: its own places are used up soon.
    let wait = std::time::Instant::now();
    let mut waited = 0;
    for _ in 0..50 {
        while !learn(&mut kernel, 1) {
            waited += 1;
            assert!(wait.elapsed().as_secs() < 60, "its places are not freed");
            kernel.renew(now_s()).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let stations = all(&kernel);
        kernel.set_stations(&stations).unwrap();
    }
    assert!(waited > 0, "no place was in want");
    assert!(kernel.counters(PortNo(0)).unwrap().punted[PuntReason::FdbFull.index()] > 0);
}
