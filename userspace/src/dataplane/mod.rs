//! What the agent asks of the kernel, in the product's own nouns.
//!
//! [`Dataplane`] has two implementations: [`Kernel`] with the BPF programs and maps, and [`Memory`] for tests
//! of the agent. Both keep an [`Installed`], with which [`crate::plan`] compares the desired state, and in
//! both the same [`Gate`] decides which bridges may switch. Every [`Op`] can be repeated: deleting what is
//! absent is success.
//!
//! The files import each other downward only. From the top, they are: `kernel` and `memory`; `attached` and
//! `loaded`; `trace`, `lease_maps`, `stations`, `ports` and `learned`; `programs`, `mapping` and `drain`;
//! `host`, `lease`, `hooks`, `pod` and `error`.

mod attached;
mod drain;
mod error;
mod hooks;
mod host;
mod kernel;
mod learned;
mod lease;
mod lease_maps;
mod loaded;
mod mapping;
mod memory;
mod pod;
mod ports;
mod programs;
mod stations;
mod trace;

use std::collections::{BTreeMap, BTreeSet};

use trunkline_core::{FdbEntry, FdbKey, TraceAnswer, abi};

pub use error::DataplaneError;
pub use hooks::Hooks;
pub use host::{Cpus, has_tcx};
pub use kernel::{Kernel, Options};
pub use lease::{Affected, Gate, LeaseTable};
pub use lease_maps::KernelLeases;
pub use memory::{Memory, MemoryLeases};

/// Our dense number of a port; below [`abi::MAX_PORTS`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PortNo(pub u16);

/// Our dense number of a bridge; below [`abi::MAX_BRIDGES`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BridgeNo(pub u16);

/// The times of an active bridge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BridgeTimes {
    /// Seconds after which a station is shown to Open vSwitch again.
    pub refresh_s: u32,
    /// Seconds after which a station that was not shown to Open vSwitch is no longer used.
    pub ageing_s: u32,
}

/// A port as installed: a device with programs on it, and its rules.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InstalledPort {
    /// The kernel's interface index.
    pub ifindex: u32,
    /// Name of the device, for messages.
    pub device: String,
    /// Where its programs are attached.
    pub hooks: Hooks,
    /// The compiled rules.
    pub rules: abi::Port,
}

/// What is in the kernel.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Installed {
    /// Bridges whose programs forward frames now. Others are suspended.
    pub active: BTreeMap<BridgeNo, BridgeTimes>,
    /// Ports with their programs attached.
    pub ports: BTreeMap<PortNo, InstalledPort>,
}

/// One step from what is installed to what is desired.
#[expect(
    clippy::large_enum_variant,
    reason = "rules are 1 KiB, but a plan has few steps, and boxing would only obscure them"
)]
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op {
    /// Send all frames of a bridge to Open vSwitch.
    Suspend(BridgeNo),
    /// Wait until no program runs that may have read its tables before now.
    Drain,
    /// Take a port out: its program, its rules, its place as a destination.
    Remove(PortNo),
    /// Forget the stations on these ports.
    Flush(BTreeSet<PortNo>),
    /// Put a port in, or change its rules or programs; change them only while its bridge is suspended.
    Install(PortNo, InstalledPort),
}

/// How long the programs go on after a lease was last renewed, in seconds.
pub const LEASE_S: u32 = 5;

/// The programs and tables that switch frames.
pub trait Dataplane {
    /// Returns what is installed.
    fn installed(&self) -> &Installed;

    /// Carries out one step.
    ///
    /// # Errors
    /// The step had no effect, or only a part of it; it may be repeated. `installed` returns what is there
    /// now.
    fn apply(&mut self, op: &Op) -> Result<(), DataplaneError>;

    /// Lets a suspended bridge switch, with its learned stations out of use ([`crate::fdb::aside`]) until
    /// they are confirmed. `name` is its name in the database. Returns false if the database has news of the
    /// bridge that the agent has yet to hear, or if it is not certain that it has none: try again then.
    ///
    /// # Errors
    /// A table could not be written; the bridge remains suspended.
    fn activate(
        &mut self,
        bridge: BridgeNo,
        name: &str,
        times: BridgeTimes,
        now_s: u32,
    ) -> Result<bool, DataplaneError>;

    /// Ends the time in which a bridge switches without confirmed stations: overwrites the entries of
    /// stations, the first of each pair by the second, unless a program has written another one meanwhile.
    /// Returns false, and changes nothing, if the bridge is suspended.
    ///
    /// # Errors
    /// The stations could not be written.
    fn confirm(
        &mut self,
        bridge: BridgeNo,
        stations: &[(FdbKey, [FdbEntry; 2])],
    ) -> Result<bool, DataplaneError>;

    /// Extends the lease of every active bridge to [`LEASE_S`] from now, if it has not run out.
    ///
    /// # Errors
    /// A lease could not be written; that bridge falls back to Open vSwitch.
    fn renew(&mut self, now_s: u32) -> Result<(), DataplaneError>;

    /// Removes from the active bridges in [`Dataplane::installed`] those that have been suspended meanwhile,
    /// and returns them: their leases have run out, or the database has news of them that the agent has just
    /// heard, or will hear next.
    fn take_suspended(&mut self) -> BTreeSet<BridgeNo>;

    /// Returns all stations.
    ///
    /// # Errors
    /// The table could not be read.
    fn stations(&self) -> Result<Vec<(FdbKey, FdbEntry)>, DataplaneError>;

    /// Enters or overwrites stations, or forgets those without an entry. A group address is not a station.
    ///
    /// # Errors
    /// The first station that could not be written, as there is no room; the others are written.
    fn set_stations(&mut self, changes: &[(FdbKey, Option<FdbEntry>)]) -> Result<(), DataplaneError>;

    /// Returns the entry of a station.
    fn station(&self, key: &FdbKey) -> Option<FdbEntry>;

    /// Overwrites the entry of a station if it is still as expected. Returns whether it was.
    fn replace_station(&mut self, key: &FdbKey, expected: FdbEntry, entry: FdbEntry) -> bool;

    /// Enters stations as they are, except those that are in the table already. Returns how many there was
    /// room for.
    ///
    /// # Errors
    /// The table could not be written.
    fn add_stations(&mut self, stations: &[(FdbKey, FdbEntry)]) -> Result<usize, DataplaneError>;

    /// Corrects the programs' count of the stations on a port.
    ///
    /// # Errors
    /// The number could not be written.
    fn recount(&mut self, port: PortNo, stations: u32) -> Result<(), DataplaneError>;

    /// Returns a port's counters, summed over all CPUs.
    ///
    /// # Errors
    /// The counters could not be read.
    fn counters(&self, port: PortNo) -> Result<abi::Counters, DataplaneError>;

    /// Returns what the programs would do with this frame on this device, and the frame as it would leave.
    ///
    /// # Errors
    /// The program could not be run.
    fn trace(&mut self, ifindex: u32, frame: &[u8]) -> Result<(TraceAnswer, Vec<u8>), DataplaneError>;
}
