//! The XDP programs: entry points, and how a verdict is carried out.

use aya_ebpf::{
    EbpfContext,
    bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_REDIRECT},
    macros::xdp,
    programs::XdpContext,
};
use aya_log_ebpf::debug;
use trunkline_core::{Frame as _, Hook, Outcome, PuntReason, Tables as _, Verdict, abi, switch};

use crate::{
    counters,
    maps::{DEVICES, Live, ReadOnly, TRACE},
    xdp_frame::XdpFrame,
};

/// On every accelerated port.
#[xdp]
pub(crate) fn trunkline_xdp(ctx: XdpContext) -> u32 {
    let mut frame = XdpFrame::new(&ctx);
    let outcome = switch(&frame, &Live(Hook::Xdp), frame.ifindex());
    log(&ctx, &outcome);
    carry_out(&mut frame, &outcome)
}

/// For `trunkline trace`: the same rules on the same tables, and the outcome in map `TRACE`.
#[xdp]
pub(crate) fn trunkline_trace(ctx: XdpContext) -> u32 {
    let mut frame = XdpFrame::new(&ctx);
    let ifindex = TRACE.get(0).map_or(0, |trace| trace.ifindex);
    let outcome = switch(&frame, &ReadOnly(Live(Hook::Xdp)), ifindex);
    answer(&mut frame, ifindex, &outcome)
}

#[inline(always)]
fn carry_out(frame: &mut XdpFrame<'_>, outcome: &Outcome) -> u32 {
    let Some(ingress) = outcome.ingress else { return XDP_PASS };
    match outcome.verdict {
        Verdict::Punt(reason) => punt(ingress, reason),
        Verdict::Drop(reason) => {
            counters::dropped(ingress, reason);
            XDP_DROP
        }
        Verdict::Forward { port, tag } => {
            // The target first, the edit last: once edited, a frame cannot go to Open vSwitch any more.
            if DEVICES.redirect(u32::from(port), u64::from(XDP_PASS)).is_err() {
                return punt(ingress, PuntReason::UnreachableDestination);
            }
            let received = frame.len();
            if frame.apply(tag).is_err() {
                return punt(ingress, PuntReason::NoHeadroom);
            }
            counters::forwarded(ingress, received, port, frame.len());
            XDP_REDIRECT
        }
    }
}

/// Passes a frame on. What becomes of it where the tc program follows is that one's to count.
#[inline(always)]
fn punt(ingress: u16, reason: PuntReason) -> u32 {
    if Live(Hook::Xdp).port(ingress).is_none_or(|port| !port.has(abi::PORT_TC_FOLLOWS)) {
        counters::punted(ingress, reason);
    }
    XDP_PASS
}

#[inline(always)]
fn answer(frame: &mut XdpFrame<'_>, ifindex: u32, outcome: &Outcome) -> u32 {
    let (action, kind, detail) = match outcome.verdict {
        Verdict::Punt(reason) => (XDP_PASS, abi::TRACE_PUNT, reason as u16),
        Verdict::Drop(reason) => (XDP_DROP, abi::TRACE_DROP, reason as u16),
        Verdict::Forward { port, tag } => match frame.apply(tag) {
            Ok(()) => (XDP_REDIRECT, abi::TRACE_FORWARD, port),
            Err(()) => (XDP_PASS, abi::TRACE_PUNT, PuntReason::NoHeadroom as u16),
        },
    };
    let vid = outcome.vid.map_or(abi::NO_VID, |vid| vid.get());
    let answer =
        abi::Trace { ifindex, beside: 0, kind, detail, vid, reserved: 0, now_s: Live(Hook::Xdp).now_s() };
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
static TRUNKLINE_ABI_6: aya_ebpf::Global<u32> = aya_ebpf::Global::new(abi::ABI_VERSION);
