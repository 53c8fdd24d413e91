//! A small operator's host: one NIC as a trunk with VLANs 2, 3, 6 and 100, the host's own device in VLAN 100 on the
//! NIC itself, guests on taps that come and go by QEMU's scripts, guests on macvtaps, and a fake bridge.

use std::process::Command;
use std::time::Duration;

use trunkline_tests::{Guest, Place, QemuScripts, Switch, Vlan, output, per_port, ping, tcp, udp, wait_for};

use crate::skip::kernel_datapath;

const BRIDGE: &str = "solbr";
const NIC: &str = "eth0";
const TRANSFER: usize = 1 << 19;

/// The host. What is in OVSDB survives its reboot.
struct Site {
    machines: Machines,
    scripts: QemuScripts,
    switch: Switch,
}

/// What has to be made again after a reboot. The number of a VLAN is that of its subnet.
struct Machines {
    /// What is beyond the NIC: address 1 in each VLAN.
    beyond: Guest,
    /// The host itself: address 2 in VLANs 100 and 3.
    host: Guest,
    /// In VLAN 2, address 3.
    macvtap: Guest,
    /// In VLAN 3, address 4; started and stopped by QEMU's scripts.
    tap: Option<Guest>,
    /// With all VLANs, address 5.
    trunk: Guest,
    /// In VLAN 6, address 6.
    container: Guest,
    /// In the bridge's VLAN 100, which is not the NIC's; address 7.
    apart: Guest,
}

impl Site {
    /// As the operator sets it up once.
    fn new() -> Self {
        let switch = Switch::new();
        let ovs = switch.ovs();
        let scripts = QemuScripts::new(ovs, BRIDGE, &Vlan::Access(3));
        ovs.vsctl(&format!("add-br {BRIDGE}"));
        // The devices come with the machines; until then, Open vSwitch says so and goes on.
        ovs.vsctl(&format!(
            "--no-wait add-port {BRIDGE} {NIC} trunks=2,3,6,100 \
             -- add-port {BRIDGE} vif0 tag=2 -- set Interface vif0 type=internal \
             -- add-port {BRIDGE} trunk0 trunks=2,3,6 -- add-port {BRIDGE} acc6 tag=6 -- add-port {BRIDGE} acc100 tag=100"
        ));
        ovs.vsctl(&format!("add-br sol3 {BRIDGE} 3"));
        let machines = Machines::boot(&switch);
        let mut site = Self { machines, scripts, switch };
        site.start_tap_guest();
        site
    }

    fn start_tap_guest(&mut self) {
        let guest = Guest::tap(self.switch.netns(), "tap0");
        self.switch.netns().run("ip link set tap0 down");
        self.scripts.up(self.switch.netns(), "tap0");
        guest.address(None, 3, 4);
        self.machines.tap = Some(guest);
    }

    fn stop_tap_guest(&mut self) {
        self.scripts.down(self.switch.netns(), "tap0");
        self.machines.tap = None;
    }

    /// All devices and the kernel's datapath go; the database stays. The tap guest is shut down before, by its script.
    fn reboot(mut self, with_agent: bool) -> Self {
        self.stop_tap_guest();
        if let Some(agent) = self.switch.take_agent() {
            agent.stop();
        }
        self.switch.stop_ovs();
        self.switch.netns().run("ovs-dpctl del-dp ovs-system");
        drop(self.machines);
        output(Command::new("ip").args(["-n", self.switch.netns().name(), "link", "delete", NIC]));
        self.switch.start_ovs();
        self.machines = Machines::boot(&self.switch);
        if with_agent {
            self.start_agent();
        }
        self.start_tap_guest();
        self
    }

    fn start_agent(&mut self) {
        self.switch.start_agent();
        self.switch.wait_status("the agent to be ready", |status| status.ready);
    }
}

impl Machines {
    fn boot(switch: &Switch) -> Self {
        let netns = switch.netns();
        netns.run("sysctl -q net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2");
        let beyond = Guest::veth(netns, NIC);
        for vid in [2, 3, 6, 7, 100] {
            beyond.stack_vlan(vid);
            beyond.address(Some(vid), vid as u8, 1);
        }
        let host = Guest::host(netns, NIC);
        host.stack_vlan(100);
        host.address(Some(100), 100, 2);
        netns.run("ip link set sol3 up");
        Guest::host(netns, "sol3").address(None, 3, 2);
        netns.run("ip link set vif0 up");
        let macvtap = Guest::macvtap(netns, "vif0");
        macvtap.address(None, 2, 3);
        let trunk = Guest::tap(netns, "trunk0");
        for vid in [2, 3, 6, 7] {
            trunk.stack_vlan(vid);
            trunk.address(Some(vid), vid as u8, 5);
        }
        let container = Guest::veth(netns, "acc6");
        container.address(None, 6, 6);
        let apart = Guest::veth(netns, "acc100");
        apart.address(None, 100, 7);
        // Open vSwitch takes in devices when they come; this waits until it has.
        let boot = trunk.netns().name();
        switch.ovs().vsctl(&format!("set Open_vSwitch . external_ids:boot={boot}"));
        Self { beyond, host, macvtap, tap: None, trunk, container, apart }
    }

    /// Who can talk to whom, and who must not be able to.
    fn conversations(&self) -> Vec<(Place<'_>, Place<'_>, bool)> {
        let Self { beyond, host, macvtap, tap, trunk, container, apart } = self;
        let mut all = vec![
            (beyond.at(2, 1), macvtap.at(2, 3), true),
            (trunk.at(2, 5), macvtap.at(2, 3), true),
            (trunk.at(2, 5), beyond.at(2, 1), true),
            (trunk.at(3, 5), beyond.at(3, 1), true),
            (trunk.at(3, 5), host.at(3, 2), true),
            (host.at(3, 2), beyond.at(3, 1), true),
            (container.at(6, 6), beyond.at(6, 1), true),
            (container.at(6, 6), trunk.at(6, 5), true),
            (host.at(100, 2), beyond.at(100, 1), true),
            // The kernel takes VLAN 100 from the NIC before the bridge sees it.
            (apart.at(100, 7), beyond.at(100, 1), false),
            (apart.at(100, 7), host.at(100, 2), false),
            // Neither port carries VLAN 7.
            (trunk.at(7, 5), beyond.at(7, 1), false),
        ];
        if let Some(tap) = tap {
            all.extend([
                (tap.at(3, 4), beyond.at(3, 1), true),
                (tap.at(3, 4), trunk.at(3, 5), true),
                (tap.at(3, 4), host.at(3, 2), true),
            ]);
        }
        all
    }

    fn guests(&self) -> impl Iterator<Item = &Guest> {
        let Self { beyond, host, macvtap, tap, trunk, container, apart } = self;
        [beyond, host, macvtap, trunk, container, apart].into_iter().chain(tap)
    }

    /// After a start, Open vSwitch and the stacks lose frames for a moment by themselves: waits until all who talk do.
    fn settle(&self) {
        let talks: Vec<_> = self.conversations().into_iter().filter(|(.., talk)| *talk).collect();
        wait_for("all conversations to go on", Duration::from_secs(90), || {
            talks.iter().all(|(one, other, _)| echoes(*one, *other) == 2).then_some(())
        });
    }

    /// What is not as it has to be.
    fn check(&self, when: &str) -> Vec<String> {
        let mut wrong = Vec::new();
        for (one, other, talk) in self.conversations() {
            let name = format!("{when}: {} and {}", one.v4().address, other.v4().address);
            let said = if talk { converse(one, other) } else { must_not_reach(one, other) };
            if let Err(what) = said {
                eprintln!("{name}: {what}");
                wrong.push(format!("{name}: {what}"));
            }
        }
        for guest in self.guests() {
            let errors = guest.checksum_errors();
            if errors > 0 {
                wrong.push(format!("{when}: {errors} wrong checksums received at {}", guest.port()));
            }
        }
        wrong
    }
}

fn converse(one: Place<'_>, other: Place<'_>) -> Result<(), String> {
    ping(one.v4(), other.v4())?;
    udp(other.v4(), one.v4())?;
    tcp(one.v4(), other.v4(), TRANSFER)?;
    tcp(other.v4(), one.v4(), TRANSFER)?;
    tcp(one.v6(), other.v6(), TRANSFER)?;
    Ok(())
}

fn must_not_reach(one: Place<'_>, other: Place<'_>) -> Result<(), String> {
    if echoes(one, other) > 0 { Err("they reach each other".to_owned()) } else { Ok(()) }
}

/// How many of two echoes come back.
fn echoes(one: Place<'_>, other: Place<'_>) -> usize {
    let mut ping = one.guest().netns().command("ping");
    let address = other.v4().address.to_string();
    let said = output(ping.args(["-n", "-c", "2", "-i", "0.1", "-W", "1"]).arg(address));
    String::from_utf8_lossy(&said.stdout).matches(" bytes from ").count()
}

/// The site's days; what was not as it has to be.
fn days(with_agent: bool) -> Vec<String> {
    let mut site = Site::new();
    if with_agent {
        site.start_agent();
    }
    site.machines.settle();
    let mut wrong = site.machines.check("first");
    site.stop_tap_guest();
    site.start_tap_guest();
    site.machines.settle();
    wrong.extend(site.machines.check("with the tap guest started again"));
    site.switch.restart_ovsdb();
    site.switch.restart_vswitchd();
    if with_agent {
        site.switch.wait_status("the agent to be ready", |status| status.ready);
    }
    site.machines.settle();
    wrong.extend(site.machines.check("after a restart of both daemons"));
    let mut site = site.reboot(with_agent);
    site.machines.settle();
    wrong.extend(site.machines.check("after a reboot"));
    if let Some(agent) = site.switch.agent() {
        let (status, stats) = (agent.status(), agent.stats());
        per_port(&status, &stats).iter().for_each(|line| eprintln!("{line}"));
    }
    wrong
}

#[test]
fn operators_host_works_with_the_agent_as_without() {
    if !kernel_datapath("operators_host_works_with_the_agent_as_without") {
        return;
    }
    let fast = days(true);
    if !fast.is_empty() {
        panic!("with the agent:\n{}\nalone:\n{}", fast.join("\n"), days(false).join("\n"));
    }
}
