//! Maps in this process's own memory. This is the only file that maps them.

use std::ffi::c_void;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use aya::maps::MapData;
use bytemuck::Zeroable as _;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use trunkline_core::abi;
use trunkline_core::table::{Exchange, Memory};

/// A value of a map that others write while this process has it in its memory.
///
/// # Safety
/// All bit patterns are valid, and whatever anybody writes is an atomic.
unsafe trait Shared: Sync {}

// SAFETY: an atomic.
unsafe impl Shared for AtomicU64 {}
// SAFETY: atomics only.
unsafe impl Shared for abi::Bucket {}
// SAFETY: atomics, and zeros that nobody writes.
unsafe impl Shared for abi::TableHeader {}

/// The values of an array map.
struct Mapping<T> {
    /// Kept open while it is in use, so that tools show who uses the map.
    _map: MapData,
    start: NonNull<T>,
    count: usize,
}

// SAFETY: it is a reference to values that all threads may use, and they stay until it is dropped.
unsafe impl<T: Shared> Send for Mapping<T> {}
// SAFETY: as above.
unsafe impl<T: Shared> Sync for Mapping<T> {}

impl<T: Shared> Mapping<T> {
    /// Maps all values of a map with `BPF_F_MMAPABLE` that has `count` of them.
    fn new(map: MapData, count: u32) -> rustix::io::Result<Self> {
        const { assert!(size_of::<T>().is_multiple_of(8), "only then do array maps leave no gaps") };
        let count = count as usize;
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: no mapping is replaced, and the kernel refuses a length beyond the map's end.
        let start =
            unsafe { mmap(std::ptr::null_mut(), count * size_of::<T>(), protection, flags, map.fd(), 0) }?;
        let start = NonNull::new(start.cast::<T>()).ok_or(rustix::io::Errno::NOMEM)?;
        Ok(Self { _map: map, start, count })
    }
}

impl<T> Deref for Mapping<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: mapped from the start of a page, with this length, until `self` is dropped; all bits are
        // valid.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.count) }
    }
}

impl<T> Drop for Mapping<T> {
    fn drop(&mut self) {
        let start = self.start.as_ptr().cast::<c_void>();
        // SAFETY: it is exactly what was mapped, and no reference to it is left.
        // An error would leave it mapped, which does no harm.
        let _ = unsafe { munmap(start, self.count * size_of::<T>()) };
    }
}

/// The counters of the programs: each CPU has its own.
pub(super) struct CounterMemory(Mapping<AtomicU64>);

/// Words in the counters of one port.
const WORDS: usize = size_of::<abi::Counters>() / size_of::<u64>();
/// Words in the counters of one CPU.
const ROW: usize = size_of::<abi::CpuCounters>() / size_of::<u64>();

impl CounterMemory {
    /// Maps the map `COUNTERS`, which has room for `cpus`.
    pub(super) fn new(counters: MapData, cpus: u32) -> rustix::io::Result<Self> {
        Mapping::new(counters, cpus * ROW as u32).map(Self)
    }

    /// Returns the counters of a port, summed over all CPUs.
    pub(super) fn sum(&self, port: u16) -> abi::Counters {
        let mut sum = abi::Counters::zeroed();
        for cpu in self.of_cpus(port) {
            let sums = bytemuck::cast_slice_mut::<_, u64>(std::slice::from_mut(&mut sum));
            for (sum, word) in sums.iter_mut().zip(cpu) {
                *sum = sum.wrapping_add(word.load(Ordering::Relaxed));
            }
        }
        sum
    }

    /// Sets the counters of a port to zero. The caller makes sure that no program counts for the port
    /// meanwhile.
    pub(super) fn clear(&self, port: u16) {
        self.of_cpus(port).flatten().for_each(|word| word.store(0, Ordering::Relaxed));
    }

    fn of_cpus(&self, port: u16) -> impl Iterator<Item = &[AtomicU64]> {
        self.0.chunks_exact(ROW).filter_map(move |row| row.chunks_exact(WORDS).nth(usize::from(port)))
    }
}

/// The table of stations.
pub(super) struct StationMemory {
    buckets: Mapping<abi::Bucket>,
    header: Mapping<abi::TableHeader>,
}

impl StationMemory {
    /// Maps the map `FDB`, which has this many buckets, and `FDB_HEADER`.
    pub(super) fn new(fdb: MapData, buckets: u32, header: MapData) -> rustix::io::Result<Self> {
        Ok(Self { buckets: Mapping::new(fdb, buckets)?, header: Mapping::new(header, 1)? })
    }
}

impl Memory for StationMemory {
    fn bucket(&self, number: u32) -> Option<&abi::Bucket> {
        self.buckets.get(number as usize)
    }
    fn header(&self) -> Option<&abi::TableHeader> {
        self.header.first()
    }
    fn load(&self, word: &AtomicU64) -> u64 {
        word.load(Ordering::Relaxed)
    }
    fn store(&self, word: &AtomicU64, value: u64) {
        word.store(value, Ordering::Relaxed);
    }
    fn swap(&self, word: &AtomicU64, value: u64) -> u64 {
        word.swap(value, Ordering::SeqCst)
    }
}

impl Exchange for StationMemory {
    fn exchange(&self, word: &AtomicU64, expected: u64, value: u64) -> bool {
        word.compare_exchange(expected, value, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}
