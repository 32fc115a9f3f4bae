//! Reading a journal from its first record on: how far it is known to be on the disk, and what its records hash to.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::path::Path;

use gristmill_protocol::handover::SignedHandover;
use gristmill_protocol::log::frontier::Frontier;
use gristmill_protocol::log::hash::LogHash;

use super::manifest::{LedgerSize, SavedSegment};
use super::{BackupError, failed};
use crate::entry::Entry;
use crate::journal::{Location, Records, segment_path};
use crate::store::{LEDGER_JOURNAL, journal_directory};

/// Where in a record the sequence is that was known to be synced when it was written.
const SYNCED_AT: u64 = 8;

/// A prefix of a journal.
#[derive(Clone, Debug)]
pub(super) struct Scan {
    /// Its records and their root.
    pub(super) ledger: LedgerSize,
    /// When the last of them was written.
    pub(super) last_time_ms: u64,
    /// Which bytes of which files they are.
    pub(super) segments: Vec<SavedSegment>,
    /// Records behind them that are not known to be on the disk.
    pub(super) left_out: u64,
    /// The roots of the sizes that were asked for, as far as there are so many records.
    pub(super) roots: BTreeMap<u64, LogHash>,
    /// The hand-overs of the signing key among them, in order.
    pub(super) handovers: Vec<SignedHandover>,
}

/// How far a journal is taken.
pub(super) enum Extent<'known> {
    /// All whole records: nobody writes.
    All,
    /// Only what the records themselves, or this function that is asked at the end, say to be on the disk.
    Synced(&'known mut dyn FnMut(u64) -> Result<u64, BackupError>),
}

/// A record that is not known to be on the disk yet.
struct Waiting {
    sequence: u64,
    time_ms: u64,
    hash: LogHash,
    end: Place,
    handover: Option<SignedHandover>,
}

#[derive(Clone, Copy)]
struct Place {
    segment: u32,
    offset: u64,
}

/// Reads the journal of the ledger in `directory`. Calls `leaf` with each record's hash, in order.
pub(super) fn scan(
    directory: &Path,
    wanted: &[u64],
    extent: Extent<'_>,
    mut leaf: impl FnMut(LogHash) -> Result<(), BackupError>,
) -> Result<Scan, BackupError> {
    let journal = journal_directory(directory);
    let mut reader = ClaimReader::new(&journal);
    let mut prefix = Prefix::new(wanted);
    let (mut waiting, mut known) = (VecDeque::new(), 0);
    let take_all = matches!(extent, Extent::All);
    for found in Records::read(&journal, LEDGER_JOURNAL)? {
        let (location, record) = found?;
        let handover = match Entry::decode_salted(&record.content) {
            Ok(Entry::RotateKey(handover)) => Some(*handover),
            // What is no entry is for the audit to tell.
            _ => None,
        };
        waiting.push_back(Waiting {
            sequence: record.sequence,
            time_ms: record.time_ms,
            hash: record.hash(),
            end: Place {
                segment: location.segment,
                offset: location.offset + u64::from(location.bytes),
            },
            handover,
        });
        known = if take_all {
            record.sequence
        } else {
            known.max(reader.claim(location)?)
        };
        prefix.take(&mut waiting, known, &mut leaf)?;
    }
    if let (Extent::Synced(ask), Some(last)) = (extent, waiting.back()) {
        known = known.max(ask(last.sequence)?);
        prefix.take(&mut waiting, known, &mut leaf)?;
    }
    prefix.finish(u64::try_from(waiting.len()).unwrap_or(u64::MAX))
}

/// What was taken so far.
struct Prefix<'wanted> {
    frontier: Frontier,
    wanted: &'wanted [u64],
    roots: BTreeMap<u64, LogHash>,
    ends: BTreeMap<u32, u64>,
    last_time_ms: u64,
    handovers: Vec<SignedHandover>,
}

impl<'wanted> Prefix<'wanted> {
    fn new(wanted: &'wanted [u64]) -> Self {
        let frontier = Frontier::new();
        let mut roots = BTreeMap::new();
        if wanted.contains(&0) {
            roots.insert(0, frontier.root());
        }
        Self {
            frontier,
            wanted,
            roots,
            ends: BTreeMap::new(),
            last_time_ms: 0,
            handovers: Vec::new(),
        }
    }

    /// Takes the records up to this one.
    fn take(
        &mut self,
        waiting: &mut VecDeque<Waiting>,
        known: u64,
        leaf: &mut impl FnMut(LogHash) -> Result<(), BackupError>,
    ) -> Result<(), BackupError> {
        while waiting.front().is_some_and(|record| record.sequence <= known) {
            let Some(record) = waiting.pop_front() else {
                break;
            };
            self.frontier.push(record.hash);
            leaf(record.hash)?;
            if self.wanted.contains(&record.sequence) {
                self.roots.insert(record.sequence, self.frontier.root());
            }
            self.ends.insert(record.end.segment, record.end.offset);
            self.last_time_ms = record.time_ms;
            self.handovers.extend(record.handover);
        }
        Ok(())
    }

    fn finish(self, left_out: u64) -> Result<Scan, BackupError> {
        let segments = self.ends.into_iter();
        Ok(Scan {
            ledger: LedgerSize {
                size: self.frontier.size(),
                root: self.frontier.root(),
            },
            last_time_ms: self.last_time_ms,
            segments: segments
                .map(|(number, bytes)| SavedSegment { number, bytes })
                .collect(),
            left_out,
            roots: self.roots,
            handovers: self.handovers,
        })
    }
}

/// Reads what records say about how far the journal was synced when they were written.
struct ClaimReader<'journal> {
    journal: &'journal Path,
    segment: u32,
    bytes: Vec<u8>,
}

impl<'journal> ClaimReader<'journal> {
    const fn new(journal: &'journal Path) -> Self {
        Self {
            journal,
            segment: 0,
            bytes: Vec::new(),
        }
    }

    fn claim(&mut self, location: Location) -> Result<u64, BackupError> {
        if self.segment != location.segment {
            let file = segment_path(self.journal, location.segment);
            self.bytes = fs::read(&file).map_err(failed("read", &file))?;
            self.segment = location.segment;
        }
        let start = usize::try_from(location.offset + SYNCED_AT).unwrap_or(usize::MAX);
        let claim = self.bytes.get(start..).and_then(|bytes| bytes.first_chunk());
        // A record that has gone again since it was read claims nothing.
        Ok(claim.map_or(0, |claim| u64::from_le_bytes(*claim)))
    }
}
