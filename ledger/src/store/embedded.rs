//! A journal in a folder, the whole book in memory, and one writer thread that commits in groups.
//!
//! A post resolves once the entry is in the journal and the journal is on the disk. Readers see the book as of the
//! last sync, never something that could still be lost. If the disk fails, nothing is acknowledged any
//! more, and what was acknowledged can still be read.
//!
//! # Who does what
//!
//! ```text
//! post -> inbox -> writer: decides on a draft -> disk thread: writes, syncs -> writer: commits, answers
//!                                                                               |-> index follower
//!                                                                               '-> snapshot keeper
//! ```
//!
//! - The writer decides about the next batch while the disk thread syncs the one before ([`writer`]), and admits only
//!   as many posts as can be answered soon ([`admission`]).
//! - The index follower adds what was written to the index; until then it is found in memory ([`recent`]).
//! - The snapshot keeper makes snapshots from the journal, so that the next start is short ([`crate::snapshot`]).

mod admission;
mod background;
mod batch;
mod disk_thread;
mod inbox;
mod index_file;
mod index_follower;
mod log_files;
mod pace;
mod recent;
mod record_reader;
mod replay;
mod salts;
mod shared;
mod snapshot_keeper;
mod start;
mod writer;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::ids::ChannelId;
use gristmill_protocol::log::hash::LogHash;
use gristmill_protocol::log::tile::Tile;
use thiserror::Error;
use tokio::sync::{oneshot, watch};

use super::{
    LogWriteError, PostError, RECORDS_MAX, ReadError, ShutdownError, Store, StoredCheckpoint, VerifyError,
};
use crate::book::{Balance, ChannelState, Head};
use crate::digest::Digest;
use crate::disk::{Disk, RealDisk};
use crate::entry::CheckedEntry;
use crate::index::{IndexError, Selection};
use crate::journal::{JournalError, SEGMENT_BYTES};
use crate::outcome::Posted;
use crate::record::{JournalKind, Record};
use admission::Admission;
use background::Background;
use inbox::NotAdmitted;
use shared::Shared;
use writer::{Answer, Post, WriterState};

pub use admission::{MachineClock, MonotonicClock};
pub(crate) use log_files::{CHECKPOINT_FILE, LogFiles, RESERVED_FILE};
pub use replay::{EntryProblem, ReplayError};
pub(crate) use replay::{apply, decode};

/// The kind of the ledger's journal.
pub const LEDGER_JOURNAL: JournalKind = *b"ledger-2";

/// How a ledger is run.
#[derive(Clone, Debug)]
pub struct EmbeddedOptions {
    /// How many posts may be unanswered at most; one more is [`PostError::Overloaded`].
    pub queue_entries: usize,
    /// How many entries are synced together at most.
    pub batch_entries: usize,
    /// Within which time a post shall be answered. If it would take longer with those that wait already, it is
    /// [`PostError::Overloaded`]. On a disk whose syncs take longer than that, one batch may wait.
    pub answer_within: Duration,
    /// After how many bytes the journal begins a new segment, and a snapshot is made.
    pub segment_bytes: u64,
    /// Where everything is kept.
    pub disk: Arc<dyn Disk>,
    /// What the writer's costs are measured with.
    pub clock: Arc<dyn MonotonicClock>,
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        Self {
            queue_entries: 4_096,
            batch_entries: 1_024,
            answer_within: Duration::from_millis(5),
            segment_bytes: SEGMENT_BYTES,
            disk: RealDisk::shared(),
            clock: Arc::new(MachineClock),
        }
    }
}

impl EmbeddedOptions {
    fn admission(&self) -> Admission {
        Admission::new(
            self.answer_within,
            self.batch_entries.max(1),
            self.queue_entries.max(1),
        )
    }
}

/// Why a ledger can't be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The journal can't be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The journal holds something that the book does not take.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// Entries that had been acknowledged are gone.
    #[error(
        "the journal ends with entry {journal} (byte {offset} of {file}), but {known_by} has entry {known}: \
         acknowledged entries are lost. Restore the ledger from a backup; nothing was changed"
    )]
    EntriesLost {
        /// The last segment.
        file: PathBuf,
        /// Where it ends.
        offset: u64,
        /// The last entry in the journal.
        journal: u64,
        /// The last entry that is known to have been there.
        known: u64,
        /// Who knows that.
        known_by: &'static str,
    },
    /// The log's reserved root is not that of the journal's records.
    #[error(
        "the log was to have root {reserved} at size {size}, but the journal's records have root {actual}: one of them \
         was changed. Run 'gristmill ledger audit' and restore the ledger from a backup"
    )]
    OtherRoot {
        /// The size.
        size: u64,
        /// What is on record.
        reserved: LogHash,
        /// What the records lead to.
        actual: LogHash,
    },
    /// The files of the log can't be read.
    #[error("the log's files can't be read: {0}")]
    Log(ReadError),
    /// The system gives no thread.
    #[error("cannot start the ledger's threads: {0}")]
    Thread(io::Error),
}

/// A ledger that this process writes. Clones are the same ledger.
#[derive(Clone)]
pub struct EmbeddedStore {
    shared: Arc<Shared>,
    writer: watch::Receiver<WriterState>,
    _handle: Arc<Handle>,
}

/// What the last clone of a store drops: nobody can post any more, so the threads end.
struct Handle(Arc<Shared>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.inbox.close();
    }
}

impl EmbeddedStore {
    /// Opens the ledger in `directory`, or begins one: replays what the journal has behind the newest snapshot, brings
    /// the index up to it, starts the threads. Blocks for as long as that takes.
    ///
    /// # Errors
    /// [`OpenError`]
    pub fn open(directory: &Path, options: &EmbeddedOptions) -> Result<Self, OpenError> {
        let (parts, journal) = start::start(directory, options)?;
        let shared = Arc::new(Shared::new(parts));
        let background = Background::spawn(&shared)?;
        let writer =
            writer::spawn(Arc::clone(&shared), journal, background, options).map_err(OpenError::Thread)?;
        // The index may be behind.
        shared.follower.notify();
        let handle = Arc::new(Handle(Arc::clone(&shared)));
        Ok(Self {
            shared,
            writer,
            _handle: handle,
        })
    }

    fn stopped(&self) -> PostError {
        match self.shared.failure() {
            Some(reason) => PostError::ReadOnly { reason },
            None => PostError::Stopped,
        }
    }

    /// Runs something that may wait for a disk where waiting hurts nobody.
    async fn blocking<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Shared) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, ReadError> {
        let shared = Arc::clone(&self.shared);
        let finished = tokio::task::spawn_blocking(move || read(&shared)).await;
        finished.unwrap_or_else(|error| {
            Err(ReadError::Index {
                reason: error.to_string(),
            })
        })
    }

    /// Writes to the files of the log where waiting hurts nobody.
    async fn writing(
        &self,
        write: impl FnOnce(&LogFiles) -> Result<(), LogWriteError> + Send + 'static,
    ) -> Result<(), LogWriteError> {
        let shared = Arc::clone(&self.shared);
        let finished = tokio::task::spawn_blocking(move || write(&shared.log_files)).await;
        finished.unwrap_or_else(|error| {
            Err(LogWriteError::Unavailable {
                reason: error.to_string(),
            })
        })
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn post(&self, entry: CheckedEntry, now_ms: u64) -> Result<Posted, PostError> {
        let (answer, answered) = oneshot::channel();
        let post = Post {
            entry,
            time_ms: now_ms,
            answer,
        };
        self.shared.inbox.push(post).map_err(|error| match error {
            NotAdmitted::TooMany(waiting) => PostError::Overloaded { waiting },
            NotAdmitted::Closed => self.stopped(),
        })?;
        match answered.await.map_err(|_| self.stopped())?? {
            Answer::Now(entries, place) => {
                let entry = entries.get(place).cloned();
                entry.map(|entry| entry.posted(false)).ok_or(PostError::Stopped)
            }
            Answer::Before(sequence) => {
                let posted = self.posted(sequence).await?;
                let missing = || ReadError::Index {
                    reason: format!("entry {sequence} is missing"),
                };
                Ok(Posted {
                    repeated: true,
                    ..posted.ok_or_else(missing)?
                })
            }
        }
    }

    async fn head(&self) -> Result<Head, ReadError> {
        Ok(*self.shared.book().head())
    }

    async fn balance(&self, account: &AccountId) -> Result<Balance, ReadError> {
        Ok(self.shared.book().balance(account))
    }

    async fn channel(&self, channel: &ChannelId) -> Result<Option<ChannelState>, ReadError> {
        Ok(self.shared.book().channel(channel))
    }

    async fn expired_channels(&self, now_ms: u64, limit: usize) -> Result<Vec<ChannelId>, ReadError> {
        Ok(self.shared.book().expired_channels(now_ms, limit))
    }

    async fn posted(&self, sequence: u64) -> Result<Option<Posted>, ReadError> {
        // What was written lately is in memory.
        if let Some(posted) = self.shared.posted_lately(sequence) {
            return Ok(Some(posted));
        }
        self.blocking(move |shared| shared.posted(sequence)).await
    }

    async fn history(
        &self,
        account: &AccountId,
        selection: Selection,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Posted>, ReadError> {
        let account = *account;
        self.blocking(move |shared| shared.page(&account, selection, before, limit))
            .await
    }

    async fn records(&self, first: u64, limit: usize) -> Result<Vec<Record>, ReadError> {
        self.blocking(move |shared| shared.records(first, limit.min(RECORDS_MAX)))
            .await
    }

    async fn state_digest(&self) -> Result<Digest, ReadError> {
        self.blocking(|shared| Ok(shared.book().digest())).await
    }

    async fn verify(&self) -> Result<(), VerifyError> {
        Ok(self.blocking(|shared| Ok(shared.book().verify())).await??)
    }

    async fn read_tile(&self, tile: Tile) -> Result<Option<Vec<u8>>, ReadError> {
        self.blocking(move |shared| shared.log_files.read_tile(&tile))
            .await
    }

    async fn write_tiles(&self, tiles: Vec<(Tile, Vec<u8>)>) -> Result<(), LogWriteError> {
        self.writing(move |files| files.write_tiles(&tiles)).await
    }

    async fn newest_checkpoint(&self) -> Result<Option<StoredCheckpoint>, ReadError> {
        self.blocking(|shared| shared.log_files.newest_checkpoint()).await
    }

    async fn published_checkpoint(&self) -> Result<Option<StoredCheckpoint>, ReadError> {
        self.blocking(|shared| shared.log_files.published_checkpoint())
            .await
    }

    async fn reserve_checkpoint(&self, size: u64, root: LogHash) -> Result<(), LogWriteError> {
        self.writing(move |files| files.reserve(size, root)).await
    }

    async fn publish_checkpoint(&self, size: u64, note: &str) -> Result<(), LogWriteError> {
        let note = note.to_owned();
        self.writing(move |files| files.publish(size, &note)).await
    }

    fn read_only_reason(&self) -> Option<String> {
        self.shared.failure()
    }

    async fn shutdown(&self) -> Result<(), ShutdownError> {
        self.shared.inbox.close();
        let mut writer = self.writer.clone();
        let ended = writer
            .wait_for(|state| *state != WriterState::Running)
            .await
            .map(|state| *state);
        match (ended, self.shared.failure()) {
            (Ok(WriterState::Ended), None) => Ok(()),
            (Ok(WriterState::Ended), Some(reason)) => Err(ShutdownError::ReadOnly { reason }),
            _ => Err(ShutdownError::Panicked),
        }
    }
}

impl std::fmt::Debug for EmbeddedStore {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("EmbeddedStore")
            .field("journal", &self.shared.journal_directory)
            .finish_non_exhaustive()
    }
}

impl From<IndexError> for ReadError {
    fn from(error: IndexError) -> Self {
        Self::Index {
            reason: error.to_string(),
        }
    }
}

impl From<JournalError> for ReadError {
    fn from(error: JournalError) -> Self {
        Self::Journal {
            reason: error.to_string(),
        }
    }
}

impl From<ReplayError> for ReadError {
    fn from(error: ReplayError) -> Self {
        Self::Journal {
            reason: error.to_string(),
        }
    }
}

/// Where a ledger keeps its journal.
#[must_use]
pub fn journal_directory(directory: &Path) -> PathBuf {
    directory.join("journal")
}

/// Where a ledger keeps its index.
#[must_use]
pub fn index_directory(directory: &Path) -> PathBuf {
    directory.join("index")
}

/// Where a ledger keeps its snapshots.
#[must_use]
pub fn snapshot_directory(directory: &Path) -> PathBuf {
    directory.join("snapshots")
}

/// Where a ledger keeps the tiles and checkpoints of its log, in the layout of C2SP tlog-tiles.
#[must_use]
pub fn log_directory(directory: &Path) -> PathBuf {
    directory.join("log")
}

#[cfg(test)]
mod tests;
