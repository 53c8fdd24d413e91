//! Maps in this process's own memory: the one place where they get there.

use std::ffi::c_void;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use aya::maps::MapData;
use bytemuck::Zeroable as _;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use trunkline_core::abi;
use trunkline_core::table::{Exchange, Memory};

/// A value of a map that others write while it is here.
///
/// # Safety
/// All bits are valid, and it is made of atomics, but for what nobody writes.
unsafe trait Shared: Sync {}

// SAFETY: an atomic.
unsafe impl Shared for AtomicU64 {}
// SAFETY: atomics only.
unsafe impl Shared for abi::Bucket {}
// SAFETY: atomics, and zeros that nobody writes.
unsafe impl Shared for abi::TableHeader {}

/// The values of an array map.
struct Mapping<T> {
    /// Open as long as it is in use, so that it shows who uses it.
    _map: MapData,
    start: NonNull<T>,
    count: usize,
}

// SAFETY: it is no more than a reference to values that may be used by all threads, and lasts until it is dropped.
unsafe impl<T: Shared> Send for Mapping<T> {}
// SAFETY: as above.
unsafe impl<T: Shared> Sync for Mapping<T> {}

impl<T: Shared> Mapping<T> {
    /// All values of a map with `BPF_F_MMAPABLE` that has so many.
    fn new(map: MapData, count: u32) -> rustix::io::Result<Self> {
        const { assert!(size_of::<T>().is_multiple_of(8), "array maps leave no gaps then") };
        let count = count as usize;
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: nothing is replaced, and the kernel refuses what goes beyond the map's end.
        let start =
            unsafe { mmap(std::ptr::null_mut(), count * size_of::<T>(), protection, flags, map.fd(), 0) }?;
        let start = NonNull::new(start.cast::<T>()).ok_or(rustix::io::Errno::NOMEM)?;
        Ok(Self { _map: map, start, count })
    }
}

impl<T> Deref for Mapping<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: mapped at the start of a page, of this length, until `self` is dropped; all bits are valid.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.count) }
    }
}

impl<T> Drop for Mapping<T> {
    fn drop(&mut self) {
        let start = self.start.as_ptr().cast::<c_void>();
        // SAFETY: all of what was mapped, and nobody refers to it any more.
        // An error would leave it mapped, which does no harm.
        let _ = unsafe { munmap(start, self.count * size_of::<T>()) };
    }
}

/// What the programs count, on each CPU by itself.
pub(super) struct CounterMemory(Mapping<AtomicU64>);

/// Numbers in what is counted of a port.
const WORDS: usize = size_of::<abi::Counters>() / size_of::<u64>();
/// Those of a CPU.
const ROW: usize = size_of::<abi::CpuCounters>() / size_of::<u64>();

impl CounterMemory {
    /// Of the map `COUNTERS`, for so many CPUs.
    pub(super) fn new(counters: MapData, cpus: u32) -> rustix::io::Result<Self> {
        Mapping::new(counters, cpus * ROW as u32).map(Self)
    }

    /// What was counted of a port on all CPUs together.
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

    /// Begins anew with a port, which no program counts for at the moment.
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
    /// Of the maps `FDB` with so many buckets, and `FDB_HEADER`.
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
