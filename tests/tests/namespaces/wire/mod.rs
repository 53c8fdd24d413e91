//! Random bridges, FDBs and frames on the wire, with the agent and without, byte for byte: the cases of the layer
//! `oracle`, as real frames.
//!
//! Two switches get the same settings, operator's entries and frames, one frame at a time. What arrives is compared as
//! ports and octets. The switching core says which frames the fast path forwards: these must come without the stamp
//! that Open vSwitch's frames get ([`Stamp`]), all others with it, so that what is compared is what it is meant to be.
//!
//! `TRUNKLINE_WIRE_CASES` is the number of frames, `TRUNKLINE_SEED` repeats a run. A difference is shrunk, printed, and
//! written to `tests/cases/`, where every later run, and the layer `oracle`, finds it.

mod bench;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::{Duration, Instant};

use proptest::test_runner::{TestCaseError, TestError};
use trunkline::dataplane::{BridgeNo, PortNo};
use trunkline::fdb::{NOWHERE, Reconciled, Side, confirmed, reconcile};
use trunkline::unixctl::{FdbAge, FdbRow, OfPort};
use trunkline_core::{FdbKey, PuntReason, Verdict, Vid};
use trunkline_tests::cases::{Case, FastPath, MAX_PORTS, Step, Tally, any_case, frame_bytes, runner};
use trunkline_tests::{Ovs, Stamp, number, say, seed};

use bench::{Arrived, Bench};

const DEFAULT_FRAMES: u64 = 400;
/// The agent asks Open vSwitch again after a second for stations that it does not have yet.
const DOUBT: Duration = Duration::from_secs(6);
/// A case takes a second or two.
const SHRINKING: Duration = Duration::from_secs(180);

/// Both switches, and the core for an expectation.
struct Judge {
    alone: Bench,
    fast: Bench,
    expectation: FastPath,
    has_agent: bool,
}

/// What became of the frames of a run.
#[derive(Default)]
struct Seen {
    verdicts: Tally,
    delivered: u64,
    by_fast_path: u64,
    /// Sent by Open vSwitch though the core would have forwarded them.
    not_fast: u64,
}

impl Judge {
    fn new() -> Self {
        let (alone, mut fast) = (Bench::new(), Bench::new().accelerated());
        let expectation = FastPath::new(None).beside(Ovs::datapath_type());
        Self { has_agent: fast.has_agent(), alone, fast, expectation }
    }

    /// Goes through a case on both switches. An error says at which step they differ, and how.
    fn judge(&mut self, case: &Case) -> Result<Seen, String> {
        let mut case = case.clone();
        case.ports.resize_with(MAX_PORTS, Default::default);
        case.ports.iter_mut().for_each(|port| port.tap = true);
        self.expectation.configure(&case);
        let Self { alone, fast, expectation, .. } = self;
        for bench in [alone, fast] {
            bench.configure(&case, |n| expectation.accelerates(port_no(n)));
        }
        let mut seen = Seen::default();
        let mut entered = false;
        for (place, step) in case.steps.iter().enumerate() {
            let said = match step {
                Step::Static { port, vid, mac } => {
                    self.alone.add_station(*port, *vid, mac);
                    self.fast.add_station(*port, *vid, mac);
                    entered = true;
                    Ok(())
                }
                Step::Frame { port, octets, length } => {
                    let frame = frame_bytes(octets, *length);
                    let catch_up = if std::mem::take(&mut entered) { self.catch_up() } else { Ok(()) };
                    catch_up.and_then(|()| self.frame(*port, &frame, &mut seen))
                }
            };
            said.map_err(|what| format!("step {place}, {step:?}: {what}"))?;
        }
        let [alone, fast] = [&self.alone, &self.fast].map(|bench| places(&bench.stations()));
        if alone != fast {
            return Err(format!("Open vSwitch's FDB is {alone:?} alone, {fast:?} with the agent"));
        }
        Ok(seen)
    }

    fn frame(&mut self, port: usize, frame: &[u8], seen: &mut Seen) -> Result<(), String> {
        let verdict = self.expectation.switch(port_no(port), frame)?.verdict;
        seen.verdicts.count(verdict);
        let alone = self.alone.exchange(port, frame);
        let fast = self.fast.exchange(port, frame);
        let may_be_fast = matches!(verdict, Verdict::Forward { .. }) && self.has_agent;
        let was_fast = compare(&alone, &fast, may_be_fast).map_err(|what| {
            let [alone, fast] = [&alone, &fast].map(text);
            format!("{what}; expected {verdict:?}\nOpen vSwitch alone: {alone}\nwith the agent: {fast}")
        })?;
        seen.delivered += alone.values().map(Vec::len).sum::<usize>() as u64;
        seen.by_fast_path += u64::from(was_fast);
        if may_be_fast && !was_fast {
            seen.not_fast += 1;
            self.adopt()?;
        }
        let only_one_learned = matches!(
            verdict,
            Verdict::Punt(
                PuntReason::NotAPort
                    | PuntReason::ShortFrame
                    | PuntReason::StackedTags
                    | PuntReason::ExcludedVlan
                    | PuntReason::OverMtu
            )
        );
        if only_one_learned && !self.corrections().is_empty() { self.catch_up() } else { Ok(()) }
    }

    /// What the agent will change: what Open vSwitch has changed by itself, and stations that it learned from frames of which no
    /// program does.
    fn corrections(&self) -> Vec<trunkline::fdb::Correction> {
        let ports = (0..=port_no(MAX_PORTS)).filter(|port| self.expectation.accelerates(*port));
        let ports: BTreeMap<u16, PortNo> = ports.map(|port| (port + 1, PortNo(port))).collect();
        let (ours, theirs) = (self.expectation.stations(), self.fast.stations());
        let side = Side { bridge: BridgeNo(0), ports: &ports, rows: &theirs };
        let Reconciled { mut corrections, missing, .. } = reconcile(&ours, side, u32::MAX, 0);
        corrections.extend(confirmed(&missing, side).into_iter().map(|(key, [_, entry])| (key, Some(entry))));
        corrections
    }

    /// Lets the agent notice it, which would otherwise take the documented second or two.
    fn catch_up(&mut self) -> Result<(), String> {
        // A station that has moved is forgotten first, and missing then.
        for _ in 0..2 {
            for (key, entry) in self.corrections() {
                self.expectation.put(key, entry.map(|entry| (entry.port, entry.fixed)));
            }
        }
        self.fast.catch_up();
        self.adopt()
    }

    /// Takes the agent's stations as they are. Some may be missing: the agent may have read Open vSwitch's table before
    /// a station was learned, and have compared after. That costs a frame through Open vSwitch and no more. There must
    /// be none that the expectation does not have, but for a moment: the newest get the benefit of the doubt.
    fn adopt(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + DOUBT;
        loop {
            let Some(known) = self.fast.agents_stations() else { return Ok(()) };
            let mut known: BTreeSet<_> = known.into_iter().collect();
            let row = |key: &FdbKey, port| {
                (key.vid.get(), key.mac.to_string(), format!("p{}", u32::from(port) + 1))
            };
            let mut missing = self.expectation.stations();
            missing.retain(|(key, entry)| !known.remove(&row(key, entry.port)) && entry.port != NOWHERE.0);
            if known.is_empty() {
                missing.iter().for_each(|(key, _)| self.expectation.put(*key, None));
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!("where does the agent have these from: {known:?}"));
            }
            thread::sleep(Duration::from_millis(100));
        }
    }
}

fn port_no(number: usize) -> u16 {
    u16::try_from(number - 1).expect("few ports")
}

/// The FDB less the ages.
fn places(rows: &[FdbRow]) -> BTreeMap<FdbKey, (OfPort, bool)> {
    let place = |row: &FdbRow| {
        let key = FdbKey { bridge: 0, vid: Vid::new(row.vid)?, mac: row.mac };
        Some((key, (row.port, row.age == FdbAge::Static)))
    };
    rows.iter().filter_map(place).collect()
}

/// The same octets at the same ports? If so, whether it was the fast path that sent them, which it only may if it
/// `may_be_fast`.
fn compare(alone: &Arrived, fast: &Arrived, may_be_fast: bool) -> Result<bool, String> {
    if !alone.keys().eq(fast.keys()) {
        return Err("other ports".to_owned());
    }
    let mut was_fast = false;
    for (port, expected) in alone {
        let copies = &fast[port];
        if copies.len() != expected.len() {
            return Err(format!("{} copies at p{port}", copies.len()));
        }
        for (copy, expected) in copies.iter().zip(expected) {
            let stamped = Stamp::on(expected);
            if stamped.as_ref() == Some(copy) {
                continue;
            }
            if copy != expected {
                return Err(format!("other octets at p{port}"));
            }
            was_fast |= if stamped.is_some() { true } else { may_be_fast };
        }
    }
    if was_fast && !may_be_fast {
        return Err("the fast path sent it".to_owned());
    }
    Ok(was_fast)
}

/// Ports, lengths and beginnings.
fn text(arrived: &Arrived) -> String {
    let copies = arrived.iter().flat_map(|(port, copies)| copies.iter().map(move |copy| (port, copy)));
    let text = |(port, copy): (&usize, &Vec<u8>)| {
        format!("p{port}: {} octets, {:02x?}", copy.len(), &copy[..copy.len().min(34)])
    };
    copies.map(text).collect::<Vec<_>>().join("; ")
}

#[test]
fn random_cases_are_switched_alike() {
    let mut judge = Judge::new();
    for (name, case) in Case::recorded() {
        judge
            .judge(&case)
            .map(drop)
            .unwrap_or_else(|difference| panic!("recorded case {name}: {difference}"));
    }
    let seed = seed();
    let wanted = number("TRUNKLINE_WIRE_CASES").unwrap_or(DEFAULT_FRAMES);
    let started = Instant::now();
    let with_agent = judge.has_agent;
    let (bridges, seen) = run_random(seed, wanted, judge);
    let Seen { verdicts, delivered, by_fast_path, not_fast } = &seen;
    let frames = verdicts.frames();
    say(&format!(
        "wire: {frames} frames on {bridges} random bridges in {:.0} s (TRUNKLINE_SEED={seed}), {delivered} delivered, \
         {by_fast_path} of them by the fast path ({not_fast} more could have been), no difference: {verdicts}",
        started.elapsed().as_secs_f64()
    ));
    assert!(!with_agent || *by_fast_path > frames / 50, "the fast path has its part");
    assert!(*not_fast * 50 <= *by_fast_path, "the fast path is used");
}

fn run_random(seed: u64, wanted: u64, judge: Judge) -> (u64, Seen) {
    let judge = RefCell::new(judge);
    let total = RefCell::new((0, Seen::default()));
    // `Case::shrink` alone makes a failing case small, in fewer steps.
    let result = runner(seed, wanted, 0).run(&any_case(), |case| {
        let seen = judge.borrow_mut().judge(&case).map_err(TestCaseError::fail)?;
        let (bridges, total) = &mut *total.borrow_mut();
        *bridges += 1;
        total.verdicts.add(&seen.verdicts);
        total.delivered += seen.delivered;
        total.by_fast_path += seen.by_fast_path;
        total.not_fast += seen.not_fast;
        Ok(())
    });
    match result {
        Ok(()) => total.into_inner(),
        Err(TestError::Fail(first, case)) => {
            say(&format!("wire: a difference, to be made small: {first}"));
            let mut judge = judge.borrow_mut();
            let until = Instant::now() + SHRINKING;
            let case = case.shrink(|case| Instant::now() < until && judge.judge(case).is_err());
            let difference = judge.judge(&case).err().unwrap_or_else(|| format!("not again; first {first}"));
            let file = case.record(&format!("wire-{seed}"));
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            panic!("TRUNKLINE_SEED={seed}, recorded as {}: {difference}\n{text}", file.display());
        }
        Err(error) => panic!("TRUNKLINE_SEED={seed}: {error}"),
    }
}
