//! The test layer `vm`: whole-system tests on the kernel datapath, under every kernel that can be had.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::kernel::{Kernel, VERSIONS};
use super::machine::{self, Job, Processor};
use super::run_job;
use crate::command::{note, output};
use crate::install;
use crate::tally::{Reader, Tally};
use crate::workspace::Workspace;

/// A test binary and, by parts of their names, those of its tests that run.
struct Choice {
    binary: &'static str,
    threads: &'static str,
    /// None stands for all.
    tests: &'static [&'static str],
}

/// What the kernel's datapath or the kernel itself may do otherwise.
const CHOICES: [Choice; 2] = [
    Choice {
        binary: "namespaces",
        // Most tests wait most of the time, and [`PATIENCE`] forgives what they do to each other.
        threads: "--test-threads=2",
        tests: &[
            "matrix::",
            "changes::trunks_and_modes_change_at_once",
            "faults::restart_of_ovs_vswitchd",
            "neighbours::vlan_device_on_a_port",
        ],
    },
    Choice {
        binary: "guests",
        // Some of them measure rates.
        threads: "--test-threads=1",
        tests: &[],
    },
];

/// How much slower an emulated machine is (`TRUNKLINE_PATIENCE`).
const PATIENCE: &str = "5";

/// For one binary under one kernel, on a machine that has much else to do; an end to what hangs.
const LIMIT: Duration = Duration::from_secs(900);

/// Modules that are loaded by name: Open vSwitch's datapath is chosen by its presence.
const SCRIPT: &str = r#"modprobe -a openvswitch tun veth && exec "$@""#;

/// These tests, or those that `args` choose.
pub(crate) fn run(ws: &Workspace, args: &[OsString]) -> Result<Tally> {
    if let Err(error) = machine::check() {
        note(&format!("layer vm skipped: {error:#}"));
        return Ok(Tally { skipped: VERSIONS.len() as u32, ..Tally::default() });
    }
    // An emulated processor would need minutes more for the unoptimised one.
    let trunkline = install::build(ws)?;
    let jobs = CHOICES.iter().map(|choice| {
        let mut command: Vec<OsString> = ["sh", "-c", SCRIPT, "sh"].map(Into::into).into();
        command.push(test_binary(ws, choice.binary)?.into());
        if args.is_empty() {
            command.extend([choice.threads].iter().chain(choice.tests).map(Into::into));
        } else {
            command.extend_from_slice(args);
        }
        Ok(job(ws, &trunkline, command))
    });
    let jobs: Vec<Job> = jobs.collect::<Result<_>>()?;
    let tallies = VERSIONS.iter().map(|(version, _suite)| match Kernel::get(ws, version) {
        Ok(kernel) => jobs.iter().map(|job| under(ws, &kernel, job)).sum(),
        Err(error) => {
            note(&format!("Linux {version} skipped: {error:#}"));
            Ok(Tally { skipped: 1, ..Tally::default() })
        }
    });
    tallies.sum()
}

fn under(ws: &Workspace, kernel: &Kernel, job: &Job) -> Result<Tally> {
    note(&format!("the kernel datapath of Linux {}", kernel.release));
    let mut reader = Reader::default();
    let success = match run_job(ws, kernel, job, |line| reader.line(line)) {
        Ok(status) => status == 0,
        Err(error) => {
            note(&format!("Linux {}: {error:#}", kernel.release));
            false
        }
    };
    Ok(reader.finish(success))
}

fn job(ws: &Workspace, trunkline: &Path, command: Vec<OsString>) -> Job {
    // Emulated processors may run what another one has just written over: a breakpoint that is no more (`Oops: int3`).
    let (patience, cpus) = if machine::has_kvm() { ("1", 2) } else { (PATIENCE, 1) };
    let processor = Processor::fastest(cpus);
    Job {
        command,
        env: vec![("TRUNKLINE_BIN".into(), trunkline.into()), ("TRUNKLINE_PATIENCE".into(), patience.into())],
        directory: ws.root.clone(),
        processor,
        memory_mib: 2048,
        limit: Some(LIMIT),
    }
}

/// Builds tests and finds their binary.
fn test_binary(ws: &Workspace, name: &str) -> Result<PathBuf> {
    let mut build = ws.cargo("test");
    build.args(["--package=trunkline-tests", "--no-run", "--message-format=json", "--test", name]);
    let messages = output(&mut build).context("building the tests failed: cargo test -p trunkline-tests")?;
    let found = messages.lines().find_map(|line| executable(line, name));
    found.map(PathBuf::from).with_context(|| format!("cargo has built no test binary `{name}`"))
}

/// The executable that one of cargo's JSON messages is about, if it is of this target.
fn executable<'a>(message: &'a str, target: &str) -> Option<&'a str> {
    message.contains(&format!(r#""name":"{target}""#)).then_some(())?;
    let (path, _) = message.split_once(r#""executable":""#)?.1.split_once('"')?;
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_is_found_among_cargos_messages() {
        let message = r#"{"reason":"compiler-artifact","target":{"kind":["test"],"name":"namespaces","src_path":"/x"},"executable":"/t/namespaces-1","fresh":true}"#;
        assert_eq!(executable(message, "namespaces"), Some("/t/namespaces-1"));
        assert_eq!(executable(message, "oracle"), None);
        assert_eq!(executable(r#"{"target":{"name":"namespaces"},"executable":null}"#, "namespaces"), None);
    }
}
