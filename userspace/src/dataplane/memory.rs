//! A dataplane in memory, for tests of the agent: they assert on its state, not on calls.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytemuck::Zeroable as _;
use trunkline_core::{Decision, FdbEntry, FdbKey, PuntReason, TraceAnswer, abi};

use super::{
    BridgeNo, BridgeTimes, Dataplane, DataplaneError, Gate, Installed, InstalledPort, Op, PortNo,
    lease::LeaseTable, stations::NotEntered,
};
use crate::fdb;

/// The state that the kernel would have.
#[derive(Debug)]
pub struct Memory {
    /// What is installed.
    pub installed: Installed,
    /// The stations.
    pub stations: BTreeMap<FdbKey, FdbEntry>,
    /// How many stations it has room for.
    pub capacity: usize,
    gate: Arc<Gate<MemoryLeases>>,
    /// Devices to which attaching fails, as if they had just vanished.
    pub vanished: BTreeSet<u32>,
    /// Devices that refuse XDP programs.
    pub without_xdp: BTreeSet<u32>,
}

/// The second at which the lease of each bridge ends, for bridges that have one.
#[derive(Default, Debug)]
pub struct MemoryLeases(BTreeMap<BridgeNo, u32>);

impl LeaseTable for MemoryLeases {
    fn write(&mut self, bridge: BridgeNo, value: abi::Bridge) -> Result<(), DataplaneError> {
        match value.lease_s {
            0 => drop(self.0.remove(&bridge)),
            lease_s => drop(self.0.insert(bridge, lease_s)),
        }
        Ok(())
    }

    fn lease_s(&self, bridge: BridgeNo) -> Result<u32, DataplaneError> {
        Ok(self.0.get(&bridge).copied().unwrap_or(0))
    }

    fn invalidate_flows(&mut self) -> Result<(), DataplaneError> {
        Ok(())
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            installed: Installed::default(),
            stations: BTreeMap::new(),
            capacity: usize::MAX,
            gate: Arc::new(Gate::new(MemoryLeases::default())),
            vanished: BTreeSet::new(),
            without_xdp: BTreeSet::new(),
        }
    }
}

impl Memory {
    /// Returns the gate that decides which bridges may switch, for tests that play the thread that reads the
    /// database.
    pub fn gate(&self) -> Arc<Gate<MemoryLeases>> {
        self.gate.clone()
    }

    /// Returns the bridges that programs would let switch at `now_s`, and until when.
    #[cfg(test)]
    pub(crate) fn leases(&self, now_s: u32) -> BTreeMap<BridgeNo, u32> {
        let mut leases = self.gate.table(|table| table.0.clone());
        leases.retain(|_, lease_s| *lease_s > now_s);
        leases
    }

    fn has_room(&self, key: &FdbKey) -> bool {
        self.stations.contains_key(key) || self.stations.len() < self.capacity
    }

    /// Returns whether programs would let a bridge switch, were its lease never to run out.
    fn may_switch(&self, bridge: u16) -> bool {
        self.gate.suspended([BridgeNo(bridge)]).is_empty()
    }
}

impl Dataplane for Memory {
    fn installed(&self) -> &Installed {
        &self.installed
    }

    fn apply(&mut self, op: &Op) -> Result<(), DataplaneError> {
        match op {
            Op::Suspend(bridge) => {
                self.gate.suspend(*bridge)?;
                self.installed.active.remove(bridge);
            }
            Op::Drain => self.gate.drained(&self.gate.to_be_drained()),
            Op::Remove(port) => {
                if let Some(old) = self.installed.ports.remove(port) {
                    assert!(!self.may_switch(old.rules.bridge), "{op:?} on an active bridge");
                }
            }
            Op::Flush(ports) => self.stations.retain(|_, entry| !ports.contains(&PortNo(entry.port))),
            Op::Install(port, new) => {
                let refused = new.hooks.xdp() && self.without_xdp.contains(&new.ifindex);
                if refused || self.vanished.contains(&new.ifindex) {
                    let cause = std::io::Error::from_raw_os_error(19);
                    return Err(DataplaneError::new("attach to", &new.device, cause));
                }
                if let Some(old) = self.installed.ports.get(port) {
                    let active = |port: &InstalledPort| self.may_switch(port.rules.bridge);
                    assert!(!active(old) && !active(new), "{op:?} on an active bridge");
                    assert_eq!(old.ifindex, new.ifindex, "{op:?} without removing the other device");
                }
                let empty = self.stations.values().all(|entry| entry.port != port.0);
                let known = self.installed.ports.contains_key(port);
                assert!(empty || known, "{op:?} in a place with stations of another");
                self.installed.ports.insert(*port, new.clone());
            }
        }
        Ok(())
    }

    fn activate(
        &mut self,
        bridge: BridgeNo,
        name: &str,
        times: BridgeTimes,
        now_s: u32,
    ) -> Result<bool, DataplaneError> {
        self.apply(&Op::Suspend(bridge))?;
        self.apply(&Op::Drain)?;
        assert!(self.gate.is_drained(bridge));
        self.set_stations(&fdb::set_aside(&self.stations()?, bridge))?;
        let active = self.gate.activate(bridge, name, times, now_s)?;
        if active {
            self.installed.active.insert(bridge, times);
        }
        Ok(active)
    }

    fn confirm(
        &mut self,
        bridge: BridgeNo,
        stations: &[(FdbKey, [FdbEntry; 2])],
    ) -> Result<bool, DataplaneError> {
        if !self.gate.confirm(bridge) {
            return Ok(false);
        }
        for (key, [expected, entry]) in stations {
            self.replace_station(key, *expected, *entry);
        }
        Ok(true)
    }

    fn renew(&mut self, now_s: u32) -> Result<(), DataplaneError> {
        self.gate.renew(now_s, |table, until_s| {
            table.0.retain(|_, lease_s| *lease_s > now_s);
            table.0.values_mut().for_each(|lease_s| *lease_s = until_s.max(*lease_s));
            Ok(())
        })
    }

    fn take_suspended(&mut self) -> BTreeSet<BridgeNo> {
        let suspended = self.gate.suspended(self.installed.active.keys().copied());
        self.installed.active.retain(|bridge, _| !suspended.contains(bridge));
        suspended
    }

    fn stations(&self) -> Result<Vec<(FdbKey, FdbEntry)>, DataplaneError> {
        Ok(self.stations.iter().map(|(key, entry)| (*key, *entry)).collect())
    }

    fn set_stations(&mut self, changes: &[(FdbKey, Option<FdbEntry>)]) -> Result<(), DataplaneError> {
        let mut result = Ok(());
        for (key, entry) in changes {
            match entry {
                Some(entry) if self.has_room(key) => drop(self.stations.insert(*key, *entry)),
                Some(_) => result = result.and(Err(NotEntered::Full.of(key))),
                None => drop(self.stations.remove(key)),
            };
        }
        result
    }

    fn station(&self, key: &FdbKey) -> Option<FdbEntry> {
        self.stations.get(key).copied()
    }

    fn replace_station(&mut self, key: &FdbKey, expected: FdbEntry, entry: FdbEntry) -> bool {
        let known = self.stations.get_mut(key).filter(|known| **known == expected);
        known.map(|known| *known = entry).is_some()
    }

    fn add_stations(&mut self, stations: &[(FdbKey, FdbEntry)]) -> Result<usize, DataplaneError> {
        let mut added = 0;
        for (key, entry) in stations {
            if self.has_room(key) {
                self.stations.entry(*key).or_insert(*entry);
                added += 1;
            }
        }
        Ok(added)
    }

    fn recount(&mut self, _: PortNo, _: u32) -> Result<(), DataplaneError> {
        Ok(())
    }

    fn counters(&self, _: PortNo) -> Result<abi::Counters, DataplaneError> {
        Ok(abi::Counters::zeroed())
    }

    fn trace(&mut self, _: u32, frame: &[u8]) -> Result<(TraceAnswer, Vec<u8>), DataplaneError> {
        let decision = Decision::Punt(PuntReason::NotAPort);
        Ok((TraceAnswer { decision, vid: None, beside: None, now_s: 0 }, frame.to_vec()))
    }
}
