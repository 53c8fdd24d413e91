//! From what is installed to what is desired, as steps in a safe order: pure.
//!
//! Tighten, flush, loosen: a bridge is suspended and its running programs awaited before any of its rules change, the
//! stations on changed ports are forgotten, and only then does it switch by itself again.

use std::collections::{BTreeMap, BTreeSet};

use trunkline_core::abi;

use crate::dataplane::{BridgeNo, Installed, InstalledPort, Op, PortNo};

/// The steps from `installed` to `desired`, over the union of their keys.
pub fn plan(installed: &Installed, desired: &Installed) -> Vec<Op> {
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

    // A suspended bridge may still have a program running that read its lease before.
    let touched: BTreeSet<BridgeNo> = removed
        .iter()
        .filter_map(|port| installed.ports.get(port))
        .chain(placed.iter().flat_map(|(port, new)| [installed.ports.get(port), Some(*new)]).flatten())
        .map(|port| BridgeNo(port.rules.bridge))
        .collect();
    let suspended: BTreeSet<BridgeNo> = installed
        .active
        .iter()
        .filter(|(bridge, times)| touched.contains(bridge) || desired.active.get(bridge) != Some(times))
        .map(|(bridge, _)| *bridge)
        .collect();

    let mut ops: Vec<Op> = suspended.iter().map(|bridge| Op::Suspend(*bridge)).collect();
    if !removed.is_empty() || placed.iter().any(|(port, _)| installed.ports.contains_key(port)) {
        ops.push(Op::Drain);
    }
    ops.extend(removed.iter().map(|port| Op::Remove(*port)));
    let changed = placed
        .iter()
        .filter(|(port, new)| installed.ports.get(port).is_some_and(|old| stations_are_void(old, new)))
        .map(|(port, _)| *port);
    let flushed: BTreeSet<PortNo> = removed.iter().copied().chain(changed).collect();
    ops.extend(flushed.into_iter().map(Op::Flush));
    ops.extend(placed.into_iter().map(|(port, new)| Op::Install(port, new.clone())));
    let active = desired
        .active
        .iter()
        .filter(|(bridge, times)| suspended.contains(bridge) || installed.active.get(bridge) != Some(times));
    ops.extend(active.map(|(bridge, times)| Op::Activate(*bridge, *times)));
    ops
}

/// Whether Open vSwitch forgets the stations of a port with this change, and so must we. It does for VLAN settings and
/// protection; an MTU or whether the device can be sent to is nothing to it.
fn stations_are_void(old: &InstalledPort, new: &InstalledPort) -> bool {
    let essence = |port: &InstalledPort| abi::Port {
        mtu: 0,
        learning_limit: 0,
        flags: port.rules.flags & !abi::PORT_TARGET,
        ..port.rules
    };
    essence(old) != essence(new)
}

/// Gives bridges and ports their dense numbers, and keeps them as long as they exist.
#[derive(Default, Debug)]
pub struct Numbers {
    bridges: BTreeMap<String, BridgeNo>,
    ports: BTreeMap<(BridgeNo, u32), PortNo>,
}

impl Numbers {
    /// The number of a bridge, a new one if need be; `None` when all are taken.
    pub fn bridge(&mut self, name: &str) -> Option<BridgeNo> {
        if let Some(number) = self.bridges.get(name) {
            return Some(*number);
        }
        let taken: BTreeSet<_> = self.bridges.values().copied().collect();
        let free = (0..abi::MAX_BRIDGES as u16).map(BridgeNo).find(|number| !taken.contains(number))?;
        self.bridges.insert(name.to_owned(), free);
        Some(free)
    }

    /// The number of the port with this device, a new one if need be; an error says what is exhausted.
    pub fn port(&mut self, bridge: BridgeNo, ifindex: u32) -> Result<PortNo, String> {
        if let Some(number) = self.ports.get(&(bridge, ifindex)) {
            return Ok(*number);
        }
        let slot = ifindex % abi::IFINDEX_SLOTS;
        if self.ports.keys().any(|(_, other)| other % abi::IFINDEX_SLOTS == slot) {
            return Err(format!("another port's interface index shares its place {slot} in the table"));
        }
        let taken: BTreeSet<_> = self.ports.values().copied().collect();
        let free = (0..abi::MAX_PORTS as u16).map(PortNo).find(|number| !taken.contains(number)).ok_or_else(
            || format!("{} ports are accelerated already, the most there can be", abi::MAX_PORTS),
        )?;
        self.ports.insert((bridge, ifindex), free);
        Ok(free)
    }

    /// The number a bridge has.
    pub fn known_bridge(&self, name: &str) -> Option<BridgeNo> {
        self.bridges.get(name).copied()
    }

    /// The number the port with this device has.
    pub fn known_port(&self, bridge: BridgeNo, ifindex: u32) -> Option<PortNo> {
        self.ports.get(&(bridge, ifindex)).copied()
    }

    /// Takes back the numbers of what is neither installed nor desired any more.
    pub fn retain(&mut self, bridges: &BTreeSet<BridgeNo>, ports: &BTreeSet<PortNo>) {
        self.bridges.retain(|_, number| bridges.contains(number));
        self.ports.retain(|_, number| ports.contains(number));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::BridgeTimes;

    const TIMES: BridgeTimes = BridgeTimes { refresh_s: 75, ageing_s: 300 };
    const B: BridgeNo = BridgeNo(0);

    fn port(ifindex: u32, pvid: u16) -> InstalledPort {
        let rules = abi::Port { pvid, mtu: 1500, flags: abi::PORT_VALID, ..abi::Port::UNUSED };
        InstalledPort { ifindex, device: format!("p{ifindex}"), rules }
    }

    fn state(ports: &[(u16, InstalledPort)], active: bool) -> Installed {
        Installed {
            active: active.then_some((B, TIMES)).into_iter().collect(),
            ports: ports.iter().map(|(number, port)| (PortNo(*number), port.clone())).collect(),
        }
    }

    #[test]
    fn nothing_to_do_is_no_step() {
        let state = state(&[(0, port(5, 10))], true);
        assert_eq!(plan(&state, &state), []);
    }

    #[test]
    fn first_ports_are_installed_before_the_bridge_is_active() {
        let desired = state(&[(0, port(5, 10)), (1, port(6, 10))], true);
        assert_eq!(
            plan(&Installed::default(), &desired),
            [
                Op::Install(PortNo(0), port(5, 10)),
                Op::Install(PortNo(1), port(6, 10)),
                Op::Activate(B, TIMES)
            ]
        );
    }

    #[test]
    fn a_retagged_port_is_changed_under_suspension_and_its_stations_forgotten() {
        let (old, new) = (state(&[(0, port(5, 10))], true), state(&[(0, port(5, 20))], true));
        assert_eq!(
            plan(&old, &new),
            [
                Op::Suspend(B),
                Op::Drain,
                Op::Flush(PortNo(0)),
                Op::Install(PortNo(0), port(5, 20)),
                Op::Activate(B, TIMES)
            ]
        );
    }

    #[test]
    fn an_mtu_is_changed_without_forgetting_stations() {
        let mut wider = port(5, 10);
        wider.rules.mtu = 9000;
        let steps = plan(&state(&[(0, port(5, 10))], true), &state(&[(0, wider)], true));
        assert!(!steps.iter().any(|op| matches!(op, Op::Flush(_))), "{steps:?}");
    }

    #[test]
    fn a_recreated_device_is_taken_out_first() {
        let (old, new) = (state(&[(0, port(5, 10))], true), state(&[(0, port(9, 10))], true));
        assert_eq!(
            plan(&old, &new),
            [
                Op::Suspend(B),
                Op::Drain,
                Op::Remove(PortNo(0)),
                Op::Flush(PortNo(0)),
                Op::Install(PortNo(0), port(9, 10)),
                Op::Activate(B, TIMES)
            ]
        );
    }

    #[test]
    fn a_suspended_bridge_that_is_not_desired_active_stays_suspended() {
        let (old, new) = (state(&[(0, port(5, 10))], false), state(&[], false));
        assert_eq!(plan(&old, &new), [Op::Drain, Op::Remove(PortNo(0)), Op::Flush(PortNo(0))]);
    }

    #[test]
    fn changed_times_reactivate() {
        let old = state(&[], true);
        let mut new = state(&[], true);
        new.active.insert(B, BridgeTimes { refresh_s: 3, ageing_s: 15 });
        let times = BridgeTimes { refresh_s: 3, ageing_s: 15 };
        assert_eq!(plan(&old, &new), [Op::Suspend(B), Op::Activate(B, times)]);
    }

    #[test]
    fn numbers_are_kept_reused_and_exhausted() {
        let mut numbers = Numbers::default();
        let bridge = numbers.bridge("br0").unwrap();
        let first = numbers.port(bridge, 5).unwrap();
        assert_eq!(numbers.port(bridge, 5), Ok(first));
        assert!(numbers.port(bridge, 5 + abi::IFINDEX_SLOTS).unwrap_err().contains("shares its place"));
        for ifindex in 6..5 + abi::MAX_PORTS {
            numbers.port(bridge, ifindex).unwrap();
        }
        assert!(numbers.port(bridge, 60_000).unwrap_err().contains("1024 ports"));
        numbers.retain(&[bridge].into(), &[first].into());
        assert_eq!(numbers.port(bridge, 60_000).map(|number| number.0), Ok(1));
    }
}
