//! The stations.

use serde::{Deserialize, Serialize};

/// A row of `trunkline fdb show --json`
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FdbStation {
    /// `Bridge.name`
    pub bridge: String,
    /// The VLAN.
    pub vlan: u16,
    /// The address.
    pub mac: String,
    /// `Port.name`
    pub port: String,
    /// Seconds since Open vSwitch was last shown a frame of it; 0 for an operator's entry.
    pub age_s: u32,
    /// An operator's entry (`fdb/add`).
    pub r#static: bool,
}
