//! Who may let a bridge switch: one state for each bridge, and one way into switching.
//!
//! ```text
//!                    activate                        confirm
//!     Suspended ────────────────────► Confirming ─────────────► Switching
//!        ▲         (drained, stations      │                        │
//!        │          set aside, database    │                        │
//!        │          read to the end)       │                        │
//!        └─────────────────────────────────┴────────────────────────┘
//!              suspend · trip · a lease that ran out
//! ```
//!
//! `ovs-vsctl` returns as soon as ovs-vswitchd has applied a change, often within a millisecond, and no frame may go by
//! the old rule after that. So the thread that reads the database *trips* the gate of the bridges that a change is about
//! before the agent hears of it. Until the agent has acknowledged the change, none of them can be activated.
//!
//! A lease is *extended*, never given back: one that has run out, or was taken away, leaves its bridge suspended, since
//! stations may have moved unseen meanwhile. The test and the write are one step ([`LeaseTable::extend`]), as a process
//! may be stopped between any two of its own.
//!
//! A lease ends [`LEASE_S`] after the database was last known to be read to the end ([`Gate::database_read`]). A thread that
//! hangs or is kept from running, the agent's or the one that reads the database, therefore costs the bridge its lease, not
//! a frame its way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use trunkline_core::abi;

use super::{BridgeNo, BridgeTimes, DataplaneError, LEASE_S};

/// Where the programs read whether a bridge may switch.
pub trait LeaseTable {
    /// Writes what the programs know of a bridge.
    fn write(&mut self, bridge: BridgeNo, value: abi::Bridge) -> Result<(), DataplaneError>;

    /// Reads until when a bridge may switch, in seconds of the monotonic clock; 0 for not at all.
    fn lease_s(&self, bridge: BridgeNo) -> Result<u32, DataplaneError>;

    /// Lets the programs forget the flows that they remember. To be called after every change of a table.
    fn invalidate_flows(&mut self) -> Result<(), DataplaneError>;
}

/// Which bridges an event of the database is about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Affected {
    /// Bridges by name; none if the event changes nothing of what is mirrored.
    Bridges(BTreeSet<String>),
    /// Every bridge there is or will be.
    All,
}

/// State of a bridge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Lease {
    /// All its frames are Open vSwitch's.
    Suspended {
        /// Whether every program has ended that may have read a lease of it.
        drained: bool,
    },
    /// It switches, but between stations only that have sent a frame since: the others are not confirmed yet.
    Confirming,
    /// It switches.
    Switching,
}

impl Lease {
    fn runs(self) -> bool {
        matches!(self, Self::Confirming | Self::Switching)
    }
}

#[derive(Debug)]
struct Bridge {
    name: String,
    lease: Lease,
}

/// The leases of all bridges, shared by the agent and the thread that reads the database.
#[derive(Debug)]
pub struct Gate<T> {
    state: Mutex<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    table: T,
    bridges: BTreeMap<BridgeNo, Bridge>,
    /// By name, the last event about a bridge that the agent has not acknowledged.
    tripped: BTreeMap<String, u64>,
    /// The last event about all bridges.
    tripped_all: u64,
    /// Events of the database so far, and those that the agent has acknowledged.
    passed: u64,
    acknowledged: u64,
    /// When everything was read that the database had, in seconds; `None` if no database is followed.
    read_s: Option<u32>,
}

impl<T: LeaseTable> Gate<T> {
    pub(super) fn new(table: T) -> Self {
        let state = State {
            table,
            bridges: BTreeMap::new(),
            tripped: BTreeMap::new(),
            tripped_all: 0,
            passed: 0,
            acknowledged: 0,
            read_s: None,
        };
        Self { state: Mutex::new(state) }
    }

    /// Binds all leases to a database from now on: none runs before it has been read.
    pub fn follow_database(&self) {
        self.lock().read_s = Some(0);
    }

    /// Takes note that whatever the database had at this second has been passed to [`Gate::trip`].
    pub fn database_read(&self, as_of_s: u32) {
        self.lock().read_s = Some(as_of_s);
    }

    /// Suspends the bridges that an event of the database is about, before the agent hears of it. To be called once for each
    /// event that the agent will acknowledge.
    ///
    /// # Errors
    /// A lease could not be taken away; it runs out within [`LEASE_S`].
    pub fn trip(&self, affected: &Affected) -> Result<(), DataplaneError> {
        let state = &mut *self.lock();
        state.passed += 1;
        let names = match affected {
            Affected::Bridges(names) if names.is_empty() => return Ok(()),
            Affected::Bridges(names) => {
                state.tripped.extend(names.iter().map(|name| (name.clone(), state.passed)));
                Some(names)
            }
            Affected::All => {
                state.tripped_all = state.passed;
                None
            }
        };
        let is_affected = |bridge: &Bridge| names.is_none_or(|names| names.contains(&bridge.name));
        let running = state.bridges.iter().filter(|(_, bridge)| bridge.lease.runs() && is_affected(bridge));
        let running: Vec<BridgeNo> = running.map(|(number, _)| *number).collect();
        // One that fails is no reason to let the others go on.
        let suspended = running.into_iter().map(|bridge| state.suspend(bridge)).fold(Ok(()), Result::and);
        suspended.and(state.table.invalidate_flows())
    }

    /// Takes note that the agent begins with the next event of the database, and decides with the knowledge of it from now on.
    pub fn acknowledge(&self) {
        let mut state = self.lock();
        state.acknowledged += 1;
        let acknowledged = state.acknowledged;
        state.tripped.retain(|_, event| *event > acknowledged);
    }

    /// Whether [`Gate::activate`] would let a bridge of this name switch.
    pub(super) fn may_activate(&self, name: &str, now_s: u32) -> bool {
        self.lock().lease_from(name, now_s).is_some()
    }

    /// Lets a bridge switch. Its programs have been drained since it was suspended, and its stations set aside. Returns false,
    /// and does nothing, if something is known that the agent has yet to hear, or if it is not certain that there is not.
    pub(super) fn activate(
        &self,
        bridge: BridgeNo,
        name: &str,
        times: BridgeTimes,
        now_s: u32,
    ) -> Result<bool, DataplaneError> {
        let mut state = self.lock();
        let Some(lease_s) = state.lease_from(name, now_s) else { return Ok(false) };
        state.table.write(bridge, abi::Bridge::new(lease_s, times.refresh_s, times.ageing_s))?;
        state.bridges.insert(bridge, Bridge { name: name.to_owned(), lease: Lease::Confirming });
        Ok(true)
    }

    /// Ends the time of a bridge without confirmed stations. Returns false if it is suspended, and its stations are not to
    /// be touched.
    pub(super) fn confirm(&self, bridge: BridgeNo) -> bool {
        let mut state = self.lock();
        let Some(bridge) = state.bridges.get_mut(&bridge).filter(|bridge| bridge.lease.runs()) else {
            return false;
        };
        bridge.lease = Lease::Switching;
        true
    }

    /// Takes a bridge's lease away.
    pub(super) fn suspend(&self, bridge: BridgeNo) -> Result<(), DataplaneError> {
        self.lock().suspend(bridge)
    }

    /// Extends the leases that have not run out, by `extend`: each to the given second, in one step with the test whether it
    /// has run out; those that have are taken away. Tries all bridges.
    ///
    /// # Errors
    /// The leases are not extended. Those that run out are taken away the next time.
    pub(super) fn renew(
        &self,
        now_s: u32,
        extend: impl FnOnce(&mut T, u32) -> Result<(), DataplaneError>,
    ) -> Result<(), DataplaneError> {
        let state = &mut *self.lock();
        let running: Vec<BridgeNo> = state
            .bridges
            .iter()
            .filter(|(_, bridge)| bridge.lease.runs())
            .map(|(number, _)| *number)
            .collect();
        if running.is_empty() {
            return Ok(());
        }
        let until_s = state.lease_end(now_s);
        let extended = extend(&mut state.table, until_s);
        running.into_iter().fold(extended, |result, bridge| {
            let lapsed = state.table.lease_s(bridge).map(|lease_s| lease_s == 0);
            let ended = match lapsed {
                Ok(false) => Ok(()),
                Ok(true) => state.suspend(bridge),
                Err(error) => state.suspend(bridge).and(Err(error)),
            };
            result.and(ended)
        })
    }

    /// Those of `bridges` that are suspended.
    pub(super) fn suspended(&self, bridges: impl IntoIterator<Item = BridgeNo>) -> BTreeSet<BridgeNo> {
        let state = self.lock();
        bridges.into_iter().filter(|bridge| !state.runs(*bridge)).collect()
    }

    /// All bridges that are suspended; to be handed to [`Gate::drained`] after running programs have been awaited.
    pub(super) fn to_be_drained(&self) -> Vec<BridgeNo> {
        let state = self.lock();
        state.bridges.iter().filter(|(_, bridge)| !bridge.lease.runs()).map(|(number, _)| *number).collect()
    }

    /// Takes note that every program has ended that ran when [`Gate::to_be_drained`] named these bridges.
    pub(super) fn drained(&self, bridges: &[BridgeNo]) {
        let mut state = self.lock();
        for bridge in bridges {
            if let Some(Bridge { lease: Lease::Suspended { drained }, .. }) = state.bridges.get_mut(bridge) {
                *drained = true;
            }
        }
    }

    /// Whether no program runs that may have read a lease of the bridge.
    pub(super) fn is_drained(&self, bridge: BridgeNo) -> bool {
        let state = self.lock();
        state.bridges.get(&bridge).is_none_or(|bridge| bridge.lease == Lease::Suspended { drained: true })
    }

    /// Lets the programs forget the flows that they remember; to be called after every change of a table. A second time,
    /// after those that ran meanwhile have ended, makes sure that none remembers what it read in between.
    pub(super) fn invalidate_flows(&self) -> Result<(), DataplaneError> {
        self.lock().table.invalidate_flows()
    }

    /// Runs `look` on the table.
    #[cfg(test)]
    pub(super) fn table<R>(&self, look: impl FnOnce(&mut T) -> R) -> R {
        look(&mut self.lock().table)
    }

    /// Holding the lock never panics halfway through a change that matters: at worst a bridge is suspended.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: LeaseTable> State<T> {
    fn runs(&self, bridge: BridgeNo) -> bool {
        self.bridges.get(&bridge).is_some_and(|bridge| bridge.lease.runs())
    }

    fn suspend(&mut self, bridge: BridgeNo) -> Result<(), DataplaneError> {
        if let Some(bridge) = self.bridges.get_mut(&bridge)
            && bridge.lease.runs()
        {
            bridge.lease = Lease::Suspended { drained: false };
        }
        self.table.write(bridge, abi::Bridge::default())
    }

    /// Until when leases last that are written now.
    fn lease_end(&self, now_s: u32) -> u32 {
        self.read_s.map_or(now_s, |read_s| read_s.min(now_s)) + LEASE_S
    }

    /// The end of a lease that a bridge of this name may be given now.
    fn lease_from(&self, name: &str, now_s: u32) -> Option<u32> {
        let unheard = self.tripped_all > self.acknowledged || self.tripped.contains_key(name);
        Some(self.lease_end(now_s)).filter(|end_s| !unheard && *end_s > now_s)
    }
}

#[cfg(test)]
mod tests;
