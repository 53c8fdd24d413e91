//! Development commands of trunkline: everything between a clone and a running system.
//!
//! Each verb fetches and builds what it needs itself, so any of them may be the first one run.

mod apt;
mod ci;
mod command;
mod debian;
mod ebpf;
mod install;
mod linker;
mod ovs;
mod packaging;
mod program;
mod setup;
mod tally;
mod test;
mod toolchain;
mod vm;
mod workspace;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use workspace::Workspace;

/// Development commands of trunkline. Each does the set-up it needs, so start with any of them.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Install everything the other commands need (system packages, BPF toolchain, bpf-linker)
    Setup,
    /// Build the BPF object into target/ebpf/trunkline-ebpf.o
    BuildEbpf {
        /// Lint the BPF crate for its target instead, with warnings denied
        #[arg(long)]
        clippy: bool,
    },
    /// Build the release binary, BPF object included
    Build,
    /// Build and install the binary and the systemd unit
    Install {
        /// Install below this directory instead of /
        #[arg(long, value_name = "DIR", default_value = "/")]
        destdir: PathBuf,
    },
    /// Run the tests: the layers named, or all that this machine can run
    Test(test::Args),
    /// Fetch other versions of Open vSwitch to test against, into target/ovs
    Ovs(ovs::Args),
    /// Run a command as root under another kernel, in a virtual machine on this machine's files
    Vm(vm::Args),
    /// Show trunkline beside a private Open vSwitch in network namespaces (needs root)
    Demo {
        /// Arguments for the demo; --help lists them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Run the benchmarks: one suite, or all of them; quickly, or with --full for publication
    Bench {
        /// Perhaps a file of benches/benches/ (criterion) or a suite of trunkline-bench, then arguments for it
        #[arg(value_name = "SUITE|ARG", trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// What a change must pass: fmt, clippy on the host and for BPF, all tests
    Ci,
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(status) => status,
        // One sentence, without a backtrace whatever the environment says.
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let ws = Workspace::find()?;
    match cli.verb {
        Verb::Setup => setup::all(&ws),
        Verb::BuildEbpf { clippy: false } => ebpf::build(&ws),
        Verb::BuildEbpf { clippy: true } => ebpf::clippy(&ws),
        Verb::Build => install::build(&ws).map(|_binary| ()),
        Verb::Install { destdir } => install::install(&ws, &destdir),
        Verb::Test(args) => test::run(&ws, &args),
        Verb::Ovs(args) => ovs::fetch(&ws, &args),
        Verb::Vm(args) => return vm::run(&ws, args).map(ExitCode::from),
        Verb::Demo { args } => program::demo(&ws, &args),
        Verb::Bench { args } => program::bench(&ws, &args),
        Verb::Ci => ci::run_all(&ws),
    }
    .map(|()| ExitCode::SUCCESS)
}
