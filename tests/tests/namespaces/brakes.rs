//! Changes on one bridge are nothing to another: its frames go on by the fast path, and its stations that
//! move meanwhile are found where they are.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use trunkline_core::Mac;
use trunkline_tests::{BRIDGE, Frame, Ovs, Stats, Switch, Vlan, patience, say, station};

use crate::stamped::{Arrival, Pair, Stamped};

/// The bridge that is judged, with ports q1 to q3; the changes are on the other one.
const JUDGED: &str = "br1";
const PORTS: [&str; 3] = ["q1", "q2", "q3"];
const MOVES: usize = 2_000;
const STATIONS: usize = 400;
/// From one move to the next. A station stays for 400 of these, so that Open vSwitch, which takes in the
/// sources of flows it has cached up to a second late, does not turn it back by itself.
const PACE: Duration = Duration::from_millis(6);
/// A station that has moved is sent to at once, and again while this many others move after it: for a second.
const RECENT: usize = 170;
const AT_ONCE: usize = 4;
const LATER: usize = 20;
/// Between two changes on the other bridge.
const PAUSE: Duration = Duration::from_millis(20);
const DELIVERY: Duration = Duration::from_secs(5);

struct Place {
    mac: Mac,
    port: &'static str,
    /// Frames with this number or a higher one must not arrive at another port.
    since: u64,
    moved: Instant,
    /// One did, by the fast path.
    stale: bool,
}

/// All stations, and what was seen of the frames to them.
struct Moves {
    stations: Vec<Place>,
    numbers: HashMap<Mac, usize>,
    /// The frame that shows a station at its new place, until it is delivered.
    awaited: Option<u64>,
    sent: u64,
    arrived: u64,
    stale_fast: u64,
    stale_ovs: u64,
    stale_moves: u64,
    /// After the move, the last stale frame by the fast path arrived.
    longest: Duration,
}

impl Moves {
    fn new(stations: Vec<Mac>) -> Self {
        let numbers = stations.iter().copied().zip(0..).collect();
        let place = |mac| Place { mac, port: "q2", since: 0, moved: Instant::now(), stale: false };
        Self {
            stations: stations.into_iter().map(place).collect(),
            numbers,
            awaited: None,
            sent: 0,
            arrived: 0,
            stale_fast: 0,
            stale_ovs: 0,
            stale_moves: 0,
            longest: Duration::ZERO,
        }
    }

    fn see(&mut self, Arrival { port, destination, id, by_ovs, .. }: Arrival) {
        if self.awaited == Some(id) && port == "q1" {
            self.awaited = None;
        }
        let Some(number) = self.numbers.get(&destination) else { return };
        let place = &mut self.stations[*number];
        self.arrived += 1;
        if id < place.since || port == place.port {
            return;
        }
        if by_ovs {
            self.stale_ovs += 1;
            return;
        }
        self.stale_fast += 1;
        self.stale_moves += u64::from(!std::mem::replace(&mut place.stale, true));
        self.longest = self.longest.max(place.moved.elapsed());
    }

    /// A station sends from another port, and that is delivered.
    fn move_one(&mut self, switch: &Stamped, number: usize, a: Mac) {
        let place = &mut self.stations[number];
        let port = if place.port == "q2" { "q3" } else { "q2" };
        let frame = Frame::new(place.mac, a);
        // Until it is delivered, both ports are right.
        (place.since, self.awaited) = (u64::MAX, Some(frame.id()));
        switch.send(port, &frame);
        let deadline = Instant::now() + patience(DELIVERY);
        while self.awaited.is_some() {
            assert!(Instant::now() < deadline, "a frame from {port} has not been delivered");
            switch.wire("q1").wait(Duration::from_millis(1));
            switch.take(|arrival| self.see(arrival));
        }
        let place = &mut self.stations[number];
        (place.port, place.moved, place.stale) = (port, Instant::now(), false);
        place.since = Frame::new(a, a).id();
    }

    fn send_to(&mut self, switch: &Stamped, number: usize, a: Mac) {
        switch.send("q1", &Frame::new(a, self.stations[number].mac));
        self.sent += 1;
    }
}

/// Ports come and go and change their VLAN on [`BRIDGE`] until it is `done`; returns how many changes there
/// were.
fn change(ovs: &Ovs, done: &AtomicBool) -> u64 {
    let changes = [
        format!("add-port {BRIDGE} x1 tag=10"),
        "set Port p2 tag=20".to_owned(),
        format!("del-port {BRIDGE} x1"),
        "set Port p2 tag=10".to_owned(),
    ];
    let mut count = 0;
    for change in changes.iter().cycle() {
        if done.load(Ordering::Relaxed) {
            break;
        }
        ovs.vsctl(change);
        count += 1;
        thread::sleep(PAUSE);
    }
    count
}

/// Frames of the judged bridge that were punted as it did not switch.
fn suspended(stats: &Stats) -> u64 {
    let punted = PORTS.map(|port| stats.port(port).rx.punted);
    let count = |reason: &str| punted.iter().filter_map(|by_reason| by_reason.get(reason)).sum::<u64>();
    count("bridge_suspended") + count("stale_heartbeat")
}

fn changes_on_another_bridge(what: &str, controller: bool) {
    let mut switch = Stamped::new(Switch::new(), &["p1", "p2"], 10);
    switch.plug("x1");
    if controller {
        // Nobody listens there; Open vSwitch goes on as a switch by itself.
        switch.ovs().vsctl(&format!("set-fail-mode {BRIDGE} standalone"));
        switch.ovs().vsctl(&format!("set-controller {BRIDGE} tcp:127.0.0.1:1"));
    }
    switch.add_bridge(JUDGED);
    for port in PORTS {
        switch.add(JUDGED, port, &Vlan::Access(10));
    }
    let others: &[&str] = if controller { &[] } else { &["p1", "p2"] };
    let accelerated = switch.accelerate(&[&PORTS[..], others].concat());
    if let Some(status) = switch.status() {
        let other = status.bridge(BRIDGE).expect("it is listed");
        assert_eq!(other.accelerated, !controller, "{other:?}");
    }

    let a = station();
    let mut moves = Moves::new((0..STATIONS).map(|_| station()).collect());
    let pairs: Vec<Pair> = moves.stations.iter().map(|place| (("q1", a), (place.port, place.mac))).collect();
    switch.warm(&pairs);
    switch.settle();
    let before = switch.stats();
    let start = Instant::now();
    let done = AtomicBool::new(false);
    let changes = thread::scope(|scope| {
        let ovs = switch.ovs();
        let changes = scope.spawn(|| change(ovs, &done));
        let stop = StopOnDrop(&done);
        let mut later = 0;
        for turn in 0..MOVES {
            let number = turn % STATIONS;
            moves.move_one(&switch, number, a);
            (0..AT_ONCE).for_each(|_| moves.send_to(&switch, number, a));
            let next = start.elapsed() + PACE;
            for _ in 0..LATER {
                later = (later + 1) % RECENT.min(turn + 1);
                moves.send_to(&switch, (turn - later) % STATIONS, a);
                switch.take(|arrival| moves.see(arrival));
            }
            thread::sleep(next.saturating_sub(start.elapsed()));
        }
        switch.take_all(|arrival| moves.see(arrival));
        drop(stop);
        changes.join().expect("the changes are made")
    });
    let seconds = start.elapsed().as_secs_f64();
    let after = switch.stats();
    let (mut fast, mut punted) = (0, 0);
    if let Some((before, after)) = before.zip(after) {
        fast = after.port("q1").rx.forwarded.frames - before.port("q1").rx.forwarded.frames;
        punted = suspended(&after) - suspended(&before);
    }
    let Moves { sent, arrived, stale_fast, stale_ovs, stale_moves, longest, .. } = moves;
    let said = format!(
        "{what}: {MOVES} moves beside {changes} changes in {seconds:.1} s; of {sent} frames to the stations \
         {arrived} copies arrived, {fast} by the fast path; {punted} punted as the bridge did not switch; \
         {stale_moves} stale moves: {stale_fast} frames to the old port by the fast path, up to \
         {longest:.0?} after the move, and {stale_ovs} by Open vSwitch"
    );
    say(&said);
    assert!(!accelerated || fast > sent / 2, "the fast path is in use: {said}");
    assert_eq!((stale_moves, punted), (0, 0), "{said}");
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn changes_on_a_bridge_with_a_controller_are_nothing_to_another() {
    changes_on_another_bridge("beside a bridge with a controller", true);
}

#[test]
fn changes_on_an_accelerated_bridge_are_nothing_to_another() {
    changes_on_another_bridge("beside an accelerated bridge", false);
}
