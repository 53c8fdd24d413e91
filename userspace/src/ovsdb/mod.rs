//! Open vSwitch's configuration database, followed live.
//!
//! [`run`] connects, asks for the tables and columns of [`Rows`], and from then on reports every transaction as
//! one [`OvsdbEvent::Changed`] with the complete state after it. After a failure of any kind it connects again,
//! with back-off, and starts from a fresh dump.
//!
//! It guarantees that events are sent in order and at once, that no half of a transaction is ever seen, and that
//! nothing the server sends can make it panic or hold unbounded memory. It only reads: it writes nothing to the
//! database and takes no locks.

mod columns;
mod dialect;
mod endpoint;
mod replica;
mod rows;
mod schema;
mod session;
mod value;

pub use endpoint::{Endpoint, ParseEndpointError};
pub use rows::{
    BridgeRow, FlowSampleCollectorSetRow, InterfaceRow, ManagerRow, MirrorRow, OpenVSwitchRow, PortRow, Rows,
};
pub use session::{Observer, OvsdbEvent, barrier, run};
pub use value::Uuid;
