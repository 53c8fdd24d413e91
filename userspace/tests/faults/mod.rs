//! The clients against real daemons behind a relay that damages a message: each is connected and current again within
//! a bounded time.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::sync::mpsc::Receiver;
use tokio::time::{sleep, timeout};
use trunkline::openflow::{self, OpenFlowEvent};
use trunkline::ovsdb::{OvsdbEvent, Rows};
use trunkline::unixctl::{FlowTable, Unixctl, UnixctlError};

use crate::private::PrivateOvs;
use crate::relay::{Damage, Protocol, Relay};

/// Three times the longest deadline of the clients, and time for a busy machine to start daemons.
const BOUND: Duration = Duration::from_secs(3 * 10 + 5);

fn is_any(_: &[u8]) -> bool {
    true
}

fn is_reply(message: &[u8]) -> bool {
    value(message).get("method").is_none()
}

fn is_update(message: &[u8]) -> bool {
    value(message)["method"].as_str().is_some_and(|method| method.starts_with("update"))
}

fn value(message: &[u8]) -> serde_json::Value {
    serde_json::from_slice(message).unwrap()
}

/// Waits for such an event, whatever is told before.
async fn until<E>(events: &mut Receiver<E>, reached: impl Fn(&E) -> bool) {
    let told = async { while !reached(&events.recv().await.expect("a running task")) {} };
    assert!(timeout(BOUND, told).await.is_ok(), "the client is not current within {BOUND:?}");
}

/// Waits until the client has this tag of `p1`.
async fn until_tag(events: &mut Receiver<OvsdbEvent>, tag: u16) {
    let has_tag = |rows: &Rows| rows.ports.values().any(|port| port.name == "p1" && port.tag == Some(tag));
    let reached = |event: &OvsdbEvent| matches!(event, OvsdbEvent::Changed(rows) if has_tag(rows));
    until(events, reached).await;
}

async fn until_done(relay: &Relay, what: &str) {
    let started = Instant::now();
    while !relay.is_done() {
        assert!(started.elapsed() < BOUND, "no message to be damaged: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

fn database() -> (PrivateOvs, Relay, std::path::PathBuf) {
    let ovs = PrivateOvs::start();
    ovs.vsctl(&["--no-wait", "add-br", "br0", "--", "add-port", "br0", "p1", "tag=5"]);
    let socket = ovs.rundir().join("relay.sock");
    let relay = Relay::start(Protocol::JsonRpc, &socket, ovs.socket(), Duration::ZERO);
    (ovs, relay, socket)
}

#[tokio::test]
async fn a_database_that_damages_its_first_answers_is_read_all_the_same() {
    join_all(Damage::ALL.map(|damage| async move {
        let (ovs, relay, socket) = database();
        relay.arm(damage, is_reply);
        let mut events = crate::follow(socket);
        until_tag(&mut events, 5).await;
        assert!(relay.is_done(), "{damage:?}");
        ovs.vsctl(&["--no-wait", "set", "port", "p1", "tag=6"]);
        until_tag(&mut events, 6).await;
    }))
    .await;
}

#[tokio::test]
async fn a_database_that_damages_an_echo_is_current_again() {
    join_all(Damage::ALL.map(|damage| async move {
        let (ovs, relay, socket) = database();
        let mut events = crate::follow(socket);
        until_tag(&mut events, 5).await;
        relay.arm(damage, is_reply);
        until_done(&relay, "an echo's reply").await;
        ovs.vsctl(&["--no-wait", "set", "port", "p1", "tag=6"]);
        until_tag(&mut events, 6).await;
    }))
    .await;
}

/// What becomes of an update that is lost altogether, nobody can know.
#[tokio::test]
async fn a_database_that_damages_an_update_is_current_again() {
    let noticed = [Damage::ChangeId, Damage::Cut, Damage::Junk, Damage::Stray];
    join_all(noticed.map(|damage| async move {
        let (ovs, relay, socket) = database();
        let mut events = crate::follow(socket);
        until_tag(&mut events, 5).await;
        relay.arm(damage, is_update);
        ovs.vsctl(&["--no-wait", "set", "port", "p1", "tag=6"]);
        until_done(&relay, "an update").await;
        // More than enough for a client that takes any byte for a sign of life never to ask.
        let started = Instant::now();
        let busy = async {
            while started.elapsed() < BOUND {
                ovs.vsctl(&["--no-wait", "set", "port", "p1", "external_ids:busy=yes"]);
                ovs.vsctl(&["--no-wait", "clear", "port", "p1", "external_ids"]);
                sleep(Duration::from_secs(1)).await;
            }
            panic!("{damage:?} of an update was not noticed within {BOUND:?}");
        };
        tokio::select! {
            () = until_tag(&mut events, 6) => {}
            () = busy => {}
        }
    }))
    .await;
}

#[tokio::test]
async fn a_barrier_is_asked_for_again_when_an_answer_is_damaged() {
    join_all(Damage::ALL.map(|damage| async move {
        let (_ovs, relay, socket) = database();
        relay.arm(damage, is_reply);
        let endpoint = trunkline::ovsdb::Endpoint::Unix(socket);
        let barrier = timeout(BOUND, trunkline::ovsdb::barrier(&endpoint)).await;
        assert!(barrier.is_ok() && relay.is_done(), "{damage:?}: no barrier within {BOUND:?}");
    }))
    .await;
}

/// Follows `br0` through a relay.
fn switch() -> (PrivateOvs, Relay, Receiver<OpenFlowEvent>, tempfile::TempDir) {
    let ovs = PrivateOvs::with_bridge();
    let dir = tempfile::tempdir().unwrap();
    let (socket, server) = (dir.path().join("br0.mgmt"), ovs.rundir().join("br0.mgmt"));
    let relay = Relay::start(Protocol::OpenFlow, &socket, server, Duration::ZERO);
    let (sender, events) = tokio::sync::mpsc::channel(1000);
    tokio::spawn(openflow::run(dir.path().to_path_buf(), "br0".to_owned(), sender, |event| event));
    (ovs, relay, events, dir)
}

/// Waits until the client has this `no-flood` of `p1`.
async fn until_no_flood(events: &mut Receiver<OpenFlowEvent>, no_flood: bool) {
    let reached = |event: &OpenFlowEvent| matches!(event, OpenFlowEvent::PortFlags { flags, .. } if flags[&1].no_flood == no_flood);
    until(events, reached).await;
}

const HELLO: u8 = 0;
const ECHO_REPLY: u8 = 3;
const GET_CONFIG_REPLY: u8 = 8;
const PORT_STATUS: u8 = 12;
const STATS_REPLY: u8 = 17;

#[tokio::test]
async fn a_switch_that_damages_an_answer_is_followed_all_the_same() {
    let kinds: [fn(&[u8]) -> bool; 4] = [
        |message| message[1] == HELLO,
        |message| message[1] == GET_CONFIG_REPLY,
        // The flow monitor's: type 0xffff.
        |message| message[1] == STATS_REPLY && message[8] == 0xff,
        |message| message[1] == STATS_REPLY && message[8] == 0,
    ];
    // Each switch has two daemons: not all at once.
    for kind in kinds {
        join_all(Damage::ALL.iter().map(|damage| async move {
            let (ovs, relay, mut events, _dir) = switch();
            // The first connection may be made already: this is about one of the next.
            relay.arm(Damage::Junk, is_any);
            ovs.ofctl(&["mod-port", "br0", "p2", "no-flood"]);
            until_done(&relay, "the end of the first connection").await;
            relay.arm(*damage, kind);
            until_done(&relay, "an answer").await;
            ovs.ofctl(&["mod-port", "br0", "p1", "no-flood"]);
            until_no_flood(&mut events, true).await;
            ovs.ofctl(&["mod-port", "br0", "p1", "flood"]);
            until_no_flood(&mut events, false).await;
        }))
        .await;
    }
}

#[tokio::test]
async fn a_switch_that_damages_an_echo_or_an_announcement_is_current_again() {
    let echo = Damage::ALL.map(|damage| (damage, ECHO_REPLY));
    // The number of an announcement means nothing.
    let status = [Damage::Cut, Damage::Junk].map(|damage| (damage, PORT_STATUS));
    join_all(echo.into_iter().chain(status).map(|(damage, kind)| async move {
        let (ovs, relay, mut events, _dir) = switch();
        until_no_flood(&mut events, false).await;
        if kind == ECHO_REPLY {
            relay.arm(damage, |message| message[1] == ECHO_REPLY);
            until_done(&relay, "an echo's reply").await;
            ovs.ofctl(&["mod-port", "br0", "p1", "no-flood"]);
        } else {
            relay.arm(damage, |message| message[1] == PORT_STATUS);
            ovs.ofctl(&["mod-port", "br0", "p1", "no-flood"]);
            until_done(&relay, "a port's status").await;
        }
        until_no_flood(&mut events, true).await;
    }))
    .await;
}

/// A run directory whose command socket is a relay.
fn commands(ovs: &PrivateOvs, delay: Duration) -> (Relay, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let pid = std::fs::read_to_string(ovs.rundir().join("ovs-vswitchd.pid")).unwrap();
    std::fs::write(dir.path().join("ovs-vswitchd.pid"), &pid).unwrap();
    let name = format!("ovs-vswitchd.{}.ctl", pid.trim());
    let relay = Relay::start(Protocol::JsonRpc, &dir.path().join(&name), ovs.rundir().join(&name), delay);
    (relay, dir)
}

#[tokio::test]
async fn a_command_is_answered_or_given_up_in_time_and_the_next_one_is_answered() {
    let ovs = PrivateOvs::with_bridge();
    let (relay, dir) = commands(&ovs, Duration::ZERO);
    let unixctl = Unixctl::new(dir.path());
    for damage in Damage::ALL {
        for asked_before in [false, true] {
            if asked_before {
                unixctl.version().await.unwrap();
            }
            relay.arm(damage, is_any);
            let started = Instant::now();
            // A damaged answer has the question asked again at once; one that does not come has it given up.
            match unixctl.state("br0").await {
                Ok((_, flows, _)) => assert_eq!(flows, FlowTable::NormalOnly, "{damage:?}"),
                Err(UnixctlError::TimedOut { .. } | UnixctlError::Stream { .. }) => {}
                Err(error) => panic!("{damage:?}: {error}"),
            }
            assert!(relay.is_done() && started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
            assert_eq!(unixctl.flow_table("br0").await.unwrap(), FlowTable::NormalOnly, "{damage:?}");
        }
    }
}

#[tokio::test]
async fn many_bridges_and_a_slow_daemon_are_no_trouble() {
    let ovs = PrivateOvs::with_bridge();
    // One after the other, the questions would take 26 s.
    let (_relay, dir) = commands(&ovs, Duration::from_millis(200));
    let unixctl = Unixctl::new(dir.path());
    let started = Instant::now();
    let answers = join_all((0..128).map(|_| unixctl.fdb_stats("br0"))).await;
    for answer in answers {
        answer.unwrap();
    }
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_daemon_that_hangs_is_noticed_for_all_bridges_at_a_time() {
    let ovs = PrivateOvs::with_bridge();
    let unixctl = Unixctl::new(ovs.rundir());
    unixctl.version().await.unwrap();
    ovs.signal_vswitchd(rustix::process::Signal::STOP);
    let started = Instant::now();
    let answers = join_all((0..128).map(|_| unixctl.fdb_stats("br0"))).await;
    let elapsed = started.elapsed();
    ovs.signal_vswitchd(rustix::process::Signal::CONT);
    let late = |answer: &Result<_, _>| {
        matches!(answer, Err(UnixctlError::TimedOut { .. } | UnixctlError::NotAsked { .. }))
    };
    assert!(answers.iter().all(late), "{answers:?}");
    assert!(elapsed < Duration::from_secs(4), "{elapsed:?}");
    unixctl.fdb_stats("br0").await.unwrap();
}
