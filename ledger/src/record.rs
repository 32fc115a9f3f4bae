//! The bytes of a journal: segment headers and records. Pure, so that every tool that reads a journal agrees.
//!
//! All integers are little-endian. A segment is a header, then records without gaps, then maybe zeros: space that was
//! made ahead.
//!
//! ```text
//! header   magic "GRSTJRNL" | version u32 | kind 8 bytes | salt u32 | first sequence u64 | crc32c u32
//! record   length u32 | crc32c u32 | synced u64 | sequence u64 | time_ms u64 | content
//! ```
//!
//! - `length` counts everything after the checksum; the checksum covers the length and everything after itself, and
//!   starts from the segment's salt, so that content chosen by a stranger can't look like a record.
//! - `synced` is the last sequence that was known to be on disk when the record was written. It tells a tail that
//!   was torn while it was being written from damage to what had been acknowledged: see [`classify`].
//! - The hash of a record is the RFC 6962 leaf hash of `sequence | time_ms | content`: what was agreed, not how it was
//!   stored. These bytes are the record's entry in the Merkle log.

use thiserror::Error;

use gristmill_protocol::log::hash::{LogHash, leaf_hash};

/// The version of the format that this program writes, and the only one that it reads.
pub const JOURNAL_VERSION: u32 = 1;
/// Bytes of a segment's header.
pub const SEGMENT_HEADER_BYTES: usize = 36;
/// Bytes of a record before its content.
pub const RECORD_HEADER_BYTES: usize = 32;
/// Most bytes of a record's content.
pub const CONTENT_MAX_BYTES: usize = 64 * 1024;

const MAGIC: &[u8; 8] = b"GRSTJRNL";
/// What `length` counts besides the content: synced, sequence and time.
const LENGTH_WITHOUT_CONTENT: usize = 24;
/// Where the checksummed part after the checksum itself begins.
const CHECKED_FROM: usize = 8;
/// Where the hashed part begins.
const HASHED_FROM: usize = 16;
/// Bytes of sequence and time.
const HASHED_BEFORE_CONTENT: usize = 16;

/// What a journal is for, so that one can't be opened as another.
pub type JournalKind = [u8; 8];

/// The header of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// What the journal is for.
    pub kind: JournalKind,
    /// Where the checksums of the segment's records start from.
    pub salt: u32,
    /// The sequence of the segment's first record.
    pub first_sequence: u64,
}

/// One record of a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its number; the first is 1 and there are no gaps.
    pub sequence: u64,
    /// When it was written, Unix time in milliseconds, as its writer was told.
    pub time_ms: u64,
    /// What was written.
    pub content: Vec<u8>,
}

impl Record {
    /// The record's entry in the Merkle log: what its hash covers.
    #[must_use]
    pub fn log_entry(&self) -> Vec<u8> {
        log_entry(self.sequence, self.time_ms, &self.content)
    }

    /// The RFC 6962 leaf hash of [`Record::log_entry`].
    #[must_use]
    pub fn hash(&self) -> LogHash {
        leaf_hash(&self.log_entry())
    }

    /// Reads a [`Record::log_entry`].
    #[must_use]
    pub fn from_log_entry(entry: &[u8]) -> Option<Self> {
        let (sequence, rest) = entry.split_first_chunk()?;
        let (time_ms, content) = rest.split_first_chunk()?;
        Some(Self {
            sequence: u64::from_le_bytes(*sequence),
            time_ms: u64::from_le_bytes(*time_ms),
            content: content.to_vec(),
        })
    }
}

/// A record where it lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordView<'bytes> {
    log_entry: &'bytes [u8],
}

impl<'bytes> RecordView<'bytes> {
    /// The record that these bytes are, whose checksum was verified.
    pub(crate) fn of(record: &'bytes [u8]) -> Self {
        Self {
            log_entry: record.get(HASHED_FROM..).unwrap_or_default(),
        }
    }

    /// Its number.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        u64::from_le_bytes(array(self.log_entry, 0))
    }

    /// When it was written, Unix time in milliseconds.
    #[must_use]
    pub fn time_ms(&self) -> u64 {
        u64::from_le_bytes(array(self.log_entry, 8))
    }

    /// What was written.
    #[must_use]
    pub fn content(&self) -> &'bytes [u8] {
        self.log_entry.get(HASHED_BEFORE_CONTENT..).unwrap_or_default()
    }

    /// The record's entry in the Merkle log: what its hash covers.
    #[must_use]
    pub const fn log_entry(&self) -> &'bytes [u8] {
        self.log_entry
    }

    /// The RFC 6962 leaf hash of [`RecordView::log_entry`].
    #[must_use]
    pub fn hash(&self) -> LogHash {
        leaf_hash(self.log_entry)
    }

    /// A copy.
    #[must_use]
    pub fn to_record(&self) -> Record {
        Record {
            sequence: self.sequence(),
            time_ms: self.time_ms(),
            content: self.content().to_vec(),
        }
    }
}

/// What is wrong with bytes that should be a journal.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FormatError {
    /// The file does not begin like a segment.
    #[error("this is not a segment of a Gristmill journal")]
    Magic,
    /// A version that this program does not know.
    #[error(
        "the segment has version {0}, this program reads version {JOURNAL_VERSION}; use the program that wrote it"
    )]
    Version(u32),
    /// A journal of another kind.
    #[error("the journal is of kind '{actual}', expected '{expected}'")]
    Kind {
        /// The kind found.
        actual: String,
        /// The kind wanted.
        expected: String,
    },
    /// The header's checksum does not hold.
    #[error("the checksum of the segment's header does not hold")]
    HeaderChecksum,
    /// The segment does not continue the one before.
    #[error("the segment begins at record {actual}, the one before ends before record {expected}")]
    FirstSequence {
        /// The sequence in the header.
        actual: u64,
        /// The sequence after the segment before.
        expected: u64,
    },
    /// The record is not whole, its length is impossible, or its checksum does not hold.
    #[error("record {expected} is damaged")]
    Record {
        /// The sequence of the record that should be here.
        expected: u64,
    },
    /// No whole record is where one was known to be.
    #[error("there is no whole record")]
    NotARecord,
    /// The record is whole but has another number than it should have.
    #[error("record {actual} stands where record {expected} should be")]
    Sequence {
        /// The sequence found.
        actual: u64,
        /// The sequence that should be here.
        expected: u64,
    },
}

/// What follows the last whole record of the last segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tail {
    /// Nothing, or zeros.
    Clean,
    /// The beginning of a record and zeros, as a writer leaves it when it is interrupted or not done yet.
    Unfinished,
    /// Bytes that are no record, all of which may have been on their way to the disk when power was lost.
    Torn,
    /// Damage to a record that had been synced.
    Damaged(FormatError),
}

impl SegmentHeader {
    /// The bytes of the header.
    #[must_use]
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&JOURNAL_VERSION.to_le_bytes());
        bytes[12..20].copy_from_slice(&self.kind);
        bytes[20..24].copy_from_slice(&self.salt.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.first_sequence.to_le_bytes());
        let checksum = crc32c::crc32c(&bytes[..32]);
        bytes[32..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads the header of a segment of a journal of this kind.
    ///
    /// # Errors
    /// [`FormatError`] that says why this is none.
    pub fn decode(bytes: &[u8; SEGMENT_HEADER_BYTES], kind: JournalKind) -> Result<Self, FormatError> {
        if bytes[..8] != *MAGIC {
            return Err(FormatError::Magic);
        }
        let header = Self {
            kind: array(bytes, 12),
            salt: u32::from_le_bytes(array(bytes, 20)),
            first_sequence: u64::from_le_bytes(array(bytes, 24)),
        };
        if crc32c::crc32c(&bytes[..32]) != u32::from_le_bytes(array(bytes, 32)) {
            return Err(FormatError::HeaderChecksum);
        }
        let version = u32::from_le_bytes(array(bytes, 8));
        if version != JOURNAL_VERSION {
            return Err(FormatError::Version(version));
        }
        if header.kind != kind {
            let text = |kind: JournalKind| String::from_utf8_lossy(&kind).trim_end_matches('\0').to_owned();
            return Err(FormatError::Kind {
                actual: text(header.kind),
                expected: text(kind),
            });
        }
        Ok(header)
    }

    /// Whether these few bytes are how a header of this kind begins: one whose writing was interrupted.
    #[must_use]
    pub fn could_begin_with(bytes: &[u8], kind: JournalKind) -> bool {
        let fixed = Self {
            kind,
            salt: 0,
            first_sequence: 0,
        }
        .encode();
        let known = bytes.len().min(20);
        bytes.len() < SEGMENT_HEADER_BYTES && bytes[..known] == fixed[..known]
    }
}

/// Appends the bytes of one record. The caller keeps `content` within [`CONTENT_MAX_BYTES`].
pub fn encode_record(
    buffer: &mut Vec<u8>,
    salt: u32,
    synced: u64,
    sequence: u64,
    time_ms: u64,
    content: &[u8],
) {
    let start = buffer.len();
    let length = u32::try_from(LENGTH_WITHOUT_CONTENT + content.len()).unwrap_or(u32::MAX);
    buffer.extend_from_slice(&length.to_le_bytes());
    buffer.extend_from_slice(&[0; 4]);
    buffer.extend_from_slice(&synced.to_le_bytes());
    buffer.extend_from_slice(&sequence.to_le_bytes());
    buffer.extend_from_slice(&time_ms.to_le_bytes());
    buffer.extend_from_slice(content);
    let checksum = checksum(salt, &buffer[start..]);
    buffer[start + 4..start + CHECKED_FROM].copy_from_slice(&checksum.to_le_bytes());
}

fn log_entry(sequence: u64, time_ms: u64, content: &[u8]) -> Vec<u8> {
    let mut entry = Vec::with_capacity(HASHED_BEFORE_CONTENT + content.len());
    entry.extend_from_slice(&sequence.to_le_bytes());
    entry.extend_from_slice(&time_ms.to_le_bytes());
    entry.extend_from_slice(content);
    entry
}

/// The hash that a record of this content has.
#[must_use]
pub fn record_hash(sequence: u64, time_ms: u64, content: &[u8]) -> LogHash {
    leaf_hash(&log_entry(sequence, time_ms, content))
}

/// The bytes of the record that begins here, its checksum verified; `None` where there is none.
#[must_use]
fn whole_record(bytes: &[u8], salt: u32) -> Option<&[u8]> {
    let total = announced_bytes(bytes)?;
    let record = bytes.get(..total)?;
    let stored = u32::from_le_bytes(array(record, 4));
    (checksum(salt, record) == stored).then_some(record)
}

/// How many bytes the record that begins here says it has; `None` where that is unknown or impossible.
fn announced_bytes(bytes: &[u8]) -> Option<usize> {
    let length = usize::try_from(u32::from_le_bytes(bytes.first_chunk().copied()?)).ok()?;
    let possible = (LENGTH_WITHOUT_CONTENT..=LENGTH_WITHOUT_CONTENT + CONTENT_MAX_BYTES).contains(&length);
    possible.then_some(CHECKED_FROM + length)
}

/// Finds the record that begins here, and how many bytes it has; `None` where there is no whole, undamaged one.
#[must_use]
pub fn view_record(bytes: &[u8], salt: u32) -> Option<(RecordView<'_>, usize)> {
    let record = whole_record(bytes, salt)?;
    Some((RecordView::of(record), record.len()))
}

/// Reads the record that begins here, and how many bytes it has; `None` where there is no whole, undamaged one.
#[must_use]
pub fn decode_record(bytes: &[u8], salt: u32) -> Option<(Record, usize)> {
    let (record, length) = view_record(bytes, salt)?;
    Some((record.to_record(), length))
}

/// What the bytes from `offset` on are, where no whole record `expected` begins.
///
/// Zeros to the end are space that was made ahead. Before them:
/// a record further on that knows `expected` to be synced shows that `expected` was there and has been damaged
/// since. Without such a record, everything from `offset` on belongs to writes that were never reported as synced,
/// and a disk may have kept any part of them.
#[must_use]
pub fn classify(bytes: &[u8], offset: usize, salt: u32, expected: u64) -> Tail {
    let rest = bytes.get(offset..).unwrap_or_default();
    let used = without_zeros(rest);
    if used == 0 {
        return Tail::Clean;
    }
    if let Some(record) = whole_record(rest, salt) {
        return Tail::Damaged(FormatError::Sequence {
            actual: sequence(record),
            expected,
        });
    }
    if knows_it_was_synced(rest, used, salt, expected) {
        return Tail::Damaged(FormatError::Record { expected });
    }
    match announced_bytes(rest) {
        Some(total) if total > used => Tail::Unfinished,
        None if used < 4 => Tail::Unfinished,
        _ => Tail::Torn,
    }
}

/// How many bytes there are before the zeros at the end.
#[must_use]
pub fn without_zeros(bytes: &[u8]) -> usize {
    const PIECE: usize = 4096;
    let mut end = bytes.len();
    // Comparing with zeros in large pieces is as fast as memory.
    while let Some(piece) = end.checked_sub(PIECE).and_then(|start| bytes.get(start..end))
        && *piece == [0; PIECE]
    {
        end -= PIECE;
    }
    let last = bytes
        .get(..end)
        .unwrap_or_default()
        .iter()
        .rposition(|byte| *byte != 0);
    last.map_or(0, |position| position + 1)
}

/// Whether behind the damaged beginning of `rest` there is a record that was written when `expected` had been synced.
fn knows_it_was_synced(rest: &[u8], used: usize, salt: u32, expected: u64) -> bool {
    let newest = expected.saturating_add(u64::try_from(used / RECORD_HEADER_BYTES).unwrap_or(u64::MAX));
    let knows = |candidate: &[u8]| {
        synced(candidate) >= expected
            && sequence(candidate) > synced(candidate)
            && sequence(candidate) <= newest
    };
    // Where the damaged record still says how long it is, the next ones are found at once.
    let mut following = announced_bytes(rest).and_then(|total| rest.get(total..));
    while let Some(record) = following.and_then(|bytes| whole_record(bytes, salt)) {
        if knows(record) {
            return true;
        }
        following = following.and_then(|bytes| bytes.get(record.len()..));
    }
    // A stranger's content can't look like a record, see the salt. Nearly every position fails the comparisons.
    (1..used).any(|start| {
        let candidate = rest.get(start..).unwrap_or_default();
        candidate.len() >= RECORD_HEADER_BYTES && knows(candidate) && whole_record(candidate, salt).is_some()
    })
}

fn checksum(salt: u32, record: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(salt, &record[..4]), &record[CHECKED_FROM..])
}

fn synced(record: &[u8]) -> u64 {
    u64::from_le_bytes(array(record, 8))
}

fn sequence(record: &[u8]) -> u64 {
    u64::from_le_bytes(array(record, 16))
}

/// `N` bytes from `start`, zeros where there are fewer; callers have checked the length.
fn array<const N: usize>(bytes: &[u8], start: usize) -> [u8; N] {
    bytes
        .get(start..)
        .and_then(|rest| rest.first_chunk().copied())
        .unwrap_or([0; N])
}

#[cfg(test)]
mod tests;
