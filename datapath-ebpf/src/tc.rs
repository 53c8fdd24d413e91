//! The tc programs: entry points, and how a verdict is carried out on a socket buffer.

use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_REDIRECT, TC_ACT_SHOT, TC_ACT_UNSPEC},
    macros::classifier,
    programs::TcContext,
};
use trunkline_core::{
    Clock as _, DropReason, Frame as _, Hook, Outcome, PuntReason, Tables as _, Tag, TagOp, Tpid, Verdict,
    abi, follow, recall, route,
};

use crate::{
    maps::{Live, ReadOnly, TRACE},
    programs::{log, question},
    skb_frame::SkbFrame,
};

/// Whatever is next on the frame's way: other programs, qdiscs, Open vSwitch.
const NEXT: i32 = TC_ACT_UNSPEC;

/// On every port with the tc hook: where frames arrive and, on an internal port, where the host sends them.
#[classifier]
pub(crate) fn trunkline_tc(ctx: TcContext) -> i32 {
    let tables = Live::new(Hook::Tc);
    let mut frame = SkbFrame::new(&ctx);
    match recall(&frame, &tables, frame.ifindex()) {
        Some(outcome) => carry_out(&mut frame, &tables, &outcome),
        None => by_tables(ctx.skb.skb),
    }
}

/// As for XDP.
#[inline(never)]
fn by_tables(skb: *mut __sk_buff) -> i32 {
    let tables = Live::new(Hook::Tc);
    let ctx = TcContext::new(skb);
    let frame = SkbFrame::new(&ctx);
    let mut action = NEXT;
    let take = |way| action = follow_route(skb, &way);
    let Some(refusal) = route(&frame, &tables, frame.ifindex(), take) else { return action };
    log(&ctx, &refusal);
    match (refusal.ingress, refusal.verdict) {
        (Some(ingress), Verdict::Punt(reason)) => punt(&tables, ingress, reason),
        (Some(ingress), Verdict::Drop(reason)) => shoot(&tables, ingress, reason),
        _ => NEXT,
    }
}

/// As for XDP.
#[inline(never)]
fn follow_route(skb: *mut __sk_buff, way: &abi::Route) -> i32 {
    let ctx = TcContext::new(skb);
    let mut frame = SkbFrame::new(&ctx);
    let outcome = follow(&frame, way);
    carry_out(&mut frame, &Live::new(Hook::Tc), &outcome)
}

/// For `trunkline trace`: the same rules on the same tables, and the outcome in map `TRACE`.
#[classifier]
pub(crate) fn trunkline_tc_trace(ctx: TcContext) -> i32 {
    let tables = ReadOnly(Live::new(Hook::Tc));
    let mut frame = SkbFrame::new(&ctx);
    let abi::Trace { ifindex, beside, .. } = question();
    if let Some(tag) = from_word(beside)
        && frame.push(tag).is_err()
    {
        return NEXT;
    }
    match recall(&frame, &tables, ifindex) {
        Some(outcome) => answer(&mut frame, &tables, ifindex, &outcome),
        None => trace_by_tables(ctx.skb.skb),
    }
}

/// As for XDP.
#[inline(never)]
fn trace_by_tables(skb: *mut __sk_buff) -> i32 {
    let tables = ReadOnly(Live::new(Hook::Tc));
    let ctx = TcContext::new(skb);
    let mut frame = SkbFrame::new(&ctx);
    let ifindex = question().ifindex;
    let mut action = NEXT;
    match route(&frame, &tables, ifindex, |way| action = trace_route(skb, &way)) {
        Some(refusal) => answer(&mut frame, &tables, ifindex, &refusal),
        None => action,
    }
}

#[inline(never)]
fn trace_route(skb: *mut __sk_buff, way: &abi::Route) -> i32 {
    let ctx = TcContext::new(skb);
    let mut frame = SkbFrame::new(&ctx);
    let outcome = follow(&frame, way);
    answer(&mut frame, &ReadOnly(Live::new(Hook::Tc)), question().ifindex, &outcome)
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

#[inline(always)]
fn answer(frame: &mut SkbFrame<'_>, tables: &ReadOnly, ifindex: u32, outcome: &Outcome) -> i32 {
    let (action, kind, detail) = match outcome.verdict {
        Verdict::Punt(reason) => (NEXT, abi::TRACE_PUNT, reason as u16),
        Verdict::Drop(reason) => (TC_ACT_SHOT, abi::TRACE_DROP, reason as u16),
        Verdict::Forward { port, tag } => match frame.apply(tag) {
            Ok(()) => (TC_ACT_REDIRECT, abi::TRACE_FORWARD, port),
            Err(()) => (NEXT, abi::TRACE_PUNT, PuntReason::NoHeadroom as u16),
        },
    };
    let vid = outcome.vid.map_or(abi::NO_VID, |vid| vid.get());
    let (beside, now_s) = (frame.beside().map_or(0, to_word), tables.now_s());
    let answer = abi::Trace { ifindex, beside, kind, detail, vid, reserved: 0, now_s };
    // Failing to store is reported by the unchanged `kind`.
    let _ = TRACE.set(0, answer, 0);
    action
}

/// A tag as in [`abi::Trace::beside`].
#[inline(always)]
fn to_word(tag: Tag) -> u32 {
    u32::from_be_bytes(tag.to_bytes())
}

#[inline(always)]
fn from_word(word: u32) -> Option<Tag> {
    Tpid::from_ethertype((word >> 16) as u16).map(|tpid| Tag::from_wire(tpid, word as u16))
}
