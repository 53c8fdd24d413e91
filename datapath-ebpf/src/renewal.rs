//! The program that extends leases.

use aya_ebpf::{bindings::xdp_action::XDP_PASS, macros::xdp, programs::XdpContext};
use trunkline_core::{Clock as _, Hook, abi};

use crate::{maps::bridge_mut, tables::Live};

/// Extends the leases that have not run out, and ends those that have.
///
/// A program does this because the test and the write have to be one step. A process may be stopped between
/// the two for longer than a lease lasts, and its write would then let a bridge switch whose stations have
/// moved unseen. The kernel runs this program with bottom halves off.
#[xdp]
pub(crate) fn trunkline_renew(ctx: XdpContext) -> u32 {
    let start = ctx.data();
    if start + size_of::<abi::Renewal>() > ctx.data_end() {
        return XDP_PASS;
    }
    // SAFETY: checked to be inside the frame; every bit pattern is valid, and the read may be misaligned.
    let abi::Renewal { until_s, .. } = unsafe { (start as *const abi::Renewal).read_unaligned() };
    let now_s = Live::new(Hook::Xdp).now_s();
    for number in 0..abi::MAX_BRIDGES {
        let Some(bridge) = bridge_mut(number) else { break };
        // SAFETY: an array's value is always there and aligned; programs read the field in one piece.
        let lease = unsafe { &raw mut (*bridge).lease_s };
        // SAFETY: as above.
        let lease_s = unsafe { lease.read_volatile() };
        let extended = if now_s >= lease_s { 0 } else { lease_s.max(until_s) };
        if extended != lease_s {
            // SAFETY: as above. Others write it only with the lock of whoever runs this program.
            unsafe { lease.write_volatile(extended) };
        }
    }
    XDP_PASS
}
