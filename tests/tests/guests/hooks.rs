//! Hooks that change under traffic: by the operator's word, and because offloads do.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use trunkline::dataplane::has_tcx;
use trunkline_tests::{
    Account, BRIDGE, Guest, GuestKind, Place, PortStatus, Switch, Vlan, stream, tcp, wait_for,
};

use crate::bystander::Bystander;
use crate::skip::kernel_datapath;

const VID: u16 = 10;
/// Between two changes: long enough for the agent to follow, and for a lost conversation to be noticed.
const PAUSE: Duration = Duration::from_millis(400);
/// Frames that a change may cost: devices lose what is in their rings when a program comes or goes.
const HANDFUL: u64 = 5;

struct Scene {
    guests: Vec<Guest>,
    bystander: Bystander,
    switch: Switch,
}

impl Scene {
    /// Three guests in one VLAN, at addresses 1 to 3.
    fn new() -> Self {
        let mut switch = Switch::new();
        let kinds = [("tap", GuestKind::Tap), ("veth", GuestKind::Veth), ("uplink", GuestKind::Veth)];
        let connect = |(port, kind)| {
            let vlan = if port == "uplink" { Vlan::Trunk(vec![]) } else { Vlan::Access(VID) };
            Guest::connect(&switch, BRIDGE, kind, port, &vlan)
        };
        let guests: Vec<Guest> = kinds.map(connect).into();
        guests[2].stack_vlan(VID);
        for (guest, number) in guests.iter().zip(1..) {
            guest.address((guest.port() == "uplink").then_some(VID), 10, number);
        }
        let bystander = Bystander::new(&mut switch, "bystander", VID);
        Self { guests, bystander, switch }
    }

    fn places(&self) -> Vec<Place<'_>> {
        self.guests.iter().zip(1..).map(|(guest, number)| guest.at(10, number)).collect()
    }

    /// Waits until the agent, if there is one, has followed the operator's word.
    fn wait_hook(&self, port: &str, word: &str) {
        if self.switch.status().is_none() {
            return;
        }
        let row = wait_for(&format!("{port} to have the hook {word}"), Duration::from_secs(20), || {
            self.switch
                .status()
                .as_ref()
                .and_then(|status| status.port(port))
                .filter(|row| has(row, word))
                .cloned()
        });
        let PortStatus { hook, reason, .. } = row;
        eprintln!("{port}: {word}: {hook} {}", reason.unwrap_or_default());
    }

    /// Every change in turn, with a word on it.
    fn change(&self, mut after: impl FnMut(&str)) {
        let mut change = |what: &str, make: &dyn Fn()| {
            make();
            thread::sleep(PAUSE);
            after(what);
        };
        for port in ["tap", "veth", "uplink"] {
            for hook in ["none", "tc", "xdp", "xdp+tc"] {
                change(&format!("{port}: {hook}"), &|| {
                    let key = "external_ids:trunkline-hook";
                    self.switch.ovs().vsctl(&format!("set Interface {port} {key}={hook}"));
                    self.wait_hook(port, hook);
                });
            }
            change(&format!("{port}: no override"), &|| {
                self.switch.ovs().vsctl(&format!("remove Interface {port} external_ids trunkline-hook"));
            });
        }
        for guest in &self.guests {
            for setting in ["tx off", "tx on", "tso off", "tso on", "gro on", "gro off"] {
                change(&format!("{}'s guest: {setting}", guest.port()), &|| guest.offload(setting));
            }
        }
        for port in ["veth", "uplink"] {
            for setting in ["tx off", "tx on", "gro on", "gro off", "txvlan off", "txvlan on"] {
                change(&format!("{port}: {setting}"), &|| {
                    self.switch.netns().run(&format!("ethtool -K {port} {setting}"));
                });
            }
        }
    }
}

/// Stops the traffic when dropped, so that a failed test ends, too.
struct Stopping<'a>(&'a AtomicBool);

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Whether the port has the hook asked for, or the reason why it cannot.
fn has(row: &PortStatus, word: &str) -> bool {
    let (xdp, tc) = (row.hook.contains("xdp"), row.hook.contains("tc"));
    let refused = !row.accelerated && row.reason.as_ref().is_some_and(|reason| reason.contains(word));
    refused || (xdp, tc) == (word.contains("xdp"), word.contains("tc"))
}

/// What went wrong while everything changed.
fn run(scene: &Scene, whose: &str) -> Vec<String> {
    let places = scene.places();
    let stop = AtomicBool::new(false);
    let mut wrong = Vec::new();
    let mut changes = 0;
    let pairs = [(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)];
    // All know each other before anything is counted.
    for (from, to) in pairs {
        wrong.extend(tcp(places[from].v4(), places[to].v4(), 1 << 16).err());
    }
    scene.bystander.received().count();
    let transfers = thread::scope(|scope| {
        let streams = pairs.map(|(from, to)| {
            let (from, to, stop) = (places[from].v4(), places[to].v4(), &stop);
            scope.spawn(move || stream(from, to, stop).expect("sockets"))
        });
        let transfers = pairs.map(|(from, to)| {
            let (from, to, stop) = (places[from].v6(), places[to].v6(), &stop);
            scope.spawn(move || {
                let mut results = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    results.push(tcp(from, to, 1 << 18));
                    thread::sleep(Duration::from_millis(300));
                }
                results
            })
        });
        let mut misdirected = 0;
        let stopping = Stopping(&stop);
        scene.change(|what| {
            changes += 1;
            let strays = scene.bystander.misdirected();
            misdirected += strays;
            let errors: u64 = scene.guests.iter().map(Guest::checksum_errors).sum();
            if strays + errors as usize > 0 {
                eprintln!("{whose}: {what}: {strays} misdirected, {errors} wrong checksums so far");
            }
        });
        drop(stopping);
        let mut total = Account::default();
        for (stream, (from, to)) in streams.into_iter().zip(pairs) {
            let account = stream.join().expect("the stream ends");
            eprintln!("{whose}: from {from} to {to}: {account}");
            total += account;
        }
        if misdirected > 0 {
            wrong.push(format!("{misdirected} frames to a station that they are not for"));
        }
        if total.changed > 0 || total.twice > 0 || total.lost() > HANDFUL * changes {
            wrong.push(format!("{total}, in {changes} changes"));
        }
        transfers.map(|transfers| transfers.join().expect("the transfers end"))
    });
    let transfers: Vec<_> = transfers.into_iter().flatten().collect();
    eprintln!("{whose}: {} transfers by TCP", transfers.len());
    wrong.extend(transfers.into_iter().filter_map(Result::err));
    for guest in &scene.guests {
        let errors = guest.checksum_errors();
        if errors > 0 {
            wrong.push(format!("{errors} wrong checksums received behind {}", guest.port()));
        }
    }
    wrong
}

#[test]
fn hooks_and_offloads_change_under_traffic() {
    if !kernel_datapath("hooks_and_offloads_change_under_traffic") {
        return;
    }
    let mut scene = Scene::new();
    scene.switch.start_agent();
    scene.switch.wait_status("the agent to be ready", |status| status.ready);
    let mut fast = run(&scene, "with the agent");
    // Before Linux 6.6 there is only XDP, which leaves what these guests do not finish to Open vSwitch.
    let expected = if has_tcx() { &["tap", "veth", "uplink"][..] } else { &[] };
    for port in expected {
        let forwarded = scene.switch.forwarded(port);
        if forwarded.is_some_and(|frames| frames < 1000) {
            fast.push(format!("{forwarded:?} frames from {port} by the fast path: too few to show anything"));
        }
    }
    if !fast.is_empty() {
        let alone = run(&Scene::new(), "alone");
        panic!("with the agent:\n{}\nalone:\n{}", fast.join("\n"), alone.join("\n"));
    }
}
