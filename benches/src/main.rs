//! `trunkline-bench`: the suites that need root. `cargo xtask bench` runs it.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use trunkline_benches::path::Entry;
use trunkline_benches::throughput::Effort;
use trunkline_benches::{program, save, throughput};

/// Measures the loaded programs and the throughput with live frames, in network namespaces of its own. Needs root.
#[derive(Parser)]
#[command(name = "trunkline-bench", bin_name = "cargo xtask bench")]
struct Cli {
    /// Only this one
    suite: Option<Suite>,
    /// How often each contestant is measured
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// For how many milliseconds each time (throughput)
    #[arg(long, default_value_t = 1000, value_name = "MS")]
    slot: u64,
    /// How frames get to the contestants (throughput)
    #[arg(long, value_enum, default_value_t = Entry::Driver)]
    entry: Entry,
    /// The CPU that sends (throughput)
    #[arg(long, default_value_t = 0)]
    cpu: usize,
    /// Only this scenario (throughput)
    #[arg(long)]
    scenario: Option<String>,
    /// Keep the raw figures in benches/runs/DATE-LABEL/
    #[arg(long, value_name = "LABEL", num_args = 0..=1, default_missing_value = "unnamed")]
    save: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Suite {
    /// ns per frame of the loaded program, by what becomes of the frame
    Program,
    /// Frames per second against a bare redirect, the Linux bridge and Open vSwitch
    Throughput,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("trunkline-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    for (suite, name) in [(Suite::Program, "program"), (Suite::Throughput, "throughput")] {
        if cli.suite.is_some_and(|only| only != suite) {
            continue;
        }
        let results = match suite {
            Suite::Program => program::run(cli.rounds)?,
            Suite::Throughput => {
                let slot = Duration::from_millis(cli.slot);
                let effort = Effort { rounds: cli.rounds, slot, entry: cli.entry, cpu: cli.cpu };
                throughput::run(&effort, cli.scenario.as_deref())?
            }
        };
        if let Some(label) = &cli.save {
            println!("saved {}", save::save(name, label, &results)?.display());
        }
    }
    Ok(())
}
