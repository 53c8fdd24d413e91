//! What happens in the demo, in its order.

use std::time::{Duration, Instant};

use super::Stop;
use super::interrupt::Interrupt;
use super::load::{Rate, Stream};
use super::network::{FLOWS, Flow, Network, OUT_OF_REACH};
use super::report::{self, Findings, FlowFinding, Measurement};
use crate::{Agent, BRIDGE, Netns, Ovs, output, per_port};

/// Times each kind of switching is measured, in turns.
const ROUNDS: usize = 3;
const PINGS: usize = 5;

/// The demo as it unfolds.
struct Story<'i> {
    interrupt: &'i Interrupt,
    start: Instant,
}

impl Story<'_> {
    /// Announces a step, unless it is time to stop.
    fn step(&self, text: &str) -> Result<(), Stop> {
        self.interrupt.check()?;
        println!("[{:5.1} s] {text}", self.start.elapsed().as_secs_f64());
        Ok(())
    }
}

/// Tells all of it.
pub(super) fn tell(interrupt: &Interrupt, keep: bool) -> Result<(), Stop> {
    let story = Story { interrupt, start: Instant::now() };
    check_machine()?;
    story.step("starting a private ovsdb-server and ovs-vswitchd in a network namespace of their own")?;
    let netns = Netns::new();
    let ovs = Ovs::start(&netns);
    let version =
        ovs.appctl("version").split_whitespace().nth(3).unwrap_or("of an unknown version").to_owned();
    story.step("building bridge br0: a trunk, access and native ports, hosts in namespaces (veth; GRO is on, as a veth")?;
    println!("          takes redirected frames only then), a tap with vnet_hdr and an internal port");
    let mut network = Network::build(netns, ovs);
    let mut findings = Findings::new(machine(&version));

    story.step(&format!("Open vSwitch alone: {} pings on each of {} paths", PINGS, FLOWS.len()))?;
    for flow in FLOWS {
        interrupt.check()?;
        ping(&network, &flow).map_err(|cause| Stop::Failed(format!("with Open vSwitch alone, {cause}")))?;
    }
    check_isolation(&network, "Open vSwitch alone")?;

    for round in 1..=ROUNDS {
        for stream in Stream::ALL {
            measure(&story, &mut findings, &mut network, stream, false, round)?;
        }
        story.step(&format!("starting the agent{}", if round == 1 { "" } else { " again" }))?;
        let agent = start_agent(&network)?;
        story.step(&format!(
            "trunkline: the same pings{}",
            if round == 1 { "" } else { ", for both tables to learn" }
        ))?;
        let seen = ping_fast(&story, &network, &agent)?;
        if round == 1 {
            check_isolation(&network, "trunkline")?;
            findings.flows = seen;
        }
        for stream in Stream::ALL {
            measure(&story, &mut findings, &mut network, stream, true, round)?;
        }
        findings.add(per_port(&agent.status(), &agent.stats()));
        if round < ROUNDS {
            story.step("stopping the agent: every port goes back to Open vSwitch")?;
            agent.stop();
            continue;
        }
        println!("\n{}", report::text(&findings));
        findings.verdict().map_err(Stop::Failed)?;
        if keep {
            stay(&story, &network, &agent)?;
        }
        story.step("stopping the agent and cleaning up")?;
        agent.stop();
        if !network.netns.devices_with_xdp().is_empty() {
            return Err(Stop::Failed("a stopped agent left a program on a port".to_owned()));
        }
        drop(network);
        break;
    }
    story.step("done")
}

/// What the demo needs beyond what the agent needs.
fn check_machine() -> Result<(), Stop> {
    if !matches!(Agent::program(), Some(program) if program.is_file()) {
        return Err(Stop::Failed(
            "TRUNKLINE_BIN does not name the trunkline binary: run `cargo xtask demo`".to_owned(),
        ));
    }
    let release = kernel_release();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse::<u32>().unwrap_or(0));
    if (numbers.next(), numbers.next()) < (Some(6), Some(3)) {
        return Err(Stop::Failed(format!(
            "Linux {release} does not tell whether a veth whose peer is in another namespace takes redirected frames, \
             so the hosts of this demo would stay with Open vSwitch: it needs Linux 6.3"
        )));
    }
    Ok(())
}

fn kernel_release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

fn machine(version: &str) -> String {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let datapath = match Ovs::datapath_type() {
        "netdev" => "its userspace datapath (this kernel has no openvswitch module loaded)",
        _ => "its kernel datapath",
    };
    format!("Open vSwitch {version} with {datapath}, Linux {}, {cpus} CPUs", kernel_release())
}

fn start_agent(network: &Network) -> Result<Agent, Stop> {
    let agent = Agent::start(&network.netns, network.ovs.rundir());
    let mut agent = agent.ok_or_else(|| Stop::Failed("there is no trunkline to start".to_owned()))?;
    agent.wait_status("every suitable port to be accelerated", |status| {
        Network::FAST_PORTS.iter().all(|port| status.accelerates(port))
    });
    Ok(agent)
}

fn ping(network: &Network, flow: &Flow) -> Result<(), String> {
    let mut ping = network.host(flow.from).netns.command("ping");
    let said =
        output(ping.args(["-c", &PINGS.to_string(), "-i", "0.02", "-W", "2", &flow.address.to_string()]));
    let text = String::from_utf8_lossy(&said.stdout);
    if text.contains(&format!(" {PINGS} received")) {
        return Ok(());
    }
    let summary = text.lines().find(|line| line.contains("transmitted")).unwrap_or("ping did not run");
    Err(format!("{} cannot ping {} in VLAN {}: {summary}", flow.from, flow.to, flow.vid))
}

/// Pings, and counts what the fast path had of it.
fn ping_fast(story: &Story<'_>, network: &Network, agent: &Agent) -> Result<Vec<FlowFinding>, Stop> {
    let forwarded = |flow: &Flow| -> u64 {
        let stats = agent.stats();
        [flow.from, flow.to_port].iter().map(|port| stats.port(port).rx.forwarded.frames).sum()
    };
    let mut findings = Vec::new();
    for flow in FLOWS {
        story.interrupt.check()?;
        let before = forwarded(&flow);
        ping(network, &flow).map_err(|cause| Stop::Failed(format!("with trunkline, {cause}")))?;
        findings.push(FlowFinding { flow, by_xdp: forwarded(&flow) - before });
    }
    Ok(findings)
}

/// Hosts in different VLANs share an IP network and nevertheless do not hear each other.
fn check_isolation(network: &Network, with: &str) -> Result<(), Stop> {
    let mut ping = network.host("h2").netns.command("ping");
    let said = output(ping.args(["-c", "1", "-W", "1", &OUT_OF_REACH.to_string()]));
    if String::from_utf8_lossy(&said.stdout).contains(" 0 received") {
        return Ok(());
    }
    Err(Stop::Failed(format!("with {with}, h2 in VLAN 2 reaches {OUT_OF_REACH} in VLAN 3")))
}

fn measure(
    story: &Story<'_>,
    findings: &mut Findings,
    network: &mut Network,
    stream: Stream,
    fast: bool,
    round: usize,
) -> Result<(), Stop> {
    story.interrupt.check()?;
    if findings.no_load.is_some() {
        return Ok(());
    }
    let with = if fast { "trunkline" } else { "Open vSwitch alone" };
    match stream.measure(network, fast) {
        Ok(rate) => {
            let Rate { offered, delivered } = rate;
            story.step(&format!(
                "load, round {round} of {ROUNDS}, {with}: {} {delivered:.2} of {offered:.2} Mpps",
                stream.name()
            ))?;
            findings.measurements.push(Measurement { stream, fast, rate });
        }
        Err(cause) => {
            // Before Linux 5.18, live frames are refused; then the demo goes on without a load.
            story.step(&format!("no load: {cause}"))?;
            findings.no_load = Some(cause);
        }
    }
    Ok(())
}

/// Leaves all of it running for a look around.
fn stay(story: &Story<'_>, network: &Network, agent: &Agent) -> Result<(), Stop> {
    let (netns, rundir) = (network.netns.name(), network.ovs.rundir().display());
    let program = Agent::program().unwrap_or_default();
    println!("\nLook around in another terminal, as root:");
    println!("  export OVS_RUNDIR={rundir}");
    println!("  ip netns exec {netns} {} status --run-dir {}", program.display(), agent.run_dir().display());
    println!("  ip netns exec {netns} ovs-appctl fdb/show {BRIDGE}");
    println!(
        "  ip netns exec {} ping {}   # host h2 to far2",
        network.host("h2").netns.name(),
        FLOWS[0].address
    );
    println!("Enter or Ctrl-C ends it.");
    let (pressed, enter) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let read = std::io::stdin().read_line(&mut String::new());
        // Without a terminal there is nobody to press Enter; a signal ends it then.
        if matches!(read, Ok(count) if count > 0) {
            let _ = pressed.send(());
        } else {
            std::mem::forget(pressed);
        }
    });
    while enter.recv_timeout(Duration::from_millis(100)).is_err() {
        story.interrupt.check()?;
    }
    Ok(())
}
