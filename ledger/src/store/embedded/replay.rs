//! From the journal to the book.

use std::path::PathBuf;
use std::sync::Arc;

use gristmill_protocol::codec::DecodeError;
use gristmill_protocol::log::frontier::Frontier;
use gristmill_protocol::log::hash::LogHash;
use thiserror::Error;

use super::record_reader::{Place, RecordReader};
use crate::book::{Applied, ApplyError, Book, BrokenInvariant};
use crate::disk::Disk;
use crate::entry::{CheckedEntry, Entry};
use crate::index::{IndexError, IndexedEntry};
use crate::journal::{JournalError, Location};
use crate::record::{Record, RecordView};
use crate::refusal::Refusal;
use crate::snapshot::{self, Snapshot, SnapshotHeader};

/// The journal is whole, but what it says can't have happened.
#[derive(Debug, Error)]
pub enum ReplayError {
    /// The journal can't be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// An entry that the book does not take.
    #[error(
        "entry {sequence} (byte {} of segment {}) {problem}. The journal was not written by this program or was \
         changed; restore it from a backup",
        location.offset, location.segment
    )]
    Entry {
        /// The entry's number.
        sequence: u64,
        /// Where it is.
        location: Location,
        /// What is wrong with it.
        problem: EntryProblem,
    },
    /// All entries were taken, but the book does not balance.
    #[error(transparent)]
    Broken(#[from] BrokenInvariant),
}

/// Why the book does not take a journaled entry.
#[derive(Debug, Error)]
pub enum EntryProblem {
    /// It is no entry.
    #[error("is no entry: {0}")]
    Undecodable(DecodeError),
    /// The rules forbid it.
    #[error("breaks the rules: {0}")]
    Refused(Refusal),
    /// It repeats another one; repetitions are not journaled.
    #[error("repeats entry {0}")]
    Repeated(u64),
    /// It breaks the book.
    #[error("breaks the book: {0}")]
    Broken(BrokenInvariant),
}

/// Why the index could not be brought up to the journal.
#[derive(Debug, Error)]
pub(super) enum FeedError {
    #[error(transparent)]
    Replay(#[from] ReplayError),
    #[error(transparent)]
    Index(#[from] IndexError),
}

/// Reads the entry that a record holds.
pub(crate) fn decode(location: Location, record: RecordView<'_>) -> Result<Entry, ReplayError> {
    Entry::decode_salted(record.content())
        .map_err(|error| problem(location, record, EntryProblem::Undecodable(error)))
}

/// Applies an entry of the journal to the book that all entries before it were applied to.
pub(crate) fn apply(
    book: &mut Book,
    location: Location,
    record: RecordView<'_>,
    entry: Entry,
) -> Result<IndexedEntry, ReplayError> {
    let refused = |found| problem(location, record, found);
    match book.apply(&CheckedEntry::journaled(entry), record.time_ms()) {
        Ok(Applied::New { sequence, outcome }) if sequence == record.sequence() => Ok(IndexedEntry {
            sequence,
            time_ms: record.time_ms(),
            record_hash: record.hash(),
            location,
            outcome,
        }),
        Ok(Applied::New { .. }) => Err(refused(EntryProblem::Broken(BrokenInvariant::OtherState {
            draft: record.sequence(),
            book: book.sequence(),
        }))),
        Ok(Applied::Before { sequence }) => Err(refused(EntryProblem::Repeated(sequence))),
        Err(ApplyError::Refused(refusal)) => Err(refused(EntryProblem::Refused(refusal))),
        Err(ApplyError::Broken(broken)) => Err(refused(EntryProblem::Broken(broken))),
    }
}

fn problem(location: Location, record: RecordView<'_>, problem: EntryProblem) -> ReplayError {
    ReplayError::Entry {
        sequence: record.sequence(),
        location,
        problem,
    }
}

/// Where replays find snapshots, and the records that they follow.
#[derive(Clone, Debug)]
pub(super) struct ReplaySource {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) snapshots: PathBuf,
    pub(super) records: Arc<RecordReader>,
}

/// A replay that is going on.
pub(super) struct Replay {
    pub(super) book: Book,
    pub(super) frontier: Frontier,
    /// Hash and place of the last record.
    last: Option<(LogHash, Location)>,
    /// The last record that a snapshot spared; 0 without one.
    pub(super) began_after: u64,
    /// Of the records since.
    bytes: u64,
}

impl ReplaySource {
    /// The newest snapshot after record `limit` or one before it, whose record is in the journal.
    fn snapshot(&self, limit: u64) -> Option<Snapshot> {
        let sequences = snapshot::list(&*self.disk, &self.snapshots).unwrap_or_else(|error| {
            tracing::warn!(directory = %self.snapshots.display(), %error, "the ledger's snapshots can't be listed");
            Vec::new()
        });
        sequences
            .into_iter()
            .filter(|sequence| *sequence <= limit)
            .find_map(|sequence| self.usable(sequence))
    }

    fn usable(&self, sequence: u64) -> Option<Snapshot> {
        let checked = snapshot::read(&*self.disk, &self.snapshots, sequence)
            .map_err(|error| error.to_string())
            .and_then(|found| match self.contradicts_journal(&found.header) {
                None => Ok(found),
                Some(reason) => Err(reason),
            });
        checked
            .inspect_err(|reason| {
                let file = snapshot::path(&self.snapshots, sequence);
                tracing::warn!(file = %file.display(), reason, "a snapshot of the ledger is of no use");
            })
            .ok()
    }

    /// Why a snapshot does not follow from the journal, if it does not.
    fn contradicts_journal(&self, header: &SnapshotHeader) -> Option<String> {
        match self.records.read_at(header.location) {
            Ok(record) if follows(header, &record) => None,
            Ok(_) => Some("the journal has another record where it says to continue".into()),
            Err(error) => Some(format!("the record before it can't be read: {error}")),
        }
    }

    /// The last record that a snapshot was made after, be that record in the journal or lost; 0 without snapshots.
    pub(super) fn newest_snapshot(&self) -> u64 {
        let sequences = snapshot::list(&*self.disk, &self.snapshots).unwrap_or_default();
        let is_of_this_journal = |sequence: &u64| {
            let header = snapshot::read_header(&*self.disk, &self.snapshots, *sequence);
            let is_foreign = |header: &SnapshotHeader| {
                let record = self.records.read_at(header.location);
                record.is_ok_and(|record| !follows(header, &record))
            };
            header.is_ok_and(|header| !is_foreign(&header))
        };
        sequences.into_iter().find(is_of_this_journal).unwrap_or(0)
    }
}

/// Whether this is the record that the snapshot was made after.
fn follows(header: &SnapshotHeader, record: &Record) -> bool {
    record.sequence == header.sequence && record.hash() == header.record_hash
}

impl Replay {
    /// From the beginning.
    pub(super) fn new() -> Self {
        Self {
            book: Book::new(),
            frontier: Frontier::new(),
            last: None,
            began_after: 0,
            bytes: 0,
        }
    }

    /// From the newest usable snapshot after record `limit` or one before it; from the beginning where there is none.
    pub(super) fn from_snapshot(source: &ReplaySource, limit: u64) -> Self {
        let Some(Snapshot { header, book, .. }) = source.snapshot(limit) else {
            return Self::new();
        };
        Self {
            book,
            frontier: header.frontier,
            last: Some((header.record_hash, header.location)),
            began_after: header.sequence,
            bytes: 0,
        }
    }

    /// The record that has to follow.
    pub(super) const fn next_sequence(&self) -> u64 {
        self.book.sequence() + 1
    }

    /// How many bytes of records there were since the snapshot.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The segment of the last record.
    pub(super) fn segment(&self) -> u32 {
        self.last.map_or(1, |(_, location)| location.segment)
    }

    pub(super) fn apply(
        &mut self,
        location: Location,
        record: RecordView<'_>,
    ) -> Result<IndexedEntry, ReplayError> {
        let entry = decode(location, record)?;
        let applied = apply(&mut self.book, location, record, entry)?;
        self.frontier.push(applied.record_hash);
        self.last = Some((applied.record_hash, location));
        self.bytes += u64::from(location.bytes);
        Ok(applied)
    }

    /// Where the next record is.
    pub(super) fn place(&self) -> Place {
        self.last
            .map_or_else(Place::first, |(_, location)| Place::after(location))
    }

    /// What a snapshot made now says; `None` before the first record.
    pub(super) fn header(&self) -> Option<SnapshotHeader> {
        let (record_hash, location) = self.last?;
        Some(SnapshotHeader {
            sequence: self.book.sequence(),
            record_hash,
            location,
            state_digest: self.book.digest(),
            frontier: self.frontier.clone(),
        })
    }
}
