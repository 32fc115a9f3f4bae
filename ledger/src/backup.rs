//! Backups of a ledger that is kept in a folder: taken while the coordinator runs, verified, added to the next time.
//!
//! ```text
//! <backup>/backup.json        what the backup holds, and the checkpoint as it was before the journal was read;
//!                             replaced last, so that an interrupted backup is the one before
//! <backup>/ledger/journal/    the journal up to the last record that was synced
//! <backup>/lock               held by whoever writes the backup
//! <backup>/signing.key        the coordinator's secret key, only where asked for
//! ```
//!
//! Only records that are known to be on the disk are taken, so that a backup is never ahead of its ledger. Tiles and
//! index follow from the journal and are made anew by [`restore`].
//!
//! An old backup is dangerous: a coordinator that starts from it signs another history for sizes of which others
//! have seen the first one. [`restore`] therefore holds the backup against a checkpoint where one is given.

mod backing_up;
mod manifest;
mod restoring;
mod scan;

use std::io;
use std::path::{Path, PathBuf};

use gristmill_protocol::log::checkpoint::CheckpointError;
use gristmill_protocol::log::hash::LogHash;
use serde::Serialize;
use thiserror::Error;

use crate::audit::{AuditError, Problem};
use crate::disk::{Disk, RealDisk};
use crate::journal::JournalError;

pub use backing_up::back_up;
pub use manifest::{BACKUP_VERSION, LedgerSize, Manifest, SavedLog, SavedSegment};
pub use restoring::{Restored, restore, restore_key};

const LEDGER_FOLDER: &str = "ledger";
const LOCK_FILE: &str = "lock";
const KEY_FILE: &str = "signing.key";
const RESERVED_FILE: &str = "reserved";
const CHECKPOINT_FILE: &str = "checkpoint";
/// Most bytes of the small files of a ledger.
const SMALL_FILE_MAX_BYTES: u64 = 64 * 1024;

/// What a backup did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BackupReport {
    /// Where it is.
    pub directory: PathBuf,
    /// Records in it.
    pub records: u64,
    /// Records that were in it before.
    pub records_before: u64,
    /// Bytes that were written now.
    pub bytes_written: u64,
    /// The Merkle root over all its records.
    pub root: LogHash,
    /// Records that the newest published checkpoint of it covers.
    pub checkpoint_size: Option<u64>,
    /// Records that were there, but not known to be on the disk yet; the next backup takes them.
    pub records_left_out: u64,
    /// Whether the signing key is in it.
    pub key_included: bool,
}

/// Why there is no backup, or none that can be restored. What was there before is as it was.
#[derive(Debug, Error)]
pub enum BackupError {
    /// There is no ledger.
    #[error("{0} holds no ledger: it has no folder 'journal'")]
    NotALedger(PathBuf),
    /// There is no backup.
    #[error("{0} holds no backup: it has no 'backup.json'")]
    NotABackup(PathBuf),
    /// Somebody else writes the backup.
    #[error("another process writes a backup into {0}; wait for it, or choose another folder")]
    InUse(PathBuf),
    /// The folder has something else in it.
    #[error("{0} is not empty and holds no backup; choose an empty folder or that of an earlier backup")]
    NotEmpty(PathBuf),
    /// The backup is of something else.
    #[error(
        "{directory} holds a backup that this ledger does not go on from: {reason}. Choose another folder"
    )]
    OtherLedger {
        /// The backup.
        directory: PathBuf,
        /// What differs.
        reason: String,
    },
    /// A program of another time wrote it.
    #[error(
        "{file} has version {version}, this program reads {BACKUP_VERSION}; use the program that wrote it"
    )]
    Version {
        /// The manifest.
        file: PathBuf,
        /// What it says.
        version: u32,
    },
    /// A file of it makes no sense.
    #[error("{file} is damaged: {reason}")]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// What was signed is not what is there.
    #[error(
        "the first {size} records in {directory} have the Merkle root {actual}, but {signed} is on record for them: the \
         journal was changed. Run 'gristmill ledger audit'"
    )]
    OtherRoot {
        /// The ledger or backup.
        directory: PathBuf,
        /// How many records.
        size: u64,
        /// The root on record.
        signed: LogHash,
        /// The root of what is there.
        actual: LogHash,
    },
    /// A journal can't be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A file can't be used.
    #[error("cannot {action} {path}: {source}", path = path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is a ledger already.
    #[error(
        "{0} is there already; a backup is only restored where no ledger is. Move the old one away, keep it, and try \
         again"
    )]
    LedgerThere(PathBuf),
    /// The checkpoint is none of this log.
    #[error("the checkpoint can't be held against the backup: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// The backup is older than what others have seen.
    #[error(
        "the backup ends with record {records}, but the coordinator has published a checkpoint of {published} records: \
         {} acknowledged records are missing. A coordinator that started from here would sign another history for \
         sizes that nodes and clients have seen; they would prove that to everybody, and rightly so. Find a newer \
         backup, or the old disk. If there is none, this ledger has ended: begin a new one with a new key, and settle \
         with those who hold receipts for what is missing",
        published - records
    )]
    Older {
        /// Records in the backup.
        records: u64,
        /// Records that were published.
        published: u64,
    },
    /// The backup is of another history.
    #[error(
        "the first {size} records of the backup are not those that the coordinator's checkpoint signs for. Restoring it \
         would make another history of a ledger that others have seen; it is not restored"
    )]
    OtherHistory {
        /// How many records the checkpoint covers.
        size: u64,
    },
    /// The restored ledger can't be audited.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The restored ledger is not clean.
    #[error("the backup does not pass the audit: {}", first_of(.problems))]
    NotClean {
        /// What is wrong.
        problems: Vec<Problem>,
    },
}

fn first_of(problems: &[Problem]) -> String {
    problems.first().map_or_else(String::new, |problem| {
        format!("{}: {}", problem.file.display(), problem.what)
    })
}

fn failed<'path>(action: &'static str, path: &'path Path) -> impl Fn(io::Error) -> BackupError + 'path {
    move |source| BackupError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

/// Reads a small file; `None` where there is none.
fn read_small(file: &Path) -> Result<Option<Vec<u8>>, BackupError> {
    read_up_to(file, SMALL_FILE_MAX_BYTES)
}

/// Reads a file of at most so many bytes; `None` where there is none.
fn read_up_to(file: &Path, max_bytes: u64) -> Result<Option<Vec<u8>>, BackupError> {
    match RealDisk.read(file, max_bytes) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", file)(error)),
    }
}

#[cfg(test)]
mod tests;
