//! Suite `program`: what the loaded program costs per frame, by what becomes of the frame.
//!
//! `BPF_PROG_TEST_RUN` repeats a program on one buffer, so a program in front restores the frame each time. What that
//! costs is in every figure alike, and is shown by the first row: the same with the empty program behind it.

use anyhow::{Context as _, Result, ensure};
use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use serde_json::{Value, json};
use trunkline::dataplane::{Hooks, InstalledPort, Kernel, Options};
use trunkline_core::PuntReason;
use trunkline_tests::Vlan;

use crate::baseline::{Baseline, Start};
use crate::contestant::{EGRESS, INGRESS, STATIONS, TIMES, introduce, pair, rules};
use crate::frame::{RECEIVER, frame};
use crate::rounds::{median, order};
use crate::tables::{Devices, Next};

const VID: u16 = 10;
/// The device on which a test run arrives, in every network namespace.
const LOOPBACK: u32 = 1;
const REPEAT: u32 = 1_000_000;
const XDP_PASS: u32 = 2;
const XDP_REDIRECT: u32 = 4;

/// A program behind the restoring one.
struct Case {
    name: &'static str,
    restore: Baseline,
    _next: Next,
    frame: Vec<u8>,
    action: u32,
    behind: Behind,
    ns: Vec<f64>,
}

enum Behind {
    Baseline { _program: Box<Baseline> },
    Trunkline { kernel: Box<Kernel>, punt: Option<PuntReason> },
}

/// Measures all cases, prints a table, and returns the raw figures.
///
/// # Errors
/// The kernel refuses, or a frame does not become what the case is about.
pub fn run(rounds: usize) -> Result<Value> {
    let mut cases = cases()?;
    for round in 0..rounds {
        for place in order(round, cases.len()) {
            cases[place].measure()?;
        }
    }
    for case in &cases {
        case.account()?;
    }
    let empty = median(cases[0].ns.iter().copied());
    println!("ns per frame, medians of {rounds} rounds of {REPEAT} runs");
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["program", "ns", "over empty"]);
    for case in &cases {
        let ns = median(case.ns.iter().copied());
        table.add_row([case.name.to_owned(), format!("{ns:.0}"), format!("{:.0}", ns - empty)]);
    }
    println!("{table}\n");
    let sizes = cases.iter_mut().find_map(Case::sizes).transpose()?.unwrap_or_default();
    println!("trunkline_xdp: {sizes}\n");
    let figures = cases.iter().map(|case| json!({ "program": case.name, "ns": case.ns }));
    Ok(json!({ "repeat": REPEAT, "trunkline_xdp": sizes, "cases": figures.collect::<Vec<_>>() }))
}

fn cases() -> Result<Vec<Case>> {
    let (access, trunk) = (Vlan::Access(VID), Vlan::Trunk(vec![]));
    let device = Devices::new(&[LOOPBACK])?;
    let unknown = [0x02, 0, 0, 0, 0, 0x77];
    Ok(vec![
        Case::baseline("empty", Baseline::pass()?, XDP_PASS)?,
        Case::baseline("redirect", Baseline::redirect(&device)?, XDP_REDIRECT)?,
        Case::trunkline("access-trunk, push", &access, &trunk, frame(RECEIVER, None), None)?,
        Case::trunkline("trunk-access, pop", &trunk, &access, frame(RECEIVER, Some(VID)), None)?,
        Case::trunkline("access-access, keep", &access, &access, frame(RECEIVER, None), None)?,
        Case::trunkline("trunk-trunk, keep", &trunk, &trunk, frame(RECEIVER, Some(VID)), None)?,
        Case::trunkline(
            "punt: unknown destination",
            &access,
            &trunk,
            frame(unknown, None),
            Some(PuntReason::UnknownDestination),
        )?,
        Case::trunkline(
            "punt: broadcast",
            &access,
            &trunk,
            frame([0xff; 6], None),
            Some(PuntReason::GroupDestination),
        )?,
    ])
}

impl Case {
    fn baseline(name: &'static str, mut program: Baseline, action: u32) -> Result<Self> {
        let frame = frame(RECEIVER, None);
        let next = Next::new(program.xdp()?)?;
        let restore = Baseline::restore(frame.len(), Start::Of(&frame), &next)?;
        let behind = Behind::Baseline { _program: Box::new(program) };
        Ok(Self { name, restore, _next: next, frame, action, behind, ns: vec![] })
    }

    fn trunkline(
        name: &'static str,
        ingress: &Vlan,
        egress: &Vlan,
        frame: Vec<u8>,
        punt: Option<PuntReason>,
    ) -> Result<Self> {
        let mut kernel = Box::new(Kernel::load(Options { stations: STATIONS, log: false })?);
        // Both ports on one device, and the one entered last is where frames arrive.
        for (port, vlan) in [(EGRESS, egress), (INGRESS, ingress)] {
            let port_on_loopback = InstalledPort {
                ifindex: LOOPBACK,
                device: "lo".to_owned(),
                hooks: Hooks::Xdp,
                rules: rules(vlan)?,
            };
            kernel.enter(port, &port_on_loopback)?;
        }
        let next = Next::new(kernel.program()?)?;
        let restore = Baseline::restore(frame.len(), Start::Of(&frame), &next)?;
        let action = if punt.is_some() { XDP_PASS } else { XDP_REDIRECT };
        Ok(Self {
            name,
            restore,
            _next: next,
            frame,
            action,
            behind: Behind::Trunkline { kernel, punt },
            ns: vec![],
        })
    }

    fn measure(&mut self) -> Result<()> {
        if let Behind::Trunkline { kernel, .. } = &mut self.behind {
            introduce(kernel, VID, TIMES, &pair())?;
        }
        let options = TestRunOptions { data_in: Some(&self.frame), repeat: REPEAT, ..TestRunOptions::new() };
        let result = self.restore.xdp()?.test_run(options).context("running a program")?;
        let Self { name, action, .. } = self;
        ensure!(result.return_value == *action, "{name}: action {} instead of {action}", result.return_value);
        self.ns.push(result.duration.as_nanos() as f64);
        Ok(())
    }

    /// Checks that every run came to the same end.
    fn account(&self) -> Result<()> {
        use trunkline::dataplane::Dataplane as _;
        let Behind::Trunkline { kernel, punt } = &self.behind else { return Ok(()) };
        let counters = kernel.counters(INGRESS)?;
        let counted = punt.map_or(counters.rx_frames, |reason| counters.punted[reason.index()]);
        let ran = u64::from(REPEAT) * self.ns.len() as u64;
        ensure!(counted == ran, "{}: {counted} of {ran} frames came to that end: {counters:?}", self.name);
        Ok(())
    }

    fn sizes(&mut self) -> Option<Result<Value>> {
        let Behind::Trunkline { kernel, .. } = &mut self.behind else { return None };
        Some(kernel.program().map_err(Into::into).and_then(|program| sizes(program)))
    }
}

fn sizes(program: &Xdp) -> Result<Value> {
    let info = program.info()?;
    Ok(json!({
        "instructions": info.size_translated().map(|octets| octets / 8),
        "machine_octets": info.size_jitted(),
        "verified_instructions": info.verified_instruction_count(),
    }))
}
