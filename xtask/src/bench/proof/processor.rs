//! Processor time to the nanosecond, where the system tells: other programs on the machine then hardly count.

use std::time::{Duration, Instant};

use super::super::report::processor_seconds;

/// Processor seconds of this whole process while something ran; what the clock says where the system doesn't tell.
pub(super) fn of_process<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let (clock, before) = (Instant::now(), processor_seconds());
    let result = work();
    let used = before
        .zip(processor_seconds())
        .map(|(before, after)| after - before);
    (result, used.unwrap_or_else(|| clock.elapsed().as_secs_f64()))
}

/// Processor seconds of the calling thread for one run of something, over enough runs to be told from nothing.
pub(super) fn of_thread_per_run(mut work: impl FnMut()) -> f64 {
    work();
    let (clock, before) = (Instant::now(), thread_seconds());
    let mut runs = 0_u32;
    while runs == 0 || clock.elapsed() < Duration::from_secs(1) {
        work();
        runs += 1;
    }
    let used = before.zip(thread_seconds()).map(|(before, after)| after - before);
    used.unwrap_or_else(|| clock.elapsed().as_secs_f64()) / f64::from(runs)
}

/// What this thread has run so far: the first figure of schedstat, in nanoseconds (the kernel's
/// Documentation/scheduler/sched-stats).
fn thread_seconds() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanoseconds: f64 = text.split_whitespace().next()?.parse().ok()?;
    Some(nanoseconds / 1e9)
}
