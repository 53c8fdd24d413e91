use super::*;
use crate::dataplane::{Dataplane as _, Memory};

const B: BridgeNo = BridgeNo(0);
const C: BridgeNo = BridgeNo(1);
const TIMES: BridgeTimes = BridgeTimes { refresh_s: 75, ageing_s: 300 };

fn about(names: &[&str]) -> Affected {
    Affected::Bridges(names.iter().map(|name| (*name).to_owned()).collect())
}

/// Returns a dataplane in which both bridges switch, at second 100.
fn switching() -> Memory {
    let mut memory = Memory::default();
    for (bridge, name) in [(B, "br0"), (C, "br1")] {
        assert!(memory.activate(bridge, name, TIMES, 100).unwrap());
        assert!(memory.confirm(bridge, &[]).unwrap());
    }
    memory
}

fn running(memory: &Memory, now_s: u32) -> Vec<BridgeNo> {
    memory.leases(now_s).into_keys().collect()
}

#[test]
fn a_lease_is_extended_as_long_as_it_has_not_run_out() {
    let mut memory = switching();
    for now_s in [101, 102, 106, 110] {
        memory.renew(now_s).unwrap();
        assert_eq!(running(&memory, now_s + LEASE_S - 1), [B, C]);
    }
    assert_eq!(running(&memory, 110 + LEASE_S), []);
    memory.renew(110 + LEASE_S).unwrap();
    assert_eq!(running(&memory, 110 + LEASE_S), [], "it is not restored");
    assert_eq!(memory.take_suspended(), [B, C].into());
    assert!(memory.take_suspended().is_empty() && memory.installed.active.is_empty());
}

#[test]
fn a_change_suspends_the_bridges_that_it_is_about_until_the_agent_has_heard_of_it() {
    let mut memory = switching();
    let gate = memory.gate();
    gate.trip(&about(&["br1", "another"])).unwrap();
    assert_eq!(running(&memory, 100), [B]);
    memory.renew(101).unwrap();
    assert_eq!(running(&memory, 101), [B]);
    assert_eq!(memory.take_suspended(), [C].into());
    assert!(!memory.activate(C, "br1", TIMES, 101).unwrap(), "the agent has yet to hear of it");
    gate.acknowledge();
    assert!(memory.activate(C, "br1", TIMES, 101).unwrap());
    assert_eq!(running(&memory, 101), [B, C]);
}

#[test]
fn a_later_change_is_not_acknowledged_with_an_earlier_one() {
    let mut memory = switching();
    let gate = memory.gate();
    gate.trip(&about(&["br0"])).unwrap();
    gate.trip(&about(&[])).unwrap();
    gate.trip(&about(&["br0"])).unwrap();
    for heard in 1..=3 {
        assert!(!memory.activate(B, "br0", TIMES, 101).unwrap(), "after {heard} of 3");
        gate.acknowledge();
    }
    assert!(memory.activate(B, "br0", TIMES, 101).unwrap());
}

#[test]
fn a_lost_database_suspends_all() {
    let mut memory = switching();
    let gate = memory.gate();
    gate.trip(&Affected::All).unwrap();
    assert_eq!(running(&memory, 100), []);
    assert!(!memory.activate(BridgeNo(7), "new", TIMES, 101).unwrap());
    gate.acknowledge();
    assert!(memory.activate(BridgeNo(7), "new", TIMES, 101).unwrap());
}

#[test]
fn no_lease_outlives_what_is_known_of_the_database() {
    let mut memory = Memory::default();
    let gate = memory.gate();
    gate.follow_database();
    assert!(!memory.activate(B, "br0", TIMES, 100).unwrap(), "it has not been read");
    gate.database_read(98);
    assert!(memory.activate(B, "br0", TIMES, 100).unwrap());
    assert_eq!(memory.leases(100)[&B], 98 + LEASE_S);
    memory.renew(101).unwrap();
    assert_eq!(memory.leases(101)[&B], 98 + LEASE_S);
    gate.database_read(101);
    memory.renew(102).unwrap();
    assert_eq!(memory.leases(102)[&B], 101 + LEASE_S);
    memory.renew(101 + LEASE_S).unwrap();
    gate.database_read(101 + LEASE_S);
    memory.renew(101 + LEASE_S).unwrap();
    assert_eq!(running(&memory, 101 + LEASE_S), []);
}

#[test]
fn a_suspended_bridge_is_not_confirmed() {
    let mut memory = switching();
    memory.apply(&crate::dataplane::Op::Suspend(B)).unwrap();
    assert!(!memory.confirm(B, &[]).unwrap() && memory.confirm(C, &[]).unwrap());
}

#[test]
fn a_bridge_is_drained_only_by_a_wait_that_began_after_its_suspension() {
    let memory = switching();
    let gate = memory.gate();
    gate.suspend(B).unwrap();
    let waited_for = gate.to_be_drained();
    gate.suspend(C).unwrap();
    gate.drained(&waited_for);
    assert!(gate.is_drained(B) && !gate.is_drained(C));
}
