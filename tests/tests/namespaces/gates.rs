//! Every setting that the fast path does not mirror: set under traffic, obeyed, explained, undone.
//!
//! The same scene is played on two switches, with the agent and without. Open vSwitch stamps the frames that it sends
//! ([`Stamp`]), so that each frame tells by which way it came.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::{Duration, Instant};
use std::{io, thread};

use trunkline_tests::{BRIDGE, Deliveries, Frame, Stamp, Status, Switch, patience, station};

/// Frames sent right after a change, one each millisecond.
const STREAM: usize = 100;
/// How long after `ovs-vsctl` has returned a frame may still be fast: not at all if the agent's thread got a CPU in the
/// meantime, which on a machine with more to do than CPUs it may not.
const AFTER_OVS_VSCTL: Duration = Duration::from_millis(20);
/// The same after `ovs-ofctl`, which does not wait for anybody.
const AFTER_OVS_OFCTL: Duration = Duration::from_millis(100);

/// How much of the bridge a setting takes off the fast path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Scope {
    Bridge,
    /// `p2` alone: `p1` and `p3` go on.
    Port,
    /// Nothing: it is mirrored, or without effect on known unicast.
    Nothing,
}

/// By what Open vSwitch is told, and so how soon the fast path knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Told {
    /// Through the database.
    Database,
    /// Through OpenFlow.
    OpenFlow,
}

struct Gate {
    name: &'static str,
    told: Told,
    /// Words for `ovs-vsctl` or `ovs-ofctl`; `BR` stands for the bridge.
    set: &'static str,
    clear: &'static str,
    scope: Scope,
    /// In the sentence of `status`.
    reason: &'static str,
}

const fn gate(
    name: &'static str,
    scope: Scope,
    reason: &'static str,
    set: &'static str,
    clear: &'static str,
) -> Gate {
    Gate { name, told: Told::Database, set, clear, scope, reason }
}

const fn flow_gate(
    name: &'static str,
    scope: Scope,
    reason: &'static str,
    set: &'static str,
    clear: &'static str,
) -> Gate {
    Gate { told: Told::OpenFlow, ..gate(name, scope, reason, set, clear) }
}

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

/// A switch whose ports stamp, and two conversations: p1 with p2 and p1 with p3.
struct Scene {
    switch: Switch,
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
    fn new(accelerated: bool) -> Self {
        let mut switch = Switch::new();
        let mut stamps = Vec::new();
        for port in ["p1", "p2", "p3"] {
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
fn same_through(gates: &[Gate]) {
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
        note(&format!("gate {name}: fast frames {when}"));
    }
}

/// Says something that `cargo test` does not swallow.
fn note(text: &str) {
    // Nobody may be listening.
    let _ = writeln!(io::stdout(), "{text}");
}

#[test]
fn openflow_gates_act_at_once() {
    use Scope::{Bridge, Port};
    same_through(&[
        flow_gate(
            "a flow that drops",
            Bridge,
            "OpenFlow flow(s) other than the plain NORMAL one",
            "add-flow BR priority=10,in_port=p1,actions=drop",
            "--strict del-flows BR priority=10,in_port=p1",
        ),
        flow_gate(
            "a flow in another table",
            Bridge,
            "OpenFlow flow(s)",
            "add-flow BR table=3,priority=10,actions=drop",
            "del-flows BR table=3",
        ),
        flow_gate(
            "no flow",
            Bridge,
            "no OpenFlow flow",
            "del-flows BR",
            "add-flow BR priority=0,actions=NORMAL",
        ),
        flow_gate("no-forward", Port, "no-forward", "mod-port BR p2 no-forward", "mod-port BR p2 forward"),
        flow_gate("no-receive", Port, "no-receive", "mod-port BR p2 no-receive", "mod-port BR p2 receive"),
        flow_gate("no-flood", Port, "no-flood", "mod-port BR p2 no-flood", "mod-port BR p2 flood"),
    ]);
}

#[test]
fn bridge_settings_gate_the_bridge() {
    use Scope::Bridge;
    same_through(&[
        gate(
            "controller, standalone",
            Bridge,
            "Bridge.controller",
            "set-controller BR tcp:127.0.0.1:1 -- set-fail-mode BR standalone",
            "del-controller BR -- del-fail-mode BR",
        ),
        gate(
            "controller, secure",
            Bridge,
            "Bridge.controller",
            "set-controller BR tcp:127.0.0.1:1 -- set-fail-mode BR secure",
            "del-controller BR -- del-fail-mode BR",
        ),
        gate("fail_mode", Bridge, "no OpenFlow flow", "set-fail-mode BR secure", "del-fail-mode BR"),
        gate(
            "flow_tables",
            Bridge,
            "Bridge.flow_tables",
            "-- --id=@t create Flow_Table flow_limit=100 -- set Bridge BR flow_tables:0=@t",
            "clear Bridge BR flow_tables",
        ),
        gate(
            "manager",
            Bridge,
            "tcp:192.0.2.1:6640 is in-band",
            "set-manager tcp:192.0.2.1:6640",
            "del-manager",
        ),
        gate(
            "flow-restore-wait",
            Bridge,
            "flow-restore-wait",
            "set Open_vSwitch . other_config:flow-restore-wait=true",
            "remove Open_vSwitch . other_config flow-restore-wait",
        ),
        gate(
            "stp",
            Bridge,
            "Bridge.stp_enable",
            "set Bridge BR stp_enable=true",
            "set Bridge BR stp_enable=false",
        ),
        gate(
            "rstp",
            Bridge,
            "Bridge.rstp_enable",
            "set Bridge BR rstp_enable=true",
            "set Bridge BR rstp_enable=false",
        ),
    ]);
}

#[test]
fn whoever_counts_or_copies_frames_gets_them_all() {
    use Scope::Bridge;
    same_through(&[
        gate(
            "mirror",
            Bridge,
            "mirror m0",
            "-- --id=@out get Port p3 -- --id=@m create Mirror name=m0 select_all=true output_port=@out \
             -- set Bridge BR mirrors=@m",
            "clear Bridge BR mirrors",
        ),
        gate(
            "netflow",
            Bridge,
            "Bridge.netflow",
            r#"-- --id=@n create NetFlow targets="127.0.0.1:2055" -- set Bridge BR netflow=@n"#,
            "clear Bridge BR netflow",
        ),
        gate(
            "sflow",
            Bridge,
            "Bridge.sflow",
            r#"-- --id=@s create sFlow agent=lo targets="127.0.0.1:6343" sampling=1 -- set Bridge BR sflow=@s"#,
            "clear Bridge BR sflow",
        ),
        gate(
            "ipfix",
            Bridge,
            "Bridge.ipfix",
            r#"-- --id=@i create IPFIX targets="127.0.0.1:4739" sampling=1 -- set Bridge BR ipfix=@i"#,
            "clear Bridge BR ipfix",
        ),
        gate(
            "collector set",
            Bridge,
            "IPFIX",
            r#"-- --id=@b get Bridge BR -- --id=@i create IPFIX targets="127.0.0.1:4739" -- create Flow_Sample_Collector_Set id=1 bridge=@b ipfix=@i"#,
            "-- --all destroy Flow_Sample_Collector_Set",
        ),
        gate(
            "auto-attach",
            Bridge,
            "Bridge.auto_attach",
            "-- --id=@a create AutoAttach system_name=x system_description=y -- set Bridge BR auto_attach=@a",
            "clear Bridge BR auto_attach",
        ),
    ]);
}

#[test]
fn port_settings_gate_the_port() {
    use Scope::Port;
    same_through(&[
        gate(
            "qos",
            Port,
            "Port.qos",
            "set Port p2 qos=@q -- --id=@q create QoS type=linux-htb other_config:max-rate=1000000000",
            "clear Port p2 qos -- --all destroy QoS",
        ),
        gate(
            "policing",
            Port,
            "Interface.ingress_policing_rate",
            "set Interface p2 ingress_policing_rate=1000000 ingress_policing_burst=100000",
            "set Interface p2 ingress_policing_rate=0 ingress_policing_burst=0",
        ),
        gate(
            "packet policing",
            Port,
            "ingress_policing",
            "set Interface p2 ingress_policing_kpkts_rate=1000",
            "set Interface p2 ingress_policing_kpkts_rate=0",
        ),
        gate("bfd", Port, "Interface.bfd", "set Interface p2 bfd:enable=true", "clear Interface p2 bfd"),
        gate("cfm", Port, "Interface.cfm_mpid", "set Interface p2 cfm_mpid=1", "clear Interface p2 cfm_mpid"),
        gate("lldp", Port, "Interface.lldp", "set Interface p2 lldp:enable=true", "clear Interface p2 lldp"),
        gate("lacp", Port, "Port.lacp", "set Port p2 lacp=active", "clear Port p2 lacp"),
        gate(
            "dot1q-tunnel",
            Port,
            "vlan_mode=dot1q-tunnel",
            "set Port p2 vlan_mode=dot1q-tunnel",
            "clear Port p2 vlan_mode",
        ),
        gate(
            "hook",
            Port,
            "trunkline-hook=none",
            "set Interface p2 external_ids:trunkline-hook=none",
            "remove Interface p2 external_ids trunkline-hook",
        ),
    ]);
}

/// Settings that are mirrored, or that known unicast does not feel: with them, the fast path goes on.
#[test]
fn other_settings_leave_the_fast_path_on() {
    use Scope::Nothing;
    same_through(&[
        gate(
            "mtu_request",
            Nothing,
            "",
            "set Interface p2 mtu_request=1400",
            "set Interface p2 mtu_request=1500",
        ),
        gate(
            "snooping",
            Nothing,
            "",
            "set Bridge BR mcast_snooping_enable=true",
            "set Bridge BR mcast_snooping_enable=false",
        ),
        gate(
            "forward-bpdu",
            Nothing,
            "",
            "set Bridge BR other_config:forward-bpdu=true",
            "remove Bridge BR other_config forward-bpdu",
        ),
        gate(
            "vlan-limit 2",
            Nothing,
            "",
            "set Open_vSwitch . other_config:vlan-limit=2",
            "remove Open_vSwitch . other_config vlan-limit",
        ),
        gate(
            "vlan-limit 0",
            Nothing,
            "",
            "set Open_vSwitch . other_config:vlan-limit=0",
            "remove Open_vSwitch . other_config vlan-limit",
        ),
        gate(
            "ageing",
            Nothing,
            "",
            "set Bridge BR other_config:mac-aging-time=60",
            "remove Bridge BR other_config mac-aging-time",
        ),
        gate(
            "table size",
            Nothing,
            "",
            "set Bridge BR other_config:mac-table-size=10",
            "remove Bridge BR other_config mac-table-size",
        ),
        gate("local manager", Nothing, "", "set-manager ptcp:6640:127.0.0.1", "del-manager"),
        gate("protected", Nothing, "", "set Port p2 protected=true", "set Port p2 protected=false"),
        gate(
            "flood_vlans elsewhere",
            Nothing,
            "",
            "set Bridge BR flood_vlans=20",
            "clear Bridge BR flood_vlans",
        ),
        gate(
            "priority-tags",
            Nothing,
            "",
            "set Port p2 other_config:priority-tags=always",
            "remove Port p2 other_config priority-tags",
        ),
    ]);
}

/// ovs-vswitchd does not undo this before it is restarted, so it comes alone.
#[test]
fn hardware_offload_gates_every_bridge() {
    same_through(&[gate(
        "hw-offload",
        Scope::Bridge,
        "hw-offload",
        "set Open_vSwitch . other_config:hw-offload=true",
        "remove Open_vSwitch . other_config hw-offload",
    )]);
}
