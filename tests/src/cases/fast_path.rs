//! The switching core on the host, and the loaded program beside it, for one bridge.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use trunkline::dataplane::{
    BridgeNo, BridgeTimes, Dataplane as _, Hooks, InstalledPort, Kernel, LEASE_S, PortNo,
};
use trunkline::desired::{BridgeFacts, World, compile};
use trunkline::links::{Link, LinkKind, Links, XdpAttachment, XdpFeatures, XdpMode};
use trunkline::ovsdb::{BridgeRow, InterfaceRow, OpenVSwitchRow, PortRow, Rows, Uuid};
use trunkline::unixctl::FlowTable;
use trunkline_core::{
    Clock, Decision, FdbEntry, FdbKey, FlowCache, Hook, Outcome, PuntReason, Tables, TagOp, Verdict, Vid,
    abi, switch,
};

use super::{Case, MAX_PORTS, PortSettings};

const TIMES: BridgeTimes = BridgeTimes { refresh_s: 75, ageing_s: 300 };
const MTU: u32 = 1500;
/// Interface indexes of the ports; only the tables know them.
const FIRST_IFINDEX: u32 = 60_001;
const PROGRAM_ID: u32 = 1;
const ALL_FEATURES: XdpFeatures =
    XdpFeatures(XdpFeatures::BASIC.0 | XdpFeatures::REDIRECT.0 | XdpFeatures::NDO_XMIT.0);

/// The fast path of one bridge. Port `pN` is number N - 1.
pub struct FastPath {
    tables: HostTables,
    kernel: Option<Kernel>,
    datapath_type: &'static str,
}

struct HostTables {
    ports: Vec<abi::Port>,
    fdb: RefCell<BTreeMap<FdbKey, FdbEntry>>,
    now_s: u32,
    generation: Cell<u64>,
    flows: RefCell<BTreeMap<u64, abi::FlowSet>>,
}

impl Tables for HostTables {
    fn hook(&self) -> Hook {
        Hook::Xdp
    }
    fn port_no(&self, ifindex: u32) -> Option<u16> {
        u16::try_from(ifindex.checked_sub(FIRST_IFINDEX)?).ok()
    }
    fn port(&self, port_no: u16) -> Option<&abi::Port> {
        self.ports.get(usize::from(port_no))
    }
    fn bridge(&self, bridge_no: u16) -> Option<&abi::Bridge> {
        static BRIDGE: abi::Bridge = abi::Bridge::new(u32::MAX, TIMES.refresh_s, TIMES.ageing_s);
        (bridge_no == 0).then_some(&BRIDGE)
    }
    fn fdb(&self, key: &FdbKey) -> Option<FdbEntry> {
        self.fdb.borrow().get(key).copied()
    }
    fn learn(&self, key: &FdbKey, entry: FdbEntry, _: u32) -> Result<(), PuntReason> {
        self.update(key, entry);
        Ok(())
    }
    fn update(&self, key: &FdbKey, entry: FdbEntry) {
        self.fdb.borrow_mut().insert(*key, entry);
    }
    fn ask_to_show(&self, _: &FdbKey, _: u16) {}
}

impl Clock for HostTables {
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

impl FlowCache for HostTables {
    fn generation(&self) -> u64 {
        self.generation.get()
    }
    fn invalidate_flows(&self) {
        self.generation.set(self.generation.get().wrapping_add(1));
    }
    fn read_flows<R>(&self, place: u64, read: impl FnOnce(&abi::FlowSet) -> Option<R>) -> Option<R> {
        read(self.flows.borrow().get(&place)?)
    }
    fn write_flows(&self, place: u64, change: impl FnOnce(&mut abi::FlowSet)) {
        change(self.flows.borrow_mut().entry(place).or_default());
    }
    fn random(&self) -> u32 {
        0
    }
}

fn now_s() -> u32 {
    rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse).tv_sec as u32
}

impl FastPath {
    /// Without a bridge yet. With `kernel`, every frame is also put to the loaded program.
    ///
    /// # Panics
    /// When the program's tables cannot be written.
    pub fn new(mut kernel: Option<Kernel>) -> Self {
        if let Some(kernel) = &mut kernel {
            for place in 0..MAX_PORTS as u16 {
                let ifindex = FIRST_IFINDEX + u32::from(place);
                // No device is behind the index, so nothing can be sent to it.
                let port = InstalledPort {
                    ifindex,
                    device: format!("p{}", place + 1),
                    hooks: Hooks::Xdp,
                    rules: abi::Port::UNUSED,
                };
                kernel.enter(PortNo(place), &port).expect("a port in the program's tables");
            }
        }
        let tables = HostTables {
            ports: Vec::new(),
            fdb: RefCell::default(),
            now_s: 0,
            generation: Cell::new(1),
            flows: RefCell::default(),
        };
        Self { tables, kernel, datapath_type: "system" }
    }

    /// For bridges of this `datapath_type`, rather than `system`.
    #[must_use]
    pub fn beside(mut self, datapath_type: &'static str) -> Self {
        self.datapath_type = datapath_type;
        self
    }

    /// Sets up the case's bridge as the agent would, with an empty FDB.
    ///
    /// # Panics
    /// When the agent's rules leave the whole bridge alone, or the program's tables cannot be written.
    pub fn configure(&mut self, case: &Case) {
        let rules = compiled(case, self.datapath_type);
        self.tables.ports = vec![abi::Port::UNUSED; MAX_PORTS];
        self.tables.ports[..rules.len()].copy_from_slice(&rules);
        self.tables.fdb.borrow_mut().clear();
        self.tables.invalidate_flows();
        if let Some(kernel) = &mut self.kernel {
            kernel.activate(BridgeNo(0), "br0", TIMES, now_s()).expect("an active bridge");
            for (place, rules) in (0..).zip(&self.tables.ports) {
                kernel.overwrite_rules(PortNo(place), rules).expect("the port's rules");
            }
            let stations = kernel.stations().expect("the program's stations");
            let stations: Vec<_> = stations.into_iter().map(|(key, _)| (key, None)).collect();
            kernel.set_stations(&stations).expect("no station");
        }
    }

    /// Whether a port (from 0) is accelerated.
    pub fn accelerates(&self, port: u16) -> bool {
        self.rules(port).has(abi::PORT_VALID)
    }

    /// The compiled rules of a port (from 0).
    pub fn rules(&self, port: u16) -> &abi::Port {
        &self.tables.ports[usize::from(port)]
    }

    /// The stations.
    pub fn stations(&self) -> Vec<(FdbKey, FdbEntry)> {
        self.tables.fdb.borrow().iter().map(|(key, entry)| (*key, *entry)).collect()
    }

    /// Writes a station, or forgets it.
    ///
    /// # Panics
    /// When the program's table cannot be written.
    pub fn put(&mut self, key: FdbKey, port: Option<(u16, bool)>) {
        let entry = port.map(|(port, fixed)| FdbEntry { port, fixed, shown_s: now_s() });
        match entry {
            Some(entry) => self.tables.update(&key, entry),
            None => drop(self.tables.fdb.borrow_mut().remove(&key)),
        }
        self.tables.invalidate_flows();
        if let Some(kernel) = &mut self.kernel {
            kernel.set_station(&key, entry).expect("a station of the program");
        }
    }

    /// Switches a frame from a port (from 0); one that is forwarded twice, for the flow caches. An error says where core
    /// and program differ.
    ///
    /// # Errors
    /// The loaded program decided or edited otherwise than the core.
    ///
    /// # Panics
    /// When the program cannot be run.
    pub fn switch(&mut self, port: u16, frame: &[u8]) -> Result<Outcome, String> {
        let ifindex = FIRST_IFINDEX + u32::from(port);
        self.tables.now_s = now_s();
        if let Some(kernel) = &mut self.kernel {
            kernel.renew(self.tables.now_s).expect("an active bridge");
        }
        let outcome = self.switch_once(ifindex, frame)?;
        if let Verdict::Forward { .. } = outcome.verdict {
            // Now both remember it.
            let again = self.switch_once(ifindex, frame)?;
            if again != outcome {
                return Err(format!("at first {outcome:?}, then {again:?}"));
            }
        }
        if let (Verdict::Punt(PuntReason::NewSource | PuntReason::MovedSource), Some(vid), Some(kernel)) =
            (outcome.verdict, outcome.vid, &mut self.kernel)
        {
            // The program's run changes nothing, so that a frame can be asked about without being seen.
            let mac = trunkline_core::Mac::new(*frame[6..].first_chunk().expect("it has a source"));
            let key = FdbKey { bridge: 0, vid, mac };
            kernel.set_station(&key, self.tables.fdb(&key)).expect("a station of the program");
        }
        Ok(outcome)
    }

    /// The core's outcome, after the program's, which must be the same.
    fn switch_once(&mut self, ifindex: u32, frame: &[u8]) -> Result<Outcome, String> {
        // First, as it learns nothing.
        let ran =
            self.kernel.as_mut().map(|kernel| kernel.trace(ifindex, frame).expect("a run of the program"));
        let outcome = switch(frame, &self.tables, ifindex);
        if let Some((trace, sent)) = ran {
            if (trace.decision, trace.vid) != traced(&outcome) {
                return Err(format!("the core: {outcome:?}, the program: {trace:?}"));
            }
            let expected = edited(frame, outcome.verdict);
            if sent != expected {
                return Err(format!("{outcome:?}: the program sends {sent:02x?}, not {expected:02x?}"));
            }
        }
        Ok(outcome)
    }
}

const _: () = assert!(LEASE_S > 1, "a lease lasts from its renewal to the run of the program");

/// What leaves, edited the slow way.
pub fn edited(frame: &[u8], verdict: Verdict) -> Vec<u8> {
    let Verdict::Forward { tag, .. } = verdict else { return frame.to_vec() };
    let (addresses, rest) = frame.split_at(12);
    match tag {
        TagOp::Keep => frame.to_vec(),
        TagOp::Push(tag) => [addresses, &tag.to_bytes(), rest].concat(),
        TagOp::Pop => [addresses, &rest[4..]].concat(),
        TagOp::Replace(tag) => [addresses, &tag.to_bytes(), &rest[4..]].concat(),
    }
}

/// Returns what the program answers to a trace that has this outcome.
pub fn traced(outcome: &Outcome) -> (Decision, Option<Vid>) {
    (outcome.verdict.into(), outcome.vid)
}

/// The rules as the agent compiles them from rows and devices; unused where it leaves the port alone.
fn compiled(case: &Case, datapath_type: &str) -> Vec<abi::Port> {
    let numbers = 1..=case.ports.len() as u32;
    let (port_id, interface_id) = (|n: u32| Uuid(1000 + u128::from(n)), |n: u32| Uuid(2000 + u128::from(n)));
    let bridge_id = Uuid(1);
    let bridge = BridgeRow {
        name: "br0".to_owned(),
        datapath_type: datapath_type.to_owned(),
        ports: numbers.clone().map(port_id).collect(),
        flood_vlans: case.flood_vlans.clone(),
        ..BridgeRow::default()
    };
    let port = |n: u32| {
        let row = port_row(n, &case.ports[n as usize - 1], interface_id(n));
        (port_id(n), Arc::new(row))
    };
    let interface = |n: u32| {
        let row = InterfaceRow { name: format!("p{n}"), ofport: Some(n.into()), ..InterfaceRow::default() };
        (interface_id(n), Arc::new(row))
    };
    let rows = Rows {
        open_vswitch: Some(OpenVSwitchRow { bridges: [bridge_id].into(), ..OpenVSwitchRow::default() }),
        bridges: [(bridge_id, Arc::new(bridge))].into(),
        ports: numbers.clone().map(port).collect(),
        interfaces: numbers.clone().map(interface).collect(),
        ..Rows::default()
    };
    let links: Links = numbers.map(|n| (n, Arc::new(link(n, case.ports[n as usize - 1].tap)))).collect();
    let facts = BridgeFacts { flow_table: FlowTable::NormalOnly, port_flags: BTreeMap::new() };
    let facts = [("br0".to_owned(), facts)].into();
    let world = World {
        rows: &rows,
        links: &links,
        facts: &facts,
        selected: &[],
        our_program: Some(PROGRAM_ID),
        tcx: false,
        without_xdp: &BTreeMap::new(),
        vlan_devices_possible: true,
    };
    let [bridge] = &compile(&world)[..] else { panic!("one bridge") };
    assert_eq!(bridge.reason, None, "the bridge is accelerated");
    bridge.ports.iter().map(|port| port.rules.clone().unwrap_or(abi::Port::UNUSED)).collect()
}

fn port_row(n: u32, settings: &PortSettings, interface: Uuid) -> PortRow {
    let PortSettings { vlan_mode, tag, trunks, priority_tags, protected, tap: _ } = settings.clone();
    PortRow {
        name: format!("p{n}"),
        interfaces: [interface].into(),
        vlan_mode,
        tag,
        trunks,
        protected,
        other_config: priority_tags.map(|value| ("priority-tags".to_owned(), value)).into_iter().collect(),
        ..PortRow::default()
    }
}

/// A tap, or a network card that already has the program.
fn link(n: u32, tap: bool) -> Link {
    let kind = if tap {
        LinkKind::Tap { vnet_hdr: false, multi_queue: false }
    } else {
        LinkKind::Physical { driver: "ixgbe".to_owned() }
    };
    Link {
        ifindex: n,
        incarnation: 0,
        name: format!("p{n}"),
        mtu: MTU,
        up: true,
        carrier: true,
        mac: None,
        kind,
        master: None,
        xdp: Some(XdpAttachment { prog_id: PROGRAM_ID, mode: XdpMode::Native }),
        xdp_features: Some(ALL_FEATURES),
        rx_vlan_offload: Some(false),
        rx_stag_offload: Some(false),
        tx_vlan_offload: Some(false),
        gro: Some(true),
        peer: None,
        vlan_children: BTreeSet::new(),
    }
}
