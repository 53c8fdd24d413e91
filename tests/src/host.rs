//! A host in a namespace of its own, at the far end of a veth.

use crate::Netns;

/// The host's device, whose peer is the switch's port.
const DEVICE: &str = "eth0";

/// A host with an IPv4 address.
#[derive(Debug)]
pub struct Host {
    netns: Netns,
}

impl Host {
    /// Connects a new host to a new device `port` of the namespace `switch`. The host has GRO on, without which
    /// nothing can be redirected to it (Linux `drivers/net/veth.c`: it needs NAPI).
    pub fn connect(switch: &Netns, port: &str, address: &str) -> Self {
        let netns = Netns::new();
        switch.run(&format!("ip link add {port} type veth peer name {DEVICE} netns {}", netns.name()));
        netns.run(&format!("ip address add {address} dev {DEVICE}"));
        let host = Self { netns };
        host.offload("gro on");
        host.netns.run(&format!("ip link set {DEVICE} up"));
        switch.run(&format!("ip link set {port} up"));
        host
    }

    /// `ethtool -K` on its device, for example `tx off`.
    pub fn offload(&self, setting: &str) {
        self.netns.run(&format!("ethtool -K {DEVICE} {setting}"));
    }

    /// The namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// TCP and UDP segments with a wrong checksum that its kernel has seen (`/proc/net/snmp`).
    pub fn checksum_errors(&self) -> u64 {
        let snmp = self.netns.enter(|| std::fs::read_to_string("/proc/thread-self/net/snmp")).expect("/proc");
        ["Tcp", "Udp"].iter().map(|protocol| counter(&snmp, protocol, "InCsumErrors")).sum()
    }
}

/// A counter of `/proc/net/snmp`: a line of names above a line of values.
fn counter(snmp: &str, protocol: &str, name: &str) -> u64 {
    let mut lines = snmp.lines().filter(|line| line.split(':').next() == Some(protocol));
    let (names, values) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let pair = names.split_whitespace().zip(values.split_whitespace()).find(|(column, _)| *column == name);
    pair.and_then(|(_, value)| value.parse().ok()).unwrap_or_else(|| panic!("no {protocol} {name} in {snmp}"))
}
