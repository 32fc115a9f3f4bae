//! The files of a journal: names, lock, creation, and everything that depends on the operating system.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{CutTail, JournalError, Location, SEGMENT_READ_MAX_BYTES};
use crate::record::{
    CONTENT_MAX_BYTES, JournalKind, RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES, SegmentHeader,
};

const LOCK_FILE: &str = "lock";
const SEGMENT_EXTENSION: &str = "log";
/// How often a lock is tried: an audit holds it for an instant to see whether somebody writes.
const LOCK_ATTEMPTS: u32 = 10;
const LOCK_RETRY_AFTER: Duration = Duration::from_millis(20);

pub(crate) fn segment_path(directory: &Path, number: u32) -> PathBuf {
    directory.join(format!("{number:08}.{SEGMENT_EXTENSION}"))
}

pub(super) fn failed<'path>(
    action: &'static str,
    path: &'path Path,
) -> impl Fn(io::Error) -> JournalError + 'path {
    move |source| JournalError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

/// Creates the directory, and those above it, for its owner alone, and makes their names durable.
pub(super) fn create_directory(directory: &Path) -> Result<(), JournalError> {
    let missing: Vec<_> = directory
        .ancestors()
        .take_while(|path| !path.as_os_str().is_empty() && !path.is_dir())
        .collect();
    for path in missing.into_iter().rev() {
        let mut builder = fs::DirBuilder::new();
        // Not an error where another process was faster.
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(path).map_err(failed("create", path))?;
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            sync_directory(parent)?;
        }
    }
    Ok(())
}

/// Takes the lock of the journal for as long as the file is open.
pub(super) fn lock(directory: &Path) -> Result<File, JournalError> {
    let path = directory.join(LOCK_FILE);
    let file = private(OpenOptions::new().create(true).truncate(false).write(true))
        .open(&path)
        .map_err(failed("open", &path))?;
    for attempt in 1.. {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) if attempt < LOCK_ATTEMPTS => std::thread::sleep(LOCK_RETRY_AFTER),
            Err(TryLockError::WouldBlock) => {
                return Err(JournalError::InUse {
                    directory: directory.to_owned(),
                });
            }
            Err(TryLockError::Error(source)) => return Err(failed("lock", &path)(source)),
        }
    }
    Ok(file)
}

/// Whether some process has the journal open for writing. Changes nothing.
pub(super) fn is_in_use(directory: &Path) -> bool {
    let Ok(file) = File::open(directory.join(LOCK_FILE)) else {
        return false;
    };
    matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
}

/// The numbers of all segments, which must be 1, 2, 3 and so on.
pub(super) fn segments(directory: &Path) -> Result<u32, JournalError> {
    let mut numbers = BTreeSet::new();
    for item in fs::read_dir(directory).map_err(failed("read", directory))? {
        let path = item.map_err(failed("read", directory))?.path();
        let number = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .and_then(|stem| stem.parse::<u32>().ok());
        if let Some(number) = number
            && path == segment_path(directory, number)
        {
            numbers.insert(number);
        }
    }
    for (number, expected) in numbers.iter().zip(1..) {
        if *number != expected {
            return Err(JournalError::Missing {
                file: segment_path(directory, expected),
            });
        }
    }
    Ok(numbers.last().copied().unwrap_or(0))
}

pub(super) fn last_segment(directory: &Path) -> Result<Option<u32>, JournalError> {
    Ok(Some(segments(directory)?).filter(|count| *count > 0))
}

/// Creates a segment with its header under its final name at once, and makes both durable. Gives its salt.
pub(super) fn create_segment(
    directory: &Path,
    number: u32,
    kind: JournalKind,
    first_sequence: u64,
) -> Result<u32, JournalError> {
    let path = segment_path(directory, number);
    let unfinished = path.with_extension("new");
    // The standard library's own random state: the salt must be unknown to strangers, not more.
    let random = RandomState::new().hash_one(number).to_le_bytes();
    let salt = u32::from_le_bytes([random[0], random[1], random[2], random[3]]);
    let header = SegmentHeader {
        kind,
        salt,
        first_sequence,
    }
    .encode();
    private(OpenOptions::new().create(true).truncate(true).write(true))
        .open(&unfinished)
        .and_then(|mut file| file.write_all(&header).and_then(|()| file.sync_all()))
        .map_err(failed("create", &unfinished))?;
    fs::rename(&unfinished, &path).map_err(failed("create", &path))?;
    sync_directory(directory)?;
    Ok(salt)
}

/// Whether a segment is shorter than a header, but begins like one.
pub(super) fn segment_was_not_finished(path: &Path, kind: JournalKind) -> Result<bool, JournalError> {
    let length = fs::metadata(path).map_err(failed("read", path))?.len();
    if length >= super::wide(SEGMENT_HEADER_BYTES) {
        return Ok(false);
    }
    let bytes = fs::read(path).map_err(failed("read", path))?;
    Ok(SegmentHeader::could_begin_with(&bytes, kind))
}

pub(super) fn open_for_appending(path: &Path) -> Result<File, JournalError> {
    OpenOptions::new()
        .append(true)
        .open(path)
        .map_err(failed("open", path))
}

pub(super) fn sync(file: &File, path: &Path) -> Result<(), JournalError> {
    file.sync_all().map_err(failed("sync", path))
}

/// Reads a whole segment.
pub(super) fn read_segment(path: &Path) -> Result<Vec<u8>, JournalError> {
    let actual_bytes = fs::metadata(path).map_err(failed("read", path))?.len();
    if actual_bytes > SEGMENT_READ_MAX_BYTES {
        return Err(JournalError::SegmentTooLarge {
            file: path.to_owned(),
            actual_bytes,
        });
    }
    fs::read(path).map_err(failed("read", path))
}

/// Reads the header of a segment and the bytes of one record.
pub(super) fn read_record_bytes(
    path: &Path,
    location: Location,
) -> Result<([u8; SEGMENT_HEADER_BYTES], Vec<u8>), JournalError> {
    let mut header = [0; SEGMENT_HEADER_BYTES];
    let length = usize::try_from(location.bytes).unwrap_or(usize::MAX);
    let mut bytes = vec![0; length.min(RECORD_HEADER_BYTES + CONTENT_MAX_BYTES)];
    let mut read = || {
        let mut file = File::open(path)?;
        file.read_exact(&mut header)?;
        file.seek(SeekFrom::Start(location.offset))?;
        file.read_exact(&mut bytes)
    };
    read().map_err(failed("read", path))?;
    Ok((header, bytes))
}

/// Copies what follows `offset` to a file beside the segment, so that cutting it off loses nothing.
pub(super) fn keep_tail(path: &Path, offset: u64) -> Result<Option<CutTail>, JournalError> {
    let mut tail = Vec::new();
    File::open(path)
        .and_then(|mut file| {
            file.seek(SeekFrom::Start(offset))?;
            file.read_to_end(&mut tail)
        })
        .map_err(failed("read", path))?;
    if tail.is_empty() {
        return Ok(None);
    }
    let kept_in = path.with_extension(format!("{SEGMENT_EXTENSION}.torn-{offset}"));
    private(OpenOptions::new().create(true).append(true))
        .open(&kept_in)
        .and_then(|mut file| file.write_all(&tail).and_then(|()| file.sync_all()))
        .map_err(failed("write", &kept_in))?;
    Ok(Some(CutTail {
        file: path.to_owned(),
        offset,
        bytes: super::wide(tail.len()),
        kept_in,
    }))
}

/// Shortens a segment, durably.
pub(super) fn cut(path: &Path, length: u64) -> Result<(), JournalError> {
    OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|file| file.set_len(length).and_then(|()| file.sync_all()))
        .map_err(failed("shorten", path))
}

/// Makes the names in a directory durable. Windows keeps them without being asked and can't open directories.
#[cfg(unix)]
fn sync_directory(directory: &Path) -> Result<(), JournalError> {
    File::open(directory)
        .and_then(|opened| opened.sync_all())
        .map_err(failed("sync", directory))
}

#[cfg(not(unix))]
fn sync_directory(_directory: &Path) -> Result<(), JournalError> {
    Ok(())
}

/// Files that are created are for their owner alone.
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}
