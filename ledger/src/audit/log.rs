//! Holding the files of the Merkle log against the replay: every tile, the reserved root, and the published checkpoint
//! with its signature.

mod tiles;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use gristmill_protocol::handover::SignedHandover;
use gristmill_protocol::log::checkpoint::{LogKeys, SignedCheckpoint, account_of_origin};
use gristmill_protocol::log::frontier::Frontier;
use gristmill_protocol::log::hash::LogHash;
use gristmill_protocol::log::note::SignedNote;
use gristmill_protocol::log::tile_builder::TileBuilder;
use serde::Serialize;

use super::{Problem, Problems};
use crate::disk::Disk;
use crate::store::{CHECKPOINT_FILE, LogFiles, RESERVED_FILE, ReadError, StoredCheckpoint};
use tiles::TileCheck;

/// Leaves are hashed together up to the end of a tile of the lowest level.
const LEAVES_AT_ONCE: u64 = 256;

/// What an audit found of the Merkle log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LogReport {
    /// The root over all records that were replayed.
    pub root: LogHash,
    /// Tiles whose hashes are those of the journal's records.
    pub tiles: u64,
    /// The size for which a root is reserved.
    pub reserved: Option<u64>,
    /// The size of the checkpoint that everybody is shown, whose signature and root hold.
    pub published: Option<u64>,
    /// The name of the log that the published checkpoint is of.
    pub origin: Option<String>,
}

/// The log's files, and the tree that the replay has built so far.
pub(super) struct LogCheck {
    directory: PathBuf,
    reserved: Option<StoredCheckpoint>,
    published: Option<StoredCheckpoint>,
    tiles: TileCheck,
    builder: TileBuilder,
    waiting: Vec<LogHash>,
    handovers: Vec<SignedHandover>,
    /// The published checkpoint has the root of the records.
    published_root_holds: bool,
}

impl LogCheck {
    /// Reads the checkpoints and lists the tiles. What is there belongs to records that are in the journal already.
    pub(super) fn begin(disk: Arc<dyn Disk>, directory: &Path, problems: &mut Problems) -> Self {
        let files = LogFiles::new(Arc::clone(&disk), directory.to_owned());
        let mut found = |name: &str, read: Result<Option<StoredCheckpoint>, ReadError>| {
            read.unwrap_or_else(|error| {
                problems.add(problem(directory.join(name), None, error.to_string()));
                None
            })
        };
        let published = found(CHECKPOINT_FILE, files.published_checkpoint());
        let reserved = found(RESERVED_FILE, files.reserved_checkpoint());
        let size = published.as_ref().map_or(0, |checkpoint| checkpoint.size);
        Self {
            tiles: TileCheck::begin(disk, directory, size, problems),
            directory: directory.to_owned(),
            reserved,
            published,
            builder: TileBuilder::new(),
            waiting: Vec::new(),
            handovers: Vec::new(),
            published_root_holds: false,
        }
    }

    /// The last record of which the log knows.
    pub(super) fn newest(&self) -> u64 {
        let checkpoints = [&self.reserved, &self.published];
        checkpoints
            .into_iter()
            .flatten()
            .map(|found| found.size)
            .max()
            .unwrap_or(0)
    }

    pub(super) fn handover(&mut self, handover: SignedHandover) {
        self.handovers.push(handover);
    }

    /// The next record.
    pub(super) fn push(&mut self, leaf: LogHash, problems: &mut Problems) {
        self.waiting.push(leaf);
        let size = self.builder.size() + u64::try_from(self.waiting.len()).unwrap_or(u64::MAX);
        let is_shown = [&self.reserved, &self.published]
            .into_iter()
            .flatten()
            .any(|found| found.size == size);
        if is_shown {
            self.frontier(problems);
            self.check_roots(problems);
        } else if size.is_multiple_of(LEAVES_AT_ONCE) {
            self.frontier(problems);
        }
    }

    /// The right edge of the tree over all records so far.
    pub(super) fn frontier(&mut self, problems: &mut Problems) -> &Frontier {
        let written = self.builder.append(self.waiting.drain(..));
        self.tiles.compare(written, problems);
        self.builder.frontier()
    }

    fn check_roots(&mut self, problems: &mut Problems) {
        let (size, actual) = (self.builder.size(), self.builder.root());
        let mut holds = |found: &Option<StoredCheckpoint>, name: &str| match found {
            Some(found) if found.size == size && found.root != actual => {
                let what = format!(
                    "it has root {} for {size} records, but the journal's records have root {actual}",
                    found.root
                );
                problems.add(problem(self.directory.join(name), Some(size), what));
                false
            }
            found => found.as_ref().is_some_and(|found| found.size == size),
        };
        holds(&self.reserved, RESERVED_FILE);
        self.published_root_holds |= holds(&self.published, CHECKPOINT_FILE);
    }

    pub(super) fn finish(mut self, problems: &mut Problems) -> LogReport {
        self.frontier(problems);
        let size = self.builder.size();
        let missing = |found: &Option<StoredCheckpoint>, name: &str, problems: &mut Problems| {
            if let Some(found) = found.as_ref().filter(|found| found.size > size) {
                let what = format!(
                    "it is of {} records, but the journal was replayed to {size}: what it names had been synced",
                    found.size
                );
                problems.add(problem(self.directory.join(name), Some(size + 1), what));
            }
        };
        missing(&self.reserved, RESERVED_FILE, problems);
        missing(&self.published, CHECKPOINT_FILE, problems);
        let origin = self.check_note(problems);
        let (root, published_root_holds) = (self.builder.root(), self.published_root_holds);
        LogReport {
            root,
            tiles: self.tiles.finish(size, problems),
            reserved: self.reserved.map(|found| found.size),
            published: self
                .published
                .map(|found| found.size)
                .filter(|_| published_root_holds && origin.is_some()),
            origin,
        }
    }

    /// Checks the signature of the published checkpoint by the keys that the journal has handed over to. Gives the
    /// log's name.
    fn check_note(&self, problems: &mut Problems) -> Option<String> {
        let note = self.published.as_ref()?.note.as_ref()?;
        let checked = check_note(note, &self.handovers);
        match checked {
            Ok(origin) => Some(origin),
            Err(what) => {
                problems.add(problem(self.directory.join(CHECKPOINT_FILE), None, what));
                None
            }
        }
    }
}

fn check_note(note: &str, handovers: &[SignedHandover]) -> Result<String, String> {
    let note: SignedNote = note
        .parse()
        .map_err(|error| format!("the note is malformed: {error}"))?;
    let origin = note.text().lines().next().unwrap_or_default().to_owned();
    let first = account_of_origin(&origin)
        .ok_or_else(|| format!("the note is of '{origin}', which is no log of a coordinator"))?;
    let mut keys = LogKeys::new(first);
    for handover in handovers {
        keys.follow(handover)
            .map_err(|error| format!("a hand-over in the journal is not of the checkpoint's log: {error}"))?;
    }
    SignedCheckpoint::open(note, &keys).map_err(|error| error.to_string())?;
    Ok(origin)
}

const fn problem(file: PathBuf, sequence: Option<u64>, what: String) -> Problem {
    Problem {
        file,
        offset: None,
        sequence,
        what,
    }
}
