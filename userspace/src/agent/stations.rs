//! Our stations: compared with Open vSwitch's, and aged.

use std::collections::BTreeMap;

use tracing::{debug, info, warn};

use super::Agent;
use crate::dataplane::{BridgeNo, Dataplane, DataplaneError, PortNo};
use crate::desired::DesiredPort;
use crate::fdb::{self, Correction, Reconciled, Side};
use crate::unixctl::FdbRow;

/// The table of stations is swept for expired ones so often, and compared as a whole, in seconds.
pub(super) const SWEEP_S: u32 = 10;

/// What a comparison of stations leaves to be asked.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Comparison {
    /// Some may be too new to Open vSwitch.
    pub(super) undecided: bool,
    /// Some are out of use, and Open vSwitch has them.
    pub(super) unconfirmed: bool,
}

impl<D: Dataplane> Agent<D> {
    /// Compares our stations of a bridge with those that Open vSwitch had in the second `asked_s`, corrects ours but for those
    /// shown to it `since_s`, and enters those that are missing, out of use.
    pub(super) fn reconcile(
        &mut self,
        bridge: &str,
        rows: &[FdbRow],
        since_s: u32,
        asked_s: u32,
    ) -> Result<Comparison, DataplaneError> {
        let Some(number) = self.numbers.known_bridge(bridge) else { return Ok(Comparison::default()) };
        let side = Side { bridge: number, ports: &self.ports_by_ofport(bridge), rows };
        let Reconciled { corrections, missing, unconfirmed, undecided } =
            fdb::reconcile(&self.dataplane.stations()?, side, since_s, asked_s);
        for (key, entry) in &corrections {
            debug!(bridge, vlan = key.vid.get(), mac = %key.mac, ?entry, "station corrected");
        }
        if !corrections.is_empty() {
            self.correct(bridge, number, &corrections)?;
        }
        let added = if missing.is_empty() { 0 } else { self.dataplane.add_stations(&missing)? };
        if added > 0 {
            debug!(bridge, added, "stations of Open vSwitch's entered, to be confirmed");
        }
        Ok(Comparison { undecided, unconfirmed: unconfirmed || added > 0 })
    }

    /// Corrects stations. An operator's entry must be in the table, or a program would learn its station like any other:
    /// where there is no room for it, the learned stations of the bridge make way. They come back with their next
    /// frames, or when Open vSwitch is asked again.
    fn correct(
        &mut self,
        bridge: &str,
        number: BridgeNo,
        corrections: &[Correction],
    ) -> Result<(), DataplaneError> {
        let Err(error) = self.dataplane.set_stations(corrections) else { return Ok(()) };
        let stations = self.dataplane.stations()?;
        let learned = stations.iter().filter(|(key, entry)| key.bridge == number.0 && !entry.fixed);
        let forgotten: Vec<Correction> = learned.map(|(key, _)| (*key, None)).collect();
        if forgotten.is_empty() {
            return Err(error);
        }
        info!(bridge, forgotten = forgotten.len(), %error, "learned stations make way for an operator's");
        self.dataplane.set_stations(&[&forgotten, corrections].concat())
    }

    /// Puts the stations out of use back that Open vSwitch has, and that no program has seen since. Returns false if the bridge is
    /// suspended.
    pub(super) fn confirm(&mut self, bridge: &str, rows: &[FdbRow]) -> Result<bool, DataplaneError> {
        let Some(number) = self.numbers.known_bridge(bridge) else { return Ok(false) };
        let side = Side { bridge: number, ports: &self.ports_by_ofport(bridge), rows };
        let confirmed = fdb::confirmed(&self.dataplane.stations()?, side);
        self.dataplane.confirm(number, &confirmed)
    }

    pub(super) fn ports_by_ofport(&self, bridge: &str) -> BTreeMap<u16, PortNo> {
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

    /// Forgets our stations of a bridge, port or VLAN (all of them where not said), and tells how many.
    ///
    /// # Errors
    /// No such bridge or port is accelerated, or the table could not be written.
    pub fn flush_stations(
        &mut self,
        bridge: Option<&str>,
        port: Option<&str>,
        vlan: Option<u16>,
    ) -> Result<usize, String> {
        let unknown =
            |what: &str, name: &str| format!("no accelerated {what} {name}; `trunkline status` lists them");
        let bridge_no = match bridge {
            Some(name) => Some(self.bridge_no(name).ok_or_else(|| unknown("bridge", name))?),
            None => None,
        };
        let port_no = match port {
            Some(name) => {
                let found = self.installed_ports().find(|(_, port, _)| port.name == name);
                Some(found.ok_or_else(|| unknown("port", name))?.2)
            }
            None => None,
        };
        let stations = self.dataplane.stations().map_err(|error| error.to_string())?;
        let chosen: Vec<_> = stations
            .into_iter()
            .filter(|(key, entry)| {
                bridge_no.is_none_or(|number| key.bridge == number.0)
                    && port_no.is_none_or(|number| entry.port == number.0)
                    && vlan.is_none_or(|vlan| key.vid.get() == vlan)
            })
            .map(|(key, _)| (key, None))
            .collect();
        self.dataplane.set_stations(&chosen).map_err(|error| error.to_string())?;
        Ok(chosen.len())
    }
}
