//! What a backup says about itself.

use std::path::Path;

use gristmill_protocol::log::checkpoint::Checkpoint;
use gristmill_protocol::log::hash::LogHash;
use gristmill_protocol::log::note::SignedNote;
use serde::{Deserialize, Serialize};

use super::{BackupError, CHECKPOINT_FILE, RESERVED_FILE, failed, read_small, read_up_to};
use crate::disk::{Disk as _, RealDisk, write_file_durably};
use crate::store::log_directory;

/// The version of backups that this program writes, and the only one that it reads.
pub const BACKUP_VERSION: u32 = 1;

const MANIFEST_FILE: &str = "backup.json";
/// Most bytes of a manifest: a few lines for each of a hundred thousand segments.
const MANIFEST_MAX_BYTES: u64 = 16 * 1024 * 1024;

/// What a backup holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The version of this format.
    pub version: u32,
    /// How many records, and their Merkle root.
    pub ledger: LedgerSize,
    /// When the last record was written, Unix milliseconds.
    pub last_time_ms: u64,
    /// When the backup was written, Unix milliseconds.
    pub written_at_ms: u64,
    /// The files of the journal, in order.
    pub segments: Vec<SavedSegment>,
    /// What of the log does not follow from the journal.
    pub log: SavedLog,
    /// Whether the signing key is in it.
    pub key_included: bool,
}

/// So many records, with this Merkle root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LedgerSize {
    /// How many records.
    pub size: u64,
    /// The root over them.
    pub root: LogHash,
}

/// The small files of a log, as they were.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedLog {
    /// The size and root that were reserved to be signed.
    pub reserved: Option<String>,
    /// The newest published checkpoint, a signed note.
    pub checkpoint: Option<String>,
}

/// A file of the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedSegment {
    /// Its number.
    pub number: u32,
    /// How many bytes of it.
    pub bytes: u64,
}

impl Manifest {
    /// Reads the manifest of a backup; `None` where there is none.
    ///
    /// # Errors
    /// [`BackupError`] where it can't be read or makes no sense.
    pub fn read(backup: &Path) -> Result<Option<Self>, BackupError> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let file = backup.join(MANIFEST_FILE);
        let Some(bytes) = read_up_to(&file, MANIFEST_MAX_BYTES)? else {
            return Ok(None);
        };
        let damaged = |error: serde_json::Error| BackupError::Damaged {
            file: file.clone(),
            reason: error.to_string(),
        };
        let Version { version } = serde_json::from_slice(&bytes).map_err(damaged)?;
        if version != BACKUP_VERSION {
            return Err(BackupError::Version { file, version });
        }
        let manifest: Self = serde_json::from_slice(&bytes).map_err(damaged)?;
        manifest.check(backup).map(Some)
    }

    /// Writes the manifest, durably and as a whole.
    pub(super) fn write(&self, backup: &Path) -> Result<(), BackupError> {
        let file = backup.join(MANIFEST_FILE);
        let text = serde_json::to_vec_pretty(self).map_err(|error| BackupError::Damaged {
            file: file.clone(),
            reason: error.to_string(),
        })?;
        write_file_durably(&RealDisk, backup, MANIFEST_FILE, &text).map_err(failed("write", &file))
    }

    /// Checks that the log's files make sense together.
    pub(super) fn check(self, backup: &Path) -> Result<Self, BackupError> {
        self.log.sizes(&backup.join(MANIFEST_FILE))?;
        Ok(self)
    }

    /// How many bytes of a segment are in the backup.
    pub(super) fn bytes_of(&self, number: u32) -> u64 {
        self.segments
            .iter()
            .find(|segment| segment.number == number)
            .map_or(0, |segment| segment.bytes)
    }
}

impl SavedLog {
    /// Reads the small files of a ledger's log.
    pub(super) fn read(ledger: &Path) -> Result<Self, BackupError> {
        let log = log_directory(ledger);
        let read = |name: &str| {
            let file = log.join(name);
            let bytes = read_small(&file)?;
            let text = bytes.map(String::from_utf8).transpose();
            text.map_err(|error| damaged(&file, &error.to_string()))
        };
        // What is published is never ahead of what is reserved, also not a moment later.
        let checkpoint = read(CHECKPOINT_FILE)?;
        let reserved = read(RESERVED_FILE)?;
        let read = Self { reserved, checkpoint };
        read.sizes(&log)?;
        Ok(read)
    }

    /// Writes them into a ledger that is restored.
    pub(super) fn write(&self, ledger: &Path) -> Result<(), BackupError> {
        let log = log_directory(ledger);
        RealDisk.create_directory(&log).map_err(failed("create", &log))?;
        let files = [
            (RESERVED_FILE, &self.reserved),
            (CHECKPOINT_FILE, &self.checkpoint),
        ];
        for (name, text) in files {
            if let Some(text) = text {
                write_file_durably(&RealDisk, &log, name, text.as_bytes()).map_err(failed("write", &log))?;
            }
        }
        Ok(())
    }

    /// What was reserved and what was published. `place` is where the texts are from.
    pub(super) fn sizes(&self, place: &Path) -> Result<Vec<LedgerSize>, BackupError> {
        let reserved = self.reserved.as_deref().map(|text| {
            reserved_size(text).ok_or_else(|| damaged(place, "what was reserved is not a size and a root"))
        });
        let mut sizes: Vec<_> = reserved.into_iter().collect::<Result<_, _>>()?;
        sizes.extend(self.checkpoint_size(place)?);
        Ok(sizes)
    }

    /// What the newest published checkpoint covers.
    pub(super) fn checkpoint_size(&self, place: &Path) -> Result<Option<LedgerSize>, BackupError> {
        let Some(text) = &self.checkpoint else {
            return Ok(None);
        };
        let note: SignedNote = text
            .parse()
            .map_err(|error| damaged(place, &format!("the checkpoint: {error}")))?;
        let checkpoint: Checkpoint = note
            .text()
            .parse()
            .map_err(|error| damaged(place, &format!("the checkpoint: {error}")))?;
        Ok(Some(LedgerSize {
            size: checkpoint.size,
            root: checkpoint.root,
        }))
    }
}

/// The size and root of a log's reservation.
pub(super) fn reserved_size(text: &str) -> Option<LedgerSize> {
    let mut words = text.split_whitespace();
    let (size, root) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    Some(LedgerSize { size, root })
}

fn damaged(file: &Path, reason: &str) -> BackupError {
    BackupError::Damaged {
        file: file.to_owned(),
        reason: reason.to_owned(),
    }
}
