//! The clients of Open vSwitch against real daemons, and against servers that misbehave.

mod faults;
mod private;
mod relay;

use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use private::PrivateOvs;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc::{Receiver, channel};
use tokio::time::timeout;
use trunkline::config::VswitchdRun;
use trunkline::jsonrpc::{Connection, Limits, Message};
use trunkline::openflow::{self, OpenFlowEvent};
use trunkline::ovsdb::{self, Endpoint, InterfaceRow, OvsdbEvent, PortRow, Rows};
use trunkline::unixctl::{FdbAge, FdbRow, FlowTable, OfPort, Unixctl, UnixctlError};

const PATIENCE: Duration = Duration::from_secs(20);

async fn next<E>(events: &mut Receiver<E>) -> E {
    timeout(PATIENCE, events.recv()).await.expect("an event within 20 s").expect("a running task")
}

fn follow(socket: PathBuf) -> Receiver<OvsdbEvent> {
    let (sender, receiver) = channel(1000);
    tokio::spawn(ovsdb::run(Endpoint::Unix(socket), sender, ()));
    receiver
}

async fn connected(events: &mut Receiver<OvsdbEvent>) -> Arc<Rows> {
    while !matches!(next(events).await, OvsdbEvent::Connected) {}
    changed(events).await
}

async fn changed(events: &mut Receiver<OvsdbEvent>) -> Arc<Rows> {
    match next(events).await {
        OvsdbEvent::Changed(rows) => rows,
        other => panic!("{other:?}"),
    }
}

async fn disconnected(events: &mut Receiver<OvsdbEvent>) -> String {
    match next(events).await {
        OvsdbEvent::Disconnected { cause } => cause,
        other => panic!("{other:?}"),
    }
}

async fn until(events: &mut Receiver<OvsdbEvent>, reached: impl Fn(&Rows) -> bool) -> Arc<Rows> {
    loop {
        let rows = changed(events).await;
        if reached(&rows) {
            return rows;
        }
    }
}

fn port<'a>(rows: &'a Rows, name: &str) -> Option<&'a PortRow> {
    rows.ports.values().find(|row| row.name == name).map(Arc::as_ref)
}

fn interface<'a>(rows: &'a Rows, name: &str) -> Option<&'a InterfaceRow> {
    rows.interfaces.values().find(|row| row.name == name).map(Arc::as_ref)
}

#[tokio::test]
async fn what_ovs_vsctl_writes_is_seen_as_rows() {
    let ovs = PrivateOvs::with_bridge();
    let mut events = follow(ovs.socket());
    let rows = connected(&mut events).await;
    let bridge = rows.bridges.values().find(|row| row.name == "br0").unwrap();
    assert_eq!((bridge.datapath_type.as_str(), bridge.ports.len()), ("dummy", 3));
    let switch = rows.open_vswitch.as_ref().unwrap();
    assert_eq!(switch.bridges.iter().collect::<Vec<_>>(), rows.bridges.keys().collect::<Vec<_>>());
    assert!(switch.ovs_version.is_some() && switch.cur_cfg == switch.next_cfg && switch.cur_cfg > 0);
    assert_eq!(port(&rows, "p1").unwrap().tag, Some(10));
    assert_eq!(interface(&rows, "p2").unwrap().ofport, Some(2));
    assert_eq!(interface(&rows, "p2").unwrap().r#type, "dummy");

    ovs.vsctl(&["clear", "port", "p1", "tag"]);
    until(&mut events, |rows| port(rows, "p1").unwrap().tag.is_none()).await;
    ovs.vsctl(&["set", "port", "p2", "trunks=2,3,6,100", "vlan_mode=native-tagged", "tag=3"]);
    let rows = until(&mut events, |rows| port(rows, "p2").unwrap().trunks.len() == 4).await;
    let row = port(&rows, "p2").unwrap();
    assert_eq!((row.vlan_mode.as_deref(), row.tag), (Some("native-tagged"), Some(3)));
    ovs.vsctl(&["remove", "port", "p2", "trunks", "2", "3"]);
    until(&mut events, |rows| port(rows, "p2").unwrap().trunks == [6, 100].into()).await;
    ovs.vsctl(&["set", "port", "p2", "other_config:priority-tags=always", "protected=true"]);
    let rows = until(&mut events, |rows| port(rows, "p2").unwrap().protected).await;
    assert_eq!(port(&rows, "p2").unwrap().other_config["priority-tags"], "always");
    ovs.vsctl(&["remove", "port", "p2", "other_config", "priority-tags"]);
    until(&mut events, |rows| port(rows, "p2").unwrap().other_config.is_empty()).await;

    ovs.vsctl(&[
        "--",
        "--id=@m",
        "create",
        "mirror",
        "name=m0",
        "select_all=true",
        "select-vlan=7",
        "--",
        "set",
        "bridge",
        "br0",
        "mirrors=@m",
    ]);
    let rows = until(&mut events, |rows| !rows.mirrors.is_empty()).await;
    let mirror = rows.mirrors.values().next().unwrap();
    assert_eq!((mirror.name.as_str(), mirror.select_all, &mirror.select_vlan), ("m0", true, &[7].into()));
    ovs.vsctl(&["clear", "bridge", "br0", "mirrors"]);
    until(&mut events, |rows| rows.mirrors.is_empty()).await;
    ovs.vsctl(&["set-manager", "ptcp:0:127.0.0.1"]);
    let rows = until(&mut events, |rows| !rows.managers.is_empty()).await;
    assert_eq!(rows.managers.values().next().unwrap().target, "ptcp:0:127.0.0.1");

    ovs.vsctl(&["del-port", "p1"]);
    let rows = until(&mut events, |rows| port(rows, "p1").is_none()).await;
    assert!(interface(&rows, "p1").is_none(), "the interface goes in the same transaction");
}

#[tokio::test]
async fn a_transaction_is_one_event_and_comes_within_milliseconds() {
    let ovs = PrivateOvs::start();
    let mut events = follow(ovs.socket());
    connected(&mut events).await;
    // No ovs-vswitchd, so this is the only transaction there is.
    ovs.vsctl(&["--no-wait", "add-br", "br0", "--", "add-port", "br0", "p1", "tag=5", "trunks=1,2"]);
    let returned = Instant::now();
    let rows = changed(&mut events).await;
    assert_prompt(returned);
    assert_eq!((rows.bridges.len(), rows.ports.len(), rows.interfaces.len()), (1, 2, 2));
    assert_eq!(port(&rows, "p1").unwrap().tag, Some(5));
    ovs.vsctl(&["--no-wait", "set", "port", "p1", "tag=6"]);
    assert_eq!(port(&*changed(&mut events).await, "p1").unwrap().tag, Some(6));
}

#[tokio::test]
async fn after_a_barrier_every_client_was_sent_what_one_was_sent() {
    let ovs = PrivateOvs::start();
    let mut events = follow(ovs.socket());
    connected(&mut events).await;
    // They come after ours in the server's list, and are sent what is new after us.
    let mut others = [monitor(&ovs), monitor(&ovs)];
    let mut writer = UnixStream::connect(ovs.socket()).await.unwrap();
    let endpoint = Endpoint::Unix(ovs.socket());
    for n in 1..=500 {
        let next = json!({"op": "update", "table": "Open_vSwitch", "where": [], "row": {"next_cfg": n}});
        let request = json!({"id": n, "method": "transact", "params": ["Open_vSwitch", next]});
        writer.write_all(request.to_string().as_bytes()).await.unwrap();
        assert!(writer.read(&mut [0; 4096]).await.unwrap() > 0);
        changed(&mut events).await;
        ovsdb::barrier(&endpoint).await;
        for other in &mut others {
            let read = other.read(&mut [0; 4096]);
            assert!(read.is_ok_and(|length| length > 0), "change {n} has not been sent to another client");
        }
    }
}

/// A client that is told of `next_cfg`, has read what was there, and does not wait.
fn monitor(ovs: &PrivateOvs) -> std::os::unix::net::UnixStream {
    let mut client = std::os::unix::net::UnixStream::connect(ovs.socket()).unwrap();
    let columns = json!({"Open_vSwitch": {"columns": ["next_cfg"]}});
    let request = json!({"id": 0, "method": "monitor", "params": ["Open_vSwitch", null, columns]});
    client.write_all(request.to_string().as_bytes()).unwrap();
    assert!(client.read(&mut [0; 4096]).unwrap() > 0);
    client.set_nonblocking(true).unwrap();
    client
}

#[tokio::test]
async fn a_restarted_server_is_dumped_afresh() {
    let mut ovs = PrivateOvs::start();
    ovs.vsctl(&["--no-wait", "add-br", "br0", "--", "add-port", "br0", "p1", "tag=5"]);
    let mut events = follow(ovs.socket());
    let before = connected(&mut events).await;
    ovs.restart_server();
    ovs.vsctl(&["--no-wait", "set", "port", "p1", "tag=6"]);
    assert!(disconnected(&mut events).await.contains("db.sock"));
    let after = loop {
        match next(&mut events).await {
            OvsdbEvent::Disconnected { .. } => {}
            OvsdbEvent::Connected => break changed(&mut events).await,
            OvsdbEvent::Changed(_) => panic!("a change without a connection"),
        }
    };
    assert_eq!((port(&before, "p1").unwrap().tag, port(&after, "p1").unwrap().tag), (Some(5), Some(6)));
}

#[tokio::test]
async fn a_missing_server_is_reported_once() {
    let mut events = follow("/nonexistent/db.sock".into());
    assert!(disconnected(&mut events).await.contains("/nonexistent/db.sock: cannot connect"));
    assert!(timeout(Duration::from_millis(700), events.recv()).await.is_err());
}

/// Passes messages on, and answers some methods as a server would that does not know them.
async fn old_server(listener: UnixListener, server: PathBuf, unknown: &'static [&'static str]) {
    let client = listener.accept().await.unwrap().0;
    let mut client = Connection::new(client, Limits::OVSDB);
    let mut server = Connection::new(UnixStream::connect(server).await.unwrap(), Limits::OVSDB);
    // Until either side is gone, at the end of the test.
    loop {
        tokio::select! {
            Ok(message) = client.receive() => match message {
                Message::Request { id, method, .. } if unknown.contains(&method.as_str()) => {
                    client.send(&Message::Reply { id, result: Err(json!("unknown method")) }).await.unwrap();
                }
                message => server.send(&message).await.unwrap(),
            },
            Ok(message) = server.receive() => client.send(&message).await.unwrap(),
            else => return,
        }
    }
}

#[tokio::test]
async fn older_servers_tell_the_same() {
    let unknown: [&[&str]; 2] = [&["monitor_cond_since"], &["monitor_cond_since", "monitor_cond"]];
    for unknown in unknown {
        let ovs = PrivateOvs::with_bridge();
        let proxy = ovs.rundir().join("proxy.sock");
        tokio::spawn(old_server(UnixListener::bind(&proxy).unwrap(), ovs.socket(), unknown));
        let mut events = follow(proxy);
        connected(&mut events).await;
        for change in [
            &["set", "port", "p1", "trunks=1,2,3"][..],
            &["remove", "port", "p1", "trunks", "2"],
            &["clear", "port", "p1", "tag"],
            &["set", "port", "p1", "other_config:a=b", "other_config:c=d"],
            &["remove", "port", "p1", "other_config", "a"],
            &["del-port", "p2"],
        ] {
            ovs.vsctl(change);
        }
        let applied = |rows: &Rows| {
            let switch = rows.open_vswitch.as_ref().unwrap();
            port(rows, "p2").is_none() && switch.cur_cfg == switch.next_cfg
        };
        let old = until(&mut events, applied).await;
        assert_eq!(port(&old, "p1").unwrap().trunks, [1, 3].into());
        assert_eq!(*old, *connected(&mut follow(ovs.socket())).await, "without {unknown:?}");
    }
}

async fn sent_by_a_bad_server(bytes: &'static [u8], repeat: usize) -> String {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("db.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            for _ in 0..repeat {
                if client.write_all(bytes).await.is_err() {
                    break;
                }
            }
            // Held open: the client must find out by itself.
            tokio::spawn(async move {
                tokio::time::sleep(PATIENCE).await;
                drop(client);
            });
        }
    });
    let mut events = follow(socket);
    disconnected(&mut events).await
}

#[tokio::test]
async fn junk_is_refused() {
    let cause = sent_by_a_bad_server(b"HTTP/1.1 400 Bad Request\r\n\r\n", 1).await;
    assert!(cause.contains("does not speak JSON-RPC"), "{cause}");
    let cause =
        sent_by_a_bad_server(b"{\"id\":[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[", 1)
            .await;
    assert!(cause.contains("nested more than 64 levels"), "{cause}");
    let cause = sent_by_a_bad_server(b"{\"id\":1,\"result\":{},\"error\":null}", 1).await;
    assert!(cause.contains("none of the tables"), "{cause}");
    let cause = sent_by_a_bad_server(b"[", 1).await;
    assert!(cause.contains("does not speak JSON-RPC"), "{cause}");
}

#[tokio::test]
async fn an_endless_message_is_refused() {
    static LONG: [u8; 1 << 16] = [b'x'; 1 << 16];
    let (mut ours, theirs) = tokio::io::duplex(1 << 20);
    tokio::spawn(async move {
        ours.write_all(b"{\"").await.unwrap();
        while ours.write_all(&LONG).await.is_ok() {}
    });
    let mut connection = Connection::new(theirs, Limits { message: 4 << 20, depth: 64 });
    let error = connection.receive().await.unwrap_err().to_string();
    assert!(error.contains("more than 4194304 bytes"), "{error}");
}

#[tokio::test]
async fn a_silent_server_is_given_up_within_eleven_seconds() {
    let started = Instant::now();
    let cause = sent_by_a_bad_server(b"", 0).await;
    assert!(cause.contains("does not respond"), "{cause}");
    assert!(started.elapsed() < Duration::from_secs(11));
}

#[tokio::test]
async fn commands_are_answered_or_refused() {
    let ovs = PrivateOvs::with_bridge();
    let unixctl = Unixctl::new(ovs.rundir());
    let version = unixctl.version().await.unwrap();
    assert!(version.starts_with(|first: char| first.is_ascii_digit()), "{version}");
    let error = unixctl.fdb_show("nope").await.unwrap_err();
    let error = error.to_string();
    // 4.0 adds its name.
    assert!(error.starts_with("ovs-vswitchd refused `fdb/show nope`: no such bridge"), "{error}");
    let error = unixctl.call("no/such", &[]).await.unwrap_err();
    assert!(matches!(error, UnixctlError::Failed { .. }), "{error}");
    unixctl.call("version", &[]).await.unwrap();
}

#[tokio::test]
async fn a_restart_is_seen_by_the_pid_file_where_the_number_stays() {
    if !rustix::process::geteuid().is_root() {
        const TEST: &str = "a_restart_is_seen_by_the_pid_file_where_the_number_stays";
        writeln!(std::io::stdout(), "skipped: {TEST}: it needs root to make a namespace of processes")
            .unwrap();
        return;
    }
    let mut ovs = PrivateOvs::start();
    ovs.start_vswitchd_as_first();
    let unixctl = Unixctl::new(ovs.rundir());
    let first = VswitchdRun::look(ovs.rundir()).unwrap();
    unixctl.version().await.unwrap();
    assert_eq!((first.pid, VswitchdRun::look(ovs.rundir())), (1, Some(first)));
    ovs.stop_vswitchd();
    assert_eq!(VswitchdRun::look(ovs.rundir()), Some(first), "it is not another one yet");
    ovs.start_vswitchd_as_first();
    let second = VswitchdRun::look(ovs.rundir()).unwrap();
    assert!(second.pid == 1 && second != first, "{second:?}");
    unixctl.version().await.unwrap();
}

#[tokio::test]
async fn stations_are_listed() {
    let ovs = PrivateOvs::with_bridge();
    let unixctl = Unixctl::new(ovs.rundir());
    assert_eq!(unixctl.fdb_show("br0").await.unwrap(), []);
    let before = unixctl.fdb_stats("br0").await.unwrap();
    ovs.appctl(&["fdb/add", "br0", "p1", "10", "50:54:00:00:00:01"]);
    ovs.appctl(&["fdb/add", "br0", "br0", "0", "50:54:00:00:00:02"]);
    let frame = "in_port=2,vlan_tci=0x100a,dl_src=50:54:00:00:00:09,dl_dst=50:54:00:00:00:0a";
    ovs.appctl(&["ofproto/trace", "br0", frame, "-generate"]);
    let mut rows = unixctl.fdb_show("br0").await.unwrap();
    rows.sort_by_key(|row| row.mac);
    let row = |port, vid, mac: &str, age| FdbRow { port, vid, mac: mac.parse().unwrap(), age };
    assert_eq!(
        rows[..2],
        [
            row(OfPort::Number(1), 10, "50:54:00:00:00:01", FdbAge::Static),
            row(OfPort::Local, 0, "50:54:00:00:00:02", FdbAge::Static),
        ]
    );
    assert!(
        matches!(rows[2], FdbRow { port: OfPort::Number(2), vid: 10, age: FdbAge::Seconds(0..5), .. }),
        "{rows:?}"
    );
    let after = unixctl.fdb_stats("br0").await.unwrap();
    assert_eq!((before.current, after.current, after.learned - before.learned), (0, 3, 1));
    assert_eq!(unixctl.fdb_stats("br0").await.unwrap(), after);
}

#[tokio::test]
async fn flows_other_than_normal_are_seen() {
    let ovs = PrivateOvs::with_bridge();
    let unixctl = Unixctl::new(ovs.rundir());
    assert_eq!(unixctl.flow_table("br0").await.unwrap(), FlowTable::NormalOnly);
    ovs.ofctl(&["add-flow", "br0", "actions=NORMAL"]);
    assert_eq!(unixctl.flow_table("br0").await.unwrap(), FlowTable::NormalOnly);
    ovs.ofctl(&["add-flow", "br0", "cookie=0x7,priority=10,in_port=2,actions=drop"]);
    ovs.ofctl(&["add-flow", "br0", "table=3,ip,nw_src=10.0.0.0/8,actions=resubmit(,2),ct(commit,table=3)"]);
    let first = "priority=10,in_port=2,actions=drop".to_owned();
    assert_eq!(unixctl.flow_table("br0").await.unwrap(), FlowTable::Other { first, count: 2 });
    ovs.ofctl(&["del-flows", "br0"]);
    assert_eq!(unixctl.flow_table("br0").await.unwrap(), FlowTable::Empty);
}

#[tokio::test]
async fn a_restarted_switch_is_found_again() {
    let mut ovs = PrivateOvs::start();
    let unixctl = Unixctl::new(ovs.rundir());
    let error = unixctl.version().await.unwrap_err();
    assert!(
        matches!(&error, UnixctlError::NotRunning { path, .. } if path.ends_with("ovs-vswitchd.pid")),
        "{error}"
    );
    ovs.start_vswitchd();
    unixctl.version().await.unwrap();
    ovs.stop_vswitchd();
    let error = unixctl.version().await.unwrap_err();
    assert!(matches!(&error, UnixctlError::NotRunning { .. }), "{error}");
    ovs.start_vswitchd();
    unixctl.version().await.unwrap();
    let others: Vec<_> = (0..10).map(|_| unixctl.clone()).collect();
    for other in others {
        other.version().await.unwrap();
    }
}

#[tokio::test]
async fn a_hung_switch_times_out_and_its_late_answer_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("ovs-vswitchd.pid"), "7\n").unwrap();
    let listener = UnixListener::bind(dir.path().join("ovs-vswitchd.7.ctl")).unwrap();
    tokio::spawn(async move {
        for delay in [400, 0] {
            let (stream, _) = listener.accept().await.unwrap();
            let mut client = Connection::new(stream, Limits::UNIXCTL);
            tokio::spawn(async move {
                while let Ok(Message::Request { id, method, .. }) = client.receive().await {
                    tokio::time::sleep(Duration::from_millis(delay)).await;
                    let _ = client.send(&Message::Reply { id, result: Ok(json!(method)) }).await;
                }
            });
        }
    });
    let unixctl = Unixctl::with_time_out(dir.path(), Duration::from_millis(200));
    let error = unixctl.call("first", &[]).await.unwrap_err();
    assert!(matches!(error, UnixctlError::TimedOut { .. }), "{error}");
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(unixctl.call("second", &[]).await.unwrap(), "second");
}

fn follow_flows(ovs: &PrivateOvs) -> Receiver<OpenFlowEvent> {
    let (sender, receiver) = channel(1000);
    tokio::spawn(openflow::run(ovs.rundir().to_path_buf(), "br0".to_owned(), sender, |event| event));
    receiver
}

async fn openflow_connected(events: &mut Receiver<OpenFlowEvent>) {
    while !matches!(next(events).await, OpenFlowEvent::Connected { .. }) {}
    assert!(matches!(next(events).await, OpenFlowEvent::PortFlags { .. }));
}

fn assert_prompt(since: Instant) {
    // Milliseconds on an idle machine; any timer in the way would take longer than this.
    let elapsed = since.elapsed();
    eprintln!("told {elapsed:?} after the command returned");
    assert!(elapsed < Duration::from_millis(500), "{elapsed:?}");
}

#[tokio::test]
async fn flow_changes_are_told_at_once() {
    let ovs = PrivateOvs::with_bridge();
    let mut events = follow_flows(&ovs);
    openflow_connected(&mut events).await;
    for change in [
        &["add-flow", "br0", "table=9,priority=10,in_port=2,actions=drop"][..],
        &["mod-flows", "br0", "table=9,in_port=2,actions=NORMAL"],
        &["del-flows", "br0", "table=9"],
    ] {
        ovs.ofctl(change);
        let returned = Instant::now();
        assert_eq!(next(&mut events).await, OpenFlowEvent::FlowsChanged { bridge: "br0".to_owned() });
        assert_prompt(returned);
    }
    assert!(timeout(Duration::from_millis(200), events.recv()).await.is_err(), "nothing else is told");
}

#[tokio::test]
async fn port_flags_are_told_at_once() {
    let ovs = PrivateOvs::with_bridge();
    ovs.ofctl(&["mod-port", "br0", "p2", "no-forward"]);
    let mut events = follow_flows(&ovs);
    assert!(matches!(next(&mut events).await, OpenFlowEvent::Connected { .. }));
    let OpenFlowEvent::PortFlags { flags, .. } = next(&mut events).await else { panic!("no flags") };
    assert_eq!(flags.keys().copied().collect::<Vec<_>>(), [1, 2, openflow::LOCAL]);
    assert!(flags[&2].no_forward && flags[&2].name == "p2" && !flags[&1].no_forward);
    for (flag, expected) in [
        ("no-flood", (true, false, false)),
        ("no-receive", (true, true, false)),
        ("no-forward", (true, true, true)),
        ("flood", (false, true, true)),
    ] {
        ovs.ofctl(&["mod-port", "br0", "p1", flag]);
        let returned = Instant::now();
        let OpenFlowEvent::PortFlags { flags, .. } = next(&mut events).await else { panic!("no flags") };
        assert_prompt(returned);
        assert_eq!((flags[&1].no_flood, flags[&1].no_receive, flags[&1].no_forward), expected, "{flag}");
    }
    ovs.vsctl(&["del-port", "p2"]);
    let OpenFlowEvent::PortFlags { flags, .. } = next(&mut events).await else { panic!("no flags") };
    assert!(!flags.contains_key(&2));
}

#[tokio::test]
async fn the_monitor_does_not_change_the_bridge() {
    let ovs = PrivateOvs::with_bridge();
    ovs.ofctl(&["set-frags", "br0", "drop"]);
    ovs.ofctl(&["del-flows", "br0"]);
    let miss = || {
        let trace = ovs.appctl(&["ofproto/trace", "br0", "in_port=2,dl_src=50:54:00:00:00:09"]);
        trace.lines().last().unwrap_or_default().to_owned()
    };
    assert_eq!(miss(), "Datapath actions: drop");
    let mut events = follow_flows(&ovs);
    openflow_connected(&mut events).await;
    assert_eq!(miss(), "Datapath actions: drop", "frames without a flow are not sent up for us");
    assert!(ovs.ofctl(&["get-frags", "br0"]).contains("drop"));
    // The worst case: a flow that sends to the very controller id that the monitor took.
    ovs.ofctl(&["add-flow", "br0", "actions=controller(id=29804)"]);
    assert!(matches!(next(&mut events).await, OpenFlowEvent::FlowsChanged { .. }));
    ovs.appctl(&["vlog/set", "vconn:file:dbg"]);
    let frame = "in_port(2),eth(src=50:54:00:00:00:09,dst=50:54:00:00:00:0a),eth_type(0x1234)";
    ovs.appctl(&["netdev-dummy/receive", "p2", frame]);
    ovs.ofctl(&["mod-port", "br0", "p1", "no-flood"]);
    assert!(matches!(next(&mut events).await, OpenFlowEvent::PortFlags { .. }));
    let log = ovs.log_with("OFPT_PORT_STATUS");
    assert!(!log.contains("PACKET_IN"), "{log}");
}

#[tokio::test]
async fn a_bridge_without_openflow_10_says_so() {
    let ovs = PrivateOvs::with_bridge();
    ovs.vsctl(&["set", "bridge", "br0", "protocols=OpenFlow13"]);
    let mut events = follow_flows(&ovs);
    let OpenFlowEvent::Disconnected { cause, .. } = next(&mut events).await else { panic!("connected") };
    assert!(cause.contains("refuses OpenFlow 1.0"), "{cause}");
    ovs.vsctl(&["clear", "bridge", "br0", "protocols"]);
    openflow_connected(&mut events).await;
}

#[tokio::test]
async fn a_restarted_switch_is_monitored_again() {
    let mut ovs = PrivateOvs::with_bridge();
    let mut events = follow_flows(&ovs);
    openflow_connected(&mut events).await;
    ovs.stop_vswitchd();
    assert!(matches!(next(&mut events).await, OpenFlowEvent::Disconnected { .. }));
    ovs.start_vswitchd();
    openflow_connected(&mut events).await;
}
