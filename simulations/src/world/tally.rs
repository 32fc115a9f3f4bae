//! What is counted while a market runs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::hardware_tally::HardwareTally;
use super::histogram::Histogram;

/// Why a request was not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Unserved {
    /// Nobody offers what is asked for, at such a price.
    NoOffer,
    /// All who could have served were busy or failed.
    NobodyLeft,
    /// The credits are used up.
    NoCredits,
    /// No channel could be opened, since the coordinator did not answer.
    NoCoordinator,
    /// It broke off after a part of the answer.
    BrokeOff,
    /// The program waited no longer.
    TooLate,
}

impl Unserved {
    /// Its name in results.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoOffer => "no_offer",
            Self::NobodyLeft => "nobody_left",
            Self::NoCredits => "no_credits",
            Self::NoCoordinator => "no_coordinator",
            Self::BrokeOff => "broke_off",
            Self::TooLate => "too_late",
        }
    }

    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::NoOffer,
        Self::NobodyLeft,
        Self::NoCredits,
        Self::NoCoordinator,
        Self::BrokeOff,
        Self::TooLate,
    ];
}

/// What is counted in one shard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Requests of programs.
    pub asked: u64,
    /// Answered whole.
    pub served: u64,
    /// Not, and why.
    pub unserved: BTreeMap<Unserved, u64>,
    /// Streams that were opened at providers.
    pub attempts: u64,
    /// Refusals.
    pub refused: u64,
    /// Refusals for want of room.
    pub busy: u64,
    /// Waits after which everybody could be asked again.
    pub retries: u64,
    /// Second providers that were asked because the first one was late.
    pub hedges: u64,
    /// Rests of answers that were bought elsewhere.
    pub continuations: u64,
    /// Providers that were found lying.
    pub misbehaved: u64,
    /// Output tokens that consumers received.
    pub output_tokens: u64,
    /// What consumers owe for what they received, in microcredits.
    pub paid: u64,
    /// Milliseconds from the request to the first output.
    pub first_token_ms: Histogram,
    /// Milliseconds from the request to the end of the answer.
    pub answer_ms: Histogram,
    /// Milliseconds since the listing was issued that a consumer chose by.
    pub listing_age_ms: Histogram,
    /// Microcredits per million output tokens of the offers that were chosen.
    pub price: Histogram,
    /// Listings that were published.
    pub published: u64,
    /// Listings that arrived for the first time.
    pub heard: u64,
    /// Invalid listings that arrived for the first time.
    pub invalid_heard: u64,
    /// Milliseconds from publishing to a first arrival.
    pub delivery_ms: Histogram,
    /// Bytes of everything else that was sent.
    pub message_bytes: u64,
    /// Messages that went to somebody who was gone or cut off.
    pub lost: u64,
    /// Microseconds that calls waited for the coordinator's disk.
    pub coordinator_wait_us: Histogram,
    /// Calls that the coordinator refused.
    pub coordinator_refusals: u64,
    /// Vouchers that a crash lost, in microcredits.
    pub lost_vouchers: u64,
    /// Work that was delivered and never promised when its channel or provider ended, in microcredits.
    pub unpaid: u64,
    /// Departures of providers.
    pub departures: u64,
    /// Starter credits that were given, and those of them for made-up accounts, in microcredits.
    pub starter_given: u64,
    /// See there.
    pub farmed: u64,
    /// Consumers that left without a word and a voucher.
    pub vanished: u64,
    /// Meters that an audit found to be lies, and models that a spot check did.
    pub lies_found: u64,
    /// Output tokens that were claimed and not there, in what was paid.
    pub inflated_tokens: u64,
    /// Challenges of hardware.
    pub hardware: HardwareTally,
    /// Bytes of gossip of nodes before they went offline.
    pub past_gossip_bytes: u64,
}

impl Tally {
    /// Counts a request that was not served.
    pub fn unserved(&mut self, why: Unserved) {
        *self.unserved.entry(why).or_insert(0) += 1;
    }

    /// Adds what another shard counted.
    pub fn merge(&mut self, other: &Self) {
        self.hardware.merge(&other.hardware);
        for (why, count) in &other.unserved {
            *self.unserved.entry(*why).or_insert(0) += count;
        }
        for (one, more) in [
            (&mut self.asked, other.asked),
            (&mut self.served, other.served),
            (&mut self.attempts, other.attempts),
            (&mut self.refused, other.refused),
            (&mut self.busy, other.busy),
            (&mut self.retries, other.retries),
            (&mut self.hedges, other.hedges),
            (&mut self.continuations, other.continuations),
            (&mut self.misbehaved, other.misbehaved),
            (&mut self.output_tokens, other.output_tokens),
            (&mut self.paid, other.paid),
            (&mut self.published, other.published),
            (&mut self.heard, other.heard),
            (&mut self.invalid_heard, other.invalid_heard),
            (&mut self.message_bytes, other.message_bytes),
            (&mut self.lost, other.lost),
            (&mut self.coordinator_refusals, other.coordinator_refusals),
            (&mut self.lost_vouchers, other.lost_vouchers),
            (&mut self.unpaid, other.unpaid),
            (&mut self.departures, other.departures),
            (&mut self.starter_given, other.starter_given),
            (&mut self.farmed, other.farmed),
            (&mut self.vanished, other.vanished),
            (&mut self.lies_found, other.lies_found),
            (&mut self.inflated_tokens, other.inflated_tokens),
            (&mut self.past_gossip_bytes, other.past_gossip_bytes),
        ] {
            *one += more;
        }
        for (one, more) in [
            (&mut self.first_token_ms, &other.first_token_ms),
            (&mut self.answer_ms, &other.answer_ms),
            (&mut self.listing_age_ms, &other.listing_age_ms),
            (&mut self.price, &other.price),
            (&mut self.delivery_ms, &other.delivery_ms),
            (&mut self.coordinator_wait_us, &other.coordinator_wait_us),
        ] {
            one.merge(more);
        }
    }
}
