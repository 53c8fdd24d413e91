//! Stopping the fast path at once when the configuration changes, whatever else the agent is busy with.
//!
//! `ovs-vsctl` returns as soon as ovs-vswitchd has applied a change, often within a millisecond, and no frame may go by
//! the old rule after that. So the thread that reads the database suspends all bridges itself, before the agent hears of
//! the change, and the leases that the agent writes have no effect until it has heard.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use aya::maps::{Array, MapData, MapError};
use rustix::time::{ClockId, clock_gettime};
use trunkline_core::abi;

use super::{BridgeNo, pod::Raw};
use crate::applied;
use crate::ovsdb::{OvsdbEvent, Rows};

/// The leases of all bridges, shared by the two threads.
pub struct Brake {
    state: Mutex<State>,
}

struct State {
    bridges: Array<MapData, Raw<abi::Bridge>>,
    generation: Array<MapData, u64>,
    active: BTreeSet<BridgeNo>,
    last: Option<Arc<Rows>>,
    /// Events of the database so far, the one at which the brake was last pulled, and those the agent has taken up.
    passed: u64,
    pulled: u64,
    taken: u64,
}

impl State {
    /// As the programs do it (`GENERATION`): with the time.
    fn outdate_flows(&mut self) -> Result<(), MapError> {
        let now = clock_gettime(ClockId::Monotonic);
        let ns = now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64;
        self.generation.set(0, ns, 0)
    }
}

const SUSPENDED: abi::Bridge = abi::Bridge { lease_s: 0, refresh_s: 0, ageing_s: 0, reserved: 0 };

impl Brake {
    pub(super) fn new(bridges: Array<MapData, Raw<abi::Bridge>>, generation: Array<MapData, u64>) -> Self {
        let state = State {
            bridges,
            generation,
            active: BTreeSet::new(),
            last: None,
            passed: 0,
            pulled: 0,
            taken: 0,
        };
        Self { state: Mutex::new(state) }
    }

    /// Looks at an event on its way to the agent, and suspends all bridges if it may change what they do. The agent
    /// gives those that it does not concern their leases back.
    ///
    /// # Errors
    /// A lease could not be written; the agent will try again.
    pub fn watch(&self, event: &OvsdbEvent) -> Result<(), MapError> {
        let mut state = self.lock();
        state.passed += 1;
        let harmless = match event {
            OvsdbEvent::Connected => true,
            OvsdbEvent::Disconnected { .. } => false,
            OvsdbEvent::Changed(rows) => {
                let last = state.last.replace(rows.clone());
                last.is_some_and(|last| !applied::differ(&last, rows))
            }
        };
        if harmless {
            return Ok(());
        }
        state.pulled = state.passed;
        let active: Vec<BridgeNo> = state.active.iter().copied().collect();
        let suspended =
            active.into_iter().map(|bridge| state.bridges.set(u32::from(bridge.0), Raw(SUSPENDED), 0));
        let suspended = suspended.fold(Ok(()), Result::and);
        state.outdate_flows().and(suspended)
    }

    /// The agent begins with the next event of the database, and from now on decides with the knowledge of it.
    pub fn take_up(&self) {
        self.lock().taken += 1;
    }

    /// Writes a lease, or a suspension with `lease_s` 0. Leases wait for the agent to take up what pulled the brake.
    pub(super) fn write(&self, bridge: BridgeNo, value: abi::Bridge) -> Result<(), MapError> {
        let mut state = self.lock();
        let value = if value.lease_s == 0 {
            state.active.remove(&bridge);
            SUSPENDED
        } else {
            state.active.insert(bridge);
            if state.pulled > state.taken { SUSPENDED } else { value }
        };
        state.bridges.set(u32::from(bridge.0), Raw(value), 0)
    }

    /// Lets the programs forget what they remember of frames; to be called after every change of a table. A second
    /// time, after those that ran meanwhile have ended, makes sure that none remembers what it read in between.
    pub(super) fn outdate_flows(&self) -> Result<(), MapError> {
        self.lock().outdate_flows()
    }

    /// A thread that panicked within has at worst left a bridge suspended.
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
