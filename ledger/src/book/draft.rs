//! Trying entries beside the book: one after the other, each seeing what the ones before it did.

use std::collections::BTreeMap;

use gristmill_protocol::identity::AccountId;
use gristmill_protocol::ids::{ChannelId, EntryId};

use super::posting::{Decision, Posting};
use super::state::{Balance, Channel, Head, NamedEntry};
use super::{Applied, ApplyError, Book};
use crate::entry::CheckedEntry;
use crate::outcome::Outcome;

/// What entries changed: the new value of everything they touched.
#[derive(Clone, Debug)]
pub struct Changes {
    pub(super) base_sequence: u64,
    /// What is one for the whole book.
    pub head: Head,
    /// Accounts.
    pub accounts: BTreeMap<AccountId, Balance>,
    /// Channels.
    pub channels: BTreeMap<ChannelId, Channel>,
    /// Entries with a name, all of them new.
    pub named: BTreeMap<EntryId, NamedEntry>,
}

/// A place beside the book to try entries on.
#[derive(Debug)]
pub struct Draft<'book> {
    book: &'book Book,
    /// What will be committed before these changes.
    before: Option<&'book Changes>,
    changes: Changes,
}

impl Changes {
    /// No changes yet, to be made to the state that these lead to.
    #[must_use]
    pub const fn followed(&self) -> Self {
        Self::of(self.head)
    }

    /// No changes yet, to be made to the state with this head.
    pub(super) const fn of(head: Head) -> Self {
        Self {
            base_sequence: head.sequence,
            head,
            accounts: BTreeMap::new(),
            channels: BTreeMap::new(),
            named: BTreeMap::new(),
        }
    }
}

impl<'book> Draft<'book> {
    pub(super) const fn new(book: &'book Book, before: Option<&'book Changes>, changes: Changes) -> Self {
        Self {
            book,
            before,
            changes,
        }
    }

    /// Applies one entry at this time (Unix, in milliseconds) to the draft.
    ///
    /// # Errors
    /// [`ApplyError`]; the draft is then as it was.
    pub fn apply(&mut self, entry: &CheckedEntry, time_ms: u64) -> Result<Applied, ApplyError> {
        self.changes.head.totals.check()?;
        self.book.check_scope(entry.entry())?;
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
            named,
            transfers,
            ..
        } = posting;
        self.changes.head = head;
        self.changes.accounts.extend(accounts);
        self.changes.channels.extend(channels);
        self.changes.named.extend(named);
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
            .or_else(|| self.before?.accounts.get(id))
            .or_else(|| self.book.accounts.get(id))
            .copied()
    }

    pub(super) fn channel(&self, id: &ChannelId) -> Option<&Channel> {
        self.changes
            .channels
            .get(id)
            .or_else(|| self.before?.channels.get(id))
            .or_else(|| self.book.channels.get(id))
    }

    pub(super) fn named(&self, id: &EntryId) -> Option<NamedEntry> {
        self.changes
            .named
            .get(id)
            .or_else(|| self.before?.named.get(id))
            .or_else(|| self.book.named.get(id))
            .copied()
    }
}
