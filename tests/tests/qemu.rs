//! Guests of QEMU's on a bridge, with the agent: their taps come and go by QEMU's scripts, one guest talks tagged from a
//! trunk, the other comes back in another VLAN and with another device.
//!
//! On the userspace datapath a tap with a virtio header is Open vSwitch's alone; on the kernel datapath, tc's.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use trunkline_tests::{
    BRIDGE, Guest, GuestKind, Netns, Ovs, Qemu, QemuScripts, Switch, VirtioNet, Vlan, patience, say, wait_for,
};

/// What a guest sends when it sends its data.
const SIZE: usize = 1 << 20;
/// Where a guest sends back what it has got.
const MIRROR: u16 = 7;
const LIMIT: Duration = Duration::from_secs(30);
/// For an echo to come.
const ECHO: Duration = Duration::from_secs(1);

/// The guest on the trunk, in subnets 10.0.VLAN: address 1.
const TRUNK: &str = "10.0.VLAN.1";
/// The guest on access ports: address 2 in both subnets, wherever it is.
const ACCESS: &str = "10.0.VLAN.2";
/// A host at a veth: address 3 in VLAN 10.
const HOST: &str = "10.0.10.3";

fn at(address: &str, vlan: u16) -> String {
    address.replace("VLAN", &vlan.to_string())
}

struct Scene {
    trunk: Qemu,
    host: Guest,
    switch: Switch,
}

impl Scene {
    fn new() -> (Self, Qemu) {
        let mut switch = Switch::new();
        switch.start_agent();
        let host = Guest::connect(&switch, BRIDGE, GuestKind::Veth, "veth", &Vlan::Access(10));
        host.offload("gro on");
        if Ovs::datapath_type() == "netdev" {
            // Nobody finishes its checksums.
            host.offload("tx off");
        }
        host.address(None, 10, 3);
        let mut trunk = boot(&switch, "trunk", 1, VirtioNet::Bare, &Vlan::Trunk(vec![10, 20]));
        let access = boot(&switch, "access", 2, VirtioNet::Bare, &Vlan::Access(10));
        trunk.wait_ready();
        // It has an address in each VLAN, and answers there only.
        trunk.sh("echo 1 >/proc/sys/net/ipv4/conf/all/arp_ignore").unwrap();
        for vlan in [10, 20] {
            let (device, address) = (format!("eth0.{vlan}"), at(TRUNK, vlan));
            trunk.sh(&format!("ip link add link eth0 name {device} type vlan id {vlan}")).unwrap();
            trunk
                .sh(&format!("ip address add {address}/24 dev {device} && ip link set {device} up"))
                .unwrap();
        }
        (Self { trunk, host, switch }, address(access))
    }

    /// Octets from a port by the fast path; `None` without an agent.
    fn forwarded(&mut self, port: &str) -> Option<u64> {
        self.switch.agent().map(|agent| agent.stats().port(port).rx.forwarded.bytes)
    }
}

/// Starts a guest whose port comes by QEMU's script.
fn boot(switch: &Switch, tap: &str, number: u8, device: VirtioNet, vlan: &Vlan) -> Qemu {
    Qemu::start(switch, tap, number, device, &QemuScripts::new(switch.ovs(), BRIDGE, vlan))
}

/// The guest on access ports has addresses in both subnets: the VLAN decides whom it reaches.
fn address(mut access: Qemu) -> Qemu {
    access.wait_ready();
    for vlan in [10, 20] {
        access.sh(&format!("ip address add {}/24 dev eth0", at(ACCESS, vlan))).unwrap();
    }
    access
}

fn seconds(usual: Duration) -> u64 {
    patience(usual).as_secs()
}

/// Waits until they reach each other: a bridge needs a moment for a new port.
fn meet(from: &mut Qemu, to: &str) {
    wait_for(&format!("an echo from {to}"), LIMIT, || {
        from.sh(&format!("ping -c 1 -W {} {to}", seconds(ECHO))).ok()
    });
}

/// Echoes of the least and of the longest frame, none lost; then a transfer by TCP, there and back.
fn talk(from: &mut Qemu, to: &str) {
    for size in [56, 1472] {
        let said = from.sh(&format!("ping -c 3 -W {} -s {size} {to}", seconds(5 * ECHO))).unwrap();
        assert!(said.contains(" 0% packet loss"), "{said}");
    }
    let sent = from.sh("sha256sum </tmp/data").unwrap();
    let received = from.sh(&format!("nc {to} {MIRROR} </tmp/data | sha256sum")).unwrap();
    assert_eq!(received, sent, "what came back from {to}");
}

/// The same, from the host.
fn talk_from(host: &Netns, to: &str) {
    for size in [56, 1472] {
        let said = host.run(&format!("ping -n -c 3 -i 0.2 -W {} -s {size} {to}", seconds(5 * ECHO)));
        assert!(said.contains(" 0% packet loss"), "{said}");
    }
    let sent: Vec<u8> = (0..SIZE).map(|place| (place.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let address = format!("{to}:{MIRROR}").parse().expect("an address");
    let received = host.enter(|| -> std::io::Result<_> {
        let mut stream = TcpStream::connect_timeout(&address, patience(LIMIT))?;
        receive_all(&mut stream, |stream| {
            stream.write_all(&sent).and_then(|()| stream.shutdown(Shutdown::Write))
        })
    });
    let received = received.unwrap_or_else(|error| panic!("TCP to {address}: {error}"));
    assert!(received == sent, "{} of {SIZE} octets came back from {to}, or others", received.len());
}

/// What a guest sends and gets back from the host.
fn talk_to(host: &Netns, from: &mut Qemu) {
    let listener = host.enter(|| TcpListener::bind((HOST, MIRROR))).expect("a listener");
    listener.set_nonblocking(true).expect("a listener that does not block");
    thread::scope(|scope| {
        let mirror = scope.spawn(|| -> std::io::Result<()> {
            let mut stream = accept(&listener)?;
            let heard = receive_all(&mut stream, |_| Ok(()))?;
            stream.write_all(&heard)
        });
        talk(from, HOST);
        mirror.join().expect("the mirror ends").expect("the mirror's socket");
    });
}

fn accept(listener: &TcpListener) -> std::io::Result<TcpStream> {
    let deadline = Instant::now() + patience(LIMIT);
    loop {
        match listener.accept() {
            Ok((stream, _)) => return stream.set_nonblocking(false).map(|()| stream),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(10));
            }
            Err(error) => return Err(error),
        }
    }
}

fn receive_all(
    stream: &mut TcpStream,
    before: impl FnOnce(&mut TcpStream) -> std::io::Result<()>,
) -> std::io::Result<Vec<u8>> {
    stream.set_read_timeout(Some(patience(LIMIT)))?;
    stream.set_write_timeout(Some(patience(LIMIT)))?;
    before(stream)?;
    let mut received = Vec::new();
    stream.read_to_end(&mut received).map(|_| received)
}

/// Nobody answers.
fn reaches_not(from: &mut Qemu, to: &str) {
    let said = from.sh(&format!("ping -c 2 -W {} {to}", seconds(ECHO)));
    assert!(said.is_err(), "{to} answers: {said:?}");
}

/// The access guest is in VLAN 10, with a device that XDP serves on either datapath.
fn first_life(scene: &mut Scene, access: &mut Qemu) {
    scene.switch.wait_status("all ports to be accelerated", |status| {
        ["trunk", "access", "veth"].iter().all(|port| status.accelerates(port))
    });
    meet(access, &at(TRUNK, 10));
    meet(access, HOST);
    meet(&mut scene.trunk, HOST);
    reaches_not(access, &at(TRUNK, 20));
    // The frames of a station that has just come are left to Open vSwitch for a moment.
    thread::sleep(Duration::from_secs(3));
    let ports = ["trunk", "access", "veth"];
    let before = ports.map(|port| scene.forwarded(port));
    talk(access, &at(TRUNK, 10));
    talk_to(scene.host.netns(), access);
    talk_from(scene.host.netns(), &at(TRUNK, 10));
    for (port, before) in ports.into_iter().zip(before) {
        // Two transfers there and back for each.
        let forwarded = scene.forwarded(port).zip(before).map(|(after, before)| after - before);
        eprintln!("{port}: {forwarded:?} octets by the fast path");
        assert!(forwarded.is_none_or(|octets| octets > 2 * SIZE as u64), "{port}: {forwarded:?} octets");
    }
}

/// In VLAN 20, with a virtio header.
fn second_life(scene: &mut Scene, access: &mut Qemu) {
    let kernel = Ovs::datapath_type() == "system";
    let status =
        scene.switch.wait_status("the guest's port to be known", |status| status.port("access").is_some());
    if let Some(port) = status.as_ref().and_then(|status| status.port("access")) {
        eprintln!("{port:?}");
        assert_eq!((port.tag, port.accelerated), (Some(20), kernel), "{port:?}");
        assert!(port.reason.as_ref().is_some_and(|reason| reason.contains("vnet_hdr")), "{port:?}");
    }
    meet(access, &at(TRUNK, 20));
    reaches_not(access, &at(TRUNK, 10));
    reaches_not(access, HOST);
    thread::sleep(Duration::from_secs(3));
    let before = scene.forwarded("access");
    talk(access, &at(TRUNK, 20));
    talk(&mut scene.trunk, &at(ACCESS, 20));
    let forwarded = scene.forwarded("access").zip(before).map(|(after, before)| after - before);
    eprintln!("access: {forwarded:?} octets by the fast path");
    let expected = |octets| if kernel { octets > 2 * SIZE as u64 } else { octets == 0 };
    assert!(forwarded.is_none_or(expected), "{forwarded:?} octets by the fast path");
}

const TEST: &str = "guests_of_qemu_talk_and_their_ports_follow_their_scripts";

#[test]
fn guests_of_qemu_talk_and_their_ports_follow_their_scripts() {
    if !Qemu::is_at_hand() {
        say(&format!("skipped: {TEST}: there is no guest to be booted: `cargo xtask test qemu` makes one"));
        return;
    }
    let begin = Instant::now();
    let step = |what: &str| eprintln!("{:5.1} s: {what}", begin.elapsed().as_secs_f64());
    let (mut scene, mut access) = Scene::new();
    step("booted");
    first_life(&mut scene, &mut access);
    step("first life");
    let mut errors = access.checksum_errors();
    access.power_off();
    assert!(!scene.switch.ovs().vsctl(&format!("list-ports {BRIDGE}")).contains("access"), "by downscript");
    scene
        .switch
        .wait_status("the port to be forgotten", |status| status.ready && status.port("access").is_none());
    if let Some(agent) = scene.switch.agent() {
        let stations = agent.fdb();
        assert!(!stations.is_empty() && stations.iter().all(|row| row.port != "access"), "{stations:?}");
    }
    reaches_not(&mut scene.trunk, &at(ACCESS, 10));
    step("off");
    let device = if Ovs::datapath_type() == "system" { VirtioNet::Offloads } else { VirtioNet::HeaderOnly };
    let mut access = address(boot(&scene.switch, "access", 2, device, &Vlan::Access(20)));
    step("booted again");
    second_life(&mut scene, &mut access);
    step("second life");
    errors += access.checksum_errors() + scene.trunk.checksum_errors() + scene.host.checksum_errors();
    assert_eq!(errors, 0, "wrong checksums received");
}
