//! The tc program on the ports: its entry point, and how a verdict is carried out on a socket buffer.

use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_SHOT, TC_ACT_UNSPEC},
    macros::classifier,
    programs::TcContext,
};
use trunkline_core::{
    DropReason, Frame as _, Hook, Outcome, PuntReason, Tables as _, TagOp, Verdict, abi, lookup_flow,
};

use crate::{log::log, skb_frame::SkbFrame, tables::Live};

/// Passes the frame to what is next: other programs, qdiscs, Open vSwitch.
pub(crate) const NEXT: i32 = TC_ACT_UNSPEC;

/// The program on every port with the tc hook: at ingress and, on an internal port, at egress, where the host
/// sends.
#[classifier]
pub(crate) fn trunkline_tc(ctx: TcContext) -> i32 {
    let tables = Live::new(Hook::Tc);
    let mut frame = SkbFrame::new(&ctx);
    match lookup_flow(&frame, &tables, frame.ifindex()) {
        Some(outcome) => carry_out(&mut frame, &tables, &outcome),
        None => slow_path(ctx.skb.skb),
    }
}

/// A function of its own for the same reason as under XDP.
#[inline(never)]
fn slow_path(skb: *mut __sk_buff) -> i32 {
    let tables = Live::new(Hook::Tc);
    let ctx = TcContext::new(skb);
    let frame = SkbFrame::new(&ctx);
    let mut action = NEXT;
    let take = |found| action = finish(skb, &found);
    let Some(refusal) = trunkline_core::slow_path(&frame, &tables, frame.ifindex(), take) else {
        return action;
    };
    log(&ctx, &refusal);
    match (refusal.ingress, refusal.verdict) {
        (Some(ingress), Verdict::Punt(reason)) => punt(&tables, ingress, reason),
        (Some(ingress), Verdict::Drop(reason)) => shoot(&tables, ingress, reason),
        _ => NEXT,
    }
}

/// A function of its own for the same reason as under XDP.
#[inline(never)]
fn finish(skb: *mut __sk_buff, action: &abi::CachedAction) -> i32 {
    let ctx = TcContext::new(skb);
    let mut frame = SkbFrame::new(&ctx);
    let outcome = trunkline_core::finish(&frame, action);
    carry_out(&mut frame, &Live::new(Hook::Tc), &outcome)
}

#[inline(always)]
fn carry_out(frame: &mut SkbFrame<'_>, tables: &Live, outcome: &Outcome) -> i32 {
    let Some(ingress) = outcome.ingress else { return NEXT };
    match outcome.verdict {
        Verdict::Punt(reason) => punt(tables, ingress, reason),
        Verdict::Drop(reason) => shoot(tables, ingress, reason),
        Verdict::Forward { port, tag } => {
            let Some(out) = tables.port(port) else {
                return punt(tables, ingress, PuntReason::UnreachableDestination);
            };
            let (ifindex, internal) = (out.ifindex, out.has(abi::PORT_INTERNAL));
            let received = frame.len();
            if frame.apply(tag).is_err() {
                return match tag {
                    TagOp::Replace(_) => shoot(tables, ingress, DropReason::EditFailed),
                    _ => punt(tables, ingress, PuntReason::NoHeadroom),
                };
            }
            tables.forwarded(ingress, received, port, frame.len());
            frame.send(ifindex, internal)
        }
    }
}

#[inline(always)]
fn punt(tables: &Live, ingress: u16, reason: PuntReason) -> i32 {
    tables.punted(ingress, reason);
    NEXT
}

#[inline(always)]
fn shoot(tables: &Live, ingress: u16, reason: DropReason) -> i32 {
    tables.dropped(ingress, reason);
    TC_ACT_SHOT
}
