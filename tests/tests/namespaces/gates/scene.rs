//! Two conversations on a switch, while a setting is set and cleared.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use trunkline_tests::{BRIDGE, Deliveries, Frame, Stamp, Status, Switch, patience, say, station};

use super::{Gate, Scope, Told};

/// Frames sent right after a change, one each millisecond.
const STREAM: usize = 100;
/// How long after `ovs-vsctl` has returned a frame may still be fast: not at all if the agent's thread got a CPU in the
/// meantime, which on a machine with more to do than CPUs it may not.
const AFTER_OVS_VSCTL: Duration = Duration::from_millis(20);
/// The same after `ovs-ofctl`, which does not wait for anybody.
const AFTER_OVS_OFCTL: Duration = Duration::from_millis(100);

/// What arrived of one frame, by port.
type Seen = BTreeMap<String, Vec<Copy>>;

/// A received copy.
#[derive(Debug)]
struct Copy {
    tags: Vec<u8>,
    /// Open vSwitch sent it.
    stamped: bool,
}

impl Copy {
    fn new(mut bytes: Vec<u8>, sent: &Frame) -> Self {
        let stamped = Stamp::take_off(&mut bytes);
        assert_eq!(bytes[..12], sent.bytes()[..12], "addresses");
        let tags =
            bytes[12..].strip_suffix(&sent.body()[..]).unwrap_or_else(|| panic!("changed: {bytes:02x?}"));
        Self { tags: tags.to_vec(), stamped }
    }
}

/// A switch whose ports stamp, and two conversations: p1 with p2 and p1 with p3. A fourth port listens.
pub(super) struct Scene {
    pub(super) switch: Switch,
    _stamps: Vec<Stamp>,
    there: Frame,
    back: Frame,
    aside: Frame,
    aside_back: Frame,
    seen: Vec<(String, Seen)>,
    took: Vec<(&'static str, Option<Duration>)>,
    accelerated: bool,
}

impl Scene {
    pub(super) fn new(accelerated: bool) -> Self {
        let mut switch = Switch::new();
        let mut stamps = Vec::new();
        for port in ["p1", "p2", "p3", "p4"] {
            switch.plug(port);
            stamps.push(Stamp::attach(switch.netns(), port));
            switch.ovs().vsctl(&format!("add-port {BRIDGE} {port} tag=10"));
        }
        let mut switch = if accelerated { switch.accelerated() } else { switch };
        let accelerated = switch.agent().is_some();
        let (a, b, c) = (station(), station(), station());
        let scene = Self {
            switch,
            _stamps: stamps,
            there: Frame::new(a, b),
            back: Frame::new(b, a),
            aside: Frame::new(a, c),
            aside_back: Frame::new(c, a),
            seen: Vec::new(),
            took: Vec::new(),
            accelerated,
        };
        scene.talk(&scene.conversations());
        scene
    }

    /// The two conversations, p1 with p2 first: from where to where.
    fn conversations(&self) -> [(&'static str, &Frame, &'static str); 4] {
        [
            ("p1", &self.there, "p2"),
            ("p2", &self.back, "p1"),
            ("p1", &self.aside, "p3"),
            ("p3", &self.aside_back, "p1"),
        ]
    }

    /// Both stations of each conversation send until all their frames take the fast path, if there is one.
    fn talk(&self, conversations: &[(&str, &Frame, &str)]) {
        let deadline = Instant::now() + patience(Duration::from_secs(10));
        loop {
            let frames: Vec<_> =
                conversations.iter().map(|(from, frame, to)| (*from, frame.another(), *to)).collect();
            let sent: Vec<_> = frames.iter().map(|(from, frame, _)| (*from, frame)).collect();
            let arrived = self.switch.exchange_expecting(&sent, Some(frames.len()));
            let seen: Vec<Seen> = frames.iter().map(|(_, frame, _)| seen(&arrived, frame)).collect();
            let settled = seen.iter().zip(&frames).all(|(seen, (_, _, to))| {
                seen.keys().eq([to])
                    && (!self.accelerated || seen.values().flatten().all(|copy| !copy.stamped))
            });
            if settled {
                return;
            }
            assert!(Instant::now() < deadline, "not by the fast path: {seen:?}");
        }
    }

    fn tell(&self, told: Told, words: &str) {
        let words = words.replace("BR", BRIDGE);
        match told {
            Told::Database => self.switch.ovs().vsctl(&words),
            Told::OpenFlow => self.switch.ovs().ofctl(&words),
        };
    }

    /// Sends frames from p1 to p2 for a while, and tells how long after the beginning the last one of them was sent
    /// that took the fast path.
    fn last_fast(&self) -> Option<Duration> {
        let (start, mut sent) = (Instant::now(), Vec::new());
        for _ in 0..STREAM {
            let frame = self.there.another();
            sent.push((start.elapsed(), frame.clone()));
            self.switch.send("p1", &frame);
            thread::sleep(Duration::from_millis(1));
        }
        let frames: Vec<Frame> = sent.iter().map(|(_, frame)| frame.clone()).collect();
        let arrived = self.switch.collect(&frames);
        let fast = |frame: &Frame| {
            arrived.of(frame).into_values().flatten().any(|mut copy| !Stamp::take_off(&mut copy))
        };
        sent.iter().filter(|(_, frame)| fast(frame)).map(|(at, _)| *at).max()
    }

    /// Sends a frame each way and keeps what was seen.
    fn look(&mut self, label: &str) {
        let frames = self.conversations().map(|(from, frame, to)| (from, frame.another(), to));
        let sent: Vec<_> = frames.iter().map(|(from, frame, _)| (*from, frame)).collect();
        let arrived = self.switch.exchange(&sent);
        for (from, frame, to) in &frames {
            self.seen.push((format!("{label}: {from} to {to}"), seen(&arrived, frame)));
        }
    }

    fn pass(&mut self, gate: &Gate) {
        self.switch.settle();
        self.tell(gate.told, gate.set);
        let last_fast = self.last_fast();
        if gate.scope != Scope::Nothing {
            let limit = match gate.told {
                Told::Database => AFTER_OVS_VSCTL,
                Told::OpenFlow => AFTER_OVS_OFCTL,
            };
            assert!(
                last_fast.is_none_or(|last| last <= limit),
                "{}: a frame was still fast after {last_fast:?}",
                gate.name
            );
            self.took.push((gate.name, last_fast));
        }
        self.switch.settle();
        self.switch.wait_status(&format!("{}: {:?} {:?}", gate.name, gate.scope, gate.reason), |status| {
            explains(status, gate)
        });
        let going_on = match gate.scope {
            Scope::Bridge => &[][..],
            Scope::Port => &self.conversations()[2..],
            Scope::Nothing => &self.conversations()[..],
        };
        self.talk(going_on);
        self.look(gate.name);
        self.tell(gate.told, gate.clear);
        self.switch.settle();
        self.talk(&self.conversations());
    }
}

fn seen(arrived: &Deliveries, sent: &Frame) -> Seen {
    let at = arrived.of(sent).into_iter();
    at.map(|(port, copies)| (port, copies.into_iter().map(|copy| Copy::new(copy, sent)).collect())).collect()
}

fn explains(status: &Status, gate: &Gate) -> bool {
    let bridge = status.bridge(BRIDGE).expect("the bridge is listed");
    let says = |reason: &Option<String>| reason.as_ref().is_some_and(|reason| reason.contains(gate.reason));
    let port = |name| status.port(name).expect("the port is listed");
    match gate.scope {
        Scope::Bridge => !bridge.accelerated && says(&bridge.reason) && says(&port("p1").reason),
        Scope::Port => {
            !port("p2").accelerated
                && says(&port("p2").reason)
                && status.accelerates("p1")
                && status.accelerates("p3")
        }
        Scope::Nothing => ["p1", "p2", "p3"].into_iter().all(|port| status.accelerates(port)),
    }
}

/// Passes all gates on both switches and compares.
pub(super) fn same_through(gates: &[Gate]) {
    let play = |accelerated| {
        let mut scene = Scene::new(accelerated);
        gates.iter().for_each(|gate| scene.pass(gate));
        scene
    };
    let (alone, with_agent) = (play(false), play(true));
    let left = |seen: &Seen| -> BTreeMap<String, Vec<Vec<u8>>> {
        let tags = |copies: &Vec<Copy>| copies.iter().map(|copy| copy.tags.clone()).collect();
        seen.iter().map(|(port, copies)| (port.clone(), tags(copies))).collect()
    };
    for (place, ((label, theirs), (_, ours))) in alone.seen.iter().zip(&with_agent.seen).enumerate() {
        assert_eq!(left(ours), left(theirs), "{label}: left with the agent, right Open vSwitch alone");
        let fast = ours.values().flatten().any(|copy| !copy.stamped);
        let may = match gates[place / 4].scope {
            Scope::Bridge => false,
            Scope::Port => place % 4 >= 2,
            Scope::Nothing => true,
        };
        assert_eq!(fast, may && with_agent.accelerated, "{label}: by the fast path?");
    }
    for (name, took) in &with_agent.took {
        let when = match took {
            Some(took) => format!("up to {:.1} ms after the command had returned", took.as_secs_f64() * 1e3),
            None => "none after the command had returned".to_owned(),
        };
        say(&format!("gate {name}: fast frames {when}"));
    }
}
