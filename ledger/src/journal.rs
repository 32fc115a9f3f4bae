//! An append-only journal in a directory: what was synced here is never lost, and damage never goes unnoticed.
//!
//! The ledger keeps its entries in one, a node its highest vouchers in another ([`JournalKind`] tells them apart).
//! The caller appends batches and calls [`Journal::sync`] before it tells anybody; the format is in
//! [`record`].
//!
//! On opening, a tail that was being written when the writer stopped is cut off (its bytes are kept beside the
//! segment), and damage to anything that had been synced stops the opening.

mod files;
mod records;

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::record::{self, FormatError, JournalKind, Record, SegmentHeader};

pub(crate) use files::segment_path;
pub use records::{Records, UnfinishedTail, is_in_use};

/// How a journal is kept.
#[derive(Clone, Debug)]
pub struct JournalOptions {
    /// What the journal is for.
    pub kind: JournalKind,
    /// After how many bytes a new segment is begun. A segment can be longer by one batch.
    pub segment_bytes: u64,
}

/// Most bytes of a segment that are read; a longer file is damaged.
pub const SEGMENT_READ_MAX_BYTES: u64 = 1024 * 1024 * 1024;
/// After how many bytes a new segment is begun by default.
pub const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;

/// Why a journal can't be opened, read or written.
#[derive(Debug, Error)]
pub enum JournalError {
    /// Another process writes to this journal.
    #[error("{directory} is in use by another process; stop that one or choose another directory")]
    InUse {
        /// The journal's directory.
        directory: PathBuf,
    },
    /// Something that had been synced is damaged.
    #[error("{file} is damaged at byte {offset}: {source}. Restore it from a backup; nothing was changed")]
    Damaged {
        /// The segment.
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong there.
        source: FormatError,
    },
    /// A segment between two others, or the first one, is gone.
    #[error("{file} is missing; restore it from a backup")]
    Missing {
        /// The segment.
        file: PathBuf,
    },
    /// A file of the journal is larger than any segment can be.
    #[error("{file} has {actual_bytes} bytes, more than any segment has; restore it from a backup")]
    SegmentTooLarge {
        /// The file.
        file: PathBuf,
        /// Its size.
        actual_bytes: u64,
    },
    /// A record is larger than a journal takes.
    #[error(
        "a record of {actual_bytes} bytes is over the limit of {} bytes",
        record::CONTENT_MAX_BYTES
    )]
    RecordTooLarge {
        /// The size of its content.
        actual_bytes: usize,
    },
    /// An earlier write failed, so what is on the disk is unknown.
    #[error("an earlier write to {directory} failed; free or repair the disk and start again")]
    Failed {
        /// The journal's directory.
        directory: PathBuf,
    },
    /// The system refused.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

/// A record to be appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRecord {
    /// The time, Unix in milliseconds.
    pub time_ms: u64,
    /// What to write, at most [`record::CONTENT_MAX_BYTES`].
    pub content: Vec<u8>,
}

/// Where a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, bincode::Encode, bincode::Decode)]
pub struct Location {
    /// The segment's number; the first is 1.
    pub segment: u32,
    /// Where the record begins in the segment's file.
    pub offset: u64,
    /// How many bytes it has.
    pub bytes: u32,
}

/// What was cut off when the journal was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CutTail {
    /// The segment.
    pub file: PathBuf,
    /// From where on.
    pub offset: u64,
    /// How many bytes.
    pub bytes: u64,
    /// Where they are kept.
    pub kept_in: PathBuf,
}

/// A journal that this process writes.
#[derive(Debug)]
pub struct Journal {
    directory: PathBuf,
    options: JournalOptions,
    /// Locked as long as this is.
    _lock: File,
    file: File,
    segment: u32,
    salt: u32,
    length: u64,
    next_sequence: u64,
    synced_sequence: u64,
    cut_tail: Option<CutTail>,
    failed: bool,
}

impl Journal {
    /// Opens the journal in `directory`, or begins one, and gives its records from the first on.
    ///
    /// The records of all segments but the last are checked when they are read from the iterator.
    ///
    /// # Errors
    /// [`JournalError`]; nothing was changed then.
    pub fn open(directory: &Path, options: JournalOptions) -> Result<(Self, Records), JournalError> {
        files::create_directory(directory)?;
        let lock = files::lock(directory)?;
        let last = match files::last_segment(directory)? {
            Some(number) => number,
            None => {
                files::create_segment(directory, 1, options.kind, 1)?;
                1
            }
        };
        let (end, cut_tail) = Self::repair(directory, &options, last)?;
        let path = segment_path(directory, last);
        let file = files::open_for_appending(&path)?;
        let journal = Self {
            directory: directory.to_owned(),
            options,
            _lock: lock,
            file,
            segment: last,
            salt: end.salt,
            length: end.length,
            next_sequence: end.next_sequence,
            // Whole records may have been written but not synced by a process that was killed.
            synced_sequence: end.next_sequence - 1,
            cut_tail,
            failed: false,
        };
        if journal.cut_tail.is_none() {
            files::sync(&journal.file, &path)?;
        }
        let records = Records::read(directory, journal.options.kind)?;
        Ok((journal, records))
    }

    /// Finds the end of the last segment and cuts off what was being written behind it.
    fn repair(
        directory: &Path,
        options: &JournalOptions,
        last: u32,
    ) -> Result<(records::SegmentEnd, Option<CutTail>), JournalError> {
        let path = segment_path(directory, last);
        if files::segment_was_not_finished(&path, options.kind)? {
            let kept = files::keep_tail(&path, 0)?;
            let first_sequence = Self::end_of_segment(directory, options, last - 1)?.next_sequence;
            files::create_segment(directory, last, options.kind, first_sequence)?;
            return Ok((Self::end_of_segment(directory, options, last)?, kept));
        }
        let end = Self::end_of_segment(directory, options, last)?;
        if end.tail_bytes == 0 {
            return Ok((end, None));
        }
        let cut = files::keep_tail(&path, end.length)?;
        files::cut(&path, end.length)?;
        Ok((end, cut))
    }

    fn end_of_segment(
        directory: &Path,
        options: &JournalOptions,
        number: u32,
    ) -> Result<records::SegmentEnd, JournalError> {
        if number == 0 {
            return Ok(records::SegmentEnd::before_the_first());
        }
        records::find_end(directory, number, options.kind)
    }

    /// Appends records in this order and says where they are. They are not safe before [`Journal::sync`].
    ///
    /// # Errors
    /// [`JournalError::RecordTooLarge`], after which the journal is as it was; or what the disk said, after which
    /// only reading is possible.
    pub fn append_batch(&mut self, batch: &[NewRecord]) -> Result<Vec<Location>, JournalError> {
        self.check_usable()?;
        if let Some(large) = batch
            .iter()
            .find(|new| new.content.len() > record::CONTENT_MAX_BYTES)
        {
            return Err(JournalError::RecordTooLarge {
                actual_bytes: large.content.len(),
            });
        }
        if self.length >= self.options.segment_bytes {
            self.begin_segment().inspect_err(|_| self.failed = true)?;
        }
        let mut buffer = Vec::new();
        let mut locations = Vec::with_capacity(batch.len());
        for (new, sequence) in batch.iter().zip(self.next_sequence..) {
            let start = buffer.len();
            record::encode_record(
                &mut buffer,
                self.salt,
                self.synced_sequence,
                sequence,
                new.time_ms,
                &new.content,
            );
            let bytes = u32::try_from(buffer.len() - start).unwrap_or(u32::MAX);
            locations.push(Location {
                segment: self.segment,
                offset: self.length + wide(start),
                bytes,
            });
        }
        if let Err(source) = self.file.write_all(&buffer) {
            self.failed = true;
            // What was written of the batch was never reported; taking it back spares the next start the work.
            let _ = self.file.set_len(self.length);
            return Err(self.io("append to", source));
        }
        self.length += wide(buffer.len());
        self.next_sequence += wide(batch.len());
        Ok(locations)
    }

    /// Returns once everything appended so far is on the disk.
    ///
    /// # Errors
    /// What the disk said. After a failed sync nobody knows what was kept, so it is never tried again: only
    /// reading is possible until the journal is opened anew.
    pub fn sync(&mut self) -> Result<(), JournalError> {
        self.check_usable()?;
        if let Err(source) = self.file.sync_data() {
            self.failed = true;
            return Err(self.io("sync", source));
        }
        self.synced_sequence = self.next_sequence - 1;
        Ok(())
    }

    /// The sequence that the next record will have.
    #[must_use]
    pub const fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// What was cut off when the journal was opened.
    #[must_use]
    pub const fn cut_tail(&self) -> Option<&CutTail> {
        self.cut_tail.as_ref()
    }

    fn begin_segment(&mut self) -> Result<(), JournalError> {
        // A batch in the new segment may claim the old one to be synced.
        self.sync()?;
        let number = self.segment.saturating_add(1);
        self.salt = files::create_segment(&self.directory, number, self.options.kind, self.next_sequence)?;
        let path = segment_path(&self.directory, number);
        self.file = files::open_for_appending(&path)?;
        self.segment = number;
        self.length = wide(record::SEGMENT_HEADER_BYTES);
        Ok(())
    }

    fn check_usable(&self) -> Result<(), JournalError> {
        if self.failed {
            Err(JournalError::Failed {
                directory: self.directory.clone(),
            })
        } else {
            Ok(())
        }
    }

    fn io(&self, action: &'static str, source: io::Error) -> JournalError {
        JournalError::Io {
            action,
            path: segment_path(&self.directory, self.segment),
            source,
        }
    }
}

/// Reads one record whose place is known.
///
/// # Errors
/// [`JournalError::Damaged`] where no whole record is there, or what the system said.
pub fn read_at(directory: &Path, kind: JournalKind, location: Location) -> Result<Record, JournalError> {
    let file = segment_path(directory, location.segment);
    let damaged = |offset, source| JournalError::Damaged {
        file: file.clone(),
        offset,
        source,
    };
    let (header, bytes) = files::read_record_bytes(&file, location)?;
    let header = SegmentHeader::decode(&header, kind).map_err(|source| damaged(0, source))?;
    match record::decode_record(&bytes, header.salt) {
        Some((found, length)) if length == bytes.len() => Ok(found),
        _ => Err(damaged(location.offset, FormatError::NotARecord)),
    }
}

fn wide(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
