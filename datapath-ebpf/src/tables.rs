//! The switch's tables on top of the maps: those of the programs on the ports, and those of the trace
//! programs.

use trunkline_core::{Clock, FdbEntry, FdbKey, FlowCache, Hook, PuntReason, Tables, abi};

use crate::maps::{self, Cpu};

const SECOND_NS: u64 = 1_000_000_000;
/// Without the kernel's ticks, a tick is about a millisecond.
const TICK_BITS: u32 = 20;

/// The tables for the program on the ports of a hook.
pub(crate) struct Live {
    hook: Hook,
    cpu: Cpu,
}

impl Live {
    /// Returns the tables for a program of this hook.
    #[inline(always)]
    pub(crate) fn new(hook: Hook) -> Self {
        Self { hook, cpu: Cpu::current() }
    }

    /// Runs `change` on this CPU's counters.
    #[inline(always)]
    pub(crate) fn count(&self, change: impl FnOnce(&mut abi::CpuCounters)) {
        self.cpu.count(change);
    }
}

impl Tables for Live {
    #[inline(always)]
    fn hook(&self) -> Hook {
        self.hook
    }

    #[inline(always)]
    fn port_no(&self, ifindex: u32) -> Option<u16> {
        let slot = maps::SLOTS.get(ifindex & (abi::IFINDEX_SLOTS - 1))?;
        (slot.ifindex == ifindex).then_some(slot.port_no as u16)
    }

    #[inline(always)]
    fn port(&self, port_no: u16) -> Option<&abi::Port> {
        maps::PORTS.get(u32::from(port_no))
    }

    #[inline(always)]
    fn bridge(&self, bridge_no: u16) -> Option<&abi::Bridge> {
        maps::BRIDGES.get(u32::from(bridge_no))
    }

    #[inline(always)]
    fn fdb(&self, key: &FdbKey) -> Option<FdbEntry> {
        maps::stations().get(key)
    }

    #[inline(always)]
    fn fdb_pair(&self, keys: [&FdbKey; 2]) -> [Option<FdbEntry>; 2] {
        maps::stations().get_pair(keys)
    }

    #[inline(always)]
    fn learn(&self, key: &FdbKey, entry: FdbEntry, limit: u32) -> Result<(), PuntReason> {
        maps::learn(key, entry.to_word(), limit)
    }

    #[inline(always)]
    fn update(&self, key: &FdbKey, entry: FdbEntry) {
        maps::update(key, entry.to_word());
    }

    #[inline(always)]
    fn ask_to_show(&self, key: &FdbKey, port: u16) {
        maps::ask_to_show(key, port);
    }
}

impl Clock for Live {
    #[inline(always)]
    fn now_s(&self) -> u32 {
        let rate = maps::TRUNKLINE_TICKS.load();
        if rate.used() { rate.seconds(maps::jiffies()) } else { (maps::coarse_ns() / SECOND_NS) as u32 }
    }

    #[inline(always)]
    fn ticks(&self) -> u64 {
        if maps::TRUNKLINE_TICKS.load().used() { maps::jiffies() } else { maps::coarse_ns() >> TICK_BITS }
    }

    #[inline(always)]
    fn until(&self, ticks: u64) -> u64 {
        let rate = maps::TRUNKLINE_TICKS.load();
        if rate.used() {
            rate.until(ticks)
        } else {
            (((ticks << TICK_BITS) / SECOND_NS + 1) * SECOND_NS) >> TICK_BITS
        }
    }
}

impl FlowCache for Live {
    #[inline(always)]
    fn generation(&self) -> u64 {
        maps::generation()
    }

    #[inline(always)]
    fn invalidate_flows(&self) {
        maps::begin_generation();
    }

    #[inline(always)]
    fn read_flows<R>(&self, hash: u64, read: impl FnOnce(&abi::FlowSet) -> Option<R>) -> Option<R> {
        self.cpu.read_flows(hash, read)
    }

    #[inline(always)]
    fn write_flows(&self, hash: u64, change: impl FnOnce(&mut abi::FlowSet)) {
        self.cpu.write_flows(hash, change);
    }

    #[inline(always)]
    fn random(&self) -> u32 {
        maps::random()
    }
}

/// The same tables, in which nothing is changed.
pub(crate) struct ReadOnly(pub(crate) Live);

impl Tables for ReadOnly {
    #[inline(always)]
    fn hook(&self) -> Hook {
        self.0.hook()
    }
    #[inline(always)]
    fn port_no(&self, ifindex: u32) -> Option<u16> {
        self.0.port_no(ifindex)
    }
    #[inline(always)]
    fn port(&self, port_no: u16) -> Option<&abi::Port> {
        self.0.port(port_no)
    }
    #[inline(always)]
    fn bridge(&self, bridge_no: u16) -> Option<&abi::Bridge> {
        self.0.bridge(bridge_no)
    }
    #[inline(always)]
    fn fdb(&self, key: &FdbKey) -> Option<FdbEntry> {
        self.0.fdb(key)
    }
    #[inline(always)]
    fn fdb_pair(&self, keys: [&FdbKey; 2]) -> [Option<FdbEntry>; 2] {
        self.0.fdb_pair(keys)
    }
    #[inline(always)]
    fn learn(&self, _: &FdbKey, _: FdbEntry, _: u32) -> Result<(), PuntReason> {
        Ok(())
    }
    #[inline(always)]
    fn update(&self, _: &FdbKey, _: FdbEntry) {}
    #[inline(always)]
    fn ask_to_show(&self, _: &FdbKey, _: u16) {}
}

impl Clock for ReadOnly {
    #[inline(always)]
    fn now_s(&self) -> u32 {
        self.0.now_s()
    }
    #[inline(always)]
    fn ticks(&self) -> u64 {
        self.0.ticks()
    }
    #[inline(always)]
    fn until(&self, ticks: u64) -> u64 {
        self.0.until(ticks)
    }
}

impl FlowCache for ReadOnly {
    #[inline(always)]
    fn generation(&self) -> u64 {
        self.0.generation()
    }
    /// Does nothing, because nothing has changed.
    #[inline(always)]
    fn invalidate_flows(&self) {}
    #[inline(always)]
    fn read_flows<R>(&self, _: u64, read: impl FnOnce(&abi::FlowSet) -> Option<R>) -> Option<R> {
        maps::read_traced(read)
    }
    #[inline(always)]
    fn write_flows(&self, _: u64, change: impl FnOnce(&mut abi::FlowSet)) {
        maps::write_traced(change);
    }
    /// Returns a number with which every frame that is traced replaces another one.
    #[inline(always)]
    fn random(&self) -> u32 {
        0
    }
}
