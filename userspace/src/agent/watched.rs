//! What the agent knows of a bridge beside the database: from ovs-vswitchd itself.

use std::collections::BTreeMap;

use super::show::Showing;
use super::stations::SWEEP_S;
use crate::desired::{BridgeFacts, Reason};
use crate::event::{Effect, Probe};
use crate::openflow::PortFlags;
use crate::unixctl::{FdbAge, FdbRow, FdbStats, FlowTable};

/// OpenFlow tells of changed flows. The flow table is asked for all the same, so often, in seconds.
const FLOWS_S: u32 = 10;
/// A bridge whose flows change all the time is asked for them at most so often a second.
const MOST_PROBES: u32 = 10;

/// What is known of a bridge, and how.
#[derive(Debug)]
pub(super) struct Watched {
    inquiry: Inquiry,
    /// By OpenFlow port number, or why they are not known.
    pub(super) port_flags: Result<BTreeMap<u16, PortFlags>, Reason>,
    /// Why the last question had no answer.
    pub(super) trouble: Option<Reason>,
    /// The cause of which the log was told since the bridge last switched.
    pub(super) told: Option<Reason>,
    /// The second of the last question, and the questions in it.
    asked: (u32, u32),
    pub(super) showing: Showing,
}

/// Where the question for flows and stations stands.
#[derive(Debug)]
enum Inquiry {
    /// It is to be asked.
    NeedsProbe,
    /// It is out.
    Asked(u64),
    /// There was no answer; when to ask again, in seconds.
    Failed(u32),
    /// The answer, kept up to date.
    Known(Known),
}

#[derive(Debug)]
pub(super) struct Known {
    /// The question that this answers.
    pub(super) question: u64,
    pub(super) flow_table: FlowTable,
    /// The stations in the answer, until they have been compared with ours and the bridge switches.
    pub(super) stations: Option<Vec<FdbRow>>,
    /// The second in which it was asked to confirm stations that are out of use.
    pub(super) confirming: Option<u32>,
    /// Whether there was an operator's entry when the stations were last told.
    pub(super) has_static: bool,
    pub(super) stats: Option<FdbStats>,
    /// The second in which the poll that is out was asked.
    pub(super) polling: Option<u32>,
    flows_s: u32,
    compared_s: u32,
}

impl Known {
    /// Takes note of what Open vSwitch's stations say beside where they are.
    pub(super) fn note(&mut self, rows: &[FdbRow]) {
        self.has_static = has_static(rows);
    }
}

/// An operator's entry has a negative age after a change of `mac-aging-time`.
fn has_static(rows: &[FdbRow]) -> bool {
    rows.iter().any(|row| !matches!(row.age, FdbAge::Seconds(0..)))
}

impl Default for Watched {
    fn default() -> Self {
        let mut new = Self {
            inquiry: Inquiry::NeedsProbe,
            port_flags: Ok(BTreeMap::new()),
            trouble: None,
            told: None,
            asked: (0, 0),
            showing: Showing::default(),
        };
        new.unfollow();
        new
    }
}

impl Watched {
    /// What is known is worth nothing from now on.
    pub(super) fn invalidate(&mut self) {
        self.inquiry = Inquiry::NeedsProbe;
    }

    /// Changes went unnoticed until now.
    pub(super) fn unfollow(&mut self) {
        self.port_flags = Err(Reason::ReadingPortFlags);
        self.invalidate();
    }

    /// The question, if it is to be asked now.
    pub(super) fn ask(&mut self, bridge: &str, questions: &mut u64, now_s: u32) -> Option<Effect> {
        let due = match self.inquiry {
            Inquiry::NeedsProbe => true,
            Inquiry::Failed(again_s) => again_s <= now_s,
            Inquiry::Asked(_) | Inquiry::Known(_) => false,
        };
        let asked = self.questions_in(now_s);
        if !due || self.port_flags.is_err() || asked >= MOST_PROBES {
            return None;
        }
        self.asked = (now_s, asked + 1);
        *questions += 1;
        self.inquiry = Inquiry::Asked(*questions);
        Some(Effect::Probe { bridge: bridge.to_owned(), question: *questions, next_turn: false })
    }

    pub(super) fn is_asked(&self, question: u64) -> bool {
        matches!(self.inquiry, Inquiry::Asked(asked) if asked == question)
    }

    /// Whether this is the question that confirms stations.
    pub(super) fn is_confirming(&self, question: u64) -> bool {
        matches!(&self.inquiry, Inquiry::Known(known) if known.question == question && known.confirming.is_some())
    }

    /// Whether the bridge lacks stations until they are confirmed.
    pub(super) fn is_unconfirmed(&self) -> bool {
        matches!(&self.inquiry, Inquiry::Known(known) if known.confirming.is_some())
    }

    /// Whether the answer is one that the bridge has switched by.
    pub(super) fn is_in_use(&self) -> bool {
        matches!(&self.inquiry, Inquiry::Known(known) if known.stations.is_none())
    }

    /// Whether the bridge has to be asked before it switches by an answer that it has switched by before.
    pub(super) fn asks_first(&self, now_s: u32) -> bool {
        let has_static = matches!(&self.inquiry, Inquiry::Known(known) if known.has_static);
        has_static || self.questions_in(now_s) >= MOST_PROBES
    }

    fn questions_in(&self, now_s: u32) -> u32 {
        if self.asked.0 == now_s { self.asked.1 } else { 0 }
    }

    /// Asks for stations out of use to be confirmed by a bridge that switches. Answers to what was asked before count for nothing.
    pub(super) fn confirm(&mut self, bridge: &str, questions: &mut u64, now_s: u32) -> Option<Effect> {
        let asked = self.questions_in(now_s);
        let known = self.known_mut()?;
        *questions += 1;
        known.question = *questions;
        known.confirming = Some(now_s);
        (known.polling, known.stats) = (None, None);
        (known.flows_s, known.compared_s) = (now_s, now_s);
        self.asked = (now_s, asked + 1);
        Some(Effect::Probe { bridge: bridge.to_owned(), question: *questions, next_turn: true })
    }

    pub(super) fn answered(&mut self, question: u64, probe: Probe, now_s: u32) {
        let Probe { version: _, flow_table, stations } = probe;
        self.trouble = None;
        self.inquiry = Inquiry::Known(Known {
            question,
            flow_table,
            has_static: has_static(&stations),
            confirming: None,
            stations: Some(stations),
            stats: None,
            polling: None,
            flows_s: now_s,
            compared_s: now_s,
        });
    }

    pub(super) fn failed(&mut self, cause: Reason, now_s: u32) {
        self.trouble = Some(cause);
        self.inquiry = Inquiry::Failed(now_s + 1);
    }

    pub(super) fn known_mut(&mut self) -> Option<&mut Known> {
        match &mut self.inquiry {
            Inquiry::Known(known) => Some(known),
            _ => None,
        }
    }

    /// The question for what has changed, unless it is out already.
    pub(super) fn poll(&mut self, bridge: &str, now_s: u32) -> Option<Effect> {
        let due = |known: &&mut Known| known.polling.is_none() && known.confirming.is_none();
        let known = self.known_mut().filter(due)?;
        known.polling = Some(now_s);
        let flows = now_s >= known.flows_s + FLOWS_S;
        if flows {
            known.flows_s = now_s;
        }
        // Now and then the stations are compared although nothing seems to have changed.
        if now_s >= known.compared_s + SWEEP_S {
            known.compared_s = now_s;
            known.stats = None;
        }
        Some(Effect::Poll { bridge: bridge.to_owned(), question: known.question, known: known.stats, flows })
    }

    /// What the compilation wants to know.
    pub(super) fn facts(&self) -> Option<BridgeFacts> {
        let (Inquiry::Known(known), Ok(port_flags)) = (&self.inquiry, &self.port_flags) else { return None };
        Some(BridgeFacts { flow_table: known.flow_table.clone(), port_flags: port_flags.clone() })
    }

    /// Why the bridge cannot be judged; `None` if it can.
    pub(super) fn hold_reason(&self) -> Option<Reason> {
        match (&self.inquiry, &self.port_flags, &self.trouble) {
            (Inquiry::Known(_), Ok(_), _) => None,
            (_, Err(cause), _) | (_, _, Some(cause)) => Some(cause.clone()),
            _ => Some(Reason::Asking),
        }
    }
}
