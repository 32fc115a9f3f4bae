//! Checking a ledger without trusting it: replays the journal from its first record, verifies every checksum,
//! sequence, signature and invariant, and holds everything else against the result: the index, snapshots, tiles and
//! checkpoints of the log. Changes nothing and takes no lock, so it can be run while the coordinator is at work.

mod index;
mod log;
mod signatures;
mod snapshots;

use std::path::{Path, PathBuf};

use serde::Serialize;
use thiserror::Error;

use crate::book::{Book, Totals};
use crate::digest::Digest;
use crate::disk::RealDisk;
use crate::entry::Entry;
use crate::index::IndexedEntry;
use crate::journal::{self, JournalError, JournalOptions, Location, Records};
use crate::record::RecordView;
use crate::store::{self, LEDGER_JOURNAL, ReplayError, journal_directory};
use index::IndexCheck;
use log::LogCheck;
use signatures::Signatures;
use snapshots::SnapshotCheck;

pub use index::IndexVerdict;
pub use log::LogReport;

/// Most problems that are told one by one.
pub const PROBLEMS_MAX: usize = 100;

/// What an audit found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuditReport {
    /// Whether there is no problem.
    pub clean: bool,
    /// Records of the journal that were replayed.
    pub records: u64,
    /// Files that the journal has.
    pub segments: u32,
    /// When the last record was written, Unix time in milliseconds.
    pub last_time_ms: u64,
    /// What the accounts hold together, in microcredits.
    #[serde(flatten)]
    pub totals: Totals,
    /// Voucher signatures that were verified.
    pub vouchers_verified: u64,
    /// BLAKE3 over the state that the records lead to.
    pub state_digest: Digest,
    /// Whether a coordinator has the ledger open.
    pub in_use: bool,
    /// Bytes behind the last whole record: a write that is going on or was interrupted. Never acknowledged.
    pub unfinished_bytes: u64,
    /// Whether the index agrees with the journal.
    pub index: IndexVerdict,
    /// Snapshots whose state is the one that the journal leads to.
    pub snapshots: u64,
    /// What the files of the Merkle log say.
    pub log: LogReport,
    /// What is wrong, the first [`PROBLEMS_MAX`].
    pub problems: Vec<Problem>,
    /// How many more problems there are.
    pub problems_left_out: u64,
}

/// Something that is wrong with a ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// In which file or folder.
    pub file: PathBuf,
    /// At which byte of it, where that is known.
    pub offset: Option<u64>,
    /// In which entry, where that is known.
    pub sequence: Option<u64>,
    /// What it is.
    pub what: String,
}

/// Why a ledger could not be audited. This says nothing about the ledger.
#[derive(Debug, Error)]
pub enum AuditError {
    /// There is none.
    #[error(
        "{directory} holds no ledger: it has no folder 'journal'; name the coordinator's ledger directory"
    )]
    NotALedger {
        /// The directory.
        directory: PathBuf,
    },
    /// It can't be read.
    #[error(transparent)]
    Unreadable(JournalError),
}

/// Audits the ledger in `directory`.
///
/// # Errors
/// [`AuditError`] where it can't be read. What is wrong with what was read is in [`AuditReport::problems`].
pub fn audit(directory: &Path) -> Result<AuditReport, AuditError> {
    let journal = journal_directory(directory);
    if !journal.is_dir() {
        return Err(AuditError::NotALedger {
            directory: directory.to_owned(),
        });
    }
    let mut audit = Audit::new(directory, journal);
    audit.replay()?;
    Ok(audit.report())
}

/// An audit that is going on.
struct Audit {
    journal: PathBuf,
    in_use: bool,
    index: IndexCheck,
    snapshots: SnapshotCheck,
    log: LogCheck,
    signatures: Signatures,
    book: Book,
    segments: u32,
    unfinished_bytes: u64,
    problems: Problems,
}

/// Problems found so far, of which only the first are kept.
#[derive(Default)]
struct Problems {
    first: Vec<Problem>,
    left_out: u64,
}

impl Problems {
    fn add(&mut self, problem: Problem) {
        if self.first.len() < PROBLEMS_MAX {
            self.first.push(problem);
        } else {
            self.left_out += 1;
        }
    }
}

impl Audit {
    fn new(directory: &Path, journal: PathBuf) -> Self {
        let in_use = journal::is_in_use(&journal);
        let disk = RealDisk::shared();
        let mut problems = Problems::default();
        // All this is read before the journal, so that it can't be ahead because of an entry in between.
        Self {
            in_use,
            index: IndexCheck::begin(&*disk, &store::index_directory(directory), in_use, &mut problems),
            snapshots: SnapshotCheck::begin(&*disk, &store::snapshot_directory(directory), &mut problems),
            log: LogCheck::begin(disk, &store::log_directory(directory), &mut problems),
            signatures: Signatures::begin(&journal),
            journal,
            book: Book::new(),
            segments: 0,
            unfinished_bytes: 0,
            problems,
        }
    }

    fn replay(&mut self) -> Result<(), AuditError> {
        let known = [self.index.newest(), self.snapshots.newest(), self.log.newest()];
        let options = JournalOptions {
            known_synced: known.into_iter().max().unwrap_or(0),
            ..JournalOptions::new(LEDGER_JOURNAL)
        };
        let mut records = match Records::read_with(&self.journal, &options) {
            Ok(records) => records,
            Err(error) => return self.journal_problem(error),
        };
        self.segments = records.segments();
        while let Some(found) = records.next_view() {
            match found {
                Ok((location, record)) => {
                    if !self.replay_record(location, record) {
                        return Ok(());
                    }
                }
                Err(error) => return self.journal_problem(error),
            }
        }
        if let Some(tail) = records.unfinished_tail() {
            self.unfinished_bytes = tail.bytes;
            if !tail.is_beginning {
                self.problems.add(Problem {
                    file: tail.file.clone(),
                    offset: Some(tail.offset),
                    sequence: Some(self.book.sequence() + 1),
                    what: format!(
                        "the last {} bytes are no record: either a loss of power interrupted the last write, and \
                         the next start cuts them off, or the last records are damaged",
                        tail.bytes
                    ),
                });
            }
        }
        Ok(())
    }

    /// Checks one record; false where what follows it has no meaning any more.
    fn replay_record(&mut self, location: Location, record: RecordView<'_>) -> bool {
        let applied = store::decode(location, record).and_then(|entry| {
            self.signatures.check(entry.clone(), record.sequence(), location);
            if let Entry::RotateKey(handover) = &entry {
                self.log.handover((**handover).clone());
            }
            store::apply(&mut self.book, location, record, entry)
        });
        match applied {
            Ok(applied) => {
                self.compare(&applied);
                true
            }
            Err(error) => {
                self.record_problem(location, record, replay_problem(error));
                false
            }
        }
    }

    /// Holds everything beside the journal against an entry.
    fn compare(&mut self, replayed: &IndexedEntry) {
        let problems = &mut self.problems;
        self.index.compare(replayed, problems);
        self.log.push(replayed.record_hash, problems);
        if self.snapshots.is_after(replayed.sequence) {
            let frontier = self.log.frontier(problems).clone();
            self.snapshots.compare(replayed, &self.book, &frontier, problems);
        }
    }

    fn record_problem(&mut self, location: Location, record: RecordView<'_>, what: String) {
        self.problems.add(Problem {
            file: journal::segment_path(&self.journal, location.segment),
            offset: Some(location.offset),
            sequence: Some(record.sequence()),
            what,
        });
    }

    /// Damage is a finding, a file that can't be read is not.
    fn journal_problem(&mut self, error: JournalError) -> Result<(), AuditError> {
        let sequence = Some(self.book.sequence() + 1);
        let problem = match error {
            JournalError::Damaged { file, offset, source } => Problem {
                file,
                offset: Some(offset),
                sequence,
                what: source.to_string(),
            },
            JournalError::Missing { file } => Problem {
                file,
                offset: None,
                sequence,
                what: "the segment is missing".into(),
            },
            JournalError::SegmentTooLarge { file, actual_bytes } => {
                let what = format!("{actual_bytes} bytes are more than any segment has");
                Problem {
                    file,
                    offset: None,
                    sequence,
                    what,
                }
            }
            JournalError::Lost {
                file,
                offset,
                last,
                known_synced,
            } => Problem {
                file,
                offset: Some(offset),
                sequence,
                what: format!(
                    "the journal ends after record {last}, but record {known_synced} had been synced"
                ),
            },
            other => return Err(AuditError::Unreadable(other)),
        };
        self.problems.add(problem);
        Ok(())
    }

    fn report(mut self) -> AuditReport {
        if let Err(broken) = self.book.verify() {
            let what = broken.to_string();
            self.problems.add(Problem {
                file: self.journal.clone(),
                offset: None,
                sequence: None,
                what,
            });
        }
        let last = self.book.sequence();
        let (vouchers_verified, wrong) = self.signatures.finish();
        wrong.into_iter().for_each(|problem| self.problems.add(problem));
        let index = self.index.finish(last, &mut self.problems);
        let snapshots = self.snapshots.finish(last, &mut self.problems);
        let log = self.log.finish(&mut self.problems);
        AuditReport {
            clean: self.problems.first.is_empty(),
            records: self.book.sequence(),
            segments: self.segments,
            last_time_ms: self.book.last_time_ms(),
            totals: self.book.totals(),
            vouchers_verified,
            state_digest: self.book.digest(),
            in_use: self.in_use,
            unfinished_bytes: self.unfinished_bytes,
            index,
            snapshots,
            log,
            problems: self.problems.first,
            problems_left_out: self.problems.left_out,
        }
    }
}

fn replay_problem(error: ReplayError) -> String {
    match error {
        ReplayError::Entry { problem, .. } => format!("the entry {problem}; nothing after it was replayed"),
        other => other.to_string(),
    }
}
