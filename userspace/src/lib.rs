//! The agent beside Open vSwitch, and its command line.

pub mod jsonrpc;
pub mod openflow;
pub mod ovsdb;
pub mod unixctl;
