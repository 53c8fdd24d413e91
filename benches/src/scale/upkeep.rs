//! What the agent does about stations now and then: reading the table, ageing, comparing with Open vSwitch's.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::Result;
use serde_json::{Value, json};
use trunkline::dataplane::{BridgeNo, Dataplane as _, Kernel, Options};
use trunkline::fdb::{Side, age, reconcile};
use trunkline::unixctl::{FdbAge, FdbRow, OfPort};

use super::VID;
use crate::contestant::{EGRESS, INGRESS, TIMES, introduce, now_s};
use crate::flows::sender;

pub(super) fn run(counts: &[u32]) -> Result<Value> {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["stations", "read, ms", "age, ms", "compare, ms", "forget all, ms"]);
    let mut results = vec![];
    for count in counts {
        let figures = measure(*count)?;
        table.add_row(std::iter::once(count.to_string()).chain(figures.map(|ms| format!("{ms:.1}"))));
        let [read, age, compare, forget] = figures;
        results.push(json!({
            "stations": count, "read_ms": read, "age_ms": age, "compare_ms": compare, "forget_ms": forget,
        }));
    }
    println!("upkeep, once\n{table}\n");
    Ok(results.into())
}

fn measure(count: u32) -> Result<[f64; 4]> {
    let mut kernel = Kernel::load(Options { stations: count, log: false })?;
    let stations: Vec<_> =
        (0..count).map(|n| (sender(n), if n % 2 == 0 { INGRESS } else { EGRESS })).collect();
    introduce(&mut kernel, VID, TIMES, &stations)?;
    let row = |(mac, port): &([u8; 6], trunkline::dataplane::PortNo)| FdbRow {
        port: OfPort::Number(port.0 + 1),
        vid: VID,
        mac: trunkline_core::Mac::new(*mac),
        age: FdbAge::Seconds(1),
    };
    let rows: Vec<FdbRow> = stations.iter().map(row).collect();
    let ports = BTreeMap::from([INGRESS, EGRESS].map(|port| (port.0 + 1, port)));

    let (read, ours) = timed(|| kernel.stations());
    let ours = ours?;
    anyhow::ensure!(ours.len() == count as usize, "{} of {count} stations are there", ours.len());
    let (ageing, (expired, _)) = timed(|| age(&ours, |_| Some(TIMES.ageing_s), now_s()));
    let side = Side { bridge: BridgeNo(0), ports: &ports, rows: &rows };
    let (compare, compared) = timed(|| reconcile(&ours, side, now_s(), now_s()));
    anyhow::ensure!(
        expired.is_empty() && compared.corrections.is_empty(),
        "stations that are right were not"
    );
    let all: Vec<_> = ours.iter().map(|(key, _)| (*key, None)).collect();
    let (forget, result) = timed(|| kernel.set_stations(&all));
    result?;
    Ok([read, ageing, compare, forget])
}

/// Milliseconds.
fn timed<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let start = Instant::now();
    let result = work();
    (start.elapsed().as_secs_f64() * 1e3, result)
}
