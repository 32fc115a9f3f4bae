//! How many posts may wait, so that none waits long: pure arithmetic over what batches were measured to cost.
//!
//! A post that comes while one batch is being synced is in the next one. It waits for two syncs at most, and for the
//! work on everything that waits with it:
//!
//! ```text
//! wait <= 2 * sync + waiting * entry
//! ```
//!
//! Posts are admitted as long as that is within the target. Where two syncs alone use up the target, it can't be kept.
//! Refusing more posts would gain little then and cost much, since a sync takes as long for one entry as for many: the
//! work may take half as long as a sync, and no more may wait than one batch takes.

use std::fmt;
use std::time::Duration;

/// So many may always wait: bursts of a few requests are no overload on any machine.
const ADMITTED_ALWAYS: usize = 256;
/// Smaller batches say little about what one more entry costs.
const TELLING_ENTRIES: usize = 16;
/// The weight of the newest measurement of a sync.
const NEWEST: f64 = 0.125;
/// What is left of the weight of older batches after each one.
const OLDER: f64 = 0.98;
/// Before anything is measured: so many entries with so many seconds of work.
const ASSUMED: (f64, f64) = (1_000.0, 5e-3);

/// A clock that only goes forward; only differences mean anything.
pub trait MonotonicClock: fmt::Debug + Send + Sync {
    /// Time since some moment in the past.
    fn now(&self) -> Duration;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct MachineClock;

impl MonotonicClock for MachineClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the writer measures its own costs; no entry depends on them"
    )]
    fn now(&self) -> Duration {
        use std::sync::OnceLock;
        use std::time::Instant;
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed()
    }
}

/// What batches cost, and what follows for those who want to wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Admission {
    target: f64,
    batch_entries: usize,
    queue_entries: usize,
    /// Entries and seconds of work on them, the older the less they count.
    entries: f64,
    work: f64,
    /// Seconds until a batch is on the disk.
    sync: f64,
}

impl Admission {
    pub(super) const fn new(target: Duration, batch_entries: usize, queue_entries: usize) -> Self {
        Self {
            target: target.as_secs_f64(),
            batch_entries,
            queue_entries,
            entries: ASSUMED.0,
            work: ASSUMED.1,
            sync: 500e-6,
        }
    }

    /// Takes note of a batch of so many entries: the time that the writer worked on it, and that the disk took.
    pub(super) fn measured(&mut self, entries: usize, work: Duration, sync: Duration) {
        if entries >= TELLING_ENTRIES {
            let count = u32::try_from(entries).unwrap_or(u32::MAX);
            self.entries = self.entries * OLDER + f64::from(count);
            self.work = self.work * OLDER + work.as_secs_f64();
        }
        self.sync += (sync.as_secs_f64() - self.sync) * NEWEST;
    }

    /// How many posts may be unanswered at any time.
    pub(super) fn limit(&self) -> usize {
        let in_time = self.target - 2.0 * self.sync;
        let at_least = self.sync / 2.0;
        let entry = (self.work / self.entries).max(1e-9);
        let entries = whole(in_time.max(at_least) / entry).max(ADMITTED_ALWAYS);
        let most = if in_time < at_least {
            self.batch_entries.min(self.queue_entries)
        } else {
            self.queue_entries
        };
        entries.min(most)
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it saturates, which is meant"
)]
fn whole(number: f64) -> usize {
    number as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Duration = Duration::from_millis(5);

    /// What is admitted after many batches with these costs, in microseconds.
    fn limit(entry: u64, sync: u64) -> usize {
        let mut admission = Admission::new(TARGET, 1_024, 4_096);
        for _ in 0..600 {
            admission.measured(
                100,
                Duration::from_micros(entry * 100),
                Duration::from_micros(sync),
            );
        }
        admission.limit()
    }

    #[test]
    fn the_target_is_kept_where_the_disk_allows_it() {
        for (entry, sync) in [(1, 100), (5, 150), (5, 1_000), (2, 1_900), (12, 500), (15, 50)] {
            let limit = limit(entry, sync);
            let wait = 2 * sync + limit as u64 * entry;
            assert!(wait <= 5_000, "{entry} {sync}: {limit} wait {wait}");
            // And nobody is refused without need.
            assert!(
                wait > 4_900 || limit == 4_096,
                "{entry} {sync}: {limit} wait {wait}"
            );
        }
    }

    #[test]
    fn a_slow_disk_has_at_most_one_batch_waiting_and_a_slow_processor_always_some() {
        assert!(limit(5, 10_000).abs_diff(1_000) <= 1);
        assert_eq!(limit(5, 50_000), 1_024);
        assert_eq!(limit(5, 2_100), ADMITTED_ALWAYS);
        assert_eq!(limit(1_000, 100), ADMITTED_ALWAYS);
        let small = Admission::new(TARGET, 4, 8);
        assert_eq!(small.limit(), 8);
    }

    #[test]
    fn small_batches_and_one_hiccup_change_little() {
        let mut admission = Admission::new(TARGET, 1_024, 4_096);
        let usual = admission.limit();
        admission.measured(1, Duration::from_millis(1), Duration::from_micros(500));
        assert_eq!(admission.limit(), usual);
        admission.measured(16, Duration::from_millis(3), Duration::from_millis(4));
        assert!(admission.limit() > usual / 3, "{} {usual}", admission.limit());
    }
}
