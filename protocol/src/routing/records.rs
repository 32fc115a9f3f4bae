//! What this client has seen of each provider: how fast it was, how often it failed lately, how much it has to do
//! for us now. Kept in memory only.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::identity::AccountId;
use crate::routing::affinity::{PrefixAffinity, PrefixDigests};
use crate::routing::breaker::{BreakerState, CircuitBreaker};
use crate::routing::float_bits;
use crate::routing::hedge::HedgeAllowance;

/// Most providers that are remembered; beyond, the one heard of longest ago is forgotten.
const PROVIDERS_MAX: usize = 4_096;
/// In so many milliseconds half of a provider's failures are forgiven.
pub const FORGIVING_HALF_LIFE_MS: u64 = 60_000;
/// After so many half-lives nothing is left of a failure.
const HALF_LIVES_MAX: u64 = 30;
/// Most failures that are counted, so that every provider gets another chance some day.
const FAILURES_MAX: f64 = 64.0;
/// From so many failures on, a provider comes after all others.
const FAILURES_TOLERATED: f64 = 0.5;
/// Longest time for which a provider that said it is busy is passed over, in milliseconds.
const BUSY_MAX_MS: u64 = 30_000;
/// The time to the first output that is expected of a provider never measured, in milliseconds. Rather short, so that
/// new ones are tried.
pub const FIRST_OUTPUT_UNKNOWN_MS: f64 = 300.0;
/// The output tokens per second that are expected of a provider never measured.
pub const TOKENS_PER_SECOND_UNKNOWN: f64 = 50.0;
/// How much the newest measurement of speed counts.
const SPEED_WEIGHT: f64 = 0.3;
/// How much the newest measurement of the deviation counts.
const DEVIATION_WEIGHT: f64 = 0.25;
/// So many deviations above its mean a first output is late: K of RFC 6298, which covers about 95 of 100 for the
/// skewed distributions that waits have.
const DEVIATIONS_TO_BE_LATE: f64 = 4.0;
/// Answers with fewer output tokens say nothing of the speed.
const TOKENS_TO_MEASURE: u64 = 8;
/// Longest time that is taken as a measurement, in milliseconds.
const MEASURED_MAX_MS: f64 = 3_600_000.0;

/// What happened with a provider.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RecordEvent {
    /// A job was sent to it.
    JobBegan,
    /// Its first output came so many milliseconds after the job was sent.
    FirstOutput {
        /// Milliseconds.
        latency_ms: f64,
    },
    /// It had given no output after so many milliseconds, when another provider was faster: its own time is not known,
    /// only that it is longer.
    WasLate {
        /// Milliseconds.
        waited_ms: f64,
    },
    /// It gave a whole answer.
    Delivered {
        /// How many output tokens it has.
        output_tokens: u64,
        /// Milliseconds from its first output to its end.
        output_ms: f64,
    },
    /// A job with it is over, well or not, and its stream is closed.
    JobEnded,
    /// It failed, was unreachable or too slow.
    Failed,
    /// It broke the protocol or its meter lied.
    Misbehaved,
    /// It has no room; asking again makes sense after so many milliseconds.
    Busy {
        /// Milliseconds.
        retry_after_ms: u64,
    },
}

/// Mean and mean deviation, the newest measurements weighing most; section 2 of RFC 6298.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct SmoothedTime {
    #[serde(with = "float_bits")]
    mean_ms: f64,
    #[serde(with = "float_bits")]
    deviation_ms: f64,
}

impl SmoothedTime {
    fn after(known: Option<Self>, measured_ms: f64) -> Self {
        let measured_ms = sane(measured_ms, MEASURED_MAX_MS);
        let Some(known) = known else {
            return Self {
                mean_ms: measured_ms,
                deviation_ms: measured_ms / 2.0,
            };
        };
        let off_ms = (measured_ms - known.mean_ms).abs();
        Self {
            deviation_ms: known.deviation_ms + DEVIATION_WEIGHT * (off_ms - known.deviation_ms),
            mean_ms: known.mean_ms + SPEED_WEIGHT * (measured_ms - known.mean_ms),
        }
    }
}

/// A measurement within bounds, whatever a clock made of it.
fn sane(measured: f64, most: f64) -> f64 {
    if measured.is_nan() {
        most
    } else {
        measured.clamp(0.0, most)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Record {
    first_output: Option<SmoothedTime>,
    #[serde(with = "float_bits::option")]
    tokens_per_second: Option<f64>,
    /// Failures, as of `failures_at_ms`.
    #[serde(with = "float_bits")]
    failures: f64,
    failures_at_ms: u64,
    breaker: CircuitBreaker,
    busy_until_ms: u64,
    jobs: u32,
    jobs_begun: u64,
    totals: Totals,
    touched_at_ms: u64,
}

/// How the jobs of a provider ended since it was first heard of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Whole answers.
    pub delivered: u64,
    /// Failures, lies among them.
    pub failed: u64,
    /// Lies and broken protocol.
    pub misbehaved: u64,
}

impl Record {
    fn failures(&self, now_ms: u64) -> f64 {
        let age_ms = now_ms.saturating_sub(self.failures_at_ms);
        let halvings = age_ms / FORGIVING_HALF_LIFE_MS;
        if halvings >= HALF_LIVES_MAX {
            return 0.0;
        }
        // Halved each half-life, and straight in between: no function whose last digits differ between machines.
        let within = (age_ms % FORGIVING_HALF_LIFE_MS) as f64 / FORGIVING_HALF_LIFE_MS as f64;
        self.failures / (1u64 << halvings) as f64 * (1.0 - within / 2.0)
    }

    fn add_failure(&mut self, now_ms: u64) {
        self.failures = (self.failures(now_ms) + 1.0).min(FAILURES_MAX);
        self.failures_at_ms = now_ms;
        self.totals.failed += 1;
    }

    fn delivered(&mut self, output_tokens: u64, output_ms: f64, now_ms: u64) {
        self.totals.delivered += 1;
        self.breaker.succeeded(now_ms);
        let output_ms = sane(output_ms, MEASURED_MAX_MS);
        if output_tokens < TOKENS_TO_MEASURE || output_ms < 1.0 {
            return;
        }
        let measured = output_tokens as f64 * 1_000.0 / output_ms;
        let known = self.tokens_per_second.unwrap_or(measured);
        self.tokens_per_second = Some(known + SPEED_WEIGHT * (measured - known));
    }

    fn note(&mut self, event: RecordEvent, now_ms: u64) {
        self.touched_at_ms = now_ms;
        match event {
            RecordEvent::JobBegan => {
                self.jobs = self.jobs.saturating_add(1);
                self.jobs_begun += 1;
                self.breaker.began(now_ms);
            }
            RecordEvent::JobEnded => {
                self.jobs = self.jobs.saturating_sub(1);
                if self.jobs == 0 {
                    self.breaker.idle();
                }
            }
            RecordEvent::FirstOutput { latency_ms } => {
                self.first_output = Some(SmoothedTime::after(self.first_output, latency_ms));
                // Who answers is well again.
                self.busy_until_ms = 0;
            }
            RecordEvent::WasLate { waited_ms } => {
                // A wait that is shorter than usual says nothing.
                let usual_ms = self.first_output.map_or(0.0, |times| times.mean_ms);
                if waited_ms > usual_ms {
                    self.first_output = Some(SmoothedTime::after(self.first_output, waited_ms));
                }
            }
            RecordEvent::Delivered {
                output_tokens,
                output_ms,
            } => self.delivered(output_tokens, output_ms, now_ms),
            RecordEvent::Failed => {
                self.add_failure(now_ms);
                self.breaker.failed(now_ms);
            }
            RecordEvent::Misbehaved => {
                self.add_failure(now_ms);
                self.totals.misbehaved += 1;
                self.breaker.misbehaved(now_ms);
            }
            RecordEvent::Busy { retry_after_ms } => {
                self.busy_until_ms = now_ms.saturating_add(retry_after_ms.min(BUSY_MAX_MS));
            }
        }
    }

    fn standing(&self, now_ms: u64) -> Standing {
        Standing {
            is_failing: self.failures(now_ms) >= FAILURES_TOLERATED,
            failures: self.failures(now_ms),
            is_busy: now_ms < self.busy_until_ms,
            first_output_ms: self.first_output.map(|times| times.mean_ms),
            first_output_late_after_ms: self
                .first_output
                .map(|times| times.mean_ms + DEVIATIONS_TO_BE_LATE * times.deviation_ms),
            tokens_per_second: self.tokens_per_second,
            jobs: self.jobs,
            jobs_begun: self.jobs_begun,
            totals: self.totals,
            breaker: self.breaker.state(now_ms),
            is_admitted: self.breaker.admits(now_ms),
            breaker_wait_ms: self.breaker.wait_ms(now_ms),
        }
    }
}

/// How a provider stands now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Standing {
    /// Whether it failed so often of late that others come first.
    pub is_failing: bool,
    /// Its failures, half of which are forgiven each minute.
    pub failures: f64,
    /// Whether it said that it has no room now.
    pub is_busy: bool,
    /// The mean time to its first output in milliseconds, where it was measured.
    pub first_output_ms: Option<f64>,
    /// After how many milliseconds its first output is late: about 95 of 100 come sooner.
    pub first_output_late_after_ms: Option<f64>,
    /// How many output tokens it writes in a second, where it was measured.
    pub tokens_per_second: Option<f64>,
    /// How many of our jobs it runs now.
    pub jobs: u32,
    /// How many of our jobs it was ever sent, the running ones among them.
    pub jobs_begun: u64,
    /// How they ended.
    pub totals: Totals,
    /// Its circuit breaker.
    pub breaker: BreakerState,
    /// Whether the breaker lets another job through.
    pub is_admitted: bool,
    /// In how many milliseconds the breaker may let one through; zero where it does now.
    pub breaker_wait_ms: u64,
}

impl Standing {
    /// The time to its first output that is to be expected, in milliseconds.
    #[must_use]
    pub fn expected_first_output_ms(&self) -> f64 {
        self.first_output_ms.unwrap_or(FIRST_OUTPUT_UNKNOWN_MS)
    }

    /// The output tokens per second that are to be expected.
    #[must_use]
    pub fn expected_tokens_per_second(&self) -> f64 {
        self.tokens_per_second.unwrap_or(TOKENS_PER_SECOND_UNKNOWN)
    }
}

/// The records of all providers.
///
/// A simulator writes them down and reads them back; every number is the same to the bit afterwards.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProviderRecords {
    records: BTreeMap<AccountId, Record>,
    affinity: PrefixAffinity,
    hedges: HedgeAllowance,
}

impl ProviderRecords {
    /// Takes note of what happened.
    pub fn note(&mut self, provider: AccountId, event: RecordEvent, now_ms: u64) {
        self.make_room(&provider);
        self.records.entry(provider).or_default().note(event, now_ms);
        if event == RecordEvent::JobBegan {
            self.hedges.job_began();
        }
    }

    /// How a provider stands. One that is not known has a clean record.
    #[must_use]
    pub fn standing(&self, provider: &AccountId, now_ms: u64) -> Standing {
        let fresh = Record::default();
        self.records.get(provider).unwrap_or(&fresh).standing(now_ms)
    }

    /// How everybody stands who was ever heard of, by account.
    pub fn standings(&self, now_ms: u64) -> impl Iterator<Item = (AccountId, Standing)> {
        self.records
            .iter()
            .map(move |(provider, record)| (*provider, record.standing(now_ms)))
    }

    /// Remembers who has read a prompt, so that its conversation can stay there.
    pub fn remember_prefix(&mut self, prefix: &PrefixDigests, provider: AccountId, now_ms: u64) {
        self.affinity.remember(prefix, provider, now_ms);
    }

    /// Who has read the longest part of a prompt, as far as is known.
    #[must_use]
    pub fn prefix_holder(&self, prefix: &PrefixDigests, now_ms: u64) -> Option<AccountId> {
        self.affinity.holder(prefix, now_ms)
    }

    /// Whether one more job may be hedged now: at most about one in ten is, however slow everybody is.
    #[must_use]
    pub const fn may_hedge(&self) -> bool {
        self.hedges.is_left()
    }

    /// Takes note that a job is hedged.
    pub const fn hedge_began(&mut self) {
        self.hedges.take();
    }

    fn make_room(&mut self, provider: &AccountId) {
        if self.records.len() < PROVIDERS_MAX || self.records.contains_key(provider) {
            return;
        }
        let idle = self.records.iter().filter(|(_, record)| record.jobs == 0);
        let oldest = idle
            .min_by_key(|(_, record)| record.touched_at_ms)
            .map(|(oldest, _)| *oldest);
        if let Some(oldest) = oldest {
            self.records.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests;
