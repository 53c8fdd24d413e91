//! New stations: how fast the program enters them. Each such frame then goes to Open vSwitch, which has its own limits;
//! what is measured here is the program alone, and its frames are dropped behind it.

use anyhow::{Context as _, Result, ensure};
use aya::programs::{TestRun as _, TestRunOptions};
use serde_json::{Value, json};
use trunkline::dataplane::{Dataplane as _, Hooks, InstalledPort, Kernel, Options};
use trunkline_core::PuntReason;

use super::{VID, access_trunk};
use crate::baseline::{Baseline, Start};
use crate::contestant::{INGRESS, TIMES, introduce, rules};
use crate::flows::sender;
use crate::frame::Header;
use crate::frame::{RECEIVER, frame, header};
use crate::rounds::median;
use crate::tables::{Headers, Next};

/// New stations in a round.
const NEW: u32 = 1 << 17;
const ROOM: u32 = 1 << 18;
const LOOPBACK: u32 = 1;

pub(super) fn run(rounds: usize) -> Result<Value> {
    let frame = frame(RECEIVER, None);
    let headers: Vec<Header> = (0..NEW).map(|number| header(RECEIVER, sender(number))).collect();
    let mut headers = Headers::new(&headers)?;
    let mut empty = Baseline::pass()?;
    let next = Next::new(empty.xdp()?)?;
    let mut walk = Baseline::restore(frame.len(), Start::Next(&headers), &next)?;
    let (mut new, mut over_empty) = (vec![], vec![]);
    for _ in 0..rounds {
        // A table of its own each time, as deleting leaves traces in the order of its free entries.
        let mut kernel = Kernel::load(Options { stations: ROOM, log: false })?;
        let rules = rules(&access_trunk().ingress)?;
        kernel.enter(
            INGRESS,
            &InstalledPort { ifindex: LOOPBACK, device: "lo".to_owned(), hooks: Hooks::Xdp, rules },
        )?;
        introduce(&mut kernel, VID, TIMES, &[])?;
        let next = Next::new(kernel.program()?)?;
        let mut learn = Baseline::restore(frame.len(), Start::Next(&headers), &next)?;
        headers.rewind()?;
        let empty = run_once(&mut walk, &frame)?;
        headers.rewind()?;
        let learning = run_once(&mut learn, &frame)?;
        let learned = kernel.counters(INGRESS)?.punted[PuntReason::NewSource.index()];
        ensure!(learned == u64::from(NEW), "{learned} of {NEW} stations were learned");
        new.push(learning);
        over_empty.push(learning - empty);
    }
    let ns = median(over_empty.iter().copied());
    println!("learning: {ns:.0} ns for each new station, {:.2} millions in a second\n", 1e3 / ns);
    Ok(json!({ "stations": NEW, "ns": ns, "rounds_ns": new, "over_empty_ns": over_empty }))
}

fn run_once(program: &mut Baseline, frame: &[u8]) -> Result<f64> {
    let options = TestRunOptions { data_in: Some(frame), repeat: NEW, ..TestRunOptions::new() };
    Ok(program.xdp()?.test_run(options).context("running a program")?.duration.as_nanos() as f64)
}
