//! What each event of the database changes, found out once: where it is read.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::difference::Differences;
use crate::dataplane::Affected;
use crate::ovsdb::{OvsdbEvent, Rows};

/// An event of the database, with what it changes.
#[derive(Clone, Debug)]
pub enum DatabaseEvent {
    /// A server answered; its complete state follows.
    Connected,
    /// The state after a transaction, or at first the state found.
    Changed {
        /// The state.
        rows: Arc<Rows>,
        /// How it differs from the last one, also if the database was out of reach in between.
        differences: Differences,
    },
    /// The server is out of reach.
    Disconnected {
        /// A sentence for the operator, naming the server.
        cause: String,
    },
}

impl DatabaseEvent {
    /// Returns the bridges whose forwarding the event may change.
    pub fn affected(&self) -> Affected {
        match self {
            // The complete state follows.
            Self::Connected => Affected::Bridges(BTreeSet::new()),
            Self::Changed { differences, .. } => Affected::Bridges(differences.bridges()),
            Self::Disconnected { .. } => Affected::All,
        }
    }
}

/// Compares each state of the database with the one before.
#[derive(Default, Debug)]
pub struct Watch {
    last: Option<Arc<Rows>>,
}

impl Watch {
    /// Adds to an event what it changes. To be called for every event, in their order.
    pub fn pass(&mut self, event: OvsdbEvent) -> DatabaseEvent {
        match event {
            OvsdbEvent::Connected => DatabaseEvent::Connected,
            OvsdbEvent::Changed(rows) => {
                let last = self.last.replace(rows.clone());
                let differences = Differences::between(last.as_deref(), &rows);
                DatabaseEvent::Changed { rows, differences }
            }
            OvsdbEvent::Disconnected { cause } => DatabaseEvent::Disconnected { cause },
        }
    }
}
