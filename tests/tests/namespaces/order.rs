//! The frames of a flow arrive in the order in which they were sent (IEEE 802.1Q, 6.5.3), as they do with
//! Open vSwitch alone.
//!
//! Ten flows of numbered frames, and slower answers. An inversion is a frame that arrives after one of its
//! flow with a higher number. Each scene is played with Open vSwitch alone, at the highest rate at which that
//! loses less than one frame in a hundred here, and then on the same switch with the agent.
//!
//! A change of a port suspends its bridge for some milliseconds. When that ends, the frames that wait in Open vSwitch are
//! overtaken by those behind them; this is counted, and not judged. `TRUNKLINE_ORDER_S` sets for how long.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use trunkline_core::Mac;
use trunkline_tests::{BRIDGE, Frame, Switch, Wire, number, say, station};

use crate::stamped::{Arrival, Pair, Stamped};

const FLOWS: usize = 10;
/// Frames a second, all flows together; tried from the highest down.
const RATES: [u64; 9] = [100_000, 70_000, 50_000, 30_000, 20_000, 10_000, 5_000, 2_000, 1_000];
/// Answers, likewise. They keep the receivers known, and are flows as well.
const ANSWERS: u64 = 1_000;
const CALIBRATION: Duration = Duration::from_secs(2);
const SECONDS: u64 = 10;
/// Between two looks at what is due. What is due for longer than [`LATEST`] is not sent at all: that would be
/// a burst.
const TICK: Duration = Duration::from_micros(100);
const LATEST: Duration = Duration::from_millis(1);
/// Between two changes of another port's tag.
const RETAG: Duration = Duration::from_millis(250);

const MOVERS: usize = 400;
const MOVES: usize = 1_000;
/// A station that has moved is sent to so often, and talks itself so often until it falls silent for a while
/// before it moves again: Open vSwitch takes in the sources of cached flows up to a second late.
const TALK: Duration = Duration::from_millis(100);
const SILENCE: Duration = Duration::from_millis(1_500);
/// So long after a move has been delivered, Open vSwitch does not go by flows of before it any more.
const SETTLED: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Meanwhile {
    Nothing,
    Retags,
    Moves,
}

/// What was seen of one run.
#[derive(Clone, Default, Debug)]
struct Account {
    /// Frames a second that were to be sent, answers apart.
    rate: u64,
    seconds: f64,
    sent: u64,
    arrived: u64,
    inversions: u64,
    /// Those of frames that the fast path sent.
    inversions_fast: u64,
    flows_with_inversions: usize,
    by_ovs: u64,
    /// Frames that went another way than the one before them in their flow.
    ways_changed: u64,
    moves: usize,
    moves_lost: usize,
    turned_back: u64,
    stale_fast: u64,
    forwarded: Option<u64>,
    punted: Vec<(String, u64)>,
}

impl Account {
    fn lost(&self) -> f64 {
        self.sent.saturating_sub(self.arrived) as f64 / self.sent.max(1) as f64 * 100.0
    }

    fn text(&self) -> String {
        let Self { rate, seconds, sent, inversions, flows_with_inversions, by_ovs, ways_changed, .. } = self;
        let Self { moves, moves_lost, turned_back, stale_fast, punted, .. } = self;
        format!(
            "{:.0} frames a second (of {rate} and {ANSWERS} answers) for {seconds:.0} s, {:.3} % lost, \
             {inversions} inversions in {flows_with_inversions} flows, {by_ovs} by Open vSwitch, \
             {ways_changed} changes of the way; {moves} moves, {moves_lost} lost, {turned_back} frames \
             turned back, {stale_fast} by the fast path; punted {punted:?}",
            *sent as f64 / seconds,
            self.lost(),
        )
    }
}

/// Frames of one form whose number can be set; it begins with 0.
struct Flow {
    port: &'static str,
    frame: Vec<u8>,
    next: u64,
}

impl Flow {
    fn new((port, source): (&'static str, Mac), to: Mac) -> Self {
        Self { port, frame: Frame::new(source, to).bytes(), next: 0 }
    }

    fn send(&mut self, wire: &Wire) {
        let number = self.frame.last_chunk_mut::<8>().expect("a frame ends with its number");
        *number = self.next.to_be_bytes();
        wire.send(&self.frame);
        self.next += 1;
    }
}

/// What has been seen of a flow.
#[derive(Default)]
struct Seen {
    highest: Option<u64>,
    arrived: u64,
    inversions: u64,
    inversions_fast: u64,
    by_ovs: u64,
    way: Option<bool>,
    ways_changed: u64,
}

impl Seen {
    fn see(&mut self, id: u64, by_ovs: bool) {
        self.arrived += 1;
        self.by_ovs += u64::from(by_ovs);
        let inverted = self.highest.is_some_and(|highest| id < highest);
        self.inversions += u64::from(inverted);
        self.inversions_fast += u64::from(inverted && !by_ovs);
        self.highest = self.highest.max(Some(id));
        self.ways_changed += u64::from(self.way.replace(by_ovs).is_some_and(|way| way != by_ovs));
    }
}

/// Sends the flows at this rate and their answers until it is over; what was sent.
fn send(switch: &Stamped, flows: &mut [Flow], answers: &mut [Flow], rate: u64, length: Duration) -> u64 {
    let (there, back) = (switch.wire(flows[0].port), switch.wire(answers[0].port));
    let (mut sent, mut answered, mut skipped) = (0, 0, 0);
    let start = Instant::now();
    let most = LATEST.as_micros() as u64 * rate / 1_000_000;
    while start.elapsed() < length {
        let passed = start.elapsed().as_micros() as u64;
        let due = passed * rate / 1_000_000 - sent - skipped;
        skipped += due.saturating_sub(most);
        for _ in 0..due.min(most) {
            flows[sent as usize % FLOWS].send(&there);
            sent += 1;
        }
        while answered < passed * ANSWERS / 1_000_000 {
            answers[answered as usize % FLOWS].send(&back);
            answered += 1;
        }
        thread::sleep(TICK);
    }
    sent + answered
}

/// A station that moves between p2 and p3.
struct Mover {
    mac: Mac,
    port: &'static str,
    /// The frame by which it shows itself, until it is delivered.
    shown_by: Option<u64>,
    /// It was delivered, and from this number on no frame is to arrive at another port.
    since: Option<(Instant, u64)>,
    /// Since the beginning.
    next_move: Duration,
    next_talk: Duration,
}

/// Stations that move while the flows go on.
struct Movers {
    a: Mac,
    movers: Vec<Mover>,
    numbers: HashMap<Mac, usize>,
    /// A station stays for this and up to as much again, twice.
    stay: Duration,
    dice: u64,
    moves: usize,
    moves_lost: usize,
    turned_back: u64,
    stale_fast: u64,
    /// When frames were sent, by number.
    sent_at: HashMap<u64, Instant>,
}

impl Movers {
    fn new(length: Duration) -> Self {
        let a = station();
        let stay = length * MOVERS as u32 / MOVES as u32 / 2;
        let mut movers = Self {
            a,
            movers: Vec::new(),
            numbers: HashMap::new(),
            stay,
            dice: 0x2545_f491_4f6c_dd1d,
            moves: 0,
            moves_lost: 0,
            turned_back: 0,
            stale_fast: 0,
            sent_at: HashMap::new(),
        };
        for number in 0..MOVERS {
            let (mac, next_move) = (station(), movers.below(2 * stay));
            movers.numbers.insert(mac, number);
            let next_talk = Duration::ZERO;
            movers.movers.push(Mover { mac, port: "p2", shown_by: None, since: None, next_move, next_talk });
        }
        movers
    }

    fn below(&mut self, limit: Duration) -> Duration {
        self.dice ^= self.dice >> 12;
        self.dice ^= self.dice << 25;
        self.dice ^= self.dice >> 27;
        Duration::from_micros(
            (self.dice.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit.as_micros() as u64,
        )
    }

    /// Whatever is due at this moment.
    fn go_on(&mut self, switch: &Stamped, passed: Duration) {
        for number in 0..self.movers.len() {
            let mover = &self.movers[number];
            let (mac, port, a) = (mover.mac, mover.port, self.a);
            if mover.next_move <= passed && self.moves < MOVES {
                let port = if port == "p2" { "p3" } else { "p2" };
                let lost = mover.shown_by.is_some();
                let next_move = passed + self.stay + self.below(2 * self.stay);
                let frame = Frame::new(mac, a);
                self.moves += 1;
                self.moves_lost += usize::from(lost);
                let (shown_by, next_talk) = (Some(frame.id()), passed + TALK);
                self.movers[number] = Mover { mac, port, shown_by, since: None, next_move, next_talk };
                switch.send(port, &frame);
            } else if mover.next_talk <= passed && mover.since.is_some() {
                let speaks = mover.next_move > passed + SILENCE;
                self.movers[number].next_talk = passed + TALK;
                let probe = Frame::new(a, mac);
                self.sent_at.insert(probe.id(), Instant::now());
                switch.send("p1", &probe);
                if speaks {
                    switch.send(port, &Frame::new(mac, a));
                }
            }
        }
    }

    fn see(&mut self, arrival: &Arrival) {
        if let Some(number) = self.numbers.get(&arrival.source) {
            let mover = &mut self.movers[*number];
            if mover.shown_by == Some(arrival.id) && arrival.port == "p1" {
                mover.shown_by = None;
                mover.since = Some((Instant::now(), Frame::new(self.a, self.a).id()));
            }
        } else if let Some(number) = self.numbers.get(&arrival.destination) {
            let mover = &self.movers[*number];
            let Some((shown, since)) = mover.since else { return };
            let Some(sent) = self.sent_at.remove(&arrival.id) else { return };
            if arrival.id < since || arrival.port == mover.port {
                return;
            }
            self.stale_fast += u64::from(!arrival.by_ovs);
            self.turned_back += u64::from(sent > shown + SETTLED);
        }
    }
}

/// Plays the flows, and takes in what arrives.
fn play(switch: &Stamped, pairs: &[Pair], meanwhile: Meanwhile, rate: u64, length: Duration) -> Account {
    let mut flows: Vec<Flow> = pairs.iter().map(|(from, (_, to))| Flow::new(*from, *to)).collect();
    let mut answers: Vec<Flow> = pairs.iter().map(|((_, to), from)| Flow::new(*from, *to)).collect();
    let mut seen: HashMap<(&str, Mac), Seen> = HashMap::new();
    for ((a_port, a), (b_port, b)) in pairs {
        seen.insert((b_port, *a), Seen::default());
        seen.insert((a_port, *b), Seen::default());
    }
    let mut movers = Movers::new(length);
    let stats = || switch.stats();
    let before = stats();
    let done = AtomicBool::new(false);
    let start = Instant::now();
    let sent = thread::scope(|scope| {
        let sender = scope.spawn(|| send(switch, &mut flows, &mut answers, rate, length));
        let stop = StopOnDrop(&done);
        if meanwhile == Meanwhile::Retags {
            scope.spawn(|| retag(switch, &done));
        }
        let mut see =
            |movers: &mut Movers, arrival: Arrival| match seen.get_mut(&(arrival.port, arrival.source)) {
                Some(seen) => seen.see(arrival.id, arrival.by_ovs),
                None => movers.see(&arrival),
            };
        while !sender.is_finished() {
            if switch.take(|arrival| see(&mut movers, arrival)) == 0 {
                thread::sleep(TICK);
            }
            if meanwhile == Meanwhile::Moves {
                movers.go_on(switch, start.elapsed());
            }
        }
        switch.take_all(|arrival| see(&mut movers, arrival));
        drop(stop);
        sender.join().expect("the sender sends")
    });
    let mut account = Account { rate, seconds: length.as_secs_f64(), sent, ..Account::default() };
    for seen in seen.values() {
        account.arrived += seen.arrived;
        account.inversions += seen.inversions;
        account.inversions_fast += seen.inversions_fast;
        account.flows_with_inversions += usize::from(seen.inversions > 0);
        account.by_ovs += seen.by_ovs;
        account.ways_changed += seen.ways_changed;
    }
    account.moves_lost =
        movers.moves_lost + movers.movers.iter().filter(|mover| mover.shown_by.is_some()).count();
    Movers { moves: account.moves, turned_back: account.turned_back, stale_fast: account.stale_fast, .. } =
        movers;
    if let Some((before, after)) = before.zip(stats()) {
        let (before, after) = (before.port("p1").rx, after.port("p1").rx);
        account.forwarded = Some(after.forwarded.frames - before.forwarded.frames);
        let more = |(reason, count): (&String, &u64)| {
            let more = count - before.punted.get(reason).copied().unwrap_or(0);
            (more > 0).then(|| (reason.clone(), more))
        };
        account.punted = after.punted.iter().filter_map(more).collect();
    }
    account
}

/// Changes the tag of another port again and again.
fn retag(switch: &Stamped, done: &AtomicBool) {
    for tag in [30, 40].iter().cycle() {
        if done.load(Ordering::Relaxed) {
            return;
        }
        switch.ovs().vsctl(&format!("set Port x1 tag={tag}"));
        thread::sleep(RETAG);
    }
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The run with Open vSwitch alone, at the highest rate that it bears.
fn play_alone(switch: &Stamped, pairs: &[Pair], meanwhile: Meanwhile, length: Duration) -> Account {
    let bears = |account: &Account| {
        account.lost() < 1.0 && account.sent as f64 >= 0.95 * account.rate as f64 * account.seconds
    };
    let try_at = |rate: u64| {
        let trial = play(switch, pairs, Meanwhile::Nothing, rate, CALIBRATION);
        bears(&trial).then(|| play(switch, pairs, meanwhile, rate, length)).filter(bears)
    };
    RATES.into_iter().find_map(try_at).expect("Open vSwitch bears one of the rates")
}

fn same_order(meanwhile: Meanwhile) {
    let length = Duration::from_secs(number("TRUNKLINE_ORDER_S").unwrap_or(SECONDS));
    let ports = ["p1", "p2", "p3", "x1"];
    let mut switch = Stamped::new(Switch::new(), &ports, 10);
    switch.ovs().vsctl(&format!("set Bridge {BRIDGE} other_config:mac-aging-time=15"));
    let pairs: Vec<Pair> = (0..FLOWS).map(|_| (("p1", station()), ("p2", station()))).collect();
    switch.warm(&pairs);
    let alone = play_alone(&switch, &pairs, meanwhile, length);
    switch.accelerate(&ports);
    switch.warm(&pairs);
    let with_agent = play(&switch, &pairs, meanwhile, alone.rate, length);
    let said =
        format!("{meanwhile:?}\n  Open vSwitch alone: {}\n  trunkline: {}", alone.text(), with_agent.text());
    say(&said);
    assert!(with_agent.lost() < 1.0, "frames are lost: {said}");
    assert!(
        with_agent.forwarded.is_none_or(|fast| fast > with_agent.sent / 2),
        "the fast path is in use: {said}"
    );
    assert_eq!(with_agent.inversions_fast, 0, "the fast path sends nothing late: {said}");
    // Where a suspension ends, frames that Open vSwitch still has are overtaken (docs/semantics.md).
    if meanwhile != Meanwhile::Retags {
        assert!(with_agent.inversions <= alone.inversions, "{said}");
    }
    assert!(with_agent.moves_lost <= alone.moves_lost, "{said}");
    assert!(with_agent.turned_back <= alone.turned_back, "{said}");
    assert_eq!(with_agent.stale_fast, 0, "{said}");
}

#[test]
fn flows_keep_their_order() {
    same_order(Meanwhile::Nothing);
}

#[test]
fn flows_keep_their_order_while_tags_of_others_change() {
    same_order(Meanwhile::Retags);
}

#[test]
fn flows_keep_their_order_while_others_move() {
    same_order(Meanwhile::Moves);
}
