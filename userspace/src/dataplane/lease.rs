//! Which bridges may switch: one state for each bridge, and one way into switching.
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
//! `ovs-vsctl` returns as soon as ovs-vswitchd has applied a change, often within a millisecond, and from
//! then on no frame may be treated by the old rules. So the thread that reads the database *trips* the gate
//! of the bridges that a change concerns before the agent hears of the change. Until the agent has
//! acknowledged it, none of these bridges can be activated.
//!
//! A lease is *extended*, never restored: one that has run out or was taken away leaves its bridge suspended,
//! since stations may have moved unseen in the meantime. The test and the write are one step
//! ([`Gate::renew`]), as a process may be stopped between any two steps of its own.
//!
//! A lease ends [`LEASE_S`] after the last time at which the database was known to be read to the end
//! ([`Gate::database_read`]). So if the agent's thread, or the one that reads the database, hangs or is kept
//! from running, the bridge loses its lease, and no frame is misdirected.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use trunkline_core::abi;

use super::{BridgeNo, BridgeTimes, DataplaneError, LEASE_S};

/// The table in which the programs read whether a bridge may switch.
pub trait LeaseTable {
    /// Writes what the programs know of a bridge.
    fn write(&mut self, bridge: BridgeNo, value: abi::Bridge) -> Result<(), DataplaneError>;

    /// Reads until when a bridge may switch, in seconds of the monotonic clock; 0 for not at all.
    fn lease_s(&self, bridge: BridgeNo) -> Result<u32, DataplaneError>;

    /// Invalidates the flows that the programs have cached. To be called after every change of a table.
    fn invalidate_flows(&mut self) -> Result<(), DataplaneError>;
}

/// The bridges that an event of the database concerns.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Affected {
    /// Bridges by name; none if the event changes nothing that is mirrored.
    Bridges(BTreeSet<String>),
    /// Every bridge that exists or will exist.
    All,
}

/// State of a bridge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Lease {
    /// Open vSwitch has all its frames.
    Suspended {
        /// Whether every program has ended that may have read a lease of it.
        drained: bool,
    },
    /// It switches, but only between stations that have sent a frame since: the others are not confirmed yet.
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
    /// By name, the last event that concerns a bridge and that the agent has not acknowledged.
    tripped: BTreeMap<String, u64>,
    /// The last event that concerns all bridges.
    tripped_all: u64,
    /// Events of the database so far, and those that the agent has acknowledged.
    passed: u64,
    acknowledged: u64,
    /// When the database was last known to be read to the end, in seconds; `None` if no database is followed.
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

    /// Binds all leases to a database from now on: none can begin before the database has been read.
    pub fn follow_database(&self) {
        self.lock().read_s = Some(0);
    }

    /// Records that everything the database had at this second has been passed to [`Gate::trip`].
    pub fn database_read(&self, as_of_s: u32) {
        self.lock().read_s = Some(as_of_s);
    }

    /// Suspends the bridges that an event of the database concerns, before the agent hears of it. To be
    /// called once for each event that the agent will acknowledge.
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
        // A failure with one bridge must not let the others go on.
        let suspended = running.into_iter().map(|bridge| state.suspend(bridge)).fold(Ok(()), Result::and);
        suspended.and(state.table.invalidate_flows())
    }

    /// Records that the agent begins to handle the next event of the database, so that all that it decides
    /// from now on takes the event into account.
    pub fn acknowledge(&self) {
        let mut state = self.lock();
        state.acknowledged += 1;
        let acknowledged = state.acknowledged;
        state.tripped.retain(|_, event| *event > acknowledged);
    }

    /// Returns whether [`Gate::activate`] would let a bridge of this name switch.
    pub(super) fn may_activate(&self, name: &str, now_s: u32) -> bool {
        self.lock().lease_from(name, now_s).is_some()
    }

    /// Lets a bridge switch. The caller has drained its programs since it was suspended, and has set its
    /// stations aside. Returns false, and does nothing, if the database has news that the agent has yet to
    /// hear, or if it is not certain that it has none.
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

    /// Ends the time in which a bridge switches without confirmed stations. Returns false if it is suspended;
    /// its stations must not be touched then.
    pub(super) fn confirm(&self, bridge: BridgeNo) -> bool {
        let mut state = self.lock();
        let Some(bridge) = state.bridges.get_mut(&bridge).filter(|bridge| bridge.lease.runs()) else {
            return false;
        };
        bridge.lease = Lease::Switching;
        true
    }

    /// Takes the lease of a bridge away.
    pub(super) fn suspend(&self, bridge: BridgeNo) -> Result<(), DataplaneError> {
        self.lock().suspend(bridge)
    }

    /// Calls `extend` with the second to which all leases are to be extended that have not run out; testing
    /// that is one step with extending. Then suspends the bridges whose leases have run out. Tries all
    /// bridges.
    ///
    /// # Errors
    /// The leases were not extended; those that run out are taken away the next time. Or a lease could not be
    /// read or written.
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

    /// Returns those of `bridges` that are suspended.
    pub(super) fn suspended(&self, bridges: impl IntoIterator<Item = BridgeNo>) -> BTreeSet<BridgeNo> {
        let state = self.lock();
        bridges.into_iter().filter(|bridge| !state.runs(*bridge)).collect()
    }

    /// Returns all bridges that are suspended; to be passed to [`Gate::drained`] once all running programs
    /// have ended.
    pub(super) fn to_be_drained(&self) -> Vec<BridgeNo> {
        let state = self.lock();
        state.bridges.iter().filter(|(_, bridge)| !bridge.lease.runs()).map(|(number, _)| *number).collect()
    }

    /// Records that every program has ended that ran when [`Gate::to_be_drained`] returned these bridges.
    pub(super) fn drained(&self, bridges: &[BridgeNo]) {
        let mut state = self.lock();
        for bridge in bridges {
            if let Some(Bridge { lease: Lease::Suspended { drained }, .. }) = state.bridges.get_mut(bridge) {
                *drained = true;
            }
        }
    }

    /// Returns whether no program runs any more that may have read a lease of the bridge.
    pub(super) fn is_drained(&self, bridge: BridgeNo) -> bool {
        let state = self.lock();
        state.bridges.get(&bridge).is_none_or(|bridge| bridge.lease == Lease::Suspended { drained: true })
    }

    /// Invalidates the flows that the programs have cached; to be called after every change of a table.
    /// Calling it again after the programs that ran meanwhile have ended makes sure that nothing is cached
    /// that was read in between.
    pub(super) fn invalidate_flows(&self) -> Result<(), DataplaneError> {
        self.lock().table.invalidate_flows()
    }

    /// Runs `look` on the table.
    #[cfg(test)]
    pub(super) fn table<R>(&self, look: impl FnOnce(&mut T) -> R) -> R {
        look(&mut self.lock().table)
    }

    /// Locks the state. A lock that a panic has poisoned is used like any other: no panic leaves a change
    /// that matters half done, and at worst a bridge is suspended.
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

    /// Returns the second at which leases end that are written now.
    fn lease_end(&self, now_s: u32) -> u32 {
        self.read_s.map_or(now_s, |read_s| read_s.min(now_s)) + LEASE_S
    }

    /// Returns the end of the lease that a bridge of this name may be given now, if it may be given one.
    fn lease_from(&self, name: &str, now_s: u32) -> Option<u32> {
        let unheard = self.tripped_all > self.acknowledged || self.tripped.contains_key(name);
        Some(self.lease_end(now_s)).filter(|end_s| !unheard && *end_s > now_s)
    }
}

#[cfg(test)]
mod tests;
