//! The network of the demo: one bridge, hosts on access and native ports, far ends of trunks, and ports that are left
//! to Open vSwitch.

use std::net::Ipv4Addr;

use trunkline_core::{Mac, Vid};

use super::answer::Station;
use super::far_end::FarEnd;
use super::link::{DEVICE, Link, connect};
use crate::{BRIDGE, Netns, Ovs, Vlan};

/// VLANs on the uplink.
const UPLINK_VLANS: [u16; 4] = [2, 3, 6, 100];

/// A host in a namespace of its own.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) port: &'static str,
    pub(super) netns: Netns,
    pub(super) mac: Mac,
}

/// Who pings whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Flow {
    pub(super) from: &'static str,
    pub(super) to: &'static str,
    pub(super) to_port: &'static str,
    pub(super) address: Ipv4Addr,
    pub(super) vid: u16,
    /// Both ports are ones that trunkline accelerates.
    pub(super) fast: bool,
}

const fn flow(from: &'static str, to: &'static str, to_port: &'static str, vid: u16, host: u8) -> Flow {
    Flow { from, to, to_port, address: address(vid, host), vid, fast: true }
}

/// Every kind of pair, the internal port last.
pub(super) const FLOWS: [Flow; 9] = [
    flow("h2", "far2", "uplink", 2, 1),
    flow("h3", "far3", "uplink", 3, 1),
    flow("h6", "far6", "uplink", 6, 1),
    flow("h100", "far100", "uplink", 100, 1),
    flow("nu3", "h3", "h3", 3, 10),
    flow("nu3", "far3", "uplink", 3, 1),
    flow("h6", "lab6", "lab", 6, 30),
    flow("h100", "lab100", "lab", 100, 30),
    Flow { fast: false, ..flow("h100", "mgmt", "mgmt", 100, 40) },
];

/// The hosts' addresses are in one network of IP, so that nothing but VLANs keeps them apart.
const fn address(vid: u16, host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, vid as u8, host)
}

/// An address of a host in another VLAN than `h2`.
pub(super) const OUT_OF_REACH: Ipv4Addr = address(3, 10);

/// See the module. Fields are dropped in this order.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) hosts: Vec<Host>,
    pub(super) uplink: FarEnd,
    _lab: FarEnd,
    pub(super) ovs: Ovs,
    pub(super) netns: Netns,
}

impl Network {
    /// The ports that trunkline accelerates.
    pub(super) const FAST_PORTS: [&str; 7] = ["uplink", "h2", "h3", "h6", "h100", "nu3", "lab"];

    /// Builds all of it on a running Open vSwitch.
    pub(super) fn build(netns: Netns, ovs: Ovs) -> Self {
        ovs.vsctl(&format!("add-br {BRIDGE} -- set Bridge {BRIDGE} datapath_type={}", Ovs::datapath_type()));
        let far = UPLINK_VLANS.map(|vid| station(vid, 1, false)).to_vec();
        let uplink = FarEnd::connect(&netns, "uplink", far);
        add_port(&ovs, "uplink", &Vlan::Trunk(UPLINK_VLANS.to_vec()));
        // The native VLAN of this port is 6: its station may leave the tag out, and gets it nevertheless.
        let lab = FarEnd::connect(&netns, "lab", vec![station(6, 30, true), station(100, 30, false)]);
        add_port(&ovs, "lab", &Vlan::NativeTagged(6, vec![100]));
        let host = |port, vlan, address| {
            let host = Host::connect(&netns, port, address);
            add_port(&ovs, port, &vlan);
            host
        };
        let hosts = vec![
            host("h2", Vlan::Access(2), address(2, 10)),
            host("h3", Vlan::Access(3), address(3, 10)),
            host("h6", Vlan::Access(6), address(6, 10)),
            host("h100", Vlan::Access(100), address(100, 10)),
            host("nu3", Vlan::NativeUntagged(3, vec![6, 100]), address(3, 20)),
        ];
        left_to_open_vswitch(&netns, &ovs);
        Self { hosts, uplink, _lab: lab, ovs, netns }
    }

    /// A host by its port.
    pub(super) fn host(&self, port: &str) -> &Host {
        self.hosts.iter().find(|host| host.port == port).expect("a host of the demo")
    }
}

/// Two kinds of ports that are not accelerated: a guest's tap with a virtio header, and an internal port.
fn left_to_open_vswitch(netns: &Netns, ovs: &Ovs) {
    netns.run("ip tuntap add dev vm0 mode tap vnet_hdr");
    netns.run("ip link set vm0 up");
    ovs.vsctl(&format!("add-port {BRIDGE} vm0 tag=2"));
    ovs.vsctl(&format!("add-port {BRIDGE} mgmt tag=100 -- set Interface mgmt type=internal"));
    netns.run(&format!("ip address add {}/16 dev mgmt", address(100, 40)));
    netns.run("ip link set mgmt up");
}

fn add_port(ovs: &Ovs, name: &str, vlan: &Vlan) {
    // Tags are in the frames of all our veths (`connect`); the agent cannot see that of a peer in another namespace.
    let word = format!("set Interface {name} external_ids:trunkline-hook=xdp");
    ovs.vsctl(&format!("add-port {BRIDGE} {name} {} -- {word}", vlan.columns().join(" ")));
}

impl Host {
    fn connect(switch: &Netns, port: &'static str, address: Ipv4Addr) -> Self {
        let netns = Netns::new();
        connect(switch, port, &netns);
        netns.run(&format!("ip address add {address}/16 dev {DEVICE}"));
        let mac = Link::of(&netns, DEVICE).mac;
        Self { port, netns, mac }
    }
}

fn station(vid: u16, host: u8, native: bool) -> Station {
    let vid = Vid::new(vid).expect("a VLAN of the demo");
    Station { vid, mac: station_mac(vid.get(), host), address: address(vid.get(), host), native }
}

/// The address of a station beyond a trunk.
pub(super) fn station_mac(vid: u16, host: u8) -> Mac {
    Mac::new([0x02, 0, 0, 0, vid as u8, host])
}
