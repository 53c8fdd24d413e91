//! Many stations: how fast, when neither the flow cache nor the processor's caches hold them all.
//!
//! All get their frames from a source that walks through the same number of headers, the bare redirect too. Beside the
//! live frames, the program is run alone (`BPF_PROG_TEST_RUN`) on the same frames; there, the empty program shows what
//! the walk costs.

use std::time::Duration;

use anyhow::{Context as _, Result};
use aya::programs::{TestRun as _, TestRunOptions};
use serde_json::{Value, json};
use trunkline::dataplane::BridgeTimes;

use super::{Entrant, access_trunk, measure, print};
use crate::baseline::{Baseline, Start};
use crate::contestant::{Contestant, EGRESS, INGRESS, Installation, STATIONS};
use crate::flows::{Distribution, FLOWS, headers, receiver, sender};
use crate::frame::{RECEIVER, frame};
use crate::path::{Path, Traffic, devices, ifindex};
use crate::rounds::{median, order};
use crate::tables::{Headers, Next};
use crate::throughput::Effort;

/// Nobody is due while being measured.
const TIMES: BridgeTimes = BridgeTimes { refresh_s: 1 << 20, ageing_s: 1 << 21 };
const REPEAT: u32 = 1 << 20;
/// At least so long each time: with the second, what is remembered of flows ends, and is found anew.
const SHORTEST_SLOT: Duration = Duration::from_secs(1);

pub(super) fn run(effort: &Effort, counts: &[u32]) -> Result<Value> {
    let effort = &Effort { slot: effort.slot.max(SHORTEST_SLOT), ..*effort };
    let mut results = vec![];
    for distribution in [Distribution::Uniform, Distribution::Zipf] {
        let mut entrants = vec![bare(effort, distribution)?];
        for count in counts {
            entrants.push(trunkline(effort, *count, distribution)?);
        }
        measure(effort, &mut entrants)?;
        let ns = program_alone(effort.rounds, &mut entrants)?;
        let (redirect, fewest) = (&entrants[0], &entrants[1]);
        let title = format!("stations, {distribution:?} traffic over {FLOWS} flows (fewer between 16)");
        let alone = |entrant: &Entrant| {
            let place = entrants.iter().position(|e| e.name == entrant.name).unwrap_or_default();
            median(ns[place].iter().copied())
        };
        let empty = alone(redirect);
        print(&title, &entrants, |entrant| {
            vec![
                ("of redirect", entrant.of(redirect)),
                ("of fewest", entrant.of(fewest)),
                ("program alone, ns", alone(entrant) - empty),
            ]
        });
        for (entrant, ns) in entrants.iter().zip(&ns) {
            results.push(json!({
                "distribution": format!("{distribution:?}").to_lowercase(),
                "contestant": entrant.name,
                "mpps": entrant.mpps(),
                "of_redirect": entrant.of(redirect),
                "of_fewest": entrant.of(fewest),
                "program_ns": alone(entrant) - empty,
                "rounds": entrant.flows,
                "program_rounds_ns": ns,
            }));
        }
    }
    Ok(results.into())
}

fn bare(effort: &Effort, distribution: Distribution) -> Result<Entrant> {
    let netns = devices();
    let mut contestant = Contestant::redirect(&netns)?;
    let headers = headers(16, distribution);
    let path = Path::new(netns, contestant.program()?, &traffic(effort, &headers))?;
    Ok(Entrant::new("redirect", contestant, path))
}

fn trunkline(effort: &Effort, count: u32, distribution: Distribution) -> Result<Entrant> {
    let netns = devices();
    let senders = (0..count / 2).map(|number| (sender(number), INGRESS));
    let receivers = (0..count / 2).map(|number| (receiver(number), EGRESS));
    let stations = senders.chain(receivers).collect();
    let room = count.max(STATIONS).next_power_of_two();
    let installation = Installation { times: TIMES, stations, room, ..Installation::default() };
    let mut contestant = Contestant::trunkline(&netns, &access_trunk(), installation)?;
    let headers = headers(count, distribution);
    let path = Path::new(netns, contestant.program()?, &traffic(effort, &headers))?;
    Ok(Entrant::new(count.to_string(), contestant, path))
}

fn traffic<'h>(effort: &'h Effort, headers: &'h [crate::frame::Header]) -> Traffic<'h> {
    let cpus = std::slice::from_ref(&effort.cpu);
    Traffic { entry: effort.entry, frame: frame(RECEIVER, None), headers, cpus }
}

/// ns per frame of each entrant's program, walk included; of the first, only the walk.
fn program_alone(rounds: usize, entrants: &mut [Entrant]) -> Result<Vec<Vec<f64>>> {
    let frame = frame(RECEIVER, None);
    let mut empty = Baseline::pass()?;
    let mut alone = vec![];
    for Entrant { name, contestant, path, .. } in &mut *entrants {
        let program = if name == "redirect" { empty.xdp()? } else { contestant.program()? };
        let next = Next::new(program)?;
        let walk = Headers::new(&path.headers()?)?;
        let ifindex = path.netns().enter(|| ifindex("in"))?;
        alone.push((Baseline::restore(frame.len(), Start::Next(&walk), &next)?, next, walk, ifindex));
    }
    let mut ns = vec![vec![]; alone.len()];
    for round in 0..rounds {
        for place in order(round, alone.len()) {
            let (program, _, _, ifindex) = &mut alone[place];
            entrants[place].contestant.renew()?;
            let context = [0, frame.len() as u32, 0, *ifindex, 0, 0].map(u32::to_ne_bytes).concat();
            let options = TestRunOptions {
                data_in: Some(&frame),
                ctx_in: Some(&context),
                repeat: REPEAT,
                ..TestRunOptions::new()
            };
            let run = || program.xdp()?.test_run(options).context("running a program");
            ns[place].push(entrants[place].path.netns().enter(run)?.duration.as_nanos() as f64);
        }
    }
    Ok(ns)
}
