//! Stations that Open vSwitch has learned without the fast path are on the fast path all the same, although
//! they say nothing more: those of before the agent, and those of while a bridge was suspended.

use std::collections::{BTreeSet, HashMap};
use std::thread;
use std::time::{Duration, Instant};

use trunkline_core::Mac;
use trunkline_tests::{BRIDGE, Frame, Switch, patience, say, station};

use crate::stamped::{Arrival, Stamped};

const PORTS: [&str; 3] = ["p1", "p2", "p3"];
/// In Open vSwitch's table before the agent starts.
const STATIONS: usize = 10_000;
/// Frames sent before looking at what arrived, and the pause after them: what Open vSwitch takes in.
const BATCH: usize = 32;
const PAUSE: Duration = Duration::from_millis(1);
/// Within this all stations are on the fast path.
const WARM: Duration = Duration::from_secs(1);
/// Of these, this many move, each once, at a random moment of a time that begins before the agent is started.
const MOVERS: usize = 1_000;
const BEFORE: Duration = Duration::from_secs(1);
const MOVES_FOR: Duration = Duration::from_secs(4);
/// Of each kind, beside changes of tags.
const GROUP: usize = 200;
const RETAGS: u16 = 60;
/// Between two of them.
const BETWEEN: Duration = Duration::from_millis(4);
const LEARNED: Duration = Duration::from_secs(20);

/// A pass of one frame to each station: how many arrived by the fast path.
struct Pass {
    arrived: BTreeSet<Mac>,
    fast: BTreeSet<Mac>,
}

/// `p1` to `p3` in VLAN 10, with `stations` at p2 in Open vSwitch's table, and no agent yet.
fn known_at_p2(stations: &[Mac], a: Mac) -> Stamped {
    let switch = Stamped::new(Switch::new(), &PORTS, 10);
    switch.ovs().vsctl(&format!("set Bridge {BRIDGE} other_config:mac-table-size=20000"));
    let deadline = Instant::now() + patience(LEARNED);
    loop {
        let table = switch.ovs().fdb(BRIDGE);
        let known: BTreeSet<&str> = table.iter().filter(|row| row.0 == "p2").map(|row| &*row.2).collect();
        let missing: Vec<Mac> =
            stations.iter().copied().filter(|mac| !known.contains(&*mac.to_string())).collect();
        if missing.is_empty() {
            break;
        }
        assert!(Instant::now() < deadline, "{} stations have not been learned", missing.len());
        paced(&switch, missing.iter().map(|mac| ("p2", Frame::new(*mac, a))), |_| {});
    }
    switch.settle();
    switch
}

/// Sends frames no faster than Open vSwitch can take them in, and takes in what arrives until all is quiet.
fn paced(
    switch: &Stamped,
    frames: impl Iterator<Item = (&'static str, Frame)>,
    mut see: impl FnMut(Arrival),
) {
    for (place, (port, frame)) in frames.enumerate() {
        switch.send(port, &frame);
        if place % BATCH == BATCH - 1 {
            switch.take(&mut see);
            thread::sleep(PAUSE);
        }
    }
    switch.take_all(see);
}

/// Sends a frame from `a` at p1 to each station.
fn pass(switch: &Stamped, a: Mac, stations: &[Mac]) -> Pass {
    let mut pass = Pass { arrived: BTreeSet::new(), fast: BTreeSet::new() };
    paced(switch, stations.iter().map(|mac| ("p1", Frame::new(a, *mac))), |arrival| {
        pass.arrived.insert(arrival.destination);
        if !arrival.by_ovs {
            pass.fast.insert(arrival.destination);
        }
    });
    pass
}

/// Fast are all but one in a hundred, for what the table of stations has no place for, or a frame that shows
/// `a`.
fn assert_warm(pass: &Pass, count: usize, said: &str) {
    assert!(pass.arrived.len() * 100 >= count * 99, "frames are lost: {said}");
    assert!(pass.fast.len() * 100 >= count * 99, "{said}");
}

#[test]
fn stations_of_before_the_agent_are_on_the_fast_path_within_a_second() {
    let (a, stations) = (station(), (0..STATIONS).map(|_| station()).collect::<Vec<_>>());
    let mut switch = known_at_p2(&stations, a);
    let start = Instant::now();
    let accelerated = switch.accelerate(&PORTS);
    let ready = Instant::now();
    let at_once = pass(&switch, a, &stations);
    let took = ready.elapsed();
    thread::sleep(WARM.saturating_sub(ready.elapsed()));
    let began = ready.elapsed();
    let forwarded = switch.forwarded("p1");
    let later = pass(&switch, a, &stations);
    let by_counters = switch.forwarded("p1").zip(forwarded).map(|(after, before)| after - before);
    let said = format!(
        "ready {:.2?} after the start with {STATIONS} stations known; one frame to each at once (for \
         {took:.2?}): {} arrived, {} by the fast path; again {began:.2?} after that: {} arrived, {} by the \
         fast path, {by_counters:?} by the counters",
        ready - start,
        at_once.arrived.len(),
        at_once.fast.len(),
        later.arrived.len(),
        later.fast.len(),
    );
    say(&said);
    if accelerated {
        assert_warm(&later, STATIONS, &said);
        assert!(by_counters >= Some(later.fast.len() as u64), "{said}");
    }
}

/// A generator of numbers below `limit` (xorshift64*): good enough, and needs no crate.
fn below(state: &mut u64, limit: u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit
}

/// A station that moves from p2 to p3.
#[derive(Clone, Copy)]
struct Mover {
    at: Duration,
    /// The frame by which it shows itself at p3, once sent.
    shown_by: Option<u64>,
    /// Frames with this number or a higher one must not arrive at p2: that frame has been delivered.
    since: u64,
}

#[test]
fn stations_that_move_while_the_agent_starts_are_found_where_they_are() {
    let seed = trunkline_tests::seed().max(1);
    let mut dice = seed;
    let (a, stations) = (station(), (0..STATIONS).map(|_| station()).collect::<Vec<_>>());
    let mut switch = known_at_p2(&stations, a);
    let mut movers: HashMap<Mac, Mover> = HashMap::new();
    for mac in &stations[..MOVERS] {
        let at = Duration::from_micros(below(&mut dice, MOVES_FOR.as_micros() as u64));
        movers.insert(*mac, Mover { at, shown_by: None, since: u64::MAX });
    }
    let mut due: Vec<(Duration, Mac)> = movers.iter().map(|(mac, mover)| (mover.at, *mac)).collect();
    due.sort_unstable_by_key(|(at, _)| std::cmp::Reverse(*at));

    let (mut sent, mut wrong_fast, mut wrong_ovs, mut moved) = (0, 0, 0, 0);
    let mut wrong = BTreeSet::new();
    let mut see = |arrival: Arrival, movers: &mut HashMap<Mac, Mover>| {
        if arrival.port == "p1" {
            // Numbers are given when frames are made, so those of later frames are higher than this one's.
            let Some(mover) = movers.get_mut(&arrival.source) else { return };
            if mover.shown_by == Some(arrival.id) && mover.since == u64::MAX {
                mover.since = Frame::new(a, a).id();
                moved += 1;
            }
        } else if arrival.port == "p2"
            && movers.get(&arrival.destination).is_some_and(|m| arrival.id >= m.since)
        {
            if arrival.by_ovs {
                wrong_ovs += 1;
            } else {
                wrong_fast += 1;
                wrong.insert(arrival.destination);
            }
        }
    };
    let start = Instant::now();
    let mut started = None;
    let mut streams = stations[..2 * MOVERS].iter().cycle();
    while !due.is_empty() || start.elapsed() < MOVES_FOR + WARM {
        if started.is_none() && start.elapsed() >= BEFORE {
            switch.start_agent();
            started = Some(Instant::now());
        }
        while due.last().is_some_and(|(at, _)| *at <= start.elapsed()) {
            let (_, mac) = due.pop().expect("there is one");
            let frame = Frame::new(mac, a);
            movers.get_mut(&mac).expect("a mover").shown_by = Some(frame.id());
            switch.send("p3", &frame);
        }
        for mac in streams.by_ref().take(BATCH) {
            switch.send("p1", &Frame::new(a, *mac));
            sent += 1;
        }
        switch.take(|arrival| see(arrival, &mut movers));
        thread::sleep(PAUSE);
    }
    switch.take_all(|arrival| see(arrival, &mut movers));
    switch.wait_ports(&PORTS);
    let accelerated = switch.agent().is_some();
    let last = pass(&switch, a, &stations);
    let said = format!(
        "seed {seed}: {moved} of {MOVERS} stations moved while the agent started; of {sent} frames to them \
         and as many others, to where a station had been: {wrong_fast} by the fast path (to {} stations) \
         and {wrong_ovs} by Open vSwitch; afterwards {} of {STATIONS} stations were reached, {} by the fast \
         path",
        wrong.len(),
        last.arrived.len(),
        last.fast.len(),
    );
    say(&said);
    assert!(moved * 100 >= MOVERS * 99, "moves are lost: {said}");
    assert_eq!(wrong_fast, 0, "{said}");
    if accelerated {
        assert_warm(&last, STATIONS, &said);
    }
}

#[test]
fn stations_that_spoke_while_tags_changed_are_on_the_fast_path_within_a_second() {
    let mut switch = Stamped::new(Switch::new(), &["p1", "p2", "p3", "x1"], 10);
    let accelerated = switch.accelerate(&["p1", "p2", "p3", "x1"]);
    let a = station();
    let group = || (0..GROUP).map(|_| station()).collect::<Vec<Mac>>();
    let (stay, come, go) = (group(), group(), group());
    let pairs: Vec<_> = stay.iter().chain(&go).map(|mac| (("p1", a), ("p2", *mac))).collect();
    switch.warm(&pairs);
    switch.settle();

    // All of them send once or more while tags change, and never again.
    let frames = stay.iter().map(|mac| ("p2", *mac)).chain(come.iter().map(|mac| ("p2", *mac)));
    let frames: Vec<(&str, Mac)> = frames.chain(go.iter().map(|mac| ("p3", *mac))).collect();
    let mut heard = BTreeSet::new();
    let start = Instant::now();
    let took = thread::scope(|scope| {
        let switch = &switch;
        let changes = scope.spawn(|| {
            switch.ovs().retag("x1", 100..100 + RETAGS, BETWEEN);
            start.elapsed()
        });
        let mut rounds = frames.iter().cycle();
        while !changes.is_finished() {
            for (port, mac) in rounds.by_ref().take(BATCH) {
                switch.send(port, &Frame::new(*mac, a));
            }
            switch.take(|arrival| {
                heard.insert((arrival.source, arrival.port));
            });
            thread::sleep(PAUSE);
        }
        changes.join().expect("changes are made")
    });
    let changed = Instant::now();
    switch.take_all(|arrival| {
        heard.insert((arrival.source, arrival.port));
    });
    let heard = frames.iter().filter(|(_, mac)| heard.contains(&(*mac, "p1"))).count();
    switch.settle();
    let stations: Vec<Mac> = frames.iter().map(|(_, mac)| *mac).collect();
    switch.wait_ports(&["p1", "p2", "p3", "x1"]);
    let suspended = changed.elapsed();
    let ready = Instant::now();
    while ready.elapsed() < WARM {
        pass(&switch, a, &stations);
    }
    let began = ready.elapsed();
    let last = pass(&switch, a, &stations);
    let of = |group: &[Mac]| group.iter().filter(|mac| last.fast.contains(mac)).count();
    let said = format!(
        "{RETAGS} changes of tags in {took:.2?}, {heard} of {} stations heard meanwhile, the bridge back \
         after {suspended:.2?}; {began:.2?} after that, of {GROUP} each, by the fast path: {} that had been \
         known, {} that came, {} that moved; {} reached",
        frames.len(),
        of(&stay),
        of(&come),
        of(&go),
        last.arrived.len(),
    );
    say(&said);
    assert_eq!((heard, last.arrived.len()), (frames.len(), frames.len()), "{said}");
    assert!(!accelerated || last.fast.len() == frames.len(), "{said}");
}
