//! Reading one segment through a window, so that memory and time do not depend on how large it is.

use std::sync::Arc;

use super::check::record_at;
use super::files::{Folder, failed};
use super::{JournalError, Location, SEGMENT_READ_MAX_BYTES, wide};
use crate::disk::DiskFile;
use crate::record::{
    self, CONTENT_MAX_BYTES, FormatError, RECORD_HEADER_BYTES, RecordView, SEGMENT_HEADER_BYTES,
    SegmentHeader, Tail,
};

/// How much of a segment is in memory. Larger windows are slower: their memory has to be got from the system.
const WINDOW_BYTES: usize = 512 * 1024;
const RECORD_MAX_BYTES: usize = RECORD_HEADER_BYTES + CONTENT_MAX_BYTES;

/// A segment that is being read.
#[derive(Debug)]
pub(super) struct SegmentReader {
    pub(super) number: u32,
    pub(super) header: SegmentHeader,
    folder: Folder,
    file: Arc<dyn DiskFile>,
    /// How many bytes are read: what the file had when it was opened, or less.
    length: u64,
    window: Vec<u8>,
    /// How many bytes of the window are filled.
    filled: usize,
    /// Where in the file the window begins.
    window_at: u64,
    /// Where in the window the next record begins.
    offset: usize,
}

impl SegmentReader {
    /// Opens a segment and reads its header. `memory` is used for the window.
    pub(super) fn open(folder: &Folder, number: u32, memory: Vec<u8>) -> Result<Self, JournalError> {
        let path = folder.segment(number);
        let opened = folder
            .disk
            .open_to_read(&path)
            .and_then(|file| Ok((file.length()?, file)));
        let (length, file) = opened.map_err(failed("read", &path))?;
        if length > SEGMENT_READ_MAX_BYTES {
            let (file, actual_bytes) = (path, length);
            return Err(JournalError::SegmentTooLarge { file, actual_bytes });
        }
        let mut reader = Self {
            number,
            header: SegmentHeader {
                kind: folder.kind,
                salt: 0,
                first_sequence: 0,
            },
            folder: folder.clone(),
            file,
            length,
            window: memory,
            filled: 0,
            window_at: 0,
            offset: 0,
        };
        reader.fill()?;
        let begin = reader.window.get(..reader.filled).unwrap_or_default();
        let header = begin.first_chunk().ok_or(FormatError::Magic);
        let header = header.and_then(|header| SegmentHeader::decode(header, folder.kind));
        reader.header = header.map_err(|source| reader.damaged(source))?;
        reader.offset = SEGMENT_HEADER_BYTES;
        Ok(reader)
    }

    /// Gives the memory of the window to the next segment.
    pub(super) fn into_memory(self) -> Vec<u8> {
        self.window
    }

    /// Goes back to the first record. What follows the records that were passed is not read then.
    pub(super) fn rewind(&mut self) {
        self.length = self.position();
        if self.window_at > 0 {
            self.filled = 0;
            self.window_at = wide(SEGMENT_HEADER_BYTES);
            self.offset = 0;
        } else {
            self.filled = self.offset;
            self.offset = SEGMENT_HEADER_BYTES;
        }
    }

    /// Where in the file the next record begins.
    pub(super) fn position(&self) -> u64 {
        self.window_at + wide(self.offset)
    }

    /// Passes the next record if it is the expected one, and says where it is.
    pub(super) fn pass(&mut self, expected: u64) -> Result<Option<Location>, JournalError> {
        let mut found = self.length_of(expected);
        if found.is_none() && self.filled - self.offset < RECORD_MAX_BYTES && self.has_more() {
            self.fill()?;
            found = self.length_of(expected);
        }
        let Some(bytes) = found else {
            return Ok(None);
        };
        let location = Location {
            segment: self.number,
            offset: self.position(),
            bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
        };
        self.offset += bytes;
        Ok(Some(location))
    }

    fn length_of(&self, expected: u64) -> Option<usize> {
        let filled = self.window.get(..self.filled)?;
        record_at(filled, self.offset, self.header.salt, expected).map(|(_, length)| length)
    }

    /// The record that was passed last.
    pub(super) fn passed(&self, location: Location) -> RecordView<'_> {
        let length = usize::try_from(location.bytes).unwrap_or(usize::MAX);
        let start = self.offset.saturating_sub(length);
        RecordView::of(self.window.get(start..self.offset).unwrap_or_default())
    }

    /// What follows the records that were passed, where the record `expected` does not, and its bytes without the
    /// zeros at its end. `None` if the record has come meanwhile, so that it can be passed now.
    pub(super) fn tail(&mut self, expected: u64) -> Result<Option<(Tail, Vec<u8>)>, JournalError> {
        let Some(mut rest) = self.read_rest_without(expected)? else {
            return Ok(None);
        };
        let tail = record::classify(&rest, 0, self.header.salt, expected);
        // A reader can see a record before one that was written earlier, but not when it looks once more.
        if matches!(tail, Tail::Torn | Tail::Damaged(_)) && self.read_rest_without(expected)?.is_none() {
            return Ok(None);
        }
        rest.truncate(record::without_zeros(&rest));
        Ok(Some((tail, rest)))
    }

    /// Reads what follows the records that were passed, as it is now. `None` if it begins with the record `expected`.
    fn read_rest_without(&mut self, expected: u64) -> Result<Option<Vec<u8>>, JournalError> {
        let length = usize::try_from(self.length.saturating_sub(self.position())).unwrap_or(usize::MAX);
        let mut rest = vec![0; length];
        let read = self.file.read_at(self.position(), &mut rest);
        let path = self.folder.segment(self.number);
        rest.truncate(read.map_err(failed("read", &path))?);
        if record_at(&rest, 0, self.header.salt, expected).is_none() {
            return Ok(Some(rest));
        }
        self.window_at = self.position();
        self.filled = 0;
        self.offset = 0;
        Ok(None)
    }

    pub(super) fn damaged(&self, source: FormatError) -> JournalError {
        JournalError::Damaged {
            file: self.folder.segment(self.number),
            offset: self.position(),
            source,
        }
    }

    fn has_more(&self) -> bool {
        self.window_at + wide(self.filled) < self.length
    }

    /// Moves the window to the next record and fills it.
    fn fill(&mut self) -> Result<(), JournalError> {
        let kept = self.filled - self.offset;
        self.window.copy_within(self.offset..self.filled, 0);
        self.window_at = self.position();
        self.offset = 0;
        let missing = usize::try_from(self.length.saturating_sub(self.window_at)).unwrap_or(usize::MAX);
        let wanted = missing.min(WINDOW_BYTES);
        if self.window.len() < wanted {
            self.window.resize(wanted, 0);
        }
        let place = self.window.get_mut(kept..wanted).unwrap_or_default();
        let path = self.folder.segment(self.number);
        let read = self.file.read_at(self.window_at + wide(kept), place);
        self.filled = kept + read.map_err(failed("read", &path))?;
        if self.filled < wanted {
            // Somebody has given back the space behind the records.
            self.length = self.window_at + wide(self.filled);
        }
        Ok(())
    }
}
