//! Trying entries beside the book: one after the other, each seeing what the ones before it did.

use std::collections::BTreeMap;

use gristmill_protocol::identity::AccountId;
use gristmill_protocol::ids::{ChannelId, GrantId};

use super::posting::{Decision, Posting};
use super::state::{Balance, Channel, GrantState, Head};
use super::{Applied, ApplyError, Book};
use crate::entry::CheckedEntry;
use crate::outcome::Outcome;

/// What entries changed: the new value of everything they touched.
#[derive(Clone, Debug)]
pub struct Changes {
    pub(super) base_sequence: u64,
    pub(super) head: Head,
    pub(super) accounts: BTreeMap<AccountId, Balance>,
    pub(super) channels: BTreeMap<ChannelId, Channel>,
    pub(super) grants: BTreeMap<GrantId, GrantState>,
}

/// A place beside the book to try entries on.
#[derive(Debug)]
pub struct Draft<'book> {
    book: &'book Book,
    changes: Changes,
}

impl<'book> Draft<'book> {
    pub(super) fn new(book: &'book Book) -> Self {
        let changes = Changes {
            base_sequence: book.head.sequence,
            head: book.head,
            accounts: BTreeMap::new(),
            channels: BTreeMap::new(),
            grants: BTreeMap::new(),
        };
        Self { book, changes }
    }

    /// Applies one entry at this time (Unix, in milliseconds) to the draft.
    ///
    /// # Errors
    /// [`ApplyError`]; the draft is then as it was.
    pub fn apply(&mut self, entry: &CheckedEntry, time_ms: u64) -> Result<Applied, ApplyError> {
        self.changes.head.totals.check()?;
        let mut posting = Posting::new(self, time_ms);
        let effect = match posting.decide(entry.entry())? {
            Decision::Before(sequence) => return Ok(Applied::Before { sequence }),
            Decision::Now(effect) => effect,
        };
        posting.check()?;
        let Posting {
            head,
            accounts,
            channels,
            grants,
            transfers,
            ..
        } = posting;
        self.changes.head = head;
        self.changes.accounts.extend(accounts);
        self.changes.channels.extend(channels);
        self.changes.grants.extend(grants);
        Ok(Applied::New {
            sequence: head.sequence,
            outcome: Outcome { transfers, effect },
        })
    }

    /// What the entries changed.
    #[must_use]
    pub fn finish(self) -> Changes {
        self.changes
    }

    pub(super) const fn head(&self) -> Head {
        self.changes.head
    }

    pub(super) fn account(&self, id: &AccountId) -> Option<Balance> {
        self.changes
            .accounts
            .get(id)
            .or_else(|| self.book.accounts.get(id))
            .copied()
    }

    pub(super) fn channel(&self, id: &ChannelId) -> Option<&Channel> {
        self.changes
            .channels
            .get(id)
            .or_else(|| self.book.channels.get(id))
    }

    pub(super) fn grant(&self, id: &GrantId) -> Option<GrantState> {
        self.changes
            .grants
            .get(id)
            .or_else(|| self.book.grants.get(id))
            .copied()
    }
}
