//! What ovs-vswitchd answers.

use tracing::warn;

use super::Agent;
use super::stations::Comparison;
use super::watched::{Known, Watched};
use crate::dataplane::{Dataplane, DataplaneError};
use crate::desired::Reason;
use crate::event::{Poll, Probe};
use crate::unixctl::{FdbRow, FlowTable};

impl<D: Dataplane> Agent<D> {
    /// Takes the answer to a probe. Returns whether it changes more than stations.
    pub(super) fn on_probed(&mut self, bridge: &str, question: u64, answer: Result<Probe, String>) -> bool {
        let Some(watched) = self.watched.get_mut(bridge) else { return false };
        if watched.is_confirming(question) {
            return self.on_confirmed(bridge, answer);
        }
        if !watched.is_asked(question) {
            return false;
        }
        match answer {
            Ok(probe) => {
                self.ovs_version = Some(probe.version.clone());
                watched.answered(question, probe, self.now_s);
            }
            Err(cause) => {
                let cause = Reason::NoAnswer { cause };
                if watched.trouble.as_ref() != Some(&cause) {
                    warn!(bridge, cause = cause.to_string(), "Open vSwitch has all frames of the bridge");
                }
                watched.failed(cause, self.now_s);
            }
        }
        true
    }

    /// Gives a bridge the stations that were out of use, as far as Open vSwitch has them. Whether the answer changes more.
    fn on_confirmed(&mut self, bridge: &str, answer: Result<Probe, String>) -> bool {
        let Some(watched) = self.watched.get_mut(bridge) else { return false };
        let asked_s = watched.known_mut().and_then(|known| known.confirming.take());
        let (Ok(Probe { version, flow_table, stations }), Some(asked_s)) = (answer, asked_s) else {
            watched.invalidate();
            return true;
        };
        self.ovs_version = Some(version);
        let taken = match self.confirm(bridge, &stations) {
            // It begins anew, and so does this.
            Ok(false) => return true,
            Ok(true) => self.take_stations(bridge, &stations, asked_s),
            Err(error) => Err(error),
        };
        if let Err(error) = taken {
            return self.on_trouble(bridge, &error);
        }
        self.take_flow_table(bridge, Some(flow_table))
    }

    /// Whether the answer changes more than stations.
    pub(super) fn on_polled(&mut self, bridge: &str, question: u64, answer: Result<Poll, String>) -> bool {
        let Some(watched) = self.watched.get_mut(bridge) else { return false };
        let Some(known) = watched.known_mut().filter(|known| known.question == question) else {
            return false;
        };
        let asked_s = known.polling.take();
        let Ok(Poll { flow_table, stats, stations }) = answer else {
            watched.invalidate();
            return true;
        };
        known.stats = Some(stats);
        if let Some(rows) = &stations
            && let Err(error) = self.take_stations(bridge, rows, asked_s.unwrap_or(u32::MAX))
        {
            return self.on_trouble(bridge, &error);
        }
        self.take_flow_table(bridge, flow_table)
    }

    /// Compares the stations of a bridge that switches with Open vSwitch's, which was asked in the second `asked_s`.
    fn take_stations(&mut self, bridge: &str, rows: &[FdbRow], asked_s: u32) -> Result<(), DataplaneError> {
        // The second before the question, as the programs' clock may be behind.
        let Comparison { undecided, unconfirmed } =
            self.reconcile(bridge, rows, asked_s.saturating_sub(1), asked_s)?;
        let Some(watched) = self.watched.get_mut(bridge) else { return Ok(()) };
        if let Some(known) = watched.known_mut() {
            known.note(rows);
            if undecided {
                known.stats = None;
            }
        }
        if unconfirmed {
            self.effects.extend(watched.confirm(bridge, &mut self.questions, self.now_s));
        }
        Ok(())
    }

    pub(super) fn on_trouble(&mut self, bridge: &str, error: &DataplaneError) -> bool {
        let Some(watched) = self.watched.get_mut(bridge) else { return true };
        let cause = Reason::StepFailed { cause: error.to_string() };
        // It is tried again every second.
        if watched.told.as_ref() != Some(&cause) {
            warn!(cause = cause.to_string(), bridge, "Open vSwitch has all frames of the bridge");
            watched.told = Some(cause.clone());
        }
        watched.failed(cause, self.now_s);
        true
    }

    /// Whether the flow table, if there is an answer, has changed.
    fn take_flow_table(&mut self, bridge: &str, flow_table: Option<FlowTable>) -> bool {
        let known = self.watched.get_mut(bridge).and_then(Watched::known_mut);
        match (known, flow_table) {
            (Some(Known { flow_table: known, .. }), Some(flow_table)) if *known != flow_table => {
                *known = flow_table;
                true
            }
            _ => false,
        }
    }
}
