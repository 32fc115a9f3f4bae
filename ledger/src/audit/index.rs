//! Holding the index against the replay.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Problem, Problems};
use crate::index::{Index, IndexError, IndexedEntry, Selection, SledIndex};

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
        index: SledIndex,
        entries: u64,
        agrees: bool,
        _copy: tempfile::TempDir,
    },
    Done(IndexVerdict),
}

impl IndexCheck {
    /// Opens a copy of the index, because opening it where it is would change it.
    pub(super) fn begin(path: &Path, in_use: bool, problems: &mut Problems) -> Self {
        let state = match (in_use, path.is_dir()) {
            (true, _) => State::Done(IndexVerdict::InUse),
            (false, false) => State::Done(IndexVerdict::Absent),
            (false, true) => open_copy(path).unwrap_or_else(|error| {
                problems.add(problem(
                    path,
                    None,
                    format!("{error}; the next start rebuilds it"),
                ));
                State::Done(IndexVerdict::Differs)
            }),
        };
        Self {
            path: path.to_owned(),
            state,
        }
    }

    pub(super) fn compare(&mut self, replayed: &IndexedEntry, problems: &mut Problems) {
        let State::Comparing {
            index,
            entries,
            agrees,
            ..
        } = &mut self.state
        else {
            return;
        };
        if replayed.sequence > *entries {
            return;
        }
        let what = match difference(index, replayed) {
            Ok(None) => return,
            Ok(Some(what)) => what,
            Err(error) => error.to_string(),
        };
        *agrees = false;
        problems.add(problem(&self.path, Some(replayed.sequence), what));
    }

    pub(super) fn finish(self, last: u64, problems: &mut Problems) -> IndexVerdict {
        match self.state {
            State::Done(verdict) => verdict,
            State::Comparing { entries, .. } if entries > last => {
                let what = format!(
                    "the index has {entries} entries, of which the journal has {last}: what is missing from the \
                     journal had been synced"
                );
                problems.add(problem(&self.path, Some(last + 1), what));
                IndexVerdict::Differs
            }
            State::Comparing { agrees: false, .. } => IndexVerdict::Differs,
            State::Comparing { entries, .. } => IndexVerdict::Agrees { entries },
        }
    }
}

fn open_copy(path: &Path) -> Result<State, IndexError> {
    let copied = tempfile::tempdir().and_then(|copy| copy_folder(path, copy.path()).map(|()| copy));
    let copy = copied.map_err(|error| IndexError::Store(error.to_string()))?;
    let index = SledIndex::open(copy.path())?;
    let entries = index.head()?.map_or(0, |head| head.sequence);
    Ok(State::Comparing {
        index,
        entries,
        agrees: true,
        _copy: copy,
    })
}

fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    for item in fs::read_dir(from)? {
        let item = item?;
        let target = to.join(item.file_name());
        if item.file_type()?.is_dir() {
            fs::create_dir(&target)?;
            copy_folder(&item.path(), &target)?;
        } else {
            fs::copy(item.path(), &target)?;
        }
    }
    Ok(())
}

/// In what the index differs from what the journal says about one entry.
fn difference(index: &SledIndex, replayed: &IndexedEntry) -> Result<Option<String>, IndexError> {
    let sequence = replayed.sequence;
    if index.entry(sequence)?.as_ref() != Some(replayed) {
        return Ok(Some("the index has another entry than the journal".into()));
    }
    if index.sequence_of(&replayed.record_hash)? != Some(sequence) {
        return Ok(Some("the index does not find the entry by its hash".into()));
    }
    for account in replayed.outcome.parties() {
        let listed = |selection| {
            let newest = index.history(&account, selection, Some(sequence.saturating_add(1)), 1)?;
            Ok(newest == [sequence])
        };
        if !listed(Selection::All)? || listed(Selection::Settlements)? != replayed.is_settlement() {
            return Ok(Some(format!(
                "the index does not list the entry for account {account}"
            )));
        }
    }
    Ok(None)
}

fn problem(path: &Path, sequence: Option<u64>, what: String) -> Problem {
    Problem {
        file: path.to_owned(),
        offset: None,
        sequence,
        what,
    }
}
