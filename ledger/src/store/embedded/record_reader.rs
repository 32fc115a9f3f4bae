//! Reading records back from the journal: one at a known place, or many in a row.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::LEDGER_JOURNAL;
use crate::disk::{Disk, DiskFile};
use crate::journal::{JournalError, JournalOptions, Location, Records, segment_path};
use crate::record::{
    CONTENT_MAX_BYTES, FormatError, RECORD_HEADER_BYTES, Record, RecordView, SEGMENT_HEADER_BYTES,
    SegmentHeader, decode_record, view_record,
};

/// So many segments stay open.
const OPEN_SEGMENTS: usize = 16;
/// How much is read at once. At least one record fits.
const READ_BYTES: usize = 256 * 1024;
const _: () = assert!(READ_BYTES >= RECORD_HEADER_BYTES + CONTENT_MAX_BYTES);

/// Reads records of one ledger's journal.
#[derive(Debug)]
pub(super) struct RecordReader {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    open: Mutex<VecDeque<Arc<OpenSegment>>>,
    /// Where the last reading of many ended: whoever reads on begins there.
    next: Mutex<Option<(u64, Place)>>,
}

#[derive(Debug)]
struct OpenSegment {
    number: u32,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    header: SegmentHeader,
}

/// A place between two records.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    segment: u32,
    offset: u64,
}

impl Place {
    /// Where the first record is.
    pub(super) fn first() -> Self {
        Self {
            segment: 1,
            offset: wide(SEGMENT_HEADER_BYTES),
        }
    }

    /// Where the record after this one is, or where the segment ends.
    pub(super) fn after(location: Location) -> Self {
        Self {
            segment: location.segment,
            offset: location.offset + u64::from(location.bytes),
        }
    }
}

impl From<Location> for Place {
    fn from(location: Location) -> Self {
        Self {
            segment: location.segment,
            offset: location.offset,
        }
    }
}

impl RecordReader {
    pub(super) fn new(disk: Arc<dyn Disk>, directory: &Path) -> Self {
        Self {
            disk,
            directory: directory.to_owned(),
            open: Mutex::default(),
            next: Mutex::default(),
        }
    }

    /// How the journal is opened for reading.
    pub(super) fn options(&self) -> JournalOptions {
        JournalOptions {
            disk: Arc::clone(&self.disk),
            ..JournalOptions::new(LEDGER_JOURNAL)
        }
    }

    /// The records that are there now from `first` on.
    pub(super) fn starting_at(&self, first: u64) -> Result<Records, JournalError> {
        Records::read_with(&self.directory, &self.options())?.starting_at(first)
    }

    /// Reads the record that is known to be there.
    pub(super) fn read_at(&self, location: Location) -> Result<Record, JournalError> {
        let segment = self.segment(location.segment)?;
        let length = usize::try_from(location.bytes).unwrap_or(usize::MAX);
        let mut bytes = vec![0; length.min(RECORD_HEADER_BYTES + CONTENT_MAX_BYTES)];
        let read = segment
            .file
            .read_at(location.offset, &mut bytes)
            .map_err(failed(&segment.path))?;
        match decode_record(bytes.get(..read).unwrap_or_default(), segment.header.salt) {
            Some((record, used)) if used == length => Ok(record),
            _ => Err(segment.damaged(location.offset, FormatError::NotARecord)),
        }
    }

    /// Reads the records `first` to `last` of a journal that has them, and gives each to `take`. `place_of_first` is
    /// asked where the first one is, unless the last reading ended there.
    pub(super) fn read<E: From<JournalError>>(
        &self,
        first: u64,
        last: u64,
        place_of_first: impl FnOnce() -> Option<Place>,
        mut take: impl FnMut(Location, RecordView<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let known = self.next.lock().unwrap_or_else(PoisonError::into_inner).take();
        let known = known
            .filter(|(sequence, _)| *sequence == first)
            .map(|(_, place)| place);
        let mut place = match known.or_else(place_of_first) {
            Some(place) => place,
            None => self.find(first)?,
        };
        let mut bytes = vec![0; READ_BYTES];
        let mut expected = first;
        while expected <= last {
            let before = expected;
            place = self.read_some(place, &mut expected, last, &mut bytes, &mut take)?;
            if expected == before {
                place = self.next_segment(place, expected)?;
            }
        }
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = Some((expected, place));
        Ok(())
    }

    /// Reads records from one place and says where the next one is: at the same place where the segment has no more.
    fn read_some<E: From<JournalError>>(
        &self,
        place: Place,
        expected: &mut u64,
        last: u64,
        buffer: &mut [u8],
        take: &mut impl FnMut(Location, RecordView<'_>) -> Result<(), E>,
    ) -> Result<Place, E> {
        let segment = self.segment(place.segment)?;
        let read = segment
            .file
            .read_at(place.offset, buffer)
            .map_err(failed(&segment.path))?;
        let bytes = buffer.get(..read).unwrap_or_default();
        let mut used = 0;
        while *expected <= last
            && let Some((record, length)) =
                view_record(bytes.get(used..).unwrap_or_default(), segment.header.salt)
        {
            let offset = place.offset + wide(used);
            if record.sequence() != *expected {
                let (actual, expected) = (record.sequence(), *expected);
                return Err(segment
                    .damaged(offset, FormatError::Sequence { actual, expected })
                    .into());
            }
            let location = Location {
                segment: segment.number,
                offset,
                bytes: u32::try_from(length).unwrap_or(u32::MAX),
            };
            take(location, record)?;
            used += length;
            *expected += 1;
        }
        Ok(Place {
            offset: place.offset + wide(used),
            ..place
        })
    }

    /// The begin of the segment after this place, which must continue it.
    fn next_segment(&self, place: Place, expected: u64) -> Result<Place, JournalError> {
        let damaged = |segment: &OpenSegment| segment.damaged(place.offset, FormatError::Record { expected });
        let here = self.segment(place.segment)?;
        let next = self
            .segment(place.segment.saturating_add(1))
            .map_err(|_| damaged(&here))?;
        if next.header.first_sequence != expected {
            return Err(damaged(&here));
        }
        Ok(Place {
            segment: next.number,
            offset: wide(SEGMENT_HEADER_BYTES),
        })
    }

    /// Finds a record without any help, by reading its segment.
    fn find(&self, sequence: u64) -> Result<Place, JournalError> {
        match self.starting_at(sequence)?.next_view() {
            Some(found) => Ok(found?.0.into()),
            None => Err(JournalError::Lost {
                file: self.directory.clone(),
                offset: 0,
                last: sequence.saturating_sub(1),
                known_synced: sequence,
            }),
        }
    }

    fn segment(&self, number: u32) -> Result<Arc<OpenSegment>, JournalError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(segment) = open.iter().find(|segment| segment.number == number) {
            return Ok(Arc::clone(segment));
        }
        let path = segment_path(&self.directory, number);
        let mut header = [0; SEGMENT_HEADER_BYTES];
        let file = self.disk.open_to_read(&path).map_err(failed(&path))?;
        file.read_at(0, &mut header).map_err(failed(&path))?;
        let header =
            SegmentHeader::decode(&header, LEDGER_JOURNAL).map_err(|source| JournalError::Damaged {
                file: path.clone(),
                offset: 0,
                source,
            })?;
        let segment = Arc::new(OpenSegment {
            number,
            path,
            file,
            header,
        });
        open.push_back(Arc::clone(&segment));
        if open.len() > OPEN_SEGMENTS {
            open.pop_front();
        }
        Ok(segment)
    }
}

impl OpenSegment {
    fn damaged(&self, offset: u64, source: FormatError) -> JournalError {
        JournalError::Damaged {
            file: self.path.clone(),
            offset,
            source,
        }
    }
}

fn failed(path: &Path) -> impl Fn(io::Error) -> JournalError + '_ {
    |source| JournalError::Io {
        action: "read",
        path: path.to_owned(),
        source,
    }
}

fn wide(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
