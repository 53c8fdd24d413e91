//! What Open vSwitch does to its table of stations by itself, under traffic by the fast path: ours follows.

use std::thread;
use std::time::{Duration, Instant};

use trunkline_tests::{BRIDGE, Frame, Ovs, Vlan, station};

use crate::tape::{Tape, converse, same_with_and_without, three_access_ports};

/// The documented second or two, on a busy machine.
const FOLLOWS: Duration = Duration::from_secs(4);

/// A conversation between p1 and p2 by the fast path; the frames there and back.
fn talk(tape: &Tape) -> (Frame, Frame) {
    let (a, b) = (station(), station());
    let (there, back) = (Frame::new(a, b), Frame::new(b, a));
    converse(tape, ("p1", &there), ("p2", &back));
    tape.settle();
    (there, back)
}

/// None of our stations is missing in Open vSwitch's table, soon.
fn is_subset_soon(tape: &mut Tape) {
    let start = Instant::now();
    loop {
        let theirs = tape.ovs().fdb(BRIDGE);
        let Some(agent) = tape.agent() else { return };
        let known = |row: &trunkline_tests::FdbRow| {
            theirs.iter().any(|(port, vlan, mac, _)| (port, *vlan, mac) == (&row.port, row.vlan, &row.mac))
        };
        let strays: Vec<_> =
            agent.fdb().into_iter().filter(|row| row.bridge == BRIDGE && !known(row)).collect();
        if strays.is_empty() {
            return;
        }
        assert!(start.elapsed() < FOLLOWS, "only ours: {strays:?}; Open vSwitch's: {theirs:?}");
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn station_evicted_from_a_full_table_is_forgotten() {
    same_with_and_without(three_access_ports, |tape| {
        tape.ovs().vsctl(&format!("set Bridge {BRIDGE} other_config:mac-table-size=10"));
        let (_, back) = talk(tape);
        // The port with the most stations loses the one not heard of for the longest time (`evict_mac_entry_fairly`).
        for _ in 0..12 {
            tape.step_to("another at p1", "p1", &Frame::new(station(), station()), &["p2", "p3"]);
        }
        tape.settle();
        let start = Instant::now();
        tape.step_until("evicted", "p2", &back, &["p1", "p3"]);
        assert!(start.elapsed() < FOLLOWS, "it took {:?}", start.elapsed());
        is_subset_soon(tape);
    });
}

#[test]
fn port_with_another_openflow_number_is_a_new_port() {
    same_with_and_without(three_access_ports, |tape| {
        let (there, back) = talk(tape);
        tape.ovs().vsctl("set Interface p2 ofport_request=77");
        tape.settle();
        tape.step_until("its stations are forgotten", "p1", &there, &["p2", "p3"]);
        is_subset_soon(tape);
        tape.wait_accelerated();
        converse(tape, ("p1", &there), ("p2", &back));
        tape.step_to("found again", "p1", &there.another(), &["p2"]);
    });
}

/// `bundle_flush_macs` of a port that goes takes its stations off all bridges.
#[test]
fn port_deleted_on_one_bridge_flushes_its_stations_on_another() {
    let build = || {
        let mut switch = three_access_ports();
        switch.plug("q1");
        let kind = Ovs::datapath_type();
        switch.ovs().vsctl(&format!(
            "add-br br1 -- set Bridge br1 datapath_type={kind} -- add-port br1 q1 {}",
            Vlan::Access(10).columns().join(" ")
        ));
        switch
    };
    same_with_and_without(build, |tape| {
        let (there, back) = talk(tape);
        // The station of p1 is on the other bridge as well.
        tape.exchange_one("q1", &there.another());
        tape.settle();
        tape.ovs().vsctl("del-port br1 q1");
        tape.unplug("q1");
        tape.settle();
        let start = Instant::now();
        tape.step_until("flushed on the other bridge", "p2", &back, &["p1", "p3"]);
        assert!(start.elapsed() < FOLLOWS, "it took {:?}", start.elapsed());
        is_subset_soon(tape);
    });
}

#[test]
fn shorter_ageing_holds_for_the_stations_that_are_there() {
    same_with_and_without(three_access_ports, |tape| {
        let (there, back) = talk(tape);
        tape.ovs().vsctl(&format!("set Bridge {BRIDGE} other_config:mac-aging-time=15"));
        tape.settle();
        tape.step_to("not aged yet", "p1", &there.another(), &["p2"]);
        thread::sleep(Duration::from_secs(17));
        tape.step_to("aged", "p2", &back.another(), &["p1", "p3"]);
        is_subset_soon(tape);
    });
}
