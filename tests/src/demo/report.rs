//! What the demo has found, for people.

use std::fmt::Write as _;

use super::load::{Rate, Stream, median};
use super::network::{Flow, Network};
use super::table::table;
use crate::PortSummary;

/// A path and its frames.
#[derive(Debug)]
pub(super) struct FlowFinding {
    pub(super) flow: Flow,
    /// Frames of its pings that the programs forwarded.
    pub(super) by_xdp: u64,
}

/// One measurement.
#[derive(Debug)]
pub(super) struct Measurement {
    pub(super) stream: Stream,
    pub(super) fast: bool,
    pub(super) rate: Rate,
}

/// Everything that is reported.
#[derive(Default, Debug)]
pub(super) struct Findings {
    pub(super) machine: String,
    pub(super) flows: Vec<FlowFinding>,
    pub(super) measurements: Vec<Measurement>,
    /// Why there are no measurements.
    pub(super) no_load: Option<String>,
    ports: Vec<PortSummary>,
}

impl Findings {
    /// None yet.
    pub(super) fn new(machine: String) -> Self {
        Self { machine, ..Self::default() }
    }

    /// Adds the counters of one run of the agent.
    pub(super) fn add(&mut self, ports: Vec<PortSummary>) {
        for port in ports {
            match self.ports.iter_mut().find(|known| known.port == port.port) {
                Some(known) => {
                    known.forwarded += port.forwarded;
                    known.punted += port.punted;
                    known.dropped += port.dropped;
                    known.sent += port.sent;
                }
                None => self.ports.push(port),
            }
        }
    }

    /// Medians of offered frames, and of delivered ones.
    fn median(&self, stream: Stream, fast: bool) -> Rate {
        let wanted = self.measurements.iter().filter(|m| m.stream == stream && m.fast == fast);
        let (offered, delivered) = wanted.map(|m| (m.rate.offered, m.rate.delivered)).unzip();
        Rate { offered: median(offered), delivered: median(delivered) }
    }

    /// An error says what did not work that should have.
    pub(super) fn verdict(&self) -> Result<(), String> {
        for FlowFinding { flow, by_xdp } in &self.flows {
            if flow.fast && *by_xdp == 0 {
                return Err(format!("no frame between {} and {} took the fast path", flow.from, flow.to));
            }
        }
        for port in Network::FAST_PORTS {
            if !self.ports.iter().any(|summary| summary.port == port && summary.forwarded > 0) {
                return Err(format!("no frame from port {port} took the fast path"));
            }
        }
        if self.no_load.is_some() {
            return Ok(());
        }
        for stream in Stream::ALL {
            let (alone, fast) = (self.median(stream, false), self.median(stream, true));
            if fast.delivered <= alone.delivered {
                return Err(format!("{}: trunkline is not faster than Open vSwitch alone", stream.name()));
            }
        }
        Ok(())
    }
}

/// The whole report.
pub(super) fn text(findings: &Findings) -> String {
    let mut text = format!("{}\n", findings.machine);
    let mut section = |title: &str, body: &str| {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n{title}\n{body}");
    };
    section(
        "Who talks to whom (all pings answered, with and without trunkline; h2 does not reach h3)",
        &flows(findings),
    );
    section("Frames while trunkline ran, by the port they came in", &frames(findings));
    match &findings.no_load {
        None => section("64-octet frames delivered, millions per second (medians)", &rates(findings)),
        Some(cause) => section("No load was measured", &format!("  {cause}\n")),
    }
    section("Left to Open vSwitch, and why", &left(findings));
    text
}

fn port<'f>(findings: &'f Findings, name: &str) -> Option<&'f PortSummary> {
    findings.ports.iter().find(|port| port.port == name)
}

fn flows(findings: &Findings) -> String {
    let side = |name: &str| {
        port(findings, name).map_or_else(|| name.to_owned(), |port| format!("{name} ({})", port.vlan))
    };
    let row = |finding: &FlowFinding| {
        let FlowFinding { flow, by_xdp } = finding;
        let path = if flow.fast { format!("{by_xdp} frames by XDP") } else { "Open vSwitch".to_owned() };
        vec![
            flow.from.to_owned(),
            side(flow.from),
            flow.to.to_owned(),
            side(flow.to_port),
            flow.vid.to_string(),
            path,
        ]
    };
    let rows: Vec<_> = findings.flows.iter().map(row).collect();
    table(&["FROM", "PORT", "TO", "PORT", "VLAN", "PINGS"], &rows)
}

fn frames(findings: &Findings) -> String {
    let accelerated = findings.ports.iter().filter(|port| port.reason.is_none());
    let row = |port: &PortSummary| {
        let PortSummary { port, vlan, hook, forwarded, punted, dropped, sent, .. } = port;
        let numbers = [forwarded, punted, dropped, sent].map(u64::to_string);
        [vec![port.clone(), vlan.clone(), hook.clone()], numbers.to_vec()].concat()
    };
    let rows: Vec<_> = accelerated.map(row).collect();
    table(&["PORT", "VLANS", "HOOK", "BY XDP", "BY OVS", "DROPPED", "SENT BY XDP"], &rows)
}

fn rates(findings: &Findings) -> String {
    let row = |stream: Stream| {
        let (alone, fast) = (findings.median(stream, false), findings.median(stream, true));
        let ratio = if alone.delivered > 0.0 { fast.delivered / alone.delivered } else { f64::INFINITY };
        let rate = |rate: f64| format!("{rate:.2}");
        vec![
            stream.name().to_owned(),
            rate(alone.delivered),
            rate(fast.delivered),
            format!("{ratio:.1} times"),
        ]
    };
    let rows: Vec<_> = Stream::ALL.into_iter().map(row).collect();
    table(&["PATH", "OVS ALONE", "TRUNKLINE", "RATIO"], &rows)
}

fn left(findings: &Findings) -> String {
    let row = |port: &PortSummary| Some(vec![port.port.clone(), port.vlan.clone(), port.reason.clone()?]);
    let rows: Vec<_> = findings.ports.iter().filter_map(row).collect();
    table(&["PORT", "VLANS", "WHY"], &rows)
}
