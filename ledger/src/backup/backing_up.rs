//! Taking a backup.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::thread;
use std::time::Duration;

use super::manifest::{BACKUP_VERSION, LedgerSize, Manifest, SavedLog, reserved_size};
use super::scan::{Extent, Scan, scan};
use super::{
    BackupError, BackupReport, KEY_FILE, LEDGER_FOLDER, LOCK_FILE, RESERVED_FILE, failed, read_small,
};
use crate::disk::{Disk, DiskLock, RealDisk, write_file_durably};
use crate::journal::{self, segment_path};
use crate::store::{journal_directory, log_directory};

/// How often it is looked whether the log covers the last records, and how long in between: the log covers each
/// record within a second.
const LOOKS: u32 = 30;
const LOOK_AFTER: Duration = Duration::from_millis(100);
/// How much is copied at once.
const PIECE_BYTES: usize = 1 << 20;

/// Backs up the ledger in `ledger` into `backup`, an empty folder or that of an earlier backup of the same ledger,
/// to which only what is new is added. Reads back and verifies what the backup then holds. Changes nothing in the
/// ledger, and can be run while the coordinator is at work.
///
/// `signing_key` is copied too where given.
///
/// # Errors
/// [`BackupError`]; an earlier backup is as it was then.
pub fn back_up(
    ledger: &Path,
    backup: &Path,
    signing_key: Option<&Path>,
    now_ms: u64,
) -> Result<BackupReport, BackupError> {
    if !journal_directory(ledger).is_dir() {
        return Err(BackupError::NotALedger(ledger.to_owned()));
    }
    let before = Manifest::read(backup)?;
    if before.is_none() && !is_empty(backup)? {
        return Err(BackupError::NotEmpty(backup.to_owned()));
    }
    let _lock = lock(backup)?;
    // What was signed comes first, so that the journal that is read after it covers it.
    let log = SavedLog::read(ledger)?;
    let signed = log.sizes(&log_directory(ledger))?;
    let found = read_source(ledger, &signed, before.as_ref())?;
    check_source(ledger, backup, &signed, before.as_ref(), &found)?;
    let mut bytes_written = copy_segments(ledger, backup, before.as_ref(), &found)?;
    if let Some(key) = signing_key {
        bytes_written += copy_key(key, backup)?;
    }
    verify(backup, &signed, &found)?;
    let key_included = signing_key.is_some() || before.as_ref().is_some_and(|before| before.key_included);
    let checkpoint = log.checkpoint_size(ledger)?;
    let manifest = Manifest {
        version: BACKUP_VERSION,
        ledger: found.ledger,
        last_time_ms: found.last_time_ms,
        written_at_ms: now_ms,
        segments: found.segments,
        log,
        key_included,
    };
    manifest.write(backup)?;
    Ok(BackupReport {
        directory: backup.to_owned(),
        records: manifest.ledger.size,
        records_before: before.map_or(0, |before| before.ledger.size),
        bytes_written,
        root: manifest.ledger.root,
        checkpoint_size: checkpoint.map(|checkpoint| checkpoint.size),
        records_left_out: found.left_out,
        key_included,
    })
}

fn is_empty(directory: &Path) -> Result<bool, BackupError> {
    match fs::read_dir(directory) {
        // A first backup that was interrupted has left its lock, and maybe part of the journal.
        Ok(mut entries) => Ok(directory.join(LOCK_FILE).exists() || entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(failed("read", directory)(error)),
    }
}

fn lock(backup: &Path) -> Result<DiskLock, BackupError> {
    RealDisk
        .create_directory(backup)
        .map_err(failed("create", backup))?;
    let file = backup.join(LOCK_FILE);
    let lock = RealDisk.try_lock(&file).map_err(failed("lock", &file))?;
    lock.ok_or_else(|| BackupError::InUse(backup.to_owned()))
}

/// Finds the records to back up.
fn read_source(ledger: &Path, signed: &[LedgerSize], before: Option<&Manifest>) -> Result<Scan, BackupError> {
    let mut wanted: Vec<u64> = signed.iter().map(|signed| signed.size).collect();
    wanted.extend(before.map(|before| before.ledger.size));
    let in_use = || journal::is_in_use(&journal_directory(ledger));
    if !in_use() {
        let found = scan(ledger, &wanted, Extent::All, |_| Ok(()))?;
        // Nobody has begun to write meanwhile: what is whole has been, or will be, kept by the next start.
        if !in_use() {
            return Ok(found);
        }
    }
    let mut ask = |last| covered_by_log(ledger, last);
    scan(ledger, &wanted, Extent::Synced(&mut ask), |_| Ok(()))
}

/// How many records the log covers, which are then on the disk; waits a moment for it to cover the last one.
fn covered_by_log(ledger: &Path, last: u64) -> Result<u64, BackupError> {
    let file = log_directory(ledger).join(RESERVED_FILE);
    let mut covered = 0;
    for _ in 0..LOOKS {
        let reserved = read_small(&file)?.and_then(|bytes| reserved_size(std::str::from_utf8(&bytes).ok()?));
        covered = reserved.map_or(0, |reserved| reserved.size);
        if covered >= last {
            break;
        }
        thread::sleep(LOOK_AFTER);
    }
    Ok(covered)
}

fn check_source(
    ledger: &Path,
    backup: &Path,
    signed: &[LedgerSize],
    before: Option<&Manifest>,
    found: &Scan,
) -> Result<(), BackupError> {
    for signed in signed {
        check_root(ledger, *signed, found)?;
    }
    let Some(before) = before else {
        return Ok(());
    };
    let other = |reason: String| BackupError::OtherLedger {
        directory: backup.to_owned(),
        reason,
    };
    if found.ledger.size < before.ledger.size {
        let (has, had) = (found.ledger.size, before.ledger.size);
        return Err(other(format!(
            "the ledger has {has} records that are known to be on the disk, the backup {had}"
        )));
    }
    match found.roots.get(&before.ledger.size) {
        Some(root) if *root == before.ledger.root => Ok(()),
        _ => Err(other(format!(
            "their first {} records differ",
            before.ledger.size
        ))),
    }
}

fn check_root(directory: &Path, signed: LedgerSize, found: &Scan) -> Result<(), BackupError> {
    match found.roots.get(&signed.size) {
        Some(root) if *root == signed.root => Ok(()),
        root => Err(BackupError::OtherRoot {
            directory: directory.to_owned(),
            size: signed.size,
            signed: signed.root,
            actual: root.copied().unwrap_or(found.ledger.root),
        }),
    }
}

/// Adds what the backup lacks of the journal, durably.
fn copy_segments(
    ledger: &Path,
    backup: &Path,
    before: Option<&Manifest>,
    found: &Scan,
) -> Result<u64, BackupError> {
    let from = journal_directory(ledger);
    let to = journal_directory(&backup.join(LEDGER_FOLDER));
    RealDisk.create_directory(&to).map_err(failed("create", &to))?;
    let mut written = 0;
    for segment in &found.segments {
        let had = before.map_or(0, |before| before.bytes_of(segment.number));
        if had == segment.bytes {
            continue;
        }
        let (source, target) = (
            segment_path(&from, segment.number),
            segment_path(&to, segment.number),
        );
        written += copy_range(&source, &target, had, segment.bytes)?;
    }
    RealDisk.sync_directory(&to).map_err(failed("sync", &to))?;
    Ok(written)
}

/// Copies the bytes from `start` to `end` of a file behind the first `start` bytes of another one.
pub(super) fn copy_range(source: &Path, target: &Path, start: u64, end: u64) -> Result<u64, BackupError> {
    let mut reader = File::open(source).map_err(failed("open", source))?;
    reader
        .seek(SeekFrom::Start(start))
        .map_err(failed("read", source))?;
    let mut reader = reader.take(end.saturating_sub(start));
    let writer = if start == 0 {
        RealDisk.create(target)
    } else {
        RealDisk.open(target)
    };
    let writer = writer.map_err(failed("open", target))?;
    // What an interrupted backup has left behind the end is not part of it.
    writer.set_length(start).map_err(failed("cut", target))?;
    let mut piece = vec![0; PIECE_BYTES];
    let mut offset = start;
    loop {
        let read = reader.read(&mut piece).map_err(failed("read", source))?;
        let Some(bytes) = piece.get(..read).filter(|bytes| !bytes.is_empty()) else {
            break;
        };
        writer.write_at(offset, bytes).map_err(failed("write", target))?;
        offset += u64::try_from(read).unwrap_or(u64::MAX);
    }
    writer.sync_all().map_err(failed("sync", target))?;
    if offset == end {
        return Ok(end - start);
    }
    Err(failed("read", source)(io::ErrorKind::UnexpectedEof.into()))
}

fn copy_key(key: &Path, backup: &Path) -> Result<u64, BackupError> {
    let bytes = read_small(key)?.ok_or_else(|| failed("read", key)(io::ErrorKind::NotFound.into()))?;
    let target = backup.join(KEY_FILE);
    write_file_durably(&RealDisk, backup, KEY_FILE, &bytes).map_err(failed("write", &target))?;
    Ok(u64::try_from(bytes.len()).unwrap_or(u64::MAX))
}

/// Reads back what the backup holds now.
fn verify(backup: &Path, signed: &[LedgerSize], found: &Scan) -> Result<(), BackupError> {
    let ledger = backup.join(LEDGER_FOLDER);
    let wanted: Vec<u64> = signed.iter().map(|signed| signed.size).collect();
    let written = scan(&ledger, &wanted, Extent::All, |_| Ok(()))?;
    for signed in signed {
        check_root(&ledger, *signed, &written)?;
    }
    if written.ledger == found.ledger {
        return Ok(());
    }
    Err(BackupError::OtherRoot {
        directory: ledger,
        size: found.ledger.size,
        signed: found.ledger.root,
        actual: written.ledger.root,
    })
}
