//! Suite `latency`: how long a frame takes there and back, one at a time, between packet sockets on veths.
//!
//! Most of it is the sockets' and the scheduler's, alike for all: the bare redirect shows how much.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};
use trunkline_tests::{Netns, Vlan, Wire};

use crate::contestant::{Contestant, Installation, Ports};
use crate::frame::{RECEIVER, SENDER, frame};
use crate::path::{Entry, devices};
use crate::rounds::{median, order, quantile};

/// Where the payload of UDP begins in a frame without a tag.
const PAYLOAD: usize = 42;
const PATIENCE: Duration = Duration::from_millis(200);

struct Entrant {
    name: &'static str,
    netns: Netns,
    contestant: Contestant,
    /// Microseconds, by round.
    rounds: Vec<Vec<f64>>,
    lost: usize,
}

/// Measures so many exchanges in each round, prints a table, and returns the raw figures.
///
/// # Errors
/// Something could not be set up.
pub fn run(rounds: usize, exchanges: usize) -> Result<Value> {
    let access = Vlan::Access(10);
    let ports = Ports { ingress: access.clone(), egress: access, vid: 10 };
    type Make<'m> = &'m dyn Fn(&Netns) -> Result<Contestant>;
    let makers: [(_, Make<'_>); 4] = [
        ("redirect", &Contestant::redirect),
        ("trunkline", &|netns| Contestant::trunkline(netns, &ports, Installation::default())),
        ("bridge", &|netns| Contestant::bridge(netns, Entry::Veth)),
        ("ovs", &|netns| Contestant::ovs(netns, &ports, Entry::Veth)),
    ];
    let make = |(name, make): (_, Make<'_>)| {
        let netns = devices();
        let contestant = make(&netns).with_context(|| format!("setting up {name}"))?;
        Ok(Entrant { name, netns, contestant, rounds: vec![], lost: 0 })
    };
    let mut entrants = makers.into_iter().map(make).collect::<Result<Vec<_>>>()?;
    for round in 0..rounds {
        for place in order(round, entrants.len()) {
            entrants[place].measure(exchanges)?;
        }
    }
    println!("latency: there and back, microseconds, medians of {rounds} rounds of {exchanges} exchanges");
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["", "p50", "p90", "p99", "p99.9"]);
    let mut results = vec![];
    for Entrant { name, rounds, lost, .. } in &entrants {
        let [p50, p90, p99, p999] = [0.5, 0.9, 0.99, 0.999]
            .map(|share| median(rounds.iter().map(|figures| quantile(figures, share))));
        table.add_row(
            std::iter::once((*name).to_owned()).chain([p50, p90, p99, p999].map(|us| format!("{us:.1}"))),
        );
        results.push(json!({
            "contestant": name, "p50_us": p50, "p90_us": p90, "p99_us": p99, "p99_9_us": p999, "lost": lost,
            "rounds_us": rounds,
        }));
    }
    println!("{table}\n");
    Ok(results.into())
}

impl Entrant {
    fn measure(&mut self, exchanges: usize) -> Result<()> {
        let Self { netns, contestant, rounds, lost, .. } = self;
        contestant.maintain()?;
        let (near, far) = (netns.packet_socket("sender"), netns.packet_socket("receiver"));
        let done = AtomicBool::new(false);
        let figures = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    echo(&far);
                }
            });
            let figures = (0..exchanges + WARM_UP).map(|number| exchange(&near, number as u32)).collect();
            done.store(true, Ordering::Relaxed);
            figures
        });
        let figures: Vec<Option<f64>> = figures;
        let measured = &figures[WARM_UP..];
        *lost += measured.iter().filter(|figure| figure.is_none()).count();
        rounds.push(measured.iter().copied().flatten().collect());
        Ok(())
    }
}

/// Exchanges before those that are measured.
const WARM_UP: usize = 50;

/// Microseconds until an answer came, if one did.
fn exchange(near: &Wire, number: u32) -> Option<f64> {
    let mut sent = frame(RECEIVER, None);
    sent[PAYLOAD..PAYLOAD + 4].copy_from_slice(&number.to_be_bytes());
    // The checksum stays as it was: on the way it is only looked at whether it is finished.
    let start = Instant::now();
    near.send(&sent);
    while start.elapsed() < PATIENCE {
        match near.receive() {
            Some(answer)
                if answer.get(..6) == Some(&SENDER) && answer.get(PAYLOAD..) == sent.get(PAYLOAD..) =>
            {
                return Some(start.elapsed().as_secs_f64() * 1e6);
            }
            Some(_) => {}
            None => wait(near),
        }
    }
    None
}

fn echo(far: &Wire) {
    match far.receive() {
        Some(mut frame) if frame.get(..6) == Some(&RECEIVER) => {
            let (to, from) = frame[..12].split_at_mut(6);
            to.swap_with_slice(from);
            far.send(&frame);
        }
        Some(_) => {}
        None => wait(far),
    }
}

fn wait(wire: &Wire) {
    let patience = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
    // A signal or a time-out is as good as something to read: the caller looks.
    let _ = poll(&mut [PollFd::new(wire, PollFlags::IN)], Some(&patience));
}
