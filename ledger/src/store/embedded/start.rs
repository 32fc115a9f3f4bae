//! Opening a ledger. Everything that says how far the journal must go is asked first, then the journal is opened, then
//! the book is made from the newest usable snapshot and the records behind it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::inbox::Inbox;
use super::index_file::{APPENDED_AT_ONCE, IndexFile};
use super::log_files::LogFiles;
use super::recent::Recent;
use super::record_reader::RecordReader;
use super::replay::{Replay, ReplayError, ReplaySource};
use super::shared::{IndexState, Parts};
use super::snapshot_keeper::{self, KeeperSignal};
use super::{
    EmbeddedOptions, LEDGER_JOURNAL, OpenError, index_directory, journal_directory, log_directory,
    snapshot_directory,
};
use crate::index::{IndexError, IndexedEntry};
use crate::journal::{Journal, JournalError, JournalOptions, Records};
use crate::store::StoredCheckpoint;

/// How often it is asked whether another process has the journal: an audit holds the lock for an instant.
const LOCK_ATTEMPTS: u32 = 10;
const LOCK_RETRY_AFTER: Duration = Duration::from_millis(20);

/// Opens everything.
pub(super) fn start(directory: &Path, options: &EmbeddedOptions) -> Result<(Parts, Journal), OpenError> {
    let journal_directory = journal_directory(directory);
    wait_for_lock(options, &journal_directory)?;
    let records = Arc::new(RecordReader::new(Arc::clone(&options.disk), &journal_directory));
    let source = ReplaySource {
        disk: Arc::clone(&options.disk),
        snapshots: snapshot_directory(directory),
        records: Arc::clone(&records),
    };
    let index_file = IndexFile {
        disk: Arc::clone(&options.disk),
        directory: index_directory(directory),
        records,
    };
    let log_files = LogFiles::new(Arc::clone(&options.disk), log_directory(directory));
    let reserved = log_files.newest_checkpoint().map_err(OpenError::Log)?;
    let index = FoundIndex::open(&index_file, &journal_directory)?;
    let known = Known::newest(&source, reserved.as_ref(), &index);
    let (journal, records) = open_journal(directory, options, known)?;
    let index = index.or_anew_where_foreign(&index_file);
    let began = Replay::from_snapshot(&source, journal.next_sequence() - 1);
    let (replay, index) = replay(began, index, records, reserved.as_ref())?;
    if replay.bytes() >= options.segment_bytes {
        snapshot_keeper::save(&source, &replay);
    }
    let parts = Parts {
        inbox: Inbox::new(options.admission().limit()),
        recent: Recent::new(replay.book.sequence(), index.end),
        keeper: KeeperSignal::new(replay.segment()),
        book: replay.book,
        index: index.state,
        index_file,
        source,
        journal_directory,
        segment_bytes: options.segment_bytes,
        log_files,
    };
    Ok((parts, journal))
}

/// The index has a lock of its own, for which is waited longer; another process is found out faster this way.
fn wait_for_lock(options: &EmbeddedOptions, journal_directory: &Path) -> Result<(), OpenError> {
    for _ in 0..LOCK_ATTEMPTS {
        if !options
            .disk
            .is_locked(&journal_directory.join("lock"))
            .unwrap_or(false)
        {
            return Ok(());
        }
        std::thread::sleep(LOCK_RETRY_AFTER);
    }
    Err(in_use(journal_directory))
}

fn in_use(journal_directory: &Path) -> OpenError {
    OpenError::Journal(JournalError::InUse {
        directory: journal_directory.to_owned(),
    })
}

/// The last record that must be there, and who says so.
#[derive(Clone, Copy, Debug)]
struct Known {
    sequence: u64,
    by: &'static str,
}

impl Known {
    fn newest(source: &ReplaySource, reserved: Option<&StoredCheckpoint>, index: &FoundIndex) -> Self {
        let candidates = [
            (
                reserved.map_or(0, |checkpoint| checkpoint.size),
                "the log's newest checkpoint",
            ),
            (source.newest_snapshot(), "a snapshot"),
            (index.end, "the index"),
        ];
        let known = |(sequence, by)| Self { sequence, by };
        candidates
            .map(known)
            .into_iter()
            .max_by_key(|known| known.sequence)
            .unwrap_or(known((0, "nobody")))
    }
}

fn open_journal(
    directory: &Path,
    options: &EmbeddedOptions,
    known: Known,
) -> Result<(Journal, Records), OpenError> {
    let journal_options = JournalOptions {
        kind: LEDGER_JOURNAL,
        segment_bytes: options.segment_bytes,
        known_synced: known.sequence,
        disk: Arc::clone(&options.disk),
    };
    let opened = Journal::open(&journal_directory(directory), journal_options);
    let (journal, records) = opened.map_err(|error| match error {
        JournalError::Lost {
            file, offset, last, ..
        } => OpenError::EntriesLost {
            file,
            offset,
            journal: last,
            known: known.sequence,
            known_by: known.by,
        },
        other => OpenError::Journal(other),
    })?;
    if let Some(cut) = journal.cut_tail() {
        tracing::warn!(
            file = %cut.file.display(), offset = cut.offset, bytes = cut.bytes, kept_in = %cut.kept_in.display(),
            "the journal ended with bytes of an unfinished write, which were cut off"
        );
    }
    Ok((journal, records))
}

/// The index as it was found, and the newest entry in it.
struct FoundIndex {
    state: IndexState,
    end: u64,
    /// Whether its newest entry is another record of the journal.
    is_foreign: bool,
}

impl FoundIndex {
    fn open(file: &IndexFile, journal_directory: &Path) -> Result<Self, OpenError> {
        match file.open() {
            Ok((index, head)) => Ok(Self {
                is_foreign: head.is_some_and(|head| file.contradicts_journal(head)),
                end: head.map_or(0, |head| head.sequence),
                state: IndexState::Open(index),
            }),
            Err(IndexError::InUse) => Err(in_use(journal_directory)),
            Err(error) => Ok(Self::anew(file, &error.to_string())),
        }
        .map(|found| {
            if found.is_foreign {
                Self { end: 0, ..found }
            } else {
                found
            }
        })
    }

    /// An empty one. Where even that can't be, the follower tries again.
    fn anew(file: &IndexFile, reason: &str) -> Self {
        let state = match file.make_anew(reason) {
            Ok(index) => IndexState::Open(index),
            Err(error) => {
                tracing::warn!(%error, "the ledger's index can't be made; trying again");
                IndexState::Unusable(error.to_string())
            }
        };
        Self {
            state,
            end: 0,
            is_foreign: false,
        }
    }

    fn or_anew_where_foreign(self, file: &IndexFile) -> Self {
        if !self.is_foreign {
            return self;
        }
        drop(self);
        Self::anew(file, "it belongs to another journal")
    }

    /// Adds entries that follow. Where that fails, the follower goes on from where the index ends.
    fn append(&mut self, entries: &[IndexedEntry]) -> bool {
        let (IndexState::Open(index), Some(last)) = (&self.state, entries.last()) else {
            return false;
        };
        match index.append(entries) {
            Ok(()) => {
                self.end = last.sequence;
                true
            }
            Err(error) => {
                tracing::warn!(%error, "the ledger's index can't be written; trying again");
                false
            }
        }
    }
}

/// Replays what the journal has behind the snapshot. An index that has everything up to the snapshot gets the rest on
/// the way; one that has less is brought up later by the follower, so that nobody waits for it here.
fn replay(
    mut replay: Replay,
    mut index: FoundIndex,
    records: Records,
    reserved: Option<&StoredCheckpoint>,
) -> Result<(Replay, FoundIndex), OpenError> {
    let mut feeds = matches!(index.state, IndexState::Open(_)) && index.end >= replay.began_after;
    let mut waiting = Vec::new();
    let mut records = records.starting_at(replay.next_sequence())?;
    check_root(&replay, reserved)?;
    while let Some(found) = records.next_view() {
        let (location, record) = found?;
        let entry = replay.apply(location, record)?;
        if replay.book.sequence() == reserved.map_or(0, |checkpoint| checkpoint.size) {
            check_root(&replay, reserved)?;
        }
        if feeds && entry.sequence > index.end {
            waiting.push(entry);
            if waiting.len() >= APPENDED_AT_ONCE {
                feeds = index.append(&waiting);
                waiting.clear();
            }
        }
    }
    if feeds && !waiting.is_empty() {
        index.append(&waiting);
    }
    replay.book.verify().map_err(ReplayError::from)?;
    Ok((replay, index))
}

/// The root that was reserved for this size, if one was, is the one that the records have.
fn check_root(replay: &Replay, reserved: Option<&StoredCheckpoint>) -> Result<(), OpenError> {
    let Some(reserved) = reserved.filter(|checkpoint| checkpoint.size == replay.book.sequence()) else {
        return Ok(());
    };
    let actual = replay.frontier.root();
    if actual == reserved.root {
        return Ok(());
    }
    Err(OpenError::OtherRoot {
        size: reserved.size,
        reserved: reserved.root,
        actual,
    })
}
