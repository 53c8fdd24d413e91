//! Where the stations are, and where Open vSwitch may take them to be.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use trunkline_core::Mac;
use trunkline_tests::station;

use super::rules::History;
use super::{CACHED, Dice, PORTS, STATIONS};

/// See the module.
pub(super) struct Stations {
    at: Vec<(Mac, &'static str)>,
    /// Where a station may have been learned in a VLAN, and the last time.
    heard: HashMap<(Mac, u16), BTreeMap<&'static str, Instant>>,
    /// When a station was last learned in a VLAN for certain, wherever it was.
    learned: HashMap<(Mac, u16), Instant>,
}

impl Stations {
    /// All somewhere.
    pub(super) fn new() -> Self {
        let at = (0..STATIONS).map(|place| (station(), PORTS[place % PORTS.len()])).collect();
        Self { at, heard: HashMap::new(), learned: HashMap::new() }
    }

    pub(super) fn pick(&self, dice: &mut Dice) -> (Mac, &'static str) {
        self.at[dice.below(STATIONS)]
    }

    pub(super) fn one_moves(&mut self, dice: &mut Dice) {
        self.at[dice.below(STATIONS)].1 = dice.pick(&PORTS);
    }

    /// A station has sent a frame.
    pub(super) fn speaks(
        &mut self,
        mac: Mac,
        port: &'static str,
        tag: Option<u16>,
        history: &History,
        at: Instant,
    ) {
        let admitted: Vec<_> = history.in_force(port, at - CACHED, at).map(|rule| rule.admits(tag)).collect();
        for vid in admitted.iter().flatten() {
            self.heard.entry((mac, *vid)).or_default().insert(port, at);
            if admitted.iter().all(|other| *other == Some(*vid)) {
                self.learned.insert((mac, *vid), at);
            }
        }
    }

    /// Whether Open vSwitch may have the station there in this VLAN at this moment, from a frame that it learned
    /// from at most [`CACHED`] late: nothing has certainly been learned of the station in this VLAN since.
    pub(super) fn may_be_known(&self, mac: Mac, vid: u16, port: &str, at: Instant) -> bool {
        let Some(heard) = self.heard.get(&(mac, vid)).and_then(|ports| ports.get(port)) else { return false };
        self.learned.get(&(mac, vid)).is_none_or(|learned| *heard + CACHED >= at.min(*learned))
    }
}
