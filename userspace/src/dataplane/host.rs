//! What the programs depend on in a machine: its kernel's kind of preemption and tcx, its clock, and its
//! CPUs.

use std::fmt;
use std::fs;
use std::io;
use std::sync::LazyLock;

use aya::programs::{SchedClassifier, TcAttachType};
use rustix::system::uname;
use rustix::time::{ClockId, clock_getres};
use trunkline_core::{Ticks, abi};

/// The kernel cuts its version off at this length.
const LONGEST: usize = 64;

/// Whether the kernel may interrupt a program to run another on the same CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Preemption {
    /// It does not: a CPU runs each program to its end.
    None,
    /// It may (`PREEMPT_RT`).
    RealTime,
    /// It does not say, and is treated as if it might.
    Unknown,
}

impl Preemption {
    /// Returns that of the running kernel. It never changes, so it is read once.
    pub(super) fn of_kernel() -> Self {
        static FOUND: LazyLock<Preemption> = LazyLock::new(|| {
            let version = uname().version().to_string_lossy().into_owned();
            Preemption::read(&version, fs::read_to_string("/sys/kernel/realtime").ok().as_deref())
        });
        *FOUND
    }

    /// Reads it from the output of `uname -v` and, if it exists, from the file `/sys/kernel/realtime`, which
    /// comes with the real-time patch and is not in Linux itself.
    fn read(version: &str, realtime: Option<&str>) -> Self {
        let words: Vec<&str> = version.split_whitespace().collect();
        let says = |flag: &[&str]| words.windows(flag.len()).any(|words| words == flag);
        // Before Linux 5.15, the patch wrote it as two words.
        if says(&["PREEMPT_RT"])
            || says(&["PREEMPT", "RT"])
            || realtime.is_some_and(|text| text.trim() == "1")
        {
            return Self::RealTime;
        }
        // `#1 SMP PREEMPT_DYNAMIC …`: the flag is between `SMP` and the time, or missing (Linux
        // `init/Makefile`). The last word may have been cut off.
        let whole = if version.len() < LONGEST { words.len() } else { words.len().saturating_sub(1) };
        let after_smp = words[..whole].iter().skip_while(|word| **word != "SMP").nth(1);
        match after_smp {
            Some(&("PREEMPT" | "PREEMPT_DYNAMIC")) => Self::None,
            Some(word) if !word.starts_with("PREEMPT") => Self::None,
            _ => Self::Unknown,
        }
    }

    /// Returns whether programs have to expect it.
    pub(super) fn is_possible(self) -> bool {
        self != Self::None
    }
}

impl fmt::Display for Preemption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "not a real-time kernel",
            Self::RealTime => "a real-time kernel (PREEMPT_RT): no flow cache, and changes wait for RCU",
            Self::Unknown => {
                "a kernel that does not say whether it is a real-time one, and is taken for one: no flow cache, and \
                 changes wait for RCU"
            }
        })
    }
}

/// Returns whether the kernel has tcx: such a kernel answers which tcx programs are on the loopback device,
/// even if none is.
pub fn has_tcx() -> bool {
    SchedClassifier::query_tcx("lo", TcAttachType::Ingress).is_ok()
}

/// Returns the kernel's ticks. Its coarse clocks advance by one tick at a time (`KTIME_LOW_RES`, Linux
/// `kernel/time/posix-timers.c`). A tick that is not a whole number of nanoseconds is rounded there; a clock
/// that counts such ticks would be seconds off within a year, so that they are not used.
pub(super) fn ticks() -> Ticks {
    let tick = clock_getres(ClockId::MonotonicCoarse);
    match u32::try_from(tick.tv_nsec) {
        Ok(ns @ 1..) if tick.tv_sec == 0 && 1_000_000_000 % ns == 0 => Ticks::new(1_000_000_000 / ns),
        _ => Ticks::UNUSED,
    }
}

/// How many CPUs the maps have room for. Programs find their part of a map by the number of the CPU they run
/// on.
///
/// A virtual machine can often be given many more CPUs than it has, up to hundreds. Each of them must have
/// counters, as a CPU that is added later counts too: 352 KiB, which the kernel allocates at once, since the
/// agent maps them. The flow cache, 8 MiB for each CPU where there are few, has room only for those that run
/// when the programs are loaded. A CPU with a higher number that is added later works without: it finds no
/// set, and looks everything up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cpus {
    /// The numbers of all CPUs that there can ever be are below this one (`nr_cpu_ids`); not all below it
    /// need exist.
    pub possible: u32,
    /// The numbers of those that run now are below this one.
    pub running: u32,
}

impl Cpus {
    /// Returns those of this machine.
    ///
    /// # Errors
    /// The kernel's list of possible CPUs cannot be read.
    pub(super) fn of_machine() -> io::Result<Self> {
        let list = |name: &str| fs::read_to_string(format!("/sys/devices/system/cpu/{name}"));
        Self::read(&list("possible")?, &list("online").unwrap_or_default()).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "the list of possible CPUs is not understood")
        })
    }

    fn read(possible: &str, online: &str) -> Option<Self> {
        let beyond = |list: &str| u32::try_from(cpu_list(list)?.into_iter().max()?).ok()?.checked_add(1);
        let possible = beyond(possible)?;
        Some(Self { possible, running: beyond(online).map_or(possible, |running| running.min(possible)) })
    }

    /// Returns how many sets each running CPU has in the flow cache: enough for the flows of a large bridge,
    /// but no more than 128 MiB for all CPUs together. Returns 0 where a program may be interrupted by
    /// another.
    pub(super) fn flow_sets(self) -> u32 {
        const MOST: u32 = 1 << 17;
        const OCTETS: u32 = 128 << 20;
        if Preemption::of_kernel().is_possible() {
            return 0;
        }
        (OCTETS / size_of::<abi::FlowSet>() as u32 / self.running).clamp(1, MOST)
    }
}

/// Reads a set of CPUs in the kernel's form, `0-3,6`. Returns `None` for any other form, and for the empty
/// set.
pub(super) fn cpu_list(list: &str) -> Option<Vec<usize>> {
    /// Far more CPUs than Linux can have.
    const MOST: usize = 1 << 16;
    let mut cpus = Vec::new();
    for range in list.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if last >= MOST {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_cpus_are_read_as_the_kernel_writes_them() {
        assert_eq!(cpu_list("0\n"), Some(vec![0]));
        assert_eq!(cpu_list("0-2,5,7-8\n"), Some(vec![0, 1, 2, 5, 7, 8]));
        for wrong in ["", "\n", "(null)\n", "0-", "0-99999"] {
            assert_eq!(cpu_list(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn maps_have_room_for_every_number_and_caches_for_those_that_run() {
        let read = |possible, online| Cpus::read(possible, online).map(|cpus| (cpus.possible, cpus.running));
        assert_eq!(read("0-239\n", "0-3\n"), Some((240, 4)));
        assert_eq!(read("0-3,8-11\n", "0-3,9\n"), Some((12, 10)), "numbers, not how many there are");
        assert_eq!(read("0-7\n", ""), Some((8, 8)), "unknown, so all");
        assert_eq!(read("", "0\n"), None);
    }

    #[test]
    fn the_flow_cache_keeps_to_its_share_of_memory() {
        let octets = |running| {
            let cpus = Cpus { possible: 512, running };
            u64::from(cpus.flow_sets()) * size_of::<abi::FlowSet>() as u64
        };
        if Preemption::of_kernel() == Preemption::None {
            assert_eq!(octets(4), 8 << 20, "for each CPU, however many may be added");
            assert_eq!(octets(256) * 256, 128 << 20);
        } else {
            assert_eq!(octets(4), 0);
        }
    }

    #[test]
    fn real_time_kernels_are_known_by_their_version() {
        for version in [
            "#1 SMP PREEMPT_RT Debian 6.1.170-3 (2026-05-08)",
            "#1 SMP PREEMPT_RT Debian 6.12.117-1 (2026-11-12)",
            "#35-Ubuntu SMP PREEMPT_RT Tue Jan 24 11:45:03 UTC 2023",
            "#16~22.04.1-Ubuntu SMP PREEMPT_RT Wed Jan 15 21:03:46 UTC 2025",
            "#1 SMP PREEMPT_RT Thu Sep 12 08:31:22 EDT 2024",
            "#1 SMP PREEMPT RT Debian 4.19.249-2 (2022-06-30)",
            "#1 PREEMPT_RT Mon Mar 3 10:00:00 UTC 2025",
        ] {
            assert_eq!(Preemption::read(version, None), Preemption::RealTime, "{version}");
        }
        let patched = Preemption::read("#1 SMP PREEMPT Mon Mar 3 10:00:00 UTC 2025", Some("1\n"));
        assert_eq!(patched, Preemption::RealTime);
    }

    #[test]
    fn ordinary_kernels_are_not_taken_for_real_time_ones() {
        for version in [
            "#1 SMP Debian 5.10.209-2 (2024-01-31)",
            "#1 SMP PREEMPT_DYNAMIC Debian 6.1.170-3 (2026-05-08)",
            "#1 SMP PREEMPT_DYNAMIC Debian 6.12.48-1 (2025-09-20)",
            "#101-Ubuntu SMP Tue Nov 14 13:30:08 UTC 2023",
            "#21~22.04.1-Ubuntu SMP PREEMPT_DYNAMIC Fri Feb 9 13:32:52 UTC 2024",
            // Ubuntu's lowlatency flavour, 22.04 and 24.04.
            "#111-Ubuntu SMP PREEMPT Tue Apr 16 13:34:19 UTC 2024",
            "#52.1-Ubuntu SMP PREEMPT_DYNAMIC Thu Sep 12 12:29:14 UTC 2024",
            "#1 SMP PREEMPT_DYNAMIC @0",
            "#1 SMP Fri Sep 27 19:13:35 UTC 2024",
        ] {
            assert_eq!(Preemption::read(version, None), Preemption::None, "{version}");
        }
        let with_file = Preemption::read("#1 SMP PREEMPT_DYNAMIC Debian 6.1.170-3 (2026-05-08)", Some("0\n"));
        assert_eq!(with_file, Preemption::None);
    }

    #[test]
    fn a_version_that_does_not_say_counts_as_real_time() {
        // The last ones are longer than any real build's, so that the flag is cut off, or in two.
        let cut = |length| format!("#{} SMP PREEMPT_RT Debian", "1".repeat(length - 1))[..LONGEST].to_owned();
        for version in [
            "".to_owned(),
            "generic".to_owned(),
            "#1".to_owned(),
            "#1 SMP".to_owned(),
            "#1 Mon Mar 3 10:00:00 UTC 2025".to_owned(),
            "#1 SMP PREEMPT_AUTO Mon Mar 3 10:00:00 UTC 2025".to_owned(),
            cut(LONGEST - " SMP PREEMPT_R".len()),
            cut(LONGEST - " SMP PREEMPT".len()),
            cut(LONGEST - " SMP P".len()),
            cut(LONGEST - " SMP".len()),
            cut(LONGEST - " S".len()),
        ] {
            let preemption = Preemption::read(&version, None);
            assert!(preemption.is_possible(), "{version}: {preemption:?}");
        }
    }
}
