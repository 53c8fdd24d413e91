//! The programs of `trunkline trace`. They follow the same rules on the same tables as the programs on the
//! ports, change nothing there, and write the outcome to map `TRACE`.

use aya_ebpf::{
    bindings::{
        __sk_buff, TC_ACT_REDIRECT, TC_ACT_SHOT,
        xdp_action::{XDP_DROP, XDP_PASS, XDP_REDIRECT},
        xdp_md,
    },
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use trunkline_core::{
    Clock as _, Decision, EncodedDecision, Hook, Outcome, PuntReason, Tag, TraceQuestion, Verdict, abi,
    lookup_flow,
};

use crate::{
    maps::TRACE,
    skb_frame::SkbFrame,
    tables::{Live, ReadOnly},
    tc::NEXT,
    xdp_frame::XdpFrame,
};

#[inline(always)]
fn question() -> TraceQuestion {
    TRACE.get(0).copied().unwrap_or_default().question()
}

#[inline(always)]
fn answer(
    tables: &ReadOnly,
    ifindex: u32,
    decision: EncodedDecision,
    outcome: &Outcome,
    beside: Option<Tag>,
) {
    let answer = abi::Trace::reply(ifindex, decision, outcome.vid, beside, tables.now_s());
    // If this fails, the agent finds no answer and says so.
    let _ = TRACE.set(0, answer, 0);
}

/// Traces what the XDP program would do.
#[xdp]
pub(crate) fn trunkline_trace(ctx: XdpContext) -> u32 {
    let tables = ReadOnly(Live::new(Hook::Xdp));
    let mut frame = XdpFrame::new(&ctx);
    let ifindex = question().ifindex;
    match lookup_flow(&frame, &tables, ifindex) {
        Some(outcome) => answer_xdp(&mut frame, &tables, ifindex, &outcome),
        None => trace_slow_path(ctx.ctx),
    }
}

/// A function of its own for the same reason as on the ports.
#[inline(never)]
fn trace_slow_path(ctx: *mut xdp_md) -> u32 {
    let tables = ReadOnly(Live::new(Hook::Xdp));
    let ctx = XdpContext::new(ctx);
    let mut frame = XdpFrame::new(&ctx);
    let ifindex = question().ifindex;
    let mut action = XDP_PASS;
    match trunkline_core::slow_path(&frame, &tables, ifindex, |found| action = trace_finish(ctx.ctx, &found))
    {
        Some(refusal) => answer_xdp(&mut frame, &tables, ifindex, &refusal),
        None => action,
    }
}

#[inline(never)]
fn trace_finish(ctx: *mut xdp_md, action: &abi::CachedAction) -> u32 {
    let ctx = XdpContext::new(ctx);
    let mut frame = XdpFrame::new(&ctx);
    let outcome = trunkline_core::finish(&frame, action);
    answer_xdp(&mut frame, &ReadOnly(Live::new(Hook::Xdp)), question().ifindex, &outcome)
}

#[inline(always)]
fn answer_xdp(frame: &mut XdpFrame<'_>, tables: &ReadOnly, ifindex: u32, outcome: &Outcome) -> u32 {
    let (action, decision) = match outcome.verdict {
        Verdict::Punt(reason) => (XDP_PASS, Decision::Punt(reason).encode()),
        Verdict::Drop(reason) => (XDP_DROP, Decision::Drop(reason).encode()),
        Verdict::Forward { port, tag } => match frame.apply(tag) {
            Ok(()) => (XDP_REDIRECT, Decision::Forward { port }.encode()),
            Err(()) => (XDP_PASS, Decision::Punt(PuntReason::NoHeadroom).encode()),
        },
    };
    answer(tables, ifindex, decision, outcome, None);
    action
}

/// Traces what the tc program would do.
#[classifier]
pub(crate) fn trunkline_tc_trace(ctx: TcContext) -> i32 {
    let tables = ReadOnly(Live::new(Hook::Tc));
    let mut frame = SkbFrame::new(&ctx);
    let TraceQuestion { ifindex, beside } = question();
    if let Some(tag) = beside
        && frame.push(tag).is_err()
    {
        return NEXT;
    }
    match lookup_flow(&frame, &tables, ifindex) {
        Some(outcome) => answer_tc(&mut frame, &tables, ifindex, &outcome),
        None => tc_trace_slow_path(ctx.skb.skb),
    }
}

/// A function of its own for the same reason as on the ports.
#[inline(never)]
fn tc_trace_slow_path(skb: *mut __sk_buff) -> i32 {
    let tables = ReadOnly(Live::new(Hook::Tc));
    let ctx = TcContext::new(skb);
    let mut frame = SkbFrame::new(&ctx);
    let ifindex = question().ifindex;
    let mut action = NEXT;
    match trunkline_core::slow_path(&frame, &tables, ifindex, |found| action = tc_trace_finish(skb, &found)) {
        Some(refusal) => answer_tc(&mut frame, &tables, ifindex, &refusal),
        None => action,
    }
}

#[inline(never)]
fn tc_trace_finish(skb: *mut __sk_buff, action: &abi::CachedAction) -> i32 {
    let ctx = TcContext::new(skb);
    let mut frame = SkbFrame::new(&ctx);
    let outcome = trunkline_core::finish(&frame, action);
    answer_tc(&mut frame, &ReadOnly(Live::new(Hook::Tc)), question().ifindex, &outcome)
}

#[inline(always)]
fn answer_tc(frame: &mut SkbFrame<'_>, tables: &ReadOnly, ifindex: u32, outcome: &Outcome) -> i32 {
    let (action, decision) = match outcome.verdict {
        Verdict::Punt(reason) => (NEXT, Decision::Punt(reason).encode()),
        Verdict::Drop(reason) => (TC_ACT_SHOT, Decision::Drop(reason).encode()),
        Verdict::Forward { port, tag } => match frame.apply(tag) {
            Ok(()) => (TC_ACT_REDIRECT, Decision::Forward { port }.encode()),
            Err(()) => (NEXT, Decision::Punt(PuntReason::NoHeadroom).encode()),
        },
    };
    answer(tables, ifindex, decision, outcome, frame.beside());
    action
}
