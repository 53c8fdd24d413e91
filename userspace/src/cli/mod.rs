//! The command line.

mod frame;
mod output;
mod show;

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand};
use serde::de::DeserializeOwned;
use trunkline_core::Mac;

use crate::config::{self, RunDir};
use crate::control::{self, Request};
use crate::dataplane::Options;
use crate::frame_text;
use crate::offloads::Offloads;
use crate::ovsdb::Endpoint;
use crate::report::{FdbStation, Stats, Status, TraceReport};
use crate::run::{self, Config};

pub use frame::VlanTag;
pub use output::OutputError;

use output::print_lines;

/// An XDP fast path for Open vSwitch VLAN bridges.
///
/// The agent follows Open vSwitch and switches the known unicast traffic of its VLAN bridges in XDP programs; everything
/// else, and everything it is not certain about, stays with Open vSwitch. Go on using ovs-vsctl, libvirt and netplan.
#[derive(Parser, Debug)]
#[command(name = "trunkline", version, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What can be done.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run the agent in the foreground
    #[command(
        after_help = "Example:\n  trunkline agent --bridge br0\n\nSIGTERM and SIGINT give every port back to Open \
                            vSwitch and end the agent."
    )]
    Agent(AgentArgs),
    /// Show whether it works and, for what is not accelerated, why
    #[command(after_help = "Example:\n  trunkline status --json | jq .ready")]
    Status(ShowArgs),
    /// Show or flush the forwarding database
    Fdb(FdbArgs),
    /// Show counters for each port, with a reason for each punt and drop
    #[command(after_help = "Example:\n  trunkline stats")]
    Stats(ShowArgs),
    /// Show what the loaded program does with a frame, and why
    #[command(
        after_help = "Examples:\n  trunkline trace --port tap0 --dst 52:54:00:00:00:02 --src 52:54:00:00:00:01\n  \
                            trunkline trace --port eth0 --dst 52:54:00:00:00:02 --src 52:54:00:00:00:01 --vlan \
                            100:5\n\nNothing is sent, learned or counted."
    )]
    Trace(TraceArgs),
    /// Give every port back to Open vSwitch and remove all programs and maps, agent or not
    #[command(after_help = "Example:\n  trunkline detach")]
    Detach(RunDirArgs),
}

/// Options of `agent`.
#[derive(Args, Debug)]
pub struct AgentArgs {
    /// Database of Open vSwitch: unix:PATH or tcp:HOST:PORT [default: unix:<ovs-rundir>/db.sock]
    #[arg(long, value_name = "REMOTE")]
    ovsdb: Option<Endpoint>,
    /// Open vSwitch's run directory, with its pid file and sockets
    #[arg(long, value_name = "DIR", env = "OVS_RUNDIR", default_value = config::OVS_RUNDIR)]
    ovs_rundir: PathBuf,
    #[command(flatten)]
    run_dir: RunDirArgs,
    /// Accelerate this bridge only (may be given several times) [default: all bridges]
    #[arg(long = "bridge", value_name = "NAME")]
    bridges: Vec<String>,
    /// Most stations in the forwarding database, on all bridges together
    #[arg(long, value_name = "N", default_value_t = 65_536, value_parser = clap::value_parser!(u32).range(16..=16_777_216))]
    fdb_size: u32,
    /// Have the programs log new and moved stations (slows them down; shown with RUST_LOG=debug)
    #[arg(long)]
    log_datapath: bool,
}

/// Where the agent is.
#[derive(Args, Debug)]
pub struct RunDirArgs {
    /// trunkline's run directory, with its control socket
    #[arg(long, value_name = "DIR", default_value = config::RUN_DIR)]
    run_dir: PathBuf,
}

/// Options of the commands that show something.
#[derive(Args, Debug)]
pub struct ShowArgs {
    #[command(flatten)]
    run_dir: RunDirArgs,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// `fdb`
#[derive(Args, Debug)]
pub struct FdbArgs {
    #[command(subcommand)]
    command: FdbCommand,
}

#[derive(Subcommand, Debug)]
enum FdbCommand {
    /// Show all stations
    #[command(after_help = "Example:\n  trunkline fdb show")]
    Show(ShowArgs),
    /// Forget stations, all of them if nothing else is said; Open vSwitch's own table is not touched
    #[command(after_help = "Example:\n  trunkline fdb flush --bridge br0 --vlan 100")]
    Flush {
        #[command(flatten)]
        run_dir: RunDirArgs,
        /// On this bridge only
        #[arg(long)]
        bridge: Option<String>,
        /// On this port only
        #[arg(long)]
        port: Option<String>,
        /// In this VLAN only
        #[arg(long, value_parser = clap::value_parser!(u16).range(0..=4095))]
        vlan: Option<u16>,
    },
}

/// Options of `trace`.
#[derive(Args, Debug)]
pub struct TraceArgs {
    #[command(flatten)]
    show: ShowArgs,
    /// Port on which the frame arrives
    #[arg(long)]
    port: String,
    /// The whole frame, in hexadecimal, from the destination address on
    #[arg(long, value_name = "HEX", value_parser = whole_frame,
        conflicts_with_all = ["dst", "src", "vlans"], required_unless_present = "dst")]
    frame: Option<String>,
    /// Destination address
    #[arg(long, value_name = "MAC", requires = "src")]
    dst: Option<Mac>,
    /// Source address
    #[arg(long, value_name = "MAC", requires = "dst")]
    src: Option<Mac>,
    /// 802.1Q tag, VID or VID:PCP (may be given several times, the outermost first)
    #[arg(long = "vlan", value_name = "V[:PCP]")]
    vlans: Vec<VlanTag>,
    /// Ask Open vSwitch the same question (ofproto/trace) and show both answers
    #[arg(long)]
    compare: bool,
}

/// A frame as it goes to the agent.
fn whole_frame(text: &str) -> Result<String, String> {
    frame_text::parse(text).map(|frame| frame_text::hex(&frame))
}

/// Carries out a command.
///
/// # Errors
/// What went wrong, with the object, the cause and the next step.
pub async fn run(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Agent(args) => run_agent(args).await,
        Command::Status(args) => {
            let status: Status = ask(&args.run_dir, &Request::Status).await?;
            print(args.json, &status, show::status)
        }
        Command::Stats(args) => {
            let stats: Stats = ask(&args.run_dir, &Request::Stats).await?;
            print(args.json, &stats, show::stats)
        }
        Command::Fdb(FdbArgs { command: FdbCommand::Show(args) }) => {
            let stations: Vec<FdbStation> = ask(&args.run_dir, &Request::FdbShow).await?;
            print(args.json, &stations, |stations| show::stations(stations))
        }
        Command::Fdb(FdbArgs { command: FdbCommand::Flush { run_dir, bridge, port, vlan } }) => {
            let forgotten: usize = ask(&run_dir, &Request::FdbFlush { bridge, port, vlan }).await?;
            Ok(print_lines(&format!("{forgotten} station(s) forgotten"))?)
        }
        Command::Trace(TraceArgs { show, port, frame, dst, src, vlans, compare }) => {
            let frame = match (frame, dst, src) {
                (Some(frame), ..) => frame,
                (None, Some(dst), Some(src)) => frame::hex(dst, src, &vlans),
                _ => anyhow::bail!("no frame: give --frame, or --dst and --src"),
            };
            let report: TraceReport = ask(&show.run_dir, &Request::Trace { port, frame, compare }).await?;
            print(show.json, &report, show::trace)
        }
        Command::Detach(args) => detach(&args).await,
    }
}

async fn run_agent(args: AgentArgs) -> Result<()> {
    let AgentArgs { ovsdb, ovs_rundir, run_dir, bridges, fdb_size, log_datapath } = args;
    run::run(Config {
        ovsdb: ovsdb.unwrap_or_else(|| Endpoint::Unix(ovs_rundir.join("db.sock"))),
        ovs_rundir,
        run_dir: RunDir(run_dir.run_dir),
        bridges,
        options: Options { stations: fdb_size, log: log_datapath },
    })
    .await
}

async fn ask<T: DeserializeOwned>(args: &RunDirArgs, request: &Request) -> Result<T> {
    let socket = RunDir(args.run_dir.clone()).socket();
    let value = control::request(&socket, request).await?;
    serde_json::from_value(value).context("the agent's answer is not understood: is it of another version?")
}

fn print<T: serde::Serialize>(json: bool, document: &T, human: impl FnOnce(&T) -> String) -> Result<()> {
    let text = if json { serde_json::to_string_pretty(document)? } else { human(document) };
    Ok(print_lines(&text)?)
}

async fn detach(args: &RunDirArgs) -> Result<()> {
    let run_dir = RunDir(args.run_dir.clone());
    if run_dir.socket().exists() && tokio::net::UnixStream::connect(run_dir.socket()).await.is_ok() {
        let answer: serde_json::Value = ask(args, &Request::Detach).await?;
        let failures = answer["failures"].as_array().cloned().unwrap_or_default();
        anyhow::ensure!(
            failures.is_empty(),
            "the agent has ended, but could not undo everything: {failures:?}"
        );
        return Ok(print_lines("the agent gave every port back to Open vSwitch and ended")?);
    }
    // Programs and maps live as long as the process that holds them, so a dead agent leaves none; what it may leave is a
    // device's changed setting.
    Offloads::new(&run_dir).restore().await;
    let left: Vec<u32> = aya::programs::loaded_programs()
        .filter_map(Result::ok)
        .filter(|program| program.name_as_str().is_some_and(|name| name.starts_with("trunkline_")))
        .map(|program| program.id())
        .collect();
    print_lines(&format!("no agent runs with {}, and nothing of one is left", run_dir.0.display()))?;
    if !left.is_empty() {
        print_lines(&format!(
            "the BPF programs {left:?} are those of a running agent with another run directory: name it with --run-dir"
        ))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_trace_needs_a_whole_frame_or_both_addresses() {
        const FRAME: &str = "020000000001 020000000002 0800";
        let parse =
            |args: &[&str]| Cli::try_parse_from([&["trunkline", "trace", "--port", "p1"], args].concat());
        assert!(parse(&[]).is_err());
        assert!(parse(&["--dst", "02:00:00:00:00:01"]).is_err());
        assert!(
            parse(&["--frame", FRAME, "--dst", "02:00:00:00:00:01", "--src", "02:00:00:00:00:02"]).is_err()
        );
        assert!(
            parse(&["--dst", "02:00:00:00:00:01", "--src", "02:00:00:00:00:02", "--vlan", "5:7"]).is_ok()
        );
        assert!(parse(&["--frame", FRAME]).is_ok());
        assert!(parse(&["--frame", &FRAME[2..]]).unwrap_err().to_string().contains("14 at least"));
    }
}
