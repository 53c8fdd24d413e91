//! How long this machine takes to read memory at random: what a look-up costs once tables outgrow its caches.

use std::hint::black_box;
use std::time::Instant;

use serde_json::{Value, json};

/// Reads, each of which depends on the one before.
const READS: usize = 2_000_000;
/// Places in a cache line.
const LINE: usize = 8;

pub(super) fn run() -> Value {
    let figures = [1_usize, 8, 128].map(|mib| (mib, chase(mib << 20)));
    let words: Vec<String> = figures.iter().map(|(mib, ns)| format!("{ns:.0} ns in {mib} MiB")).collect();
    println!("memory: a read at random takes {}\n", words.join(", "));
    figures.iter().map(|(mib, ns)| json!({ "mib": mib, "ns": ns })).collect::<Vec<_>>().into()
}

/// Walks through all lines of so much memory in one cycle, which an affine step makes look random.
fn chase(octets: usize) -> f64 {
    let lines = octets / (LINE * size_of::<usize>());
    // Full period for a power of two: an odd increment, and a factor that is 1 modulo 4 (Knuth, TAOCP 3.2.1.2).
    let step = |line: usize| line.wrapping_mul(0x5_1f4d).wrapping_add(0x9e37_79b1) & (lines - 1);
    let mut memory = vec![0_usize; lines * LINE];
    (0..lines).for_each(|line| memory[line * LINE] = step(line) * LINE);
    let mut place = 0;
    let start = Instant::now();
    for _ in 0..READS {
        place = memory[black_box(place)];
    }
    black_box(place);
    start.elapsed().as_nanos() as f64 / READS as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_takes_time() {
        assert!(chase(1 << 16) > 0.1);
    }
}
