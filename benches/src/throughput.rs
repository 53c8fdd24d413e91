//! Suite `throughput`: frames forwarded in a second, by trunkline and by what one would use instead.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use trunkline_tests::{Netns, Vlan};

use crate::contestant::{Contestant, Ports};
use crate::frame::{RECEIVER, frame, retagged};
use crate::path::{Entry, Flow, Path, devices};
use crate::rounds::{median, order};

/// How long and how often to measure.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// How often each contestant is measured.
    pub rounds: usize,
    /// For how long each time.
    pub slot: Duration,
    /// How frames get to the contestants.
    pub entry: Entry,
    /// The CPU that sends, and that does all of the forwarding inside the kernel.
    pub cpu: usize,
}

const VID: u16 = 10;
const BARE: &str = "redirect";
const TRUNKLINE: &str = "trunkline";
const BRIDGE: &str = "bridge";
const OVS: &str = "ovs";

struct Scenario {
    name: &'static str,
    ports: Ports,
    /// The tag that frames come with, and leave with.
    tags: [Option<u16>; 2],
}

fn scenarios() -> [Scenario; 3] {
    let scenario = |name, ingress, egress, tags| {
        let ports = Ports { ingress, egress, vid: VID };
        Scenario { name, ports, tags }
    };
    let (access, trunk) = (Vlan::Access(VID), Vlan::Trunk(vec![]));
    [
        scenario("access-trunk", access.clone(), trunk.clone(), [None, Some(VID)]),
        scenario("trunk-access", trunk, access.clone(), [Some(VID), None]),
        scenario("access-access", access.clone(), access, [None, None]),
    ]
}

/// A contestant on its way, and what it has achieved.
struct Entrant {
    name: &'static str,
    path: Path,
    contestant: Contestant,
    /// What a frame looks like that it has forwarded.
    forwarded: Vec<u8>,
    flows: Vec<Flow>,
}

/// Measures all scenarios, prints a table, and returns the raw figures.
///
/// # Errors
/// Something could not be set up, or frames were not forwarded as they should be.
pub fn run(effort: &Effort, only: Option<&str>) -> Result<Value> {
    let mut results = vec![];
    let wanted = |scenario: &Scenario| only.is_none_or(|only| only == scenario.name);
    for scenario in scenarios().iter().filter(|scenario| wanted(scenario)) {
        let mut entrants = entrants(scenario, effort)?;
        measure(scenario, effort, &mut entrants).with_context(|| scenario.name)?;
        let Effort { rounds, slot, entry, .. } = effort;
        println!("{}: 64-byte known unicast, entry {entry:?}, {rounds} rounds of {slot:?}", scenario.name);
        println!("{}\n", table(&entrants));
        results.extend(entrants.iter().map(|entrant| {
            let Entrant { name, flows, .. } = entrant;
            json!({
                "scenario": scenario.name,
                "entry": format!("{:?}", effort.entry),
                "contestant": name,
                "mpps": median(flows.iter().map(Flow::mpps)),
                "of_redirect": ratio(&entrants, name, BARE),
                "of_bridge": ratio(&entrants, name, BRIDGE),
                "rounds": flows,
            })
        }));
    }
    Ok(results.into())
}

fn entrants(scenario: &Scenario, effort: &Effort) -> Result<Vec<Entrant>> {
    let sent = frame(RECEIVER, scenario.tags[0]);
    let switched = retagged(&sent, scenario.tags[1]);
    // The bridge leaves a tag alone, and hands it over beside the frame as hardware would.
    let bridged = retagged(&sent, None);
    let ports = &scenario.ports;
    let Effort { entry, cpu, .. } = *effort;
    type Make<'m> = &'m dyn Fn(&Netns) -> Result<Contestant>;
    let makers: [(_, Make<'_>, _); 4] = [
        (BARE, &Contestant::redirect, &sent),
        (TRUNKLINE, &|netns| Contestant::trunkline(netns, ports), &switched),
        (BRIDGE, &|netns| Contestant::bridge(netns, entry), &bridged),
        (OVS, &|netns| Contestant::ovs(netns, ports, entry), &switched),
    ];
    let make = |(name, make, forwarded): (_, Make<'_>, &Vec<u8>)| {
        let netns = devices();
        let mut contestant = make(&netns).with_context(|| format!("setting up {name}"))?;
        let path = Path::new(netns, entry, contestant.program()?, sent.clone(), cpu)?;
        Ok(Entrant { name, path, contestant, forwarded: forwarded.clone(), flows: vec![] })
    };
    makers.into_iter().map(make).collect()
}

fn measure(scenario: &Scenario, effort: &Effort, entrants: &mut [Entrant]) -> Result<()> {
    for entrant in &mut *entrants {
        entrant.contestant.maintain(&scenario.ports)?;
        entrant.path.run(effort.slot / 4)?;
        entrant.look()?;
    }
    for round in 0..effort.rounds {
        for place in order(round, entrants.len()) {
            let Entrant { path, contestant, flows, .. } = &mut entrants[place];
            contestant.maintain(&scenario.ports)?;
            flows.push(path.run(effort.slot)?);
        }
    }
    for entrant in entrants {
        entrant.contestant.maintain(&scenario.ports)?;
        entrant.look()?;
        let arrived = entrant.flows.iter().map(|flow| flow.arrived).sum();
        entrant.contestant.account(arrived).with_context(|| entrant.name)?;
    }
    Ok(())
}

impl Entrant {
    /// Looks at some frames one by one.
    fn look(&mut self) -> Result<()> {
        // What is still queued from before would be counted.
        std::thread::sleep(Duration::from_millis(300));
        self.path.verify(&self.forwarded).with_context(|| format!("what {} forwards", self.name))
    }
}

/// The median of the ratios within each round, in which the machine was the same for both.
fn ratio(entrants: &[Entrant], name: &str, to: &str) -> f64 {
    let flows =
        |name: &str| entrants.iter().find(|entrant| entrant.name == name).map_or(&[][..], |e| &e.flows);
    median(flows(name).iter().zip(flows(to)).map(|(flow, to)| flow.mpps() / to.mpps()))
}

fn table(entrants: &[Entrant]) -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["contestant", "Mpps", "least", "most", "arrived", "of redirect", "of bridge"]);
    for Entrant { name, flows, .. } in entrants {
        let mpps = || flows.iter().map(Flow::mpps);
        table.add_row([
            (*name).to_owned(),
            format!("{:.3}", median(mpps())),
            format!("{:.3}", mpps().fold(f64::INFINITY, f64::min)),
            format!("{:.3}", mpps().fold(0.0, f64::max)),
            format!(
                "{:.1} %",
                100.0 * median(flows.iter().map(|flow| flow.arrived as f64 / flow.sent as f64))
            ),
            format!("{:.2}", ratio(entrants, name, BARE)),
            format!("{:.2}", ratio(entrants, name, BRIDGE)),
        ]);
    }
    table
}
