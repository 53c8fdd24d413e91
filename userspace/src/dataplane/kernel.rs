//! The dataplane in the kernel: XDP and tc programs on the ports, and their maps.
//!
//! Links are not pinned: when the agent ends for whatever reason, the kernel detaches the programs from the
//! ports, and Open vSwitch has all frames again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use aya::Ebpf;
use aya::maps::{MapData, RingBuf};
use aya::programs::{SchedClassifier, Xdp};
use rustix::time::{ClockId, clock_gettime};
use trunkline_core::{Decision, FdbEntry, FdbKey, Hook, Ticks, TraceAnswer, abi};

use super::attached::Attached;
use super::drain::Drain;
use super::host::{Cpus, Preemption, ticks};
use super::learned::LearnedCounts;
use super::lease_maps::{KernelLeases, extend};
use super::loaded::{Constants, Loaded, map};
use super::mapping::CounterMemory;
use super::ports::PortTables;
use super::programs::{self, LoadError};
use super::stations::Stations;
use super::trace::Tracer;
use super::{
    BridgeNo, BridgeTimes, Dataplane, DataplaneError, Gate, Hooks, Installed, InstalledPort, Op, PortNo,
};
use crate::fdb;

/// What can be chosen when the programs are loaded.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Most stations on all bridges together.
    pub stations: u32,
    /// Whether the programs log rare events. If not, the loaded programs have no code for it.
    pub log: bool,
}

/// Programs and maps in the kernel.
pub struct Kernel {
    ebpf: Ebpf,
    has_tc: bool,
    ports: PortTables,
    learned: LearnedCounts,
    gate: Arc<Gate<KernelLeases>>,
    stations: Stations,
    counters: CounterMemory,
    tracer: Tracer,
    attached: BTreeMap<PortNo, Attached>,
    drain: Drain,
    installed: Installed,
    /// When the flow cache was last invalidated only because of its age, in seconds.
    invalidated_s: u32,
}

/// The flow cache is invalidated at least this often, in seconds, even if nothing has changed: a set has only
/// the low half of its time, which repeats after 49 days at the earliest.
const INVALIDATED_S: u32 = 86_400;

impl Kernel {
    /// Loads programs and maps, and attaches nothing yet.
    ///
    /// # Errors
    /// No privileges, a kernel that is too old, or an object of another build.
    pub fn load(options: Options) -> Result<Self, LoadError> {
        tracing::info!(preemption = %Preemption::of_kernel(), "loading the programs");
        let cpus =
            Cpus::of_machine().map_err(|error| LoadError::Need("cannot read the CPUs", error.into()))?;
        Self::load_for(options, cpus)
    }

    /// Does the same with maps for this many CPUs, for tests of a machine that is given more.
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
        let Options { stations, log } = options;
        let Loaded { ebpf, has_tc, ports, learned, leases, stations, counters, tracer } =
            Loaded::new(Constants { stations, log, cpus, ticks })?;
        Ok(Self {
            ebpf,
            has_tc,
            ports,
            learned,
            gate: Arc::new(Gate::new(leases)),
            stations,
            counters,
            tracer,
            attached: BTreeMap::new(),
            drain: Drain::new(),
            installed: Installed::default(),
            invalidated_s: 0,
        })
    }

    /// Returns the gate that decides which bridges may switch, for the thread that reads the database.
    pub fn gate(&self) -> Arc<Gate<KernelLeases>> {
        self.gate.clone()
    }

    /// Returns whether the programs' clock agrees with the agent's.
    fn tells_the_time(&mut self) -> bool {
        // Frame and device do not matter: the answer has the program's clock in any case.
        let now_s = || clock_gettime(ClockId::MonotonicCoarse).tv_sec as u32;
        self.trace(0, &[0; 64]).is_ok_and(|(answer, _)| answer.now_s.abs_diff(now_s()) <= 1)
    }

    /// Returns whether the kernel has tcx, so that the tc program can be attached to ports.
    pub fn has_tc(&self) -> bool {
        self.has_tc
    }

    /// Returns the kernel's number of the XDP program on the ports.
    pub fn program_id(&self) -> Option<u32> {
        let program = self.ebpf.program(programs::XDP)?;
        program.info().ok().map(|info| info.id())
    }

    /// Returns the reader of the programs' log. They write none without [`Options::log`].
    ///
    /// # Errors
    /// The log's ring buffer could not be opened.
    pub fn logger(&mut self) -> Result<aya_log::EbpfLogger<&'static dyn log::Log>, aya_log::Error> {
        aya_log::EbpfLogger::init(&mut self.ebpf)
    }

    /// Returns the ring buffer in which the programs ask for stations to be shown to Open vSwitch. It can be
    /// taken once.
    ///
    /// # Errors
    /// It has been taken already.
    pub fn shows(&mut self) -> Result<RingBuf<MapData>, LoadError> {
        map(&mut self.ebpf, "SHOW")
    }

    /// Returns the XDP program on the ports, for benchmarks and tests that run it directly.
    ///
    /// # Errors
    /// Never for an object that could be loaded.
    pub fn program(&mut self) -> Result<&mut Xdp, LoadError> {
        programs::xdp(&mut self.ebpf, programs::XDP)
    }

    /// Returns the tc program on the ports, for benchmarks and tests that run it directly.
    ///
    /// # Errors
    /// Never for an object that could be loaded.
    pub fn tc_program(&mut self) -> Result<&mut SchedClassifier, LoadError> {
        programs::tc(&mut self.ebpf, programs::TC)
    }

    /// Enters a port into the tables without attaching a program to its device.
    ///
    /// # Errors
    /// A table could not be written, or the device is gone.
    pub fn enter(&mut self, port: PortNo, new: &InstalledPort) -> Result<(), DataplaneError> {
        self.ports.enter(port, new)
    }

    /// Changes the rules of a port and nothing else, for tests of the rules.
    ///
    /// # Errors
    /// The table could not be written.
    pub fn overwrite_rules(&mut self, port: PortNo, rules: &abi::Port) -> Result<(), DataplaneError> {
        self.ports.overwrite_rules(port, rules).and(self.invalidate_flows())
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
        let entered = self.ports.enter(port, new);
        let ebpf = &mut self.ebpf;
        let done = entered.and_then(|()| self.attached.entry(port).or_default().adjust(ebpf, new));
        match done {
            Ok(()) => drop(self.installed.ports.insert(port, new.clone())),
            Err(_) => self.undo(port, new),
        }
        done
    }

    /// Restores what was installed of a port before a failure, as far as possible.
    fn undo(&mut self, port: PortNo, new: &InstalledPort) {
        let mut attached = self.attached.remove(&port).unwrap_or_default();
        // The caller reports the failure that led here, not those of restoring.
        if let Some(old) = self.installed.ports.get(&port).cloned() {
            let _ = self.ports.enter(port, &old);
            let _ = attached.adjust(&mut self.ebpf, &old);
            self.attached.insert(port, attached);
        } else {
            // Nothing refers to the place, and the next port in it overwrites it.
            let _ = self.ports.clear(port, new);
            let _ = attached.detach(&mut self.ebpf, &new.device);
        }
    }

    /// Takes a port out. Tries every part of it, and returns the first failure.
    fn remove(&mut self, port: PortNo) -> Result<(), DataplaneError> {
        let Some(old) = self.installed.ports.remove(&port) else { return Ok(()) };
        let mut results = vec![self.ports.clear(port, &old)];
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

    /// Waits until every program has ended that may have read a table before.
    fn await_programs(&mut self) {
        let suspended = self.gate.to_be_drained();
        self.drain.wait();
        self.gate.drained(&suspended);
    }

    fn invalidate_flows(&self) -> Result<(), DataplaneError> {
        self.gate.invalidate_flows()
    }

    /// Returns what the program of one hook would do with this frame on this device, and the frame as it
    /// would leave.
    ///
    /// # Errors
    /// The program could not be run.
    pub fn trace_at(
        &mut self,
        hook: Hook,
        ifindex: u32,
        frame: &[u8],
    ) -> Result<(TraceAnswer, Vec<u8>), DataplaneError> {
        self.tracer.run(&mut self.ebpf, hook, ifindex, frame)
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
        let ebpf = &mut self.ebpf;
        let renewed = self.gate.renew(now_s, |_, until_s| extend(ebpf, until_s));
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
        self.learned.correct(port, stations, self.stations.inserted())
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
