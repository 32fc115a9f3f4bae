//! What programs have spent and may still spend. The most that a request can cost is reserved before it runs and
//! exchanged for what it did cost afterwards, so that no number of requests at once gets past a cap.

use std::collections::BTreeMap;

use gristmill_protocol::credits::Credits;

use crate::core::calendar::{Day, Month};
use crate::core::failure::ApiFailure;
use crate::core::keys::{KeyId, Period, SpendCap};

/// The most seconds that a program is told to wait for requests that hold what is left.
const HELD_RETRY_SECONDS: u32 = 1;

/// What was spent by one program, or by all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    day: Day,
    month: Month,
    in_day: Credits,
    in_month: Credits,
    ever: Credits,
    /// For requests that run.
    reserved: Credits,
}

impl Spent {
    /// In a period, as of the last change.
    #[must_use]
    pub const fn within(&self, period: Period) -> Credits {
        match period {
            Period::Day => self.in_day,
            Period::Month => self.in_month,
            Period::Ever => self.ever,
        }
    }

    /// What is held for requests that run.
    #[must_use]
    pub const fn reserved(&self) -> Credits {
        self.reserved
    }

    /// Begins new periods where they have begun. A clock that was set back changes nothing: no cap comes anew.
    fn at(&mut self, now_ms: u64) {
        let day = Day::of(now_ms);
        if day > self.day {
            self.day = day;
            self.in_day = Credits::ZERO;
        }
        if day.month() > self.month {
            self.month = day.month();
            self.in_month = Credits::ZERO;
        }
    }

    fn add(&mut self, cost: Credits, now_ms: u64) {
        self.at(now_ms);
        self.in_day = self.in_day.saturating_add(cost);
        self.in_month = self.in_month.saturating_add(cost);
        self.ever = self.ever.saturating_add(cost);
    }

    /// Adds what was spent at an earlier time, to those periods that it belongs to.
    fn recall(&mut self, cost: Credits, at_ms: u64) {
        let day = Day::of(at_ms);
        self.at(at_ms);
        if day == self.day {
            self.in_day = self.in_day.saturating_add(cost);
        }
        if day.month() == self.month {
            self.in_month = self.in_month.saturating_add(cost);
        }
        self.ever = self.ever.saturating_add(cost);
    }

    /// What may still be reserved.
    fn left(&self, cap: &SpendCap) -> Credits {
        cap.amount
            .saturating_sub(self.within(cap.per))
            .saturating_sub(self.reserved)
    }

    fn check(&self, cap: &SpendCap, needed: Credits, whose: Whose) -> Result<(), CapReached> {
        if needed <= self.left(cap) {
            return Ok(());
        }
        let spent = self.within(cap.per);
        let resets_at_ms = match cap.per {
            Period::Day => Some(self.day.next().begin_ms()),
            Period::Month => Some(self.month.end_ms()),
            Period::Ever => None,
        };
        Err(CapReached {
            whose,
            cap: *cap,
            needed,
            left: cap.amount.saturating_sub(spent),
            is_held_by_others: spent.saturating_add(needed) <= cap.amount,
            resets_at_ms,
        })
    }
}

/// Whose cap it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The key's.
    Key,
    /// That of all programs together.
    All,
}

/// A request that could cost more than may still be spent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CapReached {
    /// Whose cap it is.
    pub whose: Whose,
    /// The cap.
    pub cap: SpendCap,
    /// What the request could cost.
    pub needed: Credits,
    /// What is not spent.
    pub left: Credits,
    /// Whether it would fit if other requests, which run now, turned out to cost nothing.
    pub is_held_by_others: bool,
    /// When the cap comes anew, Unix milliseconds.
    pub resets_at_ms: Option<u64>,
}

impl CapReached {
    /// What the program is told: to come back where requests that run hold what is left, and otherwise not to.
    #[must_use]
    pub fn to_failure(&self) -> ApiFailure {
        let (cap, per) = (self.cap.amount, self.cap.per);
        let cap = match self.whose {
            Whose::Key => format!("the spend cap of this API key, {cap} credits per {per}"),
            Whose::All => format!("budget_stop, {cap} credits per {per} for all programs together"),
        };
        let (needed, left) = (self.needed, self.left);
        if self.is_held_by_others {
            let message = format!(
                "this request may cost up to {needed} credits, and other requests that run now hold what is left of \
                 {cap}; try again shortly, or lower max_tokens"
            );
            return ApiFailure::budget_exhausted(message).retry_after(HELD_RETRY_SECONDS);
        }
        let anew = match self.resets_at_ms {
            Some(at_ms) => format!("wait until {} (UTC)", Day::of(at_ms)),
            None => "use another key".to_owned(),
        };
        let remedy = match self.whose {
            Whose::Key => format!("lower max_tokens, {anew}, or have the owner make a key with a higher cap"),
            Whose::All => format!("lower max_tokens, {anew}, or have the owner raise budget_stop"),
        };
        let message =
            format!("this request may cost up to {needed} credits and {left} are left of {cap}; {remedy}");
        ApiFailure::new(402, "insufficient_credits", message)
    }
}

/// An amount that is held for a request. It has to be given to [`Spending::settle`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "what is reserved stays so until it is settled"]
pub struct Reserved {
    key: Option<KeyId>,
    amount: Credits,
}

impl Reserved {
    /// How much it is.
    #[must_use]
    pub const fn amount(&self) -> Credits {
        self.amount
    }
}

/// What bounds all programs together, per day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DayBudget {
    /// From so much on the owner is warned.
    pub alarm: Option<Credits>,
    /// So much and no more is spent.
    pub stop: Option<Credits>,
}

/// The spending of every key and of all programs together.
#[derive(Clone, Debug, Default)]
pub struct Spending {
    keys: BTreeMap<KeyId, Spent>,
    all: Spent,
    budget: DayBudget,
}

impl Spending {
    /// Nothing spent so far.
    #[must_use]
    pub fn new(budget: DayBudget) -> Self {
        Self {
            budget,
            ..Self::default()
        }
    }

    /// Takes note of what was spent before this program was started.
    pub fn recall(&mut self, key: Option<KeyId>, cost: Credits, at_ms: u64) {
        self.all.recall(cost, at_ms);
        if let Some(key) = key {
            self.keys.entry(key).or_default().recall(cost, at_ms);
        }
    }

    /// What a program may still reserve: nothing where it is not bounded.
    pub fn left(&mut self, key: Option<(KeyId, SpendCap)>, now_ms: u64) -> Option<Credits> {
        let of_key = key.map(|(key, cap)| {
            let spent = self.keys.entry(key).or_default();
            spent.at(now_ms);
            spent.left(&cap)
        });
        self.all.at(now_ms);
        let of_all = self.stop().map(|cap| self.all.left(&cap));
        match (of_key, of_all) {
            (Some(key), Some(all)) => Some(key.min(all)),
            (left, None) | (None, left) => left,
        }
    }

    fn stop(&self) -> Option<SpendCap> {
        self.budget.stop.map(|amount| SpendCap {
            amount,
            per: Period::Day,
        })
    }

    /// Holds the most that a request can cost.
    ///
    /// # Errors
    /// [`CapReached`] where that is more than may still be spent.
    pub fn reserve(
        &mut self,
        key: Option<KeyId>,
        cap: Option<SpendCap>,
        amount: Credits,
        now_ms: u64,
    ) -> Result<Reserved, CapReached> {
        self.all.at(now_ms);
        if let Some(stop) = self.stop() {
            self.all.check(&stop, amount, Whose::All)?;
        }
        if let Some(key) = key {
            let spent = self.keys.entry(key).or_default();
            spent.at(now_ms);
            if let Some(cap) = cap {
                spent.check(&cap, amount, Whose::Key)?;
            }
            spent.reserved = spent.reserved.saturating_add(amount);
        }
        self.all.reserved = self.all.reserved.saturating_add(amount);
        Ok(Reserved { key, amount })
    }

    /// Exchanges what was held for what the request did cost. Tells what all programs spent today where that has
    /// just passed the alarm.
    pub fn settle(&mut self, reserved: Reserved, cost: Credits, now_ms: u64) -> Option<Credits> {
        let Reserved { key, amount } = reserved;
        if let Some(spent) = key.and_then(|key| self.keys.get_mut(&key)) {
            spent.reserved = spent.reserved.saturating_sub(amount);
            spent.add(cost, now_ms);
        }
        self.all.reserved = self.all.reserved.saturating_sub(amount);
        self.all.at(now_ms);
        let before = self.all.in_day;
        self.all.add(cost, now_ms);
        let after = self.all.in_day;
        let alarm = self.budget.alarm?;
        (before < alarm && after >= alarm).then_some(after)
    }

    /// What a key has spent.
    pub fn of_key(&mut self, key: KeyId, now_ms: u64) -> Spent {
        let mut spent = self.keys.get(&key).copied().unwrap_or_default();
        spent.at(now_ms);
        spent
    }

    /// What all programs have spent.
    pub fn of_all(&mut self, now_ms: u64) -> Spent {
        self.all.at(now_ms);
        self.all
    }

    /// What all programs spent today, where that is past the alarm.
    pub fn alarming(&mut self, now_ms: u64) -> Option<Credits> {
        let spent = self.of_all(now_ms).in_day;
        self.budget.alarm.filter(|alarm| spent >= *alarm).map(|_| spent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::keys::KeyDigest;
    use proptest::prelude::*;
    use std::sync::{Arc, Mutex};

    const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

    fn key() -> KeyId {
        KeyDigest::of(b"a").id()
    }

    fn micro(amount: u32) -> Credits {
        Credits::micro(amount)
    }

    fn cap(amount: u32, per: Period) -> Option<SpendCap> {
        Some(SpendCap {
            amount: micro(amount),
            per,
        })
    }

    #[test]
    fn what_is_reserved_is_exchanged_for_what_it_cost() {
        let mut spending = Spending::default();
        let cap = cap(100, Period::Day);
        let first = spending.reserve(Some(key()), cap, micro(80), 0).unwrap();
        let reached = spending.reserve(Some(key()), cap, micro(30), 0).unwrap_err();
        assert!(reached.is_held_by_others && reached.left == micro(100));
        let failure = reached.to_failure();
        assert_eq!(
            (failure.status, failure.code.as_ref(), failure.retry_after_seconds),
            (503, "budget_exhausted", Some(1))
        );
        let _ = spending.settle(first, micro(75), 0);
        let reached = spending.reserve(Some(key()), cap, micro(30), 0).unwrap_err();
        assert!(!reached.is_held_by_others && reached.left == micro(25));
        let failure = reached.to_failure();
        assert_eq!(
            (failure.status, failure.code.as_ref()),
            (402, "insufficient_credits")
        );
        assert!(
            failure.message.contains("0.000025 are left") && failure.message.contains("1970-01-02"),
            "{failure}"
        );
        let last = spending.reserve(Some(key()), cap, micro(25), 0).unwrap();
        let _ = spending.settle(last, micro(25), 0);
        assert_eq!(spending.left(Some((key(), cap.unwrap())), 0), Some(micro(0)));
    }

    #[test]
    fn caps_come_anew_with_their_period_and_not_with_a_clock_that_is_set_back() {
        for (per, anew_ms) in [
            (Period::Day, Some(DAY_MS)),
            (Period::Month, Some(31 * DAY_MS)),
            (Period::Ever, None),
        ] {
            let mut spending = Spending::default();
            let cap = cap(10, per);
            let all = spending.reserve(Some(key()), cap, micro(10), 5).unwrap();
            let _ = spending.settle(all, micro(10), 5);
            let reached = spending.reserve(Some(key()), cap, micro(1), 5).unwrap_err();
            assert_eq!(reached.resets_at_ms, anew_ms);
            let last_ms = anew_ms.unwrap_or(900 * DAY_MS);
            assert!(
                spending.reserve(Some(key()), cap, micro(1), last_ms - 1).is_err(),
                "{per}"
            );
            assert_eq!(
                spending.reserve(Some(key()), cap, micro(1), last_ms).is_ok(),
                anew_ms.is_some(),
                "{per}"
            );
        }
        let mut spending = Spending::default();
        let cap = cap(10, Period::Day);
        let all = spending.reserve(Some(key()), cap, micro(10), DAY_MS).unwrap();
        let _ = spending.settle(all, micro(10), DAY_MS);
        assert!(spending.reserve(Some(key()), cap, micro(1), 0).is_err());
    }

    #[test]
    fn what_was_spent_before_a_start_counts_in_its_period() {
        let mut spending = Spending::default();
        for (cost, at_ms) in [
            (1, 0),
            (2, 5 * DAY_MS),
            (4, 40 * DAY_MS),
            (8, 41 * DAY_MS),
            (16, 5 * DAY_MS),
        ] {
            spending.recall(Some(key()), micro(cost), at_ms);
        }
        let spent = spending.of_key(key(), 41 * DAY_MS);
        let within =
            [Period::Day, Period::Month, Period::Ever].map(|period| spent.within(period).microcredits());
        assert_eq!(within, [8, 12, 31]);
        assert_eq!(spending.of_all(42 * DAY_MS).within(Period::Day), micro(0));
    }

    #[test]
    fn all_programs_together_have_an_alarm_and_an_end() {
        let mut spending = Spending::new(DayBudget {
            alarm: Some(micro(5)),
            stop: Some(micro(10)),
        });
        for (cost, alarm) in [(4, None), (2, Some(micro(6))), (1, None)] {
            let reserved = spending.reserve(None, None, micro(cost), 0).unwrap();
            assert_eq!(spending.settle(reserved, micro(cost), 0), alarm);
        }
        assert_eq!(spending.alarming(0), Some(micro(7)));
        let reached = spending.reserve(Some(key()), None, micro(4), 0).unwrap_err();
        assert!(reached.whose == Whose::All && reached.to_failure().message.contains("budget_stop"));
        assert_eq!(spending.left(None, 0), Some(micro(3)));
        assert_eq!(spending.alarming(DAY_MS), None);
        assert!(spending.reserve(Some(key()), None, micro(4), DAY_MS).is_ok());
    }

    #[test]
    fn a_hundred_requests_at_once_never_pass_the_cap() {
        let spending = Arc::new(Mutex::new(Spending::default()));
        let cap = cap(1_000, Period::Ever);
        let threads: Vec<_> = (0..100u32)
            .map(|index| {
                let spending = spending.clone();
                std::thread::spawn(move || {
                    let reserved = spending.lock().unwrap().reserve(Some(key()), cap, micro(70), 0);
                    std::thread::yield_now();
                    let Ok(reserved) = reserved else { return 0 };
                    let cost = 30 + index % 41;
                    let _ = spending.lock().unwrap().settle(reserved, micro(cost), 0);
                    u64::from(cost)
                })
            })
            .collect();
        let total: u64 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
        let spent = spending.lock().unwrap().of_key(key(), 0);
        assert!(total <= 1_000 && spent.within(Period::Ever).microcredits() == total);
        assert!(spent.reserved().is_zero());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Reserve { key: u8, amount: u32 },
        Settle { which: usize, share: u32 },
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0u8..3, 0u32..60).prop_map(|(key, amount)| Step::Reserve { key, amount }),
            (any::<usize>(), 0u32..=100).prop_map(|(which, share)| Step::Settle { which, share }),
            (0u64..DAY_MS / 2).prop_map(Step::Wait),
        ]
    }

    proptest! {
        /// However requests begin and end, no key spends more than its cap in any period, nor all more than the stop
        /// in any day, and nothing stays held in the end.
        #[test]
        fn no_interleaving_passes_a_cap(
            steps in proptest::collection::vec(step(), 1..200),
            amount in 1u32..200,
            stop in proptest::option::of(1u32..200),
            per in prop_oneof![Just(Period::Day), Just(Period::Month), Just(Period::Ever)],
        ) {
            let mut spending = Spending::new(DayBudget { alarm: None, stop: stop.map(micro) });
            let cap = cap(amount, per);
            let keys = [0u8, 1, 2].map(|key| KeyDigest::of(&[key]).id());
            // By key: what it spent in each period, by an own reckoning.
            let mut model: BTreeMap<(u8, u64), u64> = BTreeMap::new();
            let mut days: BTreeMap<u64, u64> = BTreeMap::new();
            let period = |now_ms: u64| match per {
                Period::Day => now_ms / DAY_MS,
                Period::Month => Day::of(now_ms).month().end_ms(),
                Period::Ever => 0,
            };
            let (mut held, mut now_ms) = (Vec::new(), 0);
            for step in steps {
                match step {
                    Step::Reserve { key, amount } => {
                        if let Ok(reserved) = spending.reserve(Some(keys[usize::from(key)]), cap, micro(amount), now_ms) {
                            held.push((key, reserved));
                        }
                    }
                    Step::Settle { which, share } if !held.is_empty() => {
                        let (key, reserved) = held.swap_remove(which % held.len());
                        let cost = reserved.amount().microcredits() * u64::from(share) / 100;
                        *model.entry((key, period(now_ms))).or_default() += cost;
                        *days.entry(now_ms / DAY_MS).or_default() += cost;
                        let _ = spending.settle(reserved, Credits::from_microcredits(cost).unwrap(), now_ms);
                    }
                    Step::Settle { .. } => {}
                    Step::Wait(ms) => now_ms += ms,
                }
            }
            for spent in model.values() {
                prop_assert!(*spent <= u64::from(amount), "{} of {}", spent, amount);
            }
            if let Some(stop) = stop {
                prop_assert!(days.values().all(|spent| *spent <= u64::from(stop)));
            }
            for (_, reserved) in held {
                let _ = spending.settle(reserved, Credits::ZERO, now_ms);
            }
            prop_assert!(spending.of_all(now_ms).reserved().is_zero());
        }
    }
}
