//! The switch: what becomes of a frame, from the first table to the verdict.
//!
//! The order of the steps is the order of NORMAL (OVS `xlate_normal`), with one addition: a frame that would
//! change the FDB is punted, so that Open vSwitch changes its own with it. Frames of a form that was forwarded a moment
//! ago take a short cut (`crate::flow`).

use crate::flow::{Flow, Form, Stamp};
use crate::{
    DropReason, FdbEntry, FdbKey, Frame, Freshness, HEADER_LEN, Header, Hook, L4Checksum, PLAIN_LEN,
    PuntReason, Start, Tag, Tagging, Tpid, Verdict, Vid, abi, carries_tcp, l4_checksum,
};

/// The tables that the switch reads and the one that it writes. Numbers are as in [`abi`].
pub trait Tables {
    /// The hook whose program asks.
    fn hook(&self) -> Hook {
        Hook::Xdp
    }
    /// The port behind an interface index (`PortNo`).
    fn port_no(&self, ifindex: u32) -> Option<u16>;
    /// A port; `None` for a number out of range.
    fn port(&self, port_no: u16) -> Option<&abi::Port>;
    /// A bridge; `None` for a number out of range.
    fn bridge(&self, bridge_no: u16) -> Option<&abi::Bridge>;
    /// Seconds of the monotonic clock, coarse.
    fn now_s(&self) -> u32;
    /// A station.
    fn fdb(&self, key: &FdbKey) -> Option<FdbEntry>;
    /// Two stations at a time: in a large table each is far away, and the way to both can be made at once.
    fn fdb_pair(&self, keys: [&FdbKey; 2]) -> [Option<FdbEntry>; 2] {
        keys.map(|key| self.fdb(key))
    }
    /// Enters a station that is not in the FDB, unless its port has `limit` stations already. An error says why not.
    fn learn(&self, key: &FdbKey, entry: FdbEntry, limit: u32) -> Result<(), PuntReason>;
    /// Overwrites a station that is; nothing is done for one that was forgotten meanwhile.
    fn update(&self, key: &FdbKey, entry: FdbEntry);

    // The flow cache, for tables that have one.

    /// Generation of the tables: another one after every change of them, except to a station that is new or remains on
    /// its port.
    fn generation(&self) -> u32 {
        0
    }
    /// Begins another generation.
    fn outdate_flows(&self) {}
    /// What is remembered at a place, below [`abi::FLOW_PLACES`].
    fn flow(&self, _place: u32) -> Option<abi::Flow> {
        None
    }
    /// Remembers it there.
    fn remember(&self, _place: u32, _flow: abi::Flow) {}
}

/// A verdict, and what was found on the way to it.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// The port that the frame came in by; `None` if the device is not a port.
    pub ingress: Option<u16>,
    /// The frame's VLAN; `None` if that was not reached, or not admitted.
    pub vid: Option<Vid>,
    /// What becomes of the frame.
    pub verdict: Verdict,
}

/// Switches one frame that arrived on the device `ifindex`.
///
/// The frame is only read: to carry out the verdict is up to the caller.
#[inline(always)]
pub fn switch<F: Frame + ?Sized, T: Tables>(frame: &F, tables: &T, ifindex: u32) -> Outcome {
    let now_s = tables.now_s();
    // Before the other tables: what is found in them is at least as new.
    let stamp = Stamp::new(tables.generation(), now_s);
    let start = frame.start();
    let form = Form::new(&start, ifindex, tables.hook());

    let remembered = form.and_then(|form| Flow::from_abi(&tables.flow(form.place())?, &form, stamp));
    let flow = match remembered {
        Some(flow) => flow,
        None => match look_up(frame, tables, ifindex, &start, now_s) {
            Ok(flow) => {
                if let Some(form) = form {
                    tables.remember(form.place(), flow.to_abi(&form, stamp));
                }
                flow
            }
            Err(outcome) => return outcome,
        },
    };
    let verdict = match unfit(frame, &flow) {
        None => Verdict::Forward { port: flow.egress, tag: flow.tag },
        Some(reason) => Verdict::Punt(reason),
    };
    Outcome { ingress: Some(flow.ingress), vid: Some(flow.vid), verdict }
}

/// The long way, through the tables.
#[inline(always)]
fn look_up<F: Frame + ?Sized, T: Tables>(
    frame: &F,
    tables: &T,
    ifindex: u32,
    start: &Start,
    now_s: u32,
) -> Result<Flow, Outcome> {
    let mut outcome = Outcome { ingress: None, vid: None, verdict: Verdict::Punt(PuntReason::NotAPort) };
    let Some(port_no) = tables.port_no(ifindex) else { return Err(outcome) };
    let Some(port) = tables.port(port_no) else { return Err(outcome) };
    if !port.has(abi::PORT_VALID) {
        return Err(outcome);
    }
    outcome.ingress = Some(port_no);
    let routed = match admit(frame, tables, port, start, now_s) {
        Err(verdict) => Err(verdict),
        Ok(admitted) => {
            outcome.vid = Some(admitted.classified.vid);
            route(frame, tables, port, port_no, &admitted)
        }
    };
    routed.map_err(|verdict| Outcome { verdict, ..outcome })
}

/// A frame that is in a VLAN of an active bridge.
struct Admitted<'t> {
    header: Header,
    classified: crate::Classified,
    bridge: &'t abi::Bridge,
    now_s: u32,
}

/// Bridge, header and VLAN: everything up to the FDB.
#[inline(always)]
fn admit<'t, F: Frame + ?Sized, T: Tables>(
    frame: &F,
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
    if header.tagging == Tagging::Stacked {
        return punt(PuntReason::StackedTags);
    }
    let tag = header.tagging.single();
    if tag.is_some() && frame.len() < SHORTEST_TAGGED {
        return punt(PuntReason::ShortFrame);
    }
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

/// Source, destination and egress rules.
#[inline(always)]
fn route<F: Frame + ?Sized, T: Tables>(
    frame: &F,
    tables: &T,
    port: &abi::Port,
    port_no: u16,
    admitted: &Admitted<'_>,
) -> Result<Flow, Verdict> {
    let Admitted { header, classified, bridge, now_s } = admitted;
    let punt = |reason| Err(Verdict::Punt(reason));
    let key = |mac| FdbKey { bridge: port.bridge, vid: classified.vid, mac };

    // Open vSwitch's userspace datapath has no room for longer ones (`netdev_linux_rxq_recv`, OVS `lib/netdev-linux.c`),
    // and does not learn from them.
    if !frame.fits(counted_header(header.tagging) + port.mtu as usize) {
        return punt(PuntReason::OverMtu);
    }
    // What is learned changes nothing for the second: such a frame is punted.
    let src = key(header.src);
    let [known, station] = tables.fdb_pair([&src, &key(header.dst)]);
    if let Some(reason) = source(tables, port, port_no, &src, known, bridge, *now_s) {
        return punt(reason);
    }
    if header.dst.is_group() {
        return punt(PuntReason::GroupDestination);
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
    let received = header.tagging.single();
    if let Some(tag) = received
        && tag.dei()
        && port.has(abi::PORT_LEAVES_DEI)
    {
        return punt(PuntReason::DropEligible);
    }
    Ok(Flow {
        ingress: port_no,
        egress: station.port,
        vid: classified.vid,
        tag: out.egress(*classified, received),
        longest: counted_header(header.tagging) as u32 + out.mtu.min(port.mtu),
        tagged: header.tagging != Tagging::Untagged,
        partial_checksums: at_xdp && port.has(abi::PORT_PARTIAL_CHECKSUMS),
        leaves_tcp: at_xdp && port.has(abi::PORT_TC_FOLLOWS) && out.has(abi::PORT_TAKES_MERGED),
    })
}

/// The kernel frees a frame with a tag that is shorter, before anybody sees it (`skb_vlan_untag`, net/core/skbuff.c).
const SHORTEST_TAGGED: usize = 20;

/// Octets of a frame that do not count against an MTU. An 802.1Q tag is among them (`packet_length`, kernel
/// net/openvswitch/vport.c), an 802.1ad one only with the kernel datapath, so that it counts.
#[inline(always)]
fn counted_header(tagging: Tagging) -> usize {
    match tagging.single().map(Tag::tpid) {
        Some(Tpid::Dot1Q) => HEADER_LEN,
        Some(Tpid::Dot1Ad) | None => PLAIN_LEN,
    }
}

/// Why this frame cannot go where others of its form go.
#[inline(always)]
fn unfit<F: Frame + ?Sized>(frame: &F, flow: &Flow) -> Option<PuntReason> {
    if !frame.fits(flow.longest as usize) {
        return Some(PuntReason::OverMtu);
    }
    let payload = if flow.tagged { HEADER_LEN } else { PLAIN_LEN };
    // The kernel merges segments (GRO) on their way to the tc program, and a receiver that takes them so has a fraction
    // of the work. All TCP goes there, whatever its length: what XDP sends would overtake what is being merged.
    if flow.leaves_tcp && carries_tcp(frame, payload) {
        return Some(PuntReason::TcpToMerge);
    }
    if flow.partial_checksums {
        match l4_checksum(frame, payload) {
            L4Checksum::Complete => {}
            L4Checksum::Partial => return Some(PuntReason::PartialChecksum),
            L4Checksum::Unknown => return Some(PuntReason::UnknownChecksum),
        }
    }
    None
}

/// Learns the source. `Some` if the frame has to go through Open vSwitch for that.
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
    // Where another program follows on the way to Open vSwitch, learning is that one's: it would take the frame for
    // one that Open vSwitch has seen already.
    let leave = tables.hook() == Hook::Xdp && port.has(abi::PORT_TC_FOLLOWS);
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
        tables.outdate_flows();
    }
    Some(reason)
}

#[cfg(test)]
mod tests;
