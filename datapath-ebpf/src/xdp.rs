//! The XDP program on the ports: its entry point, and how a verdict is carried out.

use aya_ebpf::{
    bindings::{
        xdp_action::{XDP_DROP, XDP_PASS, XDP_REDIRECT},
        xdp_md,
    },
    macros::xdp,
    programs::XdpContext,
};
use trunkline_core::{
    DropReason, Frame as _, Hook, Outcome, PuntReason, Tables as _, Verdict, abi, lookup_flow,
};

use crate::{log::log, maps::redirect, tables::Live, xdp_frame::XdpFrame};

/// The program on every port with the XDP hook.
#[xdp]
pub(crate) fn trunkline_xdp(ctx: XdpContext) -> u32 {
    let tables = Live::new(Hook::Xdp);
    let mut frame = XdpFrame::new(&ctx);
    match lookup_flow(&frame, &tables, frame.ifindex()) {
        Some(outcome) => carry_out(&mut frame, &tables, &outcome),
        None => slow_path(ctx.ctx),
    }
}

/// A function of its own, because it needs many registers, which the short path would have to save.
#[inline(never)]
fn slow_path(ctx: *mut xdp_md) -> u32 {
    let tables = Live::new(Hook::Xdp);
    let ctx = XdpContext::new(ctx);
    let frame = XdpFrame::new(&ctx);
    let mut action = XDP_PASS;
    let take = |found| action = finish(ctx.ctx, &found);
    let Some(refusal) = trunkline_core::slow_path(&frame, &tables, frame.ifindex(), take) else {
        return action;
    };
    log(&ctx, &refusal);
    match (refusal.ingress, refusal.verdict) {
        (Some(ingress), Verdict::Punt(reason)) => punt(ingress, reason),
        (Some(ingress), Verdict::Drop(reason)) => drop(&tables, ingress, reason),
        _ => XDP_PASS,
    }
}

/// A function of its own, which gets the action in memory, where all of it is written.
#[inline(never)]
fn finish(ctx: *mut xdp_md, action: &abi::CachedAction) -> u32 {
    let ctx = XdpContext::new(ctx);
    let mut frame = XdpFrame::new(&ctx);
    let outcome = trunkline_core::finish(&frame, action);
    carry_out(&mut frame, &Live::new(Hook::Xdp), &outcome)
}

#[inline(always)]
fn carry_out(frame: &mut XdpFrame<'_>, tables: &Live, outcome: &Outcome) -> u32 {
    let Some(ingress) = outcome.ingress else { return XDP_PASS };
    match outcome.verdict {
        Verdict::Punt(reason) => punt(ingress, reason),
        Verdict::Drop(reason) => drop(tables, ingress, reason),
        Verdict::Forward { port, tag } => {
            // The target first, the edit last: an edited frame cannot go to Open vSwitch any more.
            if !redirect(port) {
                return punt(ingress, PuntReason::UnreachableDestination);
            }
            let received = frame.len();
            if frame.apply(tag).is_err() {
                return punt(ingress, PuntReason::NoHeadroom);
            }
            tables.forwarded(ingress, received, port, frame.len());
            XDP_REDIRECT
        }
    }
}

/// Passes a frame on, and counts it unless the tc program follows, which counts what it does with it.
///
/// A function of its own, to keep it out of the path of frames that are forwarded.
#[inline(never)]
fn punt(ingress: u16, reason: PuntReason) -> u32 {
    let tables = Live::new(Hook::Xdp);
    if tables.port(ingress).is_none_or(|port| !port.has(abi::PORT_TC_FOLLOWS)) {
        tables.punted(ingress, reason);
    }
    XDP_PASS
}

#[inline(always)]
fn drop(tables: &Live, ingress: u16, reason: DropReason) -> u32 {
    tables.dropped(ingress, reason);
    XDP_DROP
}
