//! A random workload under random changes, with two things checked all the time: no frame leaves by a wrong port or in
//! a wrong VLAN, and no station is in our table that is not in Open vSwitch's.
//!
//! Open vSwitch stamps the frames that it sends ([`Stamp`]), so each frame is judged by who forwarded it:
//! - The fast path decides while the sender writes the frame. Legal are the rules in force then; while a change is under
//!   way, between the start and the end of its `ovs-vsctl`, both the old and the new ones are.
//! - Open vSwitch forwards by flows it has cached, which go by the old rules for a moment after `ovs-vsctl` has
//!   returned (until its revalidators have run: half a second, more on a busy machine), and learns from their counters as
//!   late. While it takes up new trunks, a frame may be flooded by none of the rules (two of three million were, with
//!   3.1.0); the likely reason is that `bundle_set` frees the old set of trunks while other threads read it
//!   (`ofproto/ofproto-dpif.c`). The agent has no part in where Open vSwitch sends a frame, so that is counted, and only
//!   judged if there is much of it.
//!
//! `TRUNKLINE_SEED` repeats the changes of a run (not their timing), `TRUNKLINE_CHAOS_S` sets its length.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use std::{env, io, thread};

use trunkline_core::{Mac, Tpid};
use trunkline_tests::{BRIDGE, Frame, Stamp, Switch, Vlan, Wire, frame_id, station, tag};

/// How long Open vSwitch may go by rules it has cached.
const CACHED: Duration = Duration::from_secs(3);
/// How long a station may stay in our table that has gone from Open vSwitch's.
const STRAY: Duration = Duration::from_secs(3);
/// The fast path may miss the end of an `ovs-vsctl` by this, on a machine with more to do than CPUs.
const LATE: Duration = Duration::from_millis(20);
/// No frame is under way for longer.
const FORGOTTEN: Duration = Duration::from_secs(10);

const PORTS: [&str; 6] = ["p1", "p2", "p3", "p4", "t1", "t2"];
const VLANS: [u16; 3] = [10, 20, 30];
const STATIONS: usize = 10;

/// What a port does, as configured.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Rule {
    vlan: Vlan,
    protected: bool,
}

impl Rule {
    /// The VLAN of a frame that comes in with this tag, if it is admitted.
    fn admits(&self, tag: Option<u16>) -> Option<u16> {
        match (&self.vlan, tag) {
            (Vlan::Access(own), None) => Some(*own),
            (Vlan::Access(_), Some(_)) | (Vlan::Trunk(_), None) => None,
            (Vlan::NativeTagged(own, _) | Vlan::NativeUntagged(own, _), None) => Some(*own),
            (_, Some(vid)) => self.carries(vid).then_some(vid),
        }
    }

    fn carries(&self, vid: u16) -> bool {
        match &self.vlan {
            Vlan::Access(own) => vid == *own,
            Vlan::Trunk(trunks) => trunks.contains(&vid),
            Vlan::NativeTagged(own, trunks) | Vlan::NativeUntagged(own, trunks) => {
                vid == *own || trunks.contains(&vid)
            }
        }
    }

    /// The tag with which a frame of this VLAN leaves.
    fn leaves_with(&self, vid: u16) -> Option<u16> {
        match &self.vlan {
            Vlan::Access(_) => None,
            Vlan::NativeUntagged(own, _) if vid == *own => None,
            _ => Some(vid),
        }
    }
}

/// A rule and when it was in force; no rule while the port is not on the bridge.
#[derive(Debug)]
struct Epoch {
    rule: Option<Rule>,
    from: Instant,
    to: Option<Instant>,
}

/// A frame under way.
struct Sent {
    port: &'static str,
    tag: Option<u16>,
    bytes: Vec<u8>,
    body: Vec<u8>,
    before: Instant,
    after: Instant,
    arrived: BTreeSet<&'static str>,
}

#[derive(Default, Debug)]
struct Tally {
    sent: u64,
    delivered: u64,
    by_fast_path: u64,
    /// Forwarded by the fast path by rules no longer in force, within [`LATE`].
    late: u64,
    /// Sent by Open vSwitch by rules no longer in force, within [`CACHED`], and by rules that never were.
    by_cached_rules: u64,
    by_no_rules: u64,
    changes: BTreeMap<&'static str, u64>,
    compared: u64,
    longest_stray: Duration,
    violations: Vec<String>,
}

/// What the changes and the traffic share.
struct World {
    history: BTreeMap<&'static str, Vec<Epoch>>,
    stations: Vec<(Mac, &'static str)>,
    tally: Tally,
}

impl World {
    fn rule(&self, port: &str) -> Option<&Rule> {
        self.history[port].last().and_then(|epoch| epoch.rule.as_ref())
    }

    /// A change begins: from now on the new rule may be in force.
    fn begin(&mut self, port: &'static str, rule: Option<Rule>) {
        let epoch = Epoch { rule, from: Instant::now(), to: None };
        self.history.get_mut(port).expect("a port").push(epoch);
    }

    /// It is over: from now on the new rule is.
    fn end(&mut self, port: &'static str) {
        let now = Instant::now();
        let epochs = self.history.get_mut(port).expect("a port");
        let (_, old) = epochs.split_last_mut().expect("there is one");
        for epoch in old {
            epoch.to.get_or_insert(now);
        }
        epochs.retain(|epoch| epoch.to.is_none_or(|to| to + 2 * FORGOTTEN > now));
    }

    fn in_force(&self, port: &str, from: Instant, to: Instant) -> impl Iterator<Item = &Rule> {
        let epochs = self.history[port].iter();
        epochs
            .filter(move |epoch| epoch.from <= to && epoch.to.is_none_or(|end| end >= from))
            .filter_map(|epoch| epoch.rule.as_ref())
    }

    /// Whether the rules in force between these two moments let a frame out of `port` in this form.
    fn allows(&self, sent: &Sent, port: &str, tag: Option<u16>, from: Instant, to: Instant) -> bool {
        port != sent.port
            && self.in_force(sent.port, from, to).any(|ingress| {
                let Some(vid) = ingress.admits(sent.tag) else { return false };
                self.in_force(port, from, to).any(|egress| {
                    egress.carries(vid)
                        && egress.leaves_with(vid) == tag
                        && !(ingress.protected && egress.protected)
                })
            })
    }

    fn judge(&mut self, sent: &mut Sent, port: &'static str, mut copy: Vec<u8>) {
        let now = Instant::now();
        let by_ovs = Stamp::take_off(&mut copy);
        let tags = copy.get(12..).and_then(|rest| rest.strip_suffix(&sent.body[..]));
        let tag = match tags {
            Some([]) => Some(None),
            Some([0x81, 0x00, high @ 0..0x10, low]) => Some(Some(u16::from_be_bytes([*high, *low]))),
            _ => None,
        };
        self.tally.delivered += 1;
        self.tally.by_fast_path += u64::from(!by_ovs);
        let way = if by_ovs { "Open vSwitch" } else { "the fast path" };
        let problem = match tag {
            _ if !sent.arrived.insert(port) => Some("arrived twice"),
            Some(tag) if copy[..12] == sent.bytes[..12] => {
                let (to, grace) = if by_ovs { (now, CACHED) } else { (sent.after, LATE) };
                if self.allows(sent, port, tag, sent.before, to) {
                    None
                } else if self.allows(sent, port, tag, sent.before - grace, to) {
                    self.tally.by_cached_rules += u64::from(by_ovs);
                    self.tally.late += u64::from(!by_ovs);
                    None
                } else if by_ovs {
                    self.tally.by_no_rules += 1;
                    None
                } else {
                    Some("must not leave there so")
                }
            }
            _ => Some("was changed"),
        };
        if let Some(problem) = problem {
            let age = |at: Instant| format!("{:.3} s ago", now.saturating_duration_since(at).as_secs_f64());
            let epochs = |port: &str| -> Vec<String> {
                let text = |epoch: &Epoch| {
                    format!("{:?} from {} to {:?}", epoch.rule, age(epoch.from), epoch.to.map(age))
                };
                self.history[port].iter().map(text).collect()
            };
            self.tally.violations.push(format!(
                "a frame that {way} forwarded {problem}: {:02x?}\n  from {} (sent {}), {:#?}\n  to {port}, {:#?}\n  as {:02x?}",
                &sent.bytes[..18],
                sent.port,
                age(sent.before),
                epochs(sent.port),
                epochs(port),
                &copy[..copy.len().min(18)],
            ));
        }
    }
}

/// A generator of numbers (xorshift64*): good enough, and needs no crate.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit
    }

    fn pick<T: Copy>(&mut self, among: &[T]) -> T {
        among[self.below(among.len())]
    }
}

/// The taps that can be used at the moment, and the rest that both threads use.
struct Shared {
    wires: Mutex<BTreeMap<&'static str, Wire>>,
    world: Mutex<World>,
    done: AtomicBool,
}

impl Shared {
    fn wires(&self) -> MutexGuard<'_, BTreeMap<&'static str, Wire>> {
        self.wires.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends and judges until it is told to end.
    fn traffic(&self, mut dice: Dice) {
        let mut under_way: HashMap<u64, Sent> = HashMap::new();
        let mut order: VecDeque<(Instant, u64)> = VecDeque::new();
        while !self.done.load(Ordering::Relaxed) {
            let wires = self.wires();
            for _ in 0..4 {
                let Some((id, sent)) = self.send_one(&wires, &mut dice) else { continue };
                order.push_back((sent.after, id));
                under_way.insert(id, sent);
            }
            let mut world = self.world();
            for (port, wire) in &*wires {
                while let Some(copy) = wire.receive() {
                    if let Some(sent) = frame_id(&copy).and_then(|id| under_way.get_mut(&id)) {
                        world.judge(sent, port, copy);
                    }
                }
            }
            drop((world, wires));
            while let Some((_, id)) = order.front().filter(|(at, _)| at.elapsed() > FORGOTTEN) {
                under_way.remove(id);
                order.pop_front();
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn send_one(&self, wires: &BTreeMap<&'static str, Wire>, dice: &mut Dice) -> Option<(u64, Sent)> {
        let mut world = self.world();
        let (source, port) = world.stations[dice.below(STATIONS)];
        let wire = wires.get(port)?;
        let destination = match dice.below(20) {
            0 => Mac::BROADCAST,
            1 => station(),
            _ => world.stations[dice.below(STATIONS)].0,
        };
        let foreign = dice.below(30) == 0;
        let vid = match &world.rule(port)?.vlan {
            Vlan::Access(_) => foreign.then(|| dice.pick(&VLANS)),
            Vlan::Trunk(_) => (!foreign).then(|| dice.pick(&VLANS)),
            Vlan::NativeTagged(..) | Vlan::NativeUntagged(..) => {
                (dice.below(2) == 0).then(|| dice.pick(&VLANS))
            }
        };
        world.tally.sent += 1;
        drop(world);
        let frame = Frame::new(source, destination).tagged(vid.map(|vid| tag(Tpid::Dot1Q, 0, false, vid)));
        let (bytes, body) = (frame.bytes(), frame.body());
        let before = Instant::now();
        wire.send(&bytes);
        let after = Instant::now();
        Some((frame.id(), Sent { port, tag: vid, bytes, body, before, after, arrived: BTreeSet::new() }))
    }
}

/// What can happen. Each deck of changes has each of these so many times, in random order.
const DECK: [(&str, usize); 15] = [
    ("move", 8),
    ("retag", 4),
    ("trunks", 3),
    ("mode", 2),
    ("protected", 3),
    ("retag without waiting", 1),
    ("trunks without waiting", 1),
    ("fdb/flush", 2),
    ("fdb/add", 2),
    ("fdb/del", 2),
    ("flap", 2),
    ("delete and add", 2),
    ("agent restart", 1),
    ("agent kill", 1),
    ("ovs-vswitchd restart", 1),
];

struct Chaos<'a> {
    switch: &'a mut Switch,
    stamps: BTreeMap<&'static str, Stamp>,
    shared: &'a Shared,
    dice: Dice,
    strays: BTreeMap<(String, u16, String), Instant>,
}

impl Chaos<'_> {
    fn change(&mut self, kind: &'static str) {
        match kind {
            "move" => {
                let mut world = self.shared.world();
                world.stations[self.dice.below(STATIONS)].1 = self.dice.pick(&PORTS);
            }
            "retag" => self.put("p", |dice, _| Vlan::Access(dice.pick(&VLANS))),
            "trunks" => self.put("t", |dice, _| Vlan::Trunk(some(dice))),
            "mode" => self.put("", |dice, _| match dice.below(4) {
                0 => Vlan::Access(dice.pick(&VLANS)),
                1 => Vlan::Trunk(some(dice)),
                2 => Vlan::NativeTagged(dice.pick(&VLANS), some(dice)),
                _ => Vlan::NativeUntagged(dice.pick(&VLANS), some(dice)),
            }),
            "protected" => {
                let (port, mut rule) = self.port("");
                rule.protected = !rule.protected;
                let words = format!("set Port {port} protected={}", rule.protected);
                self.under_way(port, Some(rule), |switch| drop(switch.ovs().vsctl(&words)));
            }
            "retag without waiting" => {
                let (port, rule) = self.port("p");
                if let Vlan::Access(_) = rule.vlan {
                    let vid = self.dice.pick(&VLANS);
                    let words = format!("--no-wait set Port {port} tag={vid}");
                    self.under_way(port, Some(Rule { vlan: Vlan::Access(vid), ..rule }), |switch| {
                        switch.ovs().vsctl(&words);
                        // Followed within a second.
                        thread::sleep(Duration::from_secs(1));
                    });
                }
            }
            "trunks without waiting" => {
                let (port, rule) = self.port("t");
                if let Vlan::Trunk(_) = rule.vlan {
                    let trunks = some(&mut self.dice);
                    let turn = self.shared.world().tally.sent;
                    let list = trunks.iter().map(u16::to_string).collect::<Vec<_>>().join(",");
                    self.under_way(port, Some(Rule { vlan: Vlan::Trunk(trunks), ..rule }), |switch| {
                        switch.ovs().vsctl(&format!("--no-wait set Port {port} trunks={list}"));
                        thread::sleep(Duration::from_millis(500));
                        // Only with this is it applied for certain; a change that changes nothing would not do.
                        switch.ovs().vsctl(&format!("set Bridge {BRIDGE} external_ids:chaos={turn}"));
                    });
                }
            }
            "fdb/flush" => drop(self.switch.ovs().appctl(&format!("fdb/flush {BRIDGE}"))),
            "fdb/add" => self.add_station(),
            "fdb/del" => {
                let stations: Vec<_> = self.stations(|age| age == "static").into_iter().collect();
                if !stations.is_empty() {
                    let (_, vid, mac) = &stations[self.dice.below(stations.len())];
                    self.switch.ovs().appctl(&format!("fdb/del {BRIDGE} {vid} {mac}"));
                }
            }
            "flap" => {
                let (port, _) = self.port("");
                let wire = self.shared.wires().remove(port);
                self.switch.netns().run(&format!("ip link set {port} down"));
                thread::sleep(Duration::from_millis(100));
                self.switch.netns().run(&format!("ip link set {port} up"));
                self.shared.wires().extend(wire.map(|wire| (port, wire)));
            }
            "delete and add" => self.replug(),
            "agent restart" => {
                if let Some(agent) = self.switch.take_agent() {
                    agent.stop();
                    self.switch.start_agent();
                }
            }
            "agent kill" => {
                if let Some(mut agent) = self.switch.take_agent() {
                    agent.kill9();
                    self.switch.start_agent();
                }
            }
            "ovs-vswitchd restart" => self.switch.restart_vswitchd(),
            _ => unreachable!("{kind}"),
        }
    }

    /// A port whose name begins so, and its rule.
    fn port(&mut self, prefix: &str) -> (&'static str, Rule) {
        let ports: Vec<&str> = PORTS.into_iter().filter(|port| port.starts_with(prefix)).collect();
        let port = self.dice.pick(&ports);
        (port, self.shared.world().rule(port).expect("all ports are on the bridge between changes").clone())
    }

    fn under_way(&mut self, port: &'static str, rule: Option<Rule>, change: impl FnOnce(&mut Switch)) {
        self.shared.world().begin(port, rule);
        change(self.switch);
        self.shared.world().end(port);
    }

    fn put(&mut self, prefix: &str, vlan: impl FnOnce(&mut Dice, &Rule) -> Vlan) {
        let (port, old) = self.port(prefix);
        let rule = Rule { vlan: vlan(&mut self.dice, &old), ..old };
        let columns = rule.vlan.columns().join(" ");
        let words = format!("-- clear Port {port} vlan_mode tag trunks -- set Port {port} {columns}");
        self.under_way(port, Some(rule), |switch| drop(switch.ovs().vsctl(&words)));
    }

    fn replug(&mut self) {
        let (port, rule) = self.port("");
        self.under_way(port, None, |switch| drop(switch.ovs().vsctl(&format!("del-port {BRIDGE} {port}"))));
        self.shared.wires().remove(port);
        self.stamps.remove(port);
        self.switch.unplug(port);
        self.switch.plug(port);
        self.stamps.insert(port, Stamp::attach(self.switch.netns(), port));
        self.shared.wires().insert(port, self.switch.wire(port));
        let columns = rule.vlan.columns().join(" ");
        let words =
            format!("add-port {BRIDGE} {port} {columns} -- set Port {port} protected={}", rule.protected);
        self.under_way(port, Some(rule), |switch| drop(switch.ovs().vsctl(&words)));
    }

    /// An operator's entry, on a port that is in the VLAN: elsewhere Open vSwitch would send to it all the same.
    fn add_station(&mut self) {
        let (port, rule) = self.port("");
        let vlans: Vec<u16> = VLANS.into_iter().filter(|vid| rule.carries(*vid)).collect();
        let vid = self.dice.pick(&vlans);
        let mac = self.shared.world().stations[self.dice.below(STATIONS)].0;
        self.switch.ovs().appctl(&format!("fdb/add {BRIDGE} {port} {vid} {mac}"));
    }

    /// Open vSwitch's table: those of this age.
    fn stations(&self, wanted: impl Fn(&str) -> bool) -> BTreeSet<(String, u16, String)> {
        let ovs = self.switch.ovs();
        let ports = ovs.vsctl("--format=csv --no-headings --columns=ofport,name list Interface");
        let names: BTreeMap<&str, &str> = ports.lines().filter_map(|line| line.split_once(',')).collect();
        let row = |line: &str| {
            let [port, vid, mac, age] = line.split_whitespace().collect::<Vec<_>>()[..] else { return None };
            wanted(age).then_some(())?;
            Some((names.get(port).unwrap_or(&port).to_string(), vid.parse().ok()?, mac.to_owned()))
        };
        ovs.appctl(&format!("fdb/show {BRIDGE}")).lines().skip(1).filter_map(row).collect()
    }

    /// Ours must be in Open vSwitch's, but for [`STRAY`]. A bridge that is suspended does not use its table.
    fn compare(&mut self) {
        let Some(agent) = self.switch.agent() else { return };
        let switching = agent
            .try_status()
            .is_some_and(|status| status.bridge(BRIDGE).is_some_and(|bridge| bridge.accelerated));
        if !switching {
            self.strays.clear();
            return;
        }
        let ours: BTreeSet<_> = agent.fdb().into_iter().map(|row| (row.port, row.vlan, row.mac)).collect();
        let theirs = self.stations(|_| true);
        let now = Instant::now();
        self.strays.retain(|row, _| ours.contains(row) && !theirs.contains(row));
        let mut world = self.shared.world();
        world.tally.compared += 1;
        for row in ours.difference(&theirs) {
            let age = now - *self.strays.entry(row.clone()).or_insert(now);
            world.tally.longest_stray = world.tally.longest_stray.max(age);
            if age > STRAY {
                world
                    .tally
                    .violations
                    .push(format!("{row:?} has been in our table alone for {age:?}: {theirs:?}"));
                self.strays.insert(row.clone(), now);
            }
        }
    }
}

/// One VLAN or more.
fn some(dice: &mut Dice) -> Vec<u16> {
    let chosen = 1 + dice.below(7);
    VLANS.into_iter().enumerate().filter(|(place, _)| chosen & 1 << place != 0).map(|(_, vid)| vid).collect()
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

#[test]
fn no_frame_goes_astray_whatever_happens() {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    let seed = number("TRUNKLINE_SEED").unwrap_or(since_epoch.as_secs()).max(1);
    let length = Duration::from_secs(number("TRUNKLINE_CHAOS_S").unwrap_or(20));

    let mut switch = Switch::new();
    let mut stamps = BTreeMap::new();
    let mut history = BTreeMap::new();
    for (place, port) in PORTS.into_iter().enumerate() {
        let vlan = if place < 4 { Vlan::Access(VLANS[place % 2]) } else { Vlan::Trunk(VLANS.to_vec()) };
        switch.plug(port);
        stamps.insert(port, Stamp::attach(switch.netns(), port));
        switch.ovs().vsctl(&format!("add-port {BRIDGE} {port} {}", vlan.columns().join(" ")));
        let epoch = Epoch { rule: Some(Rule { vlan, protected: false }), from: Instant::now(), to: None };
        history.insert(port, vec![epoch]);
    }
    let mut switch = switch.accelerated();
    let accelerated = switch.agent().is_some();
    let shared = Shared {
        wires: Mutex::new(PORTS.into_iter().map(|port| (port, switch.wire(port))).collect()),
        world: Mutex::new(World {
            history,
            stations: (0..STATIONS).map(|place| (station(), PORTS[place % PORTS.len()])).collect(),
            tally: Tally::default(),
        }),
        done: AtomicBool::new(false),
    };
    let start = Instant::now();
    thread::scope(|scope| {
        let traffic = scope.spawn(|| shared.traffic(Dice(seed.rotate_left(17) | 1)));
        let stop = Stop(&shared.done);
        let mut chaos =
            Chaos { switch: &mut switch, stamps, shared: &shared, dice: Dice(seed), strays: BTreeMap::new() };
        let mut deck: Vec<&'static str> = Vec::new();
        while start.elapsed() < length && shared.world().tally.violations.len() < 5 && !traffic.is_finished()
        {
            if deck.is_empty() {
                deck = DECK.into_iter().flat_map(|(kind, count)| std::iter::repeat_n(kind, count)).collect();
            }
            let kind = deck.swap_remove(chaos.dice.below(deck.len()));
            chaos.change(kind);
            *shared.world().tally.changes.entry(kind).or_default() += 1;
            thread::sleep(Duration::from_millis(chaos.dice.below(400) as u64));
            chaos.compare();
        }
        drop(stop);
    });
    let world = shared.world();
    let Tally {
        sent,
        delivered,
        by_fast_path,
        late,
        by_cached_rules,
        by_no_rules,
        changes,
        compared,
        longest_stray,
        violations,
    } = &world.tally;
    let said = format!(
        "chaos: seed {seed}, {:.0} s: {sent} frames sent, {delivered} delivered, {by_fast_path} of them by the fast path \
         ({late} within {LATE:?} after a change), Open vSwitch sent {by_cached_rules} by rules it had cached and {by_no_rules} by none; tables compared {compared} times, longest stray \
         {longest_stray:.1?}; {} violations; changes: {changes:?}",
        start.elapsed().as_secs_f64(),
        violations.len(),
    );
    // `cargo test` does not swallow this; nobody may be listening.
    let _ = writeln!(io::stdout(), "{said}");
    assert!(violations.is_empty(), "{said}\n{}", violations.join("\n"));
    assert!(by_no_rules * 10_000 <= *delivered, "{said}");
    assert_eq!(*by_fast_path > 0, accelerated, "{said}");
}

/// Ends the traffic with the changes, however they end.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
