//! From the journal to the book, and to an index that agrees with it.

use std::fs;
use std::path::Path;

use gristmill_protocol::codec::DecodeError;
use thiserror::Error;

use super::{LEDGER_JOURNAL, OpenError, index_directory, journal_directory};
use crate::book::{Applied, ApplyError, Book, BrokenInvariant};
use crate::entry::{CheckedEntry, Entry};
use crate::index::{Index, IndexError, IndexHead, IndexedEntry, SledIndex};
use crate::journal::{self, Journal, JournalError, Location, Records};
use crate::outcome::Posted;
use crate::record::Record;
use crate::refusal::Refusal;

/// How many entries go into the index at once while it is brought up to the journal.
const INDEX_BATCH_ENTRIES: usize = 1_024;

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

/// Reads the entry that a record holds.
pub(crate) fn decode(location: Location, record: &Record) -> Result<Entry, ReplayError> {
    Entry::decode(&record.content)
        .map_err(|error| problem(location, record, EntryProblem::Undecodable(error)))
}

/// Applies an entry of the journal to the book that all entries before it were applied to.
pub(crate) fn apply(
    book: &mut Book,
    location: Location,
    record: &Record,
    entry: Entry,
) -> Result<IndexedEntry, ReplayError> {
    let refused = |found| problem(location, record, found);
    match book.apply(&CheckedEntry::journaled(entry), record.time_ms) {
        Ok(Applied::New { sequence, outcome }) if sequence == record.sequence => Ok(IndexedEntry {
            sequence,
            time_ms: record.time_ms,
            record_hash: record.hash,
            location,
            outcome,
        }),
        Ok(Applied::New { .. }) => Err(refused(EntryProblem::Broken(BrokenInvariant::OtherState {
            draft: record.sequence,
            book: book.sequence(),
        }))),
        Ok(Applied::Before { sequence }) => Err(refused(EntryProblem::Repeated(sequence))),
        Err(ApplyError::Refused(refusal)) => Err(refused(EntryProblem::Refused(refusal))),
        Err(ApplyError::Broken(broken)) => Err(refused(EntryProblem::Broken(broken))),
    }
}

fn problem(location: Location, record: &Record, problem: EntryProblem) -> ReplayError {
    ReplayError::Entry {
        sequence: record.sequence,
        location,
        problem,
    }
}

/// The answer that the post of this sequence had, from the journal alone.
pub(super) fn posted(journal_directory: &Path, sequence: u64) -> Result<Option<Posted>, ReplayError> {
    let mut book = Book::new();
    for found in Records::read(journal_directory, LEDGER_JOURNAL)? {
        let (location, record) = found?;
        let entry = decode(location, &record)?;
        let applied = apply(&mut book, location, &record, entry)?;
        if applied.sequence == sequence {
            return Ok(Some(applied.posted(false)));
        }
    }
    Ok(None)
}

/// Replays the journal into a book and brings the index up to it, or makes it anew.
pub(super) fn recover(
    directory: &Path,
    journal: &Journal,
    records: Records,
) -> Result<(Book, SledIndex), OpenError> {
    let last = journal.next_sequence() - 1;
    let opened = SledIndex::open(&index_directory(directory)).and_then(|index| Ok((index.head()?, index)));
    let (head, index) = match opened {
        Ok((Some(head), _)) if head.sequence > last => {
            return Err(OpenError::EntriesLost {
                directory: directory.to_owned(),
                journal: last,
                index: head.sequence,
                index_directory: index_directory(directory),
            });
        }
        Ok((Some(head), index)) if !is_of_this_journal(directory, head) => {
            drop(index);
            (None, make_anew(directory, "it belongs to another journal")?)
        }
        Ok(opened) => opened,
        Err(source @ IndexError::InUse) => {
            return Err(OpenError::Index {
                directory: index_directory(directory),
                source,
            });
        }
        Err(error) => (None, make_anew(directory, &error.to_string())?),
    };
    match feed(index, head, last, records) {
        Err(FeedError::Index(error)) => {
            let index = make_anew(directory, &error.to_string())?;
            let records = Records::read(&journal_directory(directory), LEDGER_JOURNAL)?;
            feed(index, None, last, records).map_err(|error| error.opening(directory))
        }
        fed => fed.map_err(|error| error.opening(directory)),
    }
}

enum FeedError {
    Replay(ReplayError),
    Index(IndexError),
}

impl FeedError {
    fn opening(self, directory: &Path) -> OpenError {
        match self {
            Self::Replay(ReplayError::Journal(error)) => OpenError::Journal(error),
            Self::Replay(error) => OpenError::Replay(error),
            Self::Index(source) => OpenError::Index {
                directory: index_directory(directory),
                source,
            },
        }
    }
}

/// Replays all records; those that the index does not have yet go into it.
fn feed(
    index: SledIndex,
    head: Option<IndexHead>,
    last: u64,
    records: Records,
) -> Result<(Book, SledIndex), FeedError> {
    let indexed = head.map_or(0, |head| head.sequence);
    if indexed < last {
        tracing::info!(indexed, last, "bringing the ledger's index up to the journal");
    }
    let mut book = Book::new();
    let mut waiting = Vec::new();
    for found in records {
        let (location, record) = found.map_err(|error| FeedError::Replay(error.into()))?;
        let entry = decode(location, &record).map_err(FeedError::Replay)?;
        let applied = apply(&mut book, location, &record, entry).map_err(FeedError::Replay)?;
        if applied.sequence > indexed {
            waiting.push(applied);
        }
        if waiting.len() >= INDEX_BATCH_ENTRIES {
            index.append(&waiting).map_err(FeedError::Index)?;
            waiting.clear();
        }
    }
    index.append(&waiting).map_err(FeedError::Index)?;
    book.verify().map_err(|error| FeedError::Replay(error.into()))?;
    Ok((book, index))
}

/// Whether the newest entry of the index is in the journal where the index says.
fn is_of_this_journal(directory: &Path, head: IndexHead) -> bool {
    journal::read_at(&journal_directory(directory), LEDGER_JOURNAL, head.location)
        .is_ok_and(|record| record.sequence == head.sequence && record.hash == head.record_hash)
}

/// Moves an index that is of no use aside, replacing the one that was moved before, and begins a new one.
fn make_anew(directory: &Path, reason: &str) -> Result<SledIndex, OpenError> {
    let path = index_directory(directory);
    let aside = path.with_extension("damaged");
    tracing::warn!(index = %path.display(), moved_to = %aside.display(), reason, "rebuilding the ledger's index");
    let io = |error: std::io::Error| IndexError::Store(error.to_string());
    let moved = if path.exists() {
        remove(&aside)
            .and_then(|()| fs::rename(&path, &aside))
            .map_err(io)
    } else {
        Ok(())
    };
    moved
        .and_then(|()| SledIndex::open(&path))
        .map_err(|source| OpenError::Index {
            directory: path,
            source,
        })
}

fn remove(path: &Path) -> std::io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}
