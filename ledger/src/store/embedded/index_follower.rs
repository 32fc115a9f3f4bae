//! The thread that brings the index up to the journal, off the way of whoever posts.
//!
//! Usually it finds what is missing in memory. An index that is further behind (one that was lost, or could not be
//! written for long) is brought up by replaying the journal, from a snapshot if there is one. An index that can't be
//! written is tried again: a full disk is a passing thing.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::index_file::APPENDED_AT_ONCE;
use super::recent::NextToIndex;
use super::replay::{FeedError, Replay, ReplayError};
use super::shared::IndexState;
use super::{OpenError, Shared};
use crate::index::{IndexError, IndexedEntry};

const APPENDED_AT_ONCE_WIDE: u64 = APPENDED_AT_ONCE as u64;
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_LATEST: Duration = Duration::from_secs(10);

/// How the follower is woken.
#[derive(Debug, Default)]
pub(super) struct FollowerSignal {
    state: Mutex<Signals>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Signals {
    is_new: bool,
    is_last: bool,
    waits: bool,
}

impl FollowerSignal {
    /// Something was written.
    pub(super) fn notify(&self) {
        self.set(|signals| signals.is_new = true);
    }

    /// The index shall be brought up once more and then be closed.
    fn end(&self) {
        self.set(|signals| signals.is_last = true);
    }

    fn set(&self, change: impl FnOnce(&mut Signals)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        if state.waits {
            self.changed.notify_one();
        }
    }

    fn is_last(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).is_last
    }

    /// Waits for something new, for at most `timeout` if given. True where it is the last time.
    fn wait(&self, timeout: Option<Duration>) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.is_new && !state.is_last {
            state.waits = true;
            state = match timeout {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(timeout) => {
                    let waited = self.changed.wait_timeout(state, timeout);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
            state.waits = false;
        }
        state.is_new = false;
        state.is_last
    }
}

/// The handle of the thread.
pub(super) struct IndexFollower {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

impl IndexFollower {
    pub(super) fn spawn(shared: &Arc<Shared>) -> Result<Self, OpenError> {
        let for_thread = Arc::clone(shared);
        let thread = std::thread::Builder::new()
            .name("ledger-index".into())
            .spawn(move || run(&for_thread))
            .map_err(OpenError::Thread)?;
        Ok(Self {
            shared: Arc::clone(shared),
            thread,
        })
    }

    /// Lets it bring the index up to date, and closes the index.
    pub(super) fn finish(self) {
        self.shared.follower.end();
        if self.thread.join().is_err() {
            tracing::error!(
                "the thread that keeps the ledger's index panicked; the next start brings it up to date"
            );
        }
        self.shared.close_index();
    }
}

fn run(shared: &Shared) {
    let mut retry = None;
    loop {
        let is_last = shared.follower.wait(retry);
        match bring_up(shared) {
            Ok(()) => {
                if retry.take().is_some() {
                    tracing::info!("the ledger's index is up to date again");
                }
                shared.set_index_problem(None);
            }
            Err(error) => {
                let reason = error.to_string();
                if retry.is_none() {
                    tracing::warn!(
                        reason,
                        "the ledger's index can't be kept up to date; trying again"
                    );
                }
                shared.set_index_problem(Some(reason));
                retry = Some(retry.map_or(RETRY_FIRST, |waited| RETRY_LATEST.min(waited * 2)));
            }
        }
        if is_last {
            return;
        }
    }
}

/// Brings the index up to the newest entry.
fn bring_up(shared: &Shared) -> Result<(), FeedError> {
    shared.mend_index()?;
    loop {
        match shared.recent.next_to_index() {
            NextToIndex::Nothing => return Ok(()),
            NextToIndex::Entries(entries) => {
                let indexed = shared.recent.index_end();
                let missing = entries.partition_point(|entry| entry.sequence <= indexed);
                shared.append_to_index(entries.get(missing..).unwrap_or_default())?;
            }
            // At the end nobody waits for that; the next start goes on.
            NextToIndex::InTheJournal { .. } if shared.follower.is_last() => return Ok(()),
            NextToIndex::InTheJournal { newest } => bring_up_from_the_journal(shared, newest)?,
        }
    }
}

fn bring_up_from_the_journal(shared: &Shared, newest: u64) -> Result<(), FeedError> {
    let indexed = shared.recent.index_end();
    tracing::info!(
        from = indexed + 1,
        to = newest,
        "bringing the ledger's index up from the journal"
    );
    let mut replay = Replay::from_snapshot(&shared.source, indexed);
    // Its own reader, so that it does not disturb others who read in a row.
    let records = shared.own_reader();
    let mut waiting = Vec::new();
    while replay.next_sequence() <= newest && !shared.follower.is_last() {
        let (first, place) = (replay.next_sequence(), replay.place());
        let last = newest.min(first + APPENDED_AT_ONCE_WIDE - 1);
        records.read(
            first,
            last,
            || Some(place),
            |location, record| {
                let entry = replay.apply(location, record)?;
                if entry.sequence > indexed {
                    waiting.push(entry);
                }
                Ok::<_, ReplayError>(())
            },
        )?;
        shared.append_to_index(&waiting)?;
        waiting.clear();
    }
    Ok(())
}

impl Shared {
    /// Opens an index again that can't be used; one that is damaged throughout is made anew.
    fn mend_index(&self) -> Result<(), IndexError> {
        let mut state = self.index.write().unwrap_or_else(PoisonError::into_inner);
        let IndexState::Unusable(reason) = &*state else {
            return Ok(());
        };
        let (index, end) = match self.index_file.open() {
            Ok((index, Some(head))) if !self.index_file.contradicts_journal(head) => (index, head.sequence),
            Ok((index, None)) => (index, 0),
            Err(error @ (IndexError::InUse | IndexError::Store(_))) => return Err(error),
            Ok(_) | Err(IndexError::Damaged(_)) => (self.index_file.make_anew(reason)?, 0),
        };
        *state = IndexState::Open(index);
        self.recent.indexed(end);
        Ok(())
    }

    /// Adds entries to the index, which has those before them.
    fn append_to_index(&self, entries: &[IndexedEntry]) -> Result<(), IndexError> {
        let Some(last) = entries.last().map(|entry| entry.sequence) else {
            return Ok(());
        };
        let state = self.index.read().unwrap_or_else(PoisonError::into_inner);
        match &*state {
            IndexState::Open(index) => index.append(entries)?,
            IndexState::Unusable(reason) => return Err(IndexError::Damaged(reason.clone())),
            IndexState::Closed => return Err(IndexError::Store("the index is closed".into())),
        }
        // Still locked, so that nobody gives the index up in between.
        self.recent.indexed(last);
        Ok(())
    }
}
