//! Whatever happens, and in whatever order: a bridge that programs let switch has the rules that ovs-vswitchd has applied, and
//! uses no station that Open vSwitch has on another port, or does not have, unless it forgot it by itself. (That ports are
//! only changed while their bridge is suspended is asserted by the dataplane in memory.)
//!
//! The agent and the thread that reads the database may each be kept from running for any time. A bridge may then go by what
//! was known before, but no longer than its lease.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use proptest::prelude::*;

use super::rig::{OURS, Rig, row};
use crate::dataplane::{BridgeNo, LEASE_S, PortNo};
use crate::desired::{BridgeFacts, World, compile};
use crate::event::{Effect, Event};
use crate::fdb::NOWHERE;
use crate::fixture::{Database, shared, tap};
use crate::links::{LinkEvent, XdpAttachment, XdpMode};
use crate::openflow::PortFlags;
use crate::ovsdb::{OvsdbEvent, PortRow, Rows};
use crate::unixctl::{FdbAge, FdbRow, FlowTable, OfPort};

/// A change of the configuration.
#[derive(Clone, Copy, Debug)]
enum Change {
    Tag(u8, u16),
    Protect(u8),
    /// Takes a port out, or to this bridge.
    Move(u8, Option<bool>),
    Mirror(bool),
    Ageing(u8),
    Bridge,
    /// The operator's word for a port's hook.
    Hook(u8, Option<&'static str>),
}

/// Something happens.
#[derive(Clone, Copy, Debug)]
enum Step {
    Announced(Change),
    Alerting(Change),
    /// The VLAN mode of a port.
    Silent(u8, bool),
    /// ovs-vswitchd applies all that there is: because it was woken, or because of a link.
    Reconfigure,
    /// One outstanding question is answered, or other thing done.
    Answer(u8),
    AnswerAll,
    /// So many seconds pass.
    Pass(u8),
    Flows(bool),
    Flags(u8, bool),
    OpenFlow(bool),
    Mtu(u8, bool),
    Foreign(u8, bool),
    Replace(u8),
    Vanish(u8),
    Appear(u8),
    LinksFail,
    Refuse(u8, bool),
    Database(bool),
    Restart,
    Learn(u8),
    /// A station that Open vSwitch knows sends a frame on this port.
    Roam(u8, u8),
    /// The operator adds an entry on this port, or deletes it.
    Static(u8, bool),
    Forget,
    /// A program asks for a station to be shown.
    Show(u8),
    /// Whether the agent runs, the thread that reads the database, and whether that time has passed is what the agent hears first.
    Run(bool, bool, bool),
    /// Whether the agent hears of the database as soon as that thread does.
    Prompt(bool),
    /// It hears of one thing from it, or of one other thing that happened while it was stopped.
    Hear(bool),
}

fn change() -> impl Strategy<Value = Change> {
    let port = 1..=4u8;
    let word = prop::option::of(prop::sample::select(vec!["xdp", "tc", "xdp+tc"]));
    prop_oneof![
        (port.clone(), 10..13u16).prop_map(|(port, tag)| Change::Tag(port, tag)),
        port.clone().prop_map(Change::Protect),
        (port.clone(), prop::option::of(any::<bool>())).prop_map(|(port, to)| Change::Move(port, to)),
        (port, word).prop_map(|(port, word)| Change::Hook(port, word)),
        any::<bool>().prop_map(Change::Mirror),
        (20..23u8).prop_map(Change::Ageing),
        Just(Change::Bridge),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let port = || 1..=4u8;
    prop_oneof![
        3 => change().prop_map(Step::Announced),
        3 => change().prop_map(Step::Alerting),
        2 => (port(), any::<bool>()).prop_map(|(port, native)| Step::Silent(port, native)),
        5 => Just(Step::Reconfigure),
        6 => any::<u8>().prop_map(Step::Answer),
        6 => Just(Step::AnswerAll),
        4 => Just(Step::Pass(1)),
        1 => (2..8u8).prop_map(Step::Pass),
        1 => any::<bool>().prop_map(Step::Flows),
        1 => (port(), any::<bool>()).prop_map(|(port, set)| Step::Flags(port, set)),
        1 => any::<bool>().prop_map(Step::OpenFlow),
        1 => (port(), any::<bool>()).prop_map(|(port, wide)| Step::Mtu(port, wide)),
        1 => (port(), any::<bool>()).prop_map(|(port, there)| Step::Foreign(port, there)),
        1 => port().prop_map(Step::Replace),
        1 => port().prop_map(Step::Vanish),
        2 => port().prop_map(Step::Appear),
        1 => Just(Step::LinksFail),
        1 => (port(), any::<bool>()).prop_map(|(port, refuse)| Step::Refuse(port, refuse)),
        1 => any::<bool>().prop_map(Step::Database),
        1 => Just(Step::Restart),
        4 => port().prop_map(Step::Learn),
        4 => (any::<u8>(), port()).prop_map(|(which, port)| Step::Roam(which, port)),
        1 => (port(), any::<bool>()).prop_map(|(port, there)| Step::Static(port, there)),
        1 => Just(Step::Forget),
        4 => any::<u8>().prop_map(Step::Show),
        2 => (prop::bool::weighted(0.6), prop::bool::weighted(0.7), any::<bool>())
            .prop_map(|(agent, thread, time)| Step::Run(agent, thread, time)),
        1 => prop::bool::weighted(0.7).prop_map(Step::Prompt),
        3 => any::<bool>().prop_map(Step::Hear),
    ]
}

struct Story {
    rig: Rig,
    /// What ovs-vswitchd works with.
    in_force: Arc<Rows>,
    woken: bool,
    connected: bool,
    followed: bool,
    active: BTreeSet<BridgeNo>,
    /// Whether the thread that reads the database runs, what it has yet to read, and when it had read everything.
    reading: bool,
    unread: VecDeque<OvsdbEvent>,
    read_s: u32,
    prompt: bool,
    /// When the agent was last known not to be behind with anything.
    current_s: u32,
    learned: u8,
    /// Stations that Open vSwitch forgot by itself.
    lost: BTreeSet<(String, u16, u8)>,
}

/// From here on, addresses are those of the operator's entries.
const STATIC: u8 = 250;

impl Story {
    fn begin(tcx: bool, early: bool) -> Self {
        let rig = Rig::running_with(|rig| {
            rig.agent.tcx = tcx;
            rig.early = early;
            rig.database.add_bridge("br1");
            rig.database.add_port("br1", "p3", 3).tag = Some(10);
            rig.database.add_port("br1", "p4", 4).tag = Some(11);
        });
        let in_force = rig.database.snapshot();
        let mut story = Self {
            rig,
            in_force,
            woken: false,
            connected: true,
            followed: true,
            active: BTreeSet::new(),
            reading: true,
            unread: VecDeque::new(),
            read_s: 0,
            prompt: true,
            current_s: 0,
            learned: 0,
            lost: BTreeSet::new(),
        };
        story.rig.agent.dataplane.gate().follow_database();
        story.read();
        story.check();
        assert_eq!(story.active.len(), 2);
        story
    }

    fn tell(&mut self) {
        if self.connected {
            self.write(OvsdbEvent::Changed(self.rig.database.snapshot()));
        }
    }

    /// The thread that reads the database is sent something.
    fn write(&mut self, event: OvsdbEvent) {
        self.unread.push_back(event);
        self.read();
    }

    /// It reads what there is, if it runs; and the agent hears of it if it is prompt.
    fn read(&mut self) {
        if self.reading {
            self.unread.drain(..).for_each(|event| self.rig.pass(event));
            self.read_s = self.rig.now_s;
            if self.connected {
                self.rig.agent.dataplane.gate().database_read(self.read_s);
            }
        }
        while self.prompt && self.rig.take_passed() {
            self.check();
        }
    }

    /// Whether bridges may go by what was known before.
    fn is_behind(&mut self) -> bool {
        let now_s = self.rig.now_s;
        if self.unread.is_empty() {
            self.read_s = now_s;
        }
        if self.rig.backlog.is_empty() {
            self.current_s = now_s;
        }
        let unread = !self.unread.is_empty() && now_s < self.read_s + LEASE_S;
        let backlog = !self.rig.backlog.is_empty() && now_s < self.current_s + LEASE_S;
        unread || backlog
    }

    fn change(&mut self, change: Change) {
        let database = &mut self.rig.database;
        let port_exists = |database: &Database, port: u8| {
            database.rows.ports.values().any(|row| row.name == format!("p{port}"))
        };
        let bridge_exists =
            |database: &Database, name: &str| database.rows.bridges.values().any(|row| row.name == name);
        match change {
            Change::Tag(port, tag) if port_exists(database, port) => {
                database.port(&format!("p{port}")).tag = Some(tag);
            }
            Change::Protect(port) if port_exists(database, port) => {
                database.port(&format!("p{port}")).protected ^= true;
            }
            Change::Move(port, to) => {
                let to = to.map(|first| if first { "br0" } else { "br1" });
                let to = to.filter(|to| bridge_exists(database, to));
                match (port_exists(database, port), to) {
                    (true, to) => database.move_port(&format!("p{port}"), to),
                    (false, Some(to)) => {
                        database.add_port(to, &format!("p{port}"), u16::from(port)).tag = Some(10);
                    }
                    (false, None) => {}
                }
            }
            Change::Mirror(true) => database.add_mirror("br0", "m0"),
            Change::Mirror(false) => database.bridge("br0").mirrors.clear(),
            Change::Ageing(seconds) => {
                let config = &mut database.bridge("br0").other_config;
                config.insert("mac-aging-time".to_owned(), seconds.to_string());
            }
            Change::Bridge if bridge_exists(database, "br1") => database.delete_bridge("br1"),
            Change::Bridge => drop(database.add_bridge("br1")),
            Change::Hook(port, word) if port_exists(database, port) => {
                let name = format!("p{port}");
                let row = database.interface(&name);
                match word {
                    Some(word) => drop(row.external_ids.insert("trunkline-hook".to_owned(), word.to_owned())),
                    None => drop(row.external_ids.remove("trunkline-hook")),
                }
            }
            Change::Tag(..) | Change::Protect(_) | Change::Hook(..) => return,
        }
        self.woken = true;
    }

    fn reconfigure(&mut self) {
        let before = std::mem::replace(&mut self.in_force, self.rig.database.snapshot());
        // Open vSwitch flushes the ports whose settings have changed.
        for port in 1..=4 {
            let (old, new) = (place(&before, port), place(&self.in_force, port));
            if let Some((bridge, _)) = old.filter(|old| Some(old) != new.as_ref()) {
                let side = self.rig.side(&bridge);
                side.stations.retain(|row| row.port != OfPort::Number(u16::from(port)));
            }
        }
        self.woken = false;
        let lagged = self.rig.database.host().cur_cfg != self.rig.database.host().next_cfg;
        self.rig.database.confirm();
        if lagged {
            self.tell();
        }
    }

    fn execute(&mut self, effect: Effect) {
        // ovs-vswitchd has been through its main loop by then.
        if matches!(effect, Effect::Barrier { .. }) && self.woken {
            self.reconfigure();
            self.check();
        }
        match effect {
            Effect::Follow(bridges) if self.followed => bridges.iter().for_each(|name| self.rig.follow(name)),
            Effect::Follow(_) => {}
            effect => self.rig.execute(effect),
        }
        self.check();
    }

    fn take(&mut self, step: Step) {
        let rig = &mut self.rig;
        match step {
            Step::Announced(change) => {
                self.change(change);
                self.rig.database.announce();
                self.woken = true;
                self.tell();
            }
            Step::Alerting(change) => {
                self.change(change);
                self.tell();
            }
            // What is written silently while the database is out of reach cannot be told from the rest.
            Step::Silent(port, native) if self.connected => {
                let name = format!("p{port}");
                if rig.database.rows.ports.values().any(|row| row.name == name) {
                    rig.database.port(&name).vlan_mode = native.then(|| "native-tagged".to_owned());
                }
                self.tell();
            }
            Step::Silent(..) => {}
            Step::Reconfigure => self.reconfigure(),
            Step::Answer(which) => {
                let count = rig.effects.len();
                if !rig.stopped
                    && count > 0
                    && let Some(effect) = rig.effects.remove(usize::from(which) % count)
                {
                    self.execute(effect);
                }
            }
            Step::AnswerAll if rig.stopped => {}
            Step::AnswerAll => self.answer_all(),
            Step::Pass(seconds) => {
                for _ in 0..seconds {
                    // It is not behind for a second in which it runs.
                    while self.rig.take_backlog() || self.rig.take_passed() {
                        self.check();
                    }
                    self.rig.now_s += 1;
                    self.read();
                    self.rig.feed(Event::Tick(self.rig.host));
                    self.check();
                }
            }
            Step::Flows(normal) => {
                rig.set_flows("br0", if normal { FlowTable::NormalOnly } else { super::other_flows() })
            }
            Step::Flags(port, set) => {
                let flags = PortFlags { no_flood: set, ..PortFlags::default() };
                rig.side("br0").port_flags.insert(u16::from(port), flags);
                if self.followed {
                    rig.tell_flags("br0");
                }
            }
            Step::OpenFlow(true) if !self.followed => {
                self.followed = true;
                rig.follow("br0");
                rig.follow("br1");
            }
            Step::OpenFlow(false) if self.followed => {
                self.followed = false;
                rig.unfollow("br0");
                rig.unfollow("br1");
            }
            Step::OpenFlow(_) => {}
            Step::Mtu(port, wide) => {
                self.link(port, |link| link.mtu = if wide { 9000 } else { 1500 });
            }
            Step::Foreign(port, there) => {
                let foreign = XdpAttachment { prog_id: 99, mode: XdpMode::Native };
                self.link(port, |link| link.xdp = there.then_some(foreign));
            }
            Step::Replace(port) => self.link(port, |link| link.incarnation += 1),
            Step::Vanish(port) => {
                rig.links.remove(&u32::from(port));
                rig.read_links();
            }
            Step::Appear(port) => {
                let ifindex = u32::from(port);
                rig.links.entry(ifindex).or_insert_with(|| tap(&format!("p{port}"), ifindex));
                rig.read_links();
            }
            Step::LinksFail => rig.feed(Event::Links(LinkEvent::Failed { cause: "no memory".to_owned() })),
            Step::Refuse(port, refuse) => {
                let vanished = &mut rig.agent.dataplane.vanished;
                if refuse {
                    vanished.insert(u32::from(port));
                } else {
                    vanished.remove(&u32::from(port));
                }
            }
            Step::Database(true) if !self.connected => {
                self.connected = true;
                self.write(OvsdbEvent::Connected);
                self.check();
                self.tell();
            }
            Step::Database(false) if self.connected => {
                self.connected = false;
                self.write(OvsdbEvent::Disconnected { cause: "gone".to_owned() });
            }
            Step::Database(_) => {}
            Step::Restart => {
                rig.restart_vswitchd();
                self.forget("br0");
                self.forget("br1");
                self.reconfigure();
            }
            Step::Learn(port) => {
                self.learned = (self.learned + 1) % STATIC;
                self.send(self.learned, port);
            }
            Step::Roam(which, port) => {
                let known = rig.vswitchd.values().flat_map(|side| &side.stations);
                let known: Vec<u8> =
                    known.map(|row| row.mac.octets()[5]).filter(|last| *last < STATIC).collect();
                if !known.is_empty() {
                    self.send(known[usize::from(which) % known.len()], port);
                }
            }
            Step::Static(port, there) => {
                let last = STATIC + port;
                rig.vswitchd
                    .values_mut()
                    .for_each(|side| side.stations.retain(|row| row.mac.octets()[5] != last));
                if let Some((bridge, port_row)) = place(&self.in_force, port).filter(|_| there) {
                    let row = row(last, port_row.tag.unwrap_or(0), u16::from(port));
                    rig.side(&bridge).stations.push(FdbRow { age: FdbAge::Static, ..row });
                }
            }
            Step::Forget => self.forget("br0"),
            Step::Show(which) => self.ask_to_show(which),
            Step::Run(agent, thread, time_first) => {
                rig.stopped = !agent;
                self.reading = thread;
                if time_first {
                    rig.feed(Event::Tick(rig.host));
                    self.check();
                }
                self.read();
            }
            Step::Prompt(prompt) => {
                self.prompt = prompt;
                self.read();
            }
            Step::Hear(true) => drop(rig.take_passed()),
            Step::Hear(false) => drop(rig.take_backlog()),
        }
        self.check();
    }

    fn answer_all(&mut self) {
        for _ in 0..200 {
            let Some(effect) = self.rig.effects.pop_front() else { return };
            self.execute(effect);
        }
        panic!("no end of effects: {:?}", self.rig.effects);
    }

    fn link(&mut self, port: u8, change: impl FnOnce(&mut crate::links::Link)) {
        if let Some(link) = self.rig.links.get_mut(&u32::from(port)) {
            change(link);
        }
        self.rig.read_links();
    }

    /// A frame of a station arrives at a port: at the program, if that switches there, and then at Open vSwitch.
    fn send(&mut self, last: u8, port: u8) {
        let Some((bridge, settings)) = place(&self.in_force, port) else { return };
        let vid = settings.tag.unwrap_or(0);
        let active = self.rig.active(&bridge);
        let installed = self.rig.installed().get(&u32::from(port)).map(|port| port.rules);
        match installed {
            Some(rules) if active => {
                assert!(self.is_behind() || rules.pvid == vid, "{bridge} p{port}");
                self.rig.learn(last, rules.pvid, u16::from(port));
                self.rig.side("br0").stations.pop();
            }
            // A station on a port without a program moves unseen, and is missed by the next comparison.
            None if active => return,
            _ => {}
        }
        self.lost.remove(&(bridge.clone(), vid, last));
        let learned = row(last, vid, u16::from(port));
        let stations = &mut self.rig.side(&bridge).stations;
        stations.retain(|row| (row.vid, row.mac) != (vid, learned.mac));
        stations.push(learned);
    }

    /// As a program does of a station in use that was not shown for long; here, of any.
    fn ask_to_show(&mut self, which: u8) {
        let leases = self.rig.agent.dataplane.leases(self.rig.now_s);
        let stations = self.rig.agent.dataplane.stations.iter_mut();
        let in_use = stations.filter(|(key, entry)| {
            let switches = leases.contains_key(&BridgeNo(key.bridge));
            switches && !entry.fixed && PortNo(entry.port) != NOWHERE
        });
        let mut in_use: Vec<_> = in_use.collect();
        if in_use.is_empty() {
            return;
        }
        let place = usize::from(which) % in_use.len();
        let (key, entry) = &mut in_use[place];
        entry.shown_s = entry.shown_s.min(self.rig.now_s - 200);
        let (bridge, vid, port, mac) = (key.bridge, key.vid.get(), entry.port, key.mac.octets());
        let show = trunkline_core::abi::Show { bridge, vid, port, mac, reserved: [0; 2] };
        self.rig.feed(Event::Show(vec![show]));
    }

    fn forget(&mut self, bridge: &str) {
        let stations = std::mem::take(&mut self.rig.side(bridge).stations);
        self.lost.extend(stations.iter().map(|row| (bridge.to_owned(), row.vid, row.mac.octets()[5])));
    }

    /// The operator's words are no matter of ovs-vswitchd's: they are in force when the agent hears of them.
    fn share_words(&mut self) {
        let Some(heard) = self.rig.agent.applied.latest() else { return };
        for (uuid, known) in &mut Arc::make_mut(&mut self.in_force).interfaces {
            if let Some(heard) = heard.interfaces.get(uuid) {
                Arc::make_mut(known).external_ids.clone_from(&heard.external_ids);
            }
        }
    }

    /// The invariants.
    fn check(&mut self) {
        let now_s = self.rig.now_s;
        let leases = self.rig.agent.dataplane.leases(now_s);
        if self.is_behind() {
            self.active = leases.into_keys().collect();
            return;
        }
        self.share_words();
        let rig = &self.rig;
        let installed = &rig.agent.dataplane.installed;
        let facts = rig.vswitchd.iter().map(|(name, side)| {
            let facts =
                BridgeFacts { flow_table: side.flow_table.clone(), port_flags: side.port_flags.clone() };
            (name.clone(), facts)
        });
        let refusals = rig.agent.without_xdp.iter();
        let without_xdp = refusals.map(|(ifindex, refusal)| (*ifindex, refusal.cause.clone()));
        let compiled = compile(&World {
            rows: &self.in_force,
            links: &shared(&rig.links),
            facts: &facts.collect(),
            selected: &[],
            our_program: Some(OURS),
            tcx: rig.agent.tcx,
            without_xdp: &without_xdp.collect(),
            vlan_devices_possible: true,
        });
        for number in leases.keys() {
            let times = &installed.active[number];
            let name = rig.agent.numbers.bridge_name(*number).expect("an active bridge has a name");
            let bridge = compiled.iter().find(|bridge| bridge.name == name);
            let bridge = bridge.unwrap_or_else(|| panic!("{name} switches and does not exist"));
            assert_eq!((bridge.reason.as_ref(), bridge.times), (None, *times), "{name}");
            for port in installed.ports.values().filter(|port| port.rules.bridge == number.0) {
                let wanted = bridge.ports.iter().find(|wanted| wanted.ifindex == Some(port.ifindex));
                let hooks = wanted.and_then(|wanted| wanted.hook.as_ref()).map(|chosen| chosen.hooks);
                assert_eq!(hooks, Some(port.hooks), "{name} {}", port.device);
                let wanted = wanted.and_then(|wanted| wanted.rules.as_ref().ok());
                let wanted = wanted.unwrap_or_else(|| panic!("{name} has {} and should not", port.device));
                let wanted = trunkline_core::abi::Port { bridge: number.0, ..*wanted };
                assert!(
                    wanted == port.rules,
                    "{name} {}: {:?} instead of {wanted:?}",
                    port.device,
                    port.rules
                );
            }
            let learned = rig.agent.dataplane.stations.iter();
            let learned = learned.filter(|(key, entry)| key.bridge == number.0 && !entry.fixed);
            for (key, entry) in learned.filter(|(_, entry)| PortNo(entry.port) != NOWHERE) {
                assert!(self.active.contains(number), "{name} begins with {key:?}");
                // Open vSwitch may have handled ours before a frame by which the station moved, or after.
                if rig.agent.is_showing(name, key) {
                    continue;
                }
                let theirs = &rig.vswitchd[name].stations;
                let theirs = theirs.iter().find(|row| (row.vid, row.mac) == (key.vid.get(), key.mac));
                let port = installed.ports.get(&PortNo(entry.port)).map(|port| port.ifindex);
                let same = |row: &FdbRow| port.is_some_and(|port| row.port == OfPort::Number(port as u16));
                let lost = || self.lost.contains(&(name.to_owned(), key.vid.get(), key.mac.octets()[5]));
                assert!(theirs.map_or_else(lost, same), "{name} has {key:?} on {port:?}, {theirs:?}");
            }
        }
        self.active = leases.into_keys().collect();
    }

    /// Everything is in reach again and nothing changes any more: all that can be accelerated is.
    fn calm(mut self) {
        self.take(Step::Run(true, true, false));
        self.take(Step::Prompt(true));
        while self.rig.take_backlog() {
            self.check();
        }
        let rig = &mut self.rig;
        rig.agent.dataplane.vanished.clear();
        rig.side("br0").flow_table = FlowTable::NormalOnly;
        self.take(Step::Database(true));
        self.take(Step::OpenFlow(true));
        self.take(Step::Flows(true));
        self.take(Step::Announced(Change::Mirror(false)));
        for port in 1..=4 {
            self.take(Step::Announced(Change::Hook(port, None)));
        }
        self.reconfigure();
        for port in 1..=4 {
            self.take(Step::Foreign(port, false));
            self.take(Step::Appear(port));
            self.take(Step::Flags(port, false));
        }
        for _ in 0..15 {
            self.take(Step::Pass(1));
            self.answer_all();
        }
        let status = self.rig.agent.status();
        assert!(status.ready, "{status:#?}");
        assert!(status.bridges.iter().all(|bridge| bridge.accelerated), "{status:#?}");
        let ports = status.bridges.iter().flat_map(|bridge| &bridge.ports);
        assert!(ports.clone().all(|port| port.accelerated), "{status:#?}");
    }
}

/// The bridge and the settings of a port.
fn place(rows: &Rows, port: u8) -> Option<(String, PortRow)> {
    let name = format!("p{port}");
    let (uuid, row) = rows.ports.iter().find(|(_, row)| row.name == name)?;
    let bridge = rows.bridges.values().find(|bridge| bridge.ports.contains(uuid))?;
    Some((bridge.name.clone(), PortRow::clone(row)))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn active_bridge_has_the_applied_rules_and_every_bridge_becomes_active(
        tcx in any::<bool>(), early in any::<bool>(), steps in prop::collection::vec(step(), 1..80)
    ) {
        let mut story = Story::begin(tcx, early);
        for step in steps {
            story.take(step);
        }
        story.calm();
    }
}
