//! Suite `load`: what a packet costs the host at a fixed load, which is what operators feel.
//!
//! Frames are sent from a packet socket at an even pace. All work for them is done either in the sender's context, as the
//! kernel forwards a frame before the system call returns, or by ovs-vswitchd, or by the kernel's threads for deferred
//! work. What sending alone costs is measured with a program that drops the frames where they come in, and subtracted.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use aya::programs::XdpMode;
use rustix::thread::{CpuSet, sched_setaffinity};
use serde_json::{Value, json};
use trunkline_tests::{Netns, Vlan};

use crate::baseline::Baseline;
use crate::contestant::{Contestant, Installation, Ports};
use crate::control::process::Process;
use crate::frame::{RECEIVER, frame};
use crate::path::{Entry, devices};
use crate::rounds::{median, order};

/// Frames in a second.
const RATE: u32 = 20_000;
/// Frames that are sent at a time.
const BURST: u32 = 20;

struct Entrant {
    name: &'static str,
    netns: Netns,
    contestant: Option<Contestant>,
    /// Whose time counts.
    processes: Vec<Process>,
    _programs: Vec<Baseline>,
    rounds: Vec<Round>,
}

type Make<'m> = &'m dyn Fn(&Netns) -> Result<Contestant>;

struct Round {
    /// ns for each frame sent.
    ns: f64,
    /// Share of the frames that arrived.
    arrived: f64,
}

/// Measures for so long in each round, prints a table, and returns the raw figures.
///
/// # Errors
/// Something could not be set up.
pub fn run(rounds: usize, slot: Duration, cpu: usize) -> Result<Value> {
    let access = Vlan::Access(10);
    let ports = Ports { ingress: access.clone(), egress: Vlan::Trunk(vec![]), vid: 10 };
    let makers: [(_, Option<Make<'_>>); 5] = [
        ("sending alone", None),
        ("redirect", Some(&Contestant::redirect)),
        ("trunkline", Some(&|netns| Contestant::trunkline(netns, &ports, Installation::default()))),
        ("bridge", Some(&|netns| Contestant::bridge(netns, Entry::Veth))),
        ("ovs", Some(&|netns| Contestant::ovs(netns, &ports, Entry::Veth))),
    ];
    let make = |(name, make): (_, Option<Make<'_>>)| Entrant::new(name, make).with_context(|| name);
    let mut entrants = makers.into_iter().map(make).collect::<Result<Vec<_>>>()?;
    for round in 0..rounds {
        for place in order(round, entrants.len()) {
            let measured = entrants[place].measure(slot, cpu)?;
            entrants[place].rounds.push(measured);
        }
    }
    println!(
        "load: ns of processor time for each frame at {RATE} in a second, medians of {rounds} rounds of {slot:?}"
    );
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["", "ns", "beyond sending, of those that arrived", "arrived"]);
    let mut results = vec![];
    for Entrant { name, contestant, rounds, .. } in &entrants {
        let ns = median(rounds.iter().map(|round| round.ns));
        let alone = entrants[0].rounds.iter();
        let beyond = rounds.iter().zip(alone).map(|(round, alone)| (round.ns - alone.ns) / round.arrived);
        let beyond = if contestant.is_some() { median(beyond) } else { 0.0 };
        let arrived = median(rounds.iter().map(|round| round.arrived));
        table.add_row([
            (*name).to_owned(),
            format!("{ns:.0}"),
            format!("{beyond:.0}"),
            format!("{:.1} %", arrived * 100.0),
        ]);
        let all: Vec<f64> = rounds.iter().map(|round| round.ns).collect();
        results.push(json!({
            "contestant": name, "rate": RATE, "ns": ns, "beyond_sending_ns": beyond, "arrived": arrived, "rounds_ns": all,
        }));
    }
    println!("{table}\n");
    Ok(results.into())
}

impl Entrant {
    fn new(name: &'static str, make: Option<Make<'_>>) -> Result<Self> {
        let netns = devices();
        let contestant = make.map(|make| make(&netns)).transpose()?;
        // What arrives is dropped by a program: behind the contestant, or in its place.
        let mut drain = Baseline::drop_all()?;
        let at = if contestant.is_some() { "receiver" } else { "in" };
        netns.enter(|| drain.xdp()?.attach(at, XdpMode::Driver).context("attaching the drain"))?;
        let mut processes = kernel_threads()?;
        if let Some(Contestant::Ovs { _ovs, .. }) = &contestant {
            let file = _ovs.rundir().join("ovs-vswitchd.pid");
            let id = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
            processes.push(Process::new(id.trim().parse()?));
        }
        Ok(Self { name, netns, contestant, processes, _programs: vec![drain], rounds: vec![] })
    }

    fn measure(&mut self, slot: Duration, cpu: usize) -> Result<Round> {
        let Self { netns, contestant, processes, .. } = self;
        if let Some(contestant) = contestant {
            contestant.maintain()?;
        }
        let frame = frame(RECEIVER, None);
        let socket = netns.packet_socket("sender");
        let frames = (slot.as_secs_f64() * f64::from(RATE)) as u32 / BURST * BURST;
        let pause = Duration::from_secs(1) / RATE * BURST;
        let others = || processes.iter().map(Process::cpu_time).sum::<Result<Duration>>();
        netns.enter(|| {
            let mut only = CpuSet::new();
            only.set(cpu);
            sched_setaffinity(None, &only).context("staying on one CPU")?;
            let (before, before_others, before_received) = (own_time()?, others()?, received()?);
            let mut due = Instant::now();
            for _ in 0..frames / BURST {
                (0..BURST).for_each(|_| socket.send(&frame));
                due += pause;
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            let own = own_time()? - before;
            // What is still queued costs too.
            std::thread::sleep(Duration::from_millis(50));
            let time = own + (others()? - before_others);
            let arrived = (received()? - before_received) as f64 / f64::from(frames);
            Ok(Round { ns: time.as_nanos() as f64 / f64::from(frames), arrived })
        })
    }
}

/// Time that this thread has run.
fn own_time() -> Result<Duration> {
    let stat = fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(Duration::from_nanos(stat.split(' ').next().context("an empty schedstat")?.parse()?))
}

/// The kernel's threads for deferred work.
fn kernel_threads() -> Result<Vec<Process>> {
    let mut threads = vec![];
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(id) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let comm = fs::read_to_string(format!("/proc/{id}/comm")).unwrap_or_default();
        if comm.starts_with("ksoftirqd/") {
            threads.push(Process::new(id));
        }
    }
    Ok(threads)
}

/// Frames that `receiver` has received.
fn received() -> Result<u64> {
    let devices = fs::read_to_string("/proc/thread-self/net/dev")?;
    let line = devices.lines().find_map(|line| line.trim().strip_prefix("receiver:"));
    let packets = line.and_then(|line| line.split_whitespace().nth(1)).context("no device receiver")?;
    Ok(packets.parse()?)
}
