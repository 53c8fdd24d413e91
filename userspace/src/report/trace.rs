//! What the program does with one frame.

use serde::{Deserialize, Serialize};

/// `trunkline trace --json`
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TraceReport {
    /// `Bridge.name`
    pub bridge: String,
    /// The ingress port.
    pub port: String,
    /// The frame as received, in hexadecimal.
    pub frame: String,
    /// `forward`, `punt` or `drop`
    pub verdict: String,
    /// Why it is punted or dropped.
    pub reason: Option<String>,
    /// The frame's VLAN, if the port admits it.
    pub vlan: Option<u16>,
    /// The egress port, if forwarded.
    pub out_port: Option<String>,
    /// The frame as it leaves, if forwarded.
    pub out_frame: Option<String>,
    /// The way to the verdict, in words.
    pub steps: Vec<String>,
    /// OpenFlow number of the ingress port.
    pub ofport: Option<u16>,
    /// What Open vSwitch would do (`ofproto/trace`), if that was asked.
    pub ovs: Option<String>,
}
