//! Where a ledger is kept. Every store decides with the same [`Book`](crate::book::Book); they differ in where the
//! state lies and how many processes may write.
//!
//! - [`EmbeddedStore`]: a journal in a folder, the whole book in memory, one process. The default.
//! - [`PostgresStore`]: a database that speaks PostgreSQL's protocol, any number of processes.
//!
//! What every store promises, and the suite in `conformance` (a feature) checks:
//! - an entry is acknowledged after it is durable, and never lost after it was acknowledged;
//! - sequences begin at 1 and have no gap; readers see nothing that could still be lost;
//! - the same entry posted again gives the same answer, for ever;
//! - one root is reserved for one size of the log, for ever.

mod embedded;
pub mod postgres;

use std::fmt;

use async_trait::async_trait;
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::ids::ChannelId;
use gristmill_protocol::log::hash::LogHash;
use gristmill_protocol::log::tile::Tile;
use thiserror::Error;

use crate::book::{Balance, BrokenInvariant, ChannelState, Head};
use crate::digest::Digest;
use crate::entry::{CheckedEntry, Salt};
use crate::index::Selection;
use crate::outcome::Posted;
use crate::record::Record;
use crate::refusal::Refusal;

pub(crate) use embedded::{CHECKPOINT_FILE, LogFiles, RESERVED_FILE, apply, decode};
pub use embedded::{
    EmbeddedOptions, EmbeddedStore, EntryProblem, LEDGER_JOURNAL, MachineClock, MonotonicClock, OpenError,
    ReplayError, index_directory, journal_directory, log_directory, snapshot_directory,
};
pub use postgres::{PostgresOptions, PostgresStore};

/// Most records that are read at once.
pub const RECORDS_MAX: usize = 1_024;

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
    /// The disk is full. It is not in the ledger; reading goes on, and writing too once there is space.
    #[error("the ledger's disk is full: {reason}; free space on it, no restart is needed")]
    DiskFull {
        /// What the system said.
        reason: String,
    },
    /// The database can't be reached. Whether it is in the ledger shows when it is posted again: it takes effect once.
    #[error("the ledger's database can't be reached: {reason}; try again")]
    Unavailable {
        /// What went wrong.
        reason: String,
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
    /// The index can't be used; it is being made anew.
    #[error("the ledger's index can't be read: {reason}. It is made anew; try again in a while")]
    Index {
        /// What failed.
        reason: String,
    },
    /// The index does not reach as far yet.
    #[error(
        "entry {wanted} is not in the ledger's index yet, which has {indexed} entries: {reason}. Try again in a while"
    )]
    IndexBehind {
        /// The entry that was asked for.
        wanted: u64,
        /// The last entry that the index has.
        indexed: u64,
        /// Why it is behind.
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
    /// The database can't be reached.
    #[error("the ledger's database can't be reached: {reason}; try again")]
    Unavailable {
        /// What went wrong.
        reason: String,
    },
    /// What is stored contradicts itself.
    #[error("the ledger's store is damaged: {reason}. Run 'gristmill ledger audit'")]
    Damaged {
        /// What contradicts what.
        reason: String,
    },
}

/// Why the log could not be written.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LogWriteError {
    /// Another root was reserved for this size, or a larger size has been reserved.
    #[error(
        "the log has root {reserved} for size {size} on record, another root was computed: nothing is signed. The \
         disk is damaged or the store was restored from an old copy; run 'gristmill ledger audit'"
    )]
    OtherRoot {
        /// The size.
        size: u64,
        /// What is on record.
        reserved: LogHash,
    },
    /// A tile is there with other hashes.
    #[error("tile {path} of the log is there with other hashes; run 'gristmill ledger audit'")]
    OtherTile {
        /// Its path.
        path: String,
    },
    /// The store can't be written now.
    #[error("the log can't be written: {reason}")]
    Unavailable {
        /// What the system said.
        reason: String,
    },
}

/// The ledger did not end as asked.
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

/// Why the kept balances were not found to be the sums of what moved.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum VerifyError {
    /// They are not.
    #[error(transparent)]
    Broken(#[from] BrokenInvariant),
    /// They are not, in words of the store.
    #[error("the store does not balance: {0}")]
    Unbalanced(String),
    /// They can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// One salt for each of `count` records.
///
/// # Errors
/// In words, where the system gives no randomness.
#[expect(
    clippy::disallowed_methods,
    reason = "salts are drawn by the store, which journals them; nothing is decided by them"
)]
pub(crate) fn random_salts(count: usize) -> Result<Vec<Salt>, String> {
    let mut salts = vec![Salt::default(); count];
    getrandom::fill(salts.as_flattened_mut())
        .map_err(|error| format!("the system gives no randomness: {error}"))?;
    Ok(salts)
}

/// A checkpoint as a store keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredCheckpoint {
    /// How many records the log has at it.
    pub size: u64,
    /// The root of the tree over them.
    pub root: LogHash,
    /// The signed note; `None` where the root was reserved but the note was not published yet.
    pub note: Option<String>,
}

/// What became of saying that a process lives; see [`Store::beat`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beat {
    /// One process at most uses this store: it keeps for itself when it lived.
    Alone,
    /// It is on record.
    Counted,
    /// No process was alive for a while. The caller, and nobody else for some seconds, may post how long that was;
    /// then it calls [`Store::end_gap`].
    Gap {
        /// When one was last alive, Unix milliseconds.
        alive_ms: u64,
    },
    /// Another process is about to post how long no process was alive; try again.
    Waiting,
}

/// What a ledger needs of where it is kept. All calls may be made from any task at any time.
#[async_trait]
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// Posts an entry at this time (Unix, in milliseconds). Resolves once it is durable.
    ///
    /// An entry that was posted before gives the answer of then. Dropping the future does not take the entry back.
    ///
    /// # Errors
    /// [`PostError`]
    async fn post(&self, entry: CheckedEntry, now_ms: u64) -> Result<Posted, PostError>;

    /// What is one for the whole book: sequence, time, totals.
    ///
    /// # Errors
    /// [`ReadError`]
    async fn head(&self) -> Result<Head, ReadError>;

    /// What an account has.
    ///
    /// # Errors
    /// [`ReadError`]
    async fn balance(&self, account: &AccountId) -> Result<Balance, ReadError>;

    /// A channel as it is now.
    ///
    /// # Errors
    /// [`ReadError`]
    async fn channel(&self, channel: &ChannelId) -> Result<Option<ChannelState>, ReadError>;

    /// Open channels whose time to redeem is over at `now_ms`, the longest expired first, at most `limit`.
    ///
    /// # Errors
    /// [`ReadError`]
    async fn expired_channels(&self, now_ms: u64, limit: usize) -> Result<Vec<ChannelId>, ReadError>;

    /// The answer that the post of this sequence had: the same as then, for ever.
    ///
    /// # Errors
    /// [`ReadError`]
    async fn posted(&self, sequence: u64) -> Result<Option<Posted>, ReadError>;

    /// What concerns an account, the newest first, below the sequence `before` if given, at most `limit`
    /// ([`PAGE_MAX_ITEMS`](crate::index::PAGE_MAX_ITEMS) at most).
    ///
    /// # Errors
    /// [`ReadError`]
    async fn history(
        &self,
        account: &AccountId,
        selection: Selection,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Posted>, ReadError>;

    /// Records from the sequence `first` on, in order, read back from where they are kept: at most `limit` and
    /// [`RECORDS_MAX`], fewer where there are no more.
    ///
    /// # Errors
    /// [`ReadError`]
    async fn records(&self, first: u64, limit: usize) -> Result<Vec<Record>, ReadError>;

    /// BLAKE3 over the whole state: two ledgers with the same entries have the same, in whatever store.
    ///
    /// # Errors
    /// [`ReadError`]
    async fn state_digest(&self) -> Result<Digest, ReadError>;

    /// Checks every kept balance and total against what they are sums of.
    ///
    /// # Errors
    /// [`VerifyError`]
    async fn verify(&self) -> Result<(), VerifyError>;

    /// A tile of hashes of the log, exactly of its width.
    ///
    /// # Errors
    /// [`ReadError`]
    async fn read_tile(&self, tile: Tile) -> Result<Option<Vec<u8>>, ReadError>;

    /// Keeps tiles, durably. One that is there with the same bytes is left as it is.
    ///
    /// # Errors
    /// [`LogWriteError`]
    async fn write_tiles(&self, tiles: Vec<(Tile, Vec<u8>)>) -> Result<(), LogWriteError>;

    /// The reserved checkpoint of the largest size.
    ///
    /// # Errors
    /// [`ReadError`]
    async fn newest_checkpoint(&self) -> Result<Option<StoredCheckpoint>, ReadError>;

    /// The published checkpoint of the largest size: what everybody is shown.
    ///
    /// # Errors
    /// [`ReadError`]
    async fn published_checkpoint(&self) -> Result<Option<StoredCheckpoint>, ReadError>;

    /// Makes it durable that the log of this size has this root, before anybody signs that. The same again is fine.
    ///
    /// # Errors
    /// [`LogWriteError::OtherRoot`] where another root is on record for the size.
    async fn reserve_checkpoint(&self, size: u64, root: LogHash) -> Result<(), LogWriteError>;

    /// Keeps the signed note of a reserved checkpoint, durably; a later call replaces it by one with more signatures.
    ///
    /// # Errors
    /// [`LogWriteError`]
    async fn publish_checkpoint(&self, size: u64, note: &str) -> Result<(), LogWriteError>;

    /// Says that a process that uses this ledger lives at this time (Unix, in milliseconds), where several may use
    /// it. Where no process has said so for more than `unnoticed_ms`, one of those that do now is told of the gap.
    ///
    /// # Errors
    /// [`ReadError`]
    async fn beat(&self, _now_ms: u64, _unnoticed_ms: u64) -> Result<Beat, ReadError> {
        Ok(Beat::Alone)
    }

    /// Ends a [`Beat::Gap`], once the ledger says how long it was.
    ///
    /// # Errors
    /// [`ReadError`]
    async fn end_gap(&self, _now_ms: u64) -> Result<(), ReadError> {
        Ok(())
    }

    /// Why no more entries are taken, if so.
    fn read_only_reason(&self) -> Option<String>;

    /// Takes no more entries, finishes what is waiting, and gives everything free. May be called more than once.
    ///
    /// # Errors
    /// [`ShutdownError`]
    async fn shutdown(&self) -> Result<(), ShutdownError>;
}
