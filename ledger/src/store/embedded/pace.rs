//! How long the writer leaves the disk idle to gather a larger batch: pure arithmetic over how many entries came
//! lately.
//!
//! On a fast disk a batch comes back before more than a few entries have come, and each batch costs a dozen switches
//! between threads. Where many come, batches are begun at most once in [`GATHERING_MOST`]; where few come, at once, so
//! that nobody waits for others who may never come. A disk that takes longer than that sets the pace itself.

use std::time::Duration;

/// Longest time between the beginnings of two batches that the disk could take sooner.
const GATHERING_MOST: Duration = Duration::from_millis(1);
/// So many entries are not kept waiting for more.
pub(super) const ENTRIES_ENOUGH: usize = 128;
/// Up to so many entries per second there is nothing to gather.
const FEW_PER_SECOND: f64 = 1_000.0;
/// From so many on, batches are as far apart as they may be.
const MANY_PER_SECOND: f64 = 5_000.0;
/// In so many seconds what came is forgotten but for a third.
const MEMORY_SECONDS: f64 = 0.02;

/// When the next batch may begin.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    last: Duration,
    per_second: f64,
}

impl Pace {
    /// A batch of so many entries begins now.
    pub(super) fn began(&mut self, entries: usize, now: Duration) {
        let since = now.saturating_sub(self.last).as_secs_f64();
        let entries = f64::from(u32::try_from(entries).unwrap_or(u32::MAX));
        self.per_second = self.per_second * (-since / MEMORY_SECONDS).exp() + entries / MEMORY_SECONDS;
        self.last = now;
    }

    /// How long to go on gathering for a batch that has so many entries; `None`: it may begin.
    pub(super) fn wait(&self, entries: usize, now: Duration) -> Option<Duration> {
        if entries >= ENTRIES_ENOUGH {
            return None;
        }
        let since = now.saturating_sub(self.last);
        let per_second = self.per_second * (-since.as_secs_f64() / MEMORY_SECONDS).exp();
        let share = (per_second - FEW_PER_SECOND) / (MANY_PER_SECOND - FEW_PER_SECOND);
        let apart = GATHERING_MOST.mul_f64(share.clamp(0.0, 1.0));
        apart.checked_sub(since).filter(|wait| !wait.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long a batch waits at a steady rate, if batches begin as soon as they may.
    fn waits_at(per_second: u32) -> Duration {
        let (mut pace, mut now) = (Pace::default(), Duration::from_secs(1));
        let mut waited = Duration::ZERO;
        for _ in 0..2_000 {
            // One entry after the other, as they come.
            now += Duration::from_secs(1) / per_second;
            waited = pace.wait(1, now).unwrap_or_default();
            let gathered = (waited.as_secs_f64() * f64::from(per_second)) as usize;
            now += waited;
            pace.began(1 + gathered, now);
        }
        waited
    }

    #[test]
    fn few_entries_wait_for_nobody_and_many_for_a_millisecond_at_most() {
        assert_eq!(waits_at(10), Duration::ZERO);
        assert_eq!(waits_at(900), Duration::ZERO);
        let some = waits_at(3_000);
        assert!(some > Duration::ZERO && some < GATHERING_MOST, "{some:?}");
        let most = waits_at(20_000);
        assert!(most > GATHERING_MOST / 2 && most <= GATHERING_MOST, "{most:?}");
    }

    #[test]
    fn enough_entries_and_a_slow_disk_end_the_wait() {
        let mut pace = Pace::default();
        for millisecond in 0..100 {
            pace.began(50, Duration::from_millis(millisecond));
        }
        let now = Duration::from_micros(99_100);
        assert!(pace.wait(ENTRIES_ENOUGH - 1, now).is_some());
        assert_eq!(pace.wait(ENTRIES_ENOUGH, now), None);
        assert_eq!(pace.wait(1, Duration::from_millis(101)), None);
    }

    #[test]
    fn a_burst_is_forgotten() {
        let mut pace = Pace::default();
        pace.began(10_000, Duration::from_secs(1));
        assert!(pace.wait(1, Duration::from_secs(1)).is_some());
        assert_eq!(pace.wait(1, Duration::from_secs(2)), None);
    }

    #[test]
    fn a_clock_that_stands_still_gives_a_bounded_wait() {
        let mut pace = Pace::default();
        for _ in 0..1_000 {
            pace.began(100, Duration::ZERO);
        }
        assert_eq!(pace.wait(1, Duration::ZERO), Some(GATHERING_MOST));
    }
}
