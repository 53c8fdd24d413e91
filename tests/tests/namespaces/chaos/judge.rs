//! Was this frame to arrive there, and so?

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use trunkline_core::Mac;
use trunkline_tests::Stamp;

use super::rules::{History, Rule};
use super::stations::Stations;
use super::{CACHED, LATE, bridge_of};

/// What the fast path forwards after a lapse is counted for so long.
const FIRST: Duration = Duration::from_secs(1);
/// Of what is only counted, so many are kept for the report.
const EXAMPLES: usize = 5;

/// A frame under way.
pub(super) struct Sent {
    pub(super) port: &'static str,
    pub(super) destination: Mac,
    pub(super) tag: Option<u16>,
    pub(super) bytes: Vec<u8>,
    pub(super) body: Vec<u8>,
    pub(super) before: Instant,
    pub(super) after: Instant,
    pub(super) arrived: BTreeSet<&'static str>,
}

#[derive(Default, Debug)]
pub(super) struct Tally {
    pub(super) sent: u64,
    pub(super) delivered: u64,
    pub(super) by_fast_path: u64,
    /// Forwarded by the fast path by rules no longer in force, within [`LATE`].
    pub(super) late: u64,
    /// Forwarded by the fast path by rules no longer in force, while the agent was stopped.
    pub(super) by_old_rules: u64,
    /// Forwarded by the fast path in the first second after a lapse.
    pub(super) after_lapses: u64,
    /// Sent by Open vSwitch by rules no longer in force, within [`CACHED`].
    pub(super) by_cached_rules: u64,
    /// Sent by Open vSwitch to a station that it learned from its counters after the port had left the VLAN.
    pub(super) by_late_stations: u64,
    /// Sent by Open vSwitch for none of these reasons.
    pub(super) by_no_rules: u64,
    pub(super) unexplained: Vec<String>,
    pub(super) changes: BTreeMap<&'static str, u64>,
    pub(super) compared: u64,
    pub(super) longest_stray: Duration,
    pub(super) violations: Vec<String>,
}

/// A time for which the agent is stopped.
#[derive(Clone, Copy)]
pub(super) struct Stopped {
    pub(super) from: Instant,
    /// Until when the fast path may go by what was in force at its beginning.
    pub(super) to: Option<Instant>,
    pub(super) lapse: bool,
}

/// What the changes and the traffic share.
pub(super) struct World {
    pub(super) history: History,
    pub(super) stations: Stations,
    /// The last ones, with their beginnings.
    pub(super) changes: Vec<(Instant, &'static str)>,
    /// The last time.
    pub(super) stopped: Option<Stopped>,
    pub(super) tally: Tally,
}

impl World {
    pub(super) fn new(history: History, stations: Stations) -> Self {
        Self { history, stations, changes: Vec::new(), stopped: None, tally: Tally::default() }
    }

    /// The fast path may go by rules that were in force then or later, for a frame sent between these two
    /// moments.
    pub(super) fn rules_since(&self, before: Instant, after: Instant) -> Instant {
        let stopped = self.stopped.filter(|stopped| stopped.from <= after);
        let stopped = stopped.filter(|stopped| stopped.to.is_none_or(|to| before <= to));
        stopped.map_or(before, |stopped| stopped.from.min(before))
    }

    pub(super) fn begins(&mut self, kind: &'static str) {
        self.changes.push((Instant::now(), kind));
        let excess = self.changes.len().saturating_sub(EXAMPLES);
        self.changes.drain(..excess);
        *self.tally.changes.entry(kind).or_default() += 1;
    }

    /// Whether the rules in force between these two moments let a frame out of `port` in this form, `port`
    /// being in the VLAN or `known` in it.
    fn allows(
        &self,
        sent: &Sent,
        port: &str,
        tag: Option<u16>,
        (from, to): (Instant, Instant),
        member: impl Fn(&Rule, u16) -> bool,
    ) -> bool {
        port != sent.port
            && bridge_of(port) == bridge_of(sent.port)
            && self.history.in_force(sent.port, from, to).any(|ingress| {
                let Some(vid) = ingress.admits(sent.tag) else { return false };
                self.history.in_force(port, from, to).any(|egress| {
                    member(egress, vid)
                        && egress.leaves_with(vid) == tag
                        && !(ingress.protected && egress.protected)
                })
            })
    }

    pub(super) fn judge(&mut self, sent: &mut Sent, port: &'static str, mut copy: Vec<u8>) {
        let now = Instant::now();
        let by_ovs = Stamp::take_off(&mut copy);
        let tags = copy.get(12..).and_then(|rest| rest.strip_suffix(&sent.body[..]));
        let tag = match tags {
            Some([]) => Some(None),
            Some([0x81, 0x00, high @ 0..0x10, low]) => Some(Some(u16::from_be_bytes([*high, *low]))),
            _ => None,
        };
        self.tally.delivered += 1;
        self.tally.by_fast_path += u64::from(!by_ovs);
        let problem = match tag {
            _ if !sent.arrived.insert(port) => Some("arrived twice"),
            Some(tag) if copy[..12] == sent.bytes[..12] => {
                if by_ovs {
                    self.judge_ovs(sent, port, tag, now);
                    None
                } else {
                    self.judge_fast_path(sent, port, tag)
                }
            }
            _ => Some("was changed"),
        };
        if let Some(problem) = problem {
            let way = if by_ovs { "Open vSwitch" } else { "the fast path" };
            let report = self.report(sent, port, &copy, now);
            self.tally.violations.push(format!("a frame that {way} forwarded {problem}: {report}"));
        }
    }

    fn judge_fast_path(&mut self, sent: &Sent, port: &'static str, tag: Option<u16>) -> Option<&'static str> {
        let since = self.rules_since(sent.before, sent.after);
        let there = |_: &Rule, vid| self.stations.may_be_there(sent.destination, vid, port, sent.after);
        let is_there = self.allows(sent, port, tag, (since - LATE, sent.after), there);
        let after_lapse = self.stopped.is_some_and(|stopped| {
            stopped.lapse && stopped.to.is_some_and(|to| sent.before > to && sent.before < to + FIRST)
        });
        self.tally.after_lapses += u64::from(after_lapse);
        if self.allows(sent, port, tag, (sent.before, sent.after), Rule::carries) {
        } else if self.allows(sent, port, tag, (since, sent.after), Rule::carries) {
            self.tally.by_old_rules += 1;
        } else if self.allows(sent, port, tag, (sent.before - LATE, sent.after), Rule::carries) {
            self.tally.late += 1;
        } else {
            return Some("must not leave there so");
        }
        (!is_there).then_some("is to a station that is not there")
    }

    fn judge_ovs(&mut self, sent: &Sent, port: &str, tag: Option<u16>, now: Instant) {
        let cached = (sent.before - CACHED, now);
        let known = |_: &Rule, vid| self.stations.may_be_known(sent.destination, vid, port, sent.after);
        if self.allows(sent, port, tag, (sent.before, now), Rule::carries) {
        } else if self.allows(sent, port, tag, cached, Rule::carries) {
            self.tally.by_cached_rules += 1;
        } else if self.allows(sent, port, tag, cached, known) {
            self.tally.by_late_stations += 1;
        } else {
            self.tally.by_no_rules += 1;
            if self.tally.unexplained.len() < EXAMPLES {
                let report = self.report(sent, port, &sent.bytes, now);
                self.tally.unexplained.push(format!("Open vSwitch sent as {tag:?} {report}"));
            }
        }
    }

    fn report(&self, sent: &Sent, port: &str, copy: &[u8], now: Instant) -> String {
        let age = |at: Instant| format!("{:.3} s ago", now.saturating_duration_since(at).as_secs_f64());
        let changes = self.changes.iter().map(|(at, kind)| format!("{kind} {}", age(*at)));
        format!(
            "{:02x?}\n  from {} (sent {}), {:#?}\n  to {port}, {:#?}\n  as {:02x?}\n  after {:#?}\n  agent {}",
            &sent.bytes[..18],
            sent.port,
            age(sent.before),
            self.history.of(sent.port, now),
            self.history.of(port, now),
            &copy[..copy.len().min(18)],
            changes.collect::<Vec<_>>(),
            self.stopped.map_or("never stopped".to_owned(), |stopped| {
                let to = stopped.to.map_or("now".to_owned(), age);
                format!("stopped from {} until {to} (lapse: {})", age(stopped.from), stopped.lapse)
            }),
        )
    }
}
