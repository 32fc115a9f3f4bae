//! When to ask again after everybody that could be asked has failed: waits of 1, 2 and 4 seconds within the
//! caller's deadline.
//!
//! Asking *another* provider costs nothing and needs no wait; a plan is for the moment when none is left. Waits are
//! spread at random, so that clients that failed together don't come back together.

use rand::{Rng, RngExt as _};
use serde::{Deserialize, Serialize};

use crate::planted::{self, Bug};

/// The waits between rounds, in milliseconds, before they are spread.
pub const RETRY_WAITS_MS: [u64; 3] = [1_000, 2_000, 4_000];
/// So many of them where only one provider could be asked again.
const WAITS_ALONE: usize = 1;
/// A wait is longer or shorter by up to one part in so many.
const SPREAD: u64 = 4;
/// Longest time that a request waits in all for providers that said they are busy, in milliseconds.
pub const BUSY_PATIENCE_MS: u64 = 10_000;
/// Shortest wait for a busy provider, in milliseconds.
const BUSY_WAIT_MIN_MS: u64 = 100;

/// Whether another provider, or the same one later, may do better than one that answered with this HTTP status.
/// What is wrong with the request itself stays wrong everywhere.
#[must_use]
pub const fn is_worth_another_try(status: u16) -> bool {
    match status {
        // The payment, a timeout, a conflict, what came too early, too many at once: of this provider or this moment.
        402 | 408 | 409 | 425 | 429 => true,
        500..=599 => true,
        _ => false,
    }
}

/// Why a round ended without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoundEnd {
    /// At least one provider is there and only had no room; the soonest says to come back in so many milliseconds.
    Busy {
        /// Milliseconds.
        retry_after_ms: u64,
    },
    /// All failed, the last one with this HTTP status.
    Failed {
        /// What the program would be told.
        status: u16,
        /// Whether there is only one provider that could be asked in the next round.
        is_alone: bool,
    },
}

/// The retries of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryPlan {
    deadline_ms: Option<u64>,
    waits_taken: usize,
    busy_patience_ms: u64,
}

impl RetryPlan {
    /// The plan of a request that must be answered by `deadline_ms`, in milliseconds of any clock; `None` where the
    /// caller set no limit.
    #[must_use]
    pub const fn new(deadline_ms: Option<u64>) -> Self {
        Self {
            deadline_ms,
            waits_taken: 0,
            busy_patience_ms: BUSY_PATIENCE_MS,
        }
    }

    /// How many milliseconds to wait before everybody is asked once more; `None`: tell the program. A wait that would
    /// end at or after the deadline is not begun.
    pub fn next_wait_ms(&mut self, end: RoundEnd, now_ms: u64, random: &mut impl Rng) -> Option<u64> {
        match end {
            _ if planted::is(Bug::NeverRetried) => None,
            RoundEnd::Failed { status, .. } if !is_worth_another_try(status) => None,
            // One more try covers a connection that broke. Somebody who fails twice is not waited for further where
            // nobody could take its place.
            RoundEnd::Failed { is_alone: true, .. } if self.waits_taken >= WAITS_ALONE => None,
            RoundEnd::Failed { .. } => {
                let wait_ms = spread(*RETRY_WAITS_MS.get(self.waits_taken)?, random);
                self.ends_in_time(wait_ms, now_ms).then(|| {
                    self.waits_taken += 1;
                    if planted::is(Bug::RetryWaitsADay) {
                        86_400_000
                    } else {
                        wait_ms
                    }
                })
            }
            RoundEnd::Busy { retry_after_ms } => {
                // Never sooner than it was told.
                let asked_ms = retry_after_ms.max(BUSY_WAIT_MIN_MS);
                let wait_ms = asked_ms.saturating_add(random.random_range(0..=asked_ms.div_ceil(SPREAD)));
                let fits = asked_ms <= self.busy_patience_ms && self.ends_in_time(wait_ms, now_ms);
                fits.then(|| {
                    self.busy_patience_ms = self.busy_patience_ms.saturating_sub(wait_ms);
                    wait_ms
                })
            }
        }
    }

    /// Milliseconds until the deadline, `None` where there is none.
    #[must_use]
    pub fn left_ms(&self, now_ms: u64) -> Option<u64> {
        self.deadline_ms
            .map(|deadline_ms| deadline_ms.saturating_sub(now_ms))
    }

    fn ends_in_time(&self, wait_ms: u64, now_ms: u64) -> bool {
        self.deadline_ms
            .is_none_or(|deadline_ms| now_ms.saturating_add(wait_ms) < deadline_ms)
    }
}

fn spread(wait_ms: u64, random: &mut impl Rng) -> u64 {
    let part_ms = wait_ms / SPREAD;
    wait_ms - part_ms + random.random_range(0..=2 * part_ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha8Rng;

    const FAILED: RoundEnd = RoundEnd::Failed {
        status: 502,
        is_alone: false,
    };

    #[test]
    fn waits_are_one_two_and_four_seconds_and_then_no_more() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let mut plan = RetryPlan::new(None);
        for expected_ms in [1_000u64, 2_000, 4_000] {
            let wait_ms = plan.next_wait_ms(FAILED, 0, &mut random).unwrap();
            assert!(wait_ms.abs_diff(expected_ms) <= expected_ms / 4, "{wait_ms}");
        }
        assert_eq!(plan.next_wait_ms(FAILED, 0, &mut random), None);
    }

    #[test]
    fn one_provider_alone_gets_one_more_try() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let mut plan = RetryPlan::new(None);
        let alone = RoundEnd::Failed {
            status: 502,
            is_alone: true,
        };
        assert!((750..=1_250).contains(&plan.next_wait_ms(alone, 0, &mut random).unwrap()));
        assert_eq!(plan.next_wait_ms(alone, 0, &mut random), None);
        let wait_ms = plan.next_wait_ms(FAILED, 0, &mut random);
        assert!(wait_ms.is_some(), "others have come meanwhile");
    }

    #[test]
    fn what_is_wrong_with_the_request_is_not_tried_again() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        for status in [200, 400, 401, 403, 404, 413, 415, 422] {
            let end = RoundEnd::Failed {
                status,
                is_alone: false,
            };
            assert_eq!(
                RetryPlan::new(None).next_wait_ms(end, 0, &mut random),
                None,
                "{status}"
            );
        }
        for status in [402, 408, 409, 425, 429, 500, 502, 503, 504, 529] {
            let end = RoundEnd::Failed {
                status,
                is_alone: false,
            };
            assert!(
                RetryPlan::new(None).next_wait_ms(end, 0, &mut random).is_some(),
                "{status}"
            );
        }
    }

    #[test]
    fn nothing_is_begun_that_ends_after_the_deadline() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let mut plan = RetryPlan::new(Some(10_000));
        assert_eq!(plan.next_wait_ms(FAILED, 9_250, &mut random), None);
        let busy = RoundEnd::Busy { retry_after_ms: 500 };
        assert_eq!(plan.next_wait_ms(busy, 9_500, &mut random), None);
        assert!(plan.next_wait_ms(busy, 9_000, &mut random).is_some());
        assert!(plan.next_wait_ms(FAILED, 8_000, &mut random).is_some());
        assert_eq!(
            (plan.left_ms(8_000), plan.left_ms(11_000)),
            (Some(2_000), Some(0))
        );
    }

    #[test]
    fn a_busy_provider_is_waited_for_as_it_said_and_not_for_ever() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let mut plan = RetryPlan::new(None);
        let (mut waited_ms, mut waits) = (0, 0);
        while let Some(wait_ms) = plan.next_wait_ms(
            RoundEnd::Busy {
                retry_after_ms: 2_000,
            },
            0,
            &mut random,
        ) {
            assert!((2_000..=2_500).contains(&wait_ms));
            (waited_ms, waits) = (waited_ms + wait_ms, waits + 1);
        }
        assert!(
            waits >= 4 && waited_ms <= BUSY_PATIENCE_MS + 500,
            "{waits} {waited_ms}"
        );
        let long = RoundEnd::Busy {
            retry_after_ms: 60_000,
        };
        assert_eq!(RetryPlan::new(None).next_wait_ms(long, 0, &mut random), None);
        let most = RoundEnd::Busy {
            retry_after_ms: u64::MAX,
        };
        assert_eq!(
            RetryPlan::new(None).next_wait_ms(most, u64::MAX, &mut random),
            None
        );
    }

    proptest! {
        /// Whatever happens: a request ends, never waits past its deadline, and a seed gives the same waits.
        #[test]
        fn plans_end(
            seed: u64,
            deadline_ms in proptest::option::of(0u64..60_000),
            ends in proptest::collection::vec((any::<bool>(), 0u64..20_000, 100u16..700), 200),
        ) {
            let run = |seed| {
                let mut random = ChaCha8Rng::seed_from_u64(seed);
                let (mut plan, mut now_ms, mut waits) = (RetryPlan::new(deadline_ms), 0, Vec::new());
                for (is_busy, retry_after_ms, status) in &ends {
                    let end = if *is_busy {
                        RoundEnd::Busy { retry_after_ms: *retry_after_ms }
                    } else {
                        RoundEnd::Failed { status: *status, is_alone: status.is_multiple_of(2) }
                    };
                    if let Some(wait_ms) = plan.next_wait_ms(end, now_ms, &mut random) {
                        now_ms += wait_ms;
                        waits.push(wait_ms);
                    }
                }
                (now_ms, waits)
            };
            let (ended_at_ms, waits) = run(seed);
            prop_assert!(deadline_ms.is_none_or(|deadline_ms| waits.is_empty() || ended_at_ms < deadline_ms));
            prop_assert!(ended_at_ms <= 8_750 + BUSY_PATIENCE_MS + BUSY_PATIENCE_MS / 4);
            prop_assert_eq!(run(seed), (ended_at_ms, waits));
        }
    }
}
