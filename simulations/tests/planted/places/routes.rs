//! The places in routing.

use std::collections::{BTreeMap, BTreeSet};

use gristmill_protocol::board::Board;
use gristmill_protocol::identity::{AccountId, Keypair};
use gristmill_protocol::job::JobKind;
use gristmill_protocol::planted::Bug;
use gristmill_protocol::routing::affinity::PrefixDigests;
use gristmill_protocol::routing::breaker::{CircuitBreaker, FAILURES_TO_OPEN};
use gristmill_protocol::routing::candidates::{Asker, Needs, fitting};
use gristmill_protocol::routing::constraints::Constraints;
use gristmill_protocol::routing::records::ProviderRecords;
use gristmill_protocol::routing::retry::{RetryPlan, RoundEnd};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

use super::Place;
use super::boards::{MODEL, NOW, board, board_of_two, coordinator, provider};

pub(super) const PLACES: &[Place] = &[
    (Bug::BreakerStaysOpen, || {
        let mut breaker = CircuitBreaker::default();
        (0..FAILURES_TO_OPEN).for_each(|_| breaker.failed(0));
        !breaker.admits(86_400_000)
    }),
    (Bug::TriedProviderAskedAgain, || {
        fitting_beside(&board(), &BTreeSet::from([provider().account()])) > 0
    }),
    (Bug::OnlyCheapestLookedAt, || {
        fitting_beside(&board_of_two(), &BTreeSet::new()) < 2
    }),
    (Bug::RetryWaitsADay, || {
        wait_after_failure_ms().is_some_and(|wait_ms| wait_ms > 10_000)
    }),
    (Bug::NeverRetried, || wait_after_failure_ms().is_none()),
];

/// How many may be asked where these were asked before.
fn fitting_beside(board: &Board, tried: &BTreeSet<AccountId>) -> usize {
    let needs = Needs {
        kind: JobKind::ChatCompletions,
        model: MODEL,
        capabilities: &BTreeMap::new(),
        body_bytes: 1,
        output_tokens_max: None,
        choices: 1,
        context_length_above: 0,
        constraints: &Constraints::default(),
        prefix: &PrefixDigests::default(),
    };
    let asker = Asker {
        account: Keypair::from_secret(&[2; 32]).account(),
        coordinator: coordinator().account(),
        tried,
        funded: &BTreeSet::new(),
    };
    fitting(board, &needs, &asker, &ProviderRecords::default(), NOW).map_or(0, |fitting| fitting.len())
}

fn wait_after_failure_ms() -> Option<u64> {
    let failed = RoundEnd::Failed {
        status: 502,
        is_alone: false,
    };
    let mut random = ChaCha8Rng::seed_from_u64(1);
    RetryPlan::new(None).next_wait_ms(failed, 0, &mut random)
}
