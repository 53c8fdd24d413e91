//! What ovs-vswitchd has applied of what the database says.
//!
//! A client that waits (`ovs-vsctl` without `--no-wait`) increments `next_cfg` together with its change, and
//! ovs-vswitchd sets `cur_cfg` to it when the change is in force. A change without that announcement is of
//! one of two kinds. Most columns wake ovs-vswitchd, so the change is in force a moment later: *alerting*.
//! `Port.trunks`, `Port.vlan_mode`, `Bridge.stp_enable` and `Bridge.rstp_enable` do not
//! (`vswitchd/bridge.c`): such a *silent* change waits until something else wakes it, and so does the fast
//! path.
//!
//! Every update has a number, and a change in it is *open* until it is certain that ovs-vswitchd has applied
//! that update. A change that is taken back is open all the same: ovs-vswitchd may have applied it in
//! between. A bridge with an open change is held. One thing cannot be known: a silent change that was waiting
//! already when the agent connected (or connected again), or that came in one message with the confirmation
//! of another.
//!
//! After the database was out of reach, ovs-vswitchd may connect to it later than the agent, and is not woken
//! before:
//!
//! ```text
//!           reconnected                update
//!   Steady ─────────────► Away ──────────────────► Returned
//!      ▲                   │ ▲                       │ │
//!      │  the first state  │ └────── reconnected ────┘ │
//!      ├───────────────────┘                           │
//!      └───────────────────────────────────────────────┘
//!        `cur_cfg` moves, or a barrier is passed that gave time to connect
//! ```

mod difference;
mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::desired::Reason;
use crate::ovsdb::Rows;

pub use difference::Differences;
pub use watch::{DatabaseEvent, Watch};

/// The number of an update. They count from 1; 0 is before the first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub struct Update(u64);

impl Update {
    fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// What to do next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// Nothing; the state is settled, or ovs-vswitchd's word is awaited.
    Wait,
    /// Make sure that ovs-vswitchd has been through its main loop since, then call
    /// [`Applied::barrier_passed`].
    Barrier {
        /// The newest update, to be given back.
        update: Update,
        /// Whether ovs-vswitchd is to have time first to connect to the database again.
        connecting: bool,
    },
}

/// The newest updates with an open change of a bridge.
#[derive(Clone, Copy, Default, Debug)]
struct Open {
    silent: Option<Update>,
    alerting: Option<Update>,
    /// Whether any of the changes since the bridge is held is of more than the VLANs of its ports.
    further: bool,
}

/// Whether ovs-vswitchd is connected to the database.
#[derive(Clone, Copy, Default, Debug)]
enum Database {
    /// It is, or the agent has just begun.
    #[default]
    Steady,
    /// The database is in reach again, and its state is still to come.
    Away {
        /// That of [`Database::Returned`] before, if that was not over.
        changed: bool,
    },
    /// The database was read, and ovs-vswitchd may have yet to connect.
    Returned {
        /// Whether something has changed, which it then cannot have applied.
        changed: bool,
    },
}

impl Database {
    /// Tells whether there is a change that ovs-vswitchd cannot apply before it is connected.
    fn holds_back_a_change(self) -> bool {
        matches!(self, Self::Away { changed: true } | Self::Returned { changed: true })
    }

    fn reconnect(&mut self) {
        *self = Self::Away { changed: self.holds_back_a_change() };
    }

    /// Returns whether this is the first state since the database was out of reach.
    fn read(&mut self, first_of_all: bool) -> bool {
        let Self::Away { changed } = *self else { return false };
        *self = if first_of_all { Self::Steady } else { Self::Returned { changed } };
        true
    }

    fn change(&mut self) {
        if let Self::Returned { changed } = self {
            *changed = true;
        }
    }

    /// Takes note that ovs-vswitchd was certainly connected when the agent was last.
    fn confirm(&mut self) {
        *self = match self {
            Self::Away { .. } => Self::Away { changed: false },
            Self::Steady | Self::Returned { .. } => Self::Steady,
        };
    }
}

/// A barrier that ovs-vswitchd has yet to pass.
#[derive(Clone, Copy, Debug)]
struct Barrier {
    /// The newest update when it was set.
    update: Update,
    /// The update that had woken ovs-vswitchd last by then.
    alerted: Update,
    /// Whether ovs-vswitchd is given time to connect to the database first.
    connecting: bool,
}

/// Follows the database and knows which bridges to hold.
#[derive(Default, Debug)]
pub struct Applied {
    latest: Option<Arc<Rows>>,
    newest: Update,
    /// By name of the bridge.
    open: BTreeMap<String, Open>,
    /// The update that changed `next_cfg` last.
    announced: Update,
    /// The update that woke ovs-vswitchd last.
    alerted: Update,
    database: Database,
    /// The newest update when the running ovs-vswitchd was last known not to have been replaced.
    seen: Update,
    barrier: Option<Barrier>,
}

impl Applied {
    /// Returns the newest state.
    pub fn latest(&self) -> Option<&Arc<Rows>> {
        self.latest.as_ref()
    }

    /// Takes note that the database is in reach again. What was changed and changed back meanwhile does not
    /// show in the next state, but ovs-vswitchd may be at work on it.
    pub fn reconnected(&mut self) {
        self.database.reconnect();
    }

    /// Takes the state after a transaction (or after several, if the server put them together), and how it
    /// differs from the one before.
    pub fn update(&mut self, rows: Arc<Rows>, differences: Differences) -> Next {
        let before = self.newest;
        self.newest = before.next();
        let (next, current) = cfg(&rows);
        let (known_next, known_current) = self.latest.as_deref().map_or((i64::MIN, i64::MIN), cfg);
        // An agent that has just begun finds ovs-vswitchd connected.
        let returns = self.database.read(self.latest.is_none());
        for (bridge, difference) in differences.0 {
            self.database.change();
            let open = self.open.entry(bridge).or_default();
            open.further |= difference.further;
            if difference.alerting {
                open.alerting = Some(self.newest);
                self.alerted = self.newest;
            } else {
                open.silent = Some(self.newest);
            }
        }
        if returns {
            for bridge in rows.bridges.values() {
                let open = self.open.entry(bridge.name.clone()).or_default();
                (open.alerting, open.further) = (Some(self.newest), true);
            }
        }
        self.latest = Some(rows);

        let (announces, confirms) = (next != known_next, current == next && current != known_current);
        if announces {
            self.announced = self.newest;
            self.alerted = self.newest;
        }
        if current != known_current && !returns {
            self.database.confirm();
        }
        if confirms {
            // Where both came together, another change may have come after.
            self.certain(if announces { before } else { self.announced });
        }
        self.next()
    }

    /// Takes note that ovs-vswitchd has been through its main loop since [`Next::Barrier`]. Whatever it was
    /// woken for, it has applied everything up to that update; silent changes only if it certainly was.
    pub fn barrier_passed(&mut self, update: Update) -> Next {
        let Some(barrier) = self.barrier.take_if(|barrier| barrier.update == update) else {
            return Next::Wait;
        };
        if barrier.connecting {
            self.database.confirm();
        }
        self.certain_of(barrier.alerted, barrier.update);
        self.next()
    }

    /// Takes note that the ovs-vswitchd that ran is still the one that runs, or none does.
    pub fn not_restarted(&mut self) {
        self.seen = self.newest;
    }

    /// Takes note that ovs-vswitchd has started anew. It begins by applying everything it finds.
    pub fn restarted(&mut self) {
        self.certain(self.seen);
        self.seen = self.newest;
    }

    /// Returns why a bridge has to be held, if it has to.
    pub fn hold_reason(&self, bridge: &str) -> Option<Reason> {
        if self.latest.is_none() {
            return Some(Reason::DatabaseUnread);
        }
        let open = self.open.get(bridge)?;
        Some(if open.alerting.is_none() && open.silent > Some(self.alerted) {
            Reason::SilentChange
        } else if self.database.holds_back_a_change() {
            Reason::Reconnecting
        } else {
            Reason::Applying
        })
    }

    /// Tells whether a bridge is held for changes of its ports' VLANs, and for nothing else.
    pub fn holds_for_vlans(&self, bridge: &str) -> bool {
        self.open.get(bridge).is_some_and(|open| !open.further)
    }

    fn certain(&mut self, up_to: Update) {
        self.certain_of(up_to, up_to);
    }

    fn certain_of(&mut self, silent_up_to: Update, alerting_up_to: Update) {
        self.open.retain(|_, Open { silent, alerting, further: _ }| {
            silent.take_if(|update| *update <= silent_up_to);
            alerting.take_if(|update| *update <= alerting_up_to);
            silent.is_some() || alerting.is_some()
        });
    }

    /// Sets a barrier if ovs-vswitchd was woken for a change that no confirmation is awaited for.
    fn next(&mut self) -> Next {
        let lagging = self.latest.as_deref().is_some_and(|rows| cfg(rows).0 != cfg(rows).1);
        let awaited = lagging.then_some(self.announced);
        let due = |Open { silent, alerting, further: _ }: &Open| {
            (*silent > awaited && *silent <= Some(self.alerted)) || *alerting > awaited
        };
        if self.barrier.is_some() || !self.open.values().any(due) {
            return Next::Wait;
        }
        let (update, connecting) = (self.newest, self.database.holds_back_a_change());
        self.barrier = Some(Barrier { update, alerted: self.alerted, connecting });
        Next::Barrier { update, connecting }
    }
}

/// `next_cfg` and `cur_cfg`.
fn cfg(rows: &Rows) -> (i64, i64) {
    rows.open_vswitch.as_ref().map_or((0, 0), |row| (row.next_cfg, row.cur_cfg))
}

#[cfg(test)]
mod tests;
