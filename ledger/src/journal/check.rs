//! Checking the bytes of a segment in memory, at the speed of its checksum.

use super::wide;
use crate::record::{
    self, FormatError, JournalKind, RecordView, SEGMENT_HEADER_BYTES, SegmentHeader, Tail, view_record,
};

/// A place between two records of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Bytes of the segment before it.
    pub offset: u64,
    /// The sequence that the record behind it has.
    pub next_sequence: u64,
}

/// What the bytes of a segment are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentCheck {
    /// Its header.
    pub header: SegmentHeader,
    /// The place behind its last whole record.
    pub end: Position,
    /// What follows there. In a segment that is not the journal's last, everything but [`Tail::Clean`] is damage.
    pub tail: Tail,
}

/// Checks all bytes of a segment.
///
/// # Errors
/// [`FormatError`] where it does not begin with a whole header of this kind; the damage is at byte 0 then.
pub fn check(bytes: &[u8], kind: JournalKind) -> Result<SegmentCheck, FormatError> {
    let header = bytes.first_chunk().ok_or(FormatError::Magic)?;
    let header = SegmentHeader::decode(header, kind)?;
    let from = Position {
        offset: wide(SEGMENT_HEADER_BYTES),
        next_sequence: header.first_sequence,
    };
    Ok(check_from(bytes, header, from))
}

/// Checks the bytes of a segment from a place on that an earlier [`check`] came by.
#[must_use]
pub fn check_from(bytes: &[u8], header: SegmentHeader, from: Position) -> SegmentCheck {
    let mut offset = usize::try_from(from.offset).unwrap_or(usize::MAX);
    let mut next_sequence = from.next_sequence;
    while let Some((_, length)) = record_at(bytes, offset, header.salt, next_sequence) {
        offset += length;
        next_sequence += 1;
    }
    SegmentCheck {
        header,
        end: Position {
            offset: wide(offset),
            next_sequence,
        },
        tail: record::classify(bytes, offset, header.salt, next_sequence),
    }
}

/// The whole record `expected`, if it begins at `offset`, and how many bytes it has.
pub(super) fn record_at(
    bytes: &[u8],
    offset: usize,
    salt: u32,
    expected: u64,
) -> Option<(RecordView<'_>, usize)> {
    view_record(bytes.get(offset..)?, salt).filter(|(record, _)| record.sequence() == expected)
}
