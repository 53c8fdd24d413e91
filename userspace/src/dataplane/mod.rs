//! What the agent asks of the kernel, in the product's own nouns.
//!
//! [`Dataplane`] has two implementations: [`Kernel`] with the BPF programs and maps, and [`Memory`] for tests of the
//! agent. Both keep an [`Installed`], which is what [`crate::plan`] compares the desired state with, and both leave it to
//! the same [`Gate`] which bridges may switch. Every [`Op`] can be repeated: deleting what is absent is success.

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

/// Dense number of a port, ours; below [`abi::MAX_PORTS`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PortNo(pub u16);

/// Dense number of a bridge, ours; below [`abi::MAX_BRIDGES`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BridgeNo(pub u16);

/// The times of an active bridge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BridgeTimes {
    /// Seconds after which a station is shown to Open vSwitch again.
    pub refresh_s: u32,
    /// Seconds after which a station that Open vSwitch was not shown is not used any more.
    pub ageing_s: u32,
}

/// A port as installed: a device with programs on it, and its rules.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InstalledPort {
    /// The kernel's interface index.
    pub ifindex: u32,
    /// Name of the device, for messages.
    pub device: String,
    /// Where the programs are on it.
    pub hooks: Hooks,
    /// The compiled rules.
    pub rules: abi::Port,
}

/// What the kernel has.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Installed {
    /// Bridges that switch by themselves now. Others are suspended.
    pub active: BTreeMap<BridgeNo, BridgeTimes>,
    /// Ports with the program attached.
    pub ports: BTreeMap<PortNo, InstalledPort>,
}

/// One step from what is installed to what is desired. Installing carries the rules themselves, 1 KiB; steps are few.
#[expect(
    clippy::large_enum_variant,
    reason = "a plan has a handful of steps, and boxing would only obscure them"
)]
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op {
    /// Send all frames of a bridge to Open vSwitch.
    Suspend(BridgeNo),
    /// Wait until no program runs that read its tables before now.
    Drain,
    /// Take a port out: its program, its rules, its place as a destination.
    Remove(PortNo),
    /// Forget the stations on these ports.
    Flush(BTreeSet<PortNo>),
    /// Put a port in, or change its rules; the latter only while its bridge is suspended.
    Install(PortNo, InstalledPort),
}

/// How long the programs go on without a renewed lease, in seconds.
pub const LEASE_S: u32 = 5;

/// The programs and tables that switch frames.
pub trait Dataplane {
    /// What is there.
    fn installed(&self) -> &Installed;

    /// Carries out one step.
    ///
    /// # Errors
    /// The step had no effect, or not all of it; it may be repeated. `installed` says what is there now.
    fn apply(&mut self, op: &Op) -> Result<(), DataplaneError>;

    /// Lets a suspended bridge switch, with its learned stations out of use ([`crate::fdb::aside`]) until they are confirmed. `name` is
    /// the one that the database knows it by. Returns false if something is known of the bridge that the agent has yet to
    /// hear, or if it is not certain that there is not: to be tried again then.
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

    /// Ends the time without confirmed stations of a bridge that switches: overwrites the entries of stations, the first of
    /// each pair by the second, unless a program has written another one meanwhile. Returns false, and touches nothing, if
    /// the bridge is suspended.
    ///
    /// # Errors
    /// They could not be written.
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

    /// Takes the bridges off the record of active ones that are suspended meanwhile: their leases ran out, or the database
    /// says something of them that the agent has heard now, or will hear next. Returns them.
    fn take_suspended(&mut self) -> BTreeSet<BridgeNo>;

    /// All stations.
    ///
    /// # Errors
    /// The table could not be read.
    fn stations(&self) -> Result<Vec<(FdbKey, FdbEntry)>, DataplaneError>;

    /// Enters (or overwrites) stations, or forgets them. Group addresses are no stations.
    ///
    /// # Errors
    /// The first one that could not be written, for want of room; the others are.
    fn set_stations(&mut self, changes: &[(FdbKey, Option<FdbEntry>)]) -> Result<(), DataplaneError>;

    /// One station.
    fn station(&self, key: &FdbKey) -> Option<FdbEntry>;

    /// Overwrites the entry of a station, if it is still as expected. Returns whether it was.
    fn replace_station(&mut self, key: &FdbKey, expected: FdbEntry, entry: FdbEntry) -> bool;

    /// Enters stations as they are, where there is none yet. Returns how many there was room for.
    ///
    /// # Errors
    /// The table could not be written.
    fn add_stations(&mut self, stations: &[(FdbKey, FdbEntry)]) -> Result<usize, DataplaneError>;

    /// Corrects the number of stations that the programs believe a port to have.
    ///
    /// # Errors
    /// The number could not be written.
    fn recount(&mut self, port: PortNo, stations: u32) -> Result<(), DataplaneError>;

    /// A port's counters, summed over all CPUs.
    ///
    /// # Errors
    /// They could not be read.
    fn counters(&self, port: PortNo) -> Result<abi::Counters, DataplaneError>;

    /// What the programs would do with this frame on this device, and the frame as it would leave.
    ///
    /// # Errors
    /// The program could not be run.
    fn trace(&mut self, ifindex: u32, frame: &[u8]) -> Result<(TraceAnswer, Vec<u8>), DataplaneError>;
}
