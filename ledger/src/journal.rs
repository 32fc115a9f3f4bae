//! An append-only journal in a directory: what was synced here is never lost, and damage never goes unnoticed.
//!
//! The ledger keeps its entries in one, a node its highest vouchers in another ([`JournalKind`] tells them apart).
//! The caller appends batches and calls [`Journal::sync`] before it tells anybody; the format is in
//! [`record`].
//!
//! On opening, a tail that was being written when the writer stopped is cut off (its bytes are kept beside the
//! segment), and damage to anything that had been synced stops the opening. Damage at the very end looks like such a
//! tail. Whoever knows from elsewhere how far the journal had been synced says so
//! ([`JournalOptions::known_synced`]); then it can't be mistaken.
//!
//! Space is written with zeros some way ahead of the records, so that a sync has nothing to do but write them. Zeros
//! behind the last record mean nothing.

mod check;
mod files;
mod preparation;
mod records;
mod segment_reader;
mod segment_writer;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

use crate::disk::{Disk, DiskLock, RealDisk};
use crate::record::{self, FormatError, JournalKind, Record, SegmentHeader};

pub use check::{Position, SegmentCheck, check, check_from};
use files::Folder;
pub(crate) use files::segment_path;
use preparation::Preparation;
pub use records::{Records, UnfinishedTail, is_in_use};
use segment_writer::SegmentWriter;

/// How a journal is kept.
#[derive(Clone, Debug)]
pub struct JournalOptions {
    /// What the journal is for.
    pub kind: JournalKind,
    /// After how many bytes a new segment is begun. A segment can be longer by one batch.
    pub segment_bytes: u64,
    /// The last record that is known, from elsewhere, to have been synced; 0 where nothing is known. A journal that
    /// lacks it is damaged, whatever its end looks like.
    pub known_synced: u64,
    /// Where it is kept.
    pub disk: Arc<dyn Disk>,
}

/// Most bytes of a segment that are read; a longer file is damaged.
pub const SEGMENT_READ_MAX_BYTES: u64 = 1024 * 1024 * 1024;
/// After how many bytes a new segment is begun by default.
pub const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;
/// How far ahead space is made. More gains nothing, and makes the batch that has to make it wait.
const ALLOCATE_BYTES: u64 = 256 * 1024;
/// The memory for writing that is kept between two batches.
const BUFFER_KEPT_BYTES: usize = 1024 * 1024;

impl JournalOptions {
    /// A journal of this kind on the machine's disk, in segments of [`SEGMENT_BYTES`].
    #[must_use]
    pub fn new(kind: JournalKind) -> Self {
        Self {
            kind,
            segment_bytes: SEGMENT_BYTES,
            known_synced: 0,
            disk: RealDisk::shared(),
        }
    }
}

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
    /// The journal ends too early: records that had been synced are gone.
    #[error(
        "{file} ends at byte {offset} after record {last}, but record {known_synced} had been written safely. Restore \
         it from a backup; nothing was changed"
    )]
    Lost {
        /// The last segment.
        file: PathBuf,
        /// Where it ends.
        offset: u64,
        /// The last record that is there.
        last: u64,
        /// A record that was synced: [`JournalOptions::known_synced`].
        known_synced: u64,
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
    /// There is no space. Nothing was written and nothing is lost; it can be tried again.
    #[error("there is no space left for {path}; free some, and writing goes on")]
    DiskFull {
        /// What was to be written.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
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
    folder: Folder,
    segment_bytes: u64,
    /// Declared before the lock, so that its thread has ended when the lock is given free.
    preparation: Option<Preparation>,
    segment: SegmentWriter,
    next_sequence: u64,
    synced_sequence: u64,
    cut_tail: Option<CutTail>,
    buffer: Vec<u8>,
    failed: bool,
    _lock: DiskLock,
}

impl Journal {
    /// Opens the journal in `directory`, or begins one, and gives its records, from the first on, that are there now.
    ///
    /// The records of all segments but the last are checked when they are read from the iterator.
    ///
    /// # Errors
    /// [`JournalError`]; nothing was changed then.
    pub fn open(directory: &Path, options: JournalOptions) -> Result<(Self, Records), JournalError> {
        let folder = Folder::of(directory, &options);
        folder.create()?;
        let lock = folder.lock()?;
        let mut records = Records::of(folder.clone(), options.known_synced)?;
        let place = records.read_last_segment()?;
        let is_torn = !place.tail.is_empty();
        let cut_tail = is_torn
            .then(|| folder.keep_tail(place.segment, place.length, &place.tail))
            .transpose()?;
        let segment = match &place.header {
            Some(header) => SegmentWriter::open(&folder, place.segment, header, place.length, is_torn)?,
            None => {
                let mut begun = SegmentWriter::begin(&folder, place.segment, place.next_sequence, None)?;
                begun.sync()?;
                begun
            }
        };
        let journal = Self {
            folder,
            segment_bytes: options.segment_bytes,
            preparation: None,
            segment,
            next_sequence: place.next_sequence,
            // Opening has synced what a process that was killed may have left.
            synced_sequence: place.next_sequence - 1,
            cut_tail,
            buffer: Vec::new(),
            failed: false,
            _lock: lock,
        };
        Ok((journal, records))
    }

    /// Appends records in this order and says where they are. They are not safe before [`Journal::sync`].
    ///
    /// # Errors
    /// [`JournalError::RecordTooLarge`] and [`JournalError::DiskFull`], after which the journal is as it was and the
    /// next batch is tried again; or what the disk said, after which only reading is possible.
    pub fn append_batch(&mut self, batch: &[NewRecord]) -> Result<Vec<Location>, JournalError> {
        self.check_usable()?;
        let too_large = |new: &&NewRecord| new.content.len() > record::CONTENT_MAX_BYTES;
        if let Some(large) = batch.iter().find(too_large) {
            return Err(JournalError::RecordTooLarge {
                actual_bytes: large.content.len(),
            });
        }
        let appended = self.write_batch(batch);
        // Only a full disk leaves everything as it was.
        self.failed |= matches!(&appended, Err(error) if !matches!(error, JournalError::DiskFull { .. }));
        appended
    }

    fn write_batch(&mut self, batch: &[NewRecord]) -> Result<Vec<Location>, JournalError> {
        if self.segment.length() >= self.segment_bytes {
            self.begin_segment()?;
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        let locations = self.encode(batch, &mut buffer);
        let end = self.segment.length() + wide(buffer.len());
        let allocate_to = end.saturating_add(ALLOCATE_BYTES).min(self.segment_bytes);
        self.segment.append(&buffer, allocate_to)?;
        buffer.shrink_to(BUFFER_KEPT_BYTES);
        self.buffer = buffer;
        self.next_sequence += wide(batch.len());
        Ok(locations)
    }

    fn encode(&self, batch: &[NewRecord], buffer: &mut Vec<u8>) -> Vec<Location> {
        let mut locations = Vec::with_capacity(batch.len());
        for (new, sequence) in batch.iter().zip(self.next_sequence..) {
            let start = buffer.len();
            record::encode_record(
                buffer,
                self.segment.salt(),
                self.synced_sequence,
                sequence,
                new.time_ms,
                &new.content,
            );
            locations.push(Location {
                segment: self.segment.number(),
                offset: self.segment.length() + wide(start),
                bytes: u32::try_from(buffer.len() - start).unwrap_or(u32::MAX),
            });
        }
        locations
    }

    fn begin_segment(&mut self) -> Result<(), JournalError> {
        if self.synced_sequence + 1 < self.next_sequence {
            // A batch in the new segment may claim the old one to be synced.
            self.sync()?;
        }
        let number = self.segment.number().saturating_add(1);
        let ready = self.preparation.take().and_then(Preparation::finish);
        let begun = SegmentWriter::begin(&self.folder, number, self.next_sequence, ready)?;
        self.segment.give_space_back();
        self.segment = begun;
        Ok(())
    }

    /// Returns once everything appended so far is on the disk.
    ///
    /// # Errors
    /// What the disk said. After a failed sync nobody knows what was kept, so it is never tried again: only
    /// reading is possible until the journal is opened anew.
    pub fn sync(&mut self) -> Result<(), JournalError> {
        self.check_usable()?;
        self.segment.sync().inspect_err(|_| self.failed = true)?;
        self.synced_sequence = self.next_sequence - 1;
        if self.preparation.is_none() && self.segment.length() >= self.segment_bytes / 2 {
            let bytes = ALLOCATE_BYTES.min(self.segment_bytes);
            self.preparation = Some(Preparation::begin(&self.folder, bytes));
        }
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

    fn check_usable(&self) -> Result<(), JournalError> {
        if self.failed {
            Err(JournalError::Failed {
                directory: self.folder.directory.clone(),
            })
        } else {
            Ok(())
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        if !self.failed {
            self.segment.give_space_back();
        }
    }
}

/// Reads one record whose place is known from a journal on the machine's disk.
///
/// # Errors
/// [`JournalError::Damaged`] where no whole record is there, or what the system said.
pub fn read_at(directory: &Path, kind: JournalKind, location: Location) -> Result<Record, JournalError> {
    read_at_with(directory, &JournalOptions::new(kind), location)
}

/// Reads one record whose place is known.
///
/// # Errors
/// [`JournalError::Damaged`] where no whole record is there, or what the system said.
pub fn read_at_with(
    directory: &Path,
    options: &JournalOptions,
    location: Location,
) -> Result<Record, JournalError> {
    let folder = Folder::of(directory, options);
    let damaged = |offset, source| JournalError::Damaged {
        file: folder.segment(location.segment),
        offset,
        source,
    };
    let (header, bytes) = folder.read_record(location)?;
    let header = SegmentHeader::decode(&header, options.kind).map_err(|source| damaged(0, source))?;
    match record::decode_record(&bytes, header.salt) {
        Some((found, length)) if length == bytes.len() => Ok(found),
        _ => Err(damaged(location.offset, FormatError::NotARecord)),
    }
}

fn wide(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
