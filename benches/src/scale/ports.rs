//! Many ports: traffic between two of them, and from one to all of them.
//!
//! Frames that leave by many devices are sent in smaller batches to each, which costs everybody; so a bare redirect that
//! spreads its frames alike is measured beside.

use anyhow::{Context as _, Result};
use aya::programs::XdpMode;
use serde_json::{Value, json};
use trunkline::dataplane::{BridgeTimes, Hooks, PortNo};
use trunkline_tests::{Netns, Vlan};

use super::{Entrant, access_trunk, measure, print};
use crate::baseline::Baseline;
use crate::contestant::{Contestant, EGRESS, INGRESS, Installation, install};
use crate::frame::Header;
use crate::frame::{RECEIVER, SENDER, frame, header, station};
use crate::path::{Path, Traffic, add_outlets, devices, ifindex};
use crate::tables::Devices;
use crate::throughput::Effort;

const TIMES: BridgeTimes = BridgeTimes { refresh_s: 1 << 20, ageing_s: 1 << 21 };

pub(super) fn run(effort: &Effort, numbers: &[usize]) -> Result<Value> {
    let mut entrants = vec![];
    for number in numbers {
        entrants.push(trunkline(effort, *number, false).with_context(|| format!("{number} ports"))?);
    }
    measure(effort, &mut entrants)?;
    print("ports, traffic between two of them", &entrants, |entrant| {
        vec![("of 2", entrant.of(&entrants[0]))]
    });
    let pair = entrants.iter().map(|entrant| {
        json!({
            "traffic": "pair",
            "contestant": entrant.name,
            "mpps": entrant.mpps(),
            "of_fewest": entrant.of(&entrants[0]),
            "rounds": entrant.flows,
        })
    });
    let mut results: Vec<Value> = pair.collect();
    drop(entrants);

    for number in numbers.iter().filter(|number| **number > 2) {
        let mut entrants = [bare_spread(effort, *number)?, trunkline(effort, *number, true)?];
        measure(effort, &mut entrants)?;
        let [bare, _] = &entrants;
        let title = format!("{number} ports, traffic from one to each of the others in turn");
        print(&title, &entrants, |entrant| vec![("of redirect", entrant.of(bare))]);
        results.extend(entrants.iter().map(|entrant| {
            json!({
                "traffic": "spread",
                "ports": number,
                "contestant": entrant.name,
                "mpps": entrant.mpps(),
                "of_redirect": entrant.of(bare),
                "rounds": entrant.flows,
            })
        }));
    }
    Ok(results.into())
}

/// The name of the n-th device to send to.
fn outlet(n: usize) -> String {
    if n == 0 { "out".to_owned() } else { format!("out{n}") }
}

/// A station behind each of so many outlets, numbered alike.
fn behind(n: usize) -> [u8; 6] {
    station(2, n as u32)
}

fn headers(outlets: usize) -> Vec<Header> {
    (0..outlets.next_power_of_two()).map(|n| header(behind(n % outlets), SENDER)).collect()
}

fn trunkline(effort: &Effort, ports: usize, spread: bool) -> Result<Entrant> {
    let (netns, outlets) = network(ports);
    let mut stations = vec![(SENDER, INGRESS), (RECEIVER, EGRESS)];
    stations.extend((0..outlets).map(|n| (behind(n), PortNo(EGRESS.0 + n as u16))));
    let installation = Installation { times: TIMES, stations, ..Installation::default() };
    let mut contestant = Contestant::trunkline(&netns, &access_trunk(), installation)?;
    if let Contestant::Trunkline { kernel, .. } = &mut contestant {
        netns.enter(|| {
            (1..outlets).try_for_each(|n| {
                install(kernel, PortNo(EGRESS.0 + n as u16), &outlet(n), &Vlan::Trunk(vec![]), Hooks::Xdp)
            })
        })?;
    }
    let name = if spread { "trunkline".to_owned() } else { ports.to_string() };
    entrant(effort, name, netns, contestant, if spread { headers(outlets) } else { vec![] })
}

fn bare_spread(effort: &Effort, ports: usize) -> Result<Entrant> {
    let (netns, outlets) = network(ports);
    let contestant = netns.enter(|| -> Result<Contestant> {
        let ifindices = (0..outlets).map(|n| ifindex(&outlet(n))).collect::<Result<Vec<_>>>()?;
        let devices = Devices::new(&ifindices)?;
        let mut program = Box::new(Baseline::spread(&devices)?);
        program.xdp()?.attach("in", XdpMode::Driver).context("attaching the bare redirect")?;
        let back = Devices::new(&[ifindex("in")?])?;
        let programs = [program, Box::new(Baseline::redirect(&back)?)];
        Ok(Contestant::Redirect { programs, _devices: [devices, back] })
    })?;
    entrant(effort, "redirect".to_owned(), netns, contestant, headers(outlets))
}

/// Devices for so many ports, and how many can be sent to.
fn network(ports: usize) -> (Netns, usize) {
    let netns = devices();
    let outlets = ports - 1;
    if outlets > 1 {
        add_outlets(&netns, outlets);
    }
    (netns, outlets)
}

fn entrant(
    effort: &Effort,
    name: String,
    netns: Netns,
    mut contestant: Contestant,
    headers: Vec<Header>,
) -> Result<Entrant> {
    let frame = frame(RECEIVER, None);
    let traffic = Traffic { entry: effort.entry, frame, headers: &headers, cpus: &[effort.cpu] };
    let path = Path::new(netns, contestant.program()?, &traffic)?;
    Ok(Entrant::new(name, contestant, path))
}
