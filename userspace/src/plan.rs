//! The steps from what is installed to what is desired, in a safe order. All of it is pure.
//!
//! Tighten, flush, loosen: before any rule of a bridge changes, the bridge is suspended and its running
//! programs end. Then the stations on changed ports are forgotten, and only after that do programs forward
//! its frames again. Adding a port suspends nothing: no station is on it yet.

use std::collections::{BTreeMap, BTreeSet};

use trunkline_core::abi;

use crate::dataplane::{BridgeNo, BridgeTimes, Installed, InstalledPort, Op, PortNo};
use crate::desired::Reason;

/// What to do, in this order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    /// The changes of what is installed.
    pub steps: Vec<Op>,
    /// The bridges to let switch.
    pub activate: BTreeMap<BridgeNo, BridgeTimes>,
}

/// Returns the steps from `installed` to `desired`, over the union of their keys.
pub fn plan(installed: &Installed, desired: &Installed) -> Plan {
    let removed: Vec<PortNo> = installed
        .ports
        .iter()
        .filter(|(port, old)| desired.ports.get(port).is_none_or(|new| new.ifindex != old.ifindex))
        .map(|(port, _)| *port)
        .collect();
    let placed: Vec<(PortNo, &InstalledPort)> = desired
        .ports
        .iter()
        .filter(|(port, new)| installed.ports.get(port) != Some(new))
        .map(|(port, new)| (*port, new))
        .collect();
    let changed: Vec<(PortNo, &InstalledPort, &InstalledPort)> = placed
        .iter()
        .filter_map(|(port, new)| installed.ports.get(port).map(|old| (*port, old, *new)))
        .collect();

    // A suspended bridge may still have a program running that read its lease before.
    let touched: BTreeSet<BridgeNo> = removed
        .iter()
        .filter_map(|port| installed.ports.get(port))
        .chain(changed.iter().flat_map(|(_, old, new)| [*old, *new]))
        .map(|port| BridgeNo(port.rules.bridge))
        .collect();
    let suspended: BTreeSet<BridgeNo> = installed
        .active
        .iter()
        .filter(|(bridge, times)| touched.contains(bridge) || desired.active.get(bridge) != Some(times))
        .map(|(bridge, _)| *bridge)
        .collect();

    let mut steps: Vec<Op> = suspended.iter().map(|bridge| Op::Suspend(*bridge)).collect();
    if !removed.is_empty() || !changed.is_empty() {
        steps.push(Op::Drain);
    }
    let void = changed.iter().filter(|(_, old, new)| stations_are_void(old, new)).map(|(port, ..)| *port);
    let flushed: BTreeSet<PortNo> = removed.iter().copied().chain(void).collect();
    if !flushed.is_empty() {
        steps.push(Op::Flush(flushed));
    }
    steps.extend(removed.into_iter().map(Op::Remove));
    steps.extend(placed.into_iter().map(|(port, new)| Op::Install(port, new.clone())));
    let active = desired
        .active
        .iter()
        .filter(|(bridge, times)| suspended.contains(bridge) || installed.active.get(bridge) != Some(times));
    Plan { activate: active.map(|(bridge, times)| (*bridge, *times)).collect(), steps }
}

/// Returns whether Open vSwitch forgets the stations of a port with this change, so that we must forget them
/// too. It does with VLAN settings and protection; an MTU, a hook, or whether programs can send to the
/// device, makes no difference to it.
fn stations_are_void(old: &InstalledPort, new: &InstalledPort) -> bool {
    let of_hooks = abi::PORT_TARGET | abi::PORT_TC_TARGET | abi::PORT_TC_FOLLOWS | abi::PORT_ACCEPTS_GSO;
    let essence = |port: &InstalledPort| abi::Port {
        mtu: 0,
        learning_limit: 0,
        flags: port.rules.flags & !of_hooks,
        ..port.rules
    };
    essence(old) != essence(new)
}

/// Allocates the dense numbers of bridges and devices. Each keeps its number as long as it is installed.
///
/// A device keeps its number when its port moves to another bridge.
#[derive(Debug)]
pub struct IdAllocator {
    bridges: BTreeMap<String, BridgeNo>,
    /// By slot of the table of interface indices, the device in it and its number.
    slots: BTreeMap<u32, (u32, PortNo)>,
    free: BTreeSet<PortNo>,
}

impl Default for IdAllocator {
    fn default() -> Self {
        let free = (0..abi::MAX_PORTS as u16).map(PortNo).collect();
        Self { bridges: BTreeMap::new(), slots: BTreeMap::new(), free }
    }
}

impl IdAllocator {
    /// Returns the number of a bridge, a new one if it has none; an error says that all are taken.
    pub fn bridge(&mut self, name: &str) -> Result<BridgeNo, Reason> {
        if let Some(number) = self.bridges.get(name) {
            return Ok(*number);
        }
        let taken: BTreeSet<_> = self.bridges.values().copied().collect();
        let free = (0..abi::MAX_BRIDGES as u16).map(BridgeNo).find(|number| !taken.contains(number));
        let free = free.ok_or(Reason::TooManyBridges { most: abi::MAX_BRIDGES })?;
        self.bridges.insert(name.to_owned(), free);
        Ok(free)
    }

    /// Returns the number of the port with this device, a new one if it has none; an error says what is
    /// exhausted.
    pub fn port(&mut self, ifindex: u32) -> Result<PortNo, Reason> {
        let slot = ifindex % abi::IFINDEX_SLOTS;
        match self.slots.get(&slot) {
            Some((known, number)) if *known == ifindex => return Ok(*number),
            Some(_) => return Err(Reason::SlotTaken { slot }),
            None => {}
        }
        let free = self.free.pop_first().ok_or(Reason::TooManyPorts { most: abi::MAX_PORTS })?;
        self.slots.insert(slot, (ifindex, free));
        Ok(free)
    }

    /// Returns the number of a bridge, if it has one.
    pub fn known_bridge(&self, name: &str) -> Option<BridgeNo> {
        self.bridges.get(name).copied()
    }

    /// Returns the name of the bridge with this number.
    pub fn bridge_name(&self, number: BridgeNo) -> Option<&str> {
        self.bridges.iter().find(|(_, known)| **known == number).map(|(name, _)| name.as_str())
    }

    /// Returns the number of the port with this device, if it has one.
    pub fn known_port(&self, ifindex: u32) -> Option<PortNo> {
        let (known, number) = self.slots.get(&(ifindex % abi::IFINDEX_SLOTS))?;
        (*known == ifindex).then_some(*number)
    }

    /// Takes back the numbers of all that is no longer installed.
    pub fn retain(&mut self, installed: &Installed) {
        let Self { bridges, slots, free } = self;
        let used = installed.ports.values().map(|port| BridgeNo(port.rules.bridge));
        let used: BTreeSet<BridgeNo> = used.chain(installed.active.keys().copied()).collect();
        bridges.retain(|_, number| used.contains(number));
        slots.retain(|_, (_, number)| {
            let stays = installed.ports.contains_key(number);
            if !stays {
                free.insert(*number);
            }
            stays
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::{BridgeTimes, Hooks};

    const TIMES: BridgeTimes = BridgeTimes { refresh_s: 75, ageing_s: 300 };
    const B: BridgeNo = BridgeNo(0);

    fn port(ifindex: u32, pvid: u16) -> InstalledPort {
        let rules = abi::Port { pvid, mtu: 1500, flags: abi::PORT_VALID, ..abi::Port::UNUSED };
        InstalledPort { ifindex, device: format!("p{ifindex}"), hooks: Hooks::Xdp, rules }
    }

    fn state(ports: &[(u16, InstalledPort)], active: bool) -> Installed {
        Installed {
            active: active.then_some((B, TIMES)).into_iter().collect(),
            ports: ports.iter().map(|(number, port)| (PortNo(*number), port.clone())).collect(),
        }
    }

    fn expect(steps: impl Into<Vec<Op>>, activate: impl IntoIterator<Item = BridgeNo>) -> Plan {
        let activate = activate.into_iter().map(|bridge| (bridge, TIMES)).collect();
        Plan { steps: steps.into(), activate }
    }

    #[test]
    fn nothing_to_do_is_no_step() {
        let state = state(&[(0, port(5, 10))], true);
        assert_eq!(plan(&state, &state), Plan::default());
    }

    #[test]
    fn first_ports_are_installed_before_the_bridge_is_active() {
        let desired = state(&[(0, port(5, 10)), (1, port(6, 10))], true);
        assert_eq!(
            plan(&Installed::default(), &desired),
            expect([Op::Install(PortNo(0), port(5, 10)), Op::Install(PortNo(1), port(6, 10))], [B])
        );
    }

    #[test]
    fn a_retagged_port_is_changed_under_suspension_and_its_stations_forgotten() {
        let (old, new) = (state(&[(0, port(5, 10))], true), state(&[(0, port(5, 20))], true));
        assert_eq!(
            plan(&old, &new),
            expect(
                [
                    Op::Suspend(B),
                    Op::Drain,
                    Op::Flush([PortNo(0)].into()),
                    Op::Install(PortNo(0), port(5, 20)),
                ],
                [B]
            )
        );
    }

    #[test]
    fn an_mtu_is_changed_without_forgetting_stations() {
        let mut wider = port(5, 10);
        wider.rules.mtu = 9000;
        let Plan { steps, .. } = plan(&state(&[(0, port(5, 10))], true), &state(&[(0, wider)], true));
        assert!(!steps.iter().any(|op| matches!(op, Op::Flush(_))), "{steps:?}");
    }

    #[test]
    fn a_hook_is_changed_under_suspension_without_forgetting_stations() {
        let mut other = port(5, 10);
        other.hooks = Hooks::XdpAndTc;
        other.rules.flags |= abi::PORT_TC_FOLLOWS | abi::PORT_TC_TARGET | abi::PORT_ACCEPTS_GSO;
        assert_eq!(
            plan(&state(&[(0, port(5, 10))], true), &state(&[(0, other.clone())], true)),
            expect([Op::Suspend(B), Op::Drain, Op::Install(PortNo(0), other)], [B])
        );
    }

    #[test]
    fn a_recreated_device_is_taken_out_first() {
        let (old, new) = (state(&[(0, port(5, 10))], true), state(&[(0, port(9, 10))], true));
        assert_eq!(
            plan(&old, &new),
            expect(
                [
                    Op::Suspend(B),
                    Op::Drain,
                    Op::Flush([PortNo(0)].into()),
                    Op::Remove(PortNo(0)),
                    Op::Install(PortNo(0), port(9, 10)),
                ],
                [B]
            )
        );
    }

    #[test]
    fn a_suspended_bridge_that_is_not_desired_active_stays_suspended() {
        let (old, new) = (state(&[(0, port(5, 10))], false), state(&[], false));
        assert_eq!(
            plan(&old, &new),
            expect([Op::Drain, Op::Flush([PortNo(0)].into()), Op::Remove(PortNo(0))], [])
        );
    }

    #[test]
    fn changed_times_reactivate() {
        let old = state(&[], true);
        let mut new = state(&[], true);
        new.active.insert(B, BridgeTimes { refresh_s: 3, ageing_s: 15 });
        let times = BridgeTimes { refresh_s: 3, ageing_s: 15 };
        assert_eq!(plan(&old, &new), Plan { steps: vec![Op::Suspend(B)], activate: [(B, times)].into() });
    }

    #[test]
    fn an_added_port_does_not_disturb_its_bridge() {
        let (old, new) =
            (state(&[(0, port(5, 10))], true), state(&[(0, port(5, 10)), (1, port(6, 10))], true));
        assert_eq!(plan(&old, &new), expect([Op::Install(PortNo(1), port(6, 10))], []));
    }

    #[test]
    fn a_port_that_moves_to_another_bridge_suspends_both() {
        const C: BridgeNo = BridgeNo(1);
        let mut moved = port(5, 10);
        moved.rules.bridge = C.0;
        let (mut old, mut new) = (state(&[(0, port(5, 10))], true), state(&[(0, moved.clone())], true));
        old.active.insert(C, TIMES);
        new.active.insert(C, TIMES);
        assert_eq!(
            plan(&old, &new),
            expect(
                [
                    Op::Suspend(B),
                    Op::Suspend(C),
                    Op::Drain,
                    Op::Flush([PortNo(0)].into()),
                    Op::Install(PortNo(0), moved),
                ],
                [B, C]
            )
        );
    }

    #[test]
    fn numbers_are_kept_reused_and_exhausted() {
        let mut numbers = IdAllocator::default();
        let first = numbers.port(5).unwrap();
        assert_eq!((numbers.port(5), numbers.known_port(5)), (Ok(first), Some(first)));
        let same_slot = 5 + abi::IFINDEX_SLOTS;
        assert!(numbers.port(same_slot).unwrap_err().to_string().contains("shares its place"));
        assert_eq!(numbers.known_port(same_slot), None);
        for ifindex in 6..5 + abi::MAX_PORTS {
            numbers.port(ifindex).unwrap();
        }
        assert!(numbers.port(60_000).unwrap_err().to_string().contains("1024 ports"));
        numbers.retain(&state(&[(first.0, port(5, 10))], false));
        assert_eq!(numbers.port(60_000), Ok(PortNo(1)));
    }

    #[test]
    fn bridges_are_numbered_as_long_as_something_of_them_is_installed() {
        let mut numbers = IdAllocator::default();
        for name in 0..abi::MAX_BRIDGES {
            numbers.bridge(&format!("br{name}")).unwrap();
        }
        assert!(numbers.bridge("one more").unwrap_err().to_string().contains("128 bridges"));
        numbers.retain(&state(&[(0, port(5, 10))], false));
        assert_eq!((numbers.known_bridge("br0"), numbers.known_bridge("br1")), (Some(B), None));
        assert_eq!(numbers.bridge("one more"), Ok(BridgeNo(1)));
        assert_eq!(numbers.bridge_name(B), Some("br0"));
    }
}
