//! Suite `tcp`: iperf3 between two hosts in namespaces, with the offloads of their veths off and on.
//!
//! With offloads, a host leaves checksums and segmenting to the device. Such frames are Open vSwitch's, whatever XDP program
//! is on the port; the rows show what that costs. Open vSwitch's userspace datapath carries no unfinished checksums between
//! veths, so with it these rows are left out.

use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use trunkline_core::Mac;
use trunkline_tests::{Host, Netns, Ovs, Vlan, output};

use crate::contestant::{Contestant, Ports, TIMES};
use crate::frame::{RECEIVER, SENDER};
use crate::path::Entry;
use crate::rounds::{median, order};

const ADDRESSES: [&str; 2] = ["10.9.0.1", "10.9.0.2"];

struct Entrant {
    name: &'static str,
    offloads: bool,
    contestant: Contestant,
    hosts: [Host; 2],
    _switch: Netns,
    gbps: Vec<f64>,
}

/// Measures for so many seconds in each round, prints a table, and returns the raw figures.
///
/// # Errors
/// Something could not be set up, or iperf3 fails.
pub fn run(rounds: usize, seconds: u64) -> Result<Value> {
    let access = Vlan::Access(10);
    let ports = Ports { ingress: access.clone(), egress: access, vid: 10 };
    type Make<'m> = &'m dyn Fn(&Netns) -> Result<Contestant>;
    let bridge: Make<'_> = &|netns| Contestant::bridge(netns, Entry::Veth);
    let ovs: Make<'_> = &|netns| Contestant::ovs(netns, &ports, Entry::Veth);
    let trunkline: Make<'_> = &|netns| Contestant::trunkline(netns, &ports);
    let above_ovs: Make<'_> = &|netns| Contestant::both(netns, &ports, TIMES, vec![]);
    let redirect: Make<'_> = &Contestant::redirect;
    let makers = [
        ("redirect", false, redirect),
        ("trunkline", false, trunkline),
        ("bridge", false, bridge),
        ("ovs", false, ovs),
        ("trunkline above ovs", true, above_ovs),
        ("bridge", true, bridge),
        ("ovs", true, ovs),
    ];
    // A connection needs finished checksums, or somebody who finishes them.
    let finishes = |name: &str| name == "bridge" || Ovs::datapath_type() == "system";
    let makers = makers.into_iter().filter(|(name, offloads, _)| !offloads || finishes(name));
    let make =
        |(name, offloads, make): (_, _, Make<'_>)| Entrant::new(name, offloads, make).with_context(|| name);
    let mut entrants = makers.map(make).collect::<Result<Vec<_>>>()?;
    for round in 0..rounds {
        for place in order(round, entrants.len()) {
            let Entrant { name, .. } = entrants[place];
            entrants[place].measure(seconds).with_context(|| name)?;
        }
    }
    println!("tcp: gigabits in a second, medians of {rounds} rounds of {seconds} s");
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["", "hosts' offloads", "Gbit/s"]);
    let mut results = vec![];
    for Entrant { name, offloads, gbps, .. } in &entrants {
        let offloads = if *offloads { "on" } else { "off" };
        let figure = median(gbps.iter().copied());
        table.add_row([(*name).to_owned(), offloads.to_owned(), format!("{figure:.2}")]);
        results.push(json!({ "contestant": name, "offloads": offloads, "gbps": figure, "rounds": gbps }));
    }
    println!("{table}\n");
    Ok(results.into())
}

impl Entrant {
    fn new(name: &'static str, offloads: bool, make: &dyn Fn(&Netns) -> Result<Contestant>) -> Result<Self> {
        let switch = Netns::new();
        let host = |port: &str, own: usize, mac: [u8; 6], other: [u8; 6]| {
            let host = Host::connect(&switch, port, &format!("{}/24", ADDRESSES[own]));
            if !offloads {
                host.offload("tx off");
            }
            host.netns().run(&format!("ip link set eth0 address {}", Mac::new(mac)));
            let far = ADDRESSES[1 - own];
            host.netns().run(&format!("ip neighbour replace {far} lladdr {} dev eth0", Mac::new(other)));
            host
        };
        let hosts = [host("in", 0, SENDER, RECEIVER), host("out", 1, RECEIVER, SENDER)];
        let contestant = make(&switch)?;
        Ok(Self { name, offloads, contestant, hosts, _switch: switch, gbps: vec![] })
    }

    fn measure(&mut self, seconds: u64) -> Result<()> {
        let Self { contestant, hosts, gbps, .. } = self;
        contestant.maintain()?;
        let mut server = hosts[1].netns().command("iperf3");
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
            let mut client = hosts[0].netns().command("iperf3");
            client.args(["--client", ADDRESSES[1], "--json", "--time", &seconds.to_string()]);
            let answer = renewing(contestant, seconds, client)?;
            if answer.is_some() {
                said = answer;
                break;
            }
        }
        let _ = server.kill();
        let _ = server.wait();
        let said = said.context("iperf3 did not connect")?;
        let bits = said["end"]["sum_received"]["bits_per_second"].as_f64();
        gbps.push(bits.with_context(|| format!("iperf3 has no result: {said}"))? / 1e9);
        Ok(())
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
