//! Keeps our stations a subset of Open vSwitch's that has all that Open vSwitch has on accelerated ports.
//!
//! A program enters a station together with Open vSwitch. So the two tables agree, with two exceptions: Open
//! vSwitch forgets or moves a station by itself (a flush, an eviction, a station that moved to a port without
//! a program, an operator's entry), or it has learned one that no program saw, before the agent started or
//! while the bridge was suspended. [`reconcile`] compares the two, removes whatever differs, and returns what
//! is missing.
//!
//! A missing station is never entered on the port where Open vSwitch has it: it may have moved since Open
//! vSwitch answered. It is entered out of use ([`aside`]), and then Open vSwitch is asked again. A program
//! that sees the station in the meantime moves it to its port; a station that no program has seen is
//! [`confirmed`] where Open vSwitch has it.

use std::collections::{BTreeMap, BTreeSet};

use trunkline_core::{FdbEntry, FdbKey, Vid};

use crate::dataplane::{BridgeNo, PortNo};
use crate::unixctl::{FdbAge, FdbRow, OfPort};

/// A port number that no table has, for an operator's entry on a port without a program. Frames to such a
/// station go through Open vSwitch. Frames from it must not be learned, on whichever port they arrive, as
/// Open vSwitch would not move the entry either. A learned station is on this port while it is set [`aside`]:
/// it moves to the port where its next frame arrives.
pub const NOWHERE: PortNo = PortNo(FdbEntry::ASIDE);

/// A correction of our table: an entry to write, or `None` to forget the station.
pub type Correction = (FdbKey, Option<FdbEntry>);

/// The result of a comparison.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Reconciled {
    /// What to correct.
    pub corrections: Vec<Correction>,
    /// Stations that Open vSwitch has learned on an accelerated port and that our table lacks: their entries,
    /// out of use, to be entered and then confirmed.
    pub missing: Vec<(FdbKey, FdbEntry)>,
    /// Whether stations are out of use that Open vSwitch has on an accelerated port.
    pub unconfirmed: bool,
    /// Whether stations differ that may be too new for Open vSwitch to have, so that it has to be asked
    /// again.
    pub undecided: bool,
}

/// One bridge, as Open vSwitch has it: what [`reconcile`] compares our stations with.
#[derive(Clone, Copy, Debug)]
pub struct Side<'a> {
    /// The bridge.
    pub bridge: BridgeNo,
    /// Its accelerated ports by their OpenFlow number.
    pub ports: &'a BTreeMap<u16, PortNo>,
    /// Open vSwitch's table.
    pub rows: &'a [FdbRow],
}

/// Compares `stations` (of all bridges) with those that Open vSwitch had of one bridge when it was asked, in
/// the second `asked_s`.
///
/// Open vSwitch takes some time to learn from a frame, and programs go on learning while it answers. So
/// stations that were shown to it in `since_s` or later are left undecided; asking again a second later
/// decides on them.
pub fn reconcile(stations: &[(FdbKey, FdbEntry)], side: Side<'_>, since_s: u32, asked_s: u32) -> Reconciled {
    let theirs = side.stations();
    let mut known = BTreeSet::new();
    let mut agreed = BTreeSet::new();
    let mut found = Reconciled::default();
    for (key, entry) in stations.iter().filter(|(key, _)| key.bridge == side.bridge.0) {
        known.insert(*key);
        match theirs.get(key) {
            Some(their) if their.is_at(*entry) => drop(agreed.insert(*key)),
            Some(their) if is_aside(*entry) && their.is_learned() => {
                found.unconfirmed = true;
                agreed.insert(*key);
            }
            None if !entry.fixed && entry.shown_s >= since_s => found.undecided = true,
            // A program would have seen the station on that port, so Open vSwitch is late: from a cached flow
            // it learns only when its revalidators push the flow's counters, within half a second
            // (`XC_NORMAL`, OVS `ofproto/ofproto-dpif-xlate-cache.c`).
            Some(their) if their.is_learned() && !entry.fixed && entry.shown_s >= since_s => {
                found.undecided = true;
                agreed.insert(*key);
            }
            _ => found.corrections.push((*key, None)),
        }
    }
    for (key, their) in theirs.into_iter().filter(|(key, _)| !agreed.contains(key)) {
        let entry = FdbEntry { port: their.port, fixed: their.fixed, shown_s: 0 };
        if their.fixed {
            found.corrections.push((key, Some(entry)));
        } else if their.is_learned() && !known.contains(&key) {
            // A station that our table has elsewhere may just have moved, and Open vSwitch may be late. It is
            // removed now and missing the next time. Ages are whole seconds, rounded down.
            let shown_s = asked_s.saturating_sub(their.age_s).saturating_sub(1);
            found.missing.push((key, aside(FdbEntry { shown_s, ..entry })));
        }
    }
    found
}

/// A station in Open vSwitch's table.
#[derive(Clone, Copy, Debug)]
struct Their {
    /// Our number of the port.
    port: u16,
    /// Whether it is an operator's entry.
    fixed: bool,
    age_s: u32,
}

impl Their {
    fn is_at(self, entry: FdbEntry) -> bool {
        (self.port, self.fixed) == (entry.port, entry.fixed)
    }

    /// Returns whether it was learned on an accelerated port.
    fn is_learned(self) -> bool {
        !self.fixed && PortNo(self.port) != NOWHERE
    }
}

impl Side<'_> {
    fn stations(&self) -> BTreeMap<FdbKey, Their> {
        // NORMAL looks no group address up, nor do the programs, and our table cannot hold one.
        let rows = self.rows.iter().filter(|row| !row.mac.is_group());
        let station = |row: &FdbRow| {
            let port = match row.port {
                OfPort::Number(ofport) => self.ports.get(&ofport).copied(),
                OfPort::Local => None,
            };
            let (fixed, age_s) = match row.age {
                FdbAge::Static => (true, 0),
                // An operator's entry from before a change of `mac-aging-time` has a negative age.
                FdbAge::Seconds(age_s) => (false, u32::try_from(age_s).unwrap_or(0)),
            };
            let key = FdbKey { bridge: self.bridge.0, vid: Vid::new(row.vid)?, mac: row.mac };
            Some((key, Their { port: port.unwrap_or(NOWHERE).0, fixed, age_s }))
        };
        rows.filter_map(station).collect()
    }
}

/// Returns the entry with which a learned station is out of use.
pub fn aside(entry: FdbEntry) -> FdbEntry {
    FdbEntry { port: NOWHERE.0, ..entry }
}

/// Returns whether an entry is that of a learned station out of use.
pub fn is_aside(entry: FdbEntry) -> bool {
    !entry.fixed && PortNo(entry.port) == NOWHERE
}

/// Returns the corrections that put the learned stations of a bridge out of use.
pub fn set_aside(stations: &[(FdbKey, FdbEntry)], bridge: BridgeNo) -> Vec<Correction> {
    let in_use =
        stations.iter().filter(|(key, entry)| key.bridge == bridge.0 && !entry.fixed && !is_aside(*entry));
    in_use.map(|(key, entry)| (*key, Some(aside(*entry)))).collect()
}

/// Returns the stations out of use that Open vSwitch has learned on an accelerated port, each with the entry
/// to replace and the one to replace it by. Open vSwitch must have been asked since the stations were put out
/// of use.
pub fn confirmed(stations: &[(FdbKey, FdbEntry)], side: Side<'_>) -> Vec<(FdbKey, [FdbEntry; 2])> {
    let theirs = side.stations();
    let replacement = |(key, entry): &(FdbKey, FdbEntry)| {
        let their = theirs.get(key).filter(|their| is_aside(*entry) && their.is_learned())?;
        Some((*key, [*entry, FdbEntry { port: their.port, ..*entry }]))
    };
    stations.iter().filter_map(replacement).collect()
}

/// Returns the stations that have expired, and how many others there are on each port.
pub fn age(
    stations: &[(FdbKey, FdbEntry)],
    ageing_s: impl Fn(BridgeNo) -> Option<u32>,
    now_s: u32,
) -> (Vec<FdbKey>, BTreeMap<PortNo, u32>) {
    let mut expired = Vec::new();
    let mut counts = BTreeMap::new();
    for (key, entry) in stations {
        let limit_s = ageing_s(BridgeNo(key.bridge));
        if !entry.fixed && limit_s.is_some_and(|limit_s| now_s.saturating_sub(entry.shown_s) >= limit_s) {
            expired.push(*key);
        } else {
            *counts.entry(PortNo(entry.port)).or_insert(0) += 1;
        }
    }
    (expired, counts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use trunkline_core::Mac;

    fn key(last: u8, vid: u16) -> FdbKey {
        FdbKey { bridge: 3, vid: Vid::new(vid).unwrap(), mac: Mac::new([2, 0, 0, 0, 0, last]) }
    }

    fn learned(port: u16) -> FdbEntry {
        FdbEntry { port, fixed: false, shown_s: 100 }
    }

    fn row(last: u8, vid: u16, port: OfPort, age: FdbAge) -> FdbRow {
        FdbRow { port, vid, mac: key(last, vid).mac, age }
    }

    /// Returns the corrections where all stations are old enough for Open vSwitch to have them.
    fn corrections(
        stations: &[(FdbKey, FdbEntry)],
        bridge: BridgeNo,
        ports: &BTreeMap<u16, PortNo>,
        rows: &[FdbRow],
    ) -> Vec<Correction> {
        let side = Side { bridge, ports, rows };
        let Reconciled { corrections, undecided, .. } = reconcile(stations, side, 101, 110);
        assert!(!undecided);
        corrections
    }

    const FRESH: FdbAge = FdbAge::Seconds(1);

    #[test]
    fn stations_on_which_both_agree_are_left_alone() {
        let ports = [(1, PortNo(7))].into();
        let rows = [row(1, 10, OfPort::Number(1), FRESH)];
        assert_eq!(corrections(&[(key(1, 10), learned(7))], BridgeNo(3), &ports, &rows), []);
    }

    #[test]
    fn stations_that_ovs_lacks_or_has_elsewhere_are_forgotten() {
        let ports = [(1, PortNo(7)), (2, PortNo(8))].into();
        let stations = [1, 2, 3, 4].map(|last| (key(last, 10), learned(7)));
        let rows = [
            row(1, 20, OfPort::Number(1), FRESH),
            row(2, 10, OfPort::Number(2), FRESH),
            row(3, 10, OfPort::Local, FRESH),
            row(4, 10, OfPort::Number(99), FRESH),
        ];
        let forgotten = [1, 2, 3, 4].map(|last| (key(last, 10), None));
        assert_eq!(corrections(&stations, BridgeNo(3), &ports, &rows), forgotten);
    }

    #[test]
    fn stations_of_other_bridges_are_ignored() {
        assert_eq!(corrections(&[(key(1, 10), learned(7))], BridgeNo(4), &BTreeMap::new(), &[]), []);
    }

    #[test]
    fn learned_stations_of_ovs_are_not_taken_over_but_operators_entries_are() {
        let ports = [(1, PortNo(7))].into();
        let rows = [row(1, 10, OfPort::Number(1), FRESH), row(2, 10, OfPort::Number(1), FdbAge::Static)];
        let fixed = FdbEntry { port: 7, fixed: true, shown_s: 0 };
        assert_eq!(corrections(&[], BridgeNo(3), &ports, &rows), [(key(2, 10), Some(fixed))]);
        assert_eq!(corrections(&[(key(2, 10), fixed)], BridgeNo(3), &ports, &rows), []);
        assert_eq!(corrections(&[(key(2, 10), fixed)], BridgeNo(3), &ports, &[]), [(key(2, 10), None)]);
    }

    #[test]
    fn an_operators_entry_on_a_port_without_a_program_keeps_the_station_from_being_learned() {
        let rows = [row(3, 10, OfPort::Local, FdbAge::Static)];
        let nowhere = FdbEntry { port: NOWHERE.0, fixed: true, shown_s: 0 };
        let ports = BTreeMap::new();
        assert_eq!(corrections(&[], BridgeNo(3), &ports, &rows), [(key(3, 10), Some(nowhere))]);
        assert_eq!(corrections(&[(key(3, 10), nowhere)], BridgeNo(3), &ports, &rows), []);
        let learned_since =
            corrections(&[(key(3, 10), learned(7))], BridgeNo(3), &[(1, PortNo(7))].into(), &rows);
        assert_eq!(learned_since.last(), Some(&(key(3, 10), Some(nowhere))));
    }

    #[test]
    fn a_learned_station_that_becomes_an_operators_is_overwritten() {
        let ports = [(1, PortNo(7))].into();
        let rows = [row(2, 10, OfPort::Number(1), FdbAge::Static)];
        let corrections = corrections(&[(key(2, 10), learned(7))], BridgeNo(3), &ports, &rows);
        assert_eq!(corrections.last().unwrap().1, Some(FdbEntry { port: 7, fixed: true, shown_s: 0 }));
    }

    #[test]
    fn a_station_that_is_new_to_open_vswitch_is_decided_on_later() {
        let ports = [(1, PortNo(7))].into();
        let older = FdbEntry { shown_s: 99, ..learned(7) };
        let stations = [(key(1, 10), learned(7)), (key(2, 10), older), (key(3, 10), learned(7))];
        let elsewhere = [row(3, 10, OfPort::Local, FRESH)];
        let side = Side { bridge: BridgeNo(3), ports: &ports, rows: &elsewhere };
        let Reconciled { corrections, undecided, .. } = reconcile(&stations, side, 100, 110);
        assert_eq!(corrections, [(key(2, 10), None), (key(3, 10), None)]);
        assert!(undecided);
    }

    #[test]
    fn a_station_that_a_program_has_just_seen_elsewhere_keeps_its_place() {
        let ports = [(1, PortNo(7)), (2, PortNo(8))].into();
        let rows = [row(1, 10, OfPort::Number(2), FRESH)];
        let side = Side { bridge: BridgeNo(3), ports: &ports, rows: &rows };
        let found = reconcile(&[(key(1, 10), learned(7))], side, 100, 101);
        assert_eq!(found, Reconciled { undecided: true, ..Reconciled::default() });
        let found = reconcile(&[(key(1, 10), learned(7))], side, 101, 102);
        assert_eq!(found, Reconciled { corrections: vec![(key(1, 10), None)], ..Reconciled::default() });
    }

    #[test]
    fn stations_out_of_use_come_back_where_ovs_has_learned_them() {
        let ports = [(1, PortNo(7)), (2, PortNo(8))].into();
        let stations = [1, 2, 3, 4, 5].map(|last| (key(last, 10), aside(learned(7))));
        let in_use = (key(6, 10), learned(7));
        let rows = [
            row(1, 10, OfPort::Number(1), FRESH),
            row(2, 10, OfPort::Number(2), FRESH),
            row(3, 20, OfPort::Number(1), FRESH),
            row(4, 10, OfPort::Local, FRESH),
            row(5, 10, OfPort::Number(1), FdbAge::Static),
            row(6, 10, OfPort::Number(2), FRESH),
        ];
        let side = Side { bridge: BridgeNo(3), ports: &ports, rows: &rows };
        let back = confirmed(&[&stations[..], &[in_use]].concat(), side);
        assert_eq!(
            back,
            [(key(1, 10), [aside(learned(7)), learned(7)]), (key(2, 10), [aside(learned(7)), learned(8)])]
        );
        assert_eq!(set_aside(&[stations[0], in_use], BridgeNo(3)), [(key(6, 10), Some(aside(learned(7))))]);
    }

    #[test]
    fn learned_stations_that_are_missing_are_named_with_their_age_and_out_of_use() {
        let ports = [(1, PortNo(7))].into();
        let rows = [
            row(1, 10, OfPort::Number(1), FdbAge::Seconds(40)),
            row(2, 10, OfPort::Local, FRESH),
            row(3, 10, OfPort::Number(1), FRESH),
        ];
        let side = Side { bridge: BridgeNo(3), ports: &ports, rows: &rows };
        let found = reconcile(&[], side, 0, 110);
        let entry = |shown_s| FdbEntry { port: NOWHERE.0, fixed: false, shown_s };
        assert_eq!(found.missing, [(key(1, 10), entry(69)), (key(3, 10), entry(108))]);
        assert!(!found.unconfirmed && found.corrections.is_empty());
        let found = reconcile(&found.missing, side, 0, 110);
        assert!(found.unconfirmed && found.missing.is_empty() && found.corrections.is_empty());
    }

    #[test]
    fn expired_stations_go_and_the_rest_are_counted() {
        let stations = [(key(1, 10), learned(7)), (key(2, 10), FdbEntry { shown_s: 250, ..learned(7) })];
        let (expired, counts) = age(&stations, |_| Some(300), 400);
        assert_eq!(expired, [key(1, 10)]);
        assert_eq!(counts, [(PortNo(7), 1)].into());
    }
}
