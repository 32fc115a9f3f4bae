//! What the handles and the writer share: the book as of the last sync, the index, and whether both still go on.

use std::path::PathBuf;
use std::sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard};

use gristmill_protocol::identity::AccountId;

use super::{PostError, ReadError, replay};
use crate::book::Book;
use crate::index::{Index, IndexError, IndexedEntry, Selection};
use crate::outcome::Posted;

/// What the handles and the writer share.
pub(super) struct Shared {
    /// As of the last sync.
    pub(super) book: RwLock<Book>,
    /// Until the writer ends.
    pub(super) index: RwLock<Option<Box<dyn Index>>>,
    pub(super) journal_directory: PathBuf,
    /// Why nothing is written any more, if so.
    pub(super) failure: OnceLock<String>,
    /// Why the index is behind the book, if so.
    pub(super) index_failure: OnceLock<String>,
}

impl Shared {
    pub(super) fn book(&self) -> RwLockReadGuard<'_, Book> {
        // A commit can't leave the book half changed: it checks first and then only moves values.
        self.book.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn failure(&self) -> Option<String> {
        self.failure.get().cloned()
    }

    /// From now on nothing is written; gives what to answer.
    pub(super) fn fail(&self, reason: String) -> PostError {
        tracing::error!(reason, "the ledger takes no more entries");
        let reason = self.failure.get_or_init(|| reason).clone();
        PostError::ReadOnly { reason }
    }

    /// Adds what is on the disk to the index. An index that has failed once stays as it is until the next start, so
    /// that it never has a gap.
    pub(super) fn append_to_index(&self, entries: &[IndexedEntry]) {
        if self.index_failure.get().is_some() {
            return;
        }
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(Err(error)) = index.as_ref().map(|index| index.append(entries)) {
            let reason = self.index_failure.get_or_init(|| error.to_string());
            tracing::error!(
                reason,
                "the ledger's index is no longer kept; the next start rebuilds it"
            );
        }
    }

    pub(super) fn close_index(&self) {
        let index = self.index.write().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Err(error)) = index.map(|index| index.flush()) {
            tracing::warn!(%error, "the ledger's index could not be flushed; the next start brings it up to date");
        }
    }

    /// Asks the index, if it is as far as the book.
    pub(super) fn with_index<T>(
        &self,
        ask: impl FnOnce(&dyn Index) -> Result<T, IndexError>,
    ) -> Result<T, ReadError> {
        if let Some(reason) = self.index_failure.get() {
            return Err(ReadError::Index {
                reason: reason.clone(),
            });
        }
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        match index.as_deref() {
            Some(index) => Ok(ask(index)?),
            None => Err(ReadError::Stopped),
        }
    }

    pub(super) fn posted(&self, sequence: u64) -> Result<Option<Posted>, ReadError> {
        if sequence == 0 || sequence > self.book().sequence() {
            return Ok(None);
        }
        match self.with_index(|index| index.entry(sequence)) {
            Ok(Some(entry)) => Ok(Some(entry.posted(false))),
            // An answer must be the same for ever, so it does not depend on the index.
            Ok(None) | Err(_) => Ok(replay::posted(&self.journal_directory, sequence)?),
        }
    }

    pub(super) fn page(
        &self,
        account: &AccountId,
        selection: Selection,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Posted>, ReadError> {
        self.with_index(|index| {
            let mut page = Vec::new();
            for sequence in index.history(account, selection, before, limit)? {
                let missing = || IndexError::Damaged(format!("entry {sequence} is missing"));
                page.push(index.entry(sequence)?.ok_or_else(missing)?.posted(false));
            }
            Ok(page)
        })
    }
}
