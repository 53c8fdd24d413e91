//! `trunkline-bench`: the suites that need root. `cargo xtask bench` runs it.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum};
use serde_json::Value;
use trunkline_benches::path::Entry;
use trunkline_benches::scale::Extent;
use trunkline_benches::throughput::{Effort, Selection};
use trunkline_benches::{control, latency, load, program, report, save, scale, tcp, throughput};
use trunkline_tests::Ovs;

/// Measures the loaded programs, throughput with live frames, scale, control, latency and TCP, in network namespaces of
/// its own. Quick unless told otherwise: all suites in less than five minutes. Needs root. Loads the kernel's modules
/// openvswitch and tun, if it has them.
#[derive(Parser)]
#[command(name = "trunkline-bench", bin_name = "cargo xtask bench")]
struct Cli {
    /// Only this one
    suite: Option<Suite>,
    /// For publication: more rounds, longer ones, more of everything
    #[arg(long)]
    full: bool,
    /// How often each contestant is measured
    #[arg(long)]
    rounds: Option<usize>,
    /// For how many milliseconds each time
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=3000))]
    slot: Option<u64>,
    /// How frames get to the contestants
    #[arg(long, value_enum, default_value_t = Entry::Veth)]
    entry: Entry,
    /// The CPU that sends
    #[arg(long, default_value_t = 0)]
    cpu: usize,
    /// Only this scenario (throughput), or these guests (tcp)
    #[arg(long)]
    scenario: Option<String>,
    /// Only frames of this size on the wire, in octets (throughput); may be repeated
    #[arg(long, value_parser = clap::value_parser!(u16).range(64..=1518))]
    size: Vec<u16>,
    /// Most stations (scale)
    #[arg(long)]
    stations: Option<u32>,
    /// Most ports (scale, control)
    #[arg(long, value_parser = clap::value_parser!(u16).range(2..=1000))]
    ports: Option<u16>,
    /// Keep the raw figures in benches/runs/DATE-LABEL/
    #[arg(long, value_name = "LABEL", num_args = 0..=1, default_missing_value = "unnamed")]
    save: Option<String>,
    /// Measure nothing, but make the report of this directory's raw figures again
    #[arg(long, value_name = "DIRECTORY")]
    report: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Suite {
    /// ns per frame of the loaded program, by what becomes of the frame
    Program,
    /// Frames per second against a bare redirect, the Linux bridge and Open vSwitch
    Throughput,
    /// The first scenario as from a NIC's driver (throughput --entry driver), with --full only
    Driver,
    /// Many stations, flows, ports and processors; learning and ageing
    Scale,
    /// From a change to the map, from start to ready; memory and idle CPU of the agent
    Control,
    /// There and back between packet sockets, in percentiles
    Latency,
    /// Processor time for each frame at a fixed load
    Load,
    /// iperf3 between two hosts, with and without offloads
    Tcp,
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
    if let Some(directory) = &cli.report {
        println!("wrote {}", report::write(directory)?.display());
        return Ok(());
    }
    load_modules();
    let wanted =
        |suite: &&Suite| cli.suite.map_or(**suite != Suite::Driver || cli.full, |only| only == **suite);
    let (mut saved, mut failed) = (None, vec![]);
    for suite in Suite::value_variants().iter().filter(wanted) {
        let name = suite.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
        let results = match suite.run(cli) {
            Ok(results) => results,
            Err(error) => {
                // The others take long, and are worth something by themselves.
                eprintln!("trunkline-bench: {name}: {error:#}\n");
                failed.push(name);
                continue;
            }
        };
        if let Some(label) = &cli.save {
            let file = save::save(&name, label, &results)?;
            println!("saved {}\n", file.display());
            saved = file.parent().map(Path::to_path_buf);
        }
    }
    if let Some(directory) = saved {
        println!("wrote {}", report::write(&directory)?.display());
    }
    ensure!(failed.is_empty(), "no figures of {}: see above", failed.join(", "));
    Ok(())
}

/// Open vSwitch's kernel datapath and taps, as its start script and QEMU's users have them. What the kernel lacks is left
/// out of the comparison, or is Open vSwitch's userspace datapath.
fn load_modules() {
    let modules = ["openvswitch", "tun"];
    let _ = Command::new("modprobe").args(["--quiet", "--all"]).args(modules).output();
    println!("Open vSwitch's datapath: {}\n", Ovs::datapath_type());
}

impl Cli {
    /// What is quick, or what is for publication.
    fn either<T>(&self, quick: T, publication: T) -> T {
        if self.full { publication } else { quick }
    }
}

impl Suite {
    fn run(self, cli: &Cli) -> Result<Value> {
        let rounds = cli.rounds.unwrap_or(cli.either(3, 9));
        let slot = Duration::from_millis(cli.slot.unwrap_or(cli.either(200, 500)));
        let effort = Effort { rounds, slot, entry: cli.entry, cpu: cli.cpu };
        match self {
            Self::Program => program::run(rounds),
            Self::Throughput => {
                let sizes = cli.size.iter().copied().map(usize::from).collect();
                throughput::run(&effort, &Selection { scenario: cli.scenario.clone(), sizes })
            }
            Self::Driver => {
                let scenario = Some("access-trunk".to_owned());
                let effort = Effort { entry: Entry::Driver, ..effort };
                throughput::run(&effort, &Selection { scenario, sizes: vec![64] })
            }
            Self::Scale => {
                let stations = cli.stations.unwrap_or(cli.either(65_536, 1_000_000));
                let ports = cli.ports.map_or(cli.either(100, 1000), usize::from);
                scale::run(&effort, Extent { stations, ports })
            }
            Self::Control => {
                let numbers =
                    cli.ports.map_or(cli.either(vec![10], vec![10, 1000]), |ports| vec![ports.into()]);
                let effort = control::Effort {
                    changes: cli.either(30, 200),
                    starts: cli.either(2, 5),
                    // All that the agent does now and then comes within a minute, but for reading features.
                    idle: Duration::from_secs(cli.either(5, 60)),
                };
                control::run(&numbers, &effort)
            }
            Self::Latency => latency::run(rounds, cli.either(1000, 10_000)),
            Self::Load => load::run(rounds, Duration::from_millis(cli.either(500, 2000)), cli.cpu),
            Self::Tcp => {
                tcp::run(cli.rounds.unwrap_or(cli.either(1, 5)), cli.either(1, 3), cli.scenario.as_deref())
            }
        }
    }
}
