//! What a process needs.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

pub(crate) struct Process(u32);

impl Process {
    pub(crate) fn new(id: u32) -> Self {
        Self(id)
    }

    /// Memory that it has in use, in KiB, without the BPF maps that it looks into: those are the kernel's, mapped or not.
    pub(crate) fn resident_kib(&self) -> Result<u64> {
        let (mut sum, mut is_map) = (0, false);
        for line in fs::read_to_string(format!("/proc/{}/smaps", self.0))?.lines() {
            let mut words = line.split_whitespace();
            match words.next().context("an empty line in smaps")? {
                "Rss:" if is_map => {}
                "Rss:" => sum += words.next().context("no Rss")?.parse::<u64>()?,
                other if other.ends_with(':') => {}
                // The line that a mapping begins with: addresses, and what is mapped.
                _ => is_map = line.contains("bpf-map"),
            }
        }
        Ok(sum)
    }

    /// Time that its threads have run, all together.
    pub(crate) fn cpu_time(&self) -> Result<Duration> {
        let mut ns = 0;
        for thread in fs::read_dir(format!("/proc/{}/task", self.0))? {
            // Its first number is the time on a processor, in ns (Linux Documentation/scheduler/sched-stats.rst).
            let stat = fs::read_to_string(thread?.path().join("schedstat"))?;
            ns += stat.split(' ').next().context("an empty schedstat")?.parse::<u64>()?;
        }
        Ok(Duration::from_nanos(ns))
    }

    /// Its share of a processor in the time that follows.
    pub(super) fn cpu_share(&self, time: Duration) -> Result<f64> {
        let (start, before) = (Instant::now(), self.cpu_time()?);
        sleep(time);
        Ok((self.cpu_time()? - before).as_secs_f64() / start.elapsed().as_secs_f64())
    }
}
