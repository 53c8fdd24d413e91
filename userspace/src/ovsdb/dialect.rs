//! The dialects of monitor requests and their updates.

use serde_json::{Value, json};

use super::replica::UpdateFormat;

/// The database of Open vSwitch.
pub(super) const DATABASE: &str = "Open_vSwitch";
/// The name of the one subscription.
pub(super) const MONITOR: &str = "trunkline";

/// The three generations of monitor requests, newest first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Dialect {
    /// OVS 2.12. Its transaction identifiers are of no use here: a standalone server has none.
    CondSince,
    /// OVS 2.6.
    Cond,
    /// RFC 7047.
    Plain,
}

impl Dialect {
    pub(super) const NEWEST_FIRST: [Self; 3] = [Self::CondSince, Self::Cond, Self::Plain];

    pub(super) const fn method(self) -> &'static str {
        match self {
            Self::CondSince => "monitor_cond_since",
            Self::Cond => "monitor_cond",
            Self::Plain => "monitor",
        }
    }

    pub(super) const fn update_method(self) -> &'static str {
        match self {
            Self::CondSince => "update3",
            Self::Cond => "update2",
            Self::Plain => "update",
        }
    }

    /// Where in an update message's parameters the updates are.
    pub(super) const fn updates_at(self) -> usize {
        match self {
            Self::CondSince => 2,
            Self::Cond | Self::Plain => 1,
        }
    }

    pub(super) const fn format(self) -> UpdateFormat {
        match self {
            Self::CondSince | Self::Cond => UpdateFormat::Differences,
            Self::Plain => UpdateFormat::Rows,
        }
    }

    pub(super) fn params(self, requests: Value) -> Value {
        match self {
            Self::CondSince => json!([DATABASE, MONITOR, requests, "00000000-0000-0000-0000-000000000000"]),
            Self::Cond | Self::Plain => json!([DATABASE, MONITOR, requests]),
        }
    }

    /// The initial rows in the reply.
    pub(super) fn dump(self, reply: &Value) -> Option<&Value> {
        match self {
            Self::CondSince => reply.get(2),
            Self::Cond | Self::Plain => Some(reply),
        }
    }
}
