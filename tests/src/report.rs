//! What happened at each port, in one line.

use std::fmt;

use crate::{Stats, Status};

/// A port's line: its place, its hook, and its frames by what became of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortSummary {
    /// The bridge.
    pub bridge: String,
    /// The port.
    pub port: String,
    /// As configured, for people.
    pub vlan: String,
    /// `xdp-native` and so on.
    pub hook: String,
    /// Why it is not accelerated, if it is not.
    pub reason: Option<String>,
    /// Came in and were forwarded by the fast path.
    pub forwarded: u64,
    /// Came in and were left to Open vSwitch.
    pub punted: u64,
    /// Came in and were dropped.
    pub dropped: u64,
    /// Left through it by the fast path.
    pub sent: u64,
}

/// One line for each port of `status`, with its counters.
pub fn per_port(status: &Status, stats: &Stats) -> Vec<PortSummary> {
    let ports = status.bridges.iter().flat_map(|bridge| bridge.ports.iter().map(move |port| (bridge, port)));
    let summary = |(bridge, port): (&crate::agent::BridgeStatus, &crate::agent::PortStatus)| {
        let counters = stats.ports.iter().find(|row| row.bridge == bridge.name && row.port == port.name);
        let counters = counters.cloned().unwrap_or_default();
        let reason = if port.accelerated { bridge.reason.clone() } else { port.reason.clone() };
        PortSummary {
            bridge: bridge.name.clone(),
            port: port.name.clone(),
            vlan: vlan_text(port.vlan_mode.as_deref(), port.tag, &port.trunks),
            hook: port.hook.clone(),
            reason,
            forwarded: counters.rx.forwarded.frames,
            punted: counters.rx.punted.values().sum(),
            dropped: counters.rx.dropped.values().sum(),
            sent: counters.tx.frames,
        }
    };
    ports.map(summary).collect()
}

fn vlan_text(mode: Option<&str>, tag: Option<u16>, trunks: &[u16]) -> String {
    let mode = mode.unwrap_or(if tag.is_some() { "access" } else { "trunk" });
    let list = trunks.iter().map(u16::to_string).collect::<Vec<_>>().join(",");
    match (mode, tag) {
        ("trunk", _) if list.is_empty() => "trunk all".to_owned(),
        ("trunk", _) => format!("trunk {list}"),
        ("access", tag) => format!("access {}", tag.unwrap_or(0)),
        (mode, tag) => {
            format!("{mode} {}, trunk {}", tag.unwrap_or(0), if list.is_empty() { "all" } else { &list })
        }
    }
}

impl fmt::Display for PortSummary {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bridge, port, vlan, hook, reason, forwarded, punted, dropped, sent } = self;
        write!(out, "{bridge:8} {port:10} {vlan:30} {hook:12} ")?;
        write!(out, "fast {forwarded:>9}  to OVS {punted:>7}  dropped {dropped:>5}  sent {sent:>9}")?;
        reason.iter().try_for_each(|reason| write!(out, "  ({reason})"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documented_output_makes_one_line_for_each_port() {
        let status = r#"{ "version": "0.1.0", "ready": true,
            "ovs": { "connected": true, "version": "3.1.0", "cur_cfg": 12, "next_cfg": 12 },
            "bridges": [ { "name": "br0", "datapath": "netdev", "accelerated": true, "reason": null, "ports": [
                { "name": "p1", "ifindex": 12, "hook": "xdp-native", "accelerated": true, "reason": null,
                  "vlan_mode": "access", "tag": 10, "trunks": [] },
                { "name": "br0", "ifindex": 13, "hook": "none", "accelerated": false, "reason": "internal port",
                  "vlan_mode": null, "tag": null, "trunks": [] } ] } ] }"#;
        let stats = r#"{ "ports": [ { "bridge": "br0", "port": "p1",
            "rx": { "forwarded": { "frames": 9, "bytes": 576 },
                    "punted": { "unknown_destination": 1, "new_source": 1 }, "dropped": { "vlan_not_admitted": 2 } },
            "tx": { "frames": 4, "bytes": 256 } } ] }"#;
        let status: Status = serde_json::from_str(status).unwrap();
        let summary = per_port(&status, &serde_json::from_str(stats).unwrap());
        assert!(status.accelerates("p1") && !status.accelerates("br0"));
        let [p1, host] = &summary[..] else { panic!("{summary:?}") };
        assert_eq!(
            (p1.vlan.as_str(), p1.forwarded, p1.punted, p1.dropped, p1.sent),
            ("access 10", 9, 2, 2, 4)
        );
        assert_eq!((host.vlan.as_str(), host.reason.as_deref()), ("trunk all", Some("internal port")));
    }
}
