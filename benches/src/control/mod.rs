//! Suite `control`: how soon a change is in force, how soon the agent is ready, and what it needs meanwhile.
//!
//! A real agent (`TRUNKLINE_BIN`) and a private Open vSwitch, with as many veths as ports. Changes are written as
//! `ovs-vsctl` writes them, on a connection of our own; the tables are looked at from outside, through the kernel.

mod daemon;
mod database;
pub(crate) mod process;
mod tables;

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Barrier;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use aya::programs::XdpMode;
use serde_json::{Value, json};
use trunkline::config::RunDir;
use trunkline_tests::{Agent, Netns, Ovs};

use crate::baseline::Baseline;
use crate::rounds::{median, quantile};
use daemon::Daemon;
use database::Database;
use process::Process;
use tables::{Sight, Tables};

/// How much to measure.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Changes.
    pub changes: usize,
    /// Starts of the agent.
    pub starts: usize,
    /// How long the agent is watched doing nothing.
    pub idle: Duration,
}

/// A port without tag and trunks has all VLANs; the first one's tag is changed.
const CHANGED: &str = "p1";
const TAGS: [u16; 2] = [10, 11];
/// Ports that are added to Open vSwitch at a time.
const BATCH: usize = 50;
/// Grace periods that are timed.
const GRACE_PERIODS: usize = 50;
const LIMIT: Duration = Duration::from_secs(60);

/// Measures with each of these numbers of ports, prints tables, and returns the raw figures.
///
/// # Errors
/// Something could not be set up, or did not come to pass.
pub fn run(numbers: &[usize], effort: &Effort) -> Result<Value> {
    let mut results = vec![];
    for number in numbers {
        results.push(run_one(*number, effort).with_context(|| format!("with {number} ports"))?);
    }
    Ok(results.into())
}

fn run_one(ports: usize, effort: &Effort) -> Result<Value> {
    let netns = network(ports);
    let ovs = bridge(&netns, ports);
    let attaching = netns.enter(|| attach_alone(ports))?;
    let grace_periods = (0..GRACE_PERIODS).map(|_| grace_period()).collect::<Result<Vec<_>>>()?;

    let mut starts = vec![];
    let mut agent = None;
    for _ in 0..effort.starts {
        if let Some(agent) = agent.take() {
            Agent::stop(agent);
        }
        let start = Instant::now();
        let started =
            Agent::start(&netns, ovs.rundir()).context("TRUNKLINE_BIN is none: there is no agent")?;
        wait_ready(&started, ports)?;
        starts.push(start.elapsed().as_secs_f64() * 1e3);
        agent = Some(started);
    }
    let agent = agent.context("no start was asked for")?;
    let process = Process::new(agent.pid());
    let rss_kib_at_start = process.resident_kib()?;
    let changes = changes(&ovs, &agent, effort.changes)?;
    // What the last change has set off is done by then.
    sleep(Duration::from_secs(3));
    let idle = process.cpu_share(effort.idle)?;
    let rss_kib = process.resident_kib()?;

    let start_ms = median(starts.iter().copied());
    println!("{ports} ports, {} changes, {} starts", effort.changes, effort.starts);
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["milliseconds", "p50", "p99", "most"]);
    for (what, figures) in &changes {
        let at = |share| format!("{:.2}", quantile(figures, share));
        table.add_row([(*what).to_owned(), at(0.5), at(0.99), at(1.0)]);
    }
    println!("{table}");
    println!(
        "beside: a grace period of the kernel's RCU takes {:.2} ms at p50, {:.2} at p99",
        quantile(&grace_periods, 0.5),
        quantile(&grace_periods, 0.99)
    );
    println!(
        "start to ready {start_ms:.0} ms, of which attaching alone takes {attaching:.0}; resident {:.1} MiB; idle {:.3} % \
         of a processor\n",
        rss_kib as f64 / 1024.0,
        idle * 100.0
    );
    let changes: serde_json::Map<String, Value> = changes
        .iter()
        .map(|(what, figures)| {
            let figures = json!({
                "p50_ms": quantile(figures, 0.5), "p99_ms": quantile(figures, 0.99), "all_ms": figures,
            });
            ((*what).to_owned(), figures)
        })
        .collect();
    Ok(json!({
        "ports": ports,
        "changes": changes,
        "start_to_ready_ms": start_ms,
        "attaching_alone_ms": attaching,
        "starts_ms": starts,
        "grace_period_p50_ms": quantile(&grace_periods, 0.5),
        "grace_period_p99_ms": quantile(&grace_periods, 0.99),
        "resident_kib_at_start": rss_kib_at_start,
        "resident_kib": rss_kib,
        "idle_seconds": effort.idle.as_secs(),
        "idle_cpu_percent": idle * 100.0,
    }))
}

/// A new network namespace with devices `p1` to `pN`, each with a peer.
fn network(ports: usize) -> Netns {
    let netns = Netns::new();
    let mut script = String::new();
    for n in 1..=ports {
        let _ = writeln!(script, "link add p{n} type veth peer name q{n}");
        let _ = writeln!(script, "link set p{n} up\nlink set q{n} up");
    }
    let file = std::env::temp_dir().join(format!("{}-ports", netns.name()));
    std::fs::write(&file, script).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    netns.run(&format!("ip -batch {}", file.display()));
    let _ = std::fs::remove_file(file);
    netns
}

fn bridge(netns: &Netns, ports: usize) -> Ovs {
    let ovs = Ovs::start(netns);
    ovs.vsctl(&format!("add-br br0 -- set Bridge br0 datapath_type={}", Ovs::datapath_type()));
    let all: Vec<usize> = (1..=ports).collect();
    for some in all.chunks(BATCH) {
        let words: Vec<String> = some.iter().map(|n| format!("add-port br0 p{n}")).collect();
        ovs.vsctl(&words.join(" -- "));
    }
    ovs.vsctl(&format!("set Port {CHANGED} tag={}", TAGS[0]));
    ovs
}

/// Milliseconds that it takes to put a program on every device, and nothing else.
fn attach_alone(ports: usize) -> Result<f64> {
    let mut pass = Baseline::pass()?;
    let start = Instant::now();
    for n in 1..=ports {
        pass.xdp()?
            .attach(&format!("p{n}"), XdpMode::Driver)
            .with_context(|| format!("attaching to p{n}"))?;
    }
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

/// Milliseconds that the kernel's RCU takes to be sure that no program runs which ran before.
fn grace_period() -> Result<f64> {
    let start = Instant::now();
    rustix::thread::membarrier(rustix::thread::MembarrierCommand::Global).context("waiting for RCU")?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

/// Waits until the agent says that it is ready, with all ports accelerated.
fn wait_ready(agent: &Agent, ports: usize) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    let socket = RunDir(agent.run_dir().to_path_buf()).socket();
    loop {
        let status = ask_status(&socket);
        let accelerated = |status: &Value| {
            let ports = status["bridges"][0]["ports"].as_array().into_iter().flatten();
            ports.filter(|port| port["accelerated"] == true).count()
        };
        match &status {
            Ok(status) if status["ready"] == true && accelerated(status) == ports => return Ok(()),
            _ => {}
        }
        ensure!(
            Instant::now() < deadline,
            "the agent is not ready: {:?}\n{}",
            status.map(|status| (status["ready"].clone(), accelerated(&status))),
            agent.log()
        );
        sleep(Duration::from_millis(10));
    }
}

fn ask_status(socket: &Path) -> Result<Value> {
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(b"{\"command\":\"status\"}\n")?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    let reply: Value = serde_json::from_str(&line)?;
    Ok(reply["ok"].clone())
}

type Series = (&'static str, Vec<f64>);

/// Changes the tag of a port again and again, and looks when that shows where.
///
/// Open vSwitch says that it has applied a change, and then looks at all its devices before it does anything else: until
/// that is done it answers nobody, and an agent that has to ask it must wait.
fn changes(ovs: &Ovs, agent: &Agent, count: usize) -> Result<[Series; 7]> {
    let mut database = Database::connect(&ovs.rundir().join("db.sock"))?;
    let mut daemon = Daemon::connect(ovs.rundir())?;
    let tables = Tables::of(agent.pid())?;
    let place = tables.place_of(TAGS[0]).context("no port in the tables has the tag")?;
    let mut series = [
        ("commit to suspended", vec![]),
        ("commit to applied by Open vSwitch", vec![]),
        ("commit to answering by Open vSwitch", vec![]),
        ("commit to the map", vec![]),
        ("the map, beyond Open vSwitch", vec![]),
        ("switching again, beyond Open vSwitch", vec![]),
        ("the map, beyond answering", vec![]),
    ];
    for n in 0..count {
        let tag = TAGS[(n + 1) % 2];
        let begun = Barrier::new(2);
        let deadline = Instant::now() + LIMIT;
        let (start, applied, answering, seen) = std::thread::scope(|scope| {
            let watcher = scope.spawn(|| tables.watch(place, tag, deadline, &begun));
            begun.wait();
            let start = Instant::now();
            let written = database.set_tag(CHANGED, tag);
            let applied = written.and_then(|generation| database.wait_applied(generation));
            let answering = daemon.wait_answering();
            (
                start,
                applied,
                answering,
                watcher.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            )
        });
        let Sight { suspended, changed, active } = seen.with_context(|| agent.log())?;
        let since = |instant: Instant| instant.duration_since(start).as_secs_f64() * 1e3;
        let (applied, answering) = (since(applied?), since(answering?));
        let (changed, active) = (since(changed), since(active));
        let beyond = |at: f64, past: f64| Some((at - past).max(0.0));
        let figures = [
            suspended.map(since),
            Some(applied),
            Some(answering),
            Some(changed),
            beyond(changed, applied),
            beyond(active, applied),
            beyond(changed, answering),
        ];
        for ((_, all), figure) in series.iter_mut().zip(figures) {
            all.extend(figure);
        }
        // Changes come one at a time.
        sleep(Duration::from_millis(100));
    }
    Ok(series)
}
