//! The comparison: what the fast path makes of each frame against what Open vSwitch makes of it.
//!
//! Forwarded and dropped frames must be forwarded and dropped by Open vSwitch, to the same port and with the same tag.
//! (`ofproto/trace` does not tell the drop-eligible bit: Open vSwitch cannot represent it.) A punt can do no harm, but
//! each must have the reason that it names. The two FDBs are fed by the same frames only and must stay the same,
//! except that Open vSwitch also learns from frames that the fast path does not look into.

use std::collections::BTreeMap;
use std::fmt;

use trunkline::dataplane::{BridgeNo, PortNo};
use trunkline::fdb::{NOWHERE, Side, reconcile};
use trunkline::unixctl::{FdbAge, OfPort};
use trunkline_core::{DropReason, FdbKey, Mac, Outcome, PuntReason, Tag, TagOp, Tpid, Verdict, Vid, abi};

use super::{Answer, Case, DummyOvs, FastPath, Step, frame_bytes};

/// Frames judged, by verdict and reason.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Tally(BTreeMap<&'static str, u64>);

impl Tally {
    /// All frames.
    pub fn frames(&self) -> u64 {
        self.0.values().sum()
    }

    /// Frames with this verdict: a reason's label, or `keep`, `push`, `pop` or `replace`.
    pub fn of(&self, label: &str) -> u64 {
        self.0.get(label).copied().unwrap_or(0)
    }

    /// Adds another one.
    pub fn add(&mut self, other: &Self) {
        other.0.iter().for_each(|(label, count)| *self.0.entry(label).or_default() += count);
    }

    /// Adds a frame.
    pub fn count(&mut self, verdict: Verdict) {
        let label = match verdict {
            Verdict::Forward { tag: TagOp::Keep, .. } => "keep",
            Verdict::Forward { tag: TagOp::Push(_), .. } => "push",
            Verdict::Forward { tag: TagOp::Pop, .. } => "pop",
            Verdict::Forward { tag: TagOp::Replace(_), .. } => "replace",
            Verdict::Punt(reason) => reason.label(),
            Verdict::Drop(reason) => reason.label(),
        };
        *self.0.entry(label).or_default() += 1;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<_> = self.0.iter().map(|(label, count)| format!("{label} {count}")).collect();
        out.write_str(&parts.join(", "))
    }
}

/// Goes through a case with both. An error says at which step they differ, and how.
///
/// # Errors
/// They differ.
///
/// # Panics
/// When Open vSwitch or the loaded program cannot be asked.
pub fn judge(case: &Case, fast_path: &mut FastPath, ovs: &mut DummyOvs) -> Result<Tally, String> {
    ovs.configure(case);
    fast_path.configure(case);
    let mut trial = Trial { case, fast_path, stations: BTreeMap::new() };
    let mut tally = Tally::default();
    for (place, step) in case.steps.iter().enumerate() {
        match step {
            Step::Static { port, vid, mac } => {
                ovs.add_station(*port, *vid, mac);
                let key = FdbKey {
                    bridge: 0,
                    vid: Vid::new(*vid).ok_or("a VLAN above 4095")?,
                    mac: mac.parse().map_err(|_| "not an address")?,
                };
                trial.enter(key, port_no(*port), true);
            }
            Step::Frame { port, octets, length } => {
                let frame = frame_bytes(octets, *length);
                let answer = ovs.trace(*port, &frame);
                let ingress = port_no(*port);
                let verdict = trial.fast_path.switch(ingress, &frame).and_then(|outcome| {
                    trial.compare(ingress, &frame, &outcome, &answer).map(|()| outcome.verdict).map_err(
                        |what| {
                            format!("{what}: fast path {:?}, Open vSwitch:\n{}", outcome.verdict, answer.text)
                        },
                    )
                });
                tally.count(verdict.map_err(|what| format!("step {place}, {step:?}: {what}"))?);
            }
        }
    }
    trial.compare_stations(ovs).map(|()| tally)
}

fn port_no(number: usize) -> u16 {
    u16::try_from(number - 1).expect("few ports")
}

/// A case that is being judged.
struct Trial<'c> {
    case: &'c Case,
    fast_path: &'c mut FastPath,
    /// Open vSwitch's FDB as it says that it changes it: port, and whether the operator's.
    stations: BTreeMap<FdbKey, (u16, bool)>,
}

impl Trial<'_> {
    /// A station that comes to both; as far as we know the port, and an operator's entry always.
    fn enter(&mut self, key: FdbKey, port: u16, fixed: bool) {
        self.stations.insert(key, (port, fixed));
        let ours = match (self.fast_path.accelerates(port), fixed) {
            (true, _) => Some((port, fixed)),
            (false, true) => Some((NOWHERE.0, true)),
            (false, false) => None,
        };
        self.fast_path.put(key, ours);
    }

    fn compare(
        &mut self,
        ingress: u16,
        frame: &[u8],
        outcome: &Outcome,
        answer: &Answer,
    ) -> Result<(), String> {
        let expected = match outcome.verdict {
            Verdict::Forward { port, tag } => actions(port, tag),
            Verdict::Drop(_) => "drop".to_owned(),
            Verdict::Punt(reason) => return self.compare_punt(ingress, frame, outcome.vid, reason, answer),
        };
        agree(answer.actions == expected, "other actions")?;
        agree(answer.learned.is_none(), "it learned")?;
        if outcome.verdict == Verdict::Drop(DropReason::Protected) {
            agree(self.case.ports[usize::from(ingress)].protected, "not protected")?;
        }
        Ok(())
    }

    fn compare_punt(
        &mut self,
        ingress: u16,
        frame: &[u8],
        vid: Option<Vid>,
        reason: PuntReason,
        answer: &Answer,
    ) -> Result<(), String> {
        let mac = |at: usize| frame[at..].first_chunk().map(|octets| Mac::new(*octets));
        let (dst, src) = (mac(0).ok_or("no destination")?, mac(6).ok_or("no source")?);
        let key = |mac| vid.map(|vid| FdbKey { bridge: 0, vid, mac });
        let learned = answer.learned.map(|(port, vid, mac)| (port_no(port), vid, mac));
        let is_tag = |at: usize| {
            frame[at..].first_chunk().is_some_and(|t| Tpid::from_ethertype(u16::from_be_bytes(*t)).is_some())
        };
        let unseen = |holds: bool| agree(holds && learned.is_none(), "the reason does not hold");
        match reason {
            PuntReason::NewSource | PuntReason::MovedSource => {
                let vid = vid.ok_or("learning without a VLAN")?;
                agree(learned == Some((ingress, vid.get(), src)), "it did not learn this")?;
                let before = self.stations.insert(FdbKey { bridge: 0, vid, mac: src }, (ingress, false));
                // One that comes from a port without a program is new to the fast path.
                let moved = before.is_some_and(|(port, _)| self.fast_path.accelerates(port));
                agree((reason == PuntReason::MovedSource) == moved, "new or moved?")?;
            }
            PuntReason::NotAPort
            | PuntReason::ShortFrame
            | PuntReason::StackedTags
            | PuntReason::OverMtu
            | PuntReason::ExcludedVlan => {
                let admitted = match reason {
                    PuntReason::NotAPort => !self.fast_path.accelerates(ingress),
                    PuntReason::ShortFrame => frame.len() < 20,
                    // All ports have the same MTU, so it is over that of its own.
                    PuntReason::OverMtu => frame.len() > if frame[12..14] == [0x81, 0] { 1518 } else { 1514 },
                    PuntReason::StackedTags => is_tag(12) && is_tag(16),
                    _ => self.is_flooded(ingress, frame),
                };
                agree(admitted, "the reason does not hold")?;
                if let Some((port, vid, mac)) = learned {
                    self.enter(FdbKey { bridge: 0, vid: Vid::new(vid).ok_or("VLAN?")?, mac }, port, false);
                }
            }
            PuntReason::GroupSource => unseen(src.is_group())?,
            PuntReason::GroupDestination => unseen(dst.is_group())?,
            PuntReason::ReservedDestination => unseen(answer.actions == "drop")?,
            PuntReason::UnknownDestination => {
                let known = key(dst).and_then(|key| self.stations.get(&key));
                let elsewhere = known.map(|(port, _)| !self.fast_path.accelerates(*port));
                unseen(elsewhere.unwrap_or(answer.floods))?;
            }
            PuntReason::UnreachableDestination => {
                let known = key(dst).and_then(|key| self.stations.get(&key));
                let (port, fixed) = *known.ok_or("the reason does not hold")?;
                let member = vid.is_some_and(|vid| self.fast_path.rules(port).members.contains(vid));
                unseen(fixed && !(member && self.fast_path.accelerates(port)))?;
            }
            PuntReason::DropEligible => unseen(is_tag(12) && frame[14] & 0x10 != 0 && answer.is_unicast())?,
            PuntReason::PartialChecksum | PuntReason::UnknownChecksum => {
                unseen(self.case.ports[usize::from(ingress)].tap && answer.is_unicast())?;
            }
            PuntReason::StaleHeartbeat
            | PuntReason::BridgeSuspended
            | PuntReason::RefreshSource
            | PuntReason::FdbFull
            | PuntReason::LearningLimit
            | PuntReason::TcpToMerge
            | PuntReason::NoHeadroom => return Err("nothing gives cause for this".to_owned()),
        }
        Ok(())
    }

    /// Whether the frame carries, or is taken into, a VLAN of `flood_vlans`.
    fn is_flooded(&self, ingress: u16, frame: &[u8]) -> bool {
        let tci = |frame: &[u8]| frame[14..].first_chunk().map(|tci| u16::from_be_bytes(*tci) & 0xfff);
        let tagged = matches!(frame[12..14], [0x81, 0x00] | [0x88, 0xa8]);
        let wire = if tagged { tci(frame) } else { None };
        let pvid = self.fast_path.rules(ingress).pvid;
        let internal = if wire.unwrap_or(0) == 0 && pvid != abi::NO_VID { Some(pvid) } else { wire };
        [wire, internal].into_iter().flatten().any(|vid| self.case.flood_vlans.contains(&vid))
    }

    /// At the end: Open vSwitch's FDB is what it said, and ours agrees as the agent's reconciler sees it.
    fn compare_stations(&self, ovs: &DummyOvs) -> Result<(), String> {
        let rows = ovs.stations();
        let theirs: BTreeMap<_, _> = rows
            .iter()
            .filter_map(|row| {
                let OfPort::Number(port) = row.port else { return None };
                let key = FdbKey { bridge: 0, vid: Vid::new(row.vid)?, mac: row.mac };
                Some((key, (port - 1, row.age == FdbAge::Static)))
            })
            .collect();
        if theirs != self.stations {
            return Err(format!("Open vSwitch's FDB is {theirs:?}, and by its traces {:?}", self.stations));
        }
        let accelerated = |port: &u16| self.fast_path.accelerates(*port);
        let ports =
            (0..self.case.ports.len() as u16).filter(accelerated).map(|port| (port + 1, PortNo(port)));
        let ours = self.fast_path.stations();
        let side = Side { bridge: BridgeNo(0), ports: &ports.collect(), rows: &rows };
        let corrections = reconcile(&ours, side, u32::MAX, 0).corrections;
        let shared = theirs.values().filter(|(port, fixed)| *fixed || accelerated(port)).count();
        if corrections.is_empty() && shared == ours.len() {
            return Ok(());
        }
        Err(format!("the FDBs differ: {corrections:?}; ours {ours:?}, Open vSwitch's {theirs:?}"))
    }
}

fn agree(agrees: bool, otherwise: &str) -> Result<(), String> {
    if agrees { Ok(()) } else { Err(otherwise.to_owned()) }
}

/// The datapath actions that are this edit, and this port (from 0) to send to.
fn actions(port: u16, tag: TagOp) -> String {
    let edit = match tag {
        TagOp::Keep => String::new(),
        TagOp::Push(tag) => push(tag),
        TagOp::Pop => "pop_vlan,".to_owned(),
        TagOp::Replace(tag) => format!("pop_vlan,{}", push(tag)),
    };
    format!("{edit}{}", port + 1)
}

fn push(tag: Tag) -> String {
    let tpid = if tag.tpid() == Tpid::Dot1Q { "" } else { "tpid=0x88a8," };
    format!("push_vlan({tpid}vid={},pcp={}),", tag.vid(), tag.pcp().get())
}
