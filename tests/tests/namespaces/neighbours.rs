//! Ports that are not accelerated next to ports that are, and what else shares the host with the bridge.

use std::fs;

use trunkline_core::Tpid;
use trunkline_tests::{BRIDGE, Frame, Switch, Vlan, output, say, station, tag};

use crate::tape::{converse, same_with_and_without, three_access_ports};

/// A test that cannot run on this kernel: said so that it is counted.
fn skip(name: &str, reason: &str) {
    say(&format!("skipped: {name}: {reason}"));
}

#[test]
fn stations_behind_a_bond_are_served_by_open_vswitch_and_others_by_the_fast_path() {
    let build = || {
        let mut switch = three_access_ports();
        ["x1", "x2"].into_iter().for_each(|member| switch.plug(member));
        switch.ovs().vsctl(&format!(
            "add-bond {BRIDGE} bond0 x1 x2 tag=10 bond_mode=active-backup other_config:bond-primary=x1"
        ));
        switch
    };
    // The members' taps are no ports, so the scene starts the agent itself.
    let play = |with_agent: bool| {
        let mut switch = build();
        if with_agent {
            switch.start_agent();
            switch.wait_status("a reason for the bond", |status| {
                let bond = status.port("bond0").and_then(|port| port.reason.as_ref());
                bond.is_some_and(|reason| reason.contains("bond of 2 interfaces"))
                    && ["p1", "p2", "p3"].into_iter().all(|port| status.accelerates(port))
            });
        }
        let (a, b, c) = (station(), station(), station());
        converse(&switch, ("p1", &Frame::new(a, b)), ("p2", &Frame::new(b, a)));
        let frames = [
            ("x1", Frame::new(c, a)),
            ("p1", Frame::new(a, c)),
            ("p1", Frame::new(a, c)),
            ("x2", Frame::broadcast(c)),
        ];
        frames.map(|(port, frame)| switch.exchange_one(port, &frame).ports(&frame))
    };
    assert_eq!(play(true), play(false));
}

#[test]
fn stations_behind_a_patch_port_are_reached_through_both_bridges() {
    let build = || {
        let mut switch = three_access_ports();
        switch.plug("y1");
        let (ovs, datapath) = (switch.ovs(), trunkline_tests::Ovs::datapath_type());
        ovs.vsctl(&format!(
            "add-br br1 -- set Bridge br1 datapath_type={datapath} -- add-port br1 y1 tag=10"
        ));
        ovs.vsctl(&format!(
            "add-port {BRIDGE} to1 -- set Interface to1 type=patch options:peer=to0 \
             -- add-port br1 to0 -- set Interface to0 type=patch options:peer=to1"
        ));
        switch
    };
    same_with_and_without(build, |tape| {
        let (a, b, far) = (station(), station(), station());
        converse(tape, ("p1", &Frame::new(a, b)), ("p2", &Frame::new(b, a)));
        tape.step("from the other bridge, unknown", "y1", &Frame::new(far, a));
        for _ in 0..3 {
            tape.step_to("to the other bridge", "p1", &Frame::new(a, far), &["y1"]);
            tape.step_to("from the other bridge", "y1", &Frame::new(far, a), &["p1"]);
        }
        tape.wait_status("a reason for the patch port", |status| {
            let reason = status.port("to1").and_then(|port| port.reason.as_ref());
            reason.is_some_and(|reason| reason.contains("patch"))
        });
        tape.settle();
        tape.step("moves here", "p3", &Frame::new(far, a));
        tape.step_to("to it here", "p1", &Frame::new(a, far), &["p3"]);
        tape.settle();
        tape.step("and back", "y1", &Frame::new(far, a));
        tape.step_until("to it there", "p1", &Frame::new(a, far), &["y1"]);
    });
}

/// In the userspace datapath the host's own stack gets a copy of every frame too. Frames to the device's address have a
/// destination that the bridge has never seen a frame from, so they are left to Open vSwitch and the stack.
#[test]
fn address_on_a_port_answers_as_before() {
    for accelerated in [false, true] {
        let mut switch = Switch::new();
        let hosts = [("h1", "10.9.0.1/24"), ("h2", "10.9.0.2/24")];
        let hosts = hosts.map(|(port, address)| switch.add_host(port, &Vlan::Access(10), address));
        switch.netns().run("ip address add 10.9.0.100/24 dev h1");
        if accelerated {
            switch.start_agent();
            switch.wait_status("both ports", |status| status.accelerates("h1") && status.accelerates("h2"));
        }
        for address in ["10.9.0.2", "10.9.0.100", "10.9.0.2", "10.9.0.100"] {
            hosts[0].netns().run(&format!("ping -c 3 -i 0.1 -W 2 {address}"));
        }
        let before = switch.forwarded("h1");
        hosts[0].netns().run("ping -c 3 -i 0.1 -W 2 10.9.0.2");
        if accelerated {
            assert!(before.is_none() || switch.forwarded("h1") > before, "the fast path is on");
        }
    }
}

#[test]
fn vlan_device_on_a_port_keeps_its_vlan() {
    let switch = Switch::new().port("t1", Vlan::Trunk(vec![10, 30])).port("t2", Vlan::Trunk(vec![10, 30]));
    let mut add = switch.netns().command("ip");
    let added = output(add.args("link add link t1 name t1.30 type vlan id 30".split(' ')));
    if !added.status.success() && !fs::exists("/proc/net/vlan").unwrap_or(false) {
        return skip("vlan_device_on_a_port_keeps_its_vlan", "the kernel has no 802.1Q devices (8021q)");
    }
    assert!(added.status.success(), "{added:?}");
    switch.netns().run("ip link set t1.30 up");
    let switch = switch.accelerated();
    let (a, b) = (station(), station());
    let tagged = |frame: Frame, vid| frame.tagged(tag(Tpid::Dot1Q, 0, false, vid));
    converse(&switch, ("t1", &tagged(Frame::new(a, b), 10)), ("t2", &tagged(Frame::new(b, a), 10)));
    let before = switch.forwarded("t1");
    for _ in 0..3 {
        let frame = tagged(Frame::new(a, b), 30);
        switch.exchange_one("t1", &frame);
        switch.exchange_one("t2", &tagged(Frame::new(b, a), 30));
    }
    assert_eq!(switch.forwarded("t1"), before, "its VLAN is the host's");
}

/// Open vSwitch itself is asked: with two visible tags, a frame with one is treated as with one visible.
#[test]
fn vlan_limit_is_nothing_to_frames_with_one_tag() {
    let switch = Switch::new()
        .port("p1", Vlan::Access(10))
        .port("p2", Vlan::Access(10))
        .port("t1", Vlan::Trunk(vec![10, 20]))
        .port("n1", Vlan::NativeUntagged(10, vec![20]))
        .port("n2", Vlan::NativeTagged(20, vec![10]));
    let addresses = "dl_src=02:00:00:00:00:01,dl_dst=02:00:00:00:00:02";
    switch.ovs().appctl(&format!("fdb/add {BRIDGE} n2 20 02:00:00:00:00:02"));
    let answers = || -> Vec<String> {
        let mut answers = Vec::new();
        for port in ["p1", "t1", "n1", "n2"] {
            for tags in
                ["", ",dl_vlan=10,dl_vlan_pcp=0", ",dl_vlan=20,dl_vlan_pcp=5", ",vlan_tci=0x7000/0xffff"]
            {
                let trace =
                    switch.ovs().appctl(&format!("ofproto/trace {BRIDGE} in_port={port},{addresses}{tags}"));
                let actions = trace.lines().find(|line| line.starts_with("Datapath actions"));
                answers.push(format!("{port} {tags}: {}", actions.unwrap_or(&trace)));
            }
        }
        answers
    };
    let one = answers();
    for limit in [0, 2] {
        switch.ovs().vsctl(&format!("set Open_vSwitch . other_config:vlan-limit={limit}"));
        assert_eq!(answers(), one, "vlan-limit={limit}");
    }
}

/// ovs-vswitchd that waits for its flows to be restored forwards nothing, and neither does the fast path.
#[test]
fn flow_restore_wait_stops_the_fast_path_too() {
    same_with_and_without(three_access_ports, |tape| {
        let (a, b) = (station(), station());
        let (there, back) = (Frame::new(a, b), Frame::new(b, a));
        converse(tape, ("p1", &there), ("p2", &back));
        tape.ovs().vsctl("set Open_vSwitch . other_config:flow-restore-wait=True");
        tape.restart_vswitchd();
        for _ in 0..3 {
            assert_eq!(tape.step("waiting", "p1", &there.another()), [""; 0]);
        }
        tape.ovs().vsctl("remove Open_vSwitch . other_config flow-restore-wait");
        tape.wait_accelerated();
        tape.step_until("going on, unknown", "p1", &Frame::broadcast(a), &["p2", "p3"]);
        converse(tape, ("p1", &there), ("p2", &back));
    });
}

/// Port flags that cannot be read might forbid anything.
#[test]
fn bridge_that_refuses_openflow_1_0_is_left_to_open_vswitch() {
    same_with_and_without(three_access_ports, |tape| {
        let (a, b) = (station(), station());
        let (there, back) = (Frame::new(a, b), Frame::new(b, a));
        converse(tape, ("p1", &there), ("p2", &back));
        tape.ovs().vsctl(&format!("set Bridge {BRIDGE} protocols=OpenFlow13"));
        tape.wait_status("the column to be named", |status| {
            let bridge = status.bridge(BRIDGE).expect("it is listed");
            !bridge.accelerated && bridge.reason.as_ref().is_some_and(|reason| reason.contains("`protocols`"))
        });
        tape.ovs().ofctl(&format!("-O OpenFlow13 mod-port {BRIDGE} p2 no-forward"));
        tape.settle();
        assert_eq!(tape.step("to the port that may not forward", "p1", &there.another()), [""; 0]);
        tape.ovs().ofctl(&format!("-O OpenFlow13 mod-port {BRIDGE} p2 forward"));
        tape.ovs().vsctl(&format!("clear Bridge {BRIDGE} protocols"));
        tape.settle();
        tape.wait_accelerated();
        converse(tape, ("p1", &there), ("p2", &back));
    });
}
