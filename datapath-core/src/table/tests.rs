//! The table alone, against an ordinary map, and with many threads on it.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use super::*;
use crate::{Mac, Vid};
use proptest::prelude::*;

const SECRETS: [u64; 2] = [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210];

/// Memory on the host. With `jitter`, threads yield at random, so that they interrupt each other at any step.
struct Host {
    buckets: Vec<Bucket>,
    header: TableHeader,
    jitter: bool,
}

impl Host {
    fn linger(&self) {
        thread_local!(static STEP: Cell<u64> = const { Cell::new(1) });
        if self.jitter {
            let step = STEP.get().wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            STEP.set(step);
            if step >> 60 == 0 {
                thread::yield_now();
            }
        }
    }
}

impl Memory for Host {
    fn bucket(&self, number: u32) -> Option<&Bucket> {
        self.buckets.get(number as usize)
    }
    fn header(&self) -> Option<&TableHeader> {
        Some(&self.header)
    }
    fn load(&self, word: &AtomicU64) -> u64 {
        self.linger();
        word.load(Ordering::Relaxed)
    }
    fn store(&self, word: &AtomicU64, value: u64) {
        self.linger();
        word.store(value, Ordering::Relaxed);
    }
    fn swap(&self, word: &AtomicU64, value: u64) -> u64 {
        self.linger();
        word.swap(value, Ordering::SeqCst)
    }
}

impl Exchange for Host {
    fn exchange(&self, word: &AtomicU64, expected: u64, value: u64) -> bool {
        self.linger();
        word.compare_exchange(expected, value, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}

fn table(limit: u32) -> Table<Host> {
    shaped(Shape::new(limit, SECRETS))
}

fn shaped(shape: Shape) -> Table<Host> {
    let buckets = (0..shape.buckets()).map(|_| Bucket::default()).collect();
    Table::new(Host { buckets, header: TableHeader::default(), jitter: false }, shape)
}

fn key(bridge: u16, vid: u16, mac: u64) -> FdbKey {
    FdbKey { bridge, vid: Vid::new(vid).unwrap(), mac: Mac::from_u64(mac) }
}

fn on(port: u16) -> FdbEntry {
    FdbEntry { port, fixed: false, shown_s: 1000 }
}

fn all(table: &Table<Host>) -> BTreeMap<FdbKey, FdbEntry> {
    let stations: Vec<_> = table.stations().map(|(_, key, entry)| (key, entry)).collect();
    let map: BTreeMap<_, _> = stations.iter().copied().collect();
    assert_eq!(map.len(), stations.len(), "a station in two places");
    assert_eq!(map.len() as u64, table.len());
    map
}

#[test]
fn entry_is_replaced_only_if_it_is_the_expected_one() {
    let table = table(16);
    let known = key(0x5d, 10, 0x0200_0000_0001);
    assert!(!table.replace(&known, on(1), on(2)), "there is none");
    assert_eq!(table.insert(&known, on(1)), Ok(Inserted::New));
    assert!(table.replace(&known, on(1), on(2)) && table.get(&known) == Some(on(2)));
    assert!(!table.replace(&known, on(1), on(3)) && table.get(&known) == Some(on(2)));
    assert!(!table.replace(&key(0x0d, 10, 0x0200_0000_0001), on(2), on(3)), "another bridge");
    assert!(!table.replace(&known, FdbEntry { shown_s: 1001, ..on(2) }, on(3)));
    assert_eq!(all(&table), [(known, on(2))].into());
}

/// A program moves a station once, at any moment while the agent tries to put it back.
#[test]
fn replacing_never_undoes_what_a_program_wrote() {
    for _ in 0..2_000 {
        let mut table = table(16);
        table.memory.jitter = true;
        let known = key(3, 10, 0x0200_0000_0001);
        assert_eq!(table.insert(&known, on(u16::MAX)), Ok(Inserted::New));
        thread::scope(|scope| {
            scope.spawn(|| assert!(table.update(&known, on(8))));
            scope.spawn(|| table.replace(&known, on(u16::MAX), on(7)));
        });
        assert_eq!(table.get(&known), Some(on(8)));
    }
}

#[test]
fn stations_that_differ_in_anything_are_different() {
    let table = table(4096);
    let macs = [0, 1, 0x0200_0000_0001, 0xfeff_ffff_ffff];
    let bridges = [0, 1, 15, 16, 17, 0x71, 127];
    let mut expected = BTreeMap::new();
    for (bridge, vid, mac) in bridges
        .into_iter()
        .flat_map(|b| [0, 1, 0xfff].map(|v| (b, v)))
        .flat_map(|(b, v)| macs.map(|m| (b, v, m)))
    {
        let (key, entry) =
            (key(bridge, vid, mac), FdbEntry { port: u16::MAX - bridge, fixed: vid == 1, shown_s: u32::MAX });
        assert_eq!(table.get(&key), None, "{key:?}");
        assert!(!table.update(&key, entry));
        assert_eq!(table.insert(&key, on(1)), Ok(Inserted::New));
        assert_eq!(table.insert(&key, entry), Ok(Inserted::Known));
        assert_eq!(table.get(&key), Some(on(1)), "unchanged");
        assert!(table.update(&key, entry));
        expected.insert(key, entry);
    }
    assert_eq!(all(&table), expected);
    for (a, b) in expected.keys().zip(expected.keys().rev()) {
        assert_eq!(table.get_pair([a, b]), [a, b].map(|key| expected.get(key).copied()));
    }
}

#[test]
fn a_place_serves_the_next_station_only_after_it_was_freed() {
    let table = table(64);
    // More stations than fit into the two buckets to which all of them belong.
    let home = |n: u64| table.shape.buckets_of(table.seek(&key(0, 10, n)).key);
    let [first, second] = home(0);
    let places = if first == second { BUCKET_PLACES } else { 2 * BUCKET_PLACES } as usize;
    let neighbours = (0..).filter(|n| home(*n) == [first, second]).map(|n| key(0, 10, n));
    let crowd: Vec<FdbKey> = neighbours.take(places + 1).collect();
    for key in &crowd[..places] {
        assert_eq!(table.insert(key, on(1)), Ok(Inserted::New));
    }
    let new = &crowd[places];
    assert_eq!(table.insert(new, on(2)), Err(Full));
    let place = table.place_of(&crowd[3]).unwrap();
    table.remove(place);
    assert_eq!(table.get(&crowd[3]), None);
    assert_eq!(table.insert(new, on(2)), Err(Full), "tombstones");
    // What a program writes that found the station before it was removed.
    table.memory.store(&table.place(place).unwrap().entry, on(9).to_word() | PRESENT);
    table.clear(place);
    assert_eq!(table.insert(new, on(2)), Err(Full), "a cleared tombstone");
    table.free(place);
    assert_eq!(table.insert(new, on(2)), Ok(Inserted::New));
    assert_eq!((table.get(new), table.place_of(new)), (Some(on(2)), Some(place)));
    assert_eq!(all(&table).len(), places);
}

#[test]
fn a_key_without_an_entry_is_no_station_yet() {
    let table = table(64);
    table.insert(&key(0, 10, 7), on(1)).unwrap();
    let place = table.place(table.place_of(&key(0, 10, 7)).unwrap()).unwrap();
    // What a processor may see that reads words in another order than they were written.
    place.entry.store(0, Ordering::Relaxed);
    assert_eq!(table.get(&key(0, 10, 7)), None);
    assert_eq!(table.stations().count(), 0);
}

#[test]
fn insertion_without_the_lock_does_not_wait() {
    let table = table(64);
    table.memory.header.lock.store(1, Ordering::Relaxed);
    assert_eq!(table.insert(&key(0, 10, 7), on(1)), Ok(Inserted::Later));
    assert_eq!(table.get(&key(0, 10, 7)), None);
    table.memory.header.lock.store(0, Ordering::Relaxed);
    assert_eq!(table.insert(&key(0, 10, 7), on(1)), Ok(Inserted::New));
    assert_eq!(table.memory.header.lock.load(Ordering::Relaxed), 0);
}

/// With addresses in sequence, as virtual machines have them, and in no order; with several secrets.
#[test]
fn a_table_takes_as_many_stations_as_it_is_made_for_and_no_more() {
    for limit in [16, 100, 1000, 65_536, 1 << 18] {
        for step in [1, 0x9e37_79b9_7f4b] {
            for secrets in [SECRETS, [0, 0x8000_0000_0000_0001], [u64::MAX; 2]] {
                let table = Table { shape: Shape::new(limit, secrets), ..table(limit) };
                let station = |n: u32| key(0, 10, u64::from(n).wrapping_mul(step) & !(1 << 40));
                let mut second = 0;
                let stations: BTreeSet<FdbKey> = (0..limit).map(station).collect();
                for key in &stations {
                    assert_eq!(table.insert(key, on(1)), Ok(Inserted::New), "{limit} stations, {key:?}");
                    let place = table.place_of(key).unwrap();
                    let home = table.shape.buckets_of(table.seek(key).key)[0];
                    second += u32::from(place.0 / BUCKET_PLACES != home);
                }
                assert!(second <= limit / 32 + 2, "{second} of {limit} are in their second bucket");
                let beyond = (limit..).map(station).filter(|key| !stations.contains(key));
                let missing = limit as usize - stations.len();
                for (n, key) in beyond.take(missing + 2).enumerate() {
                    let expected = if n < missing { Ok(Inserted::New) } else { Err(Full) };
                    assert_eq!(table.insert(&key, on(1)), expected);
                }
                assert_eq!(table.len(), u64::from(limit));
            }
        }
    }
}

/// What happens to a table.
#[derive(Clone, Debug)]
enum Event {
    Insert(FdbKey, FdbEntry),
    Update(FdbKey, FdbEntry),
    Remove(FdbKey),
    Grace,
}

fn any_event() -> impl Strategy<Value = Event> {
    let key = || {
        (prop_oneof![Just(0), Just(16), Just(127)], 0..3_u16, 0..40_u64).prop_map(|(b, v, m)| key(b, v, m))
    };
    let entry = || {
        (any::<u16>(), any::<bool>(), any::<u32>()).prop_map(|(port, fixed, shown_s)| FdbEntry {
            port,
            fixed,
            shown_s,
        })
    };
    prop_oneof![
        4 => (key(), entry()).prop_map(|(key, entry)| Event::Insert(key, entry)),
        4 => (key(), entry()).prop_map(|(key, entry)| Event::Update(key, entry)),
        3 => key().prop_map(Event::Remove),
        1 => Just(Event::Grace),
    ]
}

proptest! {
    /// The table has the same stations as an ordinary map with the same limit.
    #[test]
    fn it_is_a_map(events in proptest::collection::vec(any_event(), 1..400)) {
        const LIMIT: u32 = 48;
        let (table, mut map) = (table(LIMIT), BTreeMap::new());
        let (mut tombstones, mut cleared) = (vec![], vec![]);
        for event in events {
            match event {
                Event::Insert(key, entry) => {
                    let expected = match map.len() as u32 {
                        _ if map.contains_key(&key) => Ok(Inserted::Known),
                        LIMIT => Err(Full),
                        _ => Ok(Inserted::New),
                    };
                    let result = table.insert(&key, entry);
                    prop_assert_eq!(result, expected);
                    if result == Ok(Inserted::New) {
                        map.insert(key, entry);
                    }
                }
                Event::Update(key, entry) => {
                    prop_assert_eq!(table.update(&key, entry), map.contains_key(&key));
                    map.entry(key).and_modify(|known| *known = entry);
                }
                Event::Remove(key) => {
                    let place = table.place_of(&key);
                    prop_assert_eq!(place.is_some(), map.remove(&key).is_some());
                    place.into_iter().for_each(|place| table.remove(place));
                    tombstones.extend(place);
                }
                Event::Grace => {
                    cleared.drain(..).for_each(|place| table.free(place));
                    tombstones.iter().for_each(|place| table.clear(*place));
                    cleared.append(&mut tombstones);
                }
            }
            prop_assert_eq!(&all(&table), &map);
        }
    }
}

/// The programs that a grace period waits for, each on its own thread.
#[derive(Default)]
struct Programs([AtomicU64; RUNNING]);

const RUNNING: usize = 4;

impl Programs {
    fn run<T>(&self, cpu: usize, program: impl FnOnce() -> T) -> T {
        /// Counts the end of the program, even if it panics.
        struct Run<'p>(&'p AtomicU64);
        impl Drop for Run<'_> {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        self.0[cpu].fetch_add(1, Ordering::SeqCst);
        let _run = Run(&self.0[cpu]);
        program()
    }

    /// Waits until every program that runs now has ended.
    fn grace(&self) {
        let then = self.0.each_ref().map(|runs| runs.load(Ordering::SeqCst));
        for (runs, then) in self.0.iter().zip(then) {
            while then % 2 == 1 && runs.load(Ordering::SeqCst) == then {
                thread::yield_now();
            }
        }
    }
}

/// Sets a flag when it is dropped, even after a panic.
struct AtEnd<'f>(&'f AtomicBool);

impl Drop for AtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Programs learn and refresh while the agent removes. The port of an entry tells which station it belongs
/// to.
#[test]
fn no_entry_is_mixed_up_with_another_and_no_station_is_there_twice() {
    // Smaller than any real table, so that the stations compete for few places.
    const LIMIT: u32 = 13;
    const STATIONS: u64 = 20;
    const ROUNDS: u32 = 30_000;
    let mut table = shaped(Shape { mask: 3, limit: LIMIT, ..Shape::new(0, SECRETS) });
    table.memory.jitter = true;
    let (table, programs, over) = (&table, &Programs::default(), &AtomicBool::new(false));
    let station = |n: u64| key(16 * (n % 2) as u16, 10, n / 2);
    let whose = |key: &FdbKey| (2 * key.mac.as_u64() + u64::from(key.bridge / 16)) as u16;
    thread::scope(|scope| {
        for cpu in 0..RUNNING {
            scope.spawn(move || {
                let mut random = 0x9e37_79b9_u64 + cpu as u64;
                let mut learned = 0;
                while !over.load(Ordering::Relaxed) {
                    random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
                    let pair = [station((random >> 33) % STATIONS), station((random >> 43) % STATIONS)];
                    let seen =
                        FdbEntry { port: whose(&pair[0]), fixed: false, shown_s: (random >> 32) as u32 };
                    programs.run(cpu, || {
                        let found = table.get_pair(pair.each_ref());
                        for (key, entry) in pair.iter().zip(found) {
                            assert!(entry.is_none_or(|entry| entry.port == whose(key)), "{key:?}: {entry:?}");
                        }
                        match found[0] {
                            Some(_) => drop(table.update(&pair[0], seen)),
                            None => learned += u32::from(table.insert(&pair[0], seen) == Ok(Inserted::New)),
                        }
                    });
                }
                assert!(learned > 100, "{learned} learned on CPU {cpu}");
            });
        }
        let _over = AtEnd(over);
        let mut random = 1_u64;
        for _ in 0..ROUNDS {
            let mut there = BTreeMap::new();
            for (place, key, entry) in table.stations() {
                assert_eq!(entry.port, whose(&key), "{key:?}");
                // Only this thread removes, so what was seen is still there.
                assert_eq!(there.insert(key, place), None, "{key:?} is in two places");
            }
            random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            let gone: Vec<PlaceNo> = there.into_values().skip((random >> 62) as usize).step_by(3).collect();
            gone.iter().for_each(|place| table.remove(*place));
            programs.grace();
            gone.iter().for_each(|place| table.clear(*place));
            programs.grace();
            gone.iter().for_each(|place| table.free(*place));
        }
    });
    assert!(all(table).len() <= LIMIT as usize);
}
