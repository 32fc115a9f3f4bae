//! The folder of a journal: names, lock, and reading its files.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::{CutTail, JournalError, JournalOptions, Location, SEGMENT_READ_MAX_BYTES, wide};
use crate::disk::{Disk, DiskLock, is_full};
use crate::record::{
    CONTENT_MAX_BYTES, JournalKind, RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES, SegmentHeader,
};

const LOCK_FILE: &str = "lock";
/// A file that becomes the next segment.
const NEXT_FILE: &str = "next";
const SEGMENT_EXTENSION: &str = "log";
/// How often a lock is tried: an audit holds it for an instant to see whether somebody writes.
const LOCK_ATTEMPTS: u32 = 10;
const LOCK_RETRY_AFTER: Duration = Duration::from_millis(20);

pub(crate) fn segment_path(directory: &Path, number: u32) -> PathBuf {
    directory.join(format!("{number:08}.{SEGMENT_EXTENSION}"))
}

/// Names what was tried.
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

/// Names what was tried, and tells a full disk from everything else. For what leaves the journal as it was.
pub(super) fn failed_or_full<'path>(
    action: &'static str,
    path: &'path Path,
) -> impl Fn(io::Error) -> JournalError + 'path {
    move |source| {
        if is_full(&source) {
            let path = path.to_owned();
            JournalError::DiskFull { path, source }
        } else {
            failed(action, path)(source)
        }
    }
}

/// The folder of one journal.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) directory: PathBuf,
    pub(super) kind: JournalKind,
}

impl Folder {
    pub(super) fn of(directory: &Path, options: &JournalOptions) -> Self {
        Self {
            disk: Arc::clone(&options.disk),
            directory: directory.to_owned(),
            kind: options.kind,
        }
    }

    pub(super) fn segment(&self, number: u32) -> PathBuf {
        segment_path(&self.directory, number)
    }

    /// The file that becomes the next segment. Nothing reads it.
    pub(super) fn next(&self) -> PathBuf {
        self.directory.join(NEXT_FILE)
    }

    pub(super) fn create(&self) -> Result<(), JournalError> {
        let directory = &self.directory;
        self.disk
            .create_directory(directory)
            .map_err(failed_or_full("create", directory))
    }

    pub(super) fn lock(&self) -> Result<DiskLock, JournalError> {
        let path = self.directory.join(LOCK_FILE);
        for attempt in 1..=LOCK_ATTEMPTS {
            if let Some(lock) = self.disk.try_lock(&path).map_err(failed("lock", &path))? {
                return Ok(lock);
            }
            if attempt < LOCK_ATTEMPTS {
                std::thread::sleep(LOCK_RETRY_AFTER);
            }
        }
        Err(JournalError::InUse {
            directory: self.directory.clone(),
        })
    }

    /// Whether some process has the journal open for writing. Changes nothing.
    pub(super) fn is_in_use(&self) -> bool {
        self.disk
            .is_locked(&self.directory.join(LOCK_FILE))
            .unwrap_or(false)
    }

    /// How many segments there are; they must be 1, 2, 3 and so on.
    pub(super) fn segments(&self) -> Result<u32, JournalError> {
        let directory = &self.directory;
        let mut numbers = BTreeSet::new();
        for name in self.disk.list(directory).map_err(failed("read", directory))? {
            let path = directory.join(name);
            let number = path
                .file_stem()
                .and_then(|stem| stem.to_str())
                .and_then(|stem| stem.parse::<u32>().ok());
            if let Some(number) = number
                && path == self.segment(number)
            {
                numbers.insert(number);
            }
        }
        for (number, expected) in numbers.iter().zip(1..) {
            if *number != expected {
                let file = self.segment(expected);
                return Err(JournalError::Missing { file });
            }
        }
        Ok(numbers.last().copied().unwrap_or(0))
    }

    /// Whether a segment is shorter than a header, but begins like one. If so, how many bytes it has.
    pub(super) fn unfinished_header(&self, number: u32) -> Result<Option<u64>, JournalError> {
        let path = self.segment(number);
        let (header, length) = self.begin_of(&path)?;
        let begins = SegmentHeader::could_begin_with(header.get(..length).unwrap_or(&header), self.kind);
        Ok((length < SEGMENT_HEADER_BYTES && begins).then_some(wide(length)))
    }

    /// The header of a segment.
    pub(super) fn header(&self, number: u32) -> Result<SegmentHeader, JournalError> {
        let path = self.segment(number);
        let (header, _) = self.begin_of(&path)?;
        SegmentHeader::decode(&header, self.kind).map_err(|source| JournalError::Damaged {
            file: path,
            offset: 0,
            source,
        })
    }

    fn begin_of(&self, path: &Path) -> Result<([u8; SEGMENT_HEADER_BYTES], usize), JournalError> {
        let mut header = [0; SEGMENT_HEADER_BYTES];
        let read = self
            .disk
            .open_to_read(path)
            .and_then(|file| file.read_at(0, &mut header));
        Ok((header, read.map_err(failed("read", path))?))
    }

    /// Reads a whole segment.
    pub(super) fn read_segment(&self, number: u32) -> Result<Vec<u8>, JournalError> {
        let path = self.segment(number);
        let too_large = |actual_bytes| JournalError::SegmentTooLarge {
            file: path.clone(),
            actual_bytes,
        };
        match self.disk.read(&path, SEGMENT_READ_MAX_BYTES) {
            Ok(bytes) => Ok(bytes),
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                let length = self.disk.open_to_read(&path).and_then(|file| file.length());
                Err(too_large(length.map_err(failed("read", &path))?))
            }
            Err(source) => Err(failed("read", &path)(source)),
        }
    }

    /// Reads the header of a segment and the bytes of one record.
    pub(super) fn read_record(
        &self,
        location: Location,
    ) -> Result<([u8; SEGMENT_HEADER_BYTES], Vec<u8>), JournalError> {
        let path = self.segment(location.segment);
        let mut header = [0; SEGMENT_HEADER_BYTES];
        let length = usize::try_from(location.bytes).unwrap_or(usize::MAX);
        let mut bytes = vec![0; length.min(RECORD_HEADER_BYTES + CONTENT_MAX_BYTES)];
        let read = self.disk.open_to_read(&path).and_then(|file| {
            file.read_at(0, &mut header)?;
            file.read_at(location.offset, &mut bytes)
        });
        bytes.truncate(read.map_err(failed("read", &path))?);
        Ok((header, bytes))
    }

    /// Copies the tail of a segment, which begins at `offset`, to a file beside it, so that cutting it off loses
    /// nothing.
    pub(super) fn keep_tail(&self, number: u32, offset: u64, tail: &[u8]) -> Result<CutTail, JournalError> {
        let file = self.segment(number);
        let kept_in = file.with_extension(format!("{SEGMENT_EXTENSION}.torn-{offset}"));
        let opened = match self.disk.open(&kept_in) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.disk.create(&kept_in),
            opened => opened,
        };
        opened
            .and_then(|kept| {
                kept.write_at(kept.length()?, tail)?;
                kept.sync_all()
            })
            .and_then(|()| self.disk.sync_directory(&self.directory))
            .map_err(failed_or_full("write", &kept_in))?;
        Ok(CutTail {
            file,
            offset,
            bytes: wide(tail.len()),
            kept_in,
        })
    }
}
