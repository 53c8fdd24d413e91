//! Daemons that stop, die and come back.

use std::io::Write;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use std::{fs, thread};

use trunkline_tests::{BRIDGE, Frame, PassProgram, Switch, Vlan, station, wait_for};

use crate::tape::{converse, same_with_and_without, three_access_ports};

/// A conversation between p1 and p2 by the fast path.
fn talking() -> (Switch, Frame, Frame) {
    let switch = three_access_ports().accelerated();
    let (a, b) = (station(), station());
    let (there, back) = (Frame::new(a, b), Frame::new(b, a));
    converse(&switch, ("p1", &there), ("p2", &back));
    (switch, there, back)
}

fn assert_arrives(switch: &Switch, frame: &Frame, when: &str) {
    let frame = frame.another();
    assert_eq!(switch.exchange_expecting(&[("p1", &frame)], Some(1)).ports(&frame), ["p2"], "{when}");
}

#[test]
fn restart_of_ovsdb_server_disturbs_nothing() {
    same_with_and_without(three_access_ports, |tape| {
        let (a, b) = (station(), station());
        let (there, back) = (Frame::new(a, b), Frame::new(b, a));
        converse(tape, ("p1", &there), ("p2", &back));
        tape.restart_ovsdb();
        tape.step_to("after the restart", "p1", &there.another(), &["p2"]);
        tape.wait_accelerated();
        converse(tape, ("p1", &there), ("p2", &back));
        // The new connection is a working one.
        tape.settle();
        tape.ovs().vsctl("set Port p2 tag=20");
        tape.settle();
        tape.step_to("after a change", "p1", &there.another(), &["p3"]);
    });
}

#[test]
fn restart_of_ovs_vswitchd_forgets_the_stations() {
    same_with_and_without(three_access_ports, |tape| {
        let (a, b) = (station(), station());
        let (there, back) = (Frame::new(a, b), Frame::new(b, a));
        converse(tape, ("p1", &there), ("p2", &back));
        tape.restart_vswitchd();
        tape.step_until("after the restart, unknown", "p1", &there, &["p2", "p3"]);
        tape.wait_accelerated();
        converse(tape, ("p1", &there), ("p2", &back));
        tape.step_to("learned again", "p1", &there.another(), &["p2"]);
    });
}

#[test]
fn agent_that_is_told_to_stop_gives_every_port_back() {
    let (mut switch, there, back) = talking();
    let Some(agent) = switch.take_agent() else { return };
    assert_eq!(switch.netns().devices_with_xdp().len(), 3);
    agent.stop();
    assert_eq!(switch.netns().devices_with_xdp(), [""; 0]);
    assert_arrives(&switch, &there, "after SIGTERM");
    switch.start_agent();
    switch.wait_accelerated();
    converse(&switch, ("p1", &there), ("p2", &back));
}

#[test]
fn killed_agent_leaves_the_frames_to_open_vswitch_within_10_s() {
    let (mut switch, there, back) = talking();
    let Some(mut agent) = switch.take_agent() else { return };
    agent.kill9();
    let killed = Instant::now();
    while killed.elapsed() < Duration::from_secs(10) {
        assert_arrives(&switch, &there, "right after SIGKILL");
        thread::sleep(Duration::from_millis(200));
    }
    let before = switch.ovs().frames_handled(BRIDGE);
    for _ in 0..20 {
        assert_arrives(&switch, &there, "long after SIGKILL");
    }
    assert_eq!(switch.ovs().frames_handled(BRIDGE) - before, 20, "every frame is Open vSwitch's");
    switch.start_agent();
    switch.wait_accelerated();
    converse(&switch, ("p1", &there), ("p2", &back));
    assert_arrives(&switch, &there, "with a new agent");
}

#[test]
fn second_agent_is_refused() {
    let (mut switch, there, _) = talking();
    let Some(agent) = switch.agent() else { return };
    let rundir = agent.run_dir().parent().expect("it is in Open vSwitch's").to_owned();
    let words = format!("agent --ovs-rundir {}", rundir.display());
    let refused = agent.cli(&words);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success(), "a second agent ran: {said}");
    assert!(!said.trim().is_empty() && !said.contains("panicked"), "a sentence: {said}");
    switch.wait_accelerated();
    let before = switch.forwarded("p1");
    assert_arrives(&switch, &there, "the first agent goes on");
    assert!(switch.forwarded("p1") > before, "by the fast path");
}

#[test]
fn control_socket_survives_garbage() {
    let (mut switch, there, _) = talking();
    let Some(agent) = switch.agent() else { return };
    let entries = fs::read_dir(agent.run_dir()).expect("a run directory").flatten();
    let sockets = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_socket()));
    let sockets: Vec<_> = sockets.map(|entry| entry.path()).collect();
    assert!(!sockets.is_empty(), "no control socket in {}", agent.run_dir().display());
    let garbage = [
        vec![0; 4 << 20],
        b"{".repeat(4 << 20),
        b"{\"method\":\"no such\"}\n".to_vec(),
        vec![0xff; 3],
        vec![],
    ];
    for socket in &sockets {
        for bytes in &garbage {
            let mut connection = UnixStream::connect(socket).expect("the socket is listened to");
            connection.set_write_timeout(Some(Duration::from_millis(500))).expect("a timeout");
            // Refusing to read on is one of the right answers.
            let _ = connection.write_all(bytes);
        }
        // Connections that say nothing must not keep others out.
        let silent: Vec<_> = (0..64).map_while(|_| UnixStream::connect(socket).ok()).collect();
        drop(silent);
    }
    switch.wait_accelerated();
    assert_arrives(&switch, &there, "after garbage");
}

#[test]
fn port_with_somebody_elses_xdp_program_is_left_alone_with_a_reason() {
    let mut switch = three_access_ports();
    let foreign = PassProgram::attach(switch.netns(), "p2");
    switch.start_agent();
    let fits = |status: &trunkline_tests::Status| status.accelerates("p1") && status.accelerates("p3");
    let status = switch.wait_status("p1 and p3 to be accelerated", fits);
    if let Some(port) = status.as_ref().and_then(|status| status.port("p2")) {
        assert!(!port.accelerated && port.hook == "none", "{port:?}");
        assert!(port.reason.as_ref().is_some_and(|reason| reason.contains("XDP")), "{port:?}");
    }
    let (a, b) = (station(), station());
    for _ in 0..3 {
        assert_arrives_at(&switch, "p1", &Frame::new(a, b), "p2");
        assert_arrives_at(&switch, "p2", &Frame::new(b, a), "p1");
    }
    if let Some(agent) = switch.take_agent() {
        agent.stop();
        assert_eq!(switch.netns().devices_with_xdp(), ["p2"], "the foreign program stays");
    }
    drop(foreign);
}

fn assert_arrives_at(switch: &Switch, from: &str, frame: &Frame, to: &str) {
    let ports = switch.exchange_one(from, frame).ports(frame);
    assert!(ports.iter().any(|port| port == to), "from {from} to {to}: arrived at {ports:?}");
}

#[test]
fn agent_that_starts_before_open_vswitch_waits_for_it() {
    let mut switch = three_access_ports();
    switch.stop_ovs();
    switch.start_agent();
    if switch.agent().is_some() {
        // It answers, and it is not ready.
        switch.wait_status("an answer", |status| !status.ready);
    }
    switch.start_ovs();
    switch.wait_accelerated();
    let (a, b) = (station(), station());
    converse(&switch, ("p1", &Frame::new(a, b)), ("p2", &Frame::new(b, a)));
}

#[test]
fn port_of_a_tunnel_or_patch_does_not_keep_the_others_from_the_fast_path() {
    let mut switch = three_access_ports().port("t1", Vlan::Trunk(vec![]));
    switch
        .ovs()
        .vsctl(&format!("add-port {BRIDGE} patch0 -- set Interface patch0 type=patch options:peer=nowhere"));
    switch.start_agent();
    switch.wait_accelerated();
    if let Some(status) = switch.wait_status("an answer", |status| status.ready) {
        let patch = status.port("patch0").expect("it is listed");
        assert!(!patch.accelerated && patch.reason.is_some(), "{patch:?}");
    }
    let (a, b) = (station(), station());
    converse(&switch, ("p1", &Frame::new(a, b)), ("p2", &Frame::new(b, a)));
}

#[test]
fn detach_without_an_agent_removes_everything() {
    let (mut switch, there, _) = talking();
    let Some(mut agent) = switch.take_agent() else { return };
    agent.kill9();
    let said = agent.cli("detach");
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    wait_for("XDP to be gone", Duration::from_secs(5), || {
        switch.netns().devices_with_xdp().is_empty().then_some(())
    });
    assert_arrives(&switch, &there, "after detach");
}
