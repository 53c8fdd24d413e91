//! Priority over all threads without one, for those that work for microseconds at a time and must not queue for that.

use thread_priority::{
    RealtimeThreadSchedulePolicy, ScheduleParams, ThreadPriority, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};

/// Gives the calling thread the lowest real-time priority, which is above all threads without one.
///
/// # Errors
/// The process has no such privilege (`CAP_SYS_NICE`).
pub(crate) fn real_time() -> Result<(), thread_priority::Error> {
    set_thread_priority_and_policy(
        thread_native_id(),
        ThreadPriority::from_posix(ScheduleParams { sched_priority: 1 }),
        ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo),
    )
}
