//! The agent's side of the table of stations: it enters and removes stations, and frees the places of removed
//! ones.

use std::sync::Arc;
use std::thread::{self, JoinHandle};

use thiserror::Error;
use trunkline_core::table::{Full, Inserted, PlaceNo, Table};
use trunkline_core::{FdbEntry, FdbKey};

use super::DataplaneError;
use super::drain::grace_period;
use super::mapping::StationMemory;
use crate::fault;

/// How often to try to enter a station while others are being entered, each of which takes less than a
/// microsecond.
const TRIES: u32 = 10_000;

/// Why a station could not be entered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub(super) enum NotEntered {
    #[error("a group address is no station's")]
    Group,
    #[error("the table is full: start the agent with a larger --fdb-size")]
    Full,
    #[error("others are being entered all the time")]
    Busy,
}

impl NotEntered {
    /// Returns it as the failure of a step.
    pub(super) fn of(self, key: &FdbKey) -> DataplaneError {
        DataplaneError::new("enter", format!("station {} in VLAN {}", key.mac, key.vid), self)
    }
}

/// The stations, and the places that have yet to be freed.
pub(super) struct Stations {
    table: Arc<Table<StationMemory>>,
    tombstones: Vec<PlaceNo>,
    freeing: Option<JoinHandle<()>>,
}

impl Stations {
    pub(super) fn new(table: Table<StationMemory>) -> Self {
        Self { table: Arc::new(table), tombstones: vec![], freeing: None }
    }

    pub(super) fn all(&self) -> Vec<(FdbKey, FdbEntry)> {
        self.table.stations().map(|(_, key, entry)| (key, entry)).collect()
    }

    /// Returns how many stations have ever been entered, so that it changes with each.
    pub(super) fn inserted(&self) -> u64 {
        self.table.inserted()
    }

    /// Enters or overwrites a station.
    pub(super) fn set(&mut self, key: &FdbKey, entry: FdbEntry) -> Result<(), NotEntered> {
        if key.mac.is_group() {
            return Err(NotEntered::Group);
        }
        for _ in 0..TRIES {
            if self.table.update(key, entry) {
                return Ok(());
            }
            match self.table.insert(key, entry) {
                Ok(Inserted::New) => return Ok(()),
                Ok(Inserted::Known) => {}
                Ok(Inserted::Later) => thread::yield_now(),
                Err(Full) if self.free_now() => {}
                Err(Full) => return Err(NotEntered::Full),
            }
        }
        Err(NotEntered::Busy)
    }

    /// Enters a station unless it is in the table already. Returns false if there is no room.
    pub(super) fn add(&mut self, key: &FdbKey, entry: FdbEntry) -> bool {
        if key.mac.is_group() {
            return true;
        }
        for _ in 0..TRIES {
            match self.table.insert(key, entry) {
                Ok(Inserted::New | Inserted::Known) => return true,
                Ok(Inserted::Later) => thread::yield_now(),
                Err(Full) => return false,
            }
        }
        true
    }

    /// Returns the entry of a station.
    pub(super) fn get(&self, key: &FdbKey) -> Option<FdbEntry> {
        if key.mac.is_group() { None } else { self.table.get(key) }
    }

    /// Overwrites the entry of a station if it is still as expected: one that a program has written meanwhile
    /// is newer. Returns whether it was.
    pub(super) fn replace(&self, key: &FdbKey, expected: FdbEntry, entry: FdbEntry) -> bool {
        !key.mac.is_group() && self.table.replace(key, expected, entry)
    }

    /// Removes a station, if it is in the table.
    pub(super) fn forget(&mut self, key: &FdbKey) {
        if let Some(place) = self.table.place_of(key).filter(|_| !key.mac.is_group()) {
            self.table.remove(place);
            self.tombstones.push(place);
        }
    }

    /// Removes all stations with such an entry.
    pub(super) fn forget_all(&mut self, which: impl Fn(&FdbEntry) -> bool) {
        for (place, _, _) in self.table.stations().filter(|(_, _, entry)| which(entry)) {
            self.table.remove(place);
            self.tombstones.push(place);
        }
    }

    /// Begins to free the places of removed stations, which takes two grace periods; to be called from time
    /// to time.
    pub(super) fn free_some(&mut self) {
        if self.tombstones.is_empty() || self.freeing.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return;
        }
        let (table, places) = (self.table.clone(), Arc::new(std::mem::take(&mut self.tombstones)));
        let thread = thread::Builder::new().name("trunkline-free".to_owned());
        self.freeing = match thread.spawn({
            let places = places.clone();
            move || free(&table, &places)
        }) {
            Ok(thread) => Some(thread),
            Err(_) => {
                free(&self.table, &places);
                None
            }
        };
    }

    /// Frees the places of all removed stations. Returns whether there were any.
    fn free_now(&mut self) -> bool {
        let freed = self.freeing.take().is_some_and(|thread| thread.join().is_ok());
        let places = std::mem::take(&mut self.tombstones);
        if !places.is_empty() {
            free(&self.table, &places);
        }
        freed || !places.is_empty()
    }
}

fn free(table: &Table<StationMemory>, places: &[PlaceNo]) {
    fault::check("free");
    grace_period();
    places.iter().for_each(|place| table.clear(*place));
    grace_period();
    places.iter().for_each(|place| table.free(*place));
}
