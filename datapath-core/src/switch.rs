//! The switch: the way of a frame from the first table to the verdict.
//!
//! The order of the steps is the order of NORMAL (OVS `xlate_normal`), with one addition: a frame that would
//! change the FDB is punted, so that Open vSwitch changes its own with the same frame. Frames of a flow that
//! was forwarded a moment ago take a shortcut (`crate::flow`).

use crate::flow::{Checks, FlowKey, Found, Validity};
use crate::{
    DropReason, FdbEntry, FdbKey, Frame, Freshness, HEADER_LEN, Header, Hook, L4Checksum, PLAIN_LEN, Payload,
    PuntReason, Start, Tables, Tag, Tpid, Verdict, Vid, abi, carries_tcp, l4_checksum,
};

/// A verdict, and what was found before it.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// The port that the frame arrived on; `None` if the device is not a port.
    pub ingress: Option<u16>,
    /// The frame's VLAN; `None` if the frame was not classified, or not admitted.
    pub vid: Option<Vid>,
    /// The verdict.
    pub verdict: Verdict,
}

/// Switches one frame that arrived on the device `ifindex`.
///
/// The frame is only read: the caller carries out the verdict.
#[inline(always)]
pub fn switch<F: Frame + ?Sized, T: Tables>(frame: &F, tables: &T, ifindex: u32) -> Outcome {
    if let Some(outcome) = lookup_flow(frame, tables, ifindex) {
        return outcome;
    }
    let mut action = abi::CachedAction::default();
    match slow_path(frame, tables, ifindex, |found| action = found) {
        Some(refusal) => refusal,
        None => finish(frame, &action),
    }
}

/// The short path: decides by what is remembered of the last frame of the same flow. Returns `None` if
/// nothing is.
#[inline(always)]
pub fn lookup_flow<F: Frame + ?Sized, T: Tables>(frame: &F, tables: &T, ifindex: u32) -> Option<Outcome> {
    let (ticks, generation) = (tables.ticks(), tables.generation());
    let (header, payload) = frame.start().split();
    if payload.is_none() {
        return None;
    }
    let key = FlowKey::new(header, ifindex, tables.hook());
    tables.read_flows(key.hash(), |set| {
        set.find(&key, generation, ticks).map(|action| action.outcome(frame, &payload))
    })
}

/// The slow path: looks the frame up in the tables. If frames of its flow are forwarded, gives the action to
/// `take` and stores it for [`lookup_flow`]. Otherwise returns the outcome, which is never
/// [`Verdict::Forward`].
///
/// It does not return an enum of both: for the content of the other variant compilers may carry along
/// registers that were never written, which verifiers refuse.
#[inline(always)]
pub fn slow_path<F: Frame + ?Sized, T: Tables>(
    frame: &F,
    tables: &T,
    ifindex: u32,
    take: impl FnOnce(abi::CachedAction),
) -> Option<Outcome> {
    // Read before the second and the tables, so that what is found there is at least as new.
    let (ticks, generation) = (tables.ticks(), tables.generation());
    let start = frame.start();
    let mut found = Found::NOTHING;
    if let Err(outcome) = look_up(frame, tables, ifindex, &start, tables.now_s(), &mut found) {
        return Some(outcome);
    }
    let (header, _) = start.split();
    let key = FlowKey::new(header, ifindex, tables.hook());
    let (validity, action) =
        (Validity { generation, until: tables.until(ticks) }, abi::CachedAction::new(&found));
    tables.write_flows(key.hash(), |set| set.insert(&key, validity, ticks, action, || tables.random()));
    take(action);
    None
}

/// Finishes the slow path: returns the outcome of the frame for which [`slow_path`] has found this action.
#[inline(always)]
pub fn finish<F: Frame + ?Sized>(frame: &F, action: &abi::CachedAction) -> Outcome {
    let (_, payload) = frame.start().split();
    action.outcome(frame, &payload)
}

impl abi::CachedAction {
    /// Returns the outcome of a frame of the flow.
    #[inline(always)]
    fn outcome<F: Frame + ?Sized>(&self, frame: &F, payload: &Payload) -> Outcome {
        let verdict = match unfit(frame, payload, self) {
            None => Verdict::Forward { port: self.egress(), tag: self.edit() },
            Some(reason) => Verdict::Punt(reason),
        };
        Outcome { ingress: Some(self.ingress()), vid: Some(self.vid()), verdict }
    }
}

/// Finds where the frame goes by the tables. The error is the outcome of a frame that is not forwarded.
#[inline(always)]
fn look_up<F: Frame + ?Sized, T: Tables>(
    frame: &F,
    tables: &T,
    ifindex: u32,
    start: &Start,
    now_s: u32,
    found: &mut Found,
) -> Result<(), Outcome> {
    let mut outcome = Outcome { ingress: None, vid: None, verdict: Verdict::Punt(PuntReason::NotAPort) };
    let Some(port_no) = tables.port_no(ifindex) else { return Err(outcome) };
    let Some(port) = tables.port(port_no) else { return Err(outcome) };
    if !port.has(abi::PORT_VALID) {
        return Err(outcome);
    }
    outcome.ingress = Some(port_no);
    let routed = match admit(tables, port, start, now_s) {
        Err(verdict) => Err(verdict),
        Ok(admitted) => {
            outcome.vid = Some(admitted.classified.vid);
            choose(frame, tables, port, port_no, &admitted, found)
        }
    };
    routed.map_err(|verdict| Outcome { verdict, ..outcome })
}

/// A frame in a VLAN of an active bridge.
struct Admitted<'t> {
    header: Header,
    classified: crate::Classified,
    bridge: &'t abi::Bridge,
    now_s: u32,
}

/// Decides by bridge, header and VLAN: everything before the FDB.
#[inline(always)]
fn admit<'t, T: Tables>(
    tables: &'t T,
    port: &abi::Port,
    start: &Start,
    now_s: u32,
) -> Result<Admitted<'t>, Verdict> {
    let punt = |reason| Err(Verdict::Punt(reason));
    let Some(bridge) = tables.bridge(port.bridge) else { return punt(PuntReason::BridgeSuspended) };
    if bridge.lease_s == 0 {
        return punt(PuntReason::BridgeSuspended);
    }
    if now_s >= bridge.lease_s {
        return punt(PuntReason::StaleHeartbeat);
    }

    if !start.complete {
        return punt(PuntReason::ShortFrame);
    }
    let header = start.parse();
    if header.stacked {
        return punt(PuntReason::StackedTags);
    }
    let tag = header.tag;
    let excluded = |vid| port.has(abi::PORT_HAS_EXCLUDED) && port.excluded.contains(vid);
    if let Some(tag) = tag
        && excluded(tag.vid())
    {
        return punt(PuntReason::ExcludedVlan);
    }
    if header.src.is_group() {
        return punt(PuntReason::GroupSource);
    }
    let Some(classified) = port.classify(tag) else {
        // Open vSwitch drops both; but programs on the host may listen for announcements (LLDP and others).
        if header.dst.is_group() {
            return punt(PuntReason::GroupDestination);
        }
        return Err(Verdict::Drop(DropReason::VlanNotAdmitted));
    };
    if excluded(classified.vid) {
        return punt(PuntReason::ExcludedVlan);
    }
    // Before learning, as NORMAL does not learn from these.
    if header.dst.is_reserved() {
        return punt(PuntReason::ReservedDestination);
    }
    Ok(Admitted { header, classified, bridge, now_s })
}

/// Decides by source, destination and egress rules.
#[inline(always)]
fn choose<F: Frame + ?Sized, T: Tables>(
    frame: &F,
    tables: &T,
    port: &abi::Port,
    port_no: u16,
    admitted: &Admitted<'_>,
    found: &mut Found,
) -> Result<(), Verdict> {
    let Admitted { header, classified, bridge, now_s } = admitted;
    let punt = |reason| Err(Verdict::Punt(reason));
    let key = |mac| FdbKey { bridge: port.bridge, vid: classified.vid, mac };

    // Open vSwitch's userspace datapath has no room for longer ones (`netdev_linux_rxq_recv`, OVS
    // `lib/netdev-linux.c`), and does not learn from them.
    if !frame.fits(counted_header(header.tag) + port.mtu as usize) {
        return punt(PuntReason::OverMtu);
    }
    // What is learned changes nothing for the second: such a frame is punted.
    let src = key(header.src);
    let [known, station] = tables.fdb_pair([&src, &key(header.dst)]);
    if let Some(reason) = source(tables, port, port_no, &src, known, bridge, *now_s) {
        return punt(reason);
    }
    if header.dst.is_group() {
        // The frame goes through Open vSwitch in any case, and so shows the station.
        if let Some(known) = known
            && known.is_to_be_shown(*now_s, 1)
            && !leaves_learning(tables, port)
        {
            tables.update(&src, FdbEntry { shown_s: *now_s, ..known });
        }
        return punt(PuntReason::GroupDestination);
    }
    if let Some(known) = known
        && known.is_to_be_shown(*now_s, bridge.show_s)
    {
        tables.ask_to_show(&src, port_no);
    }

    let Some(station) = station else { return punt(PuntReason::UnknownDestination) };
    if station.freshness(*now_s, bridge.refresh_s, bridge.ageing_s) == Freshness::Expired {
        return punt(PuntReason::UnknownDestination);
    }
    if station.port == port_no {
        return Err(Verdict::Drop(DropReason::SamePort));
    }
    let Some(out) = tables.port(station.port) else { return punt(PuntReason::UnreachableDestination) };
    if !out.has(abi::PORT_VALID) || out.bridge != port.bridge || !out.members.contains(classified.vid) {
        return punt(PuntReason::UnreachableDestination);
    }
    if port.has(abi::PORT_PROTECTED) && out.has(abi::PORT_PROTECTED) {
        return Err(Verdict::Drop(DropReason::Protected));
    }
    let at_xdp = tables.hook() == Hook::Xdp;
    if !out.has(if at_xdp { abi::PORT_TARGET } else { abi::PORT_TC_TARGET }) {
        return punt(PuntReason::UnreachableDestination);
    }
    if let Some(tag) = header.tag
        && tag.dei()
        && port.has(abi::PORT_LEAVES_DEI)
    {
        return punt(PuntReason::DropEligible);
    }
    *found = Found {
        ingress: port_no,
        egress: station.port,
        vid: classified.vid,
        tag: out.egress(*classified, header.tag),
        longest: counted_header(header.tag) as u32 + out.mtu.min(port.mtu),
        checks: Checks::new(
            at_xdp && port.has(abi::PORT_PARTIAL_CHECKSUMS),
            at_xdp && port.has(abi::PORT_TC_FOLLOWS) && out.has(abi::PORT_ACCEPTS_GSO),
        ),
    };
    Ok(())
}

/// Returns the octets of a frame that do not count against an MTU. An 802.1Q tag is among them
/// (`packet_length`, kernel net/openvswitch/vport.c), an 802.1ad one only with the kernel datapath, so that
/// it counts.
#[inline(always)]
fn counted_header(tag: Option<Tag>) -> usize {
    match tag.map(Tag::tpid) {
        Some(Tpid::Dot1Q) => HEADER_LEN,
        Some(Tpid::Dot1Ad) | None => PLAIN_LEN,
    }
}

/// Returns why this frame cannot go where other frames of its flow go.
#[inline(always)]
fn unfit<F: Frame + ?Sized>(frame: &F, payload: &Payload, action: &abi::CachedAction) -> Option<PuntReason> {
    if !frame.fits(usize::from(action.longest)) {
        return Some(PuntReason::OverMtu);
    }
    let checks = action.checks();
    if checks.none() {
        return None;
    }
    // The kernel merges segments (GRO) before the tc program, and a receiver that accepts them merged has a
    // fraction of the work. All TCP goes there, whatever its length: what XDP sends would overtake what is
    // being merged.
    if checks.leaves_tcp() && carries_tcp(frame, payload) {
        return Some(PuntReason::TcpToMerge);
    }
    if checks.partial_checksums() {
        match l4_checksum(frame, payload) {
            L4Checksum::Complete => {}
            L4Checksum::Partial => return Some(PuntReason::PartialChecksum),
            L4Checksum::Unknown => return Some(PuntReason::UnknownChecksum),
        }
    }
    None
}

/// Learns the source. Returns the reason if the frame has to go through Open vSwitch for that.
#[inline(always)]
fn source<T: Tables>(
    tables: &T,
    port: &abi::Port,
    port_no: u16,
    key: &FdbKey,
    known: Option<FdbEntry>,
    bridge: &abi::Bridge,
    now_s: u32,
) -> Option<PuntReason> {
    let seen = FdbEntry { port: port_no, fixed: false, shown_s: now_s };
    let leave = leaves_learning(tables, port);
    let Some(known) = known else {
        if leave {
            return Some(PuntReason::NewSource);
        }
        return Some(match tables.learn(key, seen, port.learning_limit) {
            Ok(()) => PuntReason::NewSource,
            Err(reason) => reason,
        });
    };
    if known.fixed {
        return None;
    }
    let reason = match known.freshness(now_s, bridge.refresh_s, bridge.ageing_s) {
        // No flow of a station that is set aside is remembered. A new generation would only cost the others
        // theirs.
        _ if known.port == FdbEntry::ASIDE => PuntReason::NewSource,
        _ if known.port != port_no => PuntReason::MovedSource,
        Freshness::Fresh => return None,
        Freshness::Due => PuntReason::RefreshSource,
        Freshness::Expired => PuntReason::NewSource,
    };
    if leave {
        return Some(reason);
    }
    tables.update(key, seen);
    if reason == PuntReason::MovedSource {
        tables.invalidate_flows();
    }
    Some(reason)
}

/// Returns whether learning is left to the tc program, which follows before Open vSwitch: if XDP had learned
/// from the frame, tc would take the frame for one that Open vSwitch has seen.
#[inline(always)]
fn leaves_learning<T: Tables>(tables: &T, port: &abi::Port) -> bool {
    tables.hook() == Hook::Xdp && port.has(abi::PORT_TC_FOLLOWS)
}

#[cfg(test)]
mod tests;
