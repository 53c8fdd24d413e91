//! Guests and the host with their real stacks and all their offloads, on OVS's kernel datapath: with the agent and
//! without.
//!
//! What needs the kernel datapath counts as skipped where the kernel has none: `cargo xtask vm` gives it one.
//! `TRUNKLINE_BIN` names the agent's binary; with `none`, Open vSwitch is alone on both sides.

mod bystander;
mod hooks;
mod operator;
mod pairs;
mod rates;
mod relay;
mod skip;
