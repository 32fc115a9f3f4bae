//! When to ask a second provider because the first one's first token is late.
//!
//! The second one's price is the cost of it, so it happens at most once for a request, only well after this provider
//! usually answers, only where both together cost little of what is left, and for about one job in ten at most.
//!
//! Source: J. Dean, L. A. Barroso, "The Tail at Scale", Communications of the ACM 56(2), 2013, on hedged requests.

use serde::{Deserialize, Serialize};

use crate::credits::Credits;
use crate::routing::records::Standing;

/// Bounds of when a first output is late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HedgeBounds {
    /// Never sooner, in milliseconds.
    pub min_ms: u64,
    /// Never later, in milliseconds, beside the time for reading the prompt.
    pub max_ms: u64,
    /// Where the provider was never measured, in milliseconds.
    pub unknown_ms: u64,
}

impl Default for HedgeBounds {
    fn default() -> Self {
        Self {
            min_ms: 1_000,
            max_ms: 15_000,
            unknown_ms: 4_000,
        }
    }
}

/// How many bytes of a prompt a slow provider reads in a millisecond: some 2,000 tokens a second.
const PROMPT_BYTES_PER_MS: u64 = 8;
/// Prompts up to so many bytes take no time worth speaking of.
const PROMPT_BYTES_FREE: u64 = 16_384;
/// Both answers together may cost one part in so many of what is left to spend.
const BUDGET_SHARE: u64 = 10;
/// The second provider may cost so many times what the first one does.
const SECOND_COSTS_AT_MOST: u64 = 3;

/// What hedging a request costs, as far as can be told before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HedgeCost {
    /// What the answer of the first provider will probably cost.
    pub first: Credits,
    /// What that of the second one will.
    pub second: Credits,
    /// What is left to spend, where that is known.
    pub budget: Option<Credits>,
}

impl HedgeCost {
    /// Whether it is worth it.
    #[must_use]
    pub fn is_fair(&self) -> bool {
        let (first, second) = (self.first.microcredits(), self.second.microcredits());
        let both = first.saturating_add(second);
        // Where the first one costs next to nothing, the second may cost a little.
        let is_comparable = second <= first.saturating_mul(SECOND_COSTS_AT_MOST).max(100);
        let is_affordable = |budget: Credits| both <= budget.microcredits() / BUDGET_SHARE;
        is_comparable && self.budget.is_none_or(is_affordable)
    }
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HedgeDecision {
    /// Ask again when so many milliseconds have passed since the job was sent.
    WaitUntil {
        /// Milliseconds since then.
        elapsed_ms: u64,
    },
    /// The first output is late: ask a second provider, where its [`HedgeCost`] is fair.
    Start,
    /// Not for this request, or not any more.
    Never,
}

/// The hedging of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HedgePlan {
    /// `None`: never, or not any more.
    late_after_ms: Option<u64>,
}

impl HedgePlan {
    /// No hedging: for requests that must not run twice.
    pub const NEVER: Self = Self { late_after_ms: None };

    /// For a request of so many bytes that was sent to a provider that stands so.
    #[must_use]
    pub fn new(first: &Standing, body_bytes: u64, bounds: HedgeBounds) -> Self {
        let usual_ms = first
            .first_output_late_after_ms
            .map_or(bounds.unknown_ms, whole_ms);
        let bounded_ms = usual_ms.min(bounds.max_ms).max(bounds.min_ms);
        let reading_ms = body_bytes.saturating_sub(PROMPT_BYTES_FREE) / PROMPT_BYTES_PER_MS;
        Self {
            late_after_ms: Some(bounded_ms.saturating_add(reading_ms)),
        }
    }

    /// What to do so many milliseconds after the job was sent, while no output has come.
    #[must_use]
    pub const fn decide(&self, elapsed_ms: u64) -> HedgeDecision {
        match self.late_after_ms {
            None => HedgeDecision::Never,
            Some(late_after_ms) if elapsed_ms < late_after_ms => HedgeDecision::WaitUntil {
                elapsed_ms: late_after_ms,
            },
            Some(_) => HedgeDecision::Start,
        }
    }

    /// The second provider was asked, or nobody fits: there is no third.
    pub const fn done(&mut self) {
        self.late_after_ms = None;
    }
}

fn whole_ms(time_ms: f64) -> u64 {
    // Records bound their times; what is left of them fits.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to what fits"
    )]
    let whole_ms = time_ms.clamp(0.0, 1e12) as u64;
    whole_ms
}

/// A job adds so much to the allowance.
const ALLOWED_PER_JOB: u32 = 1;
/// A hedge takes so much.
const TAKEN_PER_HEDGE: u32 = 10;
/// So many hedges may come at once.
const HEDGES_AT_ONCE: u32 = 10;

/// How many more jobs may be hedged: where all providers have become slow, asking twice as many makes them slower.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HedgeAllowance(u32);

impl Default for HedgeAllowance {
    fn default() -> Self {
        Self(HEDGES_AT_ONCE * TAKEN_PER_HEDGE)
    }
}

impl HedgeAllowance {
    /// A job was sent to a provider.
    pub fn job_began(&mut self) {
        self.0 = (self.0 + ALLOWED_PER_JOB).min(HEDGES_AT_ONCE * TAKEN_PER_HEDGE);
    }

    /// Whether one more may be hedged.
    #[must_use]
    pub const fn is_left(self) -> bool {
        self.0 >= TAKEN_PER_HEDGE
    }

    /// One is.
    pub const fn take(&mut self) {
        self.0 = self.0.saturating_sub(TAKEN_PER_HEDGE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::AccountId;
    use crate::routing::records::{ProviderRecords, RecordEvent};
    use proptest::prelude::*;

    const PROVIDER: AccountId = AccountId::from_public_key([1; 32]);

    fn standing(latencies_ms: &[f64]) -> Standing {
        let mut records = ProviderRecords::default();
        for latency_ms in latencies_ms {
            records.note(
                PROVIDER,
                RecordEvent::FirstOutput {
                    latency_ms: *latency_ms,
                },
                0,
            );
        }
        records.standing(&PROVIDER, 0)
    }

    fn late_after_ms(latencies_ms: &[f64], body_bytes: u64) -> u64 {
        match HedgePlan::new(&standing(latencies_ms), body_bytes, HedgeBounds::default()).decide(0) {
            HedgeDecision::WaitUntil { elapsed_ms } => elapsed_ms,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn late_is_what_is_unusual_for_this_provider_within_bounds() {
        assert_eq!(late_after_ms(&[], 0), 4_000, "unknown");
        assert_eq!(late_after_ms(&[100.0], 0), 1_000, "never sooner");
        assert_eq!(late_after_ms(&[2_000.0], 0), 6_000, "mean and four deviations");
        assert!(late_after_ms(&[2_000.0; 40], 0) < 2_100, "it is always as fast");
        assert_eq!(late_after_ms(&[60_000.0], 0), 15_000, "never later");
    }

    #[test]
    fn a_long_prompt_is_given_time_to_be_read() {
        assert_eq!(late_after_ms(&[], 16_384), 4_000);
        assert_eq!(late_after_ms(&[], 16_384 + 80_000), 14_000);
    }

    #[test]
    fn it_waits_starts_once_and_never_again() {
        let mut plan = HedgePlan::new(&standing(&[]), 0, HedgeBounds::default());
        assert_eq!(plan.decide(3_999), HedgeDecision::WaitUntil { elapsed_ms: 4_000 });
        assert_eq!(plan.decide(4_000), HedgeDecision::Start);
        plan.done();
        assert_eq!(plan.decide(90_000), HedgeDecision::Never);
        assert_eq!(HedgePlan::NEVER.decide(90_000), HedgeDecision::Never);
    }

    #[test]
    fn both_may_cost_a_tenth_of_what_is_left_and_the_second_not_much_more() {
        let fair = |first, second, budget: Option<u32>| {
            let cost = HedgeCost {
                first: Credits::micro(first),
                second: Credits::micro(second),
                budget: budget.map(Credits::micro),
            };
            cost.is_fair()
        };
        assert!(fair(500, 500, Some(10_000)) && !fair(500, 501, Some(10_000)));
        assert!(fair(500, 1_500, None) && !fair(500, 1_501, None));
        assert!(fair(0, 100, None) && !fair(0, 101, None));
        assert!(!fair(1, 1, Some(0)) && fair(0, 0, Some(0)));
    }

    proptest! {
        /// However slow everybody is, no more than one job in ten is hedged, beside the first ten.
        #[test]
        fn one_in_ten_is_hedged(jobs in 0u32..2_000) {
            let (mut allowance, mut hedged) = (HedgeAllowance::default(), 0);
            for _ in 0..jobs {
                allowance.job_began();
                if allowance.is_left() {
                    allowance.take();
                    hedged += 1;
                }
            }
            prop_assert!(hedged <= HEDGES_AT_ONCE + jobs / 10);
            prop_assert!(hedged >= jobs / 10);
        }
    }
}
