//! Documents as aligned tables.

use comfy_table::{Table, presets};

use crate::report::{FdbStation, PortStatus, Stats, Status, TraceReport};

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.iter().copied());
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

/// The table's lines without the blanks that pad them at the end.
fn lines(table: &Table) -> String {
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

fn yes(condition: bool) -> &'static str {
    if condition { "yes" } else { "no" }
}

fn vlans(port: &PortStatus) -> String {
    let tag = port.tag.map(|tag| format!(" {tag}")).unwrap_or_default();
    let trunks: Vec<String> = port.trunks.iter().map(u16::to_string).collect();
    match (port.vlan_mode.as_str(), trunks.is_empty()) {
        ("access", _) => format!("access{tag}"),
        ("trunk", true) => "trunk all".to_owned(),
        ("trunk", false) => format!("trunk {}", trunks.join(",")),
        (mode, true) => format!("{mode}{tag}"),
        (mode, false) => format!("{mode}{tag} trunks {}", trunks.join(",")),
    }
}

pub(super) fn status(status: &Status) -> String {
    let ovs = &status.ovs;
    let mut text =
        format!("trunkline {}: {}\n", status.version, if status.ready { "ready" } else { "not ready" });
    text += &match (&ovs.reason, &ovs.version) {
        (Some(reason), _) => format!("Open vSwitch: out of reach: {reason}\n"),
        (None, version) => format!(
            "Open vSwitch {}: connected, configuration {} of {} applied\n",
            version.as_deref().unwrap_or("(unknown version)"),
            ovs.cur_cfg,
            ovs.next_cfg
        ),
    };
    if status.bridges.is_empty() {
        text += "no bridges\n";
    }
    for bridge in &status.bridges {
        let state = match &bridge.reason {
            None => "accelerated".to_owned(),
            Some(reason) => format!("not accelerated: {reason}"),
        };
        text += &format!("\nbridge {} (datapath {}): {state}\n", bridge.name, bridge.datapath);
        let mut ports = table(&["PORT", "VLANS", "HOOK", "ACCELERATED", "WHY"]);
        for port in &bridge.ports {
            let why = port.reason.as_ref().or(port.note.as_ref()).or(port.hook_reason.as_ref());
            let why = why.map_or("-", String::as_str);
            ports.add_row([&port.name, &vlans(port), &port.hook, yes(port.accelerated), why]);
        }
        text += &lines(&ports);
    }
    text
}

pub(super) fn stations(stations: &[FdbStation]) -> String {
    if stations.is_empty() {
        return "no stations\n".to_owned();
    }
    let mut rows = table(&["BRIDGE", "VLAN", "MAC", "PORT", "AGE"]);
    for station in stations {
        let age = if station.r#static { "static".to_owned() } else { format!("{} s", station.age_s) };
        rows.add_row([&station.bridge, &station.vlan.to_string(), &station.mac, &station.port, &age]);
    }
    lines(&rows)
}

pub(super) fn stats(stats: &Stats) -> String {
    if stats.ports.is_empty() {
        return "no accelerated ports\n".to_owned();
    }
    let mut rows = table(&["BRIDGE", "PORT", "COUNTER", "FRAMES", "BYTES"]);
    for port in &stats.ports {
        let mut row = |counter: String, frames: u64, bytes: Option<u64>| {
            let bytes = bytes.map_or_else(|| "-".to_owned(), |bytes| bytes.to_string());
            rows.add_row([&port.bridge, &port.port, &counter, &frames.to_string(), &bytes]);
        };
        row("rx forwarded".to_owned(), port.rx.forwarded.frames, Some(port.rx.forwarded.bytes));
        row("tx".to_owned(), port.tx.frames, Some(port.tx.bytes));
        for (reason, frames) in &port.rx.punted {
            row(format!("rx punted: {reason}"), *frames, None);
        }
        for (reason, frames) in &port.rx.dropped {
            row(format!("rx dropped: {reason}"), *frames, None);
        }
    }
    lines(&rows)
}

pub(super) fn trace(report: &TraceReport) -> String {
    let mut text = format!("bridge {}, in by port {}\n", report.bridge, report.port);
    for step in &report.steps {
        text += &format!("  {step}\n");
    }
    text += &match (report.verdict.as_str(), &report.out_port, &report.reason) {
        ("forward", Some(port), _) => format!("verdict: forwarded, out by port {port}\n"),
        ("drop", _, Some(reason)) => format!("verdict: dropped, as Open vSwitch would: {reason}\n"),
        (_, _, reason) => {
            format!("verdict: left to Open vSwitch: {}\n", reason.as_deref().unwrap_or("unknown"))
        }
    };
    text += &format!("in   {}\n", report.frame);
    if let Some(frame) = &report.out_frame {
        text += &format!("out  {frame}\n");
    }
    if let Some(ovs) = &report.ovs {
        text += "\nOpen vSwitch says:\n";
        for line in ovs.lines().filter(|line| !line.trim().is_empty()) {
            text += &format!("  {line}\n");
        }
    }
    text
}

#[cfg(test)]
mod tests;
