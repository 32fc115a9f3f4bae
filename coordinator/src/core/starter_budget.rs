//! Who is given a starter grant, and how much all new accounts together are given in one UTC day. However many
//! accounts somebody makes up, the operator loses at most the day's budget.

use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::ids::GrantId;

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// What was given today, and what may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StarterBudget {
    grant: Credits,
    daily_max: Credits,
    day: u64,
    given: Credits,
}

/// What to do about a new account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StarterDecision {
    /// Give it this much; it is counted already. Tell [`StarterBudget::give_back`] where that fails.
    Give(Credits),
    /// Starter grants are off.
    Off,
    /// Today's budget is used up; a later day has another one.
    Exhausted,
}

impl StarterBudget {
    /// A budget of which `given` was given on the day of `now_ms`.
    #[must_use]
    pub const fn new(grant: Credits, daily_max: Credits, given: Credits, now_ms: u64) -> Self {
        Self {
            grant,
            daily_max,
            day: now_ms / DAY_MS,
            given,
        }
    }

    /// When the UTC day of `now_ms` began, Unix milliseconds.
    #[must_use]
    pub const fn day_began_ms(now_ms: u64) -> u64 {
        now_ms - now_ms % DAY_MS
    }

    /// Decides about one account that has had no starter grant, and counts what it is given.
    pub fn decide(&mut self, now_ms: u64) -> StarterDecision {
        if self.grant.is_zero() {
            return StarterDecision::Off;
        }
        let day = now_ms / DAY_MS;
        // A clock that is set back does not open yesterday's budget again.
        if day > self.day {
            (self.day, self.given) = (day, Credits::ZERO);
        }
        match self.given.checked_add(self.grant) {
            Ok(given) if given <= self.daily_max => {
                self.given = given;
                StarterDecision::Give(self.grant)
            }
            _ => StarterDecision::Exhausted,
        }
    }

    /// Takes back what was counted for a grant that was certainly not made.
    pub const fn give_back(&mut self) {
        self.given = self.given.saturating_sub(self.grant);
    }

    /// What was given today.
    #[must_use]
    pub const fn given(&self) -> Credits {
        self.given
    }
}

/// The name of an account's starter grant: always the same, so that there is at most one.
#[must_use]
pub fn starter_grant_id(account: &AccountId) -> GrantId {
    let mut hasher = blake3::Hasher::new_derive_key("gristmill/starter-grant/1");
    hasher.update(account.public_key());
    let mut id = [0; 16];
    id.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    GrantId::from_bytes(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOON: u64 = 20_000 * DAY_MS + DAY_MS / 2;

    #[test]
    fn the_budget_is_never_passed_and_returns_with_the_day() {
        let mut budget = StarterBudget::new(Credits::micro(3), Credits::micro(10), Credits::ZERO, NOON);
        for _ in 0..3 {
            assert_eq!(budget.decide(NOON), StarterDecision::Give(Credits::micro(3)));
        }
        assert_eq!(budget.decide(NOON), StarterDecision::Exhausted);
        budget.give_back();
        assert_eq!(budget.decide(NOON), StarterDecision::Give(Credits::micro(3)));
        assert_eq!(budget.decide(NOON), StarterDecision::Exhausted);
        assert_eq!(
            budget.decide(NOON + DAY_MS),
            StarterDecision::Give(Credits::micro(3))
        );
        assert_eq!(budget.given(), Credits::micro(3));
    }

    #[test]
    fn what_was_given_before_a_restart_counts() {
        let mut budget = StarterBudget::new(Credits::micro(3), Credits::micro(10), Credits::micro(8), NOON);
        assert_eq!(budget.decide(NOON), StarterDecision::Exhausted);
    }

    #[test]
    fn a_clock_set_back_opens_no_second_budget() {
        let mut budget = StarterBudget::new(Credits::micro(10), Credits::micro(10), Credits::ZERO, NOON);
        assert!(matches!(budget.decide(NOON), StarterDecision::Give(_)));
        assert_eq!(budget.decide(NOON - DAY_MS), StarterDecision::Exhausted);
        assert_eq!(budget.decide(NOON), StarterDecision::Exhausted);
    }

    #[test]
    fn no_grant_configured_means_off() {
        let mut budget = StarterBudget::new(Credits::ZERO, Credits::micro(10), Credits::ZERO, NOON);
        assert_eq!(budget.decide(NOON), StarterDecision::Off);
    }

    #[test]
    fn days_begin_at_midnight() {
        assert_eq!(StarterBudget::day_began_ms(NOON), 20_000 * DAY_MS);
        assert_eq!(StarterBudget::day_began_ms(20_000 * DAY_MS), 20_000 * DAY_MS);
    }

    proptest! {
        #[test]
        fn a_hundred_thousand_sybils_get_at_most_the_budget(
            grant in 1u32..1_000, daily in 0u32..1_000_000, accounts in 1usize..100_000
        ) {
            let mut budget = StarterBudget::new(Credits::micro(grant), Credits::micro(daily), Credits::ZERO, NOON);
            let given: u64 = (0..accounts)
                .map(|_| match budget.decide(NOON) {
                    StarterDecision::Give(amount) => amount.microcredits(),
                    _ => 0,
                })
                .sum();
            let affordable = u64::from(daily / grant).min(accounts as u64);
            prop_assert_eq!(given, affordable * u64::from(grant));
        }
    }
}
