//! What can happen to a switch under traffic.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::{Duration, Instant};

use trunkline_tests::{BRIDGE, Stamp, Switch, Vlan};

use super::rules::Rule;
use super::traffic::Shared;
use super::{Dice, PORTS, STRAY, VLANS};

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
            "ovs-vswitchd restart" => self.switch.restart_vswitchd(),
            _ => unreachable!("{kind}"),
        }
    }

    /// A port whose name begins so, and its rule.
    fn port(&mut self, prefix: &str) -> (&'static str, Rule) {
        let ports: Vec<&str> = PORTS.into_iter().filter(|port| port.starts_with(prefix)).collect();
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
        let (mac, _) = self.shared.world().stations.pick(&mut self.dice);
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
