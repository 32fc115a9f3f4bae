//! How good a candidate is for a request: what it will probably cost, how long it will probably take, and how it has
//! behaved.

use crate::board::Candidate;
use crate::credits::Credits;
use crate::routing::candidates::Needs;
use crate::routing::records::Standing;
use crate::usage::{Price, Unit, Usage};

/// Bytes of text per token of a prompt, for an estimate.
const BYTES_PER_TOKEN: u64 = 4;
/// Output tokens per choice that are expected of a request, unless it allows fewer.
const OUTPUT_TOKENS_EXPECTED: u64 = 512;
/// So many milliseconds of waiting for the first output are worth as much as the price of the answer.
const WAITING_WORTH_PRICE_MS: f64 = 2_000.0;
/// So many milliseconds of writing are worth as much as the price of the answer: people read along.
const WRITING_WORTH_PRICE_MS: f64 = 20_000.0;
/// What each job that finds no slot free is expected to take longer, in milliseconds.
const NO_SLOT_WAIT_MS: f64 = 1_000.0;
/// A provider that has a channel already is preferred at prices and times up to so much worse: opening another
/// channel sets credits aside.
const FUNDED_ADVANTAGE: f64 = 1.15;
/// What a provider never measured is expected to write in a second must not make it slower than anybody: a limit.
const TOKENS_PER_SECOND_MIN: f64 = 0.1;

/// How good a candidate is. The first three set candidates apart whatever else they have to offer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rank {
    /// It failed of late: others come first.
    pub is_failing: bool,
    /// It said that it has no room.
    pub is_busy: bool,
    /// The prompt may be too long for it.
    pub may_overflow: bool,
    /// Expected cost, weighted with time and record: less is better, always positive and finite.
    pub score: f64,
}

impl Rank {
    /// Of a candidate that stands so.
    #[must_use]
    pub fn of(candidate: &Candidate<'_>, needs: &Needs<'_>, standing: &Standing, is_funded: bool) -> Self {
        let usage = expected_usage(needs);
        let cost = likely_cost(&candidate.offer.price, needs).microcredits() as f64;
        let waiting_ms = standing.expected_first_output_ms() + slot_wait_ms(candidate, standing);
        let tokens_per_second = standing.expected_tokens_per_second().max(TOKENS_PER_SECOND_MIN);
        let writing_ms = usage.count(Unit::OutputToken) as f64 * 1_000.0 / tokens_per_second;
        let time = 1.0 + waiting_ms / WAITING_WORTH_PRICE_MS + writing_ms / WRITING_WORTH_PRICE_MS;
        // An attempt that fails takes the time of another one.
        let record = 1.0 + standing.failures;
        let funded = if is_funded { 1.0 } else { FUNDED_ADVANTAGE };
        Self {
            is_failing: standing.is_failing,
            is_busy: standing.is_busy,
            may_overflow: needs.body_bytes / BYTES_PER_TOKEN > u64::from(candidate.offer.context_length),
            // Free offers still differ in time.
            score: (cost + 1.0) * time * record * funded,
        }
    }

    /// The class: whoever is in a lower one comes first.
    #[must_use]
    pub const fn class(&self) -> (bool, bool, bool) {
        (self.is_failing, self.is_busy, self.may_overflow)
    }
}

fn slot_wait_ms(candidate: &Candidate<'_>, standing: &Standing) -> f64 {
    let slots = u32::from(candidate.listing.slots);
    let waiting = (standing.jobs + 1).saturating_sub(slots);
    if waiting > 0 {
        return f64::from(waiting) * NO_SLOT_WAIT_MS;
    }
    if candidate.listing.free_slots == 0 {
        NO_SLOT_WAIT_MS
    } else {
        0.0
    }
}

/// What a request will probably cost at a price: to compare offers by, not to be paid.
#[must_use]
pub fn likely_cost(price: &Price, needs: &Needs<'_>) -> Credits {
    // A price that is no amount is as bad as the worst one.
    price.cost(&expected_usage(needs)).unwrap_or(Credits::MAX)
}

/// What the request will probably use.
fn expected_usage(needs: &Needs<'_>) -> Usage {
    let output = if needs.kind.is_generated_text() {
        let expected = OUTPUT_TOKENS_EXPECTED.saturating_mul(needs.choices);
        needs
            .output_tokens_max
            .map_or(expected, |most| most.min(expected))
    } else {
        0
    };
    Usage::tokens(needs.body_bytes / BYTES_PER_TOKEN, output).with(Unit::ByteIn, needs.body_bytes)
}
