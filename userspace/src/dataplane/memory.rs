//! A dataplane in memory, for tests of the agent: they look at its state, not at calls.

use std::collections::{BTreeMap, BTreeSet};

use bytemuck::Zeroable as _;
use trunkline_core::{FdbEntry, FdbKey, abi};

use super::{BridgeNo, Dataplane, DataplaneError, Installed, InstalledPort, LEASE_S, Op, PortNo};

/// State that the kernel would have.
#[derive(Default, Debug)]
pub struct Memory {
    /// What is installed.
    pub installed: Installed,
    /// Stations.
    pub stations: BTreeMap<FdbKey, FdbEntry>,
    /// Until when each active bridge may switch, in seconds.
    pub leases: BTreeMap<BridgeNo, u32>,
    /// Devices on which attaching fails, as if they had just vanished.
    pub vanished: BTreeSet<u32>,
    /// Devices that take no XDP program.
    pub without_xdp: BTreeSet<u32>,
}

impl Dataplane for Memory {
    fn installed(&self) -> &Installed {
        &self.installed
    }

    fn apply(&mut self, op: &Op, now_s: u32) -> Result<(), DataplaneError> {
        let Self { installed, stations, leases, vanished, without_xdp } = self;
        match op {
            Op::Suspend(bridge) => {
                installed.active.remove(bridge);
                leases.remove(bridge);
            }
            Op::Drain => {}
            Op::Remove(port) => {
                if let Some(old) = installed.ports.remove(port) {
                    let bridge = BridgeNo(old.rules.bridge);
                    assert!(!installed.active.contains_key(&bridge), "{op:?} on an active bridge");
                }
            }
            Op::Flush(ports) => stations.retain(|_, entry| !ports.contains(&PortNo(entry.port))),
            Op::Install(port, new) => {
                let refused = new.hooks.xdp() && without_xdp.contains(&new.ifindex);
                if refused || vanished.contains(&new.ifindex) {
                    let cause = std::io::Error::from_raw_os_error(19);
                    return Err(DataplaneError::new("attach to", &new.device, &cause));
                }
                if let Some(old) = installed.ports.get(port) {
                    let active =
                        |port: &InstalledPort| installed.active.contains_key(&BridgeNo(port.rules.bridge));
                    assert!(!active(old) && !active(new), "{op:?} on an active bridge");
                    assert_eq!(old.ifindex, new.ifindex, "{op:?} without removing the other device");
                }
                assert!(
                    stations.values().all(|entry| entry.port != port.0 || installed.ports.contains_key(port)),
                    "{op:?} in a place with stations of another"
                );
                installed.ports.insert(*port, new.clone());
            }
            Op::Activate(bridge, times) => {
                installed.active.insert(*bridge, *times);
                leases.insert(*bridge, now_s + LEASE_S);
            }
        }
        Ok(())
    }

    fn renew(&mut self, now_s: u32) -> Result<(), DataplaneError> {
        self.leases.values_mut().for_each(|lease_s| *lease_s = now_s + LEASE_S);
        Ok(())
    }

    fn stations(&self) -> Result<Vec<(FdbKey, FdbEntry)>, DataplaneError> {
        Ok(self.stations.iter().map(|(key, entry)| (*key, *entry)).collect())
    }

    fn set_stations(&mut self, changes: &[(FdbKey, Option<FdbEntry>)]) -> Result<(), DataplaneError> {
        for (key, entry) in changes {
            match entry {
                Some(entry) => self.stations.insert(*key, *entry),
                None => self.stations.remove(key),
            };
        }
        Ok(())
    }

    fn replace_stations(&mut self, changes: &[(FdbKey, [FdbEntry; 2])]) -> Result<(), DataplaneError> {
        for (key, [expected, entry]) in changes {
            if let Some(known) = self.stations.get_mut(key).filter(|known| *known == expected) {
                *known = *entry;
            }
        }
        Ok(())
    }

    fn recount(&mut self, _: PortNo, _: u32) -> Result<(), DataplaneError> {
        Ok(())
    }

    fn counters(&self, _: PortNo) -> Result<abi::Counters, DataplaneError> {
        Ok(abi::Counters::zeroed())
    }

    fn trace(&mut self, _: u32, frame: &[u8]) -> Result<(abi::Trace, Vec<u8>), DataplaneError> {
        Ok((abi::Trace::default(), frame.to_vec()))
    }
}
