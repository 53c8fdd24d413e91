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

    /// Memory that it has in use (`VmRSS`), in KiB. BPF maps are the kernel's and not among it.
    pub(crate) fn resident_kib(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().next()).context("no VmRSS")?;
        Ok(number.parse()?)
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
