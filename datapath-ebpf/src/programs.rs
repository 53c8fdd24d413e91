//! The XDP programs: entry points, and how a verdict is carried out.

use aya_ebpf::{
    EbpfContext,
    bindings::{
        xdp_action::{XDP_DROP, XDP_PASS, XDP_REDIRECT},
        xdp_md,
    },
    macros::xdp,
    programs::XdpContext,
};
use aya_log_ebpf::debug;
use trunkline_core::{
    Clock as _, DropReason, Frame as _, Hook, Outcome, PuntReason, Tables as _, Verdict, abi, follow, recall,
    route,
};

use crate::{
    maps::{Live, ReadOnly, TRACE, redirect},
    xdp_frame::XdpFrame,
};

/// On every accelerated port.
#[xdp]
pub(crate) fn trunkline_xdp(ctx: XdpContext) -> u32 {
    let tables = Live::new(Hook::Xdp);
    let mut frame = XdpFrame::new(&ctx);
    match recall(&frame, &tables, frame.ifindex()) {
        Some(outcome) => carry_out(&mut frame, &tables, &outcome),
        None => by_tables(ctx.ctx),
    }
}

/// A function of its own: it needs many registers, which the short way would have to save.
#[inline(never)]
fn by_tables(ctx: *mut xdp_md) -> u32 {
    let tables = Live::new(Hook::Xdp);
    let ctx = XdpContext::new(ctx);
    let frame = XdpFrame::new(&ctx);
    let mut action = XDP_PASS;
    let take = |way| action = follow_route(ctx.ctx, &way);
    let Some(refusal) = route(&frame, &tables, frame.ifindex(), take) else { return action };
    log(&ctx, &refusal);
    match (refusal.ingress, refusal.verdict) {
        (Some(ingress), Verdict::Punt(reason)) => punt(ingress, reason),
        (Some(ingress), Verdict::Drop(reason)) => drop(&tables, ingress, reason),
        _ => XDP_PASS,
    }
}

/// A function of its own, which gets the way in memory: all of it is written there.
#[inline(never)]
fn follow_route(ctx: *mut xdp_md, way: &abi::Route) -> u32 {
    let ctx = XdpContext::new(ctx);
    let mut frame = XdpFrame::new(&ctx);
    let outcome = follow(&frame, way);
    carry_out(&mut frame, &Live::new(Hook::Xdp), &outcome)
}

/// For `trunkline trace`: the same rules on the same tables, and the outcome in map `TRACE`.
#[xdp]
pub(crate) fn trunkline_trace(ctx: XdpContext) -> u32 {
    let tables = ReadOnly(Live::new(Hook::Xdp));
    let mut frame = XdpFrame::new(&ctx);
    let ifindex = question().ifindex;
    match recall(&frame, &tables, ifindex) {
        Some(outcome) => answer(&mut frame, &tables, ifindex, &outcome),
        None => trace_by_tables(ctx.ctx),
    }
}

/// As for frames that arrive.
#[inline(never)]
fn trace_by_tables(ctx: *mut xdp_md) -> u32 {
    let tables = ReadOnly(Live::new(Hook::Xdp));
    let ctx = XdpContext::new(ctx);
    let mut frame = XdpFrame::new(&ctx);
    let ifindex = question().ifindex;
    let mut action = XDP_PASS;
    match route(&frame, &tables, ifindex, |way| action = trace_route(ctx.ctx, &way)) {
        Some(refusal) => answer(&mut frame, &tables, ifindex, &refusal),
        None => action,
    }
}

#[inline(never)]
fn trace_route(ctx: *mut xdp_md, way: &abi::Route) -> u32 {
    let ctx = XdpContext::new(ctx);
    let mut frame = XdpFrame::new(&ctx);
    let outcome = follow(&frame, way);
    answer(&mut frame, &ReadOnly(Live::new(Hook::Xdp)), question().ifindex, &outcome)
}

/// What `trunkline trace` asks.
#[inline(always)]
pub(crate) fn question() -> abi::Trace {
    TRACE.get(0).copied().unwrap_or_default()
}

#[inline(always)]
fn carry_out(frame: &mut XdpFrame<'_>, tables: &Live, outcome: &Outcome) -> u32 {
    let Some(ingress) = outcome.ingress else { return XDP_PASS };
    match outcome.verdict {
        Verdict::Punt(reason) => punt(ingress, reason),
        Verdict::Drop(reason) => drop(tables, ingress, reason),
        Verdict::Forward { port, tag } => {
            // The target first, the edit last: once edited, a frame cannot go to Open vSwitch any more.
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

/// Passes a frame on. What becomes of it where the tc program follows is that one's to count.
///
/// Not part of the way of frames that are forwarded.
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

#[inline(always)]
fn answer(frame: &mut XdpFrame<'_>, tables: &ReadOnly, ifindex: u32, outcome: &Outcome) -> u32 {
    let (action, kind, detail) = match outcome.verdict {
        Verdict::Punt(reason) => (XDP_PASS, abi::TRACE_PUNT, reason as u16),
        Verdict::Drop(reason) => (XDP_DROP, abi::TRACE_DROP, reason as u16),
        Verdict::Forward { port, tag } => match frame.apply(tag) {
            Ok(()) => (XDP_REDIRECT, abi::TRACE_FORWARD, port),
            Err(()) => (XDP_PASS, abi::TRACE_PUNT, PuntReason::NoHeadroom as u16),
        },
    };
    let vid = outcome.vid.map_or(abi::NO_VID, |vid| vid.get());
    let now_s = tables.now_s();
    let answer = abi::Trace { ifindex, beside: 0, kind, detail, vid, reserved: 0, now_s };
    // Failing to store is reported by the unchanged `kind`.
    let _ = TRACE.set(0, answer, 0);
    action
}

/// Rare events for people who look for a fault. Without `--log-datapath` the verifier removes all of this: the
/// level is a constant at load time.
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

/// A panic that could be reached would be an endless loop, which the verifier refuses to load.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The licence under which the kernel lends its helpers.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// The agent looks for this name (`abi::ABI_SYMBOL`) before anything is attached.
#[unsafe(no_mangle)]
static TRUNKLINE_ABI_9: aya_ebpf::Global<u32> = aya_ebpf::Global::new(abi::ABI_VERSION);
