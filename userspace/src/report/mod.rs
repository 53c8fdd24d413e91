//! What the agent tells people and scripts: the documents of `status`, `fdb show`, `stats` and `trace`.
//!
//! They are what the agent sends over its control socket, the command line reads and `--json` prints: fields may be
//! added, and none is renamed.

mod fdb;
mod stats;
mod status;
mod trace;

pub use fdb::FdbStation;
pub use stats::{PortStats, RxStats, Stats, Volume};
pub use status::{BridgeStatus, OvsStatus, PortStatus, Status};
pub use trace::TraceReport;
