//! Who could be served is served: where an honest provider with a free slot, a fitting price and a fresh listing can be
//! reached by a consumer with credits, not every job of that consumer fails, and none is forgotten.
//!
//! That a job ended badly once says nothing: a consumer may have met three liars in a row. That one job after the other does
//! while one and the same provider could have served each of them is a breach. So is a provider that was there all the time
//! and fails one job after the other, a job that its program waits for longer than it has patience, a slot that is held
//! longer than all of a session's waits together, and output that is held back although its consumer has paid. Looked at
//! between epochs, from everybody's true state.
//!
//! Each bound follows from the shipped policy's own constants; none is tuned.

use std::collections::BTreeMap;

use gristmill_protocol::routing::breaker::FAILURES_TO_OPEN;
use gristmill_protocol::routing::retry::RETRY_WAITS_MS;
use gristmill_protocol::session::provider::ProviderTimeouts;
use serde::{Deserialize, Serialize};

use super::Place;
use crate::engine::{Breach, NodeId};
use crate::people::popularity::ModelSize;

mod history;

pub use history::{Broken, FailedJob, History, RememberedJobs};

/// The rule's name in breaches.
pub const RULE: &str = "liveness";
/// So many jobs fail, each asked after the one before had failed, before that says something.
pub const FAILURES_MIN: usize = 3;
/// How much later than due a program may be told, in microseconds: what passes between two looks, and more.
const TOLD_WITHIN_US: u64 = 5_000_000;

/// The longest that a job's plan waits between its rounds, in microseconds; a quarter is the most by which waits are spread.
#[must_use]
pub fn retry_waits_us() -> u64 {
    let waits_ms: u64 = RETRY_WAITS_MS.iter().sum();
    (waits_ms + waits_ms / 4) * 1_000
}

/// How many providers of whom nothing good is known one job may ask before it must have asked one that could serve it, where a
/// round asks `attempts` of them: in each round those come first who have not failed yet.
#[must_use]
pub const fn wasted_max(attempts: u64) -> u64 {
    attempts.saturating_mul(RETRY_WAITS_MS.len() as u64 + 1) - 1
}

/// The longest that a session holds a provider's slot, in microseconds: all of its waits together.
#[must_use]
pub fn slot_held_max_us() -> u64 {
    let ProviderTimeouts {
        body_ms,
        engine_ms,
        voucher_ms,
        settlement_ms,
    } = ProviderTimeouts::default();
    (body_ms + engine_ms + voucher_ms + settlement_ms) * 1_000 + TOLD_WITHIN_US
}

/// A provider that could serve a consumer now, as both truly are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Witness {
    /// Which.
    pub provider: NodeId,
    /// When it last could not, as far as that is known exactly, in microseconds.
    pub unable_us: u64,
    /// Those of the consumer's failed jobs that it could have served.
    pub could_serve: Vec<FailedJob>,
}

/// A consumer with jobs that failed, as it truly is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerView {
    /// Which.
    pub node: NodeId,
    /// Who could serve it; nobody where it cannot ask or pay.
    pub witnesses: Vec<Witness>,
    /// Providers that are there and have failed its last jobs one after the other.
    pub broken: Vec<Broken>,
}

/// Since when each provider that could serve an unserved consumer has been there without a break.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Liveness {
    witnesses: BTreeMap<NodeId, BTreeMap<NodeId, u64>>,
}

impl Liveness {
    /// Looks at all consumers of whom jobs have failed. Those who are not among them have no reason to complain.
    ///
    /// # Errors
    /// The first consumer that could have been served and was not.
    pub fn survey(
        &mut self,
        now_us: u64,
        consumers: impl IntoIterator<Item = ConsumerView>,
    ) -> Result<(), Breach> {
        let before = std::mem::take(&mut self.witnesses);
        for consumer in consumers {
            let known = before.get(&consumer.node);
            let mut since = BTreeMap::new();
            for witness in &consumer.witnesses {
                let seen_us = known.and_then(|known| known.get(&witness.provider));
                let since_us = seen_us.map_or(now_us, |seen_us| *seen_us).max(witness.unable_us);
                since.insert(witness.provider, since_us);
                let failed = one_after_the_other(&witness.could_serve, since_us);
                if failed >= FAILURES_MIN {
                    let message = format!(
                        "{failed} jobs failed one after the other although node {} could have served each of them",
                        witness.provider
                    );
                    return Err(place(consumer.node, now_us).breach(RULE, message));
                }
            }
            if let Some(broken) = consumer.broken.iter().find(|broken| broken.is_too_often()) {
                let message = format!(
                    "{} jobs failed one after the other at node {}, which is honest and was there all the time",
                    broken.in_a_row, broken.provider
                );
                return Err(place(consumer.node, now_us).breach(RULE, message));
            }
            self.witnesses.insert(consumer.node, since);
        }
        Ok(())
    }
}

impl Broken {
    /// As often as opens the shipped breaker: honest providers do not do that.
    fn is_too_often(&self) -> bool {
        self.in_a_row >= FAILURES_TO_OPEN
    }
}

/// A program is told after its patience, whatever happened to its job.
///
/// # Errors
/// The job that was forgotten.
pub fn is_told(
    model: ModelSize,
    asked_us: u64,
    patience_us: u64,
    consumer: NodeId,
    now_us: u64,
) -> Result<(), Breach> {
    let waits_us = now_us.saturating_sub(asked_us);
    if waits_us <= patience_us.saturating_add(TOLD_WITHIN_US) {
        return Ok(());
    }
    let message = format!(
        "a job for {} has waited for {} s and its program was told nothing",
        model.name(),
        waits_us / 1_000_000
    );
    Err(place(consumer, now_us).breach(RULE, message))
}

/// A provider's slot is free again some time after a job took it.
///
/// # Errors
/// The slot that is not.
pub fn frees_slot(taken_us: u64, provider: NodeId, now_us: u64) -> Result<(), Breach> {
    let held_us = now_us.saturating_sub(taken_us);
    if held_us <= slot_held_max_us() {
        return Ok(());
    }
    let message = format!("a job has held its slot for {} s", held_us / 1_000_000);
    Err(place(provider, now_us).breach(RULE, message))
}

/// A provider goes on with an answer as soon as it is paid.
///
/// # Errors
/// The output that it holds back since then.
pub fn goes_on(paid_us: u64, provider: NodeId, now_us: u64) -> Result<(), Breach> {
    let held_us = now_us.saturating_sub(paid_us);
    if held_us <= TOLD_WITHIN_US {
        return Ok(());
    }
    let message = format!(
        "output is held back for {} s although all before it is paid",
        held_us / 1_000_000
    );
    Err(place(provider, now_us).breach(RULE, message))
}

const fn place(node: NodeId, at_us: u64) -> Place {
    Place { node, at_us }
}

/// How many of these jobs, in the order in which they ended, were each asked after the one before had ended.
fn one_after_the_other(failed: &[FailedJob], since_us: u64) -> usize {
    let mut ended_us = since_us;
    failed
        .iter()
        .filter(|job| {
            let is_next = job.asked_us >= ended_us;
            if is_next {
                ended_us = job.ended_us;
            }
            is_next
        })
        .count()
}

#[cfg(test)]
mod tests;
