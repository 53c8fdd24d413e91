//! Switching a NIC's rx-vlan-offload off while the program needs to see tags, and on again, come what may.
//!
//! What was switched off is on record in the run directory, so that the next agent, or `trunkline detach`, restores
//! it after one that was killed. A device is on record by what it is, not by its name: one that was renamed meanwhile
//! is restored, and another that has its name or its index now is left as it is.

mod identity;
mod record;

use std::path::PathBuf;

use tracing::{info, warn};

use crate::config::RunDir;
use crate::links;
use identity::{Identity, Sysfs};
use record::{Entry, Record};

/// The devices whose rx-vlan-offload is switched, and the record of it.
#[derive(Clone, Debug)]
pub struct Offloads {
    record: Record,
    sysfs: Sysfs,
}

impl Offloads {
    /// With the record in this run directory.
    pub fn new(run_dir: &RunDir) -> Self {
        Self::with_sysfs(run_dir, PathBuf::from(identity::CLASS_NET))
    }

    /// The same, with the devices of another network namespace, whose `/sys/class/net` is at `class_net`.
    pub fn with_sysfs(run_dir: &RunDir, class_net: PathBuf) -> Self {
        Self { record: Record(run_dir.offloads()), sysfs: Sysfs(class_net) }
    }

    /// Switches a device's rx-vlan-offload and keeps account of it, so that it is restored even after a crash.
    /// Returns why it did not work.
    pub async fn switch(&self, ifindex: u32, device: &str, on: bool) -> Option<String> {
        let identity = self.sysfs.identity(ifindex, device);
        if !on {
            self.note(identity, device).await;
        }
        match links::set_rx_vlan_offload(ifindex, on).await {
            Ok(_) => {
                info!(device, on, "rx-vlan-offload switched");
                if on {
                    self.strike_out(identity).await;
                }
                None
            }
            Err(error) if error.is_absent() => {
                self.strike_out(identity).await;
                None
            }
            Err(error) => {
                warn!(device, on, %error, "rx-vlan-offload not switched");
                Some(error.to_string())
            }
        }
    }

    /// Switches on again what an agent that was killed had switched off. A device that is not here may come back
    /// from another network namespace, so it stays on record.
    pub async fn restore(&self) {
        for Entry { identity, name } in self.record.read().await {
            match self.sysfs.find(identity) {
                Some((ifindex, device)) => drop(self.switch(ifindex, &device, true).await),
                None => {
                    info!(device = name, "its rx-vlan-offload was switched off, and the device is not here")
                }
            }
        }
    }

    async fn note(&self, identity: Option<Identity>, device: &str) {
        let Some(identity) = identity else {
            warn!(
                device,
                "its directory below /sys/class/net cannot be read: a switched offload is not on record"
            );
            return;
        };
        let entry = Entry { identity, name: device.to_owned() };
        let add = |entries: &mut Vec<Entry>| {
            entries.retain(|known| known.identity != entry.identity);
            entries.push(entry);
        };
        self.record.edit(add).await;
    }

    async fn strike_out(&self, identity: Option<Identity>) {
        self.record.edit(move |entries| entries.retain(|known| Some(known.identity) != identity)).await;
    }
}
