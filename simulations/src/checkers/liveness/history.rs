//! What one consumer has lived through, told by itself as it happens: its failed jobs, and what it has reason to hold
//! against whom.

use std::collections::{BTreeMap, VecDeque};

use gristmill_protocol::routing::breaker::{
    OPEN_AFTER_FAILURES_MS, OPEN_AFTER_LIE_MS, PROBE_FORGOTTEN_AFTER_MS,
};
use gristmill_protocol::routing::records::FORGIVING_HALF_LIFE_MS;
use serde::{Deserialize, Serialize};

use crate::engine::NodeId;
use crate::people::popularity::ModelSize;

/// Most failed jobs that are remembered; beyond, the oldest one is forgotten, which makes the rule laxer, never stricter.
const FAILED_MAX: usize = 64;

/// A job whose program was told that there is no answer, and of which nothing had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedJob {
    /// What was asked.
    pub model: ModelSize,
    /// When, in microseconds.
    pub asked_us: u64,
    /// When the program was told.
    pub ended_us: u64,
    /// Tokens of the prompt.
    pub input_tokens: u32,
    /// Tokens of the answer that was wanted.
    pub output_tokens: u32,
    /// The most that had to be set aside for it, in microcredits.
    pub cost_max: u64,
    /// Who had it for more than half of the program's patience when that was over.
    pub held_by: Option<NodeId>,
}

/// A provider that failed jobs one after the other, with none between them that it served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Which.
    pub provider: NodeId,
    /// How many, each begun after the one before had failed.
    pub in_a_row: u32,
    /// When the first of them began, in microseconds.
    pub since_us: u64,
}

/// What a consumer holds against a provider.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Held {
    in_a_row: u32,
    since_us: u64,
    ended_us: u64,
    /// Failures that may not all be forgiven yet.
    failures: u32,
    shunned_until_us: u64,
}

/// What one consumer has lived through.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    failed: VecDeque<FailedJob>,
    providers: BTreeMap<NodeId, Held>,
}

/// Failed jobs in the order in which they ended.
pub type RememberedJobs<'a> = std::collections::vec_deque::Iter<'a, FailedJob>;

impl History {
    /// A job was served to its end: those for the same model that failed before count no more.
    pub fn served(&mut self, model: ModelSize) {
        self.failed.retain(|failed| failed.model != model);
    }

    /// A program was told that there is no answer.
    pub fn unserved(&mut self, job: FailedJob) {
        if self.failed.len() >= FAILED_MAX {
            self.failed.pop_front();
        }
        self.failed.push_back(job);
    }

    /// A provider served a job to its end.
    pub fn delivered(&mut self, provider: NodeId) {
        if let Some(held) = self.providers.get_mut(&provider) {
            held.in_a_row = 0;
        }
    }

    /// A provider failed a job that it was sent at `began_us`.
    pub fn broke(&mut self, provider: NodeId, began_us: u64, now_us: u64) {
        self.providers
            .retain(|_, held| held.in_a_row > 0 || now_us < held.shunned_until_us);
        let held = self.providers.entry(provider).or_default();
        if held.in_a_row == 0 {
            (held.in_a_row, held.since_us, held.ended_us) = (1, began_us, now_us);
        } else if began_us >= held.ended_us {
            held.in_a_row += 1;
            held.ended_us = now_us;
        }
        if now_us >= held.shunned_until_us {
            held.failures = 0;
        }
        held.failures = held.failures.saturating_add(1);
        // As long as its breaker may be open, and a probe may be on its way; and until less than one failure in two is left.
        let halvings = u64::from(held.failures.ilog2()) + 2;
        let shunned_ms =
            (OPEN_AFTER_FAILURES_MS + PROBE_FORGOTTEN_AFTER_MS).max(halvings * FORGIVING_HALF_LIFE_MS);
        held.shunned_until_us = held.shunned_until_us.max(now_us + shunned_ms * 1_000);
    }

    /// A provider was found to lie or to break the protocol.
    pub fn lied(&mut self, provider: NodeId, now_us: u64) {
        let shunned_ms = OPEN_AFTER_LIE_MS + PROBE_FORGOTTEN_AFTER_MS;
        let held = self.providers.entry(provider).or_default();
        held.failures = held.failures.saturating_add(1);
        held.shunned_until_us = held.shunned_until_us.max(now_us + shunned_ms * 1_000);
    }

    /// Until when this consumer has reason to ask others first.
    #[must_use]
    pub fn shunned_until_us(&self, provider: NodeId) -> u64 {
        self.providers
            .get(&provider)
            .map_or(0, |held| held.shunned_until_us)
    }

    /// The jobs that failed and count.
    #[must_use]
    pub fn failed(&self) -> RememberedJobs<'_> {
        self.failed.iter()
    }

    /// Who failed jobs one after the other.
    pub fn broken(&self) -> impl Iterator<Item = Broken> {
        self.providers
            .iter()
            .filter(|(_, held)| held.in_a_row > 0)
            .map(|(provider, held)| Broken {
                provider: *provider,
                in_a_row: held.in_a_row,
                since_us: held.since_us,
            })
    }

    /// Whether there is anything to complain about.
    #[must_use]
    pub fn complains(&self) -> bool {
        !self.failed.is_empty() || self.broken().next().is_some()
    }
}
