//! Whole-system tests: a private Open vSwitch, real devices, real frames.
//!
//! The library is the rig; the tests are in `tests/`. A test builds a [`Switch`]: a network namespace with an
//! `ovsdb-server` and an `ovs-vswitchd` of its own and taps whose other ends the test holds, so that writing a file
//! descriptor is a guest that transmits and reading it is a guest that receives, to the byte. The same switch with
//! and without the agent is how the two are compared.
//!
//! Everything a rig makes (namespaces, processes, devices, directories) goes when it is dropped, and what a killed
//! run left behind goes when the next one starts. Nothing outside its own namespaces is touched. Needs root.

mod agent;
pub mod cases;
mod command;
pub mod demo;
mod frames;
mod guest;
mod guest_counters;
mod guest_relay;
mod guest_stream;
mod guest_traffic;
mod host;
mod netns;
mod object;
mod ovs;
mod pass_program;
mod patience;
mod qemu;
mod qemu_scripts;
mod report;
mod say;
mod settings;
mod stamp;
mod switch;
mod sys;
mod wire;

pub use agent::{Agent, FdbRow, PortStats, PortStatus, Privileges, Stats, Status};
pub use command::{output, run, wait_for};
pub use frames::{Frame, frame_id, station, tag};
pub use guest::{Guest, GuestKind, Place};
pub use guest_counters::DeviceCounters;
pub use guest_relay::{Relay, Relayed};
pub use guest_stream::{Account, flood, stream};
pub use guest_traffic::{End, ping, tcp, udp, udp_segmented};
pub use host::Host;
pub use netns::Netns;
pub use object::object;
pub use ovs::{Ovs, Vlan};
pub use pass_program::PassProgram;
pub use patience::{is_slow, patience};
pub use qemu::{Qemu, VirtioNet};
pub use qemu_scripts::QemuScripts;
pub use report::{PortSummary, per_port};
pub use say::say;
pub use settings::{number, seed};
pub use stamp::Stamp;
pub use switch::{BRIDGE, Deliveries, Exchange, Switch};
pub use wire::{Wire, wait_readable};
