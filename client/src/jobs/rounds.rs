//! Who was asked for a request, and when somebody may be asked once more.
//!
//! Other providers are asked at once, up to so many; that is a round. Then the request waits as the market's
//! [`RetryPlan`] says, and those may be asked again who had no room, or who failed before they had delivered
//! anything: what was delivered is paid, and nobody is paid twice for the same.

use std::collections::BTreeSet;

use gristmill_protocol::identity::AccountId;
use gristmill_protocol::routing::retry::{RetryPlan, RoundEnd, is_worth_another_try};
use rand::Rng;

use crate::core::failure::ApiFailure;

/// The rounds of one request. Times are milliseconds since it began.
#[derive(Clone, Debug)]
pub(super) struct Rounds {
    plan: RetryPlan,
    attempts_max: u32,
    /// How many were asked in this round and did more than say that they have no room.
    attempts: u32,
    /// Who is not asked again in this round.
    tried: BTreeSet<AccountId>,
    /// Those of them that only had no room.
    busy: BTreeSet<AccountId>,
    /// The soonest that one of those said to come back.
    busy_wait_ms: Option<u64>,
    /// Those of them whose failure may pass, and who delivered nothing.
    failed: BTreeSet<AccountId>,
    /// Whose failure was noted, in any round.
    noted: BTreeSet<AccountId>,
}

impl Rounds {
    /// Of a request that has to be answered by `deadline_ms`, where there is such a time.
    pub(super) const fn new(attempts_max: u32, deadline_ms: Option<u64>) -> Self {
        Self {
            plan: RetryPlan::new(deadline_ms),
            attempts_max,
            attempts: 0,
            tried: BTreeSet::new(),
            busy: BTreeSet::new(),
            busy_wait_ms: None,
            failed: BTreeSet::new(),
            noted: BTreeSet::new(),
        }
    }

    /// Who is not asked now.
    pub(super) const fn tried(&self) -> &BTreeSet<AccountId> {
        &self.tried
    }

    /// Who is not asked in later rounds either.
    pub(super) fn tried_for_good(&self) -> BTreeSet<AccountId> {
        let comes_back =
            |provider: &AccountId| self.busy.contains(provider) || self.failed.contains(provider);
        let lasting = self.tried.iter().filter(|provider| !comes_back(provider));
        lasting.copied().collect()
    }

    /// A provider was asked and is not asked again.
    pub(super) fn has_tried(&mut self, provider: AccountId) {
        self.tried.insert(provider);
    }

    /// It was there and had no room. Saying no at once costs nothing but patience.
    pub(super) fn was_busy(&mut self, provider: AccountId, retry_after_ms: u64) {
        self.busy.insert(provider);
        let soonest = self
            .busy_wait_ms
            .map_or(retry_after_ms, |known| known.min(retry_after_ms));
        self.busy_wait_ms = Some(soonest);
    }

    /// It failed; before it had delivered anything, where it may be asked again.
    pub(super) fn has_failed(&mut self, provider: AccountId, may_be_asked_again: bool) {
        self.attempts += 1;
        if may_be_asked_again {
            self.failed.insert(provider);
        }
    }

    /// Whether this request is to be counted among a provider's failures: it is one request, however often it asks.
    pub(super) fn is_first_failure(&mut self, provider: AccountId) -> bool {
        self.noted.insert(provider)
    }

    /// A part of the answer came: whoever is asked for the rest is asked for something else.
    pub(super) const fn begin_rest(&mut self) {
        self.attempts = 0;
    }

    /// Whether nobody more is asked in this round.
    pub(super) const fn is_over(&self) -> bool {
        self.attempts >= self.attempts_max
    }

    /// Begins the next round: how many milliseconds to wait before it. `has_others` says whether there are providers
    /// that were not asked yet. `None`: there is none, and the program is told `failure`.
    pub(super) fn next(
        &mut self,
        failure: &ApiFailure,
        has_others: bool,
        now_ms: u64,
        random: &mut impl Rng,
    ) -> Option<u64> {
        if let Some(retry_after_ms) = self.busy_wait_ms.take() {
            let end = RoundEnd::Busy { retry_after_ms };
            if let Some(wait_ms) = self.plan.next_wait_ms(end, now_ms, random) {
                self.let_back(|rounds| &mut rounds.busy);
                return Some(wait_ms);
            }
        }
        if (self.failed.is_empty() && !has_others) || !may_pass(failure) {
            return None;
        }
        let end = RoundEnd::Failed {
            status: failure.status,
            is_alone: !has_others && self.failed.union(&self.busy).count() == 1,
        };
        let wait_ms = self.plan.next_wait_ms(end, now_ms, random)?;
        self.let_back(|rounds| &mut rounds.failed);
        self.let_back(|rounds| &mut rounds.busy);
        self.attempts = 0;
        Some(wait_ms)
    }

    fn let_back(&mut self, who: impl FnOnce(&mut Self) -> &mut BTreeSet<AccountId>) {
        for provider in std::mem::take(who(self)) {
            self.tried.remove(&provider);
        }
    }
}

/// Whether the same request may be answered a little later. Credits do not come by waiting, nor do prices fall.
fn may_pass(failure: &ApiFailure) -> bool {
    failure.status != 402 && !failure.is_useless_to_repeat && is_worth_another_try(failure.status)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha8Rng;

    const ONE: AccountId = AccountId::from_public_key([1; 32]);
    const TWO: AccountId = AccountId::from_public_key([2; 32]);

    fn failure(status: u16) -> ApiFailure {
        ApiFailure::new(status, "code", "message")
    }

    fn random() -> ChaCha8Rng {
        ChaCha8Rng::seed_from_u64(7)
    }

    /// Asks somebody who fails.
    fn fail(rounds: &mut Rounds, provider: AccountId, may_be_asked_again: bool) {
        rounds.has_tried(provider);
        rounds.has_failed(provider, may_be_asked_again);
    }

    #[test]
    fn four_rounds_with_one_two_and_four_seconds_between_them() {
        let (mut rounds, mut random) = (Rounds::new(2, None), random());
        for expected_ms in [1_000u64, 2_000, 4_000] {
            fail(&mut rounds, ONE, true);
            assert!(!rounds.is_over());
            fail(&mut rounds, TWO, true);
            assert!(rounds.is_over() && rounds.tried().len() == 2);
            let wait_ms = rounds.next(&failure(502), false, 0, &mut random).unwrap();
            assert!(wait_ms.abs_diff(expected_ms) <= expected_ms / 4, "{wait_ms}");
            assert!(!rounds.is_over() && rounds.tried().is_empty());
        }
        fail(&mut rounds, ONE, true);
        assert_eq!(rounds.next(&failure(502), false, 0, &mut random), None);
    }

    #[test]
    fn one_provider_alone_is_asked_once_more_and_counts_as_one_failure() {
        let (mut rounds, mut random) = (Rounds::new(3, None), random());
        assert!(rounds.is_first_failure(ONE) && !rounds.is_first_failure(ONE));
        fail(&mut rounds, ONE, true);
        assert!(rounds.next(&failure(502), false, 0, &mut random).is_some());
        assert!(!rounds.is_first_failure(ONE) && rounds.is_first_failure(TWO));
        fail(&mut rounds, ONE, true);
        let mut beside_others = rounds.clone();
        assert_eq!(rounds.next(&failure(502), false, 0, &mut random), None);
        assert!(beside_others.next(&failure(502), true, 0, &mut random).is_some());
    }

    #[test]
    fn after_failures_that_do_not_pass_those_are_asked_who_were_not_yet() {
        let mut rounds = Rounds::new(1, None);
        fail(&mut rounds, ONE, false);
        assert_eq!(rounds.clone().next(&failure(500), false, 0, &mut random()), None);
        assert!(rounds.next(&failure(500), true, 0, &mut random()).is_some());
        assert_eq!(*rounds.tried(), BTreeSet::from([ONE]));
    }

    #[test]
    fn who_delivered_or_lied_is_not_asked_again() {
        let mut rounds = Rounds::new(3, None);
        fail(&mut rounds, ONE, false);
        assert_eq!(rounds.next(&failure(502), false, 0, &mut random()), None);
        fail(&mut rounds, TWO, true);
        assert_eq!(rounds.tried_for_good(), BTreeSet::from([ONE]));
        assert!(rounds.next(&failure(502), false, 0, &mut random()).is_some());
        assert_eq!(*rounds.tried(), BTreeSet::from([ONE]));
    }

    #[test]
    fn who_had_no_room_is_asked_when_it_said_and_costs_no_attempt() {
        let mut rounds = Rounds::new(1, None);
        rounds.has_tried(ONE);
        rounds.was_busy(ONE, 300);
        rounds.has_tried(TWO);
        rounds.was_busy(TWO, 200);
        assert!(!rounds.is_over());
        let wait_ms = rounds.next(&failure(503), false, 0, &mut random()).unwrap();
        assert!((200..=250).contains(&wait_ms), "{wait_ms}");
        assert!(rounds.tried().is_empty());
        rounds.has_tried(ONE);
        rounds.was_busy(ONE, 60_000);
        assert_eq!(
            rounds.next(&failure(503), false, 0, &mut random()),
            None,
            "too long"
        );
        assert_eq!(*rounds.tried(), BTreeSet::from([ONE]));
    }

    #[test]
    fn nothing_is_waited_for_that_does_not_pass_or_comes_too_late() {
        for (failure, deadline_ms) in [
            (failure(402), None),
            (failure(400), None),
            (failure(503).useless_to_repeat(), None),
            (failure(502), Some(700)),
        ] {
            let mut rounds = Rounds::new(3, deadline_ms);
            fail(&mut rounds, ONE, true);
            assert_eq!(
                rounds.next(&failure, false, 0, &mut random()),
                None,
                "{failure:?}"
            );
        }
    }
}
