//! The double-entry book: a state machine of entries, without clock, files or randomness.
//!
//! The coordinator's writer, the auditor and the simulator all run this one. Entries are first tried on a
//! [`Draft`] beside the book, and what they changed is committed once the journal is synced; whoever reads the
//! book in between sees nothing that could still be lost.
//!
//! Invariants, asserted before and after every entry and in [`Book::verify`] over everything:
//! - credits issued = fees + all available + all held: the sum over all accounts is zero;
//! - an open channel holds exactly its limit less what it has settled, a closed one nothing;
//! - what an account was granted and earned is what it has available, held and spent;
//! - nothing but issuance is ever negative (amounts are unsigned and arithmetic is checked).

mod draft;
mod part;
mod posting;
mod snapshot;
mod state;
mod touched;
mod verify;

use std::collections::{BTreeMap, BTreeSet};

use bincode::{Decode, Encode};
use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::ids::{ChannelId, EntryId};
use gristmill_protocol::planted::{self, Bug};
use serde::Serialize;
use thiserror::Error;

use crate::entry::CheckedEntry;
use crate::outcome::Outcome;
use crate::refusal::Refusal;

pub use draft::{Changes, Draft};
pub use part::{Part, Scope};
pub use snapshot::StateError;
pub use state::{Balance, Channel, ChannelState, ChannelStatus, Head, NamedEntry, Signer};
pub use verify::BrokenInvariant;

/// The state of all accounts and channels.
#[derive(Clone, Debug, Default)]
pub struct Book {
    head: Head,
    accounts: BTreeMap<AccountId, Balance>,
    channels: BTreeMap<ChannelId, Channel>,
    named: BTreeMap<EntryId, NamedEntry>,
    /// Open channels in the order in which they expire; follows from `channels`.
    deadlines: BTreeSet<(i128, ChannelId)>,
    /// What was loaded, where this is only a part of a book.
    scope: Option<Scope>,
}

/// What the accounts hold together, and how many there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct Totals {
    /// Credits that exist: how far issuance is below zero.
    pub issued: Credits,
    /// What the coordinator earned.
    pub fees: Credits,
    /// What all accounts can spend.
    pub available: Credits,
    /// What all open channels hold.
    pub held: Credits,
    /// What was ever settled, fees included.
    pub settled: Credits,
    /// Accounts that were ever named in an entry.
    pub accounts: u64,
    /// Channels that hold credits.
    pub channels_open: u64,
    /// Channels that ended.
    pub channels_closed: u64,
}

/// An entry that took effect, now or before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// The entry took effect and has to be journaled under this sequence.
    New {
        /// The entry's number; the first is 1.
        sequence: u64,
        /// What it did.
        outcome: Outcome,
    },
    /// The same request, or one that went further, took effect before. There is nothing to journal.
    Before {
        /// The number of the entry that did.
        sequence: u64,
    },
}

/// Why an entry was not applied.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ApplyError {
    /// The entry is refused; the book is as it was.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The book contradicts itself: an error of this program. The book is as it was; stop using it.
    #[error(transparent)]
    Broken(#[from] BrokenInvariant),
}

impl Book {
    /// A book without entries.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Applies one entry at this time (Unix, in milliseconds).
    ///
    /// # Errors
    /// [`ApplyError`]; the book is then as it was.
    pub fn apply(&mut self, entry: &CheckedEntry, time_ms: u64) -> Result<Applied, ApplyError> {
        let mut draft = self.draft();
        let applied = draft.apply(entry, time_ms)?;
        let changes = draft.finish();
        self.commit(changes)?;
        Ok(applied)
    }

    /// A place beside the book to try entries on.
    #[must_use]
    pub fn draft(&self) -> Draft<'_> {
        self.draft_from(None, self.no_changes())
    }

    /// Goes on with a draft that was left at `changes`, which follow `before` where that is not committed yet.
    #[must_use]
    pub const fn draft_from<'book>(
        &'book self,
        before: Option<&'book Changes>,
        changes: Changes,
    ) -> Draft<'book> {
        Draft::new(self, before, changes)
    }

    /// No changes yet, to be made to this state.
    #[must_use]
    pub const fn no_changes(&self) -> Changes {
        Changes::of(self.head)
    }

    /// Takes over what was tried on a draft of this very state.
    ///
    /// # Errors
    /// [`BrokenInvariant::OtherState`] where the book has moved on since the draft was made.
    pub fn commit(&mut self, changes: Changes) -> Result<(), BrokenInvariant> {
        if changes.base_sequence != self.head.sequence {
            return Err(BrokenInvariant::OtherState {
                draft: changes.base_sequence,
                book: self.head.sequence,
            });
        }
        self.head = changes.head;
        self.accounts.extend(changes.accounts);
        self.named.extend(changes.named);
        for (id, channel) in changes.channels {
            let deadline = (channel.deadline_when_open(), id);
            let is_open = channel.is_open();
            let was_open = self
                .channels
                .insert(id, channel)
                .is_some_and(|before| before.is_open());
            // Most changes are payments, which leave a channel open.
            if is_open && !was_open {
                self.deadlines.insert(deadline);
            } else if was_open && !is_open {
                self.deadlines.remove(&deadline);
            }
        }
        Ok(())
    }

    /// How many entries have been applied: the sequence of the last one.
    #[must_use]
    pub const fn sequence(&self) -> u64 {
        self.head.sequence
    }

    /// When the last entry was posted, Unix time in milliseconds; 0 in an empty book.
    #[must_use]
    pub const fn last_time_ms(&self) -> u64 {
        self.head.last_time_ms
    }

    /// What is one for the whole book.
    #[must_use]
    pub const fn head(&self) -> &Head {
        &self.head
    }

    /// What the accounts hold together.
    #[must_use]
    pub const fn totals(&self) -> Totals {
        self.head.totals
    }

    /// What an account has. An account nobody has heard of has nothing.
    #[must_use]
    pub fn balance(&self, account: &AccountId) -> Balance {
        self.accounts.get(account).copied().unwrap_or_default()
    }

    /// All accounts in order.
    pub fn accounts(&self) -> impl Iterator<Item = (&AccountId, &Balance)> {
        self.accounts.iter()
    }

    /// A channel as it is now.
    #[must_use]
    pub fn channel(&self, id: &ChannelId) -> Option<ChannelState> {
        self.channels
            .get(id)
            .map(|channel| channel.state(*id, self.head.downtime_ms))
    }

    /// All channels in order.
    pub fn channels(&self) -> impl Iterator<Item = ChannelState> {
        self.channels
            .iter()
            .map(|(id, channel)| channel.state(*id, self.head.downtime_ms))
    }

    /// Open channels whose time to redeem is over at `now_ms`, the longest expired first, at most `limit`.
    #[must_use]
    pub fn expired_channels(&self, now_ms: u64, limit: usize) -> Vec<ChannelId> {
        // Deadlines are kept as they would be without any downtime, so that one entry moves all of them.
        let early_ms = if planted::is(Bug::ExpiredTooEarly) {
            3_600_000
        } else {
            0
        };
        let now = i128::from(now_ms) + early_ms - i128::from(self.head.downtime_ms);
        self.deadlines
            .iter()
            .take_while(|(deadline, _)| *deadline < now)
            .map(|(_, id)| *id)
            .take(limit)
            .collect()
    }
}

#[cfg(test)]
mod tests;
