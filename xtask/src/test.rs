//! The verb `test`: layers, from what needs nothing to what needs root and Open vSwitch.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use clap::builder::{PossibleValue, PossibleValuesParser};

use crate::command::{note, run as run_command, tee};
use crate::setup::{self, Capability, DEVICES, NETWORK, Program, SYSTEMD, VSWITCH};
use crate::tally::{Reader, Tally};
use crate::workspace::{Profile, Workspace};
use crate::{ebpf, ovs, packaging, vm};

#[derive(Default, clap::Args)]
pub(crate) struct Args {
    /// Layers to run, in the order of this list; without any, all that this machine can run
    #[arg(value_name = "LAYER", value_parser = layer_names())]
    layers: Vec<String>,
    /// Arguments for the test binaries, such as part of a test's name
    #[arg(last = true, value_name = "ARG")]
    args: Vec<OsString>,
}

/// A layer of tests: what it asks of the machine, and how it runs.
struct Layer {
    name: &'static str,
    about: &'static str,
    capabilities: &'static [Capability],
    programs: &'static [Program],
    /// Whether it needs the BPF object and the `trunkline` binary.
    needs_build: bool,
    runner: Runner,
}

enum Runner {
    /// `cargo test` with these arguments, and these for the test binaries.
    Cargo(&'static [&'static str], &'static [&'static str]),
    /// Tests that boot a guest, which is made first.
    Qemu,
    /// Whole-system tests in a VM under each kernel, with the kernel's own datapath of Open vSwitch.
    Vm,
    /// Open vSwitch as the judge: the oracle, and the clients of Open vSwitch against each fetched version.
    Oracle,
    /// Checks of our own, each with its name.
    Checks(fn(&Workspace, &Path) -> Result<Tally>),
}

/// All layers, cheapest first.
const LAYERS: &[Layer] = &[
    Layer {
        name: "core",
        about: "the switching rules: tables of cases and properties",
        capabilities: &[],
        programs: &[],
        needs_build: false,
        runner: Runner::Cargo(&["--package=trunkline-core"], &[]),
    },
    Layer {
        name: "unit",
        about: "userspace, the bench library and xtask",
        capabilities: &[],
        programs: &[],
        needs_build: true,
        runner: Runner::Cargo(
            &[
                "--package=trunkline",
                "--package=trunkline-benches",
                "--package=xtask",
                "--lib",
                "--bins",
                "--test=cli",
            ],
            &[],
        ),
    },
    Layer {
        name: "clients",
        about: "the clients of Open vSwitch against its daemons, and against servers that misbehave",
        capabilities: &[],
        programs: VSWITCH,
        needs_build: true,
        runner: Runner::Cargo(&["--package=trunkline", "--test=ovs"], &[]),
    },
    Layer {
        name: "links",
        about: "what the kernel says of devices, in network namespaces (needs root)",
        capabilities: &[Capability::CAP_BPF, Capability::CAP_NET_ADMIN, Capability::CAP_SYS_ADMIN],
        programs: DEVICES,
        needs_build: true,
        runner: Runner::Cargo(&["--package=trunkline", "--test=links"], &[]),
    },
    Layer {
        name: "program",
        about: "the loaded BPF programs, run by the kernel on single frames (needs CAP_BPF)",
        capabilities: &[Capability::CAP_BPF, Capability::CAP_NET_ADMIN],
        programs: &[],
        needs_build: true,
        runner: Runner::Cargo(
            &["--package=trunkline-tests", "--lib", "--test=program", "--test=budget"],
            &[],
        ),
    },
    Layer {
        name: "oracle",
        about: "random bridges and frames, judged by Open vSwitch 3.1, 3.5 and 4.0",
        capabilities: &[],
        programs: VSWITCH,
        needs_build: true,
        runner: Runner::Oracle,
    },
    Layer {
        name: "namespaces",
        about: "real frames through real devices and a private Open vSwitch (needs root)",
        capabilities: &[Capability::CAP_BPF, Capability::CAP_NET_ADMIN, Capability::CAP_SYS_ADMIN],
        programs: NETWORK,
        needs_build: true,
        // Each test has namespaces and switches of its own; more than two at a time disturb each other's timing.
        runner: Runner::Cargo(&["--package=trunkline-tests", "--test=namespaces"], &["--test-threads=2"]),
    },
    Layer {
        name: "guests",
        about: "guests with their stacks and offloads; without Open vSwitch's kernel datapath only the rig (needs root)",
        capabilities: &[Capability::CAP_BPF, Capability::CAP_NET_ADMIN, Capability::CAP_SYS_ADMIN],
        programs: NETWORK,
        needs_build: true,
        runner: Runner::Cargo(&["--package=trunkline-tests", "--test=guests"], &["--test-threads=1"]),
    },
    Layer {
        name: "qemu",
        about: "QEMU guests with virtio-net, a kernel of their own and QEMU's scripts (needs root)",
        capabilities: &[Capability::CAP_BPF, Capability::CAP_NET_ADMIN, Capability::CAP_SYS_ADMIN],
        programs: NETWORK,
        needs_build: true,
        runner: Runner::Qemu,
    },
    Layer {
        name: "vm",
        about: "namespaces and guests on Linux 6.1, 6.12 and 7.2 with Open vSwitch's kernel datapath, in virtual machines",
        capabilities: &[],
        programs: setup::VM,
        needs_build: true,
        runner: Runner::Vm,
    },
    Layer {
        name: "packaging",
        about: "the installed files, and the unit as systemd reads it",
        capabilities: &[],
        programs: SYSTEMD,
        needs_build: true,
        runner: Runner::Checks(packaging::check),
    },
];

fn layer_names() -> PossibleValuesParser {
    PossibleValuesParser::new(LAYERS.iter().map(|layer| PossibleValue::new(layer.name).help(layer.about)))
}

/// What became of a layer.
enum Outcome {
    Ran(Tally),
    Skipped(String),
}

pub(crate) fn run(ws: &Workspace, args: &Args) -> Result<()> {
    let wanted = |layer: &&Layer| args.layers.is_empty() || args.layers.iter().any(|name| name == layer.name);
    let layers: Vec<_> = LAYERS.iter().filter(wanted).collect();
    let trunkline = ws.binary(Profile::Dev, "trunkline");
    if layers.iter().any(|layer| layer.needs_build) {
        ebpf::build(ws)?;
        run_command(ws.cargo("build").args(["--package", "trunkline"]), "building trunkline")?;
    }
    let mut outcomes = Vec::new();
    for layer in layers {
        note(&format!("layer {}: {}", layer.name, layer.about));
        let named = !args.layers.is_empty();
        outcomes.push((layer.name, layer.run(ws, &trunkline, named, &args.args)?));
    }
    let total = summarize(&outcomes);
    ensure!(total.failed == 0, "tests failed");
    Ok(())
}

impl Layer {
    fn run(&self, ws: &Workspace, trunkline: &Path, named: bool, args: &[OsString]) -> Result<Outcome> {
        if let Some(reason) = self.unasked(named).or_else(|| self.missing()) {
            return Ok(self.skipped(reason));
        }
        match self.runner {
            Runner::Checks(check) => check(ws, trunkline).map(Outcome::Ran),
            Runner::Cargo(selection, own_args) => {
                // The user's arguments may repeat ours with another value, and libtest takes no option twice.
                let given = |ours: &str| args.iter().any(|arg| same_option(&arg.to_string_lossy(), ours));
                let own_args = own_args.iter().filter(|ours| !given(ours));
                let mut cargo = ws.cargo("test");
                cargo.arg("--no-fail-fast").args(selection).arg("--").args(own_args).args(args);
                tested(cargo.env("TRUNKLINE_BIN", trunkline)).map(Outcome::Ran)
            }
            Runner::Oracle => oracle(ws, args).map(Outcome::Ran),
            Runner::Qemu => match setup::ensure(setup::VM).and_then(|()| vm::guest::prepare(ws)) {
                Ok(guest) => {
                    let mut cargo = ws.cargo("test");
                    cargo.args(["--package=trunkline-tests", "--test=qemu", "--"]).args(args);
                    cargo.env("TRUNKLINE_BIN", trunkline).env(vm::guest::VARIABLE, guest);
                    tested(&mut cargo).map(Outcome::Ran)
                }
                Err(error) => Ok(self.skipped(format!("{error:#}"))),
            },
            Runner::Vm => vm::test::run(ws, args).map(Outcome::Ran),
        }
    }

    fn skipped(&self, reason: String) -> Outcome {
        note(&format!("layer {} skipped: {reason}", self.name));
        Outcome::Skipped(reason)
    }

    /// Why the layer does not run here unless it is named.
    fn unasked(&self, named: bool) -> Option<String> {
        if named || !matches!(self.runner, Runner::Vm) || vm::has_kvm() {
            return None;
        }
        let reason = "emulated kernels panic now and then without a fault of theirs, and without KVM it takes long: \
                      `cargo xtask test vm` runs it";
        Some(reason.to_owned())
    }

    /// Why the layer cannot run here, after an attempt to install what it lacks.
    fn missing(&self) -> Option<String> {
        setup::lacks(self.capabilities)
            .or_else(|| setup::ensure(self.programs).err().map(|e| format!("{e:#}")))
    }
}

/// Runs `cargo test` and counts.
fn tested(cargo: &mut Command) -> Result<Tally> {
    let mut reader = Reader::default();
    let status = tee(cargo, |line| reader.line(line))?;
    Ok(reader.finish(status.success()))
}

fn oracle(ws: &Workspace, args: &[OsString]) -> Result<Tally> {
    ovs::fetch_missing(ws);
    let mut judged = ws.cargo("test");
    judged.args(["--package=trunkline-tests", "--test=oracle", "--"]).args(args);
    let mut tallies = vec![tested(&mut judged)?];
    for (version, bin) in ovs::fetched(ws) {
        note(&format!("the clients of Open vSwitch against {version}"));
        let mut clients = ws.cargo("test");
        clients.args(["--package=trunkline", "--test=ovs", "--"]).args(args);
        tallies.push(tested(clients.env("TRUNKLINE_OVS_BIN", bin))?);
    }
    Ok(tallies.into_iter().sum())
}

fn same_option(one: &str, other: &str) -> bool {
    one.split('=').next() == other.split('=').next()
}

/// Prints the table and the closing line.
fn summarize(outcomes: &[(&str, Outcome)]) -> Tally {
    println!("\n{:<12}{:>7}{:>8}{:>9}", "layer", "passed", "failed", "skipped");
    let tallies = outcomes.iter().map(|(name, outcome)| {
        let (tally, reason) = match outcome {
            Outcome::Ran(tally) => (*tally, ""),
            Outcome::Skipped(reason) => (Tally { skipped: 1, ..Tally::default() }, reason.as_str()),
        };
        let row = format!("{name:<12}{:>7}{:>8}{:>9}  {reason}", tally.passed, tally.failed, tally.skipped);
        println!("{}", row.trim_end());
        tally
    });
    let total = tallies.sum();
    println!("\n{total}");
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_is_the_same_with_another_value() {
        assert!(same_option("--test-threads=1", "--test-threads=2"));
        assert!(!same_option("--nocapture", "--test-threads=2"));
    }
}
