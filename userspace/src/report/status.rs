//! Whether it works, and why what is not accelerated is not.

use serde::{Deserialize, Serialize};

/// `trunkline status --json`
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Of trunkline.
    pub version: String,
    /// Connected, every wanted program attached, and the tables equal to what Open vSwitch has applied.
    pub ready: bool,
    /// How Open vSwitch stands.
    pub ovs: OvsStatus,
    /// All bridges, by name.
    pub bridges: Vec<BridgeStatus>,
}

/// How Open vSwitch stands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OvsStatus {
    /// The database is connected.
    pub connected: bool,
    /// Why it is not.
    pub reason: Option<String>,
    /// Of the running ovs-vswitchd.
    pub version: Option<String>,
    /// `Open_vSwitch.cur_cfg`
    pub cur_cfg: i64,
    /// `Open_vSwitch.next_cfg`
    pub next_cfg: i64,
}

/// How a bridge stands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BridgeStatus {
    /// `Bridge.name`
    pub name: String,
    /// `system` or `netdev`
    pub datapath: String,
    /// It switches by itself now.
    pub accelerated: bool,
    /// Why it does not.
    pub reason: Option<String>,
    /// The same for scripts: a code of those in docs/operations.md, which never change.
    pub reason_code: Option<String>,
    /// All its ports, by name.
    pub ports: Vec<PortStatus>,
}

/// How a port stands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PortStatus {
    /// `Port.name`
    pub name: String,
    /// The kernel's interface index.
    pub ifindex: Option<u32>,
    /// Where its frames are taken: `xdp-native`, `tc`, `xdp+tc` or `none`.
    pub hook: String,
    /// Why there.
    pub hook_reason: Option<String>,
    /// Frames from it are switched by the program.
    pub accelerated: bool,
    /// Why they are not.
    pub reason: Option<String>,
    /// The same for scripts: a code of those in docs/operations.md, which never change.
    pub reason_code: Option<String>,
    /// A restriction of an accelerated port.
    pub note: Option<String>,
    /// The effective mode.
    pub vlan_mode: String,
    /// `Port.tag`
    pub tag: Option<u16>,
    /// `Port.trunks`; empty for all.
    pub trunks: Vec<u16>,
}
