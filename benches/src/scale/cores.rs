//! One processor and two, on the same ports and tables.

use anyhow::Result;
use serde_json::{Value, json};

use super::{Entrant, access_trunk, measure, print};
use crate::contestant::{Contestant, Installation};
use crate::frame::{RECEIVER, frame};
use crate::path::{Path, Traffic, devices};
use crate::throughput::Effort;

pub(super) fn run(effort: &Effort) -> Result<Value> {
    let available = std::thread::available_parallelism()?.get();
    if available < 2 {
        println!("cores: skipped, there is only one\n");
        return Ok(Value::Null);
    }
    let mut entrants = vec![];
    for cpus in [vec![0], vec![0, 1]] {
        for redirect in [true, false] {
            let netns = devices();
            let (what, mut contestant) = if redirect {
                ("redirect", Contestant::redirect(&netns)?)
            } else {
                ("trunkline", Contestant::trunkline(&netns, &access_trunk(), Installation::default())?)
            };
            let frame = frame(RECEIVER, None);
            let traffic = Traffic { entry: effort.entry, frame, headers: &[], cpus: &cpus };
            let path = Path::new(netns, contestant.program()?, &traffic)?;
            entrants.push(Entrant::new(format!("{what}, {}", cpus.len()), contestant, path));
        }
    }
    measure(effort, &mut entrants)?;
    let (one, of_one) = entrants.split_at(2);
    let scaled = |entrant: &Entrant| {
        let place = entrants.iter().position(|e| e.name == entrant.name).unwrap_or_default();
        entrant.of(&one[place % 2])
    };
    let bare = |entrant: &Entrant| {
        let place = entrants.iter().position(|e| e.name == entrant.name).unwrap_or_default();
        entrant.of(if place < 2 { &one[0] } else { &of_one[0] })
    };
    print("processors that send", &entrants, |entrant| {
        vec![("of one", scaled(entrant)), ("of redirect", bare(entrant))]
    });
    let figures = entrants.iter().map(|entrant| {
        json!({
            "contestant": entrant.name,
            "mpps": entrant.mpps(),
            "of_one": scaled(entrant),
            "of_redirect": bare(entrant),
            "rounds": entrant.flows,
        })
    });
    Ok(figures.collect::<Vec<_>>().into())
}
