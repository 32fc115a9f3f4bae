//! Counts what a node has done since it was started, for its owner.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use gristmill_protocol::credits::Credits;
use gristmill_protocol::job::JobKind;
use gristmill_protocol::session::provider::{ProviderEnd, ProviderOutcome};
use gristmill_protocol::usage::Unit;
use serde::Serialize;

/// What was done with one model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct ModelTally {
    /// Jobs delivered whole.
    pub(crate) completed: u64,
    /// Jobs whose engine failed or whose request could not be honoured.
    pub(crate) failed: u64,
    /// Jobs whose consumer left.
    pub(crate) cancelled: u64,
    /// Jobs ended because no voucher came, or the consumer broke the protocol.
    pub(crate) unpaid: u64,
    /// Tokens read.
    pub(crate) input_tokens: u64,
    /// Tokens written.
    pub(crate) output_tokens: u64,
    /// What all that costs, in microcredits.
    pub(crate) delivered: Credits,
}

/// Counts by kind and model. There are only so many: those that were on offer.
#[derive(Debug, Default)]
pub(crate) struct Tally(Mutex<BTreeMap<(JobKind, String), ModelTally>>);

impl Tally {
    pub(crate) fn note(&self, kind: JobKind, model: &str, outcome: &ProviderOutcome) {
        let mut models = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let tally = models.entry((kind, model.to_owned())).or_default();
        *match outcome.reason {
            ProviderEnd::Completed => &mut tally.completed,
            ProviderEnd::Failed => &mut tally.failed,
            ProviderEnd::ConsumerLeft => &mut tally.cancelled,
            ProviderEnd::Unpaid | ProviderEnd::Misbehaved => &mut tally.unpaid,
        } += 1;
        tally.input_tokens += outcome.usage.count(Unit::InputToken);
        tally.output_tokens += outcome.usage.count(Unit::OutputToken);
        tally.delivered = tally.delivered.saturating_add(outcome.cost);
    }

    /// The counts so far.
    pub(crate) fn counts(&self) -> BTreeMap<(JobKind, String), ModelTally> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
