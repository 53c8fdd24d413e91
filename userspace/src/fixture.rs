//! Small databases and devices for tests.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::links::{Link, LinkKind, Links, Peer, XdpFeatures};
use crate::ovsdb::{BridgeRow, InterfaceRow, MirrorRow, OpenVSwitchRow, PortRow, Rows, Uuid};

/// A database, to be changed by name.
#[derive(Clone, Debug)]
pub(crate) struct Database {
    pub(crate) rows: Rows,
    last: u128,
}

impl Database {
    /// Without bridges, and with everything applied.
    pub(crate) fn new() -> Self {
        let host = OpenVSwitchRow { next_cfg: 1, cur_cfg: 1, ..OpenVSwitchRow::default() };
        Self { rows: Rows { open_vswitch: Some(host), ..Rows::default() }, last: 0 }
    }

    /// Bridge `br0` with access ports `p1` and `p2` in VLAN 10, whose devices have the indices 1 and 2.
    pub(crate) fn small() -> Self {
        let mut database = Self::new();
        database.add_bridge("br0");
        database.add_port("br0", "p1", 1).tag = Some(10);
        database.add_port("br0", "p2", 2).tag = Some(10);
        database
    }

    pub(crate) fn snapshot(&self) -> Arc<Rows> {
        Arc::new(self.rows.clone())
    }

    fn uuid(&mut self) -> Uuid {
        self.last += 1;
        Uuid(self.last)
    }

    pub(crate) fn host(&mut self) -> &mut OpenVSwitchRow {
        self.rows.open_vswitch.as_mut().unwrap()
    }

    pub(crate) fn announce(&mut self) {
        self.host().next_cfg += 1;
    }

    pub(crate) fn confirm(&mut self) {
        self.host().cur_cfg = self.host().next_cfg;
    }

    pub(crate) fn add_bridge(&mut self, name: &str) -> Uuid {
        let uuid = self.uuid();
        let row = BridgeRow { name: name.to_owned(), ..BridgeRow::default() };
        self.rows.bridges.insert(uuid, Arc::new(row));
        self.host().bridges.insert(uuid);
        uuid
    }

    /// A port of the device with this index, which is also its OpenFlow number.
    pub(crate) fn add_port(&mut self, bridge: &str, name: &str, ifindex: u16) -> &mut PortRow {
        let (port, interface) = (self.uuid(), self.uuid());
        let row = InterfaceRow {
            name: name.to_owned(),
            ofport: Some(i64::from(ifindex)),
            ifindex: Some(i64::from(ifindex)),
            ..InterfaceRow::default()
        };
        self.rows.interfaces.insert(interface, Arc::new(row));
        let row = PortRow { name: name.to_owned(), interfaces: [interface].into(), ..PortRow::default() };
        self.rows.ports.insert(port, Arc::new(row));
        self.bridge(bridge).ports.insert(port);
        self.port(name)
    }

    pub(crate) fn add_mirror(&mut self, bridge: &str, name: &str) {
        let uuid = self.uuid();
        let row = MirrorRow { name: name.to_owned(), select_all: true, ..MirrorRow::default() };
        self.rows.mirrors.insert(uuid, Arc::new(row));
        self.bridge(bridge).mirrors.insert(uuid);
    }

    pub(crate) fn bridge(&mut self, name: &str) -> &mut BridgeRow {
        Arc::make_mut(self.rows.bridges.values_mut().find(|row| row.name == name).unwrap())
    }

    pub(crate) fn port(&mut self, name: &str) -> &mut PortRow {
        Arc::make_mut(self.rows.ports.values_mut().find(|row| row.name == name).unwrap())
    }

    pub(crate) fn interface(&mut self, name: &str) -> &mut InterfaceRow {
        Arc::make_mut(self.rows.interfaces.values_mut().find(|row| row.name == name).unwrap())
    }

    pub(crate) fn delete_bridge(&mut self, name: &str) {
        let uuid = *self.rows.bridges.iter().find(|(_, row)| row.name == name).unwrap().0;
        self.rows.bridges.remove(&uuid);
        self.host().bridges.remove(&uuid);
    }

    /// Takes a port from whichever bridge has it, and gives it to another, or to none.
    pub(crate) fn move_port(&mut self, name: &str, to: Option<&str>) {
        let uuid = *self.rows.ports.iter().find(|(_, row)| row.name == name).unwrap().0;
        for bridge in self.rows.bridges.values_mut() {
            Arc::make_mut(bridge).ports.remove(&uuid);
        }
        match to {
            Some(bridge) => drop(self.bridge(bridge).ports.insert(uuid)),
            None => {
                let port = self.rows.ports.remove(&uuid).unwrap();
                self.rows.interfaces.retain(|interface, _| !port.interfaces.contains(interface));
            }
        }
    }
}

/// A tap without virtio header: it takes a program and redirected frames.
pub(crate) fn tap(name: &str, ifindex: u32) -> Link {
    Link {
        ifindex,
        incarnation: 0,
        name: name.to_owned(),
        mtu: 1500,
        up: true,
        carrier: true,
        mac: None,
        kind: LinkKind::Tap { vnet_hdr: false, multi_queue: false },
        master: None,
        xdp: None,
        xdp_features: Some(XdpFeatures(0x7f)),
        rx_vlan_offload: Some(false),
        rx_stag_offload: Some(false),
        tx_vlan_offload: Some(false),
        gro: Some(false),
        peer: None,
        vlan_children: Default::default(),
    }
}

pub(crate) fn nic(name: &str, ifindex: u32) -> Link {
    Link { kind: LinkKind::Physical { driver: "ice".to_owned() }, ..tap(name, ifindex) }
}

pub(crate) fn veth(name: &str, ifindex: u32) -> Link {
    Link { kind: LinkKind::Veth { peer: Peer::Elsewhere }, ..tap(name, ifindex) }
}

/// Taps `p1` to `pN` with the indices 1 to N.
pub(crate) fn taps(count: u32) -> BTreeMap<u32, Link> {
    (1..=count).map(|ifindex| (ifindex, tap(&format!("p{ifindex}"), ifindex))).collect()
}

pub(crate) fn shared(links: &BTreeMap<u32, Link>) -> Links {
    links.iter().map(|(ifindex, link)| (*ifindex, Arc::new(link.clone()))).collect()
}
