//! Changes of the configuration while stations talk by the fast path.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use trunkline_tests::{BRIDGE, Frame, Switch, Vlan, station};

use crate::tape::{Tape, converse, same_with_and_without, three_access_ports};

/// A conversation between p1 and p2 by the fast path; the frames there and back.
fn talk(tape: &Tape) -> (Frame, Frame) {
    let (a, b) = (station(), station());
    let (there, back) = (Frame::new(a, b), Frame::new(b, a));
    converse(tape, ("p1", &there), ("p2", &back));
    (there, back)
}

/// Changes something and undoes it: with it, nothing may go by the old rule; without it, all is fast again.
fn change_and_undo(change: &str, undo: &str, ports_with_it: &[&str]) {
    let gives_up = |tape: &mut Tape| {
        let (there, back) = talk(tape);
        tape.settle();
        tape.ovs().vsctl(change);
        // Flows that Open vSwitch has cached may outlive the command by a moment (a mirror's by longer).
        tape.settle();
        let ports = tape.step("right after the change", "p1", &there.another());
        assert_eq!(ports, ports_with_it, "after {change}");
        tape.step("back", "p2", &back.another());
        tape.ovs().vsctl(undo);
        tape.settle();
        tape.wait_accelerated();
        converse(tape, ("p1", &there), ("p2", &back));
        tape.step_to("after it was undone", "p1", &there.another(), &["p2"]);
    };
    same_with_and_without(three_access_ports, gives_up);
}

/// Open vSwitch settles before each change: flows it has cached go by the old rule for a moment after `ovs-vsctl` has
/// returned, and the sources of their last frames are learned again. Neither is what is judged here.
#[test]
fn no_frame_goes_by_the_old_rule_once_ovs_vsctl_has_returned() {
    same_with_and_without(three_access_ports, |tape| {
        let (there, back) = talk(tape);
        for round in 0..20 {
            let before = tape.forwarded("p1").unwrap_or(0);
            tape.settle();
            tape.ovs().vsctl("set Port p2 tag=20");
            let frames: Vec<Frame> = (0..8).map(|_| there.another()).collect();
            let sent: Vec<(&str, &Frame)> = frames.iter().map(|frame| ("p1", frame)).collect();
            let arrived = tape.exchange_expecting(&sent, Some(frames.len()));
            let by_xdp = tape.forwarded("p1").unwrap_or(0) - before;
            for (place, frame) in frames.iter().enumerate() {
                assert_eq!(
                    arrived.ports(frame),
                    ["p3"],
                    "round {round}, frame {place}: p2 has left the VLAN ({by_xdp} frames by the fast path)"
                );
            }
            tape.settle();
            tape.ovs().vsctl("set Port p2 tag=10");
            let frame = there.another();
            assert_eq!(
                tape.exchange_expecting(&[("p1", &frame)], Some(2)).ports(&frame),
                ["p2", "p3"],
                "round {round}: forgotten"
            );
            converse(tape, ("p1", &there), ("p2", &back));
        }
    });
}

#[test]
fn trunks_and_modes_change_at_once() {
    let build = || three_access_ports().port("t1", Vlan::Trunk(vec![10, 20]));
    same_with_and_without(build, |tape| {
        let (a, b) = (station(), station());
        let (there, back) = (Frame::new(a, b), Frame::new(b, a));
        let tagged = || back.clone().tagged(trunkline_tests::tag(trunkline_core::Tpid::Dot1Q, 0, false, 10));
        converse(tape, ("p1", &there), ("t1", &tagged()));
        tape.settle();
        tape.ovs().vsctl("set Port t1 trunks=20");
        tape.settle();
        tape.step("VLAN 10 is off the trunk", "p1", &there.another());
        tape.step("nor is it admitted", "t1", &tagged());
        tape.settle();
        tape.ovs().vsctl("set Port t1 trunks=10,20 tag=10 vlan_mode=native-untagged");
        tape.settle();
        tape.step("native, unknown", "p1", &there.another());
        converse(tape, ("p1", &there), ("t1", &back));
        tape.step("native, fast", "p1", &there.another());
    });
}

#[test]
fn ports_come_and_go_under_traffic_without_loss() {
    same_with_and_without(three_access_ports, |tape| {
        let (there, _) = talk(tape);
        for port in ["x1", "x2"] {
            tape.plug(port);
        }
        // Room for all frames of a slow machine: they are collected at the end.
        tape.netns().run("ip link set p2 txqueuelen 50000");
        let done = AtomicBool::new(false);
        let (switch, done) = (&**tape, &done);
        let frames = thread::scope(|scope| {
            let sender = scope.spawn(move || {
                let mut frames = Vec::new();
                while !done.load(Ordering::Relaxed) {
                    frames.push(there.another());
                    switch.send("p1", &frames[frames.len() - 1]);
                    thread::sleep(Duration::from_millis(2));
                }
                frames
            });
            // The sender ends with this, however it ends.
            let stop = StopOnDrop(done);
            for _ in 0..10 {
                switch.ovs().vsctl(&format!("add-port {BRIDGE} x1 tag=10 -- add-port {BRIDGE} x2 tag=20"));
                switch.ovs().vsctl(&format!("del-port {BRIDGE} x1 -- del-port {BRIDGE} x2"));
            }
            drop(stop);
            sender.join().expect("the sender sends")
        });
        let arrived = switch.collect(&frames);
        for (place, frame) in frames.iter().enumerate() {
            assert_eq!(arrived.ports(frame), ["p2"], "frame {place} of {}", frames.len());
        }
    });
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn added_port_is_accelerated_and_its_deletion_is_noticed() {
    same_with_and_without(three_access_ports, |tape| {
        for _ in 0..3 {
            tape.add_port("p4", &Vlan::Access(10));
            tape.wait_accelerated();
            let (a, b) = (station(), station());
            converse(tape, ("p1", &Frame::new(a, b)), ("p4", &Frame::new(b, a)));
            tape.step_to("to the new port", "p1", &Frame::new(a, b), &["p4"]);
            tape.delete_port("p4");
            tape.settle();
            tape.step_to("to the deleted port", "p1", &Frame::new(a, b), &["p2", "p3"]);
        }
    });
}

/// Open vSwitch's userspace datapath does not get over the loss of a device by itself (3.1.0: it sends to the new one
/// of that name and stays deaf to it); deleting and adding the port helps, and is what those who plug guests in do.
#[test]
fn device_that_is_deleted_and_created_again_under_its_name_works_again() {
    same_with_and_without(three_access_ports, |tape| {
        for _ in 0..3 {
            let (there, back) = talk(tape);
            let (c, d) = (station(), station());
            let (aside, aside_back) = (Frame::new(c, d), Frame::new(d, c));
            converse(tape, ("p1", &aside), ("p3", &aside_back));
            tape.unplug("p2");
            tape.send("p1", &there.another());
            tape.step_to("others go on", "p1", &aside.another(), &["p3"]);
            tape.plug("p2");
            tape.send("p1", &there.another());
            tape.step_to("and on", "p1", &aside.another(), &["p3"]);
            tape.ovs().vsctl(&format!("del-port {BRIDGE} p2"));
            tape.ovs().vsctl(&format!("add-port {BRIDGE} p2 tag=10"));
            assert_eq!(tape.step("unknown", "p1", &Frame::broadcast(station())), ["p2", "p3"]);
            tape.wait_accelerated();
            converse(tape, ("p1", &there), ("p2", &back));
            tape.step_to("fast again", "p1", &there.another(), &["p2"]);
        }
    });
}

#[test]
fn mirror_sees_every_frame() {
    let mirror = "-- --id=@out get Port p3 -- --id=@m create Mirror name=m0 select_all=true output_port=@out";
    change_and_undo(
        &format!("{mirror} -- set Bridge {BRIDGE} mirrors=@m"),
        &format!("clear Bridge {BRIDGE} mirrors"),
        &["p2", "p3"],
    );
}

#[test]
fn protected_ports_do_not_talk_to_each_other() {
    change_and_undo(
        "set Port p1 protected=true -- set Port p2 protected=true",
        "set Port p1 protected=false -- set Port p2 protected=false",
        &["p3"],
    );
}

#[test]
fn protected_ports_talk_to_others_by_the_fast_path() {
    let build = || {
        let switch: Switch = three_access_ports();
        switch.ovs().vsctl("set Port p1 protected=true -- set Port p2 protected=true");
        switch
    };
    same_with_and_without(build, |tape| {
        let (a, b, c) = (station(), station(), station());
        tape.step("protected, unknown", "p1", &Frame::new(a, b));
        tape.step("protected, known", "p2", &Frame::new(b, a));
        tape.step("protected, known, again", "p1", &Frame::new(a, b));
        converse(tape, ("p1", &Frame::new(a, c)), ("p3", &Frame::new(c, a)));
        tape.step("to the port that is not protected", "p1", &Frame::new(a, c));
    });
}

#[test]
fn flood_vlans_are_flooded() {
    change_and_undo(
        &format!("set Bridge {BRIDGE} flood_vlans=10"),
        &format!("clear Bridge {BRIDGE} flood_vlans"),
        &["p2", "p3"],
    );
}

/// Nobody is told of a change of the flow table: the agent finds it when it looks.
#[test]
fn openflow_rule_that_drops_is_obeyed() {
    same_with_and_without(three_access_ports, |tape| {
        let (there, back) = talk(tape);
        tape.ovs().ofctl(&format!("add-flow {BRIDGE} priority=10,in_port=p1,actions=drop"));
        tape.step_until("with the rule", "p1", &there, &[]);
        tape.ovs().ofctl(&format!("--strict del-flows {BRIDGE} priority=10,in_port=p1"));
        tape.step_until("without the rule", "p1", &Frame::broadcast(station()), &["p2", "p3"]);
        tape.wait_accelerated();
        converse(tape, ("p1", &there), ("p2", &back));
        tape.step_to("fast again", "p1", &there.another(), &["p2"]);
    });
}

#[test]
fn flushed_stations_are_flooded_to_again() {
    same_with_and_without(three_access_ports, |tape| {
        let (there, back) = talk(tape);
        tape.settle();
        tape.ovs().appctl(&format!("fdb/flush {BRIDGE}"));
        tape.step_until("to a station that was flushed", "p1", &there, &["p2", "p3"]);
        converse(tape, ("p1", &there), ("p2", &back));
        tape.step_to("to a station that was learned again", "p1", &there.another(), &["p2"]);
    });
}
