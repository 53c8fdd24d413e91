//! The report of a run: tables and plots, made of nothing but its raw figures.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::plot::{Series, bars, lines};

/// Writes `report.md` and its plots beside the raw figures in `directory`, and returns its path.
///
/// # Errors
/// A file could not be read or written.
pub fn write(directory: &Path) -> Result<PathBuf> {
    let mut report = String::from("# Benchmarks\n");
    let mut shown = false;
    type Section = fn(&mut String, &Path, &Value) -> Result<()>;
    let sections: [(&str, Section); 8] = [
        ("program", program),
        ("throughput", throughput),
        ("driver", driver),
        ("scale", scale),
        ("control", control),
        ("latency", latency),
        ("load", load),
        ("tcp", tcp),
    ];
    for (name, section) in sections {
        let file = directory.join(name).with_extension("json");
        let Ok(text) = fs::read_to_string(&file) else { continue };
        let run: Value =
            serde_json::from_str(&text).with_context(|| format!("reading {}", file.display()))?;
        if !shown {
            shown = true;
            head(&mut report, &run);
        }
        let _ = writeln!(report, "\n## {name}\n\n`{}`", text_of(&run["command"]));
        section(&mut report, directory, &run["results"])?;
    }
    let file = directory.join("report.md");
    fs::write(&file, report).with_context(|| format!("writing {}", file.display()))?;
    Ok(file)
}

fn head(report: &mut String, run: &Value) {
    let (machine, versions) = (&run["machine"], &run["versions"]);
    let _ = writeln!(
        report,
        "\n{}: {}, {} processors; Linux {}; {}; trunkline {} ({}). The load average was {} when the first suite ended, of \
         which these benchmarks are 1.",
        text_of(&run["date"]),
        text_of(&machine["processor"]),
        machine["processors"],
        text_of(&versions["kernel"]),
        format_args!("{} ({})", text_of(&versions["open_vswitch"]), text_of(&versions["datapath"])),
        text_of(&versions["trunkline"]),
        text_of(&versions["commit"]),
        text_of(&machine["load_average"]),
    );
}

fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn number(value: &Value, digits: usize) -> String {
    value.as_f64().map_or_else(|| "–".to_owned(), |number| format!("{number:.digits$}"))
}

/// A table of Markdown: figures are to the right.
fn table(report: &mut String, head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) {
    let rule: Vec<&str> =
        head.iter().enumerate().map(|(place, _)| if place == 0 { "---" } else { "---:" }).collect();
    let _ = writeln!(report, "\n| {} |\n| {} |", head.join(" | "), rule.join(" | "));
    for row in rows {
        let _ = writeln!(report, "| {} |", row.join(" | "));
    }
}

fn program(report: &mut String, _: &Path, results: &Value) -> Result<()> {
    let cases = list(&results["cases"]);
    let ns = |case: &Value| crate::rounds::median(list(&case["ns"]).iter().filter_map(Value::as_f64));
    let empty = cases.first().map_or(0.0, ns);
    let rows = cases.iter().map(|case| {
        vec![text_of(&case["program"]), format!("{:.0}", ns(case)), format!("{:.0}", ns(case) - empty)]
    });
    table(report, &["program", "ns", "over empty"], rows);
    Ok(())
}

fn throughput(report: &mut String, directory: &Path, results: &Value) -> Result<()> {
    throughput_table(report, results);
    let results = list(results);
    let shortest = |result: &&Value| result["size"] == 64;
    let mut scenarios: Vec<String> = vec![];
    let mut series: Vec<Series<f64>> = vec![];
    for result in results.iter().filter(shortest) {
        let (scenario, contestant) = (text_of(&result["scenario"]), text_of(&result["contestant"]));
        if !scenarios.contains(&scenario) {
            scenarios.push(scenario);
        }
        let mpps = result["mpps"].as_f64().unwrap_or_default();
        match series.iter_mut().find(|(name, _)| *name == contestant) {
            Some((_, figures)) => figures.push(mpps),
            None => series.push((contestant, vec![mpps])),
        }
    }
    if scenarios.is_empty() {
        return Ok(());
    }
    let title = "64-byte frames forwarded in a second by one CPU, over veths";
    bars(&directory.join("throughput.svg"), title, "millions", &scenarios, &series)?;
    report.push_str("\n![throughput](throughput.svg)\n");
    Ok(())
}

/// The same as throughput, with another entry.
fn driver(report: &mut String, _: &Path, results: &Value) -> Result<()> {
    throughput_table(report, results);
    Ok(())
}

fn throughput_table(report: &mut String, results: &Value) {
    let rows = list(results).iter().map(|result| {
        vec![
            text_of(&result["scenario"]),
            number(&result["size"], 0),
            text_of(&result["contestant"]),
            number(&result["mpps"], 3),
            number(&result["of_redirect"], 2),
            number(&result["of_bridge"], 2),
            number(&result["of_ovs"], 1),
        ]
    });
    table(report, &["scenario", "octets", "contestant", "Mpps", "of redirect", "of bridge", "of ovs"], rows);
}

fn scale(report: &mut String, directory: &Path, results: &Value) -> Result<()> {
    let stations = list(&results["stations"]);
    let rows = stations.iter().map(|result| {
        vec![
            text_of(&result["distribution"]),
            text_of(&result["contestant"]),
            number(&result["mpps"], 3),
            number(&result["of_redirect"], 2),
            number(&result["of_fewest"], 2),
            number(&result["program_ns"], 0),
        ]
    });
    let head = ["traffic", "stations", "Mpps", "of redirect", "of 16 stations", "program alone, ns"];
    table(report, &head, rows);
    let mut series: Vec<Series<(f64, f64)>> = vec![];
    for result in stations {
        let Ok(count) = text_of(&result["contestant"]).parse::<f64>() else { continue };
        let point = (count, result["mpps"].as_f64().unwrap_or_default());
        let distribution = text_of(&result["distribution"]);
        match series.iter_mut().find(|(name, _)| *name == distribution) {
            Some((_, points)) => points.push(point),
            None => series.push((distribution, vec![point])),
        }
    }
    if !series.is_empty() {
        let title = "64-byte frames forwarded in a second by one CPU, up to 100,000 flows";
        lines(&directory.join("stations.svg"), title, ["stations", "millions"], &series)?;
        report.push_str("\n![stations](stations.svg)\n");
    }

    let rows = list(&results["ports"]).iter().map(|result| {
        let ports = if result["ports"].is_null() { &result["contestant"] } else { &result["ports"] };
        let who =
            if result["ports"].is_null() { "trunkline".to_owned() } else { text_of(&result["contestant"]) };
        vec![
            text_of(&result["traffic"]),
            text_of(ports),
            who,
            number(&result["mpps"], 3),
            number(&result["of_fewest"], 2),
            number(&result["of_redirect"], 2),
        ]
    });
    table(report, &["traffic", "ports", "contestant", "Mpps", "of 2 ports", "of redirect"], rows);
    let rows = list(&results["cores"]).iter().map(|result| {
        vec![
            text_of(&result["contestant"]),
            number(&result["mpps"], 3),
            number(&result["of_one"], 2),
            number(&result["of_redirect"], 2),
        ]
    });
    table(report, &["contestant, processors", "Mpps", "of one", "of redirect"], rows);
    let _ =
        writeln!(report, "\nLearning: {} ns for each new station.", number(&results["learning"]["ns"], 0));
    let memory = list(&results["memory"]).iter();
    let memory = memory.map(|read| format!("{} ns in {} MiB", number(&read["ns"], 0), read["mib"]));
    let _ = writeln!(report, "\nMemory: a read at random takes {}.", memory.collect::<Vec<_>>().join(", "));
    let rows = list(&results["upkeep"]).iter().map(|result| {
        let ms = ["read_ms", "age_ms", "compare_ms", "forget_ms"].map(|column| number(&result[column], 1));
        [text_of(&result["stations"])].into_iter().chain(ms).collect()
    });
    table(report, &["stations", "read, ms", "age, ms", "compare, ms", "forget all, ms"], rows);
    Ok(())
}

fn control(report: &mut String, _: &Path, results: &Value) -> Result<()> {
    let rows = list(results).iter().flat_map(|result| {
        let changes = result["changes"].as_object().into_iter().flatten();
        changes.map(|(what, figures)| {
            let [p50, p99] = ["p50_ms", "p99_ms"].map(|column| number(&figures[column], 2));
            vec![what.clone(), text_of(&result["ports"]), p50, p99]
        })
    });
    table(report, &["a change, ms", "ports", "p50", "p99"], rows);
    let rows = list(results).iter().map(|result| {
        vec![
            text_of(&result["ports"]),
            number(&result["start_to_ready_ms"], 0),
            number(&result["attaching_alone_ms"], 0),
            format!(
                "{} / {}",
                number(&result["grace_period_p50_ms"], 1),
                number(&result["grace_period_p99_ms"], 1)
            ),
            number(&(result["resident_kib"].as_f64().unwrap_or_default() / 1024.0).into(), 1),
            number(&result["idle_cpu_percent"], 3),
        ]
    });
    let head = [
        "ports",
        "start to ready, ms",
        "attaching alone, ms",
        "RCU grace period, p50 / p99 ms",
        "resident, MiB",
        "idle, % of a processor",
    ];
    table(report, &head, rows);
    Ok(())
}

fn latency(report: &mut String, directory: &Path, results: &Value) -> Result<()> {
    let columns = ["p50_us", "p90_us", "p99_us", "p99_9_us"];
    let rows = list(results).iter().map(|result| {
        let figures = columns.map(|column| number(&result[column], 1));
        [text_of(&result["contestant"])].into_iter().chain(figures).collect()
    });
    table(report, &["there and back, µs", "p50", "p90", "p99", "p99.9"], rows);
    let series: Vec<Series<f64>> = list(results)
        .iter()
        .map(|result| {
            let figures = columns[..3].iter().map(|column| result[*column].as_f64().unwrap_or_default());
            (text_of(&result["contestant"]), figures.collect())
        })
        .collect();
    let groups = ["p50", "p90", "p99"].map(str::to_owned);
    bars(&directory.join("latency.svg"), "There and back, one frame at a time", "µs", &groups, &series)?;
    report.push_str("\n![latency](latency.svg)\n");
    Ok(())
}

fn load(report: &mut String, _: &Path, results: &Value) -> Result<()> {
    let rows = list(results).iter().map(|result| {
        vec![
            text_of(&result["contestant"]),
            number(&result["ns"], 0),
            number(&result["beyond_sending_ns"], 0),
            number(&(result["arrived"].as_f64().unwrap_or_default() * 100.0).into(), 1),
        ]
    });
    table(report, &["", "ns for each frame", "beyond sending", "arrived, %"], rows);
    Ok(())
}

fn tcp(report: &mut String, _: &Path, results: &Value) -> Result<()> {
    let rows = list(results).iter().map(|result| {
        vec![
            text_of(&result["guests"]),
            text_of(&result["contestant"]),
            number(&result["gbps"], 2),
            number(&result["of_ovs"], 2),
        ]
    });
    table(report, &["guests", "", "Gbit/s", "of ovs"], rows);
    Ok(())
}
