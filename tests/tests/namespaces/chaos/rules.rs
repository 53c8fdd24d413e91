//! What ports do, and did a moment ago.

use std::collections::BTreeMap;
use std::time::Instant;

use trunkline_tests::Vlan;

use super::FORGOTTEN;

/// What a port does, as configured.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Rule {
    pub(super) vlan: Vlan,
    pub(super) protected: bool,
}

impl Rule {
    /// The VLAN of a frame that comes in with this tag, if it is admitted.
    pub(super) fn admits(&self, tag: Option<u16>) -> Option<u16> {
        match (&self.vlan, tag) {
            (Vlan::Access(own), None) => Some(*own),
            (Vlan::Access(_), Some(_)) | (Vlan::Trunk(_), None) => None,
            (Vlan::NativeTagged(own, _) | Vlan::NativeUntagged(own, _), None) => Some(*own),
            (_, Some(vid)) => self.carries(vid).then_some(vid),
        }
    }

    pub(super) fn carries(&self, vid: u16) -> bool {
        match &self.vlan {
            Vlan::Access(own) => vid == *own,
            Vlan::Trunk(trunks) => trunks.contains(&vid),
            Vlan::NativeTagged(own, trunks) | Vlan::NativeUntagged(own, trunks) => {
                vid == *own || trunks.contains(&vid)
            }
        }
    }

    /// The tag with which a frame of this VLAN leaves.
    pub(super) fn leaves_with(&self, vid: u16) -> Option<u16> {
        match &self.vlan {
            Vlan::Access(_) => None,
            Vlan::NativeUntagged(own, _) if vid == *own => None,
            _ => Some(vid),
        }
    }
}

/// A rule and when it was in force; no rule while the port is not on the bridge.
#[derive(Debug)]
struct Epoch {
    rule: Option<Rule>,
    from: Instant,
    to: Option<Instant>,
}

/// The rules of every port, as far back as anyone asks.
#[derive(Default, Debug)]
pub(super) struct History(BTreeMap<&'static str, Vec<Epoch>>);

impl History {
    /// The latest.
    pub(super) fn rule(&self, port: &str) -> Option<&Rule> {
        self.0[port].last().and_then(|epoch| epoch.rule.as_ref())
    }

    /// A change begins: from now on the new rule may be in force.
    pub(super) fn begin(&mut self, port: &'static str, rule: Option<Rule>) {
        self.0.entry(port).or_default().push(Epoch { rule, from: Instant::now(), to: None });
    }

    /// It is over: from now on the new rule is.
    pub(super) fn end(&mut self, port: &'static str) {
        let now = Instant::now();
        let epochs = self.0.get_mut(port).expect("a port");
        let (_, old) = epochs.split_last_mut().expect("there is one");
        for epoch in old {
            epoch.to.get_or_insert(now);
        }
        epochs.retain(|epoch| epoch.to.is_none_or(|to| to + 2 * FORGOTTEN > now));
    }

    /// Those in force at some moment between these two.
    pub(super) fn in_force(&self, port: &str, from: Instant, to: Instant) -> impl Iterator<Item = &Rule> {
        let epochs = self.0[port].iter();
        epochs
            .filter(move |epoch| epoch.from <= to && epoch.to.is_none_or(|end| end >= from))
            .filter_map(|epoch| epoch.rule.as_ref())
    }

    /// For a report.
    pub(super) fn of(&self, port: &str, now: Instant) -> Vec<String> {
        let age = |at: Instant| format!("{:.3} s ago", now.saturating_duration_since(at).as_secs_f64());
        let text =
            |epoch: &Epoch| format!("{:?} from {} to {:?}", epoch.rule, age(epoch.from), epoch.to.map(age));
        self.0[port].iter().map(text).collect()
    }
}
