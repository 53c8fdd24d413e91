//! The table of stations: a hash table in a plain array, shared by programs on many CPUs and the agent.
//!
//! The kernel's own hash map reads two or more distant places for each station, one after the other, and
//! costs the agent two system calls for each. Here a station is in one of the four places of one cache line,
//! its *bucket*, or of a second bucket if the first is full, and the agent has the array in its own memory.
//!
//! # Words
//!
//! A place is two words. The *key* holds the address, the VLAN and four bits of the bridge. A station's
//! address is never a group address, so its group bit is free; it is always set here, so that no key equals
//! [`FREE`] or [`TOMBSTONE`]. The *entry* is [`FdbEntry::to_word`]; its spare bits hold the rest of the
//! bridge and a bit that says that there is an entry.
//!
//! # Who writes what
//!
//! ```text
//!               insert: program or agent, with the lock
//!        FREE ───────────────────────────────────────► key of a station
//!          ▲                                             │ remove: agent
//!          │ free: agent, a grace period later           ▼
//!        TOMBSTONE, no entry ◄──────────────────────── TOMBSTONE
//!               clear: agent, a grace period later
//! ```
//!
//! A *grace period* (RCU) is a time within which every program that ran when it began has ended, and every
//! CPU has seen what was written before it. Only one thread removes, clears and frees. It follows:
//!
//! - *While a program runs, no place passes from one station to another*: two grace periods have to pass
//!   first. So a program that has found its station in a place may simply write the entry (a refresh, a
//!   move). At worst the place has become a tombstone in the meantime, and nobody reads what was written.
//! - *A reader that finds a key reads that station's entry or none*, even on processors that read words in
//!   another order than they were written. The grace period before `free` begins after the entry was cleared,
//!   so no entry that is older can be read; any entry written since belongs to this key. No barriers and no
//!   second read are needed.
//! - *No station is in two places*: only the holder of the lock inserts, after it has searched both buckets.
//!   Programs do not wait for the lock: a station that is not inserted now is inserted with its next frame.
//! - If the agent is killed while it holds the lock, the lock disappears with the maps. If the agent is
//!   merely stopped, nothing is learned until it continues. That costs speed only, and all leases end soon.

mod agent;
mod shape;

use core::sync::atomic::AtomicU64;

use crate::abi::{BUCKET_PLACES, Bucket, Place, TableHeader};
use crate::{FdbEntry, FdbKey};

pub use agent::{Exchange, PlaceNo};
pub use shape::Shape;

/// Key of a place for a new station.
const FREE: u64 = 0;
/// Key of a place whose station was removed, and that is not free yet.
const TOMBSTONE: u64 = 1;
/// Set in the key of every station.
const GROUP: u64 = 1 << 56;
/// Set in an entry that exists.
const PRESENT: u64 = 1 << 20;
/// Bits of an entry that hold the bridge from its fifth bit on.
const BRIDGE: u64 = 0b111 << 17;

/// The memory of a table. How its words are read and written differs between programs, agent and tests.
pub trait Memory {
    /// Returns a bucket; `None` for a number out of range.
    fn bucket(&self, number: u32) -> Option<&Bucket>;
    /// Returns the lock and the numbers of stations.
    fn header(&self) -> Option<&TableHeader>;
    /// Reads a word in one piece. The read is never optimised away, even where its result is not used.
    fn load(&self, word: &AtomicU64) -> u64;
    /// Writes a word in one piece.
    fn store(&self, word: &AtomicU64, value: u64);
    /// Writes a word and returns what it was, in one step and with a full memory barrier.
    fn swap(&self, word: &AtomicU64, value: u64) -> u64;
}

/// There is no room: the table is at its limit, or both buckets of the station are full.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full;

/// The result of inserting a station.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Inserted {
    /// It was inserted.
    New,
    /// It was there already, and is unchanged.
    Known,
    /// It was not inserted, because another insertion is under way. Try again.
    Later,
}

/// A table of stations. It is not for group addresses, which would be mistaken for the same addresses without
/// the group bit.
#[derive(Clone, Copy, Debug)]
pub struct Table<M> {
    memory: M,
    shape: Shape,
}

/// A station in the form in which the table has it, and the places where it may be.
struct Sought {
    key: u64,
    /// The bits of the entry that identify the station.
    mark: u64,
    buckets: [u32; 2],
}

/// What a bucket holds, as far as it matters to a station that is to be inserted.
struct Bucketful<'m> {
    /// Whether that station is in it.
    known: bool,
    /// A free place.
    free: Option<&'m Place>,
    /// Places that are not free.
    used: u32,
}

impl<M: Memory> Table<M> {
    /// Returns the table of this shape. The memory must have as many buckets.
    #[inline(always)]
    pub const fn new(memory: M, shape: Shape) -> Self {
        Self { memory, shape }
    }

    /// Returns the memory.
    pub const fn memory(&self) -> &M {
        &self.memory
    }

    #[inline(always)]
    fn seek(&self, key: &FdbKey) -> Sought {
        let bridge = u64::from(key.bridge);
        let mark = PRESENT | bridge >> 4 << 17 & BRIDGE;
        let key = GROUP | key.mac.as_u64() << 16 | (bridge & 0xf) << 12 | u64::from(key.vid.get());
        Sought { key, mark, buckets: self.shape.buckets_of(key) }
    }

    /// Returns the entry of the station, if this is its place.
    #[inline(always)]
    fn entry(&self, sought: &Sought, place: &Place) -> Option<u64> {
        if self.memory.load(&place.key) != sought.key {
            return None;
        }
        let entry = self.memory.load(&place.entry);
        (entry & (PRESENT | BRIDGE) == sought.mark).then_some(entry)
    }

    #[inline(always)]
    fn find(&self, sought: &Sought) -> Option<(&Place, u64)> {
        for number in sought.buckets {
            for place in &self.memory.bucket(number)?.places {
                if let Some(entry) = self.entry(sought, place) {
                    return Some((place, entry));
                }
            }
        }
        None
    }

    /// Returns the entry of a station.
    #[inline(always)]
    pub fn get(&self, key: &FdbKey) -> Option<FdbEntry> {
        self.found(&self.seek(key))
    }

    /// Returns the entries of two stations.
    ///
    /// The first words of both are read before either is used, so that the processor waits for both reads at
    /// once.
    #[inline(always)]
    pub fn get_pair(&self, keys: [&FdbKey; 2]) -> [Option<FdbEntry>; 2] {
        let (one, other) = (self.seek(keys[0]), self.seek(keys[1]));
        self.touch(one.buckets[0]);
        self.touch(other.buckets[0]);
        [self.found(&one), self.found(&other)]
    }

    /// Starts to read a bucket.
    #[inline(always)]
    fn touch(&self, number: u32) {
        if let Some(bucket) = self.memory.bucket(number) {
            self.memory.load(&bucket.places[0].key);
        }
    }

    #[inline(always)]
    fn found(&self, sought: &Sought) -> Option<FdbEntry> {
        let word = self.word(sought);
        (word != 0).then(|| FdbEntry::from_word(word))
    }

    /// Returns the entry of the station, or 0. Not an `Option`: for the content of `None` compilers may carry
    /// along a register that was never written, which verifiers refuse.
    #[inline(always)]
    fn word(&self, sought: &Sought) -> u64 {
        for number in sought.buckets {
            let Some(bucket) = self.memory.bucket(number) else { break };
            for place in &bucket.places {
                if let Some(entry) = self.entry(sought, place) {
                    return entry;
                }
            }
        }
        0
    }

    /// Overwrites the entry of a station. Returns whether there is such a station.
    #[inline(always)]
    pub fn update(&self, key: &FdbKey, entry: FdbEntry) -> bool {
        let sought = self.seek(key);
        let Some((place, _)) = self.find(&sought) else { return false };
        self.memory.store(&place.entry, entry.to_word() | sought.mark);
        true
    }

    /// Inserts a station unless it is there.
    ///
    /// # Errors
    /// There is no room for it.
    #[inline(always)]
    pub fn insert(&self, key: &FdbKey, entry: FdbEntry) -> Result<Inserted, Full> {
        let Some(header) = self.memory.header() else { return Err(Full) };
        if self.memory.swap(&header.lock, 1) != 0 {
            return Ok(Inserted::Later);
        }
        let result = self.insert_locked(header, &self.seek(key), entry);
        self.memory.swap(&header.lock, 0);
        result
    }

    #[inline(always)]
    fn look_over(&self, sought: &Sought, number: u32) -> Option<Bucketful<'_>> {
        let mut found = Bucketful { known: false, free: None, used: 0 };
        for place in &self.memory.bucket(number)?.places {
            found.known |= self.entry(sought, place).is_some();
            if self.memory.load(&place.key) == FREE {
                found.free = Some(place);
            } else {
                found.used += 1;
            }
        }
        Some(found)
    }

    #[inline(always)]
    fn insert_locked(
        &self,
        header: &TableHeader,
        sought: &Sought,
        entry: FdbEntry,
    ) -> Result<Inserted, Full> {
        let [first, second] = sought.buckets;
        let (Some(first), Some(second)) = (self.look_over(sought, first), self.look_over(sought, second))
        else {
            return Err(Full);
        };
        if first.known || second.known {
            return Ok(Inserted::Known);
        }
        // Readers search the first bucket first, and the second one costs them another distant read. So it is
        // used only when the first is nearly full; of two buckets the emptier one is hardly ever full (Azar
        // et al., Balanced Allocations, 1994).
        let emptier = first.used >= BUCKET_PLACES - 1 && second.used < first.used;
        let free = if emptier { second.free } else { first.free };
        let inserted = self.memory.load(&header.inserted);
        let stations = inserted.wrapping_sub(self.memory.load(&header.removed));
        let Some(place) = free.filter(|_| stations < u64::from(self.shape.limit)) else { return Err(Full) };
        self.memory.store(&place.entry, entry.to_word() | sought.mark);
        self.memory.store(&place.key, sought.key);
        self.memory.store(&header.inserted, inserted.wrapping_add(1));
        Ok(Inserted::New)
    }
}

#[cfg(test)]
mod tests;
