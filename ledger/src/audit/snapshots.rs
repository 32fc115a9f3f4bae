//! Holding snapshots against the replay.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use gristmill_protocol::log::frontier::Frontier;

use super::{Problem, Problems};
use crate::book::Book;
use crate::disk::Disk;
use crate::index::IndexedEntry;
use crate::snapshot::{self, SnapshotError, SnapshotHeader};

/// The snapshots that were found, until the replay has come by them.
pub(super) struct SnapshotCheck {
    directory: PathBuf,
    headers: BTreeMap<u64, SnapshotHeader>,
    agree: u64,
}

impl SnapshotCheck {
    /// Reads all snapshots.
    pub(super) fn begin(disk: &dyn Disk, directory: &Path, problems: &mut Problems) -> Self {
        let mut check = Self {
            directory: directory.to_owned(),
            headers: BTreeMap::new(),
            agree: 0,
        };
        let sequences = snapshot::list(disk, directory).unwrap_or_else(|error| {
            problems.add(problem(
                directory.to_owned(),
                None,
                format!("it can't be listed: {error}"),
            ));
            Vec::new()
        });
        for sequence in sequences {
            match snapshot::read(disk, directory, sequence) {
                Ok(found) => {
                    check.headers.insert(sequence, found.header);
                }
                // It was replaced by a newer one meanwhile.
                Err(SnapshotError::Read(error)) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    let file = snapshot::path(directory, sequence);
                    let what = format!("the snapshot is of no use: {error}; the next start does without it");
                    problems.add(problem(file, Some(sequence), what));
                }
            }
        }
        check
    }

    /// The last record of which a snapshot knows.
    pub(super) fn newest(&self) -> u64 {
        self.headers.last_key_value().map_or(0, |(sequence, _)| *sequence)
    }

    /// Whether a snapshot was made after this record.
    pub(super) fn is_after(&self, sequence: u64) -> bool {
        self.headers.contains_key(&sequence)
    }

    /// The replay has come to a snapshot's record.
    pub(super) fn compare(
        &mut self,
        replayed: &IndexedEntry,
        book: &Book,
        frontier: &Frontier,
        problems: &mut Problems,
    ) {
        let Some(header) = self.headers.remove(&replayed.sequence) else {
            return;
        };
        let expected = SnapshotHeader {
            sequence: replayed.sequence,
            record_hash: replayed.record_hash,
            location: replayed.location,
            state_digest: book.digest(),
            frontier: frontier.clone(),
        };
        if header == expected {
            self.agree += 1;
            return;
        }
        let what = if header.state_digest == expected.state_digest {
            "the snapshot says another record hash, place or frontier than the journal has".to_owned()
        } else {
            let (kept, replayed) = (header.state_digest, expected.state_digest);
            format!("the snapshot has a state with digest {kept}, the journal leads to {replayed}")
        };
        let file = snapshot::path(&self.directory, replayed.sequence);
        problems.add(problem(file, Some(replayed.sequence), what));
    }

    /// How many agree with the journal.
    pub(super) fn finish(self, last: u64, problems: &mut Problems) -> u64 {
        for sequence in self.headers.keys().filter(|sequence| **sequence > last) {
            let what = format!(
                "the snapshot was made after record {sequence}, but the journal was replayed to {last}"
            );
            let file = snapshot::path(&self.directory, *sequence);
            problems.add(problem(file, Some(*sequence), what));
        }
        self.agree
    }
}

const fn problem(file: PathBuf, sequence: Option<u64>, what: String) -> Problem {
    Problem {
        file,
        offset: None,
        sequence,
        what,
    }
}
