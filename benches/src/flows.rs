//! Many flows: between which stations, and in which order their frames come.

use crate::frame::Header;
use crate::frame::{header, station};

/// Flows that are sent at most; fewer between few stations.
pub const FLOWS: usize = 100_000;
/// Headers in the order in which they are sent, over and over.
const HEADERS: usize = 1 << 17;

/// How frames are distributed over the flows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Distribution {
    /// Each in turn, in an order without pattern: the worst for every cache.
    Uniform,
    /// The n-th most frequent flow has 1/n of the frames of the most frequent one.
    Zipf,
}

/// The address of the n-th station that sends.
pub fn sender(number: u32) -> [u8; 6] {
    station(1, scattered(number))
}

/// The address of the n-th station that receives.
pub fn receiver(number: u32) -> [u8; 6] {
    station(2, scattered(number))
}

/// A number for each number, without a pattern (the finalizer of MurmurHash3 is a bijection).
fn scattered(mut number: u32) -> u32 {
    number = (number ^ number >> 16).wrapping_mul(0x85eb_ca6b);
    number = (number ^ number >> 13).wrapping_mul(0xc2b2_ae35);
    number ^ number >> 16
}

/// Headers of frames from `stations / 2` senders to as many receivers.
pub fn headers(stations: u32, distribution: Distribution) -> Vec<Header> {
    let mut random = Random(0x5eed);
    let half = u64::from(stations / 2);
    let count = FLOWS.min((half * half) as usize);
    let mut pair = |place: usize| {
        // All pairs of few stations; some pairs of many.
        let (from, to) = if count < FLOWS {
            (place as u64 / half, place as u64 % half)
        } else {
            (random.below(half), random.below(half))
        };
        header(receiver(to as u32), sender(from as u32))
    };
    let flows: Vec<Header> = (0..count).map(&mut pair).collect();
    let mut order: Vec<usize> = match distribution {
        Distribution::Uniform => (0..HEADERS).map(|place| place % count).collect(),
        Distribution::Zipf => zipf(count, &mut random),
    };
    random.shuffle(&mut order);
    order.into_iter().map(|flow| flows[flow]).collect()
}

fn zipf(count: usize, random: &mut Random) -> Vec<usize> {
    let mut sum = 0.0;
    let mut reached = |n: usize| {
        sum += 1.0 / (n as f64 + 1.0);
        sum
    };
    let reached: Vec<f64> = (0..count).map(&mut reached).collect();
    let total = reached.last().copied().unwrap_or_default();
    let draw = |_| {
        let wanted = random.unit() * total;
        reached.partition_point(|reached| *reached < wanted).min(count - 1)
    };
    (0..HEADERS).map(draw).collect()
}

/// Numbers that are the same in every run (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for place in (1..items.len()).rev() {
            items.swap(place, self.below(place as u64 + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn frequencies(stations: u32, distribution: Distribution) -> Vec<usize> {
        let mut counts = BTreeMap::new();
        headers(stations, distribution)
            .into_iter()
            .for_each(|header| *counts.entry(header).or_insert(0) += 1);
        let mut counts: Vec<_> = counts.into_values().collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        counts
    }

    #[test]
    fn few_stations_talk_each_to_each_equally_often() {
        let frequencies = frequencies(16, Distribution::Uniform);
        assert_eq!(frequencies.len(), 64);
        assert!(frequencies.iter().all(|count| *count == HEADERS / 64));
    }

    #[test]
    fn many_stations_have_a_hundred_thousand_flows() {
        let flows = frequencies(1_000_000, Distribution::Uniform).len();
        assert!((FLOWS - 10..=FLOWS).contains(&flows), "{flows}");
    }

    #[test]
    fn the_most_frequent_flow_is_twice_as_frequent_as_the_next() {
        let frequencies = frequencies(1_000_000, Distribution::Zipf);
        let ratio = frequencies[0] as f64 / frequencies[1] as f64;
        assert!((1.8..2.2).contains(&ratio), "{ratio}");
        assert!(frequencies.len() > 20_000, "{}", frequencies.len());
    }
}
