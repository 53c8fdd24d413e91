//! The switching core on the host, by what becomes of a frame: `core/switch/...`.
//!
//! Each that is forwarded is measured with a look into the tables (`core/switch/access-trunk`) and with what was remembered
//! of the frame before (`core/flow/access-trunk`). The tables have two ports and two stations, so that what is measured is the core and not a table.

use std::cell::Cell;
use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use trunkline_benches::frame::{RECEIVER, SENDER, frame};
use trunkline_core::{
    Clock, FdbEntry, FdbKey, FlowCache, Hook, Mac, PuntReason, Tables, TagOp, Verdict, Vid, VidSet, abi,
    switch,
};

const VID: u16 = 10;
const NOW_S: u32 = 1000;
/// Interface index of the ingress port.
const IFINDEX: u32 = 7;

struct TwoPorts {
    ports: [abi::Port; 2],
    bridge: abi::Bridge,
    stations: [(FdbKey, FdbEntry); 2],
    remembers: bool,
    flows: Cell<abi::FlowSet>,
}

impl TwoPorts {
    fn new(ingress: abi::Port, egress: abi::Port, remembers: bool) -> Self {
        let station = |mac, port| {
            let key = FdbKey { bridge: 0, vid: Vid::from_tci(VID), mac: Mac::new(mac) };
            (key, FdbEntry { port, fixed: false, shown_s: NOW_S })
        };
        Self {
            ports: [ingress, egress],
            bridge: abi::Bridge::new(NOW_S + 5, 75, 300),
            stations: [station(SENDER, 0), station(RECEIVER, 1)],
            remembers,
            flows: Cell::default(),
        }
    }
}

impl Tables for TwoPorts {
    fn hook(&self) -> Hook {
        Hook::Xdp
    }
    fn port_no(&self, ifindex: u32) -> Option<u16> {
        (ifindex == IFINDEX).then_some(0)
    }
    fn port(&self, port_no: u16) -> Option<&abi::Port> {
        self.ports.get(usize::from(port_no))
    }
    fn bridge(&self, _: u16) -> Option<&abi::Bridge> {
        Some(&self.bridge)
    }
    fn fdb(&self, key: &FdbKey) -> Option<FdbEntry> {
        self.stations.iter().find(|(known, _)| known == key).map(|(_, entry)| *entry)
    }
    fn learn(&self, _: &FdbKey, _: FdbEntry, _: u32) -> Result<(), PuntReason> {
        Ok(())
    }
    fn update(&self, _: &FdbKey, _: FdbEntry) {}
    fn ask_to_show(&self, _: &FdbKey, _: u16) {}
}

impl Clock for TwoPorts {
    fn now_s(&self) -> u32 {
        NOW_S
    }
    fn ticks(&self) -> u64 {
        self.now_s().into()
    }
    fn until(&self, ticks: u64) -> u64 {
        ticks + 1
    }
}

impl FlowCache for TwoPorts {
    fn generation(&self) -> u64 {
        0
    }
    fn invalidate_flows(&self) {
        self.flows.set(abi::FlowSet::default());
    }
    fn read_flows<R>(&self, _: u64, read: impl FnOnce(&abi::FlowSet) -> Option<R>) -> Option<R> {
        read(&self.flows.get())
    }
    fn write_flows(&self, _: u64, change: impl FnOnce(&mut abi::FlowSet)) {
        if self.remembers {
            let mut flows = self.flows.get();
            change(&mut flows);
            self.flows.set(flows);
        }
    }
    fn random(&self) -> u32 {
        0
    }
}

fn access() -> abi::Port {
    let flags = abi::PORT_VALID | abi::PORT_TARGET | abi::PORT_PVID_HAS_TPID;
    let members = [Vid::from_tci(VID)].into_iter().collect();
    abi::Port { pvid: VID, untagged: VID, flags, mtu: 1500, members, ..abi::Port::UNUSED }
}

fn trunk() -> abi::Port {
    let flags = abi::PORT_VALID | abi::PORT_TARGET | abi::PORT_ACCEPT_TAGGED;
    abi::Port { pvid: 0, flags, mtu: 1500, members: VidSet::ALL, ..abi::Port::UNUSED }
}

/// As on a veth, where the checksum of every frame is looked at.
fn veth(port: abi::Port) -> abi::Port {
    abi::Port { flags: port.flags | abi::PORT_PARTIAL_CHECKSUMS, ..port }
}

fn known_unicast(c: &mut Criterion) {
    let tagged = Some(VID);
    type Expected = fn(&TagOp) -> bool;
    let cases: [(&str, _, _, _, Expected); 5] = [
        ("access-trunk", access(), trunk(), None, |tag| matches!(tag, TagOp::Push(_))),
        ("trunk-access", trunk(), access(), tagged, |tag| *tag == TagOp::Pop),
        ("access-access", access(), access(), None, |tag| *tag == TagOp::Keep),
        ("trunk-trunk", trunk(), trunk(), tagged, |tag| *tag == TagOp::Keep),
        ("access-trunk-veth", veth(access()), trunk(), None, |tag| matches!(tag, TagOp::Push(_))),
    ];
    for (name, ingress, egress, vid, expected) in cases {
        bench(
            c,
            name,
            ingress,
            egress,
            &frame(RECEIVER, vid),
            |verdict| matches!(verdict, Verdict::Forward { port: 1, tag } if expected(tag)),
        );
    }
}

fn punts_and_drops(c: &mut Criterion) {
    let unknown = [0x02, 0, 0, 0, 0, 0x77];
    bench(c, "unknown", access(), trunk(), &frame(unknown, None), |verdict| {
        *verdict == Verdict::Punt(PuntReason::UnknownDestination)
    });
    bench(c, "broadcast", access(), trunk(), &frame([0xff; 6], None), |verdict| {
        *verdict == Verdict::Punt(PuntReason::GroupDestination)
    });
    bench(c, "not-admitted", access(), trunk(), &frame(RECEIVER, Some(VID)), |verdict| {
        matches!(verdict, Verdict::Drop(_))
    });
}

fn bench(
    c: &mut Criterion,
    name: &str,
    ingress: abi::Port,
    egress: abi::Port,
    frame: &[u8],
    expected: impl Fn(&Verdict) -> bool,
) {
    for (way, remembers) in [("switch", false), ("flow", true)] {
        let tables = TwoPorts::new(ingress, egress, remembers);
        let verdict = switch(frame, &tables, IFINDEX).verdict;
        assert!(expected(&verdict), "{name}: {verdict:?}");
        if remembers && tables.flows.get() == abi::FlowSet::default() {
            // Only what is forwarded is remembered.
            continue;
        }
        c.bench_function(&format!("core/{way}/{name}"), |b| {
            b.iter(|| switch(black_box(frame), black_box(&tables), black_box(IFINDEX)));
        });
    }
}

criterion_group!(core, known_unicast, punts_and_drops);
criterion_main!(core);
