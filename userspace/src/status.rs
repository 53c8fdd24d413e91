//! What the agent tells people and scripts: the documents of `status`, `fdb show`, `stats` and `trace`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use trunkline_core::{Decision, DropReason, Hook, Outcome, PuntReason, Verdict, Vid};

use crate::agent::Agent;
use crate::dataplane::{Dataplane, DataplaneError, Hooks, PortNo};
use crate::desired::{DesiredBridge, DesiredPort, Reason};
use crate::explain::{Snapshot, explain};
use crate::frame_text::hex;

/// `trunkline status --json`
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Of trunkline.
    pub version: String,
    /// Connected, every wanted program attached, and the tables equal to what Open vSwitch has applied.
    pub ready: bool,
    /// How Open vSwitch stands.
    pub ovs: OvsStatus,
    /// All bridges, by name.
    pub bridges: Vec<BridgeStatus>,
}

/// How Open vSwitch stands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OvsStatus {
    /// The database is connected.
    pub connected: bool,
    /// Why it is not.
    pub reason: Option<String>,
    /// Of the running ovs-vswitchd.
    pub version: Option<String>,
    /// `Open_vSwitch.cur_cfg`
    pub cur_cfg: i64,
    /// `Open_vSwitch.next_cfg`
    pub next_cfg: i64,
}

/// How a bridge stands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BridgeStatus {
    /// `Bridge.name`
    pub name: String,
    /// `system` or `netdev`
    pub datapath: String,
    /// It switches by itself now.
    pub accelerated: bool,
    /// Why it does not.
    pub reason: Option<String>,
    /// The same for scripts: [`Reason::code`].
    pub reason_code: Option<String>,
    /// All its ports, by name.
    pub ports: Vec<PortStatus>,
}

/// How a port stands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PortStatus {
    /// `Port.name`
    pub name: String,
    /// The kernel's interface index.
    pub ifindex: Option<u32>,
    /// Where its frames are taken: `xdp-native`, `tc`, `xdp+tc` or `none`.
    pub hook: String,
    /// Why there.
    pub hook_reason: Option<String>,
    /// Frames from it are switched by the program.
    pub accelerated: bool,
    /// Why they are not.
    pub reason: Option<String>,
    /// The same for scripts: [`Reason::code`].
    pub reason_code: Option<String>,
    /// A restriction of an accelerated port.
    pub note: Option<String>,
    /// The effective mode.
    pub vlan_mode: String,
    /// `Port.tag`
    pub tag: Option<u16>,
    /// `Port.trunks`; empty for all.
    pub trunks: Vec<u16>,
}

/// A row of `trunkline fdb show --json`
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FdbStation {
    /// `Bridge.name`
    pub bridge: String,
    /// The VLAN.
    pub vlan: u16,
    /// The address.
    pub mac: String,
    /// `Port.name`
    pub port: String,
    /// Seconds since Open vSwitch was last shown a frame of it; 0 for an operator's entry.
    pub age_s: u32,
    /// An operator's entry (`fdb/add`).
    pub r#static: bool,
}

/// `trunkline stats --json`
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Stats {
    /// All accelerated ports.
    pub ports: Vec<PortStats>,
}

/// Counters of a port since it was last attached.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PortStats {
    /// `Bridge.name`
    pub bridge: String,
    /// `Port.name`
    pub port: String,
    /// Frames that came in here.
    pub rx: RxStats,
    /// Frames that the program sent out here.
    pub tx: Volume,
}

/// What became of the frames that came in.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RxStats {
    /// Forwarded by the program.
    pub forwarded: Volume,
    /// Left to Open vSwitch, by reason.
    pub punted: BTreeMap<String, u64>,
    /// Dropped, by reason.
    pub dropped: BTreeMap<String, u64>,
}

/// An amount of traffic.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Volume {
    /// Frames.
    pub frames: u64,
    /// Octets, from the destination address on, without the FCS.
    pub bytes: u64,
}

/// `trunkline trace --json`
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TraceReport {
    /// `Bridge.name`
    pub bridge: String,
    /// The ingress port.
    pub port: String,
    /// The frame as received, in hexadecimal.
    pub frame: String,
    /// `forward`, `punt` or `drop`
    pub verdict: String,
    /// Why it is punted or dropped.
    pub reason: Option<String>,
    /// The frame's VLAN, if the port admits it.
    pub vlan: Option<u16>,
    /// The egress port, if forwarded.
    pub out_port: Option<String>,
    /// The frame as it leaves, if forwarded.
    pub out_frame: Option<String>,
    /// The way to the verdict, in words.
    pub steps: Vec<String>,
    /// OpenFlow number of the ingress port.
    pub ofport: Option<u16>,
    /// What Open vSwitch would do (`ofproto/trace`), if that was asked.
    pub ovs: Option<String>,
}

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
        let reason = bridge.reason.clone().or_else(|| self.hold(&bridge.name)).or_else(not_yet);
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

    /// All accelerated ports with their numbers.
    fn installed_ports(&self) -> impl Iterator<Item = (&DesiredBridge, &DesiredPort, PortNo)> {
        self.desired.iter().flat_map(move |bridge| {
            let number = self.bridge_no(&bridge.name);
            bridge.ports.iter().filter_map(move |port| {
                self.installed_port(number?, port).map(|number| (bridge, port, number))
            })
        })
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
        let row = |(key, entry): (trunkline_core::FdbKey, trunkline_core::FdbEntry)| {
            let (bridge, port) = ports.get(&PortNo(entry.port))?;
            Some(FdbStation {
                bridge: bridge.name.clone(),
                vlan: key.vid.get(),
                mac: key.mac.to_string(),
                port: port.name.clone(),
                age_s: if entry.fixed { 0 } else { self.now_s().saturating_sub(entry.shown_s) },
                r#static: entry.fixed,
            })
        };
        Ok(stations.into_iter().filter_map(row).collect())
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

    /// The document of `trace`: what the loaded program does with a frame that arrives on a port.
    ///
    /// # Errors
    /// No such port is accelerated, or the program could not be run.
    pub fn trace(&mut self, port: &str, frame: &[u8]) -> Result<TraceReport, String> {
        let found = self.installed_ports().find(|(_, candidate, _)| candidate.name == port);
        let Some((bridge, found, _)) = found else { return Err(self.why_no_trace(port)) };
        let (bridge, ofport) = (bridge.name.clone(), found.ofport);
        let Some(ifindex) = found.ifindex else { return Err(format!("port {port} has no device")) };
        let (mut steps, expected) = self.explain(ifindex, frame)?;
        let (answer, sent) = self.dataplane.trace(ifindex, frame).map_err(|e| cannot_trace(&e, frame))?;
        let (verdict, reason, out_port) = match answer.decision {
            Decision::Forward { port } => {
                let out = self.installed_ports().find(|(_, _, number)| number.0 == port);
                (
                    "forward",
                    None,
                    Some(out.map_or_else(|| "unknown".to_owned(), |(_, port, _)| port.name.clone())),
                )
            }
            Decision::Punt(reason) => ("punt", Some(reason.label().to_owned()), None),
            Decision::Drop(reason) => ("drop", Some(reason.label().to_owned()), None),
        };
        if answer.decision != Decision::from(expected.verdict) {
            steps.push(format!(
                "the copy of the tables says otherwise ({expected:?}): they have just changed, try again"
            ));
        }
        Ok(TraceReport {
            steps,
            ofport,
            ovs: None,
            bridge,
            port: port.to_owned(),
            frame: hex(frame),
            verdict: verdict.to_owned(),
            reason,
            vlan: answer.vid.map(Vid::get),
            out_frame: out_port.is_some().then(|| hex(&sent)),
            out_port,
        })
    }

    fn explain(&self, ifindex: u32, frame: &[u8]) -> Result<(Vec<String>, Outcome), String> {
        let names = self.installed_ports().map(|(_, port, number)| (number.0, port.name.clone())).collect();
        let stations = self.dataplane.stations().map_err(|error| error.to_string())?;
        let installed = self.dataplane.installed();
        let hooks = installed.ports.values().find(|port| port.ifindex == ifindex).map(|port| port.hooks);
        let first = if hooks.is_some_and(|hooks| !hooks.xdp()) { Hook::Tc } else { Hook::Xdp };
        let mut tables = Snapshot::new(installed, stations, names, self.now_s(), first);
        let explained = explain(&tables, ifindex, frame);
        if hooks != Some(Hooks::XdpAndTc) || !matches!(explained.1.verdict, Verdict::Punt(_)) {
            return Ok(explained);
        }
        tables.hook = Hook::Tc;
        Ok(explain(&tables, ifindex, frame))
    }

    fn why_no_trace(&self, port: &str) -> String {
        let status = self.status();
        let found = status.bridges.iter().flat_map(|bridge| &bridge.ports).find(|found| found.name == port);
        match found.and_then(|found| found.reason.as_deref()) {
            Some(reason) => format!("port {port} is not accelerated, Open vSwitch has its frames: {reason}"),
            None => format!("there is no port {port}; `trunkline status` lists all"),
        }
    }
}

/// A trial run at tc has a page for the frame, and so has one of XDP's before Linux 5.18. How much of the page
/// the frame can have depends on the kernel (`bpf_test_init`, Linux `net/bpf/test_run.c`).
fn cannot_trace(error: &DataplaneError, frame: &[u8]) -> String {
    const ALWAYS_TAKEN: usize = 3_000;
    match frame.len() {
        ..=ALWAYS_TAKEN => error.to_string(),
        length => format!(
            "{error}; the frame has {length} octets, and not every kernel tries a program on more than \
             {ALWAYS_TAKEN}: shorten the payload"
        ),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_too_long_for_a_trial_is_called_that() {
        let error = DataplaneError::new("run the program on", "p1", &std::io::Error::from_raw_os_error(22));
        let text = cannot_trace(&error, &[0; 9_000]);
        assert!(text.contains("9000 octets") && text.contains("shorten the payload"), "{text}");
        assert_eq!(cannot_trace(&error, &[0; 64]), error.to_string());
    }
}
