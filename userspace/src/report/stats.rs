//! The counters.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// `trunkline stats --json`
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Stats {
    /// All accelerated ports.
    pub ports: Vec<PortStats>,
}

/// Counters of a port since it was last attached.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PortStats {
    /// `Bridge.name`
    pub bridge: String,
    /// `Port.name`
    pub port: String,
    /// Frames that came in here.
    pub rx: RxStats,
    /// Frames that the program sent out here.
    pub tx: Volume,
}

/// What became of the frames that came in.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RxStats {
    /// Forwarded by the program.
    pub forwarded: Volume,
    /// Left to Open vSwitch, by reason.
    pub punted: BTreeMap<String, u64>,
    /// Dropped, by reason.
    pub dropped: BTreeMap<String, u64>,
}

/// An amount of traffic.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Volume {
    /// Frames.
    pub frames: u64,
    /// Octets, from the destination address on, without the FCS.
    pub bytes: u64,
}
