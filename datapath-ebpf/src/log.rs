//! What the programs log.

use aya_ebpf::EbpfContext;
use aya_log_ebpf::debug;
use trunkline_core::{Outcome, PuntReason, Verdict};

/// Logs rare events for people who look for a fault. Without `--log-datapath` the verifier removes all of
/// this, because the level is a constant at load time.
#[inline(always)]
pub(crate) fn log<C: EbpfContext>(ctx: &C, outcome: &Outcome) {
    let (Some(ingress), Verdict::Punt(reason)) = (outcome.ingress, outcome.verdict) else { return };
    let event = match reason {
        PuntReason::NewSource => "new source",
        PuntReason::MovedSource => "moved source",
        PuntReason::FdbFull => "FDB full",
        PuntReason::LearningLimit => "learning limit",
        _ => return,
    };
    debug!(ctx, "port {}: {}", ingress, event);
}
