//! What this client has seen of each provider: how fast it was, how often it failed lately, how much it has to do
//! for us now. Kept in memory only.

use std::collections::BTreeMap;

use gristmill_protocol::identity::AccountId;

/// Most providers that are remembered; beyond, the one heard of longest ago is forgotten.
const PROVIDERS_MAX: usize = 4_096;
/// In so many milliseconds half of a provider's failures are forgiven.
const FORGIVING_HALF_LIFE_MS: f64 = 60_000.0;
/// How much the newest measurement counts.
const LATENCY_WEIGHT: f64 = 0.3;
/// The time to the first output that is expected of a provider never measured, in milliseconds.
const LATENCY_UNKNOWN_MS: f64 = 300.0;
/// What a broken protocol or a lying meter counts, in failures.
const MISBEHAVIOUR_FAILURES: f64 = 64.0;
/// Most failures that are counted, so that every provider gets another chance some day.
const FAILURES_MAX: f64 = 256.0;
/// From so many failures on, a provider comes after all others.
const FAILURES_TOLERATED: f64 = 0.5;
/// Longest time for which a provider that said it is busy is passed over, in milliseconds.
const BUSY_MAX_MS: u64 = 30_000;

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

#[derive(Clone, Copy, Debug)]
struct Record {
    latency_ms: Option<f64>,
    /// Failures, as of `failures_at_ms`.
    failures: f64,
    failures_at_ms: u64,
    busy_until_ms: u64,
    jobs: u32,
    jobs_begun: u64,
    touched_at_ms: u64,
}

impl Record {
    const fn new(now_ms: u64) -> Self {
        Self {
            latency_ms: None,
            failures: 0.0,
            failures_at_ms: now_ms,
            busy_until_ms: 0,
            jobs: 0,
            jobs_begun: 0,
            touched_at_ms: now_ms,
        }
    }

    fn failures(&self, now_ms: u64) -> f64 {
        let age_ms = now_ms.saturating_sub(self.failures_at_ms) as f64;
        self.failures * (-age_ms / FORGIVING_HALF_LIFE_MS).exp2()
    }

    fn add_failures(&mut self, count: f64, now_ms: u64) {
        self.failures = (self.failures(now_ms) + count).min(FAILURES_MAX);
        self.failures_at_ms = now_ms;
    }
}

/// How a provider stands now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Standing {
    /// Whether it failed so often of late that others come first.
    pub is_failing: bool,
    /// Whether it said that it has no room now.
    pub is_busy: bool,
    /// The time to its first output that is to be expected, in milliseconds.
    pub latency_ms: f64,
    /// How many of our jobs it runs now.
    pub jobs: u32,
    /// How many of our jobs it was ever sent, the running ones among them.
    pub jobs_begun: u64,
}

/// The records of all providers.
#[derive(Clone, Debug, Default)]
pub struct ProviderRecords {
    records: BTreeMap<AccountId, Record>,
}

impl ProviderRecords {
    /// Takes note of what happened.
    pub fn note(&mut self, provider: AccountId, event: RecordEvent, now_ms: u64) {
        self.make_room(&provider);
        let record = self
            .records
            .entry(provider)
            .or_insert_with(|| Record::new(now_ms));
        record.touched_at_ms = now_ms;
        match event {
            RecordEvent::JobBegan => {
                record.jobs = record.jobs.saturating_add(1);
                record.jobs_begun = record.jobs_begun.saturating_add(1);
            }
            RecordEvent::JobEnded => record.jobs = record.jobs.saturating_sub(1),
            RecordEvent::FirstOutput { latency_ms } => {
                let known_ms = record.latency_ms.unwrap_or(latency_ms);
                record.latency_ms = Some(known_ms + LATENCY_WEIGHT * (latency_ms - known_ms));
                // Who answers is well again.
                record.busy_until_ms = 0;
            }
            RecordEvent::Failed => record.add_failures(1.0, now_ms),
            RecordEvent::Misbehaved => record.add_failures(MISBEHAVIOUR_FAILURES, now_ms),
            RecordEvent::Busy { retry_after_ms } => {
                record.busy_until_ms = now_ms.saturating_add(retry_after_ms.min(BUSY_MAX_MS));
            }
        }
    }

    /// How a provider stands. One that is not known has a clean record.
    #[must_use]
    pub fn standing(&self, provider: &AccountId, now_ms: u64) -> Standing {
        let fresh = Record::new(now_ms);
        let record = self.records.get(provider).unwrap_or(&fresh);
        Standing {
            is_failing: record.failures(now_ms) >= FAILURES_TOLERATED,
            is_busy: now_ms < record.busy_until_ms,
            latency_ms: record.latency_ms.unwrap_or(LATENCY_UNKNOWN_MS),
            jobs: record.jobs,
            jobs_begun: record.jobs_begun,
        }
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
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PROVIDER: AccountId = AccountId::from_public_key([1; 32]);

    fn after(events: &[RecordEvent]) -> ProviderRecords {
        let mut records = ProviderRecords::default();
        for event in events {
            records.note(PROVIDER, *event, 1_000);
        }
        records
    }

    #[test]
    fn failures_are_forgiven_with_time_and_lies_much_later() {
        let failing = |records: &ProviderRecords, now_ms| records.standing(&PROVIDER, now_ms).is_failing;
        let failed = after(&[RecordEvent::Failed]);
        assert!(failing(&failed, 1_000) && failing(&failed, 60_000));
        assert!(!failing(&failed, 61_001));
        let lied = after(&[RecordEvent::Misbehaved]);
        assert!(failing(&lied, 400_000));
        assert!(!failing(&lied, 500_000));
        let often = after(&[RecordEvent::Misbehaved; 100]);
        assert!(!failing(&often, 600_000), "even then some day");
    }

    #[test]
    fn latency_follows_the_measurements() {
        assert_eq!(after(&[]).standing(&PROVIDER, 0).latency_ms, LATENCY_UNKNOWN_MS);
        let first = RecordEvent::FirstOutput { latency_ms: 100.0 };
        let second = RecordEvent::FirstOutput { latency_ms: 200.0 };
        assert_eq!(after(&[first]).standing(&PROVIDER, 0).latency_ms, 100.0);
        assert!((after(&[first, second]).standing(&PROVIDER, 0).latency_ms - 130.0).abs() < 1e-9);
    }

    #[test]
    fn busy_ends_with_its_time_and_is_never_long() {
        let busy = |retry_after_ms, now_ms| {
            after(&[RecordEvent::Busy { retry_after_ms }])
                .standing(&PROVIDER, now_ms)
                .is_busy
        };
        assert!(busy(500, 1_499) && !busy(500, 1_500));
        assert!(!busy(u64::MAX, 1_000 + BUSY_MAX_MS));
    }

    #[test]
    fn memory_is_bounded_and_running_jobs_are_kept() {
        let mut records = after(&[RecordEvent::JobBegan]);
        for index in 0..=PROVIDERS_MAX {
            let mut key = [9; 32];
            key[..8].copy_from_slice(&index.to_le_bytes());
            records.note(
                AccountId::from_public_key(key),
                RecordEvent::Failed,
                2_000 + index as u64,
            );
        }
        assert_eq!(records.records.len(), PROVIDERS_MAX);
        assert_eq!(records.standing(&PROVIDER, 0).jobs, 1);
    }

    fn event() -> impl Strategy<Value = RecordEvent> {
        prop_oneof![
            Just(RecordEvent::JobBegan),
            Just(RecordEvent::JobEnded),
            (0.0f64..1e6).prop_map(|latency_ms| RecordEvent::FirstOutput { latency_ms }),
            Just(RecordEvent::Failed),
            Just(RecordEvent::Misbehaved),
            any::<u64>().prop_map(|retry_after_ms| RecordEvent::Busy { retry_after_ms }),
        ]
    }

    proptest! {
        /// Whatever happened, and however clocks jump, numbers stay numbers and everybody is forgiven in the end.
        #[test]
        fn records_stay_sane(events in proptest::collection::vec((event(), 0u64..1 << 40), 0..50)) {
            let mut records = ProviderRecords::default();
            for (event, now_ms) in events {
                records.note(PROVIDER, event, now_ms);
                let standing = records.standing(&PROVIDER, now_ms);
                prop_assert!(standing.latency_ms.is_finite() && standing.latency_ms >= 0.0);
            }
            let standing = records.standing(&PROVIDER, 1 << 41);
            prop_assert!(!standing.is_failing && !standing.is_busy);
        }
    }
}
