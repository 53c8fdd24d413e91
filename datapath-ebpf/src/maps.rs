//! The BPF maps, and the switch's tables on top of them.

use aya_ebpf::{
    Global,
    bindings::BPF_NOEXIST,
    helpers::{bpf_ktime_get_coarse_ns, bpf_ktime_get_ns, generated::bpf_jiffies64},
    macros::map,
    maps::{Array, DevMap, HashMap, PerCpuArray},
};
use trunkline_core::{FdbEntry, FdbKey, Hook, PuntReason, Tables, Ticks, abi};

/// Interface index (its low bits) to port.
#[map]
static SLOTS: Array<abi::Slot> = Array::with_max_entries(abi::IFINDEX_SLOTS, 0);

/// Ports by `PortNo`.
#[map]
static PORTS: Array<abi::Port> = Array::with_max_entries(abi::MAX_PORTS, 0);

/// Bridges by `BridgeNo`.
#[map]
static BRIDGES: Array<abi::Bridge> = Array::with_max_entries(abi::MAX_BRIDGES, 0);

/// Stations. Preallocated and not LRU: a flood of addresses cannot evict another port's stations. The agent sets
/// the size when it loads the programs.
#[map]
static FDB: HashMap<abi::FdbKey, abi::FdbValue> = HashMap::with_max_entries(65_536, 0);

/// How many stations each port has; recounted by the agent.
#[map]
static LEARNED: Array<u32> = Array::with_max_entries(abi::MAX_PORTS, 0);

/// Devices to send to, by `PortNo`.
#[map]
pub(crate) static DEVICES: DevMap = DevMap::with_max_entries(abi::MAX_PORTS, 0);

/// Counters by `PortNo`.
#[map]
static COUNTERS: PerCpuArray<abi::Counters> = PerCpuArray::with_max_entries(abi::MAX_PORTS, 0);

/// Generation of the tables: when they last changed, in the low bits of the monotonic clock's nanoseconds. A remembered
/// verdict is used for a second at most, so that no two changes within its life have the same number.
#[map]
static GENERATION: Array<u32> = Array::with_max_entries(1, 0);

/// What became of frames of late.
#[map]
static FLOWS: PerCpuArray<abi::Flow> = PerCpuArray::with_max_entries(abi::FLOW_PLACES, 0);

/// The same for `trunkline_trace`, which runs where a port's program may interrupt it.
#[map]
static TRACE_FLOWS: PerCpuArray<abi::Flow> = PerCpuArray::with_max_entries(1, 0);

/// Question and answer of `trunkline_trace`.
#[map]
pub(crate) static TRACE: Array<abi::Trace> = Array::with_max_entries(1, 0);

/// How to read the clock: a constant at load time, so that only one of the ways remains in the program.
#[unsafe(no_mangle)]
static TRUNKLINE_TICKS: Global<Ticks> = Global::new(Ticks::UNUSED);

/// Whether there is a flow cache: 1, or 0 on a kernel that may run one program amidst another on the same CPU.
#[unsafe(no_mangle)]
static TRUNKLINE_FLOWS: Global<u32> = Global::new(1);

/// Runs `change` on this CPU's counters of a port.
#[inline(always)]
pub(crate) fn count(port: u16, change: impl FnOnce(&mut abi::Counters)) {
    if let Some(counters) = COUNTERS.get_ptr_mut(u32::from(port)) {
        // SAFETY: the value belongs to this CPU, on which the program runs to its end undisturbed.
        change(unsafe { &mut *counters });
    }
}

/// The tables as the ports' program of a hook uses them.
pub(crate) struct Live(pub(crate) Hook);

impl Tables for Live {
    #[inline(always)]
    fn hook(&self) -> Hook {
        self.0
    }

    #[inline(always)]
    fn port_no(&self, ifindex: u32) -> Option<u16> {
        let slot = SLOTS.get(ifindex & (abi::IFINDEX_SLOTS - 1))?;
        (slot.ifindex == ifindex).then_some(slot.port_no as u16)
    }

    #[inline(always)]
    fn port(&self, port_no: u16) -> Option<&abi::Port> {
        PORTS.get(u32::from(port_no))
    }

    #[inline(always)]
    fn bridge(&self, bridge_no: u16) -> Option<&abi::Bridge> {
        BRIDGES.get(u32::from(bridge_no))
    }

    #[inline(always)]
    fn now_s(&self) -> u32 {
        let ticks = TRUNKLINE_TICKS.load();
        if ticks.used() {
            // SAFETY: the helper reads a counter and has no preconditions.
            return ticks.seconds(unsafe { bpf_jiffies64() });
        }
        // SAFETY: the helper reads a clock and has no preconditions.
        let ns = unsafe { bpf_ktime_get_coarse_ns() };
        (ns / 1_000_000_000) as u32
    }

    #[inline(always)]
    fn fdb(&self, key: &FdbKey) -> Option<FdbEntry> {
        let key = key.to_abi();
        let value = FDB.get_ptr(key)?;
        // The entry before the check: see `abi::FdbValue`.
        // SAFETY: a found value stays readable until the program ends, and both words are aligned.
        let (entry, check) = unsafe {
            ((&raw const (*value).entry).read_volatile(), (&raw const (*value).check).read_volatile())
        };
        (check == key.check()).then_some(FdbEntry::from_word(entry))
    }

    #[inline(always)]
    fn learn(&self, key: &FdbKey, entry: FdbEntry, limit: u32) -> Result<(), PuntReason> {
        const EEXIST: i32 = -17;
        let learned = LEARNED.get_ptr_mut(u32::from(entry.port)).ok_or(PuntReason::LearningLimit)?;
        // SAFETY: an array's value is always there, and aligned.
        let before = unsafe { learned.read_volatile() };
        if before >= limit {
            return Err(PuntReason::LearningLimit);
        }
        let key = key.to_abi();
        match FDB.insert(key, key.value(entry), u64::from(BPF_NOEXIST)) {
            Ok(()) => {
                // SAFETY: as above. CPUs that learn at the same moment may count one for two, until the agent recounts.
                unsafe { learned.write_volatile(before + 1) };
                Ok(())
            }
            // Another CPU was faster with the same station.
            Err(EEXIST) => Ok(()),
            Err(_) => Err(PuntReason::FdbFull),
        }
    }

    #[inline(always)]
    fn update(&self, key: &FdbKey, entry: FdbEntry) {
        let key = key.to_abi();
        // If the entry was deleted meanwhile there may be no room; then the next frame finds no entry, and learns.
        let _ = FDB.insert(key, key.value(entry), 0);
    }

    #[inline(always)]
    fn generation(&self) -> u32 {
        // SAFETY: an array's value is always there, and aligned.
        GENERATION.get_ptr(0).map_or(0, |generation| unsafe { generation.read_volatile() })
    }

    #[inline(always)]
    fn outdate_flows(&self) {
        if let Some(generation) = GENERATION.get_ptr_mut(0) {
            // SAFETY: an array's value is always there, and aligned; the helper reads a clock.
            unsafe { generation.write_volatile(bpf_ktime_get_ns() as u32) };
        }
    }

    #[inline(always)]
    fn flow(&self, place: u32) -> Option<abi::Flow> {
        if TRUNKLINE_FLOWS.load() == 0 {
            return None;
        }
        // SAFETY: the value belongs to this CPU, on which the program runs to its end undisturbed.
        FLOWS.get_ptr(place).map(|flow| unsafe { *flow })
    }

    #[inline(always)]
    fn remember(&self, place: u32, flow: abi::Flow) {
        if TRUNKLINE_FLOWS.load() == 0 {
            return;
        }
        if let Some(known) = FLOWS.get_ptr_mut(place) {
            // SAFETY: as above.
            unsafe { *known = flow };
        }
    }
}

/// The same tables, on which nothing is learned.
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
    fn now_s(&self) -> u32 {
        self.0.now_s()
    }
    #[inline(always)]
    fn fdb(&self, key: &FdbKey) -> Option<FdbEntry> {
        self.0.fdb(key)
    }
    #[inline(always)]
    fn learn(&self, _: &FdbKey, _: FdbEntry, _: u32) -> Result<(), PuntReason> {
        Ok(())
    }
    #[inline(always)]
    fn update(&self, _: &FdbKey, _: FdbEntry) {}
    #[inline(always)]
    fn generation(&self) -> u32 {
        self.0.generation()
    }
    #[inline(always)]
    fn outdate_flows(&self) {}
    #[inline(always)]
    fn flow(&self, _: u32) -> Option<abi::Flow> {
        // SAFETY: `trunkline_trace` does not interrupt itself.
        TRACE_FLOWS.get_ptr(0).map(|flow| unsafe { *flow })
    }
    #[inline(always)]
    fn remember(&self, _: u32, flow: abi::Flow) {
        if let Some(known) = TRACE_FLOWS.get_ptr_mut(0) {
            // SAFETY: as above.
            unsafe { *known = flow };
        }
    }
}
