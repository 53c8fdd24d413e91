use super::*;
use crate::fixture::{Database, nic, shared, tap, taps, veth};
use crate::links::{LinkKind, Peer, PeerFacts, VlanChild, XdpAttachment, XdpMode};
use crate::ovsdb::{FlowSampleCollectorSetRow, ManagerRow, MirrorRow};
use trunkline_core::{Vid, VidSet};

mod hook;

struct Scene {
    database: Database,
    links: BTreeMap<u32, Link>,
    facts: BridgeFacts,
    selected: Vec<String>,
    vlan_devices_possible: bool,
    tcx: bool,
    without_xdp: BTreeMap<u32, Reason>,
}

impl Scene {
    fn compile(&self) -> Vec<DesiredBridge> {
        let facts = [("br0".to_owned(), self.facts.clone())].into();
        compile(&World {
            rows: &self.database.rows,
            links: &shared(&self.links),
            facts: &facts,
            selected: &self.selected,
            our_program: Some(7),
            vlan_devices_possible: self.vlan_devices_possible,
            tcx: self.tcx,
            without_xdp: &self.without_xdp,
        })
    }
}

/// `br0` with `p1` and `p2`, changed.
fn scene(change: impl FnOnce(&mut Scene)) -> Scene {
    let facts = BridgeFacts { flow_table: FlowTable::NormalOnly, port_flags: BTreeMap::new() };
    let mut scene = Scene {
        database: Database::small(),
        links: taps(3),
        facts,
        selected: Vec::new(),
        vlan_devices_possible: true,
        tcx: false,
        without_xdp: BTreeMap::new(),
    };
    change(&mut scene);
    scene
}

/// `br0`, changed.
fn bridge(change: impl FnOnce(&mut Scene)) -> DesiredBridge {
    scene(change).compile().swap_remove(0)
}

/// Port `p1`, of a bridge that is accelerated and whose other port is too.
fn port(change: impl FnOnce(&mut Scene)) -> DesiredPort {
    let mut bridge = bridge(change);
    assert_eq!(bridge.reason, None, "a port's settings are no matter of its bridge");
    assert!(bridge.ports[1].rules.is_ok(), "nor of other ports");
    bridge.ports.swap_remove(0)
}

fn set(map: &mut BTreeMap<String, String>, key: &str, value: &str) {
    map.insert(key.to_owned(), value.to_owned());
}

#[test]
fn plain_bridge_is_accelerated_with_all_its_ports() {
    let plain = bridge(|_| {});
    assert_eq!((plain.name.as_str(), plain.datapath.as_str()), ("br0", "system"));
    assert_eq!((plain.reason, plain.eligible, plain.table_size), (None, true, 8192));
    assert_eq!(plain.times, BridgeTimes { refresh_s: 150, ageing_s: 300 });
    let names: Vec<_> = plain.ports.iter().map(|port| port.name.as_str()).collect();
    assert_eq!(names, ["p1", "p2"]);
    for port in plain.ports {
        let rules = port.rules.unwrap();
        assert_eq!((rules.pvid, rules.untagged, rules.mtu, rules.learning_limit), (10, 10, 1500, 8192));
        assert!(rules.has(abi::PORT_VALID) && rules.has(abi::PORT_TARGET));
        assert!(rules.has(abi::PORT_PARTIAL_CHECKSUMS) && !rules.has(abi::PORT_PROTECTED));
    }
}

#[test]
fn every_setting_of_a_bridge_that_is_not_mirrored_gates_the_bridge() {
    type Case = (fn(&mut Scene), &'static str);
    let cases: [Case; 26] = [
        (|s| s.selected.push("br1".into()), "--bridge"),
        (|s| set(&mut s.database.host().other_config, "flow-restore-wait", "true"), "flow-restore-wait"),
        (|s| set(&mut s.database.host().other_config, "hw-offload", "true"), "hw-offload"),
        (|s| set(&mut s.database.host().other_config, "flow-restore-wait", "True"), "flow-restore-wait"),
        (|s| set(&mut s.database.host().other_config, "hw-offload", "TRUE"), "hw-offload"),
        (|s| s.database.bridge("br0").datapath_type = "odd".into(), "datapath_type odd"),
        (
            |s| s.database.add_mirror("br0", "m0"),
            "mirror m0 copies its traffic; `ovs-vsctl clear bridge br0 mirrors`",
        ),
        (|s| s.database.bridge("br0").controller.extend([Uuid(99)]), "Bridge.controller"),
        (|s| s.database.bridge("br0").flow_tables.extend([(0, Uuid(99))]), "Bridge.flow_tables"),
        (|s| s.database.bridge("br0").stp_enable = true, "Bridge.stp_enable"),
        (|s| s.database.bridge("br0").rstp_enable = true, "Bridge.rstp_enable"),
        (|s| s.database.bridge("br0").netflow = Some(Uuid(99)), "Bridge.netflow"),
        (|s| s.database.bridge("br0").sflow = Some(Uuid(99)), "Bridge.sflow"),
        (|s| s.database.bridge("br0").ipfix = Some(Uuid(99)), "Bridge.ipfix"),
        (|s| s.database.bridge("br0").auto_attach = Some(Uuid(99)), "Bridge.auto_attach"),
        (sampled, "IPFIX"),
        (|s| manager(s, "tcp:10.0.0.1:6640", None), "manager tcp:10.0.0.1:6640 is in-band"),
        (|s| manager(s, "ssl:10.0.0.1:6640", Some("in-band")), "manager ssl:10.0.0.1:6640 is in-band"),
        (|s| s.facts.flow_table = FlowTable::Empty, "no OpenFlow flow"),
        (
            |s| s.facts.flow_table = FlowTable::Other { first: "priority=1,actions=drop".into(), count: 3 },
            "3 OpenFlow flow(s) other than the plain NORMAL one, the first: priority=1,actions=drop",
        ),
        (|s| s.selected.extend(["br2".into(), "br3".into()]), "--bridge"),
        (|s| s.database.bridge("br0").datapath_type = "dpdk".into(), "dpdk"),
        (
            |s| {
                s.database.add_mirror("br0", "m0");
                s.database.bridge("br0").stp_enable = true;
            },
            "mirror m0",
        ),
        (|s| manager(s, "tcp:[2001:db8::1]:6640", None), "in-band"),
        (|s| s.database.bridge("br0").controller.extend([Uuid(1), Uuid(2)]), "controller"),
        (|s| s.database.bridge("br0").flow_tables.extend([(254, Uuid(9))]), "flow_tables"),
    ];
    for (change, sentence) in cases {
        let reason = bridge(change).reason.expect("a reason").to_string();
        assert!(reason.contains(sentence), "{sentence}: {reason}");
    }
}

fn sampled(scene: &mut Scene) {
    let bridge = *scene.database.rows.bridges.keys().next().unwrap();
    let row = FlowSampleCollectorSetRow { bridge: Some(bridge) };
    scene.database.rows.flow_sample_collector_sets.insert(Uuid(99), Arc::new(row));
}

fn manager(scene: &mut Scene, target: &str, mode: Option<&str>) {
    let row = ManagerRow { target: target.to_owned(), connection_mode: mode.map(str::to_owned) };
    scene.database.rows.managers.insert(Uuid(98), Arc::new(row));
    scene.database.host().manager_options.insert(Uuid(98));
}

#[test]
fn settings_without_effect_on_known_unicast_gate_nothing() {
    let cases: [fn(&mut Scene); 10] = [
        |s| s.selected.push("br0".into()),
        |s| s.database.bridge("br0").datapath_type = "netdev".into(),
        |s| s.database.bridge("br0").mcast_snooping_enable = true,
        |s| s.database.bridge("br0").fail_mode = Some("secure".into()),
        |s| set(&mut s.database.bridge("br0").other_config, "forward-bpdu", "true"),
        |s| manager(s, "ptcp:6640", None),
        |s| manager(s, "tcp:127.0.0.1:6640", None),
        |s| manager(s, "tcp:10.0.0.1:6640", Some("out-of-band")),
        |s| {
            manager(s, "tcp:10.0.0.1:6640", None);
            set(&mut s.database.bridge("br0").other_config, "disable-in-band", "true");
        },
        |s| set(&mut s.database.host().other_config, "hw-offload", "false"),
    ];
    for (place, change) in cases.into_iter().enumerate() {
        assert_eq!(bridge(change).reason, None, "case {place}");
    }
}

#[test]
fn only_settings_decide_whether_flows_are_asked_for() {
    assert!(!bridge(|s| s.database.bridge("br0").controller.extend([Uuid(99)])).eligible);
    assert!(bridge(|s| s.facts.flow_table = FlowTable::Empty).eligible);
}

/// What becomes of the bridge and of p1 and p2 with a mirror; `choose` gets the rows of p1 and p2.
fn with_mirror(choose: fn(&mut MirrorRow, [Uuid; 2])) -> (Option<Reason>, [Option<Reason>; 2]) {
    let scene = scene(|s| {
        s.database.add_mirror("br0", "m0");
        let place =
            |name| s.database.rows.ports.iter().find(|(_, row)| row.name == name).map(|(uuid, _)| *uuid);
        let ports = ["p1", "p2"].map(|name| place(name).unwrap());
        let mirror = Arc::make_mut(s.database.rows.mirrors.values_mut().next().unwrap());
        mirror.select_all = false;
        choose(mirror, ports);
    });
    let mut bridges = scene.compile();
    let bridge = bridges.remove(0);
    let ports: Vec<_> = bridge.ports.into_iter().map(|port| port.rules.err()).collect();
    (bridge.reason, ports.try_into().unwrap())
}

#[test]
fn a_mirror_gates_the_ports_that_it_has_to_do_with() {
    let selected = |reason: &Option<Reason>| matches!(reason, Some(Reason::Mirrored { mirror, bridge }) if mirror == "m0" && bridge == "br0");
    let output = |reason: &Option<Reason>| matches!(reason, Some(Reason::MirrorOutput { mirror, bridge }) if mirror == "m0" && bridge == "br0");
    let (bridge, [p1, p2]) = with_mirror(|mirror, [p1, _]| mirror.select_src_port = [p1].into());
    assert!(bridge.is_none() && selected(&p1) && p2.is_none(), "{bridge:?} {p1:?} {p2:?}");
    let (bridge, [p1, p2]) = with_mirror(|mirror, [p1, p2]| {
        mirror.select_dst_port.insert(p2);
        mirror.output_port = Some(p1);
        mirror.select_vlan.insert(10);
    });
    assert!(bridge.is_none() && output(&p1) && selected(&p2), "{bridge:?} {p1:?} {p2:?}");
    let (bridge, [p1, p2]) = with_mirror(|_, _| {});
    assert_eq!((bridge, p1, p2), (None, None, None), "it selects nothing");
    for choose in [
        |mirror: &mut MirrorRow, _| mirror.select_all = true,
        |mirror: &mut MirrorRow, [p1, _]: [Uuid; 2]| {
            mirror.select_src_port.insert(p1);
            mirror.output_vlan = Some(20);
        },
    ] {
        assert!(selected(&with_mirror(choose).0));
    }
}

#[test]
fn every_setting_of_a_port_that_is_not_mirrored_gates_that_port() {
    type Case = (fn(&mut Scene), &'static str);
    let cases: [Case; 31] = [
        (|s| s.database.interface("p1").r#type = "internal".into(), "it is an internal port"),
        (|s| s.database.interface("p1").r#type = "patch".into(), "it is a patch port"),
        (|s| s.database.interface("p1").r#type = "vxlan".into(), "its type is vxlan"),
        (|s| s.database.interface("p1").r#type = "dpdk".into(), "its type is dpdk"),
        (|s| s.database.port("p1").bond_fake_iface = true, "Port.bond_fake_iface"),
        (|s| s.database.port("p1").lacp = Some("active".into()), "Port.lacp"),
        (|s| s.database.port("p1").qos = Some(Uuid(99)), "Port.qos"),
        (|s| s.database.interface("p1").ingress_policing_rate = 1, "Interface.ingress_policing_rate"),
        (|s| s.database.interface("p1").ingress_policing_kpkts_rate = 1, "ingress policing"),
        (|s| set(&mut s.database.interface("p1").bfd, "enable", "true"), "Interface.bfd"),
        (|s| s.database.interface("p1").cfm_mpid = Some(1), "Interface.cfm_mpid"),
        (|s| set(&mut s.database.interface("p1").lldp, "enable", "true"), "Interface.lldp"),
        (
            |s| set(&mut s.database.interface("p1").external_ids, "trunkline-hook", "none"),
            "trunkline-hook=none",
        ),
        (
            |s| set(&mut s.database.interface("p1").external_ids, "trunkline-hook", "magic"),
            "magic is not supported",
        ),
        (|s| flags(s, |flags| flags.no_receive = true), "no-receive"),
        (|s| flags(s, |flags| flags.no_forward = true), "no-forward"),
        (|s| flags(s, |flags| flags.no_flood = true), "no-flood"),
        (|s| s.database.interface("p1").error = Some("it burns".into()), "Open vSwitch reports: it burns"),
        (|s| s.database.interface("p1").ofport = None, "not opened its device"),
        (|s| s.database.interface("p1").ofport = Some(-1), "not opened its device"),
        (|s| drop(s.links.remove(&1)), "there is no device p1"),
        (|s| s.database.interface("p1").ifindex = Some(77), "its device p1 is new"),
        (|s| link(s, |link| link.kind = LinkKind::Bond), "kernel bond"),
        (|s| link(s, |link| link.kind = LinkKind::Bridge), "Linux bridge"),
        (
            |s| link(s, |link| link.xdp = Some(XdpAttachment { prog_id: 8, mode: XdpMode::Native })),
            "another XDP program (id 8)",
        ),
        (|s| link(s, |link| link.kind = LinkKind::Tap { vnet_hdr: true, multi_queue: false }), "vnet_hdr"),
        (|s| drop(s.links.insert(1, veth("p1", 1))), "another namespace and may hide tags"),
        (
            |s| {
                s.links.insert(1, veth("p1", 1));
                link(s, |link| link.kind = LinkKind::Veth { peer: Peer::Here(9) });
            },
            "tx-vlan-offload, which hides tags",
        ),
        (
            |s| {
                let port = s.database.port("p1");
                port.vlan_mode = Some("dot1q-tunnel".into());
            },
            "vlan_mode=dot1q-tunnel",
        ),
        (
            |s| {
                s.links.insert(1, nic("p1", 1));
                link(s, |link| link.rx_vlan_offload = Some(true));
            },
            "rx-vlan-offload, which hides tags from XDP, is being switched off",
        ),
        (
            |s| {
                let more = *s.database.rows.ports.iter().find(|(_, row)| row.name == "p2").unwrap().0;
                let more = s.database.rows.ports[&more].interfaces.clone();
                s.database.port("p1").interfaces.extend(more);
            },
            "a bond of 2 interfaces",
        ),
    ];
    for (change, sentence) in cases {
        let reason = port(change).rules.expect_err("a reason").to_string();
        assert!(reason.contains(sentence), "{sentence}: {reason}");
    }
}

fn flags(scene: &mut Scene, change: fn(&mut PortFlags)) {
    change(scene.facts.port_flags.entry(1).or_default());
}

fn link(scene: &mut Scene, change: fn(&mut Link)) {
    link_of(scene, 1, change);
}

fn link_of(scene: &mut Scene, ifindex: u32, change: fn(&mut Link)) {
    change(scene.links.get_mut(&ifindex).unwrap());
}

#[test]
fn settings_without_effect_on_forwarding_gate_no_port() {
    let cases: [fn(&mut Scene); 7] = [
        |s| s.database.port("p1").lacp = Some("off".into()),
        |s| set(&mut s.database.interface("p1").bfd, "enable", "false"),
        |s| s.database.interface("p1").ifindex = None,
        |s| drop(s.facts.port_flags.insert(1, PortFlags { name: "p1".into(), ..PortFlags::default() })),
        |s| link(s, |link| link.xdp = Some(XdpAttachment { prog_id: 7, mode: XdpMode::Native })),
        |s| {
            s.links.insert(1, veth("p1", 1));
            s.vlan_devices_possible = false;
        },
        |s| {
            s.links.insert(1, veth("p1", 1));
            set(&mut s.database.interface("p1").external_ids, "trunkline-hook", "xdp");
        },
    ];
    for (place, change) in cases.into_iter().enumerate() {
        assert_eq!(port(change).rules.err(), None, "case {place}");
    }
}

#[test]
fn a_veth_whose_peer_keeps_its_tags_in_the_frame_is_accelerated() {
    let port = port(|scene| {
        let peer = PeerFacts { mtu: 1500, polls: Some(true), tx_vlan_offload: Some(false) };
        let kind = LinkKind::Veth { peer: Peer::Here(9) };
        scene.links.insert(1, Link { kind, peer: Some(peer), ..tap("p1", 1) });
    });
    assert_eq!(port.rules.err(), None);
}

#[test]
fn a_port_that_cannot_be_sent_to_is_accelerated_one_way() {
    let port = port(|scene| link(scene, |link| link.xdp_features = Some(crate::links::XdpFeatures(0x3))));
    assert!(port.not_a_target.unwrap().to_string().contains("no redirected frames"));
    assert!(!port.rules.unwrap().has(abi::PORT_TARGET));
}

#[test]
fn vlans_of_the_host_and_flooded_ones_are_excluded() {
    let port = port(|scene| {
        scene.database.bridge("br0").flood_vlans.insert(30);
        let vid = Vid::new(40).unwrap();
        link(scene, |_| {});
        scene.links.get_mut(&1).unwrap().vlan_children.insert(VlanChild { vid, ethertype: 0x8100 });
    });
    let rules = port.rules.unwrap();
    let excluded: VidSet = [30, 40].into_iter().filter_map(Vid::new).collect();
    assert!(rules.has(abi::PORT_HAS_EXCLUDED) && rules.excluded == excluded);
}

#[test]
fn protection_is_mirrored() {
    assert!(port(|s| s.database.port("p1").protected = true).rules.unwrap().has(abi::PORT_PROTECTED));
}

#[test]
fn ageing_and_table_size_are_read_as_open_vswitch_does() {
    for (text, ageing_s) in [
        ("60", 60),
        ("1", 15),
        ("9999", 3600),
        ("0", 300),
        ("-4", 15),
        ("soon", 300),
        (" 20", 20),
        ("20 ", 300),
    ] {
        let bridge = bridge(|s| set(&mut s.database.bridge("br0").other_config, "mac-aging-time", text));
        assert_eq!(bridge.times, BridgeTimes { refresh_s: ageing_s / 2, ageing_s }, "{text}");
    }
    for (text, size) in [("5", 10), ("2000000", 1_000_000), ("100", 100), ("", 8192)] {
        let bridge = bridge(|s| set(&mut s.database.bridge("br0").other_config, "mac-table-size", text));
        assert_eq!((bridge.table_size, bridge.ports[0].rules.as_ref().unwrap().learning_limit), (size, size));
    }
}

#[test]
fn rows_that_no_bridge_refers_to_and_an_empty_database_are_nothing() {
    assert!(scene(|s| s.database.rows.open_vswitch = None).compile().is_empty());
    assert!(scene(|s| s.database.host().bridges.clear()).compile().is_empty());
    assert!(bridge(|s| s.database.rows.ports.clear()).ports.is_empty());
    let bond = bridge(|s| s.database.rows.interfaces.clear());
    assert!(bond.ports[0].rules.as_ref().unwrap_err().to_string().contains("0 interfaces"));
}
