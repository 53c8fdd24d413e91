//! The program that extends leases.

use aya_ebpf::{bindings::xdp_action::XDP_PASS, macros::xdp, programs::XdpContext};
use trunkline_core::{Clock as _, Hook, abi};

use crate::maps::{Live, bridge_mut};

/// Extends the leases that have not run out, and ends those that have.
///
/// It is a program because the test and the write must be one step: a process may be stopped between any two of its own for
/// longer than a lease lasts, and what it writes then would let a bridge switch whose stations have moved unseen. This runs
/// with bottom halves off.
#[xdp]
pub(crate) fn trunkline_renew(ctx: XdpContext) -> u32 {
    let start = ctx.data();
    if start + size_of::<abi::Renewal>() > ctx.data_end() {
        return XDP_PASS;
    }
    // SAFETY: just checked to lie in the frame; all bits are valid, and it may be misaligned.
    let abi::Renewal { until_s, .. } = unsafe { (start as *const abi::Renewal).read_unaligned() };
    let now_s = Live::new(Hook::Xdp).now_s();
    for number in 0..abi::MAX_BRIDGES {
        let Some(bridge) = bridge_mut(number) else { break };
        // SAFETY: an array's value is always there, and aligned; programs read the field in one piece.
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
