//! Waiting until every running program has ended.
//!
//! A grace period of RCU is such a wait, but it depends on the ticks of the clock: it takes 8 ms at 250 ticks
//! a second, and more on a busy host. These programs run with bottom halves off: XDP programs in NAPI's poll
//! or where a tap is written to (`tun_get_user`), tc programs where frames are received or queued
//! (`__dev_queue_xmit`). Unless the kernel is a real-time one (`PREEMPT_RT`), a CPU does not switch to
//! another thread while such a program runs. So once a thread has been on every CPU since a table was
//! written, each program that began before has ended. Each that begins later sees what was written, since
//! changing the CPU is a full barrier (`migration_cpu_stop`, the run queues' locks).
//!
//! Where this does not work, RCU is used instead: on a real-time kernel, where CPUs are set apart for others
//! (they are not disturbed), where the process may not use all CPUs, or where a thread of higher priority
//! occupies one.

use std::fs;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::thread::{CpuSet, MembarrierCommand, membarrier, sched_getcpu, sched_setaffinity};

use super::host::{Preemption, cpu_list};
use crate::fault;
use crate::real_time::real_time;

/// How long the thread may take to visit all CPUs.
const PATIENCE: Duration = Duration::from_millis(20);
/// How long to wait for running programs where the kernel does not tell when they have ended. They run for
/// microseconds.
const BLIND: Duration = Duration::from_millis(50);

/// Waits for running programs.
pub(super) struct Drain {
    ask: mpsc::Sender<()>,
    back: mpsc::Receiver<bool>,
    /// Whether the thread has yet to answer an earlier question.
    out: bool,
}

impl Drain {
    /// Starts the thread that visits the CPUs.
    pub(super) fn new() -> Self {
        let ((ask, asked), (came_back, back)) = (mpsc::channel(), mpsc::channel());
        // If the thread cannot be started, sending to it fails, and RCU is used.
        let _ = thread::Builder::new().name("drain".to_owned()).spawn(move || {
            // Without the privilege the thread has to queue on each CPU, and RCU may be faster.
            let _ = real_time();
            while asked.recv().is_ok() {
                fault::check("drain");
                if came_back.send(cpus().is_some_and(visit)).is_err() {
                    return;
                }
            }
        });
        Self { ask, back, out: false }
    }

    /// Waits until every program has ended that may have read tables before.
    pub(super) fn wait(&mut self) {
        if !self.go_round() {
            grace_period();
        }
    }

    /// Sends the thread to every CPU. Returns whether it has been on all of them in time.
    fn go_round(&mut self) -> bool {
        if self.out && self.back.try_recv().is_err() {
            return false;
        }
        self.out = self.ask.send(()).is_ok();
        let back = self.back.recv_timeout(PATIENCE);
        self.out &= back.is_err();
        back.unwrap_or(false)
    }
}

/// Waits for a grace period of the kernel's RCU.
pub(super) fn grace_period() {
    // `MEMBARRIER_CMD_GLOBAL` is `synchronize_rcu()` (kernel/sched/membarrier.c), and programs run in RCU
    // read-side sections. A kernel with `nohz_full` refuses it, and a sandbox may.
    if membarrier(MembarrierCommand::Global).is_err() {
        thread::sleep(BLIND);
    }
}

/// Returns all CPUs that run programs; `None` if some must not be disturbed, or if having been on a CPU
/// proves nothing.
fn cpus() -> Option<Vec<usize>> {
    if Preemption::of_kernel().is_possible() {
        return None;
    }
    let list = |name: &str| fs::read_to_string(format!("/sys/devices/system/cpu/{name}")).unwrap_or_default();
    // Without such CPUs, these files are empty, `(null)` or absent.
    let set_apart = |name| list(name).starts_with(|c: char| c.is_ascii_digit());
    if set_apart("isolated") || set_apart("nohz_full") {
        return None;
    }
    cpu_list(&list("online")).filter(|cpus| cpus.iter().all(|cpu| *cpu < CpuSet::MAX_CPU))
}

/// Moves the calling thread to each of these CPUs in turn, beginning with its own. Returns whether it has
/// been on all of them.
fn visit(mut cpus: Vec<usize>) -> bool {
    let here = sched_getcpu();
    cpus.sort_by_key(|cpu| *cpu != here);
    cpus.into_iter().all(|cpu| {
        let mut only = CpuSet::new();
        only.set(cpu);
        sched_setaffinity(None, &only).is_ok() && sched_getcpu() == cpu
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thread_answers_again_and_again() {
        let mut drain = Drain::new();
        for _ in 0..3 {
            drain.wait();
            if drain.out {
                drain.back.recv_timeout(Duration::from_secs(10)).expect("the thread is late, but answers");
                drain.out = false;
            }
        }
    }

    #[test]
    fn a_thread_visits_every_cpu_that_the_process_may_use() {
        let allowed = rustix::thread::sched_getaffinity(None).unwrap();
        let allowed = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).collect();
        assert!(thread::spawn(|| visit(allowed)).join().unwrap());
    }

    #[test]
    fn a_cpu_that_does_not_exist_is_not_visited() {
        assert!(!thread::spawn(|| visit(vec![0, CpuSet::MAX_CPU - 1])).join().unwrap());
    }
}
