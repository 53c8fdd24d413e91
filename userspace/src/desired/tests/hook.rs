use super::*;

/// The hook of port `p1` in `status`'s word, and the reason for it or against any.
fn hook(change: impl FnOnce(&mut Scene)) -> (&'static str, String) {
    let port = bridge(|scene| {
        scene.tcx = true;
        change(scene);
    })
    .ports
    .into_iter()
    .find(|port| port.name != "p2")
    .unwrap();
    match (port.rules, port.hook) {
        (Ok(_), Some(Chosen { hooks, reason })) => (hooks.label(), reason),
        (rules, _) => ("none", rules.unwrap_err().to_string()),
    }
}

fn internal(scene: &mut Scene) {
    scene.database.interface("p1").r#type = "internal".into();
    without_xdp(scene);
    link(scene, |link| link.kind = LinkKind::OpenVSwitch);
}

fn guest(scene: &mut Scene) {
    link(scene, |link| link.kind = LinkKind::Tap { vnet_hdr: true, multi_queue: false });
}

fn container(scene: &mut Scene) {
    scene.links.insert(1, veth("p1", 1));
}

fn hiding_container(scene: &mut Scene) {
    let peer = PeerFacts { mtu: 1500, polls: Some(true), tx_vlan_offload: Some(true) };
    let kind = LinkKind::Veth { peer: Peer::Here(9) };
    scene.links.insert(1, Link { kind, peer: Some(peer), ..tap("p1", 1) });
}

fn uplink(scene: &mut Scene) {
    scene.links.insert(1, nic("p1", 1));
}

fn without_xdp(scene: &mut Scene) {
    link(scene, |link| link.xdp_features = Some(crate::links::XdpFeatures(0)));
}

fn netdev(s: &mut Scene) {
    s.database.bridge("br0").datapath_type = "netdev".into();
}

fn no_tcx(s: &mut Scene) {
    s.tcx = false;
}

fn no_vlans(s: &mut Scene) {
    s.vlan_devices_possible = false;
}

fn rx_vlan(s: &mut Scene) {
    link(s, |link| link.rx_vlan_offload = Some(true));
}

fn plain(s: &mut Scene) {
    set(&mut s.database.interface("p1").external_ids, "trunkline-hook", "xdp");
}

fn both(s: &mut Scene) {
    set(&mut s.database.interface("p1").external_ids, "trunkline-hook", "xdp+tc");
}

fn refused(s: &mut Scene) {
    s.without_xdp.insert(1, Reason::XdpRefused { cause: "too large an MTU".into() });
}

fn with_another_program(scene: &mut Scene) {
    link(scene, |link| link.xdp = Some(XdpAttachment { prog_id: 8, mode: XdpMode::Native }));
}

#[test]
fn the_hook_follows_from_facts() {
    type Case = (&'static [fn(&mut Scene)], &'static str, &'static str);
    let cases: [Case; 25] = [
        (&[uplink], "xdp+tc", "native XDP, and tc sends where XDP cannot"),
        (&[uplink, no_tcx], "xdp-native", "native XDP"),
        (&[uplink, netdev], "xdp-native", "native XDP"),
        (&[uplink, without_xdp], "tc", "XDP is not possible: its driver has no native XDP"),
        (&[uplink, without_xdp, rx_vlan], "tc", "XDP is not possible"),
        (&[uplink, refused], "tc", "XDP is not possible: too large an MTU"),
        (&[uplink, refused, no_tcx], "none", "too large an MTU"),
        (&[uplink, with_another_program], "tc", "another XDP program (id 8)"),
        (&[uplink, without_xdp, no_tcx], "none", "no native XDP"),
        (&[], "xdp+tc", "no virtio header"),
        (&[no_tcx], "xdp-native", "no virtio header"),
        (&[without_xdp], "tc", "XDP is not possible"),
        (&[guest], "tc", "virtio header (vnet_hdr), whose offloads tc keeps"),
        (&[guest, no_tcx], "none", "no tcx (Linux 6.6)"),
        (&[guest, netdev], "none", "datapath_type=netdev"),
        (&[container], "tc", "offloads of a veth"),
        (
            &[container, no_tcx, no_vlans],
            "xdp-native",
            "no tcx (Linux 6.6); frames with an unfinished checksum",
        ),
        (&[container, no_tcx], "none", "may hide tags"),
        (&[container, netdev, no_vlans], "xdp-native", "datapath_type=netdev"),
        (&[internal], "tc", "an internal port, and the host sends through tc"),
        (&[internal, no_tcx], "none", "no tcx (Linux 6.6)"),
        (&[internal, netdev], "none", "it is an internal port, and the userspace datapath"),
        (&[|s| s.database.interface("p1").r#type = "internal".into()], "none", "its device p1 is none"),
        (&[|s| link(s, |link| link.kind = LinkKind::Bond)], "none", "kernel bond"),
        (&[|s| link(s, |link| link.kind = LinkKind::OpenVSwitch)], "none", "internal port"),
    ];
    for (changes, expected, sentence) in cases {
        let (hook, reason) = hook(|scene| changes.iter().for_each(|change| change(scene)));
        assert!(hook == expected && reason.contains(sentence), "{expected}, {sentence}: {hook}, {reason}");
    }
}

#[test]
fn the_operator_has_the_last_word_as_far_as_it_is_possible() {
    type Case = (&'static str, &'static [fn(&mut Scene)], &'static str, &'static str);
    let cases: [Case; 17] = [
        ("xdp", &[container], "xdp-native", "trunkline-hook=xdp is set"),
        ("xdp", &[hiding_container], "none", "its veth peer has tx-vlan-offload"),
        ("xdp", &[guest], "xdp-native", "trunkline-hook=xdp is set"),
        ("xdp", &[guest, netdev], "xdp-native", "trunkline-hook=xdp is set"),
        (
            "xdp",
            &[without_xdp],
            "none",
            "trunkline-hook=xdp cannot be had: this kernel's taps have no native XDP",
        ),
        ("xdp", &[internal], "none", "trunkline-hook=xdp cannot be had: an internal port has no XDP"),
        ("xdp+tc", &[internal], "none", "an internal port has no XDP"),
        ("tc", &[internal], "tc", "trunkline-hook=tc is set"),
        ("tc", &[uplink], "tc", "trunkline-hook=tc is set"),
        ("tc", &[netdev], "none", "trunkline-hook=tc cannot be had: the userspace datapath"),
        ("tc", &[no_tcx], "none", "trunkline-hook=tc cannot be had: this kernel has no tcx"),
        ("tc", &[|s| link(s, |link| link.kind = LinkKind::Bond)], "none", "kernel bond"),
        ("xdp+tc", &[uplink], "xdp+tc", "trunkline-hook=xdp+tc is set"),
        ("xdp+tc", &[container], "xdp+tc", "trunkline-hook=xdp+tc is set"),
        ("xdp+tc", &[no_tcx], "none", "no tcx"),
        ("xdp+tc", &[with_another_program], "none", "another XDP program"),
        ("none", &[uplink], "none", "trunkline-hook=none is set"),
    ];
    for (word, changes, expected, sentence) in cases {
        let (hook, reason) = hook(|scene| {
            changes.iter().for_each(|change| change(scene));
            set(&mut scene.database.interface("p1").external_ids, "trunkline-hook", word);
        });
        assert!(hook == expected && reason.contains(sentence), "{word}, {sentence}: {hook}, {reason}");
    }
}

#[test]
fn rules_tell_the_programs_how_each_port_is_reached() {
    let rules = |changes: &[fn(&mut Scene)]| {
        bridge(|scene| {
            scene.tcx = true;
            changes.iter().for_each(|change| change(scene));
        })
        .ports
        .swap_remove(0)
        .rules
        .unwrap()
    };
    let tc = abi::PORT_TC_TARGET | abi::PORT_ACCEPTS_GSO;
    let all = abi::PORT_TARGET | tc | abi::PORT_INTERNAL | abi::PORT_TC_FOLLOWS;
    type Case = (&'static [fn(&mut Scene)], u16);
    let cases: [Case; 6] = [
        (&[], abi::PORT_TARGET | abi::PORT_TC_TARGET | abi::PORT_TC_FOLLOWS),
        (&[plain], abi::PORT_TARGET | abi::PORT_TC_TARGET),
        (&[|s| s.tcx = false], abi::PORT_TARGET),
        (&[container, |s| link(s, |link| link.xdp_features = Some(crate::links::XdpFeatures(0x3)))], tc),
        (&[internal], abi::PORT_TC_TARGET | abi::PORT_INTERNAL),
        (&[both], abi::PORT_TARGET | abi::PORT_TC_TARGET | abi::PORT_TC_FOLLOWS),
    ];
    for (changes, flags) in cases {
        let rules = rules(changes);
        assert_eq!((rules.flags & all, rules.ifindex), (flags, 1));
    }
}

#[test]
fn vlan_devices_on_an_internal_port_are_behind_it() {
    let port = port(|scene| {
        scene.tcx = true;
        internal(scene);
        let vid = Vid::new(40).unwrap();
        scene.links.get_mut(&1).unwrap().vlan_children.insert(VlanChild { vid, ethertype: 0x8100 });
    });
    assert!(!port.rules.unwrap().has(abi::PORT_HAS_EXCLUDED));
}

#[test]
fn that_xdp_cannot_send_to_a_port_is_no_news_where_nobody_uses_it() {
    let change = |scene: &mut Scene| {
        scene.tcx = true;
        internal(scene);
    };
    assert_eq!(port(change).not_a_target, None, "tc sends what p2's XDP cannot");
    let port = port(|scene| {
        change(scene);
        set(&mut scene.database.interface("p2").external_ids, "trunkline-hook", "xdp");
    });
    assert!(port.not_a_target.unwrap().to_string().contains("no redirected frames"));
}
