//! The ledger as the coordinator uses it: a handle over one writer thread that commits in groups.
//!
//! [`Ledger::post`] resolves once the entry is in the journal and the journal is on the disk. Readers see the book
//! as of the last sync, never something that could still be lost. If the disk fails, nothing is acknowledged any
//! more, and what was acknowledged can still be read.

mod replay;
mod shared;
mod writer;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, RwLock};

use gristmill_protocol::identity::AccountId;
use gristmill_protocol::ids::ChannelId;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};

use crate::book::{Balance, ChannelState, Totals};
use crate::digest::Digest;
use crate::entry::Entry;
use crate::index::{IndexError, Selection};
use crate::journal::{self, JournalError, JournalOptions, SEGMENT_BYTES};
use crate::outcome::Posted;
use crate::record::{JournalKind, Record};
use crate::refusal::Refusal;
use shared::Shared;
use writer::{Answer, Command, Post, WriterState};

pub use replay::{EntryProblem, ReplayError};
pub(crate) use replay::{apply, decode};

/// The kind of the ledger's journal.
pub const LEDGER_JOURNAL: JournalKind = *b"ledger\0\0";

/// How a ledger is run.
#[derive(Clone, Debug)]
pub struct LedgerOptions {
    /// How many posts may wait for the writer; one more is [`PostError::Overloaded`].
    pub queue_entries: usize,
    /// How many entries are synced together at most.
    pub batch_entries: usize,
    /// After how many bytes the journal begins a new segment.
    pub segment_bytes: u64,
}

impl Default for LedgerOptions {
    fn default() -> Self {
        Self {
            queue_entries: 4_096,
            batch_entries: 1_024,
            segment_bytes: SEGMENT_BYTES,
        }
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
        "the journal in {directory} ends with entry {journal}, but entry {index} had been synced: acknowledged \
         entries are lost. Restore the journal from a backup; to accept the loss, remove {index_directory}"
    )]
    EntriesLost {
        /// The ledger's directory.
        directory: PathBuf,
        /// The last entry in the journal.
        journal: u64,
        /// The last entry in the index, which is written after the journal.
        index: u64,
        /// The index.
        index_directory: PathBuf,
    },
    /// The index can't even be made anew.
    #[error(
        "the index in {directory} can't be rebuilt: {source}; check the permissions and space of the disk"
    )]
    Index {
        /// The index.
        directory: PathBuf,
        /// Why not.
        source: IndexError,
    },
    /// The system gives no thread.
    #[error("cannot start the ledger's writer: {0}")]
    Thread(io::Error),
}

/// Why an entry is not in the ledger, or not known to be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PostError {
    /// The book refuses it. It is not in the ledger.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Too much is waiting. It is not in the ledger; try again later.
    #[error("{waiting} entries are waiting to be written; try again in a moment")]
    Overloaded {
        /// How many are waiting.
        waiting: usize,
    },
    /// The disk failed. Nothing is written any more; what was acknowledged can still be read. Whether this entry
    /// is in the ledger shows after a new start: post it again then, it takes effect once.
    #[error("the ledger takes no more entries: {reason}")]
    ReadOnly {
        /// What failed.
        reason: String,
    },
    /// The ledger was shut down. It is not in the ledger.
    #[error("the ledger was shut down")]
    Stopped,
    /// The entry was posted before, but its answer can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Why something can't be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ReadError {
    /// The index can't be used; a new start rebuilds it.
    #[error("the ledger's index can't be read: {reason}. Start the coordinator again to rebuild it")]
    Index {
        /// What failed.
        reason: String,
    },
    /// The ledger was shut down.
    #[error("the ledger was shut down")]
    Stopped,
    /// The journal can't be read.
    #[error("the journal can't be read: {reason}. Run 'gristmill ledger audit'")]
    Journal {
        /// What failed.
        reason: String,
    },
}

/// The writer ended otherwise than asked.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ShutdownError {
    /// An error of this program. Everything that was acknowledged is on the disk.
    #[error("the ledger's writer panicked; everything acknowledged is on the disk")]
    Panicked,
    /// The last sync failed earlier; see [`PostError::ReadOnly`].
    #[error("the ledger had stopped writing: {reason}")]
    ReadOnly {
        /// What failed.
        reason: String,
    },
}

/// A ledger that this process writes. Clones are the same ledger.
#[derive(Clone)]
pub struct Ledger {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Command>,
    writer: watch::Receiver<WriterState>,
}

impl Ledger {
    /// Opens the ledger in `directory`, or begins one: replays the journal, brings the index up to it, starts the
    /// writer. Blocks for as long as that takes.
    ///
    /// # Errors
    /// [`OpenError`]
    pub fn open(directory: &Path, options: &LedgerOptions) -> Result<Self, OpenError> {
        let journal_directory = journal_directory(directory);
        let journal_options = JournalOptions {
            kind: LEDGER_JOURNAL,
            segment_bytes: options.segment_bytes,
        };
        let (journal, records) = journal::Journal::open(&journal_directory, journal_options)?;
        if let Some(cut) = journal.cut_tail() {
            tracing::warn!(
                file = %cut.file.display(), offset = cut.offset, bytes = cut.bytes, kept_in = %cut.kept_in.display(),
                "the journal ended with bytes of an unfinished write, which were cut off"
            );
        }
        let (book, index) = replay::recover(directory, &journal, records)?;
        let shared = Arc::new(Shared {
            book: RwLock::new(book),
            index: RwLock::new(Some(Box::new(index))),
            journal_directory,
            failure: OnceLock::new(),
            index_failure: OnceLock::new(),
        });
        let (queue, commands) = mpsc::channel(options.queue_entries.max(1));
        let writer = writer::spawn(
            Arc::clone(&shared),
            journal,
            commands,
            options.batch_entries.max(1),
        )
        .map_err(OpenError::Thread)?;
        Ok(Self {
            shared,
            queue,
            writer,
        })
    }

    /// Posts an entry at this time (Unix, in milliseconds). Resolves once it is on the disk.
    ///
    /// An entry that was posted before gives the answer of then. Dropping the future does not take the entry back.
    ///
    /// # Errors
    /// [`PostError`]
    pub async fn post(&self, entry: Entry, now_ms: u64) -> Result<Posted, PostError> {
        let entry = entry.check()?;
        let (answer, answered) = oneshot::channel();
        let waiting = self.queue.max_capacity();
        let post = Command::Post(Box::new(Post {
            entry,
            time_ms: now_ms,
            answer,
        }));
        self.queue.try_send(post).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => PostError::Overloaded { waiting },
            mpsc::error::TrySendError::Closed(_) => self.stopped(),
        })?;
        match answered.await.map_err(|_| self.stopped())?? {
            Answer::Now(posted) => Ok(*posted),
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

    /// What an account has.
    #[must_use]
    pub fn balance(&self, account: &AccountId) -> Balance {
        self.shared.book().balance(account)
    }

    /// A channel as it is now.
    #[must_use]
    pub fn channel(&self, channel: &ChannelId) -> Option<ChannelState> {
        self.shared.book().channel(channel)
    }

    /// Open channels whose time to redeem is over at `now_ms`, the longest expired first, at most `limit`.
    #[must_use]
    pub fn expired_channels(&self, now_ms: u64, limit: usize) -> Vec<ChannelId> {
        self.shared.book().expired_channels(now_ms, limit)
    }

    /// What the accounts hold together.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.shared.book().totals()
    }

    /// The sequence of the last entry; 0 in an empty ledger.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.shared.book().sequence()
    }

    /// When the last entry was posted, Unix time in milliseconds; 0 in an empty ledger.
    #[must_use]
    pub fn last_time_ms(&self) -> u64 {
        self.shared.book().last_time_ms()
    }

    /// BLAKE3 over the whole state: two ledgers with the same entries have the same.
    #[must_use]
    pub fn state_digest(&self) -> Digest {
        self.shared.book().digest()
    }

    /// Why the ledger takes no more entries, if so.
    #[must_use]
    pub fn read_only_reason(&self) -> Option<String> {
        self.shared.failure()
    }

    /// The answer that the post of this sequence had: the same as then, for ever.
    ///
    /// # Errors
    /// [`ReadError`]
    pub async fn posted(&self, sequence: u64) -> Result<Option<Posted>, ReadError> {
        self.blocking(move |shared| shared.posted(sequence)).await
    }

    /// The answer whose record has this hash.
    ///
    /// # Errors
    /// [`ReadError`]
    pub async fn find(&self, record_hash: Digest) -> Result<Option<Posted>, ReadError> {
        self.blocking(
            move |shared| match shared.with_index(|index| index.sequence_of(&record_hash))? {
                Some(sequence) => shared.posted(sequence),
                None => Ok(None),
            },
        )
        .await
    }

    /// The record of this sequence as it is in the journal; [`Entry::decode`] reads its content.
    ///
    /// # Errors
    /// [`ReadError`]
    pub async fn record(&self, sequence: u64) -> Result<Option<Record>, ReadError> {
        self.blocking(move |shared| {
            let Some(entry) = shared.with_index(|index| index.entry(sequence))? else {
                return Ok(None);
            };
            Ok(Some(journal::read_at(
                &shared.journal_directory,
                LEDGER_JOURNAL,
                entry.location,
            )?))
        })
        .await
    }

    /// What concerns an account, the newest first, below the sequence `before` if given, at most `limit`
    /// ([`PAGE_MAX_ITEMS`](crate::index::PAGE_MAX_ITEMS) at most).
    ///
    /// # Errors
    /// [`ReadError`]
    pub async fn history(
        &self,
        account: AccountId,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Posted>, ReadError> {
        self.blocking(move |shared| shared.page(&account, Selection::All, before, limit))
            .await
    }

    /// What an account paid or was paid, the newest first, below the sequence `before` if given, at most `limit`
    /// ([`PAGE_MAX_ITEMS`](crate::index::PAGE_MAX_ITEMS) at most). Each can be made a receipt again.
    ///
    /// # Errors
    /// [`ReadError`]
    pub async fn settlements(
        &self,
        account: AccountId,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Posted>, ReadError> {
        self.blocking(move |shared| shared.page(&account, Selection::Settlements, before, limit))
            .await
    }

    /// Takes no more entries, writes what is waiting, syncs, and gives the directory free. May be called more than
    /// once. Dropping all handles does the same in the background.
    ///
    /// # Errors
    /// [`ShutdownError`]
    pub async fn shutdown(&self) -> Result<(), ShutdownError> {
        // An error means that the writer has ended already.
        let _ = self.queue.send(Command::Stop).await;
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
}

impl std::fmt::Debug for Ledger {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Ledger")
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{Grant, GrantKind};
    use gristmill_protocol::credits::Credits;
    use gristmill_protocol::ids::GrantId;

    fn grant(id: u8) -> Entry {
        Entry::Grant(Grant {
            id: GrantId::from_bytes([id; 16]),
            account: AccountId::from_public_key([1; 32]),
            amount: Credits::micro(1),
            kind: GrantKind::Operator,
            reason: String::new(),
        })
    }

    /// A writer that can't go on, as with a slow disk: the book is kept from it.
    #[tokio::test]
    async fn one_more_than_the_queue_holds_is_overload() {
        let folder = tempfile::tempdir().unwrap();
        let options = LedgerOptions {
            queue_entries: 2,
            batch_entries: 1,
            ..LedgerOptions::default()
        };
        let ledger = Ledger::open(folder.path(), &options).unwrap();
        let mut waiting = Vec::new();
        let shared = Arc::clone(&ledger.shared);
        let (locked, is_locked) = oneshot::channel();
        let (release, released) = std::sync::mpsc::channel::<()>();
        let holder = std::thread::spawn(move || {
            let guard = shared.book.write();
            let _ = locked.send(());
            let _ = released.recv();
            drop(guard);
        });
        is_locked.await.unwrap();

        // The first one is taken by the writer, which then waits for the book; the next two fill the queue.
        for id in 0..3 {
            waiting.push(Box::pin(ledger.post(grant(id), 1)));
            let polled = poll_once(waiting.last_mut().unwrap().as_mut()).await;
            assert!(polled.is_none());
            while id == 0 && ledger.queue.capacity() < 2 {
                tokio::task::yield_now().await;
            }
        }
        assert_eq!(
            ledger.post(grant(9), 1).await,
            Err(PostError::Overloaded { waiting: 2 })
        );
        release.send(()).unwrap();
        for post in waiting {
            post.await.unwrap();
        }
        holder.join().unwrap();
        assert_eq!(ledger.post(grant(9), 1).await.unwrap().sequence, 4);
    }

    async fn poll_once<F: Future>(mut future: std::pin::Pin<&mut F>) -> Option<F::Output> {
        std::future::poll_fn(|context| {
            std::task::Poll::Ready(match future.as_mut().poll(context) {
                std::task::Poll::Ready(output) => Some(output),
                std::task::Poll::Pending => None,
            })
        })
        .await
    }
}
