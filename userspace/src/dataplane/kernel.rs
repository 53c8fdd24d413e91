//! The dataplane in the kernel: XDP and tc programs on the ports, and their maps.
//!
//! Links are not pinned: when the agent ends, however it ends, the kernel takes the programs off the ports and Open
//! vSwitch has them back.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::sync::Arc;

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, DevMap, Map, MapData, MapError, RingBuf},
    programs::{SchedClassifier, TestRun as _, TestRunOptions, TestRunResult, Xdp},
};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};
use thiserror::Error;
use trunkline_core::table::{Shape, Table};
use trunkline_core::{Decision, FdbEntry, FdbKey, Hook, Tag, Ticks, Tpid, TraceAnswer, TraceQuestion, abi};

use super::attached::{Attached, has_tcx, tc, xdp};
use super::drain::Drain;
use super::error::{Cause, Chain, errno};
use super::host::{Cpus, Preemption, ticks};
use super::{
    BridgeNo, BridgeTimes, Dataplane, DataplaneError, Gate, Hooks, Installed, InstalledPort, Op, PortNo,
    lease_maps::KernelLeases,
    mapping::{CounterMemory, StationMemory},
    pod::Raw,
    stations::Stations,
};
use crate::fdb;

/// The BPF object, built by `cargo xtask build-ebpf` and checked by `build.rs`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("TRUNKLINE_EBPF_OBJECT"));

/// What can be chosen when the programs are loaded.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Most stations on all bridges together.
    pub stations: u32,
    /// Whether the programs log rare events. Off, they have no code for it.
    pub log: bool,
}

/// The number of stations that was last written for a port, in a system call.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
struct Recount {
    stations: u32,
    /// Stations that had been entered in the table by then.
    inserted: u64,
    /// How often that was written. A program that was just counting a station may have overwritten it once.
    times: u8,
}

/// Why the programs could not be loaded.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The kernel lacks something, or refuses. There is no source beside the text, which tells the whole chain of
    /// causes: an operator would read it twice.
    #[error("cannot load the BPF programs: {}{}", Chain(.0.as_ref()), next_step(.0.as_ref()))]
    Load(Cause),
    /// Something else that the programs need is missing: what, and why.
    #[error("cannot load the BPF programs: {0}: {1}")]
    Need(&'static str, Cause),
    /// The object lacks something: it does not belong to this binary.
    #[error("the BPF object has no {0}: rebuild with `cargo xtask build`")]
    Incomplete(&'static str),
}

/// The answer to a trace is missing.
#[derive(Debug, Error)]
#[error("the program gave no answer: its map TRACE could not be written")]
struct NoAnswer;

/// Programs and maps in the kernel.
pub struct Kernel {
    ebpf: Ebpf,
    slots: Array<MapData, Raw<abi::Slot>>,
    ports: Array<MapData, Raw<abi::Port>>,
    gate: Arc<Gate<KernelLeases>>,
    stations: Stations,
    learned: Array<MapData, u32>,
    recounts: Vec<Recount>,
    devices: DevMap<MapData>,
    counters: CounterMemory,
    trace: Array<MapData, Raw<abi::Trace>>,
    attached: BTreeMap<PortNo, Attached>,
    has_tc: bool,
    drain: Drain,
    installed: Installed,
    /// When the flow cache was last invalidated for nothing but the time, in seconds.
    invalidated_s: u32,
}

pub(super) const PROGRAM: &str = "trunkline_xdp";
pub(super) const TC_PROGRAM: &str = "trunkline_tc";
const TRACE_PROGRAM: &str = "trunkline_trace";
const TC_TRACE_PROGRAM: &str = "trunkline_tc_trace";
const RENEW_PROGRAM: &str = "trunkline_renew";
/// The map of the programs' one variable.
const GENERATION: &str = ".bss";
/// The flow cache is invalidated at least this often, in seconds, though nothing has changed: a set has only the
/// low half of its time, which comes again after 49 days at the earliest.
const INVALIDATED_S: u32 = 86_400;
/// Octets before a frame's tag.
const ADDRESSES: usize = 12;

impl Kernel {
    /// Loads programs and maps. Nothing is attached yet.
    ///
    /// # Errors
    /// No privileges, a kernel that is too old, or an object of another build.
    pub fn load(options: Options) -> Result<Self, LoadError> {
        tracing::info!(preemption = %Preemption::of_kernel(), "loading the programs");
        let cpus =
            Cpus::of_machine().map_err(|error| LoadError::Need("cannot read the CPUs", error.into()))?;
        Self::load_for(options, cpus)
    }

    /// The same with maps for so many CPUs, for tests of a machine that gets more.
    ///
    /// # Errors
    /// Those of [`Kernel::load`].
    pub fn load_for(options: Options, cpus: Cpus) -> Result<Self, LoadError> {
        let mut kernel = Self::load_with(options, cpus, ticks())?;
        if kernel.tells_the_time() {
            return Ok(kernel);
        }
        tracing::warn!("this kernel does not count ticks as expected; the programs use a slower clock");
        Self::load_with(options, cpus, Ticks::UNUSED)
    }

    fn load_with(options: Options, cpus: Cpus, ticks: Ticks) -> Result<Self, LoadError> {
        let shape = Shape::new(options.stations, secrets()?);
        let flow_sets = cpus.flow_sets();
        let level: u8 = if options.log { aya_log::Level::Debug as u8 } else { 0 };
        let mut ebpf = EbpfLoader::new()
            .map_max_entries("FDB", shape.buckets())
            .map_max_entries("COUNTERS", cpus.possible)
            .map_max_entries("FLOWS", (cpus.running * flow_sets).max(1))
            .override_global(aya_log::LEVEL, &level, true)
            .override_global(abi::ABI_SYMBOL, &abi::ABI_VERSION, true)
            .override_global("TRUNKLINE_FDB", &Raw(shape), true)
            .override_global("TRUNKLINE_TICKS", &Raw(ticks), true)
            .override_global("TRUNKLINE_FLOWS", &flow_sets, true)
            .load(OBJECT)
            .map_err(|error| LoadError::Load(error.into()))?;
        for program in [PROGRAM, TRACE_PROGRAM, RENEW_PROGRAM] {
            let xdp = xdp(&mut ebpf, program)?;
            xdp.load().map_err(|error| LoadError::Load(error.into()))?;
        }
        let has_tc = has_tcx();
        for program in [TC_PROGRAM, TC_TRACE_PROGRAM].into_iter().filter(|_| has_tc) {
            let tc = tc(&mut ebpf, program)?;
            tc.load().map_err(|error| LoadError::Load(error.into()))?;
        }
        Ok(Self {
            slots: map(&mut ebpf, "SLOTS")?,
            ports: map(&mut ebpf, "PORTS")?,
            gate: Arc::new(Gate::new(KernelLeases::new(
                map(&mut ebpf, "BRIDGES")?,
                map(&mut ebpf, GENERATION)?,
            ))),
            stations: stations(&mut ebpf, shape)?,
            learned: map(&mut ebpf, "LEARNED")?,
            recounts: vec![Recount::default(); abi::MAX_PORTS as usize],
            devices: map(&mut ebpf, "DEVICES")?,
            counters: counters(&mut ebpf, cpus.possible)?,
            trace: map(&mut ebpf, "TRACE")?,
            ebpf,
            attached: BTreeMap::new(),
            has_tc,
            drain: Drain::new(),
            installed: Installed::default(),
            invalidated_s: 0,
        })
    }

    /// Who may let a bridge switch, for the thread that reads the database.
    pub fn gate(&self) -> Arc<Gate<KernelLeases>> {
        self.gate.clone()
    }

    /// Whether the programs' clock is the agent's.
    fn tells_the_time(&mut self) -> bool {
        // A frame of nothing, from nowhere: it is only the clock that is asked for.
        let now_s = || clock_gettime(ClockId::MonotonicCoarse).tv_sec as u32;
        self.trace(0, &[0; 64]).is_ok_and(|(answer, _)| answer.now_s.abs_diff(now_s()) <= 1)
    }

    /// Whether the kernel has tcx, and so the tc program can be put on ports.
    pub fn has_tc(&self) -> bool {
        self.has_tc
    }

    /// The kernel's number of the XDP program on the ports.
    pub fn program_id(&self) -> Option<u32> {
        let program = self.ebpf.program(PROGRAM)?;
        program.info().ok().map(|info| info.id())
    }

    /// The reader of the programs' log, if that was asked for.
    ///
    /// # Errors
    /// The log's ring buffer could not be opened.
    pub fn logger(&mut self) -> Result<aya_log::EbpfLogger<&'static dyn log::Log>, aya_log::Error> {
        aya_log::EbpfLogger::init(&mut self.ebpf)
    }

    /// Where the programs ask for stations to be shown, for whoever reads it; there is one reader.
    ///
    /// # Errors
    /// There is one already.
    pub fn shows(&mut self) -> Result<RingBuf<MapData>, LoadError> {
        map(&mut self.ebpf, "SHOW")
    }

    /// The XDP program on the ports, for benchmarks and tests that run it directly.
    ///
    /// # Errors
    /// Never for an object that could be loaded.
    pub fn program(&mut self) -> Result<&mut Xdp, LoadError> {
        xdp(&mut self.ebpf, PROGRAM)
    }

    /// The tc program, likewise.
    ///
    /// # Errors
    /// Never for an object that could be loaded.
    pub fn tc_program(&mut self) -> Result<&mut SchedClassifier, LoadError> {
        tc(&mut self.ebpf, TC_PROGRAM)
    }

    /// Enters a port into the tables, without putting the program on its device.
    ///
    /// # Errors
    /// A table could not be written, or the device is gone.
    pub fn enter(&mut self, port: PortNo, new: &InstalledPort) -> Result<(), DataplaneError> {
        let place = u32::from(port.0);
        let fail = |operation, cause: Cause| DataplaneError::new(operation, &new.device, cause);
        // Without PORT_TARGET the place is never looked at, whatever stands there.
        if new.rules.has(abi::PORT_TARGET) {
            self.devices.set(place, new.ifindex, None, 0).map_err(|e| fail("send to", e.into()))?;
        }
        self.ports.set(place, Raw(new.rules), 0).map_err(|e| fail("write the rules of", e.into()))?;
        let slot = abi::Slot { ifindex: new.ifindex, port_no: place };
        self.slots
            .set(new.ifindex % abi::IFINDEX_SLOTS, Raw(slot), 0)
            .map_err(|e| fail("enter the interface index of", e.into()))
    }

    /// Changes the rules of a port and nothing else, for tests of the rules.
    ///
    /// # Errors
    /// The table could not be written.
    pub fn overwrite_rules(&mut self, port: PortNo, rules: &abi::Port) -> Result<(), DataplaneError> {
        let written = self
            .ports
            .set(u32::from(port.0), Raw(*rules), 0)
            .map_err(|e| DataplaneError::new("write the rules of", format!("port {}", port.0), e));
        written.and(self.invalidate_flows())
    }

    /// Enters, overwrites or forgets one station, for tests.
    ///
    /// # Errors
    /// It could not be written.
    pub fn set_station(&mut self, key: &FdbKey, entry: Option<FdbEntry>) -> Result<(), DataplaneError> {
        self.set_stations(&[(*key, entry)])
    }

    fn install(&mut self, port: PortNo, new: &InstalledPort) -> Result<(), DataplaneError> {
        if self.installed.ports.get(&port).is_some_and(|old| old.ifindex != new.ifindex) {
            self.remove(port)?;
        }
        let entered = self.enter(port, new);
        let ebpf = &mut self.ebpf;
        let done = entered.and_then(|()| self.attached.entry(port).or_default().adjust(ebpf, new));
        match done {
            Ok(()) => drop(self.installed.ports.insert(port, new.clone())),
            Err(_) => self.undo(port, new),
        }
        done
    }

    /// Back to what is on record of a port, as well as may be.
    fn undo(&mut self, port: PortNo, new: &InstalledPort) {
        let mut attached = self.attached.remove(&port).unwrap_or_default();
        // The first error is the one that is told.
        if let Some(old) = self.installed.ports.get(&port).cloned() {
            let _ = self.enter(port, &old);
            let _ = attached.adjust(&mut self.ebpf, &old);
            self.attached.insert(port, attached);
        } else {
            // Nothing refers to the place, and the next port in it overwrites it.
            let _ = self.clear(port, new);
            let _ = attached.detach(&mut self.ebpf, &new.device);
        }
    }

    /// Takes a port out of the tables again.
    fn clear(&mut self, port: PortNo, old: &InstalledPort) -> Result<(), DataplaneError> {
        let fail = |operation, cause: Cause| DataplaneError::new(operation, &old.device, cause);
        let slot = old.ifindex % abi::IFINDEX_SLOTS;
        let rules = self.ports.set(u32::from(port.0), Raw(abi::Port::UNUSED), 0);
        let slot = self.slots.set(slot, Raw(abi::Slot::default()), 0);
        rules.map_err(|e| fail("clear the rules of", e.into()))?;
        slot.map_err(|e| fail("clear the interface index of", e.into()))
    }

    /// Takes a port out, trying every part of it, and reports the first failure.
    fn remove(&mut self, port: PortNo) -> Result<(), DataplaneError> {
        let Some(old) = self.installed.ports.remove(&port) else { return Ok(()) };
        let mut results = vec![self.clear(port, &old)];
        if let Some(attached) = self.attached.remove(&port) {
            results.push(attached.detach(&mut self.ebpf, &old.device));
        }
        self.counters.clear(port.0);
        results.into_iter().collect()
    }

    fn carry_out(&mut self, op: &Op) -> Result<(), DataplaneError> {
        match op {
            Op::Suspend(bridge) => {
                self.gate.suspend(*bridge)?;
                self.installed.active.remove(bridge);
                Ok(())
            }
            Op::Drain => {
                self.await_programs();
                Ok(())
            }
            Op::Remove(port) => self.remove(*port),
            Op::Flush(ports) => {
                self.stations.forget_all(|entry| ports.contains(&PortNo(entry.port)));
                ports.iter().try_for_each(|port| self.recount(*port, 0))
            }
            Op::Install(port, new) => self.install(*port, new),
        }
    }

    /// Returns when every program has ended that may have read a table before.
    fn await_programs(&mut self) {
        let suspended = self.gate.to_be_drained();
        self.drain.wait();
        self.gate.drained(&suspended);
    }

    fn invalidate_flows(&self) -> Result<(), DataplaneError> {
        self.gate.invalidate_flows()
    }

    /// What the program of one hook would do with this frame on this device, and the frame as it would leave.
    ///
    /// # Errors
    /// The program could not be run.
    pub fn trace_at(
        &mut self,
        hook: Hook,
        ifindex: u32,
        frame: &[u8],
    ) -> Result<(TraceAnswer, Vec<u8>), DataplaneError> {
        let fail =
            |cause: Cause| DataplaneError::new("run the program on", format!("interface {ifindex}"), cause);
        // At tc a tag arrives beside the frame (`skb_vlan_untag`, kernel net/core/skbuff.c).
        let (octets, beside) = if hook == Hook::Tc { untag(frame) } else { (frame.to_vec(), None) };
        let question = TraceQuestion { ifindex, beside };
        self.trace.set(0, Raw(abi::Trace::ask(&question)), 0).map_err(|e| fail(e.into()))?;
        let mut sent = vec![0; octets.len() + 8];
        let options =
            TestRunOptions { data_in: Some(&octets), data_out: Some(&mut sent), ..TestRunOptions::new() };
        let result: TestRunResult = match hook {
            Hook::Xdp => xdp(&mut self.ebpf, TRACE_PROGRAM).map_err(|e| fail(e.into()))?.test_run(options),
            Hook::Tc => tc(&mut self.ebpf, TC_TRACE_PROGRAM).map_err(|e| fail(e.into()))?.test_run(options),
        }
        .map_err(|e| fail(e.into()))?;
        sent.truncate(result.data_size_out as usize);
        let answer = self.trace.get(&0, 0).map_err(|e| fail(e.into()))?.0;
        let answer = answer.answer().ok_or(NoAnswer).map_err(|e| fail(e.into()))?;
        if let Some(tag) = answer.beside
            && sent.len() >= ADDRESSES
        {
            drop(sent.splice(ADDRESSES..ADDRESSES, tag.to_bytes()));
        }
        Ok((answer, sent))
    }
}

impl Dataplane for Kernel {
    fn installed(&self) -> &Installed {
        &self.installed
    }

    fn apply(&mut self, op: &Op) -> Result<(), DataplaneError> {
        let result = self.carry_out(op);
        // Also after a failure, which may have changed something.
        result.and(self.invalidate_flows())
    }

    fn activate(
        &mut self,
        bridge: BridgeNo,
        name: &str,
        times: BridgeTimes,
        now_s: u32,
    ) -> Result<bool, DataplaneError> {
        self.gate.suspend(bridge)?;
        self.installed.active.remove(&bridge);
        if !self.gate.may_activate(name, now_s) {
            return Ok(false);
        }
        // A program that ran when the bridge was suspended may be about to enter a station.
        if !self.gate.is_drained(bridge) {
            self.await_programs();
        }
        self.set_stations(&fdb::set_aside(&self.stations.all(), bridge))?;
        let active = self.gate.activate(bridge, name, times, now_s)?;
        if active {
            self.installed.active.insert(bridge, times);
        }
        self.invalidate_flows().map(|()| active)
    }

    fn confirm(
        &mut self,
        bridge: BridgeNo,
        stations: &[(FdbKey, [FdbEntry; 2])],
    ) -> Result<bool, DataplaneError> {
        if !self.gate.confirm(bridge) {
            return Ok(false);
        }
        for (key, [expected, entry]) in stations {
            self.stations.replace(key, *expected, *entry);
        }
        self.invalidate_flows().map(|()| true)
    }

    fn renew(&mut self, now_s: u32) -> Result<(), DataplaneError> {
        self.stations.free_some();
        let mut invalidated = Ok(());
        if now_s >= self.invalidated_s + INVALIDATED_S {
            self.invalidated_s = now_s;
            invalidated = self.invalidate_flows();
        }
        let program =
            xdp(&mut self.ebpf, RENEW_PROGRAM).map_err(|e| DataplaneError::new("renew", "leases", e))?;
        let renewed = self.gate.renew(now_s, |_, until_s| {
            let question = abi::Renewal { until_s, reserved: [0; 3] };
            let options =
                TestRunOptions { data_in: Some(bytemuck::bytes_of(&question)), ..TestRunOptions::new() };
            let run: Result<TestRunResult, _> = program.test_run(options);
            run.map(drop).map_err(|e| DataplaneError::new("renew", "leases", e))
        });
        invalidated.and(renewed)
    }

    fn take_suspended(&mut self) -> BTreeSet<BridgeNo> {
        let suspended = self.gate.suspended(self.installed.active.keys().copied());
        self.installed.active.retain(|bridge, _| !suspended.contains(bridge));
        suspended
    }

    fn stations(&self) -> Result<Vec<(FdbKey, FdbEntry)>, DataplaneError> {
        Ok(self.stations.all())
    }

    fn set_stations(&mut self, changes: &[(FdbKey, Option<FdbEntry>)]) -> Result<(), DataplaneError> {
        let mut result = Ok(());
        for (key, entry) in changes {
            let set = match entry {
                Some(entry) => self.stations.set(key, *entry),
                None => {
                    self.stations.forget(key);
                    Ok(())
                }
            };
            result = result.and(set.map_err(|cause| cause.of(key)));
        }
        result.and(self.invalidate_flows())
    }

    fn station(&self, key: &FdbKey) -> Option<FdbEntry> {
        self.stations.get(key)
    }

    fn replace_station(&mut self, key: &FdbKey, expected: FdbEntry, entry: FdbEntry) -> bool {
        self.stations.replace(key, expected, entry)
    }

    fn add_stations(&mut self, stations: &[(FdbKey, FdbEntry)]) -> Result<usize, DataplaneError> {
        Ok(stations.iter().take_while(|(key, entry)| self.stations.add(key, *entry)).count())
    }

    fn recount(&mut self, port: PortNo, stations: u32) -> Result<(), DataplaneError> {
        let last = self.recounts.get(usize::from(port.0)).copied().unwrap_or_default();
        let inserted = self.stations.inserted();
        let same = (last.stations, last.inserted) == (stations, inserted);
        // The programs count when they enter a station, and at no other time.
        if same && last.times >= 2 {
            return Ok(());
        }
        self.learned
            .set(u32::from(port.0), stations, 0)
            .map_err(|e| DataplaneError::new("count the stations of", format!("port {}", port.0), e))?;
        if let Some(recount) = self.recounts.get_mut(usize::from(port.0)) {
            *recount = Recount { stations, inserted, times: if same { last.times + 1 } else { 1 } };
        }
        Ok(())
    }

    fn counters(&self, port: PortNo) -> Result<abi::Counters, DataplaneError> {
        Ok(self.counters.sum(port.0))
    }

    fn trace(&mut self, ifindex: u32, frame: &[u8]) -> Result<(TraceAnswer, Vec<u8>), DataplaneError> {
        let installed = self.installed.ports.values().find(|port| port.ifindex == ifindex);
        let hooks = installed.map_or(Hooks::Xdp, |port| port.hooks);
        if hooks.xdp() {
            let (answer, sent) = self.trace_at(Hook::Xdp, ifindex, frame)?;
            if !hooks.tc() || !matches!(answer.decision, Decision::Punt(_)) {
                return Ok((answer, sent));
            }
        }
        self.trace_at(Hook::Tc, ifindex, frame)
    }
}

/// Returns a frame without its outermost tag, and that tag.
fn untag(frame: &[u8]) -> (Vec<u8>, Option<Tag>) {
    let octets = frame.get(ADDRESSES..).and_then(<[u8]>::first_chunk::<4>);
    let tag = octets.and_then(|[t0, t1, c0, c1]| {
        let tpid = Tpid::from_ethertype(u16::from_be_bytes([*t0, *t1]))?;
        Some(Tag::from_wire(tpid, u16::from_be_bytes([*c0, *c1])))
    });
    match tag {
        Some(tag) => {
            let rest = &frame[ADDRESSES + tag.to_bytes().len()..];
            ([&frame[..ADDRESSES], rest].concat(), Some(tag))
        }
        None => (frame.to_vec(), None),
    }
}

/// The maps `FDB` and `FDB_HEADER`, in this process's memory.
fn stations(ebpf: &mut Ebpf, shape: Shape) -> Result<Stations, LoadError> {
    let (fdb, header) = (array(ebpf, "FDB")?, array(ebpf, "FDB_HEADER")?);
    let memory = StationMemory::new(fdb, shape.buckets(), header);
    let memory = memory.map_err(|error| LoadError::Need("the table of stations", error.into()))?;
    Ok(Stations::new(Table::new(memory, shape)))
}

/// The map `COUNTERS`, likewise.
fn counters(ebpf: &mut Ebpf, cpus: u32) -> Result<CounterMemory, LoadError> {
    let memory = CounterMemory::new(array(ebpf, "COUNTERS")?, cpus);
    memory.map_err(|error| LoadError::Need("the counters", error.into()))
}

fn array(ebpf: &mut Ebpf, name: &'static str) -> Result<MapData, LoadError> {
    match ebpf.take_map(name) {
        Some(Map::Array(data)) => Ok(data),
        _ => Err(LoadError::Incomplete(name)),
    }
}

/// Two numbers that nobody can guess.
fn secrets() -> Result<[u64; 2], LoadError> {
    let mut octets = [0; 16];
    let filled = rustix::rand::getrandom(&mut octets, rustix::rand::GetRandomFlags::empty());
    match filled {
        Ok(16) => Ok(bytemuck::cast(octets)),
        Ok(_) => Err(LoadError::Load("too few random octets".into())),
        Err(error) => Err(LoadError::Need("random octets", error.into())),
    }
}

fn map<M: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &'static str) -> Result<M, LoadError> {
    let map = ebpf.take_map(name).ok_or(LoadError::Incomplete(name))?;
    M::try_from(map).map_err(|_| LoadError::Incomplete(name))
}

/// What is to be done about a refusal, where that is known.
fn next_step(cause: &(dyn Error + 'static)) -> &'static str {
    match errno(cause) {
        Some(Errno::PERM | Errno::ACCESS) => "; run as root, or with CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aya::EbpfError;

    #[test]
    fn only_a_refusal_for_want_of_privileges_is_answered_with_them() {
        let text = |errno: Errno| {
            let cause = MapError::CreateError { name: "FDB".to_owned(), io_error: errno.into() };
            LoadError::Load(EbpfError::MapError(cause).into()).to_string()
        };
        let failed = "cannot load the BPF programs: map error: failed to create map `FDB`";
        let privileges = "run as root, or with CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN";
        assert_eq!(
            text(Errno::PERM),
            format!("{failed}: Operation not permitted (os error 1); {privileges}")
        );
        assert_eq!(text(Errno::ACCESS), format!("{failed}: Permission denied (os error 13); {privileges}"));
        assert_eq!(text(Errno::NOMEM), format!("{failed}: Cannot allocate memory (os error 12)"));
        assert_eq!(text(Errno::AGAIN), format!("{failed}: Resource temporarily unavailable (os error 11)"));
    }

    #[test]
    fn what_loading_needs_is_named() {
        let error = LoadError::Need("the counters", Errno::NOMEM.into());
        let text = "cannot load the BPF programs: the counters: Cannot allocate memory (os error 12)";
        assert_eq!(error.to_string(), text);
    }
}
