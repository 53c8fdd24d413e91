//! A veth between the switch and a namespace beside it.

use trunkline_core::Mac;

use crate::Netns;

/// The device of a host or far end, whose peer is the switch's port.
pub(super) const DEVICE: &str = "eth0";

/// What the kernel says of a device.
pub(super) struct Link {
    pub(super) ifindex: u32,
    pub(super) mac: Mac,
}

impl Link {
    /// Asks.
    pub(super) fn of(netns: &Netns, device: &str) -> Self {
        let links: serde_json::Value =
            serde_json::from_str(&netns.run(&format!("ip -json link show dev {device}")))
                .expect("ip prints JSON");
        let ifindex = links[0]["ifindex"].as_u64().and_then(|index| u32::try_from(index).ok());
        let mac = links[0]["address"].as_str().and_then(|text| text.parse().ok());
        Self { ifindex: ifindex.expect("an interface index"), mac: mac.expect("an Ethernet address") }
    }
}

/// Connects a namespace's `eth0` to a new device `port` of the namespace `switch`, both up.
///
/// GRO makes a veth poll, without which nothing can be redirected to it; it is switched on last, because only then does
/// the kernel tell the other end (Linux `drivers/net/veth.c`, `veth_set_features`). And without tx-vlan-offload a tag
/// is in the frame and not beside it, where XDP would not see it.
pub(super) fn connect(switch: &Netns, port: &str, other: &Netns) {
    switch.run(&format!("ip link add {port} type veth peer name {DEVICE} netns {}", other.name()));
    let ends = [(switch, port), (other, DEVICE)];
    for (netns, device) in ends {
        netns.run(&format!("ip link set {device} up"));
    }
    for (netns, device) in ends {
        netns.run(&format!("ethtool -K {device} gro on txvlan off"));
    }
}
