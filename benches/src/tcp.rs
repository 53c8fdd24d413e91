//! Suite `tcp`: iperf3 between two guests, behind veths with their offloads off and on, and behind taps as QEMU has them.
//!
//! With offloads, a guest leaves checksums and segmenting to the device. Such frames are for tc, or Open vSwitch's, whatever
//! XDP program is on the port; with them, trunkline is where the agent puts it on such a port. Open vSwitch's userspace
//! datapath carries no unfinished checksums, so with it these rows are left out.

use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;
use serde_json::{Value, json};
use trunkline::dataplane::{Hooks, has_tcx};
use trunkline_core::Mac;
use trunkline_tests::{Guest, Netns, Ovs, Vlan, output};

use crate::contestant::{Contestant, Installation, Ports};
use crate::frame::{RECEIVER, SENDER};
use crate::path::Entry;
use crate::rounds::{median, order, quantile};

/// The guests' subnet, 10.0.9.0/24; they are hosts 1 and 2.
const NET: u8 = 9;
const SERVER: &str = "10.0.9.2";

/// What the two guests are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Layout {
    /// Behind veths, with finished checksums and no super-frames.
    Plain,
    /// Behind veths, with the offloads that a veth has.
    Veths,
    /// Behind taps with virtio headers.
    Taps,
    /// The sender stands for the network beyond an uplink, whose device can merge frames (GRO): frames as long as the MTU,
    /// with finished checksums. The receiver is behind a tap.
    Uplink,
}

impl Layout {
    fn name(self) -> &'static str {
        match self {
            Self::Plain => "veths, offloads off",
            Self::Veths => "veths",
            Self::Taps => "taps",
            Self::Uplink => "uplink to tap",
        }
    }

    /// Whether frames arrive at the switch that are not finished.
    fn unfinished(self) -> bool {
        // What the receiver behind a tap answers is.
        self != Self::Plain
    }
}

struct Entrant {
    name: &'static str,
    layout: Layout,
    contestant: Contestant,
    guests: [Guest; 2],
    _switch: Netns,
    rounds: Vec<Round>,
}

/// What iperf3 achieved, and what tells whether it was the processor that limited it.
#[derive(Clone, Copy, Serialize, Debug)]
struct Round {
    gbps: f64,
    /// Frames that the sender's device sent; a super-frame is one.
    frames: u64,
    /// What they are long on average.
    octets: u64,
    /// Frames that came back.
    answers: u64,
    retransmits: Option<u64>,
    /// The part of the time in which no processor had anything to do, from the start of the client to its end.
    idle: f64,
}

/// Measures for so many seconds in each round, between `only` such guests if it is given, prints a table, and returns the raw
/// figures.
///
/// # Errors
/// Something could not be set up, or iperf3 fails.
pub fn run(rounds: usize, seconds: u64, only: Option<&str>) -> Result<Value> {
    let mut entrants = entrants(only)?;
    for round in 0..rounds {
        for place in order(round, entrants.len()) {
            let Entrant { name, layout, .. } = entrants[place];
            entrants[place].measure(seconds).with_context(|| format!("{name}, {}", layout.name()))?;
        }
    }
    println!("tcp: gigabits in a second, medians of {rounds} rounds of {seconds} s");
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header([
        "guests", "", "Gbit/s", "of ovs", "least", "most", "octets", "answers", "resent", "idle",
    ]);
    let mut results = vec![];
    for Entrant { name, layout, rounds, .. } in &entrants {
        let of_rounds = |value: fn(&Round) -> f64| median(rounds.iter().map(value));
        let figure = of_rounds(|round| round.gbps);
        let ovs = entrants.iter().find(|other| other.layout == *layout && other.name == OVS);
        let ratios: Vec<f64> = ovs.map_or_else(Vec::new, |ovs| {
            rounds.iter().zip(&ovs.rounds).map(|(own, ovs)| own.gbps / ovs.gbps).collect()
        });
        let of_ovs = ovs.map(|_| median(ratios.iter().copied()));
        let ratio = |share| {
            if ratios.is_empty() { String::new() } else { format!("{:.3}", quantile(&ratios, share)) }
        };
        table.add_row([
            layout.name().to_owned(),
            (*name).to_owned(),
            format!("{figure:.2}"),
            of_ovs.map_or_else(String::new, |ratio| format!("{ratio:.3}")),
            ratio(0.0),
            ratio(1.0),
            format!("{:.0}", of_rounds(|round| round.octets as f64)),
            format!("{:.2}", of_rounds(|round| round.answers as f64 / round.frames as f64)),
            format!("{:.0}", of_rounds(|round| round.retransmits.unwrap_or_default() as f64)),
            format!("{:.1} %", 100.0 * of_rounds(|round| round.idle)),
        ]);
        results.push(json!({
            "guests": layout.name(), "contestant": name, "gbps": figure, "of_ovs": of_ovs, "rounds": rounds,
        }));
    }
    println!("{table}\n");
    Ok(results.into())
}

const OVS: &str = "ovs";
const TC: &str = "trunkline-tc";
/// XDP on the uplink, followed by tc; the tap at tc.
const XDP_TO_TC: &str = "trunkline, uplink xdp+tc";

fn entrants(only: Option<&str>) -> Result<Vec<Entrant>> {
    use Layout::{Plain, Taps, Uplink, Veths};
    let access = Vlan::Access(10);
    let ports = Ports { ingress: access.clone(), egress: access, vid: 10 };
    let finishes = Ovs::datapath_type() == "system";
    let trunkline = |netns: &Netns, hooks| {
        let installation = Installation { hooks, ..Installation::default() };
        // Where Open vSwitch cannot be below, nothing is left to it either.
        if finishes {
            Contestant::both(netns, &ports, installation, vec![])
        } else {
            Contestant::trunkline(netns, &ports, installation)
        }
    };
    type Make<'m> = &'m dyn Fn(&Netns) -> Result<Contestant>;
    let makers: [(_, &[Layout], Make<'_>); 6] = [
        ("redirect", &[Plain], &Contestant::redirect),
        ("trunkline", &[Plain], &|netns| trunkline(netns, [Hooks::Xdp; 2])),
        (XDP_TO_TC, &[Uplink], &|netns| trunkline(netns, [Hooks::XdpAndTc, Hooks::Tc])),
        (TC, &[Plain, Veths, Taps, Uplink], &|netns| trunkline(netns, [Hooks::Tc; 2])),
        ("bridge", &[Plain, Veths, Taps, Uplink], &|netns| Contestant::bridge(netns, Entry::Veth)),
        (OVS, &[Plain, Veths, Taps, Uplink], &|netns| Contestant::ovs(netns, &ports, Entry::Veth)),
    ];
    let possible = |name: &str, layout: Layout| match name {
        OVS => finishes || !layout.unfinished(),
        TC | XDP_TO_TC => has_tcx(),
        _ => true,
    };
    let mut entrants = vec![];
    let wanted = |layout: &Layout| only.is_none_or(|only| only == layout.name());
    for layout in [Plain, Veths, Taps, Uplink].into_iter().filter(wanted) {
        for (name, layouts, make) in &makers {
            if layouts.contains(&layout) && possible(name, layout) {
                let entrant = Entrant::new(name, layout, make);
                entrants.push(entrant.with_context(|| format!("{name}, {}", layout.name()))?);
            }
        }
    }
    ensure!(!entrants.is_empty(), "no such guests: {}", only.unwrap_or_default());
    Ok(entrants)
}

impl Entrant {
    fn new(name: &'static str, layout: Layout, make: &dyn Fn(&Netns) -> Result<Contestant>) -> Result<Self> {
        let switch = Netns::new();
        let guests = match layout {
            Layout::Taps => ["in", "out"].map(|port| Guest::tap(&switch, port)),
            Layout::Uplink => [Guest::veth(&switch, "in"), Guest::tap(&switch, "out")],
            Layout::Plain | Layout::Veths => ["in", "out"].map(|port| Guest::veth(&switch, port)),
        };
        match layout {
            Layout::Plain => {
                for guest in &guests {
                    // Without GRO, nothing can be redirected to it.
                    guest.offload("tx off gro on");
                }
            }
            Layout::Uplink => {
                guests[0].offload("tx off gro on");
                switch.run("ethtool -K in gro on");
            }
            Layout::Veths | Layout::Taps => {}
        }
        for (guest, number, own, other) in
            [(&guests[0], 1, SENDER, RECEIVER), (&guests[1], 2, RECEIVER, SENDER)]
        {
            guest.netns().run(&format!("ip link set eth0 address {}", Mac::new(own)));
            guest.address(None, NET, number);
            let far = format!("10.0.{NET}.{}", 3 - number);
            guest.netns().run(&format!("ip neighbour replace {far} lladdr {} dev eth0", Mac::new(other)));
        }
        let contestant = make(&switch)?;
        Ok(Self { name, layout, contestant, guests, _switch: switch, rounds: vec![] })
    }

    fn measure(&mut self, seconds: u64) -> Result<()> {
        let Self { contestant, guests, rounds, .. } = self;
        contestant.maintain()?;
        let mut server = guests[1].netns().command("iperf3");
        let mut server = server
            .args(["--server", "--one-off"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("starting iperf3")?;
        let mut said = None;
        for _ in 0..20 {
            sleep(Duration::from_millis(100));
            contestant.renew()?;
            let (sent, time) = (guests[0].counters(), ProcessorTime::now()?);
            let mut client = guests[0].netns().command("iperf3");
            client.args(["--client", SERVER, "--json", "--time", &seconds.to_string()]);
            let answer = renewing(contestant, seconds, client)?;
            if let Some(answer) = answer {
                said = Some((answer, guests[0].counters() - sent, ProcessorTime::now()?.idle_since(time)));
                break;
            }
        }
        let _ = server.kill();
        let _ = server.wait();
        let (said, sent, idle) = said.context("iperf3 did not connect")?;
        let bits = said["end"]["sum_received"]["bits_per_second"].as_f64();
        rounds.push(Round {
            gbps: bits.with_context(|| format!("iperf3 has no result: {said}"))? / 1e9,
            frames: sent.tx_frames,
            octets: sent.tx_bytes / sent.tx_frames.max(1),
            answers: sent.rx_frames,
            retransmits: said["end"]["sum_sent"]["retransmits"].as_u64(),
            idle,
        });
        Ok(())
    }
}

/// What all processors have done since the machine started, in ticks of the kernel's.
#[derive(Clone, Copy)]
struct ProcessorTime {
    idle: u64,
    all: u64,
}

impl ProcessorTime {
    fn now() -> Result<Self> {
        let text = std::fs::read_to_string("/proc/stat").context("reading /proc/stat")?;
        let line = text.lines().next().context("/proc/stat is empty")?;
        // After the name: user, nice, system, idle, waiting for I/O, interrupts, soft ones, stolen; guests are in the first two.
        let ticks: Vec<u64> =
            line.split_whitespace().skip(1).take(8).map(str::parse).collect::<Result<_, _>>()?;
        Ok(Self { idle: ticks.iter().skip(3).take(2).sum(), all: ticks.iter().sum() })
    }

    /// As a share of the time.
    fn idle_since(self, earlier: Self) -> f64 {
        self.idle.saturating_sub(earlier.idle) as f64 / self.all.saturating_sub(earlier.all).max(1) as f64
    }
}

/// What a client says at its end, if it could connect; meanwhile the bridge goes on switching.
fn renewing(contestant: &mut Contestant, seconds: u64, mut client: Command) -> Result<Option<Value>> {
    ensure!(seconds <= 60, "{seconds} s are too long");
    let (said, renewed) = std::thread::scope(|scope| {
        let said = scope.spawn(|| output(&mut client));
        let mut renewed = Ok(());
        while !said.is_finished() {
            renewed = renewed.and(contestant.renew());
            sleep(Duration::from_millis(50));
        }
        (said.join(), renewed)
    });
    renewed?;
    let said = said.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    let answer: Value = serde_json::from_slice(&said.stdout).unwrap_or_default();
    Ok((answer.get("error").is_none() && said.status.success()).then_some(answer))
}
