//! Restoring a backup.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use gristmill_protocol::identity::AccountId;
use gristmill_protocol::log::checkpoint::{
    Checkpoint, CheckpointError, LogKeys, SignedCheckpoint, account_of_origin,
};
use gristmill_protocol::log::hash::LogHash;
use gristmill_protocol::log::note::SignedNote;
use gristmill_protocol::log::tile_builder::{TileBuilder, TileContent};
use serde::Serialize;

use super::backing_up::copy_range;
use super::manifest::{LedgerSize, Manifest};
use super::scan::{Extent, Scan, scan};
use super::{BackupError, KEY_FILE, LEDGER_FOLDER, failed, read_small};
use crate::audit::{AuditReport, audit};
use crate::disk::{Disk, RealDisk, write_file_durably};
use crate::journal::segment_path;
use crate::store::{journal_directory, log_directory};

/// How many leaves become tiles at once.
const LEAVES_AT_ONCE: usize = 64 * 1_024;

/// What was restored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Restored {
    /// Where the ledger is now.
    pub ledger: PathBuf,
    /// Records in it.
    pub records: u64,
    /// The Merkle root over them.
    pub root: LogHash,
    /// When the last of them was written, Unix milliseconds.
    pub last_time_ms: u64,
    /// Records of the checkpoint that the backup was held against, where one was given.
    pub checked_against: Option<u64>,
    /// Whether the backup has the signing key.
    pub key_included: bool,
    /// What the audit found: nothing wrong.
    pub audit: AuditReport,
}

/// Restores the backup in `backup` as the ledger `ledger`, which must not be there yet: copies it, makes the tiles
/// of its log anew, audits everything, and only then gives it its name.
///
/// `published` is the newest checkpoint that the coordinator has published, as a signed note: the backup must hold
/// everything that it covers.
///
/// # Errors
/// [`BackupError`]; no ledger is there then.
pub fn restore(backup: &Path, ledger: &Path, published: Option<&str>) -> Result<Restored, BackupError> {
    let manifest = Manifest::read(backup)?.ok_or_else(|| BackupError::NotABackup(backup.to_owned()))?;
    if ledger.exists() {
        return Err(BackupError::LedgerThere(ledger.to_owned()));
    }
    let published = published
        .map(|text| -> Result<_, BackupError> {
            let note: SignedNote = text.parse().map_err(CheckpointError::from)?;
            let checkpoint: Checkpoint = note.text().parse()?;
            Ok((note, checkpoint))
        })
        .transpose()?;
    let unfinished = ledger.with_extension("restoring");
    // An earlier attempt that was interrupted.
    remove(&unfinished)?;
    let restored = fill(backup, &unfinished, &manifest, published.as_ref());
    let (records, report) = match restored {
        Ok(restored) => restored,
        Err(error) => {
            remove(&unfinished)?;
            return Err(error);
        }
    };
    RealDisk
        .rename(&unfinished, ledger)
        .map_err(failed("rename", &unfinished))?;
    if let Some(parent) = ledger.parent() {
        RealDisk.sync_directory(parent).map_err(failed("sync", parent))?;
    }
    Ok(Restored {
        ledger: ledger.to_owned(),
        records: records.size,
        root: records.root,
        last_time_ms: manifest.last_time_ms,
        checked_against: published.map(|(_, checkpoint)| checkpoint.size),
        key_included: manifest.key_included,
        audit: report,
    })
}

/// Restores the signing key of a backup as `file`, for its owner alone. False where the backup has none, or the file
/// is there already.
///
/// # Errors
/// [`BackupError`]
pub fn restore_key(backup: &Path, file: &Path) -> Result<bool, BackupError> {
    let Some(bytes) = read_small(&backup.join(KEY_FILE))? else {
        return Ok(false);
    };
    if file.exists() {
        return Ok(false);
    }
    let folder = file.parent().unwrap_or(Path::new("."));
    let name = file
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or(KEY_FILE);
    RealDisk
        .create_directory(folder)
        .and_then(|()| write_file_durably(&RealDisk, folder, name, &bytes))
        .map_err(failed("write", file))?;
    Ok(true)
}

fn remove(directory: &Path) -> Result<(), BackupError> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", directory)(error)),
        _ => Ok(()),
    }
}

/// Copies and checks everything into a folder that has not its name yet.
fn fill(
    backup: &Path,
    ledger: &Path,
    manifest: &Manifest,
    published: Option<&(SignedNote, Checkpoint)>,
) -> Result<(LedgerSize, AuditReport), BackupError> {
    copy(backup, ledger, manifest)?;
    let mut wanted: Vec<u64> = published.iter().map(|(_, checkpoint)| checkpoint.size).collect();
    let signed = manifest.log.sizes(backup)?;
    wanted.extend(signed.iter().map(|signed| signed.size));
    let checkpoint = manifest.log.checkpoint_size(backup)?;
    let tiles_of = checkpoint.map_or(0, |checkpoint| checkpoint.size);
    let mut tiles = Tiles::new(log_directory(ledger), tiles_of);
    let found = scan(ledger, &wanted, Extent::All, |leaf| tiles.push(leaf))?;
    tiles.write()?;
    check(backup, manifest, &signed, &found)?;
    if let Some((note, checkpoint)) = published {
        check_published(note, checkpoint, &found)?;
    }
    let report = audit(ledger)?;
    if !report.clean {
        let problems = report.problems;
        return Err(BackupError::NotClean { problems });
    }
    Ok((found.ledger, report))
}

fn copy(backup: &Path, ledger: &Path, manifest: &Manifest) -> Result<(), BackupError> {
    let from = backup.join(LEDGER_FOLDER);
    let journal = journal_directory(ledger);
    RealDisk
        .create_directory(&journal)
        .map_err(failed("create", &journal))?;
    for segment in &manifest.segments {
        let source = segment_path(&journal_directory(&from), segment.number);
        let target = segment_path(&journal, segment.number);
        copy_range(&source, &target, 0, segment.bytes)?;
    }
    RealDisk
        .sync_directory(&journal)
        .map_err(failed("sync", &journal))?;
    manifest.log.write(ledger)
}

/// The backup is what its manifest says.
fn check(backup: &Path, manifest: &Manifest, signed: &[LedgerSize], found: &Scan) -> Result<(), BackupError> {
    let other = |signed: LedgerSize, actual| BackupError::OtherRoot {
        directory: backup.to_owned(),
        size: signed.size,
        signed: signed.root,
        actual,
    };
    if found.ledger != manifest.ledger {
        return Err(other(manifest.ledger, found.ledger.root));
    }
    let broken = |signed: &&LedgerSize| found.roots.get(&signed.size) != Some(&signed.root);
    match signed.iter().find(broken) {
        Some(signed) => Err(other(*signed, found.ledger.root)),
        None => Ok(()),
    }
}

/// The backup has everything that a published checkpoint covers.
fn check_published(note: &SignedNote, checkpoint: &Checkpoint, found: &Scan) -> Result<(), BackupError> {
    let first: AccountId = account_of_origin(&checkpoint.origin).ok_or(CheckpointError::Malformed(
        "its origin is not that of a coordinator's log",
    ))?;
    let mut keys = LogKeys::new(first);
    for handover in &found.handovers {
        // One of another log leads to no key of this one.
        let _ = keys.follow(handover);
    }
    if checkpoint.size > found.ledger.size {
        // A key that the backup has not heard of may have signed it: nothing more can be said.
        return Err(BackupError::Older {
            records: found.ledger.size,
            published: checkpoint.size,
        });
    }
    SignedCheckpoint::open(note.clone(), &keys)?;
    match found.roots.get(&checkpoint.size) {
        Some(root) if *root == checkpoint.root => Ok(()),
        _ => Err(BackupError::OtherHistory {
            size: checkpoint.size,
        }),
    }
}

/// Makes the tiles of a log of this size, some leaves at a time.
struct Tiles {
    log: PathBuf,
    size: u64,
    builder: TileBuilder,
    leaves: Vec<LogHash>,
}

impl Tiles {
    fn new(log: PathBuf, size: u64) -> Self {
        Self {
            log,
            size,
            builder: TileBuilder::new(),
            leaves: Vec::new(),
        }
    }

    fn push(&mut self, leaf: LogHash) -> Result<(), BackupError> {
        let taken = self.builder.size() + u64::try_from(self.leaves.len()).unwrap_or(u64::MAX);
        if taken < self.size {
            self.leaves.push(leaf);
        }
        match self.leaves.len() >= LEAVES_AT_ONCE {
            true => self.write(),
            false => Ok(()),
        }
    }

    fn write(&mut self) -> Result<(), BackupError> {
        let tiles = self.builder.append(std::mem::take(&mut self.leaves));
        let is_last = self.builder.size() >= self.size;
        // Partial tiles in between are those of a size that nobody signed.
        let kept = tiles
            .iter()
            .filter(|content| is_last || !content.tile.is_partial());
        kept.into_iter().try_for_each(|content| self.write_tile(content))
    }

    fn write_tile(&self, content: &TileContent) -> Result<(), BackupError> {
        let file = self.log.join(content.tile.path());
        let (Some(folder), Some(name)) = (file.parent(), file.file_name().and_then(|name| name.to_str()))
        else {
            return Ok(());
        };
        RealDisk
            .create_directory(folder)
            .and_then(|()| write_file_durably(&RealDisk, folder, name, &content.bytes))
            .map_err(failed("write", &file))
    }
}
