//! The table of stations: a hash table in a plain array, which programs on many CPUs and the agent share.
//!
//! The kernel's own hash reads two or more distant places for a station, one after the other, and is read by the agent with
//! two system calls for each. Here a station is in one of four places of one cache line, its *bucket*, or of another one if
//! that is full, and the agent has the array in its own memory.
//!
//! # Words
//!
//! A place is two words. The *key* is the address, the VLAN and four bits of the bridge; as the address is no group's, its
//! group bit is free, and always set here, so that no key is [`FREE`] or [`TOMBSTONE`]. The *entry* is [`FdbEntry::to_word`]
//! with, in its spare bits, the rest of the bridge and a bit that says that there is an entry at all.
//!
//! # Who writes what
//!
//! ```text
//!              insert: program or agent, with the lock
//!        FREE ───────────────────────────────────────► key of a station
//!          ▲                                             │ remove: agent
//!          │ free: agent, a grace period later           ▼
//!        TOMBSTONE, no entry ◄───────────────────────── TOMBSTONE
//!                  clear: agent, a grace period later
//! ```
//!
//! A *grace period* is a time within which every program that ran at its beginning has ended, and every CPU has seen
//! whatever was written before it (RCU). Only one thread removes, clears and frees. From this follows:
//!
//! - *While one program runs, a place does not pass from one station to another*: before it does, two grace periods pass. So
//!   a program writes the entry of a place in which it has found its station (a refresh, a move) without further ado: at
//!   worst the place was buried meanwhile, and nobody reads what it writes.
//! - *Whoever finds a key reads that station's entry or none*, also on processors that read words in another order than they
//!   were written. No entry is older than the grace period before `free`, which begins with the place cleared: what was
//!   written in between is an entry of this key. It takes neither barriers nor reading twice.
//! - *No station is in two places*: entering is for whoever has the lock, and he looks through both buckets first. Nobody
//!   waits for the lock in a program: a station that is not entered now is entered with its next frame.
//! - The lock is gone with the maps if the agent is killed with it. If it is merely stopped, nothing is learned until it goes
//!   on, which is no more than a loss of speed; all leases end before long.

use core::sync::atomic::AtomicU64;

use bytemuck::{Pod, Zeroable};

use crate::abi::{BUCKET_PLACES, Bucket, Place, TableHeader};
use crate::{FdbEntry, FdbKey, Mac, Vid};

/// Key of a place for a new station.
const FREE: u64 = 0;
/// Key of a place whose station was removed.
const TOMBSTONE: u64 = 1;
/// Set in the key of every station.
const GROUP: u64 = 1 << 56;
/// In an entry: there is one.
const PRESENT: u64 = 1 << 20;
/// In an entry: the bridge's bits from the fifth.
const BRIDGE: u64 = 0b111 << 17;

/// The memory that a table is in, and how words of it are read and written: that depends on who does it.
pub trait Memory {
    /// A bucket; `None` for a number out of range.
    fn bucket(&self, number: u32) -> Option<&Bucket>;
    /// The lock, and the numbers of stations.
    fn header(&self) -> Option<&TableHeader>;
    /// Reads a word in one piece. Never left out, even where nothing is made of it.
    fn load(&self, word: &AtomicU64) -> u64;
    /// Writes a word in one piece.
    fn store(&self, word: &AtomicU64, value: u64);
    /// Writes a word and returns what was there, in one step. Whatever is read or written before and after in the program
    /// is so for others too.
    fn swap(&self, word: &AtomicU64, value: u64) -> u64;
}

/// Memory of which a word can be compared and written in one step; the agent's.
pub trait Exchange: Memory {
    /// Writes a word if it is as expected. Returns whether it was.
    fn exchange(&self, word: &AtomicU64, expected: u64, value: u64) -> bool;
}

/// Size of a table, and where its stations are; the agent tells the programs when it loads them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Shape {
    /// Secrets, so that nobody can choose addresses that meet in one bucket. The second is odd.
    secrets: [u64; 2],
    /// Buckets less one: all bits of a bucket's number.
    mask: u32,
    /// Most stations.
    limit: u32,
}

impl Shape {
    /// Places for each station that may be there. With so many, [`Full`] does not come before the limit does.
    const ROOM: u32 = 4;
    /// Buckets of the largest table, of 1 GiB.
    const MOST: u32 = 1 << 24;
    /// Fewest stations to make room for, in 64 KiB: in a small table, chance may fill both buckets of a station long before.
    const LEAST: u32 = 1024;

    /// For so many stations, with two numbers that nobody can guess.
    pub const fn new(limit: u32, secrets: [u64; 2]) -> Self {
        let [a, b] = secrets;
        let most = Self::MOST * BUCKET_PLACES / Self::ROOM;
        let limit = if limit < most { limit } else { most };
        let places = if limit < Self::LEAST { Self::LEAST } else { limit.next_power_of_two() } as u64
            * Self::ROOM as u64;
        Self { secrets: [a, b | 1], mask: (places / BUCKET_PLACES as u64) as u32 - 1, limit }
    }

    /// How many buckets the table has.
    pub const fn buckets(self) -> u32 {
        self.mask + 1
    }

    /// The two buckets in which a key may be, the better one first.
    #[inline(always)]
    const fn buckets_of(self, key: u64) -> [u32; 2] {
        // As in MurmurHash3's finalizer, with a secret for one of the factors.
        let mut hash = (key ^ self.secrets[0]).wrapping_mul(self.secrets[1]);
        hash = (hash ^ hash >> 32).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        // Its high bits depend on all of the key.
        [(hash >> 40) as u32 & self.mask, (hash >> 16) as u32 & self.mask]
    }
}

/// The table is at its limit, or both buckets of the station are full.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full;

/// What became of a station that was to be entered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Inserted {
    /// It is there now.
    New,
    /// It was there already, and is as it was.
    Known,
    /// It is not, as another one is being entered: to be tried again.
    Later,
}

/// A table of stations. It is not for group addresses: they would be taken for the stations whose group bit is not set.
#[derive(Clone, Copy, Debug)]
pub struct Table<M> {
    memory: M,
    shape: Shape,
}

/// A station as it is in the table, and where it would be.
struct Sought {
    key: u64,
    /// Of the entry, what belongs to the key.
    mark: u64,
    buckets: [u32; 2],
}

/// What is in a bucket, for a station that is to be entered.
struct Bucketful<'m> {
    /// Whether it has that station.
    known: bool,
    /// A place for it.
    free: Option<&'m Place>,
    /// Places that are not free.
    used: u32,
}

impl<M: Memory> Table<M> {
    /// A table of this shape; the memory has as many buckets.
    #[inline(always)]
    pub const fn new(memory: M, shape: Shape) -> Self {
        Self { memory, shape }
    }

    /// The memory.
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

    /// The entry of the station that is sought, if this is its place.
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

    /// The entry of a station.
    #[inline(always)]
    pub fn get(&self, key: &FdbKey) -> Option<FdbEntry> {
        self.found(&self.seek(key))
    }

    /// The entries of two stations.
    ///
    /// The first words of both are read before either is looked at: so the processor waits for both at a time.
    #[inline(always)]
    pub fn get_pair(&self, keys: [&FdbKey; 2]) -> [Option<FdbEntry>; 2] {
        let (one, other) = (self.seek(keys[0]), self.seek(keys[1]));
        self.touch(one.buckets[0]);
        self.touch(other.buckets[0]);
        [self.found(&one), self.found(&other)]
    }

    /// Begins to read a bucket.
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

    /// The entry of the station that is sought, or 0. An `Option` would be fewer words here, but compilers may carry along a
    /// register that was never written for what it lacks, which verifiers refuse.
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

    /// Enters a station that is not there.
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
        // The first one is read first, and a second is a second distant read. Of two that are nearly full the emptier one is
        // hardly ever full (Azar and others, Balanced Allocations, 1994).
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

impl<M: Exchange> Table<M> {
    /// Overwrites the entry of a station if it is still the expected one: a program may have written another meanwhile,
    /// and that is newer. Returns whether it was.
    pub fn replace(&self, key: &FdbKey, expected: FdbEntry, entry: FdbEntry) -> bool {
        let sought = self.seek(key);
        let Some((place, word)) = self.find(&sought) else { return false };
        FdbEntry::from_word(word) == expected
            && self.memory.exchange(&place.entry, word, entry.to_word() | sought.mark)
    }
}

/// The number of a place in its table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PlaceNo(u32);

/// What only the agent does, and one thread of it at a time.
impl<M: Memory> Table<M> {
    fn place(&self, PlaceNo(number): PlaceNo) -> Option<&Place> {
        let bucket = self.memory.bucket(number / BUCKET_PLACES)?;
        bucket.places.get((number % BUCKET_PLACES) as usize)
    }

    /// All stations and their places.
    pub fn stations(&self) -> impl Iterator<Item = (PlaceNo, FdbKey, FdbEntry)> + '_ {
        let buckets =
            (0..self.shape.buckets()).filter_map(|number| Some((number, self.memory.bucket(number)?)));
        // Most of a table is free.
        let occupied = buckets.filter(|(_, bucket)| {
            bucket.places.iter().fold(FREE, |keys, place| keys | self.memory.load(&place.key)) != FREE
        });
        let places =
            occupied.flat_map(|(number, bucket)| (number * BUCKET_PLACES..).map(PlaceNo).zip(&bucket.places));
        places.filter_map(|(number, place)| {
            let (key, entry) = (self.memory.load(&place.key), self.memory.load(&place.entry));
            let bridge = (entry & BRIDGE) >> 17 << 4 | key >> 12 & 0xf;
            let vid = Vid::from_tci(key as u16);
            let mac = Mac::from_u64((key & !GROUP) >> 16);
            let there = key & GROUP != 0 && entry & PRESENT != 0;
            there.then_some((number, FdbKey { bridge: bridge as u16, vid, mac }, FdbEntry::from_word(entry)))
        })
    }

    /// How many stations were ever entered.
    pub fn inserted(&self) -> u64 {
        self.memory.header().map_or(0, |header| self.memory.load(&header.inserted))
    }

    /// How many stations there are.
    pub fn len(&self) -> u64 {
        self.memory.header().map_or(0, |header| {
            self.memory.load(&header.inserted).wrapping_sub(self.memory.load(&header.removed))
        })
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where a station is.
    pub fn place_of(&self, key: &FdbKey) -> Option<PlaceNo> {
        let sought = self.seek(key);
        let places = sought
            .buckets
            .into_iter()
            .flat_map(|bucket| (bucket * BUCKET_PLACES..(bucket + 1) * BUCKET_PLACES).map(PlaceNo));
        places
            .into_iter()
            .find(|number| self.place(*number).is_some_and(|place| self.entry(&sought, place).is_some()))
    }

    /// Removes the station of a place. The place is for no other one yet: [`Table::clear`] it a grace period later, and
    /// [`Table::free`] it another one later.
    pub fn remove(&self, number: PlaceNo) {
        let (Some(place), Some(header)) = (self.place(number), self.memory.header()) else { return };
        self.memory.store(&place.key, TOMBSTONE);
        self.memory.store(&header.removed, self.memory.load(&header.removed).wrapping_add(1));
    }

    /// Second step of removing.
    pub fn clear(&self, number: PlaceNo) {
        if let Some(place) = self.place(number) {
            self.memory.store(&place.entry, 0);
        }
    }

    /// Third step of removing.
    pub fn free(&self, number: PlaceNo) {
        if let Some(place) = self.place(number) {
            self.memory.store(&place.key, FREE);
        }
    }
}

#[cfg(test)]
mod tests;
