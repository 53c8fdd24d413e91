//! What only the agent does with a table, and only one of its threads at a time: going through all stations,
//! putting a station back, and removing.

use core::sync::atomic::AtomicU64;

use super::{BRIDGE, FREE, GROUP, Memory, PRESENT, TOMBSTONE, Table};
use crate::abi::{BUCKET_PLACES, Place};
use crate::{FdbEntry, FdbKey, Mac, Vid};

/// Memory with a compare-and-exchange; only the agent has it.
pub trait Exchange: Memory {
    /// Writes a word if it has the expected value, in one step. Returns whether it had.
    fn exchange(&self, word: &AtomicU64, expected: u64, value: u64) -> bool;
}

impl<M: Exchange> Table<M> {
    /// Overwrites the entry of a station if it is still the expected one: an entry that a program has written
    /// in the meantime is newer. Returns whether it was the expected one.
    pub fn replace(&self, key: &FdbKey, expected: FdbEntry, entry: FdbEntry) -> bool {
        let sought = self.seek(key);
        let Some((place, word)) = self.find(&sought) else { return false };
        FdbEntry::from_word(word) == expected
            && self.memory.exchange(&place.entry, word, entry.to_word() | sought.mark)
    }
}

/// The number of a place in its table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PlaceNo(pub(super) u32);

impl<M: Memory> Table<M> {
    pub(super) fn place(&self, PlaceNo(number): PlaceNo) -> Option<&Place> {
        let bucket = self.memory.bucket(number / BUCKET_PLACES)?;
        bucket.places.get((number % BUCKET_PLACES) as usize)
    }

    /// Returns all stations and their places.
    pub fn stations(&self) -> impl Iterator<Item = (PlaceNo, FdbKey, FdbEntry)> + '_ {
        let buckets =
            (0..self.shape.buckets()).filter_map(|number| Some((number, self.memory.bucket(number)?)));
        // Most buckets are free, so they are skipped with as little work as possible.
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

    /// Returns how many stations were ever inserted.
    pub fn inserted(&self) -> u64 {
        self.memory.header().map_or(0, |header| self.memory.load(&header.inserted))
    }

    /// Returns how many stations there are.
    pub fn len(&self) -> u64 {
        self.memory.header().map_or(0, |header| {
            self.memory.load(&header.inserted).wrapping_sub(self.memory.load(&header.removed))
        })
    }

    /// Returns whether there is no station.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the place of a station.
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

    /// Removes the station of a place and leaves a tombstone. Call [`Table::clear`] a grace period later, and
    /// [`Table::free`] another one later; only then can another station be inserted there.
    pub fn remove(&self, number: PlaceNo) {
        let (Some(place), Some(header)) = (self.place(number), self.memory.header()) else { return };
        self.memory.store(&place.key, TOMBSTONE);
        self.memory.store(&header.removed, self.memory.load(&header.removed).wrapping_add(1));
    }

    /// Clears the entry of a tombstone: the second step of removing.
    pub fn clear(&self, number: PlaceNo) {
        if let Some(place) = self.place(number) {
            self.memory.store(&place.entry, 0);
        }
    }

    /// Makes a cleared tombstone a free place: the third step of removing.
    pub fn free(&self, number: PlaceNo) {
        if let Some(place) = self.place(number) {
            self.memory.store(&place.key, FREE);
        }
    }
}
