//! Reading a journal from its first record on, while somebody may be writing to it.

use std::path::{Path, PathBuf};

use super::{JournalError, Location, files, wide};
use crate::record::{
    self, FormatError, JournalKind, Record, SEGMENT_HEADER_BYTES, SegmentHeader, Tail, decode_record,
};

/// The records of a journal in order, each checked: checksum, sequence, and that nothing is missing between them.
///
/// Ends after the last whole record; what follows it then is in [`Records::unfinished_tail`]. After an error there
/// is nothing more.
#[derive(Debug)]
pub struct Records {
    directory: PathBuf,
    kind: JournalKind,
    last_segment: u32,
    next_sequence: u64,
    segment: Option<Segment>,
    next_segment: u32,
    unfinished: Option<UnfinishedTail>,
    ended: bool,
}

/// Bytes behind the last whole record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnfinishedTail {
    /// The segment.
    pub file: PathBuf,
    /// Where the bytes begin.
    pub offset: u64,
    /// How many there are.
    pub bytes: u64,
    /// Whether they are just the beginning of a record, as while a writer is at work. Otherwise they can only come
    /// from a loss of power or from damage.
    pub is_beginning: bool,
}

/// A segment that is being read.
#[derive(Debug)]
struct Segment {
    number: u32,
    path: PathBuf,
    bytes: Vec<u8>,
    header: SegmentHeader,
    offset: usize,
}

/// Where a segment ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct SegmentEnd {
    pub(super) salt: u32,
    /// Bytes of whole records and the header.
    pub(super) length: u64,
    pub(super) next_sequence: u64,
    /// Bytes behind that.
    pub(super) tail_bytes: u64,
}

impl SegmentEnd {
    pub(super) const fn before_the_first() -> Self {
        Self {
            salt: 0,
            length: 0,
            next_sequence: 1,
            tail_bytes: 0,
        }
    }
}

impl Segment {
    fn read(directory: &Path, number: u32, kind: JournalKind) -> Result<Self, JournalError> {
        let path = files::segment_path(directory, number);
        let bytes = files::read_segment(&path)?;
        let damaged = |source| JournalError::Damaged {
            file: path.clone(),
            offset: 0,
            source,
        };
        let header = bytes
            .first_chunk::<SEGMENT_HEADER_BYTES>()
            .ok_or(damaged(FormatError::Magic))?;
        let header = SegmentHeader::decode(header, kind).map_err(damaged)?;
        Ok(Self {
            number,
            path,
            bytes,
            header,
            offset: SEGMENT_HEADER_BYTES,
        })
    }

    /// The record at the offset if it is the expected one.
    fn next(&mut self, expected: u64) -> Option<(Location, Record)> {
        let (record, bytes) = decode_record(self.bytes.get(self.offset..)?, self.header.salt)?;
        if record.sequence != expected {
            return None;
        }
        let bytes_of_record = u32::try_from(bytes).unwrap_or(u32::MAX);
        let location = Location {
            segment: self.number,
            offset: wide(self.offset),
            bytes: bytes_of_record,
        };
        self.offset += bytes;
        Some((location, record))
    }

    fn tail(&self, expected: u64) -> Tail {
        record::classify(&self.bytes, self.offset, self.header.salt, expected)
    }

    fn damaged(&self, source: FormatError) -> JournalError {
        JournalError::Damaged {
            file: self.path.clone(),
            offset: wide(self.offset),
            source,
        }
    }
}

/// Reads a segment to its end.
pub(super) fn find_end(directory: &Path, number: u32, kind: JournalKind) -> Result<SegmentEnd, JournalError> {
    let mut segment = Segment::read(directory, number, kind)?;
    let mut next_sequence = segment.header.first_sequence;
    while segment.next(next_sequence).is_some() {
        next_sequence += 1;
    }
    if let Tail::Damaged(source) = segment.tail(next_sequence) {
        return Err(segment.damaged(source));
    }
    Ok(SegmentEnd {
        salt: segment.header.salt,
        length: wide(segment.offset),
        next_sequence,
        tail_bytes: wide(segment.bytes.len() - segment.offset),
    })
}

impl Records {
    /// Reads the journal in `directory` without changing or locking anything.
    ///
    /// # Errors
    /// [`JournalError`] where there is no such directory or a segment is missing.
    pub fn read(directory: &Path, kind: JournalKind) -> Result<Self, JournalError> {
        Ok(Self {
            directory: directory.to_owned(),
            kind,
            last_segment: files::segments(directory)?,
            next_sequence: 1,
            segment: None,
            next_segment: 1,
            unfinished: None,
            ended: false,
        })
    }

    /// How many segments there are.
    #[must_use]
    pub const fn segments(&self) -> u32 {
        self.last_segment
    }

    /// What followed the last whole record, once the iterator has ended.
    #[must_use]
    pub const fn unfinished_tail(&self) -> Option<&UnfinishedTail> {
        self.unfinished.as_ref()
    }

    fn advance(&mut self) -> Result<Option<(Location, Record)>, JournalError> {
        loop {
            let Some(segment) = &mut self.segment else {
                if self.next_segment > self.last_segment || !self.enter_segment()? {
                    return Ok(None);
                }
                continue;
            };
            if let Some(found) = segment.next(self.next_sequence) {
                self.next_sequence += 1;
                return Ok(Some(found));
            }
            self.leave_segment()?;
        }
    }

    /// Begins the next segment; false where there is only the beginning of its header.
    fn enter_segment(&mut self) -> Result<bool, JournalError> {
        let number = self.next_segment;
        let path = files::segment_path(&self.directory, number);
        if number == self.last_segment && files::segment_was_not_finished(&path, self.kind)? {
            let bytes = wide(files::read_segment(&path)?.len());
            self.unfinished = Some(UnfinishedTail {
                file: path,
                offset: 0,
                bytes,
                is_beginning: true,
            });
            return Ok(false);
        }
        let segment = Segment::read(&self.directory, number, self.kind)?;
        let (actual, expected) = (segment.header.first_sequence, self.next_sequence);
        if actual != expected {
            let source = FormatError::FirstSequence { actual, expected };
            return Err(JournalError::Damaged {
                file: path,
                offset: 0,
                source,
            });
        }
        self.segment = Some(segment);
        self.next_segment += 1;
        Ok(true)
    }

    fn leave_segment(&mut self) -> Result<(), JournalError> {
        let Some(segment) = self.segment.take() else {
            return Ok(());
        };
        let is_last = segment.number == self.last_segment;
        let is_beginning = match segment.tail(self.next_sequence) {
            Tail::Clean => return Ok(()),
            Tail::Damaged(source) => return Err(segment.damaged(source)),
            // A segment is synced before the next one begins.
            _ if !is_last => {
                return Err(segment.damaged(FormatError::Record {
                    expected: self.next_sequence,
                }));
            }
            Tail::Unfinished => true,
            Tail::Torn => false,
        };
        let (offset, end) = (wide(segment.offset), wide(segment.bytes.len()));
        self.unfinished = Some(UnfinishedTail {
            file: segment.path,
            offset,
            bytes: end - offset,
            is_beginning,
        });
        Ok(())
    }
}

impl Iterator for Records {
    type Item = Result<(Location, Record), JournalError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let item = self.advance().transpose();
        self.ended = !matches!(item, Some(Ok(_)));
        item
    }
}

/// Whether a process has the journal in `directory` open for writing. Changes nothing.
#[must_use]
pub fn is_in_use(directory: &Path) -> bool {
    files::is_in_use(directory)
}
