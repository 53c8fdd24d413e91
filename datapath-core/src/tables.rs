//! What the switch needs from its caller: the tables, a clock, and a flow cache.
//!
//! No method that changes or invalidates something has a default. An implementation that leaves one out would
//! compile, and go on forwarding by what it should have forgotten.

use crate::{FdbEntry, FdbKey, Hook, PuntReason, abi};

/// The tables that the switch reads, and the one that it writes: the FDB. Numbers are as in [`abi`].
pub trait Tables: Clock + FlowCache {
    /// Returns the hook whose program asks.
    fn hook(&self) -> Hook;
    /// Returns the port (`PortNo`) behind an interface index.
    fn port_no(&self, ifindex: u32) -> Option<u16>;
    /// Returns a port; `None` for a number out of range.
    fn port(&self, port_no: u16) -> Option<&abi::Port>;
    /// Returns a bridge; `None` for a number out of range.
    fn bridge(&self, bridge_no: u16) -> Option<&abi::Bridge>;
    /// Returns a station.
    fn fdb(&self, key: &FdbKey) -> Option<FdbEntry>;
    /// Returns two stations. In a large table each is a distant read, and an implementation can start both at
    /// once.
    fn fdb_pair(&self, keys: [&FdbKey; 2]) -> [Option<FdbEntry>; 2] {
        keys.map(|key| self.fdb(key))
    }
    /// Inserts a station that is not in the FDB, unless its port has `limit` stations already. The error says
    /// why not.
    fn learn(&self, key: &FdbKey, entry: FdbEntry, limit: u32) -> Result<(), PuntReason>;
    /// Overwrites a station that is in the FDB. Does nothing for one that was removed in the meantime.
    fn update(&self, key: &FdbKey, entry: FdbEntry);
    /// Asks the agent to show Open vSwitch a station that is heard on this port.
    fn ask_to_show(&self, key: &FdbKey, port: u16);
}

/// The monotonic clock, in seconds and in a unit that takes fewer instructions to read.
pub trait Clock {
    /// Returns the time in seconds, coarse.
    fn now_s(&self) -> u32;
    /// Returns the time in ticks.
    fn ticks(&self) -> u64;
    /// Returns a later tick, up to which the second is the same as at this one.
    fn until(&self, ticks: u64) -> u64;
}

/// The flow cache, which remembers where the last frames went (`crate::flow`).
pub trait FlowCache {
    /// Returns the generation of the tables. It changes after every change of them, except to a station that
    /// is new or stays on its port.
    fn generation(&self) -> u64;
    /// Starts a new generation, in which nothing that was remembered before is used.
    fn invalidate_flows(&self);
    /// Reads a set of the cache in place: the one that the high bits of the hash give. Returns `None` without
    /// a cache.
    fn read_flows<R>(&self, hash: u64, read: impl FnOnce(&abi::FlowSet) -> Option<R>) -> Option<R>;
    /// Changes that set in place.
    fn write_flows(&self, hash: u64, change: impl FnOnce(&mut abi::FlowSet));
    /// Returns a random number, which decides whether a flow replaces another one.
    fn random(&self) -> u32;
}

/// Marks tables without a flow cache: the switch looks up every frame, and there is nothing to invalidate.
pub trait Uncached {}

impl<T: Uncached> FlowCache for T {
    fn generation(&self) -> u64 {
        0
    }
    fn invalidate_flows(&self) {}
    fn read_flows<R>(&self, _: u64, _: impl FnOnce(&abi::FlowSet) -> Option<R>) -> Option<R> {
        None
    }
    fn write_flows(&self, _: u64, _: impl FnOnce(&mut abi::FlowSet)) {}
    fn random(&self) -> u32 {
        0
    }
}
