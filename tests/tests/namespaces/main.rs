//! Real frames through a real Open vSwitch in network namespaces, with the agent and without.
//!
//! `TRUNKLINE_BIN` names the agent's binary; with `TRUNKLINE_BIN=none` both sides are Open vSwitch alone, which checks
//! the rig and what the tests take Open vSwitch to do.

mod ageing;
mod applied;
mod brakes;
mod changes;
mod chaos;
mod faults;
mod gates;
mod lapses;
mod limits;
mod matrix;
mod moves;
mod neighbours;
mod operators;
mod order;
mod stamped;
mod supervision;
mod tables;
mod tape;
mod tcp;
mod warm;
mod wire;
