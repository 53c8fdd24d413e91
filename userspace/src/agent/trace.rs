//! What the loaded program does with one frame, and the way there by the tables.

use trunkline_core::{Decision, Hook, Outcome, Verdict, Vid};

use super::Agent;
use crate::dataplane::{Dataplane, DataplaneError, Hooks};
use crate::explain::{Snapshot, explain};
use crate::frame_text::hex;
use crate::report::TraceReport;

impl<D: Dataplane> Agent<D> {
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
        let mut tables = Snapshot::new(installed, stations, names, self.now_s, first);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_too_long_for_a_trial_is_called_that() {
        let error = DataplaneError::new("run the program on", "p1", std::io::Error::from_raw_os_error(22));
        let text = cannot_trace(&error, &[0; 9_000]);
        assert!(text.contains("9000 octets") && text.contains("shorten the payload"), "{text}");
        assert_eq!(cannot_trace(&error, &[0; 64]), error.to_string());
    }
}
