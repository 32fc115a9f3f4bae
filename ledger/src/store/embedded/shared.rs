//! What the handles and the threads share: the book as of the last sync, what was written lately, the index, and
//! whether all of them still go on.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard};

use gristmill_protocol::identity::AccountId;

use super::inbox::Inbox;
use super::index_file::IndexFile;
use super::index_follower::FollowerSignal;
use super::log_files::LogFiles;
use super::recent::Recent;
use super::record_reader::RecordReader;
use super::replay::ReplaySource;
use super::snapshot_keeper::KeeperSignal;
use crate::book::Book;
use crate::index::{Index, IndexError, IndexedEntry, PAGE_MAX_ITEMS, Selection};
use crate::outcome::Posted;
use crate::record::Record;
use crate::store::{PostError, ReadError};

/// How often the index is opened again while the ledger is open.
const MENDED_MOST: u32 = 8;

/// What the handles and the threads share.
pub(super) struct Shared {
    /// As of the last sync.
    pub(super) book: RwLock<Book>,
    pub(super) inbox: Inbox,
    pub(super) recent: Recent,
    pub(super) index: RwLock<IndexState>,
    pub(super) index_file: IndexFile,
    pub(super) follower: FollowerSignal,
    /// Why the index is behind, if it could not be written lately.
    index_problem: Mutex<Option<String>>,
    /// How often it was said to be damaged.
    index_mended: AtomicU32,
    pub(super) keeper: KeeperSignal,
    pub(super) source: ReplaySource,
    pub(super) journal_directory: PathBuf,
    pub(super) segment_bytes: u64,
    pub(super) log_files: LogFiles,
    /// Why nothing is written any more, if so.
    failure: OnceLock<String>,
}

/// The index while the ledger is open.
pub(super) enum IndexState {
    Open(Box<dyn Index>),
    /// It can't be opened, or is damaged; the follower makes it anew.
    Unusable(String),
    Closed,
}

/// What a start found.
pub(super) struct Parts {
    pub(super) book: Book,
    pub(super) inbox: Inbox,
    pub(super) recent: Recent,
    pub(super) index: IndexState,
    pub(super) index_file: IndexFile,
    pub(super) keeper: KeeperSignal,
    pub(super) source: ReplaySource,
    pub(super) journal_directory: PathBuf,
    pub(super) segment_bytes: u64,
    pub(super) log_files: LogFiles,
}

impl Shared {
    pub(super) fn new(parts: Parts) -> Self {
        Self {
            book: RwLock::new(parts.book),
            inbox: parts.inbox,
            recent: parts.recent,
            index: RwLock::new(parts.index),
            index_file: parts.index_file,
            follower: FollowerSignal::default(),
            index_problem: Mutex::default(),
            index_mended: AtomicU32::new(0),
            keeper: parts.keeper,
            source: parts.source,
            journal_directory: parts.journal_directory,
            segment_bytes: parts.segment_bytes,
            log_files: parts.log_files,
            failure: OnceLock::new(),
        }
    }

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

    /// A reader of the journal for somebody who reads many records in a row.
    pub(super) fn own_reader(&self) -> RecordReader {
        RecordReader::new(Arc::clone(&self.source.disk), &self.journal_directory)
    }

    /// Tells the threads that follow what was written.
    pub(super) fn show_written(&self, entries: &[IndexedEntry]) {
        self.follower.notify();
        self.keeper.notify(entries);
    }

    pub(super) fn close_index(&self) {
        let mut state = self.index.write().unwrap_or_else(PoisonError::into_inner);
        let index = std::mem::replace(&mut *state, IndexState::Closed);
        if let IndexState::Open(index) = index
            && let Err(error) = index.flush()
        {
            tracing::warn!(%error, "the ledger's index could not be flushed; the next start brings it up to date");
        }
    }

    /// Keeps why the index is behind, for those who ask it.
    pub(super) fn set_index_problem(&self, reason: Option<String>) {
        *self.index_problem.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    /// The index does not have `sequence` yet.
    fn behind(&self, sequence: u64) -> ReadError {
        let problem = self
            .index_problem
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        ReadError::IndexBehind {
            wanted: sequence,
            indexed: self.recent.index_end(),
            reason: problem.unwrap_or_else(|| "it is being brought up to the journal".into()),
        }
    }

    /// Asks the index. One that says it is damaged is mended by the follower.
    fn with_index<T>(&self, ask: impl FnOnce(&dyn Index) -> Result<T, IndexError>) -> Result<T, ReadError> {
        let state = self.index.read().unwrap_or_else(PoisonError::into_inner);
        let asked = match &*state {
            IndexState::Open(index) => ask(&**index),
            IndexState::Unusable(reason) => {
                return Err(ReadError::Index {
                    reason: reason.clone(),
                });
            }
            IndexState::Closed => return Err(ReadError::Stopped),
        };
        drop(state);
        if let Err(IndexError::Damaged(reason)) = &asked {
            self.give_up_index(reason);
        }
        Ok(asked?)
    }

    /// Lets the follower open the index again, which ends before what is damaged then. Not for ever: it may be the
    /// journal that is damaged, and then the index is as good as it can be.
    fn give_up_index(&self, reason: &str) {
        let mut state = self.index.write().unwrap_or_else(PoisonError::into_inner);
        let may_mend = self.index_mended.fetch_add(1, Ordering::Relaxed) < MENDED_MOST;
        if may_mend && matches!(*state, IndexState::Open(_)) {
            tracing::error!(reason, "the ledger's index is damaged");
            *state = IndexState::Unusable(reason.to_owned());
            self.recent.indexed(0);
            drop(state);
            self.follower.notify();
        }
    }

    /// The answer to a post, if it is in memory.
    pub(super) fn posted_lately(&self, sequence: u64) -> Option<Posted> {
        if sequence > self.book().sequence() {
            return None;
        }
        self.recent.entry(sequence).map(|entry| entry.posted(false))
    }

    /// Never reads more than the one record: what the index does not have is in memory, or is not answered yet.
    pub(super) fn posted(&self, sequence: u64) -> Result<Option<Posted>, ReadError> {
        if sequence == 0 || sequence > self.book().sequence() {
            return Ok(None);
        }
        if let Some(posted) = self.posted_lately(sequence) {
            return Ok(Some(posted));
        }
        match self.with_index(|index| index.entry(sequence))? {
            Some(entry) => Ok(Some(entry.posted(false))),
            None => Err(self.behind(sequence)),
        }
    }

    pub(super) fn records(&self, first: u64, limit: usize) -> Result<Vec<Record>, ReadError> {
        let first = first.max(1);
        let count = u64::try_from(limit).unwrap_or(u64::MAX);
        let last = self
            .book()
            .sequence()
            .min(first.saturating_add(count).saturating_sub(1));
        let mut records = Vec::new();
        if first > last {
            return Ok(records);
        }
        // Helps to find the first one; where nobody knows, the journal is searched.
        let place = || {
            let recent = self.recent.entry(first).map(|entry| entry.location);
            let indexed = || self.with_index(|index| index.location(first)).ok().flatten();
            recent.or_else(indexed).map(Into::into)
        };
        self.source.records.read(first, last, place, |_, record| {
            records.push(record.to_record());
            Ok::<_, ReadError>(())
        })?;
        Ok(records)
    }

    pub(super) fn page(
        &self,
        account: &AccountId,
        selection: Selection,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Posted>, ReadError> {
        let limit = limit.min(PAGE_MAX_ITEMS);
        let mut last = self.book().sequence();
        if let Some(before) = before {
            last = last.min(before.saturating_sub(1));
        }
        let (newest, indexed) = self
            .recent
            .history(account, selection, last, limit)
            .ok_or_else(|| self.behind(last))?;
        let mut page: Vec<Posted> = newest.into_iter().map(|entry| entry.posted(false)).collect();
        let rest = limit - page.len();
        if rest == 0 || indexed == 0 {
            return Ok(page);
        }
        // The index may have gone on since.
        let below = last.min(indexed).saturating_add(1);
        self.with_index(|index| {
            for sequence in index.history(account, selection, Some(below), rest)? {
                let missing = || IndexError::Damaged(format!("entry {sequence} is missing"));
                page.push(index.entry(sequence)?.ok_or_else(missing)?.posted(false));
            }
            Ok(())
        })?;
        Ok(page)
    }
}
