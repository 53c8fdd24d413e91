//! Keeping our stations a subset of Open vSwitch's.
//!
//! The program only enters a station together with Open vSwitch, so the two tables agree except where Open vSwitch
//! forgets or moves one by itself: a flush, an eviction, a station that moved to a port without a program, an operator's
//! entry. [`reconcile`] compares the two and takes out whatever differs. It never enters a learned station: Open
//! vSwitch's own table may be a second behind, and a station that is missing here only costs one more frame through it.

use std::collections::{BTreeMap, BTreeSet};

use trunkline_core::{FdbEntry, FdbKey, Vid};

use crate::dataplane::{BridgeNo, PortNo};
use crate::unixctl::{FdbAge, FdbRow, OfPort};

/// The port, which no table has, of an operator's entry on a port without a program. Frames to the station go through
/// Open vSwitch, and frames from it, wherever they arrive, must not be learned: there the entry would not move.
/// A learned station is there while it is set [`aside`]: it moves to the port where its next frame arrives.
pub const NOWHERE: PortNo = PortNo(u16::MAX);

/// A correction of our table: an entry to write, or `None` to forget the station.
pub type Correction = (FdbKey, Option<FdbEntry>);

/// What a comparison comes to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Reconciled {
    /// What to correct.
    pub corrections: Vec<Correction>,
    /// Whether stations differ that may be too new to Open vSwitch: it is to be asked again.
    pub undecided: bool,
}

/// What to correct in `stations` (of all bridges) so that those of `bridge` agree with `rows` of Open vSwitch.
///
/// `ports` are the accelerated ports of the bridge by their OpenFlow number. Open vSwitch takes its time to learn from a
/// frame, and the program goes on learning while it answers: stations shown to it `since_s` are given the benefit of
/// the doubt, which asking again a second later ends.
pub fn reconcile(
    stations: &[(FdbKey, FdbEntry)],
    bridge: BridgeNo,
    ports: &BTreeMap<u16, PortNo>,
    rows: &[FdbRow],
    since_s: u32,
) -> Reconciled {
    let theirs = theirs(bridge, ports, rows);
    let mut agreed = BTreeSet::new();
    let Reconciled { mut corrections, mut undecided } = Reconciled::default();
    for (key, entry) in stations.iter().filter(|(key, _)| key.bridge == bridge.0) {
        if theirs.get(key) == Some(&(entry.port, entry.fixed)) {
            agreed.insert(*key);
        } else if !entry.fixed && entry.shown_s >= since_s && !theirs.contains_key(key) {
            undecided = true;
        } else {
            corrections.push((*key, None));
        }
    }
    for (key, (port, fixed)) in theirs {
        if fixed && !agreed.contains(&key) {
            corrections.push((key, Some(FdbEntry { port, fixed, shown_s: 0 })));
        }
    }
    Reconciled { corrections, undecided }
}

/// Open vSwitch's stations of a bridge, each with its port in our numbers and whether it is an operator's.
fn theirs(bridge: BridgeNo, ports: &BTreeMap<u16, PortNo>, rows: &[FdbRow]) -> BTreeMap<FdbKey, (u16, bool)> {
    rows.iter()
        // NORMAL asks for no group address, nor does the program, and there is no place for one.
        .filter(|row| !row.mac.is_group())
        .filter_map(|row| {
            let vid = Vid::new(row.vid)?;
            let port = match row.port {
                OfPort::Number(ofport) => ports.get(&ofport).copied(),
                OfPort::Local => None,
            };
            let key = FdbKey { bridge: bridge.0, vid, mac: row.mac };
            Some((key, (port.unwrap_or(NOWHERE).0, row.age == FdbAge::Static)))
        })
        .collect()
}

/// A learned station's entry out of use.
pub fn aside(entry: FdbEntry) -> FdbEntry {
    FdbEntry { port: NOWHERE.0, ..entry }
}

/// Of stations that were set [`aside`], those that Open vSwitch has learned on the same port: what to replace by what.
pub fn confirmed(
    stations: &[(FdbKey, FdbEntry)],
    bridge: BridgeNo,
    ports: &BTreeMap<u16, PortNo>,
    rows: &[FdbRow],
) -> Vec<(FdbKey, [FdbEntry; 2])> {
    let theirs = theirs(bridge, ports, rows);
    let same = stations.iter().filter(|(key, entry)| theirs.get(key) == Some(&(entry.port, false)));
    same.map(|(key, entry)| (*key, [aside(*entry), *entry])).collect()
}

/// Stations that have expired, and how many the rest leave on each port.
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

    /// The corrections, when all stations are old enough to be known to both.
    fn corrections(
        stations: &[(FdbKey, FdbEntry)],
        bridge: BridgeNo,
        ports: &BTreeMap<u16, PortNo>,
        rows: &[FdbRow],
    ) -> Vec<Correction> {
        let Reconciled { corrections, undecided } = reconcile(stations, bridge, ports, rows, 101);
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
    fn other_bridges_stations_are_not_looked_at() {
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
        let Reconciled { corrections, undecided } =
            reconcile(&stations, BridgeNo(3), &ports, &elsewhere, 100);
        assert_eq!(corrections, [(key(2, 10), None), (key(3, 10), None)]);
        assert!(undecided);
    }

    #[test]
    fn stations_set_aside_come_back_where_ovs_has_learned_them() {
        let ports = [(1, PortNo(7)), (2, PortNo(8))].into();
        let stations = [1, 2, 3, 4, 5].map(|last| (key(last, 10), learned(7)));
        let rows = [
            row(1, 10, OfPort::Number(1), FRESH),
            row(2, 10, OfPort::Number(2), FRESH),
            row(3, 20, OfPort::Number(1), FRESH),
            row(4, 10, OfPort::Local, FRESH),
            row(5, 10, OfPort::Number(1), FdbAge::Static),
        ];
        let back = confirmed(&stations, BridgeNo(3), &ports, &rows);
        assert_eq!(back, [(key(1, 10), [FdbEntry { port: NOWHERE.0, ..learned(7) }, learned(7)])]);
    }

    #[test]
    fn expired_stations_go_and_the_rest_are_counted() {
        let stations = [(key(1, 10), learned(7)), (key(2, 10), FdbEntry { shown_s: 250, ..learned(7) })];
        let (expired, counts) = age(&stations, |_| Some(300), 400);
        assert_eq!(expired, [key(1, 10)]);
        assert_eq!(counts, [(PortNo(7), 1)].into());
    }
}
