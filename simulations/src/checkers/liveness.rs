//! Who could be served is served: where an honest provider with a free slot and a fitting price can be reached, and the
//! consumer can be reached and has credits, a job ends within bounded time, and not every job of a consumer fails.
//!
//! That a job ended badly once says nothing: a consumer may have met three liars in a row. That all of a consumer's jobs do
//! for as long as everything was there is a breach. Looked at between epochs, from everybody's true state.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Place;
use crate::engine::{Breach, NodeId};
use crate::people::popularity::ModelSize;

/// The rule's name in breaches.
pub const RULE: &str = "liveness";
/// Fewest failures in a row that say something.
const FAILURES_MIN: u32 = 3;

/// A consumer, as it truly is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConsumerView {
    /// Which.
    pub node: NodeId,
    /// Whether messages reach it and the coordinator, and it has credits or an open channel with room.
    pub is_able: bool,
    /// The job for which nothing has come for the longest time: of which model, its number, and since when.
    pub waiting: Option<(ModelSize, u64, u64)>,
    /// Of which model the newest job was that failed, where it was honestly asked for.
    pub failed_model: Option<ModelSize>,
    /// How many jobs have failed since the last one that was served, and since when.
    pub failures: u32,
    /// When the first of those was asked, in microseconds.
    pub failing_since_us: u64,
}

/// Since when what a job needs has been there without a break.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Liveness {
    /// How long a job may wait, or a consumer's jobs may fail, in microseconds.
    bound_us: u64,
    models: BTreeMap<ModelSize, u64>,
    consumers: BTreeMap<NodeId, u64>,
}

impl Liveness {
    /// A rule with a bound: longer than all of a consumer's waits and a provider's breakers together.
    #[must_use]
    pub const fn new(bound_us: u64) -> Self {
        Self {
            bound_us,
            models: BTreeMap::new(),
            consumers: BTreeMap::new(),
        }
    }

    /// Looks at everybody. `is_served` says whether an honest provider that can be reached has a free slot for a model at a
    /// price that consumers pay.
    ///
    /// # Errors
    /// The first consumer that could have been served and was not.
    pub fn survey(
        &mut self,
        now_us: u64,
        is_served: impl Fn(ModelSize) -> bool,
        consumers: impl IntoIterator<Item = ConsumerView>,
    ) -> Result<(), Breach> {
        for model in ModelSize::ALL {
            if is_served(model) {
                self.models.entry(model).or_insert(now_us);
            } else {
                self.models.remove(&model);
            }
        }
        for consumer in consumers {
            if !consumer.is_able {
                self.consumers.remove(&consumer.node);
                continue;
            }
            let able_since_us = *self.consumers.entry(consumer.node).or_insert(now_us);
            if let Some(message) = self.complaint(&consumer, able_since_us, now_us) {
                let place = Place {
                    node: consumer.node,
                    at_us: now_us,
                };
                return Err(place.breach(RULE, message));
            }
        }
        Ok(())
    }

    /// What a consumer that was able for so long could complain about.
    fn complaint(&self, consumer: &ConsumerView, able_since_us: u64, now_us: u64) -> Option<String> {
        // How long everything was there for something that began then.
        let possible_us = |model: ModelSize, since_us: u64| {
            let served_since_us = *self.models.get(&model)?;
            Some(now_us.saturating_sub(served_since_us.max(able_since_us).max(since_us)))
        };
        let is_over = |possible_us: &u64| *possible_us > self.bound_us;
        if let Some((model, job, since_us)) = consumer.waiting
            && let Some(waited_us) = possible_us(model, since_us).filter(is_over)
        {
            return Some(format!(
                "job {job} for {} has waited for {} s although it could have been served",
                model.name(),
                waited_us / 1_000_000
            ));
        }
        let model = consumer.failed_model?;
        let failed_us = possible_us(model, consumer.failing_since_us).filter(is_over)?;
        (consumer.failures >= FAILURES_MIN).then(|| {
            format!(
                "{} jobs in a row have failed in {} s although {} could have been served",
                consumer.failures,
                failed_us / 1_000_000,
                model.name()
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_US: u64 = 1_000_000;

    fn consumer() -> ConsumerView {
        ConsumerView {
            node: 9,
            is_able: true,
            waiting: None,
            failed_model: None,
            failures: 0,
            failing_since_us: 0,
        }
    }

    /// When the rule is broken, in seconds, where it looks every second for five minutes.
    fn broken_at(view: impl Fn(u64) -> ConsumerView, is_served: impl Fn(u64) -> bool) -> Option<u64> {
        let mut liveness = Liveness::new(60 * SECOND_US);
        (1..=300).find(|second| {
            let looked = liveness.survey(second * SECOND_US, |_| is_served(*second), [view(*second)]);
            looked.is_err_and(|breach| breach.rule == RULE && breach.node == 9)
        })
    }

    #[test]
    fn a_job_waits_no_longer_than_the_bound_while_it_could_be_served() {
        let waiting = |_| ConsumerView {
            waiting: Some((ModelSize::Small, 5, 10 * SECOND_US)),
            ..consumer()
        };
        assert_eq!(broken_at(waiting, |_| true), Some(71));
        // Served since 100 s only, or with a break at 60 s.
        assert_eq!(broken_at(waiting, |second| second >= 100), Some(161));
        assert_eq!(broken_at(waiting, |second| second != 60), Some(122));
        assert_eq!(broken_at(waiting, |_| false), None);
        let unreachable = |second| ConsumerView {
            is_able: second % 50 != 0,
            ..waiting(second)
        };
        assert_eq!(broken_at(unreachable, |_| true), None);
        // Something comes every 30 s.
        let progress = |second: u64| ConsumerView {
            waiting: Some((ModelSize::Small, 5, second / 30 * 30 * SECOND_US)),
            ..consumer()
        };
        assert_eq!(broken_at(progress, |_| true), None);
    }

    #[test]
    fn not_all_of_a_consumers_jobs_fail_while_they_could_be_served() {
        let failing = |failures| {
            move |_| ConsumerView {
                failed_model: Some(ModelSize::Large),
                failures,
                failing_since_us: 10 * SECOND_US,
                ..consumer()
            }
        };
        assert_eq!(broken_at(failing(3), |_| true), Some(71));
        assert_eq!(broken_at(failing(2), |_| true), None);
        assert_eq!(broken_at(failing(3), |second| second % 60 != 0), None);
    }
}
