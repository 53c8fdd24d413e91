//! Answers to the command line.

use tokio::sync::oneshot;

use crate::agent::Agent;
use crate::control::{Reply, Request};
use crate::dataplane::Kernel;
use crate::fault;
use crate::frame_text;
use crate::report::TraceReport;
use crate::unixctl::Unixctl;

/// The agent's answer to a request.
pub(super) fn answer(agent: &mut Agent<Kernel>, request: &Request) -> Reply {
    fn document<T: serde::Serialize, E: ToString>(result: Result<T, E>) -> Reply {
        let value = result.map_err(|error| error.to_string());
        let value = value.and_then(|value| serde_json::to_value(value).map_err(|error| error.to_string()));
        value.map_or_else(Reply::Error, Reply::Ok)
    }
    match request {
        Request::Status => document::<_, String>(Ok(agent.status())),
        Request::FdbShow => document(agent.fdb_stations()),
        Request::FdbFlush { bridge, port, vlan } => {
            document(agent.flush_stations(bridge.as_deref(), port.as_deref(), *vlan))
        }
        Request::Stats => document(agent.stats()),
        Request::Trace { port, frame, .. } => {
            document(frame_text::parse(frame).and_then(|frame| agent.trace(port, &frame)))
        }
        Request::Detach => Reply::Error("the agent is ending".to_owned()),
    }
}

/// Adds what Open vSwitch would do with the same frame. It is only asked: nothing is sent or learned.
pub(super) async fn compare(unixctl: Unixctl, report: serde_json::Value, reply: oneshot::Sender<Reply>) {
    fault::check("compare");
    let result = async {
        let mut report: TraceReport = serde_json::from_value(report).map_err(|error| error.to_string())?;
        let ofport = report.ofport.ok_or("Open vSwitch has not opened the port")?;
        let in_port = format!("in_port={ofport}");
        let answer = unixctl.call("ofproto/trace", &[&report.bridge, &in_port, &report.frame]).await;
        report.ovs = Some(answer.map_err(|error| error.to_string())?);
        serde_json::to_value(report).map_err(|error| error.to_string())
    };
    // As above.
    let _ = reply.send(result.await.map_or_else(Reply::Error, Reply::Ok));
}
