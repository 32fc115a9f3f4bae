//! Holding the index against the replay.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Problem, Problems};
use crate::disk::Disk;
use crate::index::{Comparison, IndexedEntry};

/// Whether the index agrees with the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum IndexVerdict {
    /// Every entry in it is as in the journal. It may be behind: the next start brings it up to date.
    Agrees {
        /// How many entries it has.
        entries: u64,
    },
    /// There is none; the next start makes one.
    Absent,
    /// The running coordinator has it open, so it was not compared.
    InUse,
    /// It contradicts the journal or can't be read; see the problems.
    Differs,
}

/// The comparison of an index with a replay that is going on.
pub(super) struct IndexCheck {
    path: PathBuf,
    state: State,
}

enum State {
    Comparing {
        comparison: Box<Comparison>,
        agrees: bool,
    },
    Done(IndexVerdict),
}

impl IndexCheck {
    /// Opens the index for reading, which changes nothing.
    pub(super) fn begin(disk: &dyn Disk, path: &Path, in_use: bool, problems: &mut Problems) -> Self {
        let state = if in_use {
            State::Done(IndexVerdict::InUse)
        } else {
            open(disk, path, problems)
        };
        Self {
            path: path.to_owned(),
            state,
        }
    }

    /// The last record of which the index knows.
    pub(super) fn newest(&self) -> u64 {
        match &self.state {
            State::Comparing { comparison, .. } => comparison.entries(),
            State::Done(_) => 0,
        }
    }

    pub(super) fn compare(&mut self, replayed: &IndexedEntry, problems: &mut Problems) {
        let State::Comparing { comparison, agrees } = &mut self.state else {
            return;
        };
        let what = match comparison.agrees(replayed) {
            Ok(true) => return,
            Ok(false) => "the index says something else about the entry than the journal".to_owned(),
            Err(error) => error.to_string(),
        };
        *agrees = false;
        problems.add(problem(&self.path, Some(replayed.sequence), what));
    }

    pub(super) fn finish(self, last: u64, problems: &mut Problems) -> IndexVerdict {
        match self.state {
            State::Done(verdict) => verdict,
            State::Comparing { comparison, .. } if comparison.entries() > last => {
                let what = format!(
                    "the index has {} entries, of which the journal has {last}: what is missing from the journal had \
                     been synced",
                    comparison.entries()
                );
                problems.add(problem(&self.path, Some(last + 1), what));
                IndexVerdict::Differs
            }
            State::Comparing { agrees: false, .. } => IndexVerdict::Differs,
            State::Comparing { comparison, .. } => IndexVerdict::Agrees {
                entries: comparison.entries(),
            },
        }
    }
}

fn open(disk: &dyn Disk, path: &Path, problems: &mut Problems) -> State {
    let comparison = match Comparison::begin(disk, path) {
        Ok(Some(comparison)) => comparison,
        Ok(None) => return State::Done(IndexVerdict::Absent),
        Err(error) => {
            problems.add(problem(
                path,
                None,
                format!("{error}; the next start rebuilds it"),
            ));
            return State::Done(IndexVerdict::Differs);
        }
    };
    let mut agrees = true;
    if let Some(damage) = comparison.damage() {
        agrees = false;
        problems.add(Problem {
            file: damage.file.clone(),
            offset: Some(damage.offset),
            sequence: Some(comparison.entries() + 1),
            what: "the index is damaged or was not written to its end; the next start rebuilds it from here"
                .into(),
        });
    }
    State::Comparing {
        comparison: Box::new(comparison),
        agrees,
    }
}

fn problem(path: &Path, sequence: Option<u64>, what: String) -> Problem {
    Problem {
        file: path.to_owned(),
        offset: None,
        sequence,
        what,
    }
}
