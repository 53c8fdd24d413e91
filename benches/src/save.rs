//! Keeping figures: raw data, with the command that made them, the machine and the versions.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use trunkline_tests::Ovs;

/// Writes `NAME.json` into `benches/runs/DATE-LABEL/` and returns its path.
///
/// # Errors
/// The file could not be written.
pub fn save(name: &str, label: &str, results: &Value) -> Result<PathBuf> {
    let date = said_by("date", &["--utc", "+%F"]).context("asking for the date")?;
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("runs").join(format!("{date}-{label}"));
    fs::create_dir_all(&directory).with_context(|| format!("creating {}", directory.display()))?;
    let file = directory.join(format!("{name}.json"));
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let run = json!({
        "command": format!("cargo xtask bench {}", arguments.join(" ")),
        "date": date,
        "machine": machine(),
        "versions": versions(),
        "results": results,
    });
    let text = serde_json::to_string_pretty(&run)?;
    fs::write(&file, text + "\n").with_context(|| format!("writing {}", file.display()))?;
    Ok(file)
}

fn machine() -> Value {
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let models = || processors.lines().filter_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    json!({
        "processor": models().next().map(|(_, model)| model),
        "processors": models().count(),
        "load_average": load.split(' ').next(),
    })
}

fn versions() -> Value {
    let first_line = |text: Option<String>| text.and_then(|text| text.lines().next().map(str::to_owned));
    json!({
        "trunkline": env!("CARGO_PKG_VERSION"),
        "commit": said_by("git", &["-C", env!("CARGO_MANIFEST_DIR"), "describe", "--always", "--dirty"]),
        "kernel": said_by("uname", &["--kernel-release"]),
        "open_vswitch": first_line(said_by("ovs-vswitchd", &["--version"])),
        "datapath": Ovs::datapath_type(),
    })
}

fn said_by(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
