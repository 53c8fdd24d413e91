//! Everything that happens to the agent, and everything it asks for in return.
//!
//! Tasks do the I/O and send events; the agent turns each into state and effects. Nothing else happens in between, so
//! that a sequence of events tells the whole story.

use trunkline_core::abi;

use crate::applied::{DatabaseEvent, Update};
use crate::config::VswitchdRun;
use crate::links::LinkEvent;
use crate::openflow::OpenFlowEvent;
use crate::unixctl::{FdbRow, FdbStats, FlowTable};

/// Something happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// To the database.
    Database(DatabaseEvent),
    /// To the kernel's devices.
    Links(LinkEvent),
    /// To a bridge's OpenFlow side.
    OpenFlow(OpenFlowEvent),
    /// ovs-vswitchd answered [`Effect::Probe`], whichever of the two it was for.
    Probed {
        /// The bridge.
        bridge: String,
        /// Its number.
        question: u64,
        /// The answer, or why there is none.
        answer: Result<Probe, String>,
    },
    /// ovs-vswitchd answered [`Effect::Poll`].
    Polled {
        /// The bridge.
        bridge: String,
        /// Its number.
        question: u64,
        /// The answer, or why there is none.
        answer: Result<Poll, String>,
    },
    /// Programs ask for stations to be shown to Open vSwitch.
    Show(Vec<abi::Show>),
    /// Open vSwitch has handled all of an [`Effect::Show`].
    Shown {
        /// The bridge.
        bridge: String,
        /// Its number.
        question: u64,
        /// Why it is not known whether it has.
        answer: Result<(), String>,
    },
    /// ovs-vswitchd has passed an [`Effect::Barrier`].
    BarrierPassed(Update),
    /// [`Effect::RxVlanOffload`] did not work.
    OffloadRefused {
        /// The device.
        ifindex: u32,
        /// The reason.
        cause: String,
    },
    /// What comes next was written to the database while this was the run that ovs-vswitchd's pid file tells of.
    Vswitchd(Option<VswitchdRun>),
    /// A second has passed, and this is how the host stands.
    Tick(HostFacts),
}

/// What is looked up every second.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HostFacts {
    /// The run that ovs-vswitchd's pid file tells of.
    pub vswitchd: Option<VswitchdRun>,
    /// Whether 802.1Q devices can exist on this host.
    pub vlan_devices_possible: bool,
}

/// What a bridge has to be asked before it is accelerated.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Probe {
    /// Version of the running ovs-vswitchd.
    pub version: String,
    /// Its flow table.
    pub flow_table: FlowTable,
    /// Its stations.
    pub stations: Vec<FdbRow>,
}

/// What is asked every second.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Poll {
    /// Its flow table, if that was asked.
    pub flow_table: Option<FlowTable>,
    /// Counters of its table of stations.
    pub stats: FdbStats,
    /// Its stations, if the counters had changed or it was time.
    pub stations: Option<Vec<FdbRow>>,
}

/// Something to do, outside.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Ask ovs-vswitchd about a bridge, before it switches or to confirm what it began to switch with; answer with
    /// [`Event::Probed`].
    Probe {
        /// The bridge.
        bridge: String,
        /// To be repeated in the answer.
        question: u64,
        /// Whether it is to have been through its main loop before it answers: so that frames that were waiting for it by now
        /// show in the answer.
        next_turn: bool,
    },
    /// Ask for changes of a bridge's stations; answer with [`Event::Polled`].
    Poll {
        /// The bridge.
        bridge: String,
        /// To be repeated in the answer.
        question: u64,
        /// The last known counters; other ones call for the stations.
        known: Option<FdbStats>,
        /// Ask for the flow table too.
        flows: bool,
    },
    /// Have Open vSwitch handle frames as if they had come in; answer with [`Event::Shown`].
    Show {
        /// The bridge.
        bridge: String,
        /// To be repeated in the answer.
        question: u64,
        /// Each with the OpenFlow number of its port.
        frames: Vec<(u16, Vec<u8>)>,
    },
    /// Wait until ovs-vswitchd has been through its main loop; answer with [`Event::BarrierPassed`].
    Barrier {
        /// To be repeated in the answer.
        update: Update,
        /// Whether ovs-vswitchd is to have time first to connect to the database again.
        connecting: bool,
    },
    /// Follow exactly these bridges by OpenFlow.
    Follow(Vec<String>),
    /// Switch a device's rx-vlan-offload.
    RxVlanOffload {
        /// The device.
        ifindex: u32,
        /// Its name.
        device: String,
        /// On or off.
        on: bool,
    },
}
