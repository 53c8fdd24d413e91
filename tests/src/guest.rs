//! Hosts of every kind that sit on a bridge, each with a real TCP/IP stack and its offloads on.
//!
//! A guest is a namespace with a device, and what joins that device to a port: nothing (a veth, an internal port), or
//! a [`Relay`] that does what QEMU does for virtio-net. No kind is a model of another: the port's device, its features
//! and the way its frames enter the switch are those of the real thing.

use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

use crate::guest_counters::{DeviceCounters, checksum_errors, device_counters};
use crate::guest_relay::Relay;
use crate::guest_traffic::End;
use crate::netns::unique_name;
use crate::sys::open_virtio_tap;
use crate::{Netns, Switch, Vlan, run};

/// A guest's device, where it has a namespace and a device of its own.
const DEVICE: &str = "eth0";
const TUN: &str = "/dev/net/tun";

/// What the port is, and what is behind it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum GuestKind {
    /// A tap with virtio headers, and the guest at its descriptor.
    Tap,
    /// One end of a veth, whose other end is the guest's. As a trunk it stands for an uplink.
    Veth,
    /// An internal port of Open vSwitch in the switch's own namespace: the host itself.
    Internal,
    /// An internal port that was moved into the guest's namespace.
    MovedInternal,
    /// An internal port with a macvtap on top, and the guest at the macvtap's descriptor.
    Macvtap,
}

/// A host of some kind.
#[derive(Debug)]
pub struct Guest {
    port: String,
    device: String,
    relay: Option<Relay>,
    netns: Netns,
}

impl Guest {
    /// A guest at a new port of the switch's bridge.
    pub fn connect(switch: &Switch, bridge: &str, kind: GuestKind, port: &str, vlan: &Vlan) -> Self {
        let (netns, columns) = (switch.netns(), vlan.columns().join(" "));
        let add = |options: &str| {
            switch
                .ovs()
                .vsctl(&format!("add-port {bridge} {port} {columns} -- set Interface {port} {options}"))
        };
        let internal = || {
            add("type=internal");
            ip(netns, &format!("link set {port} up"));
        };
        match kind {
            GuestKind::Tap | GuestKind::Veth => {
                let guest =
                    if kind == GuestKind::Tap { Self::tap(netns, port) } else { Self::veth(netns, port) };
                add("external_ids:guest=yes");
                guest
            }
            GuestKind::Internal => {
                internal();
                Self::host(netns, port)
            }
            GuestKind::MovedInternal => {
                internal();
                Self::moved(netns, port)
            }
            GuestKind::Macvtap => {
                internal();
                Self::macvtap(netns, port)
            }
        }
    }

    /// A guest at a new tap `port`, which no bridge knows yet: as QEMU makes it, but up.
    pub fn tap(switch: &Netns, port: &str) -> Self {
        let netns = Netns::new();
        let open = |place: &Netns, name: &str| {
            let fd = place.enter(|| open_virtio_tap(Path::new(TUN), name));
            let fd = fd.unwrap_or_else(|e| panic!("creating tap {name}: {e}"));
            ip(place, &format!("link set {name} up"));
            fd
        };
        let relay = Relay::start(open(switch, port), open(&netns, DEVICE));
        Self { port: port.to_owned(), device: DEVICE.to_owned(), relay: Some(relay), netns }
    }

    /// A guest at a new veth `port`, which no bridge knows yet.
    pub fn veth(switch: &Netns, port: &str) -> Self {
        let netns = Netns::new();
        let peer = format!("peer name {DEVICE} netns {}", netns.name());
        ip(switch, &format!("link add {port} type veth {peer}\nlink set {port} up"));
        ip(&netns, &format!("link set {DEVICE} up"));
        Self { port: port.to_owned(), device: DEVICE.to_owned(), relay: None, netns }
    }

    /// The host itself, at a device that it has.
    pub fn host(switch: &Netns, device: &str) -> Self {
        Self { port: device.to_owned(), device: device.to_owned(), relay: None, netns: switch.share() }
    }

    /// A guest that has the device `port` of the switch moved to it.
    pub fn moved(switch: &Netns, port: &str) -> Self {
        let netns = Netns::new();
        ip(switch, &format!("link set {port} netns {}", netns.name()));
        ip(&netns, &format!("link set {port} up"));
        Self { port: port.to_owned(), device: port.to_owned(), relay: None, netns }
    }

    /// A guest at a new macvtap on top of the switch's device `port`.
    pub fn macvtap(switch: &Netns, port: &str) -> Self {
        let (netns, name) = (Netns::new(), format!("{port}-mvt"));
        // Nobody tells it which groups the guest has joined, as libvirt does with `trustGuestRxFilters`.
        ip(
            switch,
            &format!(
                "link add link {port} name {name} type macvtap mode bridge\nlink set {name} allmulticast on up"
            ),
        );
        let files = format!("cat /sys/class/net/{name}/tap*/dev /sys/class/net/{name}/address");
        let said = run(switch.command("sh").args(["-c", &files]));
        let [number, mac] = said.lines().collect::<Vec<_>>()[..] else { panic!("{name}: {said:?}") };
        let (major, minor) = number.split_once(':').unwrap_or_else(|| panic!("{name}: {number:?}"));
        let [major, minor] = [major, minor].map(|digits| digits.parse().expect("a device number"));
        // The node that the kernel makes is called after the interface's index, which is taken in every namespace.
        let node = std::env::temp_dir().join(unique_name());
        mknodat(CWD, &node, FileType::CharacterDevice, Mode::RWXU, makedev(major, minor)).expect("mknod");
        let port_end = switch.enter(|| open_virtio_tap(&node, ""));
        let _ = fs::remove_file(&node);
        let port_end = port_end.unwrap_or_else(|e| panic!("opening macvtap {name}: {e}"));
        let guest_end = netns.enter(|| open_virtio_tap(Path::new(TUN), DEVICE)).expect("a tap for the guest");
        // The macvtap passes on only what is for its own address.
        ip(&netns, &format!("link set {DEVICE} address {mac} up"));
        let relay = Some(Relay::start(port_end, guest_end));
        Self { port: port.to_owned(), device: DEVICE.to_owned(), relay, netns }
    }

    /// Puts an 802.1Q device on top of its device.
    pub fn stack_vlan(&self, vid: u16) {
        let stacked = self.stacked(Some(vid));
        let add = format!("link add link {} name {stacked} type vlan id {vid}", self.device);
        ip(&self.netns, &format!("{add}\nlink set {stacked} up"));
    }

    /// Gives it addresses in subnet `net`: 10.0.net.host and fd00:net::host; with `vid`, on its 802.1Q device.
    pub fn address(&self, vid: Option<u16>, net: u8, host: u8) -> Place<'_> {
        let device = self.stacked(vid);
        let (v4, v6) = addresses(net, host);
        // IPv6 without all that it says by itself.
        for (setting, value) in [("addr_gen_mode", "1"), ("accept_ra", "0"), ("disable_ipv6", "0")] {
            let path = format!("/proc/sys/net/ipv6/conf/{device}/{setting}");
            self.netns.enter(|| fs::write(&path, value)).unwrap_or_else(|e| panic!("{path}: {e}"));
        }
        ip(&self.netns, &format!("address add {v4}/24 dev {device}\naddress add {v6}/64 dev {device} nodad"));
        Place { guest: self, net, host }
    }

    fn stacked(&self, vid: Option<u16>) -> String {
        vid.map_or_else(|| self.device.clone(), |vid| format!("{}.{vid}", self.device))
    }

    /// Its end of conversations in subnet `net`.
    pub fn at(&self, net: u8, host: u8) -> Place<'_> {
        Place { guest: self, net, host }
    }

    /// `ethtool -K` on its device, for example `gro off`.
    pub fn offload(&self, setting: &str) {
        self.netns.run(&format!("ethtool -K {} {setting}", self.device));
    }

    /// The port's name.
    pub fn port(&self) -> &str {
        &self.port
    }

    /// The namespace of its stack.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// What joins it to its port, if anything does.
    pub fn relay(&self) -> Option<&Relay> {
        self.relay.as_ref()
    }

    /// Frames and octets at its device; a super-frame is one frame.
    pub fn counters(&self) -> DeviceCounters {
        device_counters(&self.netns, &self.device)
    }

    /// Packets with a wrong checksum that its stack has received, of any protocol.
    pub fn checksum_errors(&self) -> u64 {
        checksum_errors(&self.netns)
    }
}

/// A guest's addresses in a subnet.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    guest: &'a Guest,
    net: u8,
    host: u8,
}

impl<'a> Place<'a> {
    /// The guest.
    pub fn guest(&self) -> &'a Guest {
        self.guest
    }

    /// By IPv4.
    pub fn v4(&self) -> End<'a> {
        End { netns: &self.guest.netns, address: IpAddr::V4(addresses(self.net, self.host).0) }
    }

    /// By IPv6.
    pub fn v6(&self) -> End<'a> {
        End { netns: &self.guest.netns, address: IpAddr::V6(addresses(self.net, self.host).1) }
    }
}

/// Runs lines of `ip`, all in one process: on an emulated machine each costs.
fn ip(netns: &Netns, lines: &str) {
    let mut command = Command::new("ip");
    let mut child =
        command.args(["-n", netns.name(), "-batch", "-"]).stdin(Stdio::piped()).spawn().expect("ip runs");
    let written = child.stdin.take().expect("a pipe").write_all(lines.as_bytes());
    let status = child.wait().expect("ip ends");
    assert!(written.is_ok() && status.success(), "ip -n {}: {status}:\n{lines}", netns.name());
}

fn addresses(net: u8, host: u8) -> (Ipv4Addr, Ipv6Addr) {
    let (net6, host6) = (u16::from(net), u16::from(host));
    (Ipv4Addr::new(10, 0, net, host), Ipv6Addr::new(0xfd00, net6, 0, 0, 0, 0, 0, host6))
}
