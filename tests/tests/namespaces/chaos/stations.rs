//! Where the stations are, and where Open vSwitch may take them to be.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use trunkline_core::Mac;
use trunkline_tests::station;

use super::rules::History;
use super::{BRIDGES, CACHED, Dice, STATIONS, bridge_of};

/// See the module.
pub(super) struct Stations {
    at: Vec<(Mac, &'static str)>,
    /// Where a station may have been learned in a VLAN, and the last time.
    heard: HashMap<(Mac, u16), BTreeMap<&'static str, Instant>>,
    /// When a station was last learned in a VLAN for certain, wherever it was.
    learned: HashMap<(Mac, u16), Instant>,
    /// An operator's entries, and when they went.
    pinned: BTreeMap<(String, u16, &'static str), Option<Instant>>,
}

impl Stations {
    /// All somewhere.
    pub(super) fn new() -> Self {
        let all = BRIDGES.iter().zip(STATIONS);
        let at = all
            .flat_map(|((_, ports), count)| ports.iter().cycle().take(count))
            .map(|port| (station(), *port))
            .collect();
        Self { at, heard: HashMap::new(), learned: HashMap::new(), pinned: BTreeMap::new() }
    }

    pub(super) fn pick(&self, dice: &mut Dice) -> (Mac, &'static str) {
        dice.pick(&self.at)
    }

    /// Mostly one of the same bridge.
    pub(super) fn pick_beside(&self, port: &str, dice: &mut Dice) -> (Mac, &'static str) {
        let beside = |other: &&(Mac, &str)| bridge_of(other.1) == bridge_of(port);
        let stations: Vec<_> = self.at.iter().filter(beside).copied().collect();
        if dice.below(10) == 0 { self.pick(dice) } else { dice.pick(&stations) }
    }

    pub(super) fn one_moves(&mut self, dice: &mut Dice) {
        let number = dice.below(self.at.len());
        let bridge = bridge_of(self.at[number].1);
        let (_, ports) = BRIDGES.iter().find(|(name, _)| *name == bridge).expect("there is one");
        self.at[number].1 = dice.pick(ports);
    }

    /// A station has sent a frame. The fast path may still go by rules of `since`.
    pub(super) fn speaks(
        &mut self,
        mac: Mac,
        port: &'static str,
        tag: Option<u16>,
        history: &History,
        (since, at): (Instant, Instant),
    ) {
        for vid in history.in_force(port, since.min(at - CACHED), at).filter_map(|rule| rule.admits(tag)) {
            self.heard.entry((mac, vid)).or_default().insert(port, at);
        }
        let admitted: Vec<_> = history.in_force(port, at - CACHED, at).map(|rule| rule.admits(tag)).collect();
        if let Some(Some(vid)) = admitted.first()
            && admitted.iter().all(|other| *other == Some(*vid))
        {
            self.learned.insert((mac, *vid), at);
        }
    }

    /// An operator has entered a station there, wherever it is.
    pub(super) fn pin(&mut self, mac: Mac, vid: u16, port: &'static str) {
        self.pinned.insert((mac.to_string(), vid, port), None);
    }

    /// An operator's entry goes: that of this station, or those of this port, or all.
    pub(super) fn unpin(&mut self, is_gone: impl Fn(&str, u16, &str) -> bool) {
        for ((mac, vid, port), until) in &mut self.pinned {
            if is_gone(mac, *vid, port) {
                until.get_or_insert(Instant::now());
            }
        }
    }

    /// Whether the fast path may have the station there: as [`Self::may_be_known`], or by an operator's word.
    pub(super) fn may_be_there(&self, mac: Mac, vid: u16, port: &'static str, at: Instant) -> bool {
        let pinned = self.pinned.get(&(mac.to_string(), vid, port));
        pinned.is_some_and(|until| until.is_none_or(|until| until + CACHED >= at))
            || self.may_be_known(mac, vid, port, at)
    }

    /// Whether Open vSwitch may have the station there in this VLAN at this moment, from a frame that it
    /// learned from at most [`CACHED`] late: nothing has certainly been learned of the station in this VLAN
    /// since.
    pub(super) fn may_be_known(&self, mac: Mac, vid: u16, port: &str, at: Instant) -> bool {
        let Some(heard) = self.heard.get(&(mac, vid)).and_then(|ports| ports.get(port)) else { return false };
        self.learned.get(&(mac, vid)).is_none_or(|learned| *heard + CACHED >= at.min(*learned))
    }
}
