//! Our stations: compared with Open vSwitch's, and aged.

use std::collections::BTreeMap;

use tracing::{debug, warn};
use trunkline_core::{FdbEntry, FdbKey};

use super::Agent;
use crate::dataplane::{BridgeNo, Dataplane, DataplaneError, PortNo};
use crate::desired::DesiredPort;
use crate::fdb::{self, Reconciled};
use crate::unixctl::FdbRow;

/// The table of stations is swept for expired ones so often, and compared as a whole, in seconds.
pub(super) const SWEEP_S: u32 = 10;

impl<D: Dataplane> Agent<D> {
    /// Compares our stations of a bridge with Open vSwitch's and corrects ours, but for those shown to it `since_s`.
    /// Returns whether any of those differ.
    pub(super) fn reconcile(
        &mut self,
        bridge: &str,
        rows: &[FdbRow],
        since_s: u32,
    ) -> Result<bool, DataplaneError> {
        let Some(number) = self.numbers.known_bridge(bridge) else { return Ok(false) };
        let ports = self.ports_by_ofport(bridge);
        let Reconciled { corrections, undecided } =
            fdb::reconcile(&self.dataplane.stations()?, number, &ports, rows, since_s);
        for (key, entry) in &corrections {
            debug!(bridge, vlan = key.vid.get(), mac = %key.mac, ?entry, "station corrected");
        }
        if !corrections.is_empty() {
            self.dataplane.set_stations(&corrections)?;
        }
        Ok(undecided)
    }

    /// Takes the learned stations of a suspended bridge out of use, for a bridge that is about to switch. Returns them as
    /// they were.
    pub(super) fn set_aside(&mut self, bridge: BridgeNo) -> Result<Vec<(FdbKey, FdbEntry)>, DataplaneError> {
        let mut stations = self.dataplane.stations()?;
        stations.retain(|(key, entry)| {
            key.bridge == bridge.0 && !entry.fixed && PortNo(entry.port) != fdb::NOWHERE
        });
        let aside = stations.iter().map(|(key, entry)| (*key, Some(fdb::aside(*entry))));
        self.dataplane.set_stations(&aside.collect::<Vec<_>>())?;
        Ok(stations)
    }

    /// Puts those of them back that Open vSwitch has where they were, and that have sent nothing since.
    pub(super) fn restore(
        &mut self,
        bridge: &str,
        stations: &[(FdbKey, FdbEntry)],
        rows: &[FdbRow],
    ) -> Result<(), DataplaneError> {
        let Some(number) = self.numbers.known_bridge(bridge) else { return Ok(()) };
        let confirmed = fdb::confirmed(stations, number, &self.ports_by_ofport(bridge), rows);
        self.dataplane.replace_stations(&confirmed)
    }

    fn ports_by_ofport(&self, bridge: &str) -> BTreeMap<u16, PortNo> {
        let Some(desired) = self.desired.iter().find(|desired| desired.name == bridge) else {
            return BTreeMap::new();
        };
        let Some(number) = self.numbers.known_bridge(bridge) else { return BTreeMap::new() };
        let place = |port: &DesiredPort| Some((port.ofport?, self.installed_port(number, port)?));
        desired.ports.iter().filter_map(place).collect()
    }

    pub(super) fn sweep(&mut self) {
        let stations = match self.dataplane.stations() {
            Ok(stations) => stations,
            Err(error) => return warn!(%error, "expired stations stay until the next sweep"),
        };
        let installed = self.dataplane.installed();
        let ports: Vec<PortNo> = installed.ports.keys().copied().collect();
        let ageing_s = |bridge| installed.active.get(&bridge).map(|times| times.ageing_s);
        let (expired, mut counts) = fdb::age(&stations, ageing_s, self.now_s);
        let expired: Vec<_> = expired.into_iter().map(|key| (key, None)).collect();
        let mut results = vec![];
        if !expired.is_empty() {
            results.push(self.dataplane.set_stations(&expired));
        }
        for port in ports {
            results.push(self.dataplane.recount(port, counts.remove(&port).unwrap_or(0)));
        }
        if let Some(error) = results.into_iter().find_map(Result::err) {
            warn!(%error, "the sweep of the stations is incomplete");
        }
    }
}
