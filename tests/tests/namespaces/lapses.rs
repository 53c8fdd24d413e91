//! An agent that is stopped for longer than its lease: what changed meanwhile holds from its first moment on.
//!
//! While it is stopped and the lease lasts, the fast path goes by what it has; after that every frame is Open
//! vSwitch's. So only frames are judged that are sent once it goes on again: none may go by a station or a
//! rule that has changed since. `TRUNKLINE_ROUNDS` sets how often that is tried.

use std::time::{Duration, Instant};
use std::{fs, thread};

use trunkline_core::Mac;
use trunkline_tests::{BRIDGE, Frame, Privileges, Switch, number, say, station, wait_for};

use crate::stamped::{Pair, Stamped};

const ROUNDS: u64 = 5;
/// Of each round.
const STATIONS: usize = 200;
/// The lease is 5 s.
const STOPPED: Duration = Duration::from_millis(6_500);
const FLOOD: Duration = Duration::from_secs(1);
/// Frames sent before looking at what arrived.
const BATCH: usize = 32;
/// `CAP_SYS_NICE` (capabilities(7)).
const CAP_SYS_NICE: u32 = 23;

/// What arrived of frames that were sent after the agent went on.
#[derive(Default, Debug)]
struct Tally {
    sent: u64,
    arrived: u64,
    fast: u64,
    /// At the port where none may arrive any more.
    wrong_fast: u64,
    wrong_ovs: u64,
    /// Since the agent went on, the last of these was sent.
    last_wrong: Duration,
    rounds_with_wrong: u64,
}

/// `p1` to `p3` in VLAN 10 with the fast path, the agent with such privileges. Without real-time priority,
/// any of its threads may go on first: it is the one that knows least of what has changed.
fn scene(privileges: Privileges) -> Stamped {
    let mut switch = Stamped::new(Switch::new().privileges(privileges), &["p1", "p2", "p3"], 10);
    switch.accelerate(&["p1", "p2", "p3"]);
    if let Some(agent) = switch.agent() {
        agent.confine(0);
        let path = format!("/proc/{}/status", agent.pid());
        let status = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).expect("capabilities");
        let effective = u64::from_str_radix(effective.trim(), 16).expect("a hexadecimal number");
        assert_eq!(effective >> CAP_SYS_NICE & 1 == 1, privileges == Privileges::All, "{effective:x}");
    }
    switch
}

/// Stops the agent for [`STOPPED`], in which `change` happens, and floods from p1 when it goes on: with
/// frames from `a` to the stations, of which none may arrive at `wrong`.
fn lapse(
    switch: &mut Stamped,
    pairs: &[Pair],
    wrong: &str,
    at_once: bool,
    change: impl FnOnce(&Stamped),
    tally: &mut Tally,
) {
    switch.warm(pairs);
    let (one, other) = pairs[0];
    // What the flows of these frames taught is known before anything changes.
    switch.settle();
    if let Some(agent) = switch.agent() {
        agent.pause();
    }
    let stopped = Instant::now();
    if !at_once && switch.agent().is_some() {
        assert_eq!(switch.is_fast(one, other), Some(true), "the lease has not lapsed yet");
        wait_for("the lease to lapse", STOPPED, || (switch.is_fast(one, other) == Some(false)).then_some(()));
        switch.settle();
    }
    change(switch);
    // Nor does Open vSwitch go by flows of before.
    switch.settle();
    if switch.agent().is_some() {
        thread::sleep(STOPPED.saturating_sub(stopped.elapsed()));
    }
    let frames: Vec<Frame> = pairs.iter().map(|((_, a), (_, b))| Frame::new(*a, *b)).collect();
    switch.drain();

    if let Some(agent) = switch.agent() {
        agent.resume();
    }
    let start = Instant::now();
    let before = tally.wrong_fast + tally.wrong_ovs;
    let first = Frame::new(Mac::BROADCAST, Mac::BROADCAST).id();
    let mut batches = Vec::new();
    let mut see = |arrival: crate::stamped::Arrival, batches: &[(u64, Duration)]| {
        if arrival.id < first {
            return;
        }
        tally.arrived += 1;
        tally.fast += u64::from(!arrival.by_ovs);
        if arrival.port == wrong {
            let count = if arrival.by_ovs { &mut tally.wrong_ovs } else { &mut tally.wrong_fast };
            *count += 1;
            let place = batches.partition_point(|(id, _)| *id <= arrival.id);
            tally.last_wrong = tally.last_wrong.max(batches[place - 1].1);
        }
    };
    let mut round = frames.iter().cycle();
    while start.elapsed() < FLOOD {
        let batch: Vec<Frame> = round.by_ref().take(BATCH).map(Frame::another).collect();
        batches.push((batch[0].id(), start.elapsed()));
        for frame in &batch {
            switch.send("p1", frame);
        }
        tally.sent += batch.len() as u64;
        switch.take(|arrival| see(arrival, &batches));
    }
    switch.take_all(|arrival| see(arrival, &batches));
    tally.rounds_with_wrong += u64::from(tally.wrong_fast + tally.wrong_ovs > before);
}

fn judge(what: &str, privileges: Privileges, rounds: u64, tally: &Tally) {
    let Tally { sent, arrived, fast, wrong_fast, wrong_ovs, last_wrong, rounds_with_wrong } = tally;
    let said = format!(
        "{what}, {privileges:?}: {rounds} rounds, {sent} frames after SIGCONT, {arrived} copies arrived, \
         {fast} of them by the fast path; wrong: {wrong_fast} by the fast path and {wrong_ovs} by Open \
         vSwitch in {rounds_with_wrong} rounds, the last sent {last_wrong:.1?} after SIGCONT"
    );
    say(&said);
    assert_eq!((*wrong_fast, *wrong_ovs), (0, 0), "{said}");
}

fn stations_move(privileges: Privileges) {
    let mut switch = scene(privileges);
    let (a, stations) = (station(), (0..STATIONS).map(|_| station()).collect::<Vec<_>>());
    let rounds = number("TRUNKLINE_ROUNDS").unwrap_or(ROUNDS);
    let mut tally = Tally::default();
    let mut places = ["p2", "p3"];
    for _ in 0..rounds {
        let [old, new] = places;
        let pairs: Vec<Pair> = stations.iter().map(|b| (("p1", a), (old, *b))).collect();
        let moves = |switch: &Stamped| {
            let mut heard = 0;
            switch.exchange_all(stations.iter().map(|b| (new, Frame::new(*b, a))), |arrival| {
                heard += usize::from(arrival.port == "p1" && arrival.destination == a);
            });
            assert_eq!(heard, STATIONS, "stations heard from {new}");
            switch.settle();
            let table = switch.ovs().fdb(BRIDGE);
            let known =
                |b: &&Mac| table.iter().any(|row| row.0 == new && row.1 == 10 && row.2 == b.to_string());
            assert_eq!(
                stations.iter().filter(known).count(),
                STATIONS,
                "stations that Open vSwitch has at {new}"
            );
        };
        lapse(&mut switch, &pairs, old, false, moves, &mut tally);
        places.reverse();
    }
    judge("stations move during a lapse", privileges, rounds, &tally);
}

fn port_leaves_the_vlan(privileges: Privileges) {
    let mut switch = scene(privileges);
    let a = station();
    let pairs: Vec<Pair> = (0..STATIONS).map(|_| (("p1", a), ("p2", station()))).collect();
    let rounds = number("TRUNKLINE_ROUNDS").unwrap_or(ROUNDS);
    let mut tally = Tally::default();
    for round in 0..rounds {
        // Before the lease ends and after it, by turns.
        let at_once = round % 2 == 1;
        let leave = |switch: &Stamped| drop(switch.ovs().vsctl("set Port p2 tag=20"));
        lapse(&mut switch, &pairs, "p2", at_once, leave, &mut tally);
        switch.ovs().vsctl("set Port p2 tag=10");
        switch.wait_ports(&["p1", "p2", "p3"]);
    }
    judge("a port leaves its VLAN during a lapse", privileges, rounds, &tally);
}

#[test]
fn no_frame_goes_to_where_a_station_was_before_a_lapse() {
    stations_move(Privileges::All);
}

#[test]
fn no_frame_goes_to_where_a_station_was_before_a_lapse_without_real_time_priority() {
    stations_move(Privileges::WithoutSysNice);
}

#[test]
fn no_frame_goes_by_a_rule_of_before_a_lapse() {
    port_leaves_the_vlan(Privileges::All);
}

#[test]
fn no_frame_goes_by_a_rule_of_before_a_lapse_without_real_time_priority() {
    port_leaves_the_vlan(Privileges::WithoutSysNice);
}
