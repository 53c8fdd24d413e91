//! Real-time priority, for threads that work for microseconds at a time and must not queue for a CPU each
//! time.

use thread_priority::{
    RealtimeThreadSchedulePolicy, ScheduleParams, ThreadPriority, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};

/// Gives the calling thread the lowest real-time priority, which is above that of every ordinary thread.
///
/// # Errors
/// The process lacks the privilege (`CAP_SYS_NICE`).
pub(crate) fn real_time() -> Result<(), thread_priority::Error> {
    set_thread_priority_and_policy(
        thread_native_id(),
        ThreadPriority::from_posix(ScheduleParams { sched_priority: 1 }),
        ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo),
    )
}
