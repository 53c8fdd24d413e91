//! What can happen to a switch under traffic.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use trunkline_tests::{Stamp, Switch, Vlan};

use super::judge::Stopped;
use super::rules::Rule;
use super::traffic::Shared;
use super::{BRIDGES, CACHED, CONTROLLED, Dice, LATE, STRAY, VLANS, bridge_of, ports};

/// What can happen. Each deck of changes has each of these so many times, in random order.
const DECK: [(&str, usize); 19] = [
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
    ("retag elsewhere", 4),
    ("many changes elsewhere", 1),
    ("short stop", 2),
    ("lapse", 1),
];

/// What can happen while the agent is stopped: nothing that asks it. The first of these are in no database,
/// so that nobody tells it of them when it goes on.
const BEHIND_ITS_BACK: [&str; 12] = [
    "move",
    "move",
    "fdb/add",
    "fdb/del",
    "fdb/flush",
    "retag",
    "retag",
    "trunks",
    "mode",
    "protected",
    "delete and add",
    "retag elsewhere",
];
const UNTOLD: usize = 5;

/// After so long the lease of 5 s has lapsed for certain.
const LAPSED: Duration = Duration::from_secs(6);
/// In less than this it has not, renewed as it is each second; what happens meanwhile takes its time, too.
const SHORT: Duration = Duration::from_secs(2);
/// So many stations move in a lapse, when the fast path does not see it any more.
const MOVES: usize = 12;
/// For so long after a stop there are as many frames as there can be.
const RUSH: Duration = Duration::from_millis(300);

pub(super) struct Chaos<'a> {
    switch: &'a mut Switch,
    stamps: BTreeMap<&'static str, Stamp>,
    shared: &'a Shared,
    dice: Dice,
    strays: BTreeMap<(String, u16, String), Instant>,
}

impl<'a> Chaos<'a> {
    pub(super) fn new(
        switch: &'a mut Switch,
        stamps: BTreeMap<&'static str, Stamp>,
        shared: &'a Shared,
        dice: Dice,
    ) -> Self {
        Self { switch, stamps, shared, dice, strays: BTreeMap::new() }
    }

    /// Something happens; a pause; tables are compared.
    pub(super) fn next(&mut self, deck: &mut Vec<&'static str>) {
        if deck.is_empty() {
            deck.extend(DECK.into_iter().flat_map(|(kind, count)| std::iter::repeat_n(kind, count)));
        }
        let kind = deck.swap_remove(self.dice.below(deck.len()));
        self.shared.world().begins(kind);
        self.change(kind);
        thread::sleep(Duration::from_millis(self.dice.below(400) as u64));
        self.compare();
    }

    fn change(&mut self, kind: &'static str) {
        match kind {
            "move" => self.shared.world().stations.one_moves(&mut self.dice),
            "retag elsewhere" => self.retag_elsewhere(),
            "many changes elsewhere" => (0..8).for_each(|_| self.retag_elsewhere()),
            "short stop" => self.stop(false),
            "lapse" => self.stop(true),
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
                        // Only with this is it applied for certain; one that changes nothing would not do.
                        switch.ovs().vsctl(&format!("set Port {port} external_ids:chaos={turn}"));
                    });
                }
            }
            "fdb/flush" => {
                let bridge = self.dice.pick(&BRIDGES).0;
                self.switch.ovs().appctl(&format!("fdb/flush {bridge}"));
            }
            "fdb/add" => self.add_station(),
            "fdb/del" => {
                let bridge = self.dice.pick(&BRIDGES).0;
                let stations: Vec<_> = self.stations(bridge, |age| age == "static").into_iter().collect();
                if !stations.is_empty() {
                    let (_, vid, mac) = &stations[self.dice.below(stations.len())];
                    self.switch.ovs().appctl(&format!("fdb/del {bridge} {vid} {mac}"));
                    let is_it = |other: &str, tag, port: &str| {
                        other == mac && tag == *vid && bridge_of(port) == bridge
                    };
                    self.shared.world().stations.unpin(is_it);
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
                // One that has only just been started may not be listening for signals yet.
                self.switch.wait_status("the agent to answer", |_| true);
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
            "ovs-vswitchd restart" => {
                self.switch.restart_vswitchd();
                self.shared.world().stations.unpin(|_, _, _| true);
            }
            _ => unreachable!("{kind}"),
        }
    }

    /// Changes a port of one of the bridges on which little happens.
    fn retag_elsewhere(&mut self) {
        let prefix = self.dice.pick(&["c", "q"]);
        self.put(prefix, |dice, _| Vlan::Access(dice.pick(&VLANS)));
    }

    /// Stops the agent while something happens, for longer than its lease (`lapse`) or for less, and lets it
    /// go on.
    fn stop(&mut self, lapse: bool) {
        self.switch.wait_status("the agent to answer", |_| true);
        let from = Instant::now();
        self.shared.world().stopped = Some(Stopped { from, to: None, lapse });
        if let Some(agent) = self.switch.agent() {
            agent.pause();
        }
        let kinds = if self.dice.below(2) == 0 { &BEHIND_ITS_BACK[..UNTOLD] } else { &BEHIND_ITS_BACK[..] };
        for _ in 0..self.dice.below(4) {
            self.behind_its_back(kinds);
            thread::sleep(Duration::from_millis(self.dice.below(400) as u64));
        }
        thread::sleep(if lapse { LAPSED } else { SHORT }.saturating_sub(from.elapsed()));
        if lapse {
            (0..MOVES).for_each(|_| self.change("move"));
            (0..self.dice.below(4)).for_each(|_| self.behind_its_back(kinds));
            // From now on it is certain where Open vSwitch has the stations that moved.
            thread::sleep(CACHED + Duration::from_millis(self.dice.below(400) as u64));
        }
        self.shared.rush.store(true, Ordering::Relaxed);
        let to = Instant::now() + if lapse { Duration::ZERO } else { LATE };
        self.shared.world().stopped = Some(Stopped { from, to: Some(to), lapse });
        if let Some(agent) = self.switch.agent() {
            agent.resume();
        }
        thread::sleep(RUSH);
        self.shared.rush.store(false, Ordering::Relaxed);
    }

    fn behind_its_back(&mut self, kinds: &[&'static str]) {
        let kind = self.dice.pick(kinds);
        self.shared.world().begins(kind);
        self.change(kind);
    }

    /// A port whose name begins so, and its rule.
    fn port(&mut self, prefix: &str) -> (&'static str, Rule) {
        let ports: Vec<&str> = ports().filter(|port| port.starts_with(prefix)).collect();
        let port = self.dice.pick(&ports);
        (
            port,
            self.shared
                .world()
                .history
                .rule(port)
                .expect("all ports are on the bridge between changes")
                .clone(),
        )
    }

    fn under_way(&mut self, port: &'static str, rule: Option<Rule>, change: impl FnOnce(&mut Switch)) {
        self.shared.world().history.begin(port, rule);
        change(self.switch);
        self.shared.world().history.end(port);
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
        let bridge = bridge_of(port);
        self.under_way(port, None, |switch| drop(switch.ovs().vsctl(&format!("del-port {bridge} {port}"))));
        self.shared.world().stations.unpin(|_, _, other| other == port);
        self.shared.wires().remove(port);
        self.stamps.remove(port);
        self.switch.unplug(port);
        self.switch.plug(port);
        self.stamps.insert(port, Stamp::attach(self.switch.netns(), port));
        self.shared.wires().insert(port, self.switch.wire(port));
        let columns = rule.vlan.columns().join(" ");
        let words =
            format!("add-port {bridge} {port} {columns} -- set Port {port} protected={}", rule.protected);
        self.under_way(port, Some(rule), |switch| drop(switch.ovs().vsctl(&words)));
    }

    /// An operator's entry, on a port that is in the VLAN: elsewhere Open vSwitch would send to it all the
    /// same.
    fn add_station(&mut self) {
        let (port, rule) = self.port("");
        let vlans: Vec<u16> = VLANS.into_iter().filter(|vid| rule.carries(*vid)).collect();
        let vid = self.dice.pick(&vlans);
        let (mac, _) = self.shared.world().stations.pick_beside(port, &mut self.dice);
        self.shared.world().stations.pin(mac, vid, port);
        self.switch.ovs().appctl(&format!("fdb/add {} {port} {vid} {mac}", bridge_of(port)));
    }

    /// Open vSwitch's table of a bridge: those of this age.
    fn stations(&self, bridge: &str, wanted: impl Fn(&str) -> bool) -> BTreeSet<(String, u16, String)> {
        let ovs = self.switch.ovs();
        let interfaces = ovs.vsctl("--format=csv --no-headings --columns=ofport,name list Interface");
        let is_there = |name: &str| ports().any(|port| port == name && bridge_of(port) == bridge);
        let names = interfaces.lines().filter_map(|line| line.split_once(','));
        let names: BTreeMap<&str, &str> = names.filter(|(_, name)| is_there(name)).collect();
        let row = |line: &str| {
            let [port, vid, mac, age] = line.split_whitespace().collect::<Vec<_>>()[..] else { return None };
            wanted(age).then_some(())?;
            Some((names.get(port).unwrap_or(&port).to_string(), vid.parse().ok()?, mac.to_owned()))
        };
        ovs.appctl(&format!("fdb/show {bridge}")).lines().skip(1).filter_map(row).collect()
    }

    /// Ours must be in Open vSwitch's, but for [`STRAY`]. A bridge that is suspended does not use its table.
    fn compare(&mut self) {
        let Some(agent) = self.switch.agent() else { return };
        let Some(status) = agent.try_status() else { return };
        let switches = |bridge: &str| status.bridge(bridge).is_some_and(|bridge| bridge.accelerated);
        let ours: BTreeSet<_> = agent
            .fdb()
            .into_iter()
            .filter(|row| switches(&row.bridge))
            .map(|row| (row.port, row.vlan, row.mac))
            .collect();
        let bridges = BRIDGES.iter().filter(|(bridge, _)| *bridge != CONTROLLED && switches(bridge));
        let theirs: BTreeSet<_> = bridges.flat_map(|(bridge, _)| self.stations(bridge, |_| true)).collect();
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
