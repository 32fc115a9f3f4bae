//! Finding entries without reading the whole journal. An index holds nothing that can't be rebuilt from the
//! journal, and is rebuilt from it whenever it is missing, behind, damaged or of another journal.

mod accounts;
mod comparison;
mod file_index;
mod files;
mod recall;
mod row;

use bincode::{Decode, Encode};
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::log::hash::LogHash;
use thiserror::Error;

use crate::journal::Location;
use crate::outcome::{Effect, Outcome, Posted};

pub use comparison::Comparison;
pub use file_index::{FileIndex, ReadRecord};
pub use files::IndexDamage;

/// Most items of one page of a history.
pub const PAGE_MAX_ITEMS: usize = 1_000;

/// What an index keeps of one entry.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct IndexedEntry {
    /// The number of its record.
    pub sequence: u64,
    /// When it was posted, Unix time in milliseconds.
    pub time_ms: u64,
    /// The hash of its record.
    pub record_hash: LogHash,
    /// Where its record is.
    pub location: Location,
    /// What it did.
    pub outcome: Outcome,
}

/// How far an index has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct IndexHead {
    /// The newest entry in it.
    pub sequence: u64,
    /// The hash of that entry's record; zeros, which no record has, where the journal has another record in its place
    /// or none.
    pub record_hash: LogHash,
    /// Where that record is.
    pub location: Location,
}

/// Which entries of an account are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    /// All that concern it.
    All,
    /// Payments that it made or received.
    Settlements,
}

/// Why an index can't be used. The journal is not concerned.
#[derive(Debug, Error)]
pub enum IndexError {
    /// Another process, or an earlier user in this one, has not closed it yet.
    #[error("the index is in use")]
    InUse,
    /// The store says so.
    #[error("the index cannot be used: {0}")]
    Store(String),
    /// What the store holds is not what was put in.
    #[error("the index is damaged: {0}")]
    Damaged(String),
}

/// An index of a ledger's journal.
///
/// Only the ledger's writer calls [`Index::append`], in the order of the journal and after the journal is synced;
/// everything else may be called from any thread. All calls may block on a disk.
pub trait Index: Send + Sync {
    /// How far the index has come; `None` when it is empty.
    ///
    /// # Errors
    /// [`IndexError`]
    fn head(&self) -> Result<Option<IndexHead>, IndexError>;

    /// Adds entries that follow the head, all or none.
    ///
    /// # Errors
    /// [`IndexError`]
    fn append(&self, entries: &[IndexedEntry]) -> Result<(), IndexError>;

    /// The entry with this sequence.
    ///
    /// # Errors
    /// [`IndexError`]
    fn entry(&self, sequence: u64) -> Result<Option<IndexedEntry>, IndexError>;

    /// Where the record with this sequence is, without reading it.
    ///
    /// # Errors
    /// [`IndexError`]
    fn location(&self, sequence: u64) -> Result<Option<Location>, IndexError>;

    /// Sequences that concern an account, the newest first, below `before` if given, at most `limit`.
    ///
    /// # Errors
    /// [`IndexError`]
    fn history(
        &self,
        account: &AccountId,
        selection: Selection,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<u64>, IndexError>;

    /// Writes what is still in memory. Losing it would only cost a rebuild.
    ///
    /// # Errors
    /// [`IndexError`]
    fn flush(&self) -> Result<(), IndexError>;
}

impl IndexedEntry {
    /// What the index says about the newest entry in it.
    #[must_use]
    pub const fn head(&self) -> IndexHead {
        IndexHead {
            sequence: self.sequence,
            record_hash: self.record_hash,
            location: self.location,
        }
    }

    /// Whether this is a payment.
    #[must_use]
    pub const fn is_settlement(&self) -> bool {
        matches!(self.outcome.effect, Effect::Settled(_))
    }

    /// The answer to whoever posted the entry.
    #[must_use]
    pub fn posted(self, repeated: bool) -> Posted {
        let Self {
            sequence,
            time_ms,
            record_hash,
            outcome,
            ..
        } = self;
        Posted {
            sequence,
            time_ms,
            record_hash,
            outcome,
            repeated,
        }
    }
}
