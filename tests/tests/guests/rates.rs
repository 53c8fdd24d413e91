//! Rates that the operator sets hold, by whatever way the frames go.

use std::time::Duration;

use trunkline_tests::{BRIDGE, Guest, GuestKind, Switch, Vlan, flood, tcp};

use crate::skip::kernel_datapath;

/// In bits a second: far below what an emulated machine can do.
const RATE: f64 = 2e6;
const TIME: Duration = Duration::from_secs(2);
/// What a burst, and the queue that is full at the end, may add in that time.
const ABOVE: f64 = 1.25;
/// An emulated machine is late at times, and policing does not save up.
const BELOW: f64 = 0.4;

/// A switch with a sender and a receiver.
struct Scene {
    sender: Guest,
    receiver: Guest,
    switch: Switch,
}

impl Scene {
    fn new(from: GuestKind, to: GuestKind, with_agent: bool) -> Self {
        let mut switch = Switch::new();
        let connect = |kind, port| Guest::connect(&switch, BRIDGE, kind, port, &Vlan::Access(10));
        let (sender, receiver) = (connect(from, "sender"), connect(to, "receiver"));
        sender.address(None, 10, 1);
        receiver.address(None, 10, 2);
        if with_agent {
            switch.start_agent();
            switch.wait_status("the agent to be ready", |status| status.ready);
        }
        Self { sender, receiver, switch }
    }

    /// The rate of a flood, in bits a second.
    fn flood(&self) -> f64 {
        let (from, to) = (self.sender.at(10, 1).v4(), self.receiver.at(10, 2).v4());
        // Everybody is known, and the fast path is taken where there is one.
        tcp(from, to, 1 << 16).unwrap();
        tcp(to, from, 1 << 16).unwrap();
        let rate = flood(from, to, TIME).unwrap() * 8.0;
        eprintln!("{:.2} Mbit/s", rate / 1e6);
        rate
    }

    /// By hooks as they are chosen, and then with every hook that the operator can ask for.
    fn with_every_hook(&self, mut check: impl FnMut(&Self)) {
        check(self);
        for hook in ["tc", "xdp", "xdp+tc"] {
            for port in ["sender", "receiver"] {
                self.switch.ovs().vsctl(&format!("set Interface {port} external_ids:trunkline-hook={hook}"));
            }
            std::thread::sleep(Duration::from_millis(500));
            eprintln!("{hook}:");
            check(self);
        }
    }
}

fn assert_rate_holds(rate: f64, what: &str) {
    assert!(rate < RATE * ABOVE && rate > RATE * BELOW, "{what}: {rate:.0} bit/s instead of {RATE:.0}");
}

/// Sets `limit` while frames flow, and looks whether it holds; lifts it with `unlimit`, and looks whether it is gone.
fn holds(from: GuestKind, to: GuestKind, limit: &str, unlimit: &str) {
    for with_agent in [false, true] {
        let scene = Scene::new(from, to, with_agent);
        let whose = if with_agent { "with the agent" } else { "alone" };
        eprintln!("{from:?} to {to:?}, {whose}");
        assert!(scene.flood() > RATE * 2.0, "{whose}: there is something to limit");
        scene.switch.ovs().vsctl(limit);
        std::thread::sleep(Duration::from_millis(500));
        if with_agent {
            scene.with_every_hook(|scene| assert_rate_holds(scene.flood(), whose));
        } else {
            assert_rate_holds(scene.flood(), whose);
        }
        scene.switch.ovs().vsctl(unlimit);
        std::thread::sleep(Duration::from_millis(500));
        assert!(scene.flood() > RATE * 2.0, "{whose}: the limit is gone");
        assert_eq!(scene.receiver.checksum_errors() + scene.sender.checksum_errors(), 0);
    }
}

fn shaping_holds(kind: GuestKind) {
    let limit = "set Port receiver qos=@q -- --id=@q create QoS type=linux-htb \
                 other_config:max-rate=2000000 queues:0=@q0 -- --id=@q0 create Queue other_config:max-rate=2000000";
    holds(
        GuestKind::Veth,
        kind,
        limit,
        "clear Port receiver qos -- --all destroy QoS -- --all destroy Queue",
    );
}

fn policing_holds(kind: GuestKind) {
    let limit = "set Interface sender ingress_policing_rate=2000 ingress_policing_burst=200";
    holds(kind, GuestKind::Veth, limit, "set Interface sender ingress_policing_rate=0");
}

#[test]
fn qos_on_a_veth_holds() {
    if kernel_datapath("qos_on_a_veth_holds") {
        shaping_holds(GuestKind::Veth);
    }
}

#[test]
fn qos_on_a_guests_tap_holds() {
    if kernel_datapath("qos_on_a_guests_tap_holds") {
        shaping_holds(GuestKind::Tap);
    }
}

#[test]
fn policing_on_a_veth_holds() {
    if kernel_datapath("policing_on_a_veth_holds") {
        policing_holds(GuestKind::Veth);
    }
}

#[test]
fn policing_on_a_guests_tap_holds() {
    if kernel_datapath("policing_on_a_guests_tap_holds") {
        policing_holds(GuestKind::Tap);
    }
}
