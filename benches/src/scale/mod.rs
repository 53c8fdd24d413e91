//! Suite `scale`: what becomes of the speed with more stations, flows, ports and processors.

mod cores;
mod learning;
mod memory;
mod ports;
mod stations;
mod upkeep;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use trunkline_tests::Vlan;

use crate::contestant::{Contestant, Ports};
use crate::path::{Flow, Path};
use crate::rounds::{median, order};
use crate::throughput::Effort;

/// How far to go.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// Most stations.
    pub stations: u32,
    /// Most ports.
    pub ports: usize,
}

const VID: u16 = 10;

/// Measures all, prints tables, and returns the raw figures.
///
/// # Errors
/// Something could not be set up, or frames were not forwarded.
pub fn run(effort: &Effort, extent: Extent) -> Result<Value> {
    let counts: Vec<u32> =
        [16, 1024, 65_536, 1_000_000].into_iter().filter(|n| *n <= extent.stations).collect();
    let numbers: Vec<usize> = [2, 100, 1000].into_iter().filter(|n| *n <= extent.ports).collect();
    Ok(json!({
        "stations": stations::run(effort, &counts).context("many stations")?,
        "ports": ports::run(effort, &numbers).context("many ports")?,
        "cores": cores::run(effort).context("many processors")?,
        "learning": learning::run(effort.rounds).context("learning")?,
        "memory": memory::run(),
        "upkeep": upkeep::run(&counts).context("upkeep of the stations")?,
    }))
}

/// Access to trunk.
fn access_trunk() -> Ports {
    Ports { ingress: Vlan::Access(VID), egress: Vlan::Trunk(vec![]), vid: VID }
}

/// A contestant under some condition, and what it has achieved.
struct Entrant {
    name: String,
    contestant: Contestant,
    path: Path,
    flows: Vec<Flow>,
}

impl Entrant {
    fn new(name: impl Into<String>, contestant: Contestant, path: Path) -> Self {
        Self { name: name.into(), contestant, path, flows: vec![] }
    }

    fn mpps(&self) -> f64 {
        median(self.flows.iter().map(Flow::mpps))
    }

    /// The median of the ratios within each round.
    fn of(&self, other: &Self) -> f64 {
        median(self.flows.iter().zip(&other.flows).map(|(flow, other)| flow.mpps() / other.mpps()))
    }
}

/// Sends through all in turn.
fn measure(effort: &Effort, entrants: &mut [Entrant]) -> Result<()> {
    for round in 0..effort.rounds {
        for place in order(round, entrants.len()) {
            let Entrant { contestant, path, flows, name } = &mut entrants[place];
            contestant.renew()?;
            flows.push(path.run(effort.slot).with_context(|| name.clone())?);
        }
    }
    for Entrant { name, contestant, .. } in entrants {
        let [_, otherwise] = contestant.counted()?;
        anyhow::ensure!(otherwise == 0, "{name}: {otherwise} frames were not forwarded");
    }
    Ok(())
}

/// A table of entrants, each compared with one of them.
fn print(title: &str, entrants: &[Entrant], to: impl Fn(&Entrant) -> Vec<(&'static str, f64)>) {
    println!("{title}");
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    let columns = entrants.first().map(&to).unwrap_or_default();
    let head = ["", "Mpps"].into_iter().chain(columns.iter().map(|(name, _)| *name));
    table.set_header(head);
    for entrant in entrants {
        let figures = to(entrant).into_iter().map(|(_, figure)| format!("{figure:.2}"));
        table.add_row([entrant.name.clone(), format!("{:.3}", entrant.mpps())].into_iter().chain(figures));
    }
    println!("{table}\n");
}
