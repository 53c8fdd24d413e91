//! The XDP and tc programs of trunkline: thin adapters around the switching core.
//!
//! `trunkline_xdp` and `trunkline_tc` run on the ports. `trunkline_trace` and `trunkline_tc_trace` answer
//! `trunkline trace` through `BPF_PROG_TEST_RUN` and have no effect on the tables. `trunkline_renew` extends
//! leases, and is run in the same way. On the host this crate is an empty program.

#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]

#[cfg(target_arch = "bpf")]
mod counters;
#[cfg(target_arch = "bpf")]
mod log;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod object;
#[cfg(target_arch = "bpf")]
mod renewal;
#[cfg(target_arch = "bpf")]
mod skb_frame;
#[cfg(target_arch = "bpf")]
mod tables;
#[cfg(target_arch = "bpf")]
mod tc;
#[cfg(target_arch = "bpf")]
mod trace;
#[cfg(target_arch = "bpf")]
mod xdp;
#[cfg(target_arch = "bpf")]
mod xdp_frame;

#[cfg(not(target_arch = "bpf"))]
fn main() {}
