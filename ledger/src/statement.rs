//! Statements of account: what every record did to one account, with the balances after it.
//!
//! What a record did follows from its [`Outcome`](crate::outcome::Outcome) alone. Balances are sums from the first
//! record on, never looked up, so a statement that ends with the balances of the book has nothing missing.

mod journal;
mod time;
mod writer;

use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::ids::{ChannelId, EntryId};
use gristmill_protocol::job::RequestId;
use gristmill_protocol::operator_api::{StatementEntry, StatementKind};
use serde::Serialize;
use thiserror::Error;

use crate::entry::{Entry, GrantKind};
use crate::outcome::{BookAccount, Effect, Posted, Transfer};

pub use journal::{JournalStatementError, write_journal_statement};
pub use time::{TimeError, time_from_text, time_text};
pub use writer::{LINES_SHOWN_MAX, StatementFormat, StatementWriter};

/// What an account owns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Owned {
    /// What it can spend, in microcredits.
    pub available: Credits,
    /// What its open channels hold, in microcredits.
    pub held: Credits,
}

/// Why a statement does not add up: entries are missing, or of several accounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("record {sequence} takes more from the account than it had: entries before it are missing")]
pub struct StatementError {
    /// The record at which it shows.
    pub sequence: u64,
}

/// The part of a history that a statement is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Period {
    /// Records from this time on, Unix milliseconds; from the first one where not given.
    pub from_ms: Option<u64>,
    /// Records before this time, Unix milliseconds; to the last one where not given.
    pub until_ms: Option<u64>,
}

impl Period {
    /// Whether a record of this time is before the period.
    #[must_use]
    pub fn is_before(&self, time_ms: u64) -> bool {
        self.from_ms.is_some_and(|from_ms| time_ms < from_ms)
    }

    /// Whether a record of this time is after the period.
    #[must_use]
    pub fn is_after(&self, time_ms: u64) -> bool {
        self.until_ms.is_some_and(|until_ms| time_ms >= until_ms)
    }
}

impl Owned {
    /// Both together.
    #[must_use]
    pub const fn total(&self) -> Credits {
        // The book's rules keep the sum within what exists.
        self.available.saturating_add(self.held)
    }

    /// What is owned after an entry.
    ///
    /// # Errors
    /// [`StatementError`] where that would be less than nothing.
    pub fn after(&self, entry: &StatementEntry) -> Result<Self, StatementError> {
        let sequence = entry.sequence;
        let wrong = || StatementError { sequence };
        let wide = |amount: Credits| i128::from(amount.microcredits());
        let held = wide(self.held) + i128::from(entry.held_change);
        let total = wide(self.available) + wide(self.held) + wide(entry.incoming) - wide(entry.outgoing);
        let narrow = |amount: i128| {
            let microcredits = u64::try_from(amount).map_err(|_| wrong())?;
            Credits::from_microcredits(microcredits).map_err(|_| wrong())
        };
        Ok(Self {
            available: narrow(total - held)?,
            held: narrow(held)?,
        })
    }
}

/// What a record did to an account; `None` where that is nothing. `entry` is what the record holds, for the reasons
/// that the operator gave.
#[must_use]
pub fn statement_entry(
    account: &AccountId,
    posted: &Posted,
    entry: Option<&Entry>,
) -> Option<StatementEntry> {
    let about = About::of(account, &posted.outcome.effect)?;
    let moved = Moved::by(account, about.own_channel, &posted.outcome.transfers);
    let informs = matches!(about.kind, StatementKind::Freeze | StatementKind::Unfreeze);
    if moved == Moved::default() && !informs {
        return None;
    }
    let reason = match entry {
        Some(Entry::Grant(grant)) => Some(grant.reason.clone()),
        Some(Entry::Freeze(freeze) | Entry::Unfreeze(freeze)) => Some(freeze.reason.clone()),
        _ => None,
    };
    Some(StatementEntry {
        sequence: posted.sequence,
        time_ms: posted.time_ms,
        kind: about.kind,
        counterparty: about.counterparty,
        channel: about.channel,
        entry: about.entry,
        request_id: about.request_id,
        reason: reason.filter(|reason| !reason.is_empty()),
        incoming: moved.incoming,
        outgoing: moved.outgoing,
        fee: about.fee,
        held_change: moved.held_change,
    })
}

/// Whether a record's reason is in its entry, which then has to be read for a statement.
#[must_use]
pub const fn has_reason(posted: &Posted) -> bool {
    matches!(posted.outcome.effect, Effect::Granted(_) | Effect::Frozen(_))
}

/// What an effect means to an account.
struct About {
    kind: StatementKind,
    counterparty: Option<AccountId>,
    channel: Option<ChannelId>,
    /// The channel, where its credits are the account's.
    own_channel: Option<ChannelId>,
    entry: Option<EntryId>,
    request_id: Option<RequestId>,
    fee: Credits,
}

impl About {
    fn of(account: &AccountId, effect: &Effect) -> Option<Self> {
        match effect {
            Effect::Granted(granted) if granted.account == *account => {
                let kind = match granted.kind {
                    GrantKind::Starter => StatementKind::StarterGrant,
                    GrantKind::Operator => StatementKind::Grant,
                };
                Some(Self::of_entry(kind, granted.grant.into()))
            }
            Effect::Frozen(frozen) if frozen.account == *account => {
                let kind = match frozen.frozen {
                    true => StatementKind::Freeze,
                    false => StatementKind::Unfreeze,
                };
                Some(Self::of_entry(kind, frozen.entry))
            }
            Effect::Opened(opened) if opened.consumer == *account => {
                let other = opened.provider;
                Some(Self::of_channel(StatementKind::Hold, other, opened.channel))
            }
            Effect::Closed(closed) if closed.consumer == *account => {
                let other = closed.provider;
                Some(Self::of_channel(StatementKind::Release, other, closed.channel))
            }
            Effect::Settled(settled) if settled.consumer == *account => Some(Self {
                request_id: Some(settled.request_id.clone()),
                fee: settled.fee,
                ..Self::of_channel(StatementKind::Payment, settled.provider, settled.channel)
            }),
            Effect::Settled(settled) if settled.provider == *account => Some(Self {
                own_channel: None,
                request_id: Some(settled.request_id.clone()),
                fee: settled.fee,
                ..Self::of_channel(StatementKind::Earning, settled.consumer, settled.channel)
            }),
            Effect::Granted(_)
            | Effect::Frozen(_)
            | Effect::Opened(_)
            | Effect::Closed(_)
            | Effect::Settled(_)
            | Effect::Extended(_)
            | Effect::KeyRotated(_) => None,
        }
    }

    const fn of_entry(kind: StatementKind, entry: EntryId) -> Self {
        Self {
            kind,
            counterparty: None,
            channel: None,
            own_channel: None,
            entry: Some(entry),
            request_id: None,
            fee: Credits::ZERO,
        }
    }

    const fn of_channel(kind: StatementKind, counterparty: AccountId, channel: ChannelId) -> Self {
        Self {
            kind,
            counterparty: Some(counterparty),
            channel: Some(channel),
            own_channel: Some(channel),
            entry: None,
            request_id: None,
            fee: Credits::ZERO,
        }
    }
}

/// What transfers did to what an account owns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Moved {
    incoming: Credits,
    outgoing: Credits,
    held_change: i64,
}

impl Moved {
    fn by(account: &AccountId, own_channel: Option<ChannelId>, transfers: &[Transfer]) -> Self {
        let is_own = |place: &BookAccount| match place {
            BookAccount::Available(owner) => owner == account,
            BookAccount::Held(channel) => Some(*channel) == own_channel,
            BookAccount::Issuance | BookAccount::Fees => false,
        };
        let is_held = |place: &BookAccount| is_own(place) && matches!(place, BookAccount::Held(_));
        let mut moved = Self::default();
        for Transfer { from, to, amount } in transfers {
            // Amounts have 53 bits.
            let signed = i64::try_from(amount.microcredits()).unwrap_or(i64::MAX);
            match (is_own(from), is_own(to)) {
                (false, true) => moved.incoming = moved.incoming.saturating_add(*amount),
                (true, false) => moved.outgoing = moved.outgoing.saturating_add(*amount),
                (true, true) | (false, false) => {}
            }
            if is_held(to) {
                moved.held_change = moved.held_change.saturating_add(signed);
            }
            if is_held(from) {
                moved.held_change = moved.held_change.saturating_sub(signed);
            }
        }
        moved
    }
}

#[cfg(test)]
mod tests;
