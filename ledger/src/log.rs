//! The Merkle log over a store: makes every record part of a tree whose root the coordinator signs, so that nobody,
//! the operator included, can change or drop one unseen.
//!
//! [`Log::integrate`] is called again and again while the coordinator runs. Each call takes the records behind the
//! log's size, in this order, and a crash between any two of these leaves something that the next start goes on from:
//!
//! 1. the records are read and hashed twice, once on top of what is in memory, once on top of the tiles that are read
//!    back from the store; both come to the same root;
//! 2. the tiles that change are written, durably, and read back;
//! 3. the pair of size and root is reserved, durably: from here on, no other root is ever signed for this size;
//! 4. the note is signed. Ed25519 is deterministic, so that signing again after a crash gives the same bytes;
//! 5. the note is published.
//!
//! Where one of the first three finds anything but what it expects, the log halts: it signs nothing any more and says why
//! ([`Log::halted`]). Any number of processes may do this over one store at once: each computes every root itself,
//! and one that comes second for a size compares the root on record with its own.

mod cosigning;
mod failure;
mod integration;
mod proving;
mod recent;
mod recheck;
mod signing;
mod tiles;

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use gristmill_protocol::log::checkpoint::{CheckpointError, LogKeys, SignedCheckpoint};
use gristmill_protocol::log::note::SignedNote;
use gristmill_protocol::log::tile::{EntryBundle, Tile};
use gristmill_protocol::log::{entry_bundle, tile_tree::TreeError};
use tokio::sync::watch;

use crate::record::Record;
use crate::store::{ReadError, Store, StoredCheckpoint};
use failure::StepError;
use integration::Integrated;
use recent::RecentCheckpoints;
use recheck::stored_builder;
use tiles::TileReader;

pub use cosigning::{CosignError, Cosigned};
pub use failure::{LogError, OpenLogError};
pub use integration::{Integration, STEP_RECORDS};
pub use proving::ProveError;
pub use signing::LogSigner;

/// The log of one ledger, as one process keeps it.
#[derive(Debug)]
pub struct Log {
    store: Arc<dyn Store>,
    signer: LogSigner,
    tiles: TileReader,
    integrated: tokio::sync::Mutex<Integrated>,
    recent: Mutex<RecentCheckpoints>,
    /// The newest published note, for whoever wants to tell others.
    notes: watch::Sender<Option<String>>,
    /// One at a time replaces a published note by one with more signatures.
    cosigning: tokio::sync::Mutex<()>,
    halted: OnceLock<String>,
}

impl Log {
    /// The log of the ledger in this store, signed by this signer. Nothing is written yet.
    ///
    /// A log whose tiles or checkpoint contradict each other opens too, and is [halted](Log::halted).
    ///
    /// # Errors
    /// [`OpenLogError`] where the store can't be read, or its log is another one than the signer's.
    pub async fn open(store: Arc<dyn Store>, signer: LogSigner) -> Result<Self, OpenLogError> {
        let published = store.published_checkpoint().await?;
        let reserved = store.newest_checkpoint().await?;
        let log = Self {
            tiles: TileReader::new(Arc::clone(&store)),
            store,
            signer,
            integrated: tokio::sync::Mutex::default(),
            recent: Mutex::default(),
            notes: watch::Sender::new(None),
            cosigning: tokio::sync::Mutex::default(),
            halted: OnceLock::new(),
        };
        let Some(published) = published else {
            return Ok(log);
        };
        match log.opened(&published, reserved.as_ref()) {
            Ok(checkpoint) => log.announce(checkpoint),
            Err(CheckpointError::Origin { actual, expected }) => {
                return Err(OpenLogError::OtherLog { actual, expected });
            }
            Err(error) => {
                let size = published.size;
                log.halt(format!("the published checkpoint of size {size}: {error}"));
                return Ok(log);
            }
        }
        log.resume(&published, reserved.as_ref()).await?;
        Ok(log)
    }

    /// What the store shows everybody, after checking that it is this log's word.
    fn opened(
        &self,
        published: &StoredCheckpoint,
        reserved: Option<&StoredCheckpoint>,
    ) -> Result<SignedCheckpoint, CheckpointError> {
        let note: SignedNote = published.note.as_deref().unwrap_or_default().parse()?;
        let checkpoint = SignedCheckpoint::open(note, &self.signer.keys)?;
        let same = (checkpoint.size(), *checkpoint.root()) == (published.size, published.root);
        let covered = reserved.is_some_and(|reserved| {
            reserved.size > published.size
                || (reserved.size, reserved.root) == (published.size, published.root)
        });
        match same && covered {
            true => Ok(checkpoint),
            false => Err(CheckpointError::Malformed(
                "its size and root are not those that were reserved before it was signed",
            )),
        }
    }

    /// Goes on from the published checkpoint, if the tiles lead to its root and its last record is in the ledger.
    async fn resume(
        &self,
        published: &StoredCheckpoint,
        reserved: Option<&StoredCheckpoint>,
    ) -> Result<(), ReadError> {
        match stored_builder(&*self.store, published.size, &published.root).await {
            Ok(builder) => {
                tracing::info!(
                    origin = self.origin(),
                    size = published.size,
                    root = %published.root,
                    reserved = reserved.map_or(0, |reserved| reserved.size),
                    "the Merkle log goes on"
                );
                self.integrated.lock().await.builder = builder;
            }
            Err(StepError::Damaged(reason)) => self.halt(reason),
            Err(StepError::Read(error)) => return Err(error),
            Err(StepError::Write(error)) => self.halt(error.to_string()),
        }
        Ok(())
    }

    /// The name of the log.
    #[must_use]
    pub fn origin(&self) -> &str {
        self.signer.keys.origin()
    }

    /// Who signs for it.
    #[must_use]
    pub const fn signer(&self) -> &LogSigner {
        &self.signer
    }

    /// The keys that sign or have signed for it.
    #[must_use]
    pub const fn keys(&self) -> &LogKeys {
        &self.signer.keys
    }

    /// The newest checkpoint that everybody is shown, with its cosignatures.
    #[must_use]
    pub fn newest(&self) -> Option<Arc<SignedCheckpoint>> {
        self.recent().newest()
    }

    /// The newest published note, and every later one.
    #[must_use]
    pub fn watch_notes(&self) -> watch::Receiver<Option<String>> {
        self.notes.subscribe()
    }

    /// Why nothing is signed any more, if so. A person has to find out what happened to the store.
    #[must_use]
    pub fn halted(&self) -> Option<&str> {
        self.halted.get().map(String::as_str)
    }

    /// A tile of hashes, exactly of its width; `None` where the log does not have it.
    ///
    /// # Errors
    /// [`ReadError`]
    pub async fn tile(&self, tile: Tile) -> Result<Option<Vec<u8>>, ReadError> {
        self.tiles.read(tile).await
    }

    /// The entries of a bundle as C2SP tlog-tiles lays them out, for auditors alone; `None` where no checkpoint
    /// covers all of it.
    ///
    /// # Errors
    /// [`ReadError`]
    pub async fn entry_bundle(&self, bundle: EntryBundle) -> Result<Option<Vec<u8>>, ReadError> {
        let covered = match self.newest() {
            Some(checkpoint) if covers(checkpoint.size(), bundle) => true,
            // Another process on the same store may have published more.
            _ => self
                .store
                .published_checkpoint()
                .await?
                .is_some_and(|published| covers(published.size, bundle)),
        };
        let Some(first) = first_sequence(bundle).filter(|_| covered) else {
            return Ok(None);
        };
        let records = self.store.records(first, usize::from(bundle.width())).await?;
        let entries: Vec<Vec<u8>> = records.iter().map(Record::log_entry).collect();
        let damaged = |error: entry_bundle::EntryBundleError| ReadError::Damaged {
            reason: error.to_string(),
        };
        entry_bundle::encode(bundle, &entries).map(Some).map_err(damaged)
    }

    /// From now on nothing is signed. The first reason is the one that is told.
    fn halt(&self, reason: String) {
        tracing::error!(
            reason,
            "THE MERKLE LOG HAS HALTED: nothing is signed and no entries are taken until somebody has found out \
             why; run 'gristmill ledger audit'"
        );
        self.halted.get_or_init(|| reason);
    }

    /// Shows everybody a checkpoint, where none of a larger size is shown.
    fn announce(&self, checkpoint: SignedCheckpoint) {
        let newest = {
            let mut recent = self.recent();
            recent.insert(checkpoint);
            recent.newest().map(|newest| newest.note().to_string())
        };
        self.notes.send_if_modified(|shown| {
            let changed = *shown != newest;
            *shown = newest;
            changed
        });
    }

    fn recent(&self) -> MutexGuard<'_, RecentCheckpoints> {
        // Only inserts whole checkpoints: nothing is half done when somebody panics.
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the log of this size has the whole bundle.
fn covers(size: u64, bundle: EntryBundle) -> bool {
    EntryBundle::in_tree(bundle.index(), size).is_some_and(|there| there.width() >= bundle.width())
}

/// The sequence of a bundle's first record.
fn first_sequence(bundle: EntryBundle) -> Option<u64> {
    let width = u64::from(gristmill_protocol::log::tile::TILE_WIDTH);
    bundle.index().checked_mul(width)?.checked_add(1)
}

/// What an error of reading a tree says, with what is under it.
fn tree_error<E: std::fmt::Display>(error: &TreeError<E>) -> String {
    match error {
        TreeError::Read { tile, source } => format!("{tile} could not be read: {source}"),
        TreeError::Tile(error) => error.to_string(),
        TreeError::OutsideTree { .. } => "they are of another size".into(),
    }
}
