//! Counters per port, with one for each reason.

use trunkline_core::{DropReason, PuntReason};

use crate::maps::count;

#[inline(always)]
fn add(counter: &mut u64, n: u64) {
    *counter = counter.wrapping_add(n);
}

/// A frame went up to Open vSwitch.
#[inline(always)]
pub(crate) fn punted(ingress: u16, reason: PuntReason) {
    count(ingress, |counters| add(&mut counters.punted[reason.index() & 31], 1));
}

/// A frame was dropped.
#[inline(always)]
pub(crate) fn dropped(ingress: u16, reason: DropReason) {
    count(ingress, |counters| add(&mut counters.dropped[reason.index() & 7], 1));
}

/// A frame of so many octets as received left through `egress` with so many.
#[inline(always)]
pub(crate) fn forwarded(ingress: u16, received: usize, egress: u16, sent: usize) {
    count(ingress, |counters| {
        add(&mut counters.rx_frames, 1);
        add(&mut counters.rx_bytes, received as u64);
    });
    count(egress, |counters| {
        add(&mut counters.tx_frames, 1);
        add(&mut counters.tx_bytes, sent as u64);
    });
}
