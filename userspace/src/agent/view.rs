//! How the agent fills its reports: what it knows, in the words of people and scripts.

use std::collections::BTreeMap;

use trunkline_core::{DropReason, FdbEntry, FdbKey, PuntReason};

use super::{Agent, Watched};
use crate::dataplane::{Dataplane, DataplaneError, Hooks, PortNo};
use crate::desired::{DesiredBridge, DesiredPort, Reason};
use crate::report::{
    BridgeStatus, FdbStation, OvsStatus, PortStats, PortStatus, RxStats, Stats, Status, Volume,
};

impl<D: Dataplane> Agent<D> {
    /// The document of `status`.
    pub fn status(&self) -> Status {
        let host = self.applied.latest().and_then(|rows| rows.open_vswitch.as_ref());
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ready: self.is_settled(),
            ovs: OvsStatus {
                connected: self.database.is_ok(),
                reason: self.database.as_ref().err().cloned(),
                version: self.ovs_version.clone().or_else(|| host?.ovs_version.clone()),
                cur_cfg: host.map_or(0, |host| host.cur_cfg),
                next_cfg: host.map_or(0, |host| host.next_cfg),
            },
            bridges: self.desired.iter().map(|bridge| self.bridge_status(bridge)).collect(),
        }
    }

    fn bridge_status(&self, bridge: &DesiredBridge) -> BridgeStatus {
        let accelerated = self.is_active(&bridge.name);
        let not_yet = || (!accelerated).then_some(Reason::AboutToSwitch);
        let reason = bridge.reason.clone().or_else(|| self.hold_reason(&bridge.name)).or_else(not_yet);
        let ports = bridge.ports.iter().map(|port| {
            let hooks = self.installed_hooks(&bridge.name, port);
            let installed = hooks.is_some();
            let own = port.rules.as_ref().err().cloned();
            let accelerated = installed && accelerated && own.is_none();
            let of_bridge = || {
                let cause = Box::new(reason.clone()?);
                Some(Reason::OfBridge { bridge: bridge.name.clone(), cause })
            };
            let not_yet = || (!installed).then_some(Reason::NotAttached);
            let reason = own.or_else(of_bridge).or_else(not_yet);
            PortStatus {
                name: port.name.clone(),
                ifindex: port.ifindex,
                hook: hooks.map_or("none", Hooks::label).to_owned(),
                hook_reason: port.hook.as_ref().filter(|_| installed).map(|chosen| chosen.reason.clone()),
                accelerated,
                reason: text(&reason),
                reason_code: code(&reason),
                note: port
                    .not_a_target
                    .as_ref()
                    .map(|why| format!("frames to it from XDP go through Open vSwitch: {why}")),
                vlan_mode: port.vlan.mode.to_string(),
                tag: port.vlan.tag,
                trunks: port.vlan.trunks.clone(),
            }
        });
        BridgeStatus {
            name: bridge.name.clone(),
            datapath: bridge.datapath.clone(),
            accelerated,
            ports: ports.collect(),
            reason: text(&reason),
            reason_code: code(&reason),
        }
    }

    /// Whether everything that should be installed is.
    fn is_settled(&self) -> bool {
        let in_place = |bridge: &DesiredBridge| {
            let pending = |port: &DesiredPort| port.wants_tags_in_frame;
            bridge.reason.is_some()
                || self.is_active(&bridge.name)
                    && self.hold_reason(&bridge.name).is_none()
                    && !self.watched.get(&bridge.name).is_some_and(Watched::is_unconfirmed)
                    && !bridge.ports.iter().any(pending)
        };
        self.database.is_ok()
            && self.links_trouble.is_none()
            && self.failed.is_empty()
            && self.desired.iter().all(in_place)
    }

    /// Where the programs are on an accelerated port.
    fn installed_hooks(&self, bridge: &str, port: &DesiredPort) -> Option<Hooks> {
        let place = self.installed_port(self.bridge_no(bridge)?, port)?;
        self.dataplane.installed().ports.get(&place).map(|port| port.hooks)
    }

    /// The rows of `fdb show`.
    ///
    /// # Errors
    /// The table could not be read.
    pub fn fdb_stations(&self) -> Result<Vec<FdbStation>, DataplaneError> {
        let ports: BTreeMap<_, _> =
            self.installed_ports().map(|(bridge, port, number)| (number, (bridge, port))).collect();
        let mut stations = self.dataplane.stations()?;
        stations.sort_by_key(|(key, _)| *key);
        let row = |(key, entry): (FdbKey, FdbEntry)| {
            let (bridge, port) = ports.get(&PortNo(entry.port))?;
            Some(FdbStation {
                bridge: bridge.name.clone(),
                vlan: key.vid.get(),
                mac: key.mac.to_string(),
                port: port.name.clone(),
                age_s: if entry.fixed { 0 } else { self.now_s.saturating_sub(entry.shown_s) },
                r#static: entry.fixed,
            })
        };
        Ok(stations.into_iter().filter_map(row).collect())
    }

    /// The document of `stats`.
    ///
    /// # Errors
    /// A port's counters could not be read.
    pub fn stats(&self) -> Result<Stats, DataplaneError> {
        let ports = self.installed_ports().map(|(bridge, port, number)| {
            let counters = self.dataplane.counters(number)?;
            Ok(PortStats {
                bridge: bridge.name.clone(),
                port: port.name.clone(),
                rx: RxStats {
                    forwarded: Volume { frames: counters.rx_frames, bytes: counters.rx_bytes },
                    punted: labelled(PuntReason::ALL.iter().map(|r| (r.label(), counters.punted[r.index()]))),
                    dropped: labelled(
                        DropReason::ALL.iter().map(|r| (r.label(), counters.dropped[r.index()])),
                    ),
                },
                tx: Volume { frames: counters.tx_frames, bytes: counters.tx_bytes },
            })
        });
        Ok(Stats { ports: ports.collect::<Result<_, _>>()? })
    }

    /// All accelerated ports with their numbers.
    pub(super) fn installed_ports(&self) -> impl Iterator<Item = (&DesiredBridge, &DesiredPort, PortNo)> {
        self.desired.iter().flat_map(move |bridge| {
            let number = self.bridge_no(&bridge.name);
            bridge.ports.iter().filter_map(move |port| {
                self.installed_port(number?, port).map(|number| (bridge, port, number))
            })
        })
    }
}

fn text(reason: &Option<Reason>) -> Option<String> {
    reason.as_ref().map(Reason::to_string)
}

fn code(reason: &Option<Reason>) -> Option<String> {
    reason.as_ref().map(|reason| reason.code().to_owned())
}

fn labelled(counters: impl Iterator<Item = (&'static str, u64)>) -> BTreeMap<String, u64> {
    counters.filter(|(_, count)| *count > 0).map(|(label, count)| (label.to_owned(), count)).collect()
}
