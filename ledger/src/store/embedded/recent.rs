//! The newest entries, in memory: everything that the index does not have yet, and some more. Whoever asks for an entry
//! right after it was written need not wait for the index.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use gristmill_protocol::identity::AccountId;

use crate::index::{IndexedEntry, Selection};

/// Entries of one batch, in order, at least one.
type Entries = Arc<Vec<IndexedEntry>>;

/// So many entries are kept although the index has them.
const KEPT_ENTRIES: usize = 4_096;
/// No more entries are kept than this, even if the index does not take them; it is brought up from the journal then.
const MOST_ENTRIES: usize = 65_536;

/// The newest entries.
#[derive(Debug)]
pub(super) struct Recent(RwLock<State>);

#[derive(Debug)]
struct State {
    batches: VecDeque<Entries>,
    entries: usize,
    /// What the index has.
    indexed: u64,
    /// The newest entry there is.
    newest: u64,
}

/// What the index needs next.
pub(super) enum NextToIndex {
    /// It has everything.
    Nothing,
    /// These follow what it has.
    Entries(Entries),
    /// What follows is no longer in memory; the newest entry has this sequence.
    InTheJournal {
        /// The newest entry there is.
        newest: u64,
    },
}

impl Recent {
    /// Nothing in memory: the journal ends with `newest`, the index with `indexed`.
    pub(super) const fn new(newest: u64, indexed: u64) -> Self {
        Self(RwLock::new(State {
            batches: VecDeque::new(),
            entries: 0,
            indexed,
            newest,
        }))
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        // Nothing panics while it is locked.
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self) -> RwLockWriteGuard<'_, State> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what was written.
    pub(super) fn add(&self, entries: Entries) {
        let Some(last) = entries.last() else {
            return;
        };
        let mut state = self.change();
        state.newest = last.sequence;
        state.entries += entries.len();
        state.batches.push_back(entries);
        state.forget(MOST_ENTRIES, u64::MAX);
    }

    /// The index has everything up to `sequence` now.
    pub(super) fn indexed(&self, sequence: u64) {
        let mut forgotten = Vec::new();
        let mut state = self.change();
        state.indexed = sequence;
        while let Some(batch) = state.forget_one(KEPT_ENTRIES, sequence) {
            forgotten.push(batch);
        }
        // They are freed when nobody has to wait for that.
        drop(state);
    }

    /// The last entry that the index has.
    pub(super) fn index_end(&self) -> u64 {
        self.state().indexed
    }

    pub(super) fn next_to_index(&self) -> NextToIndex {
        let state = self.state();
        if state.indexed >= state.newest {
            return NextToIndex::Nothing;
        }
        match state
            .place_of(state.indexed + 1)
            .and_then(|place| state.batches.get(place))
        {
            Some(entries) => NextToIndex::Entries(Arc::clone(entries)),
            None => NextToIndex::InTheJournal { newest: state.newest },
        }
    }

    /// The entry with this sequence, if it is in memory.
    pub(super) fn entry(&self, sequence: u64) -> Option<IndexedEntry> {
        let entries = {
            let state = self.state();
            Arc::clone(state.batches.get(state.place_of(sequence)?)?)
        };
        at(&entries, sequence).cloned()
    }

    /// What the index can't say yet about an account: its newest entries up to `last`, the newest first, at most
    /// `limit`, and up to which entry the index has to be asked. `None` where neither has everything.
    pub(super) fn history(
        &self,
        account: &AccountId,
        selection: Selection,
        last: u64,
        limit: usize,
    ) -> Option<(Vec<IndexedEntry>, u64)> {
        let state = self.state();
        let indexed = state.indexed;
        if indexed < state.newest {
            state.place_of(indexed + 1)?;
        }
        let batches: Vec<Entries> = state
            .batches
            .iter()
            .rev()
            .take_while(|batch| batch.last().is_some_and(|entry| entry.sequence > indexed))
            .map(Arc::clone)
            .collect();
        drop(state);
        let concerns = |entry: &&IndexedEntry| {
            entry.sequence > indexed
                && entry.sequence <= last
                && (selection == Selection::All || entry.is_settlement())
                && entry.outcome.parties().contains(account)
        };
        let found = batches
            .iter()
            .flat_map(|batch| batch.iter().rev())
            .filter(concerns);
        Some((found.take(limit).cloned().collect(), indexed))
    }
}

impl State {
    /// The batch with this entry.
    fn place_of(&self, sequence: u64) -> Option<usize> {
        let first = self.batches.front()?.first()?.sequence;
        if sequence < first || sequence > self.newest {
            return None;
        }
        let after = self
            .batches
            .partition_point(|batch| batch.first().is_some_and(|entry| entry.sequence <= sequence));
        after.checked_sub(1)
    }

    fn forget(&mut self, most: usize, up_to: u64) {
        while self.forget_one(most, up_to).is_some() {}
    }

    /// Forgets the oldest batch if there are more than `most` entries and it goes up to `up_to` at most. The newest
    /// batch is always kept.
    fn forget_one(&mut self, most: usize, up_to: u64) -> Option<Entries> {
        let oldest = self.batches.front()?;
        let last = oldest.last()?.sequence;
        if self.entries <= most || last > up_to || self.batches.len() < 2 {
            return None;
        }
        self.entries -= oldest.len();
        self.batches.pop_front()
    }
}

fn at(entries: &[IndexedEntry], sequence: u64) -> Option<&IndexedEntry> {
    let first = entries.first()?.sequence;
    entries.get(usize::try_from(sequence.checked_sub(first)?).ok()?)
}
