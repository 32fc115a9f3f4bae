//! Reading a journal from its first record on, while somebody may be writing to it.

use std::path::{Path, PathBuf};

use super::files::Folder;
use super::segment_reader::SegmentReader;
use super::{JournalError, JournalOptions, Location, wide};
use crate::disk::RealDisk;
use crate::record::{FormatError, JournalKind, Record, RecordView, SegmentHeader, Tail};

/// The records of a journal in order, each checked: checksum, sequence, and that nothing is missing between them.
///
/// Ends after the last whole record; what follows it then is in [`Records::unfinished_tail`]. After an error there
/// is nothing more. As an iterator it gives copies; [`Records::next_view`] copies nothing.
#[derive(Debug)]
pub struct Records {
    folder: Folder,
    known_synced: u64,
    last_segment: u32,
    next_sequence: u64,
    /// Records before this one are passed over.
    first_wanted: u64,
    segment: Option<SegmentReader>,
    /// For the window of the next segment.
    memory: Vec<u8>,
    next_segment: u32,
    /// The last segment where it has been read before.
    read_before: Option<SegmentReader>,
    /// The last segment that was left and where its records end.
    end: Option<(u32, u64)>,
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
    /// How many there are, without the zeros of space made ahead.
    pub bytes: u64,
    /// Whether they are just the beginning of a record, as while a writer is at work. Otherwise they can only come
    /// from a loss of power or from damage.
    pub is_beginning: bool,
}

/// Where the writer goes on.
#[derive(Debug)]
pub(super) struct WritingPlace {
    pub(super) segment: u32,
    /// `None` where the segment has to be begun.
    pub(super) header: Option<SegmentHeader>,
    /// Bytes of the header and of whole records.
    pub(super) length: u64,
    pub(super) next_sequence: u64,
    /// What is behind them and has to be cut off.
    pub(super) tail: Vec<u8>,
}

impl Records {
    /// Reads the journal in `directory` on the machine's disk without changing or locking anything.
    ///
    /// # Errors
    /// [`JournalError`] where there is no such directory or a segment is missing.
    pub fn read(directory: &Path, kind: JournalKind) -> Result<Self, JournalError> {
        Self::read_with(directory, &JournalOptions::new(kind))
    }

    /// Reads the journal in `directory` without changing or locking anything.
    ///
    /// # Errors
    /// [`JournalError`] where there is no such directory or a segment is missing.
    pub fn read_with(directory: &Path, options: &JournalOptions) -> Result<Self, JournalError> {
        Self::of(Folder::of(directory, options), options.known_synced)
    }

    pub(super) fn of(folder: Folder, known_synced: u64) -> Result<Self, JournalError> {
        let last_segment = folder.segments()?;
        Ok(Self {
            folder,
            known_synced,
            last_segment,
            next_sequence: 1,
            first_wanted: 1,
            segment: None,
            memory: Vec::new(),
            next_segment: 1,
            read_before: None,
            end: None,
            unfinished: None,
            ended: false,
        })
    }

    /// Leaves out the records before `sequence`, and does not read the segments that have none from it on. Call it
    /// before the first record is taken.
    ///
    /// # Errors
    /// [`JournalError`] where the header of a segment can't be read.
    pub fn starting_at(mut self, sequence: u64) -> Result<Self, JournalError> {
        // The last segment that begins at or before it is searched for between these two.
        let (mut begins_before, mut begins_after) = (1, self.last_segment.saturating_add(1));
        let mut first = 1;
        while begins_before + 1 < begins_after {
            let middle = begins_before + (begins_after - begins_before) / 2;
            let known = self
                .read_before
                .as_ref()
                .filter(|segment| segment.number == middle);
            let begins_at = match known {
                Some(segment) => segment.header.first_sequence,
                // The writer's header is there before the name.
                None if self.folder.unfinished_header(middle)?.is_some() => u64::MAX,
                None => self.folder.header(middle)?.first_sequence,
            };
            if begins_at <= sequence {
                begins_before = middle;
                first = begins_at;
            } else {
                begins_after = middle;
            }
        }
        self.next_segment = begins_before;
        self.next_sequence = first;
        self.first_wanted = sequence;
        Ok(self)
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

    /// The next record where it lies in memory.
    pub fn next_view(&mut self) -> Option<Result<(Location, RecordView<'_>), JournalError>> {
        if self.ended {
            return None;
        }
        let advanced = self.advance().transpose();
        self.ended = !matches!(advanced, Some(Ok(_)));
        match advanced? {
            Ok(location) => self
                .segment
                .as_ref()
                .map(|segment| Ok((location, segment.passed(location)))),
            Err(error) => Some(Err(error)),
        }
    }

    /// Reads the last segment, which is kept for the records, and says where the writer goes on. Changes nothing.
    pub(super) fn read_last_segment(&mut self) -> Result<WritingPlace, JournalError> {
        let mut unfinished = None;
        if self.last_segment > 0 && self.folder.unfinished_header(self.last_segment)?.is_some() {
            unfinished = Some(self.folder.read_segment(self.last_segment)?);
            self.last_segment -= 1;
        }
        let mut place = self.read_writing_place(unfinished.is_none())?;
        if let Some(tail) = unfinished {
            place = WritingPlace {
                segment: place.segment + 1,
                header: None,
                length: 0,
                tail,
                ..place
            };
        } else if place.header.is_none() {
            place.segment = 1;
        }
        if self.known_synced >= place.next_sequence {
            return Err(self.lacks_known(
                place.segment,
                place.length,
                place.next_sequence,
                !place.tail.is_empty(),
            ));
        }
        Ok(place)
    }

    /// The place behind the last record.
    fn read_writing_place(&mut self, may_be_torn: bool) -> Result<WritingPlace, JournalError> {
        if self.last_segment == 0 {
            return Ok(WritingPlace {
                segment: 0,
                header: None,
                length: 0,
                next_sequence: 1,
                tail: Vec::new(),
            });
        }
        let mut segment = SegmentReader::open(&self.folder, self.last_segment, Vec::new())?;
        let header = segment.header;
        let mut next_sequence = header.first_sequence;
        let (kind, tail) = loop {
            if segment.pass(next_sequence)?.is_some() {
                next_sequence += 1;
            } else if let Some(tail) = segment.tail(next_sequence)? {
                break tail;
            }
        };
        match kind {
            Tail::Damaged(source) => return Err(segment.damaged(source)),
            Tail::Unfinished | Tail::Torn if !may_be_torn => {
                let expected = next_sequence;
                return Err(segment.damaged(FormatError::Record { expected }));
            }
            Tail::Clean | Tail::Unfinished | Tail::Torn => {}
        }
        let length = segment.position();
        segment.rewind();
        self.read_before = Some(segment);
        Ok(WritingPlace {
            segment: self.last_segment,
            header: Some(header),
            length,
            next_sequence,
            tail,
        })
    }

    /// The next record that is wanted.
    fn advance(&mut self) -> Result<Option<Location>, JournalError> {
        loop {
            let Some(segment) = &mut self.segment else {
                if self.next_segment > self.last_segment || !self.enter_segment()? {
                    return self.finish();
                }
                continue;
            };
            let Some(location) = segment.pass(self.next_sequence)? else {
                self.leave_segment()?;
                continue;
            };
            self.next_sequence += 1;
            if self.next_sequence > self.first_wanted {
                return Ok(Some(location));
            }
        }
    }

    /// Begins the next segment; false where there is only the beginning of its header.
    fn enter_segment(&mut self) -> Result<bool, JournalError> {
        let number = self.next_segment;
        let file = self.folder.segment(number);
        let segment = match self.read_before.take() {
            Some(segment) if segment.number == number => segment,
            other => {
                self.read_before = other;
                if number == self.last_segment
                    && let Some(bytes) = self.folder.unfinished_header(number)?
                {
                    self.unfinished = Some(UnfinishedTail {
                        file,
                        offset: 0,
                        bytes,
                        is_beginning: true,
                    });
                    return Ok(false);
                }
                SegmentReader::open(&self.folder, number, std::mem::take(&mut self.memory))?
            }
        };
        let (actual, expected) = (segment.header.first_sequence, self.next_sequence);
        if actual != expected {
            let source = FormatError::FirstSequence { actual, expected };
            return Err(JournalError::Damaged {
                file,
                offset: 0,
                source,
            });
        }
        self.segment = Some(segment);
        self.next_segment += 1;
        Ok(true)
    }

    /// Ends with a segment, unless records have come to it meanwhile.
    fn leave_segment(&mut self) -> Result<(), JournalError> {
        let Some(mut segment) = self.segment.take() else {
            return Ok(());
        };
        let expected = self.next_sequence;
        let (number, offset) = (segment.number, segment.position());
        let Some((kind, tail)) = segment.tail(expected)? else {
            self.segment = Some(segment);
            return Ok(());
        };
        self.end = Some((number, offset));
        let is_beginning = match kind {
            Tail::Clean => {
                self.memory = segment.into_memory();
                return Ok(());
            }
            Tail::Damaged(source) => return Err(segment.damaged(source)),
            // A segment is synced before the next one gets its name.
            _ if number != self.last_segment => return Err(segment.damaged(FormatError::Record { expected })),
            Tail::Unfinished => true,
            Tail::Torn => false,
        };
        self.unfinished = Some(UnfinishedTail {
            file: self.folder.segment(number),
            offset,
            bytes: wide(tail.len()),
            is_beginning,
        });
        Ok(())
    }

    /// The end is only an end where everything is there that is known to have been.
    fn finish(&self) -> Result<Option<Location>, JournalError> {
        if self.known_synced < self.next_sequence {
            return Ok(None);
        }
        let (segment, offset) = self.end.unwrap_or((1, 0));
        Err(self.lacks_known(segment, offset, self.next_sequence, self.unfinished.is_some()))
    }

    /// The journal ends before a record that had been synced.
    fn lacks_known(&self, segment: u32, offset: u64, expected: u64, has_tail: bool) -> JournalError {
        let file = self.folder.segment(segment);
        if has_tail {
            return JournalError::Damaged {
                file,
                offset,
                source: FormatError::Record { expected },
            };
        }
        JournalError::Lost {
            file,
            offset,
            last: expected - 1,
            known_synced: self.known_synced,
        }
    }
}

impl Iterator for Records {
    type Item = Result<(Location, Record), JournalError>;

    fn next(&mut self) -> Option<Self::Item> {
        let found = self.next_view()?;
        Some(found.map(|(location, record)| (location, record.to_record())))
    }
}

/// Whether a process has the journal in `directory` open for writing. Changes nothing.
#[must_use]
pub fn is_in_use(directory: &Path) -> bool {
    // What the journal is for does not matter to its lock.
    Folder {
        disk: RealDisk::shared(),
        directory: directory.to_owned(),
        kind: JournalKind::default(),
    }
    .is_in_use()
}
