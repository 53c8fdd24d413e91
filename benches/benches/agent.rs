//! The agent's pure parts on a bridge of 10, 100 and 1,000 trunks: `agent/compile/...`, `agent/plan/...`, `agent/apply/...`.
//!
//! Compiling is from the database to desired ports, planning from an empty dataplane to all of them and from all of them to
//! one that has changed, applying is these plans on a dataplane in memory, without a kernel.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use trunkline::dataplane::{
    BridgeNo, BridgeTimes, Dataplane as _, Hooks, Installed, InstalledPort, Memory, PortNo,
};
use trunkline::desired::{BridgeFacts, DesiredBridge, World, compile};
use trunkline::links::{Link, LinkKind, Links, XdpFeatures};
use trunkline::ovsdb::{BridgeRow, InterfaceRow, OpenVSwitchRow, PortRow, Rows, Uuid};
use trunkline::plan::{Plan, plan};
use trunkline::unixctl::FlowTable;
use trunkline_core::Vid;

const PORTS: [u32; 3] = [10, 100, 1000];
const TIMES: BridgeTimes = BridgeTimes { refresh_s: 75, ageing_s: 300 };
const NOW_S: u32 = 1000;

/// What the agent knows of a bridge with ports `p1` to `pN`.
struct Known {
    rows: Rows,
    links: Links,
    facts: BTreeMap<String, BridgeFacts>,
}

impl Known {
    fn new(ports: u32) -> Self {
        let numbers = 1..=ports;
        let (port_id, interface_id) =
            (|n: u32| Uuid(1 << 32 | u128::from(n)), |n: u32| Uuid(2 << 32 | u128::from(n)));
        let bridge_id = Uuid(1);
        let name = |n: u32| format!("p{n}");
        let bridge = BridgeRow {
            name: "br0".to_owned(),
            ports: numbers.clone().map(port_id).collect(),
            ..BridgeRow::default()
        };
        let port = |n| PortRow { name: name(n), interfaces: [interface_id(n)].into(), ..PortRow::default() };
        let interface =
            |n: u32| InterfaceRow { name: name(n), ofport: Some(n.into()), ..InterfaceRow::default() };
        let rows = Rows {
            open_vswitch: Some(OpenVSwitchRow { bridges: [bridge_id].into(), ..OpenVSwitchRow::default() }),
            bridges: [(bridge_id, Arc::new(bridge))].into(),
            ports: numbers.clone().map(|n| (port_id(n), Arc::new(port(n)))).collect(),
            interfaces: numbers.clone().map(|n| (interface_id(n), Arc::new(interface(n)))).collect(),
            ..Rows::default()
        };
        let facts = BridgeFacts { flow_table: FlowTable::NormalOnly, port_flags: BTreeMap::new() };
        Self {
            rows,
            links: numbers.map(|n| (n, Arc::new(tap(name(n), n)))).collect(),
            facts: [("br0".to_owned(), facts)].into(),
        }
    }

    fn compile(&self) -> Vec<DesiredBridge> {
        compile(&World {
            rows: &self.rows,
            links: &self.links,
            facts: &self.facts,
            selected: &[],
            our_program: Some(1),
            vlan_devices_possible: true,
            tcx: false,
            without_xdp: &BTreeMap::new(),
        })
    }

    /// What is to be installed, numbered as the ports are.
    fn target(&self) -> Installed {
        let bridges = self.compile();
        let ports = bridges[0].ports.iter().map(|port| {
            let (ifindex, rules) = (port.ifindex.expect("a device"), port.rules.clone());
            let rules = rules.unwrap_or_else(|reason| panic!("{}: {reason}", port.name));
            (
                PortNo(ifindex as u16 - 1),
                InstalledPort { ifindex, device: port.name.clone(), hooks: Hooks::Xdp, rules },
            )
        });
        Installed { ports: ports.collect(), active: [(BridgeNo(0), TIMES)].into() }
    }
}

/// A tap without virtio header: it takes a program and redirected frames.
fn tap(name: String, ifindex: u32) -> Link {
    Link {
        ifindex,
        incarnation: 0,
        name,
        mtu: 1500,
        up: true,
        carrier: true,
        mac: None,
        kind: LinkKind::Tap { vnet_hdr: false, multi_queue: false },
        master: None,
        xdp: None,
        xdp_features: Some(XdpFeatures(0x7f)),
        rx_vlan_offload: Some(false),
        rx_stag_offload: Some(false),
        tx_vlan_offload: Some(false),
        gro: Some(false),
        peer: None,
        vlan_children: Default::default(),
    }
}

/// One port has become a member of one VLAN only.
fn changed(target: &Installed) -> Installed {
    let mut changed = target.clone();
    let port = changed.ports.get_mut(&PortNo(0)).expect("a first port");
    port.rules.members = [Vid::new(10).expect("a VLAN")].into_iter().collect();
    changed
}

fn apply(mut memory: Memory, plan: &Plan) -> Memory {
    for step in &plan.steps {
        memory.apply(step).expect("a dataplane in memory takes every step");
    }
    for (bridge, times) in &plan.activate {
        memory
            .activate(*bridge, "br0", *times, NOW_S)
            .expect("a dataplane in memory lets every bridge switch");
    }
    memory
}

fn agent(c: &mut Criterion) {
    for ports in PORTS {
        let known = Known::new(ports);
        let target = known.target();
        assert_eq!(target.ports.len(), ports as usize);
        c.bench_function(&format!("agent/compile/{ports}"), |b| b.iter(|| black_box(&known).compile()));

        let empty = Installed::default();
        let changed = changed(&target);
        let (all, one) = (plan(&empty, &target), plan(&target, &changed));
        let (many, few) = (all.steps.len(), one.steps.len());
        assert!(many >= ports as usize && few < 10, "{many} and {few} steps");
        c.bench_with_input(BenchmarkId::new("agent/plan/all", ports), &target, |b, target| {
            b.iter(|| plan(&empty, black_box(target)));
        });
        c.bench_with_input(BenchmarkId::new("agent/plan/one", ports), &changed, |b, changed| {
            b.iter(|| plan(&target, black_box(changed)));
        });
        c.bench_function(&format!("agent/apply/all/{ports}"), |b| {
            b.iter_batched(Memory::default, |memory| apply(memory, &all), BatchSize::LargeInput);
        });
        let installed = || apply(Memory::default(), &all);
        c.bench_function(&format!("agent/apply/one/{ports}"), |b| {
            b.iter_batched(installed, |memory| apply(memory, &one), BatchSize::LargeInput);
        });
    }
}

criterion_group!(benches, agent);
criterion_main!(benches);
