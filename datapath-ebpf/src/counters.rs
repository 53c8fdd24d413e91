//! Counters per port, with one for each reason.

use trunkline_core::{DropReason, PuntReason, abi};

use crate::tables::Live;

const LAST_PORT: usize = abi::MAX_PORTS as usize - 1;

#[inline(always)]
fn add(counter: &mut u64, n: u64) {
    *counter = counter.wrapping_add(n);
}

impl Live {
    /// Counts a frame that goes up to Open vSwitch.
    #[inline(always)]
    pub(crate) fn punted(&self, ingress: u16, reason: PuntReason) {
        self.count(|ports| add(&mut ports[usize::from(ingress) & LAST_PORT].punted[reason.index() & 31], 1));
    }

    /// Counts a frame that is dropped.
    #[inline(always)]
    pub(crate) fn dropped(&self, ingress: u16, reason: DropReason) {
        self.count(|ports| add(&mut ports[usize::from(ingress) & LAST_PORT].dropped[reason.index() & 7], 1));
    }

    /// Counts a frame that leaves through `egress`, with its octets as received and as sent.
    #[inline(always)]
    pub(crate) fn forwarded(&self, ingress: u16, received: usize, egress: u16, sent: usize) {
        self.count(|ports| {
            let from = &mut ports[usize::from(ingress) & LAST_PORT];
            add(&mut from.rx_frames, 1);
            add(&mut from.rx_bytes, received as u64);
            let to = &mut ports[usize::from(egress) & LAST_PORT];
            add(&mut to.tx_frames, 1);
            add(&mut to.tx_bytes, sent as u64);
        });
    }
}
