//! Suite `throughput`: frames forwarded in a second, by trunkline and by what one would use instead.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use trunkline::dataplane::{BridgeTimes, Hooks, has_tcx};
use trunkline_core::PuntReason;
use trunkline_tests::{Netns, Ovs, Vlan};

use crate::contestant::{Contestant, Fate, Installation, Ports};
use crate::frame::Header;
use crate::frame::{RECEIVER, SHORTEST, header, retagged, sized, station};
use crate::path::{Entry, Flow, Path, Traffic, devices};
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

/// What to measure of all there is.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Only this scenario.
    pub scenario: Option<String>,
    /// Frames of these sizes on the wire, in octets; none for the shortest, and for others in the first scenario.
    pub sizes: Vec<usize>,
}

const VID: u16 = 10;
const BARE: &str = "redirect";
const TRUNKLINE: &str = "trunkline";
/// The same with both ports at tc instead of XDP.
const TRUNKLINE_TC: &str = "trunkline-tc";
const BRIDGE: &str = "bridge";
const OVS: &str = "ovs";
/// Longer frames, which are measured in the first scenario.
const LONGER: [usize; 2] = [256, 1518];

/// In the mix: stations that send, all to one.
const MIXED: u32 = 8192;
/// How often each of them goes through Open vSwitch. The agent's 75 s are to these stations what 2 s are to 37 times as
/// many.
const MIXED_TIMES: BridgeTimes = BridgeTimes { refresh_s: 2, ageing_s: 300 };
/// Stations that are new before each measurement.
const NEW: u32 = 512;

/// What is sent, and what becomes of it.
struct Scenario {
    name: &'static str,
    ports: Ports,
    /// The tag that frames come with, and leave with.
    tags: [Option<u16>; 2],
    to: [u8; 6],
    fate: Fate,
}

fn scenarios() -> Vec<Scenario> {
    let scenario = |name, ingress: &Vlan, egress: &Vlan, tags| {
        let ports = Ports { ingress: ingress.clone(), egress: egress.clone(), vid: VID };
        Scenario { name, ports, tags, to: RECEIVER, fate: Fate::Forwarded }
    };
    let (access, trunk, native) =
        (&Vlan::Access(VID), &Vlan::Trunk(vec![]), &Vlan::NativeUntagged(VID, vec![]));
    let left_alone = |name, to, reason| Scenario {
        to,
        fate: Fate::Punted(reason),
        ..scenario(name, access, trunk, [None, Some(VID)])
    };
    vec![
        scenario("access-trunk", access, trunk, [None, Some(VID)]),
        scenario("trunk-access", trunk, access, [Some(VID), None]),
        scenario("access-access", access, access, [None, None]),
        scenario("trunk-trunk", trunk, trunk, [Some(VID), Some(VID)]),
        scenario("native-trunk", native, trunk, [None, Some(VID)]),
        Scenario { fate: Fate::Learned, ..scenario("mix", access, trunk, [None, Some(VID)]) },
        left_alone("unknown", [0x02, 0, 0, 0, 0, 0x77], PuntReason::UnknownDestination),
        left_alone("broadcast", [0xff; 6], PuntReason::GroupDestination),
    ]
}

impl Scenario {
    fn about(&self) -> &'static str {
        match self.fate {
            Fate::Forwarded => "known unicast",
            Fate::Punted(_) => "trunkline above Open vSwitch, which has all of them",
            Fate::Learned => "trunkline above Open vSwitch, which has new stations and each now and then",
        }
    }

    fn headers(&self) -> Vec<Header> {
        if self.fate != Fate::Learned {
            return vec![];
        }
        (0..MIXED).map(|number| header(RECEIVER, station(1, number))).collect()
    }
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
pub fn run(effort: &Effort, selection: &Selection) -> Result<Value> {
    let mut results = vec![];
    let wanted = |scenario: &Scenario| selection.scenario.as_ref().is_none_or(|only| only == scenario.name);
    for (place, scenario) in scenarios().iter().enumerate().filter(|(_, scenario)| wanted(scenario)) {
        let others = if place == 0 { &LONGER[..] } else { &[] };
        let usual = [&[SHORTEST], others].concat();
        for size in if selection.sizes.is_empty() { &usual } else { &selection.sizes } {
            results.extend(run_one(scenario, *size, effort)?);
        }
    }
    Ok(results.into())
}

fn run_one(scenario: &Scenario, size: usize, effort: &Effort) -> Result<Vec<Value>> {
    let mut entrants = entrants(scenario, size, effort)?;
    measure(scenario, effort, &mut entrants).with_context(|| scenario.name)?;
    let Effort { rounds, slot, entry, .. } = effort;
    let (name, about) = (scenario.name, scenario.about());
    println!("{name}: {size}-byte frames, {about}, entry {entry:?}, {rounds} rounds of {slot:?}");
    println!("{}\n", table(&entrants));
    let figures = entrants.iter().map(|entrant| {
        let Entrant { name, flows, .. } = entrant;
        json!({
            "scenario": scenario.name,
            "size": size,
            "entry": format!("{entry:?}").to_lowercase(),
            "contestant": name,
            "mpps": median(flows.iter().map(Flow::mpps)),
            "of_redirect": ratio(&entrants, name, BARE),
            "of_bridge": ratio(&entrants, name, BRIDGE),
            "of_ovs": ratio(&entrants, name, OVS),
            "rounds": flows,
        })
    });
    Ok(figures.collect())
}

fn entrants(scenario: &Scenario, size: usize, effort: &Effort) -> Result<Vec<Entrant>> {
    let sent = sized(scenario.to, scenario.tags[0], size);
    let switched = retagged(&sent, scenario.tags[1]);
    // The kernel hands a tag over beside the frame as hardware would, and the bridge leaves it alone.
    let bridged = retagged(&sent, None);
    let by_ovs = if Ovs::datapath_type() == "system" { &bridged } else { &switched };
    let headers = scenario.headers();
    let ports = &scenario.ports;
    let Effort { entry, cpu, .. } = *effort;
    let trunkline_at = |netns: &Netns, hooks| {
        let installation = Installation { hooks: [hooks; 2], entry, ..Installation::default() };
        match scenario.fate {
            Fate::Forwarded => Contestant::trunkline(netns, ports, installation),
            Fate::Punted(_) => Contestant::both(netns, ports, installation, vec![]),
            Fate::Learned => {
                let new = (0..NEW).map(|number| station(1, number)).collect();
                let installation = Installation { times: MIXED_TIMES, ..installation };
                Contestant::both(netns, ports, installation, new)
            }
        }
    };
    type Make<'m> = &'m dyn Fn(&Netns) -> Result<Contestant>;
    let makers: [(_, Make<'_>, _); 5] = [
        (BARE, &Contestant::redirect, &sent),
        (TRUNKLINE, &|netns| trunkline_at(netns, Hooks::Xdp), &switched),
        (TRUNKLINE_TC, &|netns| trunkline_at(netns, Hooks::Tc), &bridged),
        (BRIDGE, &|netns| Contestant::bridge(netns, entry), &bridged),
        (OVS, &|netns| Contestant::ovs(netns, ports, entry), by_ovs),
    ];
    // Open vSwitch's userspace datapath would have a copy of each frame.
    let tc = has_tcx() && (scenario.fate == Fate::Forwarded || Ovs::datapath_type() == "system");
    let makers = makers.into_iter().filter(|(name, ..)| tc || *name != TRUNKLINE_TC);
    let make = |(name, make, forwarded): (_, Make<'_>, &Vec<u8>)| {
        let netns = devices();
        let mut contestant = make(&netns).with_context(|| format!("setting up {name}"))?;
        let traffic = Traffic { entry, frame: sent.clone(), headers: &headers, cpus: &[cpu] };
        let path = Path::new(netns, contestant.program()?, &traffic)?;
        Ok(Entrant { name, path, contestant, forwarded: forwarded.clone(), flows: vec![] })
    };
    makers.map(make).collect()
}

fn measure(scenario: &Scenario, effort: &Effort, entrants: &mut [Entrant]) -> Result<()> {
    let looks = scenario.fate != Fate::Learned;
    let mut arrived = vec![0; entrants.len()];
    for (entrant, arrived) in entrants.iter_mut().zip(&mut arrived) {
        entrant.contestant.maintain()?;
        *arrived += entrant.path.run(effort.slot / 4)?.arrived_in_all;
        if looks {
            entrant.look()?;
        }
    }
    for round in 0..effort.rounds {
        for place in order(round, entrants.len()) {
            let Entrant { path, contestant, flows, .. } = &mut entrants[place];
            contestant.maintain()?;
            let flow = path.run(effort.slot)?;
            arrived[place] += flow.arrived_in_all;
            flows.push(flow);
        }
    }
    for (entrant, arrived) in entrants.iter_mut().zip(arrived) {
        if looks {
            entrant.contestant.maintain()?;
            entrant.look()?;
        }
        entrant.contestant.account(scenario.fate, arrived).with_context(|| entrant.name)?;
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
    table.set_header([
        "contestant",
        "Mpps",
        "least",
        "most",
        "arrived",
        "of redirect",
        "of bridge",
        "of ovs",
    ]);
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
            format!("{:.1}", ratio(entrants, name, OVS)),
        ]);
    }
    table
}
