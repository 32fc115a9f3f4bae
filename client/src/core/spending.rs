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

    /// What was not spent.
    const fn unspent(&self, cap: &SpendCap) -> Credits {
        cap.amount.saturating_sub(self.within(cap.per))
    }

    /// What may still be reserved.
    fn left(&self, cap: &SpendCap) -> Credits {
        self.unspent(cap).saturating_sub(self.reserved)
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
        self.least(key, now_ms, Spent::left)
    }

    /// What a program has not spent of what it may, whatever is held for requests that run: most of that comes back.
    /// Nothing where it is not bounded.
    pub fn unspent(&mut self, key: Option<(KeyId, SpendCap)>, now_ms: u64) -> Option<Credits> {
        self.least(key, now_ms, Spent::unspent)
    }

    fn least(
        &mut self,
        key: Option<(KeyId, SpendCap)>,
        now_ms: u64,
        amount: impl Fn(&Spent, &SpendCap) -> Credits,
    ) -> Option<Credits> {
        let of_key = key.map(|(key, cap)| {
            let spent = self.keys.entry(key).or_default();
            spent.at(now_ms);
            amount(spent, &cap)
        });
        self.all.at(now_ms);
        let of_all = self.stop().map(|cap| amount(&self.all, &cap));
        match (of_key, of_all) {
            (Some(key), Some(all)) => Some(key.min(all)),
            (least, None) | (None, least) => least,
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
mod tests;
