//! trunkline, the agent and its command line, as a library.

pub mod agent;
pub mod applied;
pub mod cli;
mod coded;
pub mod config;
pub mod control;
pub mod dataplane;
pub mod desired;
pub mod event;
mod explain;
mod fault;
pub mod fdb;
#[cfg(test)]
mod fixture;
mod frame_text;
pub mod jsonrpc;
pub mod links;
mod lock;
pub mod offloads;
pub mod openflow;
pub mod ovsdb;
pub mod plan;
mod real_time;
pub mod report;
pub mod run;
pub mod unixctl;
