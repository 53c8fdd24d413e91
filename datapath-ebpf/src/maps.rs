//! The BPF maps and variables, and what of them needs `unsafe`. `tables.rs` is the safe side.

use core::{arch::asm, sync::atomic::AtomicU64};

use aya_ebpf::{
    Global,
    bindings::{
        BPF_F_MMAPABLE,
        xdp_action::{XDP_PASS, XDP_REDIRECT},
    },
    helpers::{
        bpf_get_prandom_u32, bpf_get_smp_processor_id, bpf_ktime_get_coarse_ns, bpf_ktime_get_ns,
        bpf_redirect_map, generated::bpf_jiffies64,
    },
    macros::map,
    maps::{Array, DevMap, PerCpuArray, RingBuf},
};
use trunkline_core::table::{Full, Inserted, Memory, Shape, Table};
use trunkline_core::{FdbEntry, FdbKey, PuntReason, Ticks, abi};

/// Ports by the low bits of their interface index.
#[map]
pub(crate) static SLOTS: Array<abi::Slot> = Array::with_max_entries(abi::IFINDEX_SLOTS, 0);

/// Ports by `PortNo`.
#[map]
pub(crate) static PORTS: Array<abi::Port> = Array::with_max_entries(abi::MAX_PORTS, 0);

/// Bridges by `BridgeNo`.
#[map]
pub(crate) static BRIDGES: Array<abi::Bridge> = Array::with_max_entries(abi::MAX_BRIDGES, 0);

/// Stations (`trunkline_core::table`). None is evicted, so a flood of addresses cannot displace the stations
/// of another port. The agent sets the size when it loads the programs.
#[map]
static FDB: Array<abi::Bucket> = Array::with_max_entries(65_536, BPF_F_MMAPABLE);

/// The lock and the numbers of the stations.
#[map]
static FDB_HEADER: Array<abi::TableHeader> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// How many stations each port has. The agent recounts them.
#[map]
static LEARNED: Array<u32> = Array::with_max_entries(abi::MAX_PORTS, 0);

/// Devices to send to, by `PortNo`.
#[map]
static DEVICES: DevMap = DevMap::with_max_entries(abi::MAX_PORTS, 0);

/// Requests to the agent to show stations to Open vSwitch. One that finds no room is made again with a later
/// frame.
#[map]
static SHOW: RingBuf = RingBuf::with_byte_size(1 << 16, 0);

/// Counters of each CPU. The agent sets their number when it loads the programs. The kernel's per-CPU arrays
/// allow small values only, so they would take a look-up for each port.
#[map]
static COUNTERS: Array<abi::CpuCounters> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// The flow cache: sets for each CPU, one CPU's after the other's. The agent sets the size when it loads the
/// programs. The kernel's per-CPU arrays would not start at a page.
#[map]
static FLOWS: Array<abi::FlowSet> = Array::with_max_entries(1, 0);

/// Generation of the tables: when they last changed, in nanoseconds of the monotonic clock.
///
/// A variable, which programs read without a look-up. The agent finds it as the map `.bss`, as it is the only
/// one there.
static GENERATION: AtomicU64 = AtomicU64::new(0);

/// A set for the trace programs, which run where a program on a port may interrupt them.
#[map]
static TRACE_FLOWS: PerCpuArray<abi::FlowSet> = PerCpuArray::with_max_entries(1, 0);

/// Question and answer of the trace programs.
#[map]
pub(crate) static TRACE: Array<abi::Trace> = Array::with_max_entries(1, 0);

/// How to read the clock. It is constant at load time, so that the verifier leaves only one of the two ways
/// in the program.
#[unsafe(no_mangle)]
pub(crate) static TRUNKLINE_TICKS: Global<Ticks> = Global::new(Ticks::UNUSED);

/// How many sets of flows each CPU has; 0 on a kernel that lets one program interrupt another on the same
/// CPU.
#[unsafe(no_mangle)]
static TRUNKLINE_FLOWS: Global<u32> = Global::new(0);

/// Size and hash of map `FDB`.
#[unsafe(no_mangle)]
static TRUNKLINE_FDB: Global<Shape> = Global::new(Shape::new(65_536, [0; 2]));

/// The memory of the stations.
pub(crate) struct Maps;

impl Memory for Maps {
    #[inline(always)]
    fn bucket(&self, number: u32) -> Option<&abi::Bucket> {
        FDB.get(number)
    }

    #[inline(always)]
    fn header(&self) -> Option<&abi::TableHeader> {
        FDB_HEADER.get(0)
    }

    #[inline(always)]
    fn load(&self, word: &AtomicU64) -> u64 {
        // The compiler has no atomic load for this target. A volatile load of an aligned word is in one
        // piece, too.
        // SAFETY: the word is one of a map's value, and aligned.
        unsafe { word.as_ptr().read_volatile() }
    }

    #[inline(always)]
    fn store(&self, word: &AtomicU64, value: u64) {
        // SAFETY: as above.
        unsafe { word.as_ptr().write_volatile(value) };
    }

    #[inline(always)]
    fn swap(&self, word: &AtomicU64, value: u64) -> u64 {
        let mut before = value;
        // BPF_XCHG (kernel 5.12), a full barrier. The core library does not offer it on this target.
        // SAFETY: as above.
        unsafe {
            asm!("{before} = xchg_64({word} + 0, {before})", word = in(reg) word.as_ptr(), before = inout(reg) before)
        };
        before
    }
}

#[inline(always)]
pub(crate) fn stations() -> Table<Maps> {
    Table::new(Maps, TRUNKLINE_FDB.load())
}

/// Returns a bridge, to be changed.
#[inline(always)]
pub(crate) fn bridge_mut(number: u32) -> Option<*mut abi::Bridge> {
    BRIDGES.get_ptr_mut(number)
}

/// Redirects the frame to a port's device, which sends it when the program has ended. Returns false if there
/// is no device.
#[inline(always)]
pub(crate) fn redirect(port: u16) -> bool {
    let devices = (&raw const DEVICES).cast_mut().cast();
    // SAFETY: a pointer to the map of that name. (`DevMap::redirect` evaluates more of the answer, for every
    // frame.)
    unsafe { bpf_redirect_map(devices, u64::from(port), u64::from(XDP_PASS)) == i64::from(XDP_REDIRECT) }
}

/// A function of its own, like [`update`]: most frames need neither, and the code that they need stays
/// together.
#[inline(never)]
pub(crate) fn learn(key: &FdbKey, entry: u64, limit: u32) -> Result<(), PuntReason> {
    let entry = FdbEntry::from_word(entry);
    let learned = LEARNED.get_ptr_mut(u32::from(entry.port)).ok_or(PuntReason::LearningLimit)?;
    // SAFETY: an array's value is always there, and aligned.
    let before = unsafe { learned.read_volatile() };
    if before >= limit {
        return Err(PuntReason::LearningLimit);
    }
    match stations().insert(key, entry) {
        Ok(Inserted::New) => {
            // SAFETY: as above. Of CPUs that learn at the same time, one may overwrite the count of another,
            // until the agent recounts.
            unsafe { learned.write_volatile(before + 1) };
            Ok(())
        }
        // Another CPU has just inserted this station, or is inserting another one. The next frame tries
        // again.
        Ok(Inserted::Known | Inserted::Later) => Ok(()),
        Err(Full) => Err(PuntReason::FdbFull),
    }
}

#[inline(never)]
pub(crate) fn update(key: &FdbKey, entry: u64) {
    // If the station was removed in the meantime, its next frame is learned from.
    stations().update(key, FdbEntry::from_word(entry));
}

/// A function of its own, like [`learn`].
#[inline(never)]
pub(crate) fn ask_to_show(key: &FdbKey, port: u16) {
    let FdbKey { bridge, vid, mac } = *key;
    let show = abi::Show { bridge, vid: vid.get(), port, mac: mac.octets(), reserved: [0; 2] };
    // Without room the request is lost, and a later frame makes it again.
    let _ = SHOW.output::<abi::Show>(show, 0);
}

/// The CPU that the program runs on, with what belongs to it alone: no other program on a port runs there
/// until this one has ended.
#[derive(Clone, Copy)]
pub(crate) struct Cpu(u32);

impl Cpu {
    #[inline(always)]
    pub(crate) fn current() -> Self {
        // SAFETY: the helper has no preconditions.
        Self(unsafe { bpf_get_smp_processor_id() })
    }

    /// Runs `change` on this CPU's counters.
    #[inline(always)]
    pub(crate) fn count(self, change: impl FnOnce(&mut abi::CpuCounters)) {
        if let Some(counters) = COUNTERS.get_ptr_mut(self.0) {
            // SAFETY: nobody else uses the counters of this CPU in the meantime.
            change(unsafe { &mut *counters });
        }
    }

    /// Reads this CPU's set for a flow in place.
    #[inline(always)]
    pub(crate) fn read_flows<R>(self, hash: u64, read: impl FnOnce(&abi::FlowSet) -> Option<R>) -> Option<R> {
        // SAFETY: nobody else uses the sets of this CPU in the meantime.
        read(unsafe { &*self.set(hash)? })
    }

    /// Changes this CPU's set for a flow in place.
    #[inline(always)]
    pub(crate) fn write_flows(self, hash: u64, change: impl FnOnce(&mut abi::FlowSet)) {
        if let Some(set) = self.set(hash) {
            // SAFETY: as above.
            change(unsafe { &mut *set });
        }
    }

    /// Returns this CPU's set for a flow.
    #[inline(always)]
    fn set(self, hash: u64) -> Option<*mut abi::FlowSet> {
        let sets = TRUNKLINE_FLOWS.load();
        if sets == 0 {
            return None;
        }
        // The hash as a fraction of all sets. A shift by a number that is not constant would take more
        // instructions.
        let set = ((hash >> 32) * u64::from(sets)) >> 32;
        FLOWS.get_ptr_mut(self.0 * sets + set as u32)
    }
}

/// Reads the set of the trace programs in place.
#[inline(always)]
pub(crate) fn read_traced<R>(read: impl FnOnce(&abi::FlowSet) -> Option<R>) -> Option<R> {
    // SAFETY: the trace programs do not interrupt each other.
    read(unsafe { &*TRACE_FLOWS.get_ptr(0)? })
}

/// Changes the set of the trace programs in place.
#[inline(always)]
pub(crate) fn write_traced(change: impl FnOnce(&mut abi::FlowSet)) {
    if let Some(set) = TRACE_FLOWS.get_ptr_mut(0) {
        // SAFETY: as above.
        change(unsafe { &mut *set });
    }
}

#[inline(always)]
pub(crate) fn generation() -> u64 {
    // SAFETY: a variable that is always there, and that others write in one piece.
    unsafe { GENERATION.as_ptr().read_volatile() }
}

/// Starts a new generation.
#[inline(always)]
pub(crate) fn begin_generation() {
    // SAFETY: as above; the helper reads a clock.
    unsafe { GENERATION.as_ptr().write_volatile(bpf_ktime_get_ns()) };
}

#[inline(always)]
pub(crate) fn random() -> u32 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_get_prandom_u32() }
}

#[inline(always)]
pub(crate) fn jiffies() -> u64 {
    // SAFETY: the helper reads a counter and has no preconditions.
    unsafe { bpf_jiffies64() }
}

#[inline(always)]
pub(crate) fn coarse_ns() -> u64 {
    // SAFETY: the helper reads a clock and has no preconditions.
    unsafe { bpf_ktime_get_coarse_ns() }
}
