//! The tc programs: entry points, and how a verdict is carried out on a socket buffer.

use aya_ebpf::{
    bindings::{TC_ACT_REDIRECT, TC_ACT_SHOT, TC_ACT_UNSPEC},
    macros::classifier,
    programs::TcContext,
};
use trunkline_core::{
    DropReason, Frame as _, Hook, Outcome, PuntReason, Tables as _, Tag, TagOp, Tpid, Verdict, abi, switch,
};

use crate::{
    counters,
    maps::{Live, ReadOnly, TRACE},
    programs::log,
    skb_frame::SkbFrame,
};

/// Whatever is next on the frame's way: other programs, qdiscs, Open vSwitch.
const NEXT: i32 = TC_ACT_UNSPEC;

/// On every port with the tc hook: where frames arrive and, on an internal port, where the host sends them.
#[classifier]
pub(crate) fn trunkline_tc(ctx: TcContext) -> i32 {
    let mut frame = SkbFrame::new(&ctx);
    let outcome = switch(&frame, &Live(Hook::Tc), frame.ifindex());
    log(&ctx, &outcome);
    carry_out(&mut frame, &outcome)
}

/// For `trunkline trace`: the same rules on the same tables, and the outcome in map `TRACE`.
#[classifier]
pub(crate) fn trunkline_tc_trace(ctx: TcContext) -> i32 {
    let mut frame = SkbFrame::new(&ctx);
    let question = TRACE.get(0).copied().unwrap_or_default();
    if let Some(tag) = from_word(question.beside)
        && frame.push(tag).is_err()
    {
        return NEXT;
    }
    let outcome = switch(&frame, &ReadOnly(Live(Hook::Tc)), question.ifindex);
    answer(&mut frame, question.ifindex, &outcome)
}

#[inline(always)]
fn carry_out(frame: &mut SkbFrame<'_>, outcome: &Outcome) -> i32 {
    let Some(ingress) = outcome.ingress else { return NEXT };
    match outcome.verdict {
        Verdict::Punt(reason) => punt(ingress, reason),
        Verdict::Drop(reason) => shoot(ingress, reason),
        Verdict::Forward { port, tag } => {
            let Some(out) = Live(Hook::Tc).port(port) else {
                return punt(ingress, PuntReason::UnreachableDestination);
            };
            let (ifindex, internal) = (out.ifindex, out.has(abi::PORT_INTERNAL));
            let received = frame.len();
            if frame.apply(tag).is_err() {
                return match tag {
                    TagOp::Replace(_) => shoot(ingress, DropReason::EditFailed),
                    _ => punt(ingress, PuntReason::NoHeadroom),
                };
            }
            counters::forwarded(ingress, received, port, frame.len());
            frame.send(ifindex, internal)
        }
    }
}

#[inline(always)]
fn punt(ingress: u16, reason: PuntReason) -> i32 {
    counters::punted(ingress, reason);
    NEXT
}

#[inline(always)]
fn shoot(ingress: u16, reason: DropReason) -> i32 {
    counters::dropped(ingress, reason);
    TC_ACT_SHOT
}

#[inline(always)]
fn answer(frame: &mut SkbFrame<'_>, ifindex: u32, outcome: &Outcome) -> i32 {
    let (action, kind, detail) = match outcome.verdict {
        Verdict::Punt(reason) => (NEXT, abi::TRACE_PUNT, reason as u16),
        Verdict::Drop(reason) => (TC_ACT_SHOT, abi::TRACE_DROP, reason as u16),
        Verdict::Forward { port, tag } => match frame.apply(tag) {
            Ok(()) => (TC_ACT_REDIRECT, abi::TRACE_FORWARD, port),
            Err(()) => (NEXT, abi::TRACE_PUNT, PuntReason::NoHeadroom as u16),
        },
    };
    let vid = outcome.vid.map_or(abi::NO_VID, |vid| vid.get());
    let (beside, now_s) = (frame.beside().map_or(0, to_word), Live(Hook::Tc).now_s());
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
