//! The checkpoints of the last seconds: the newest is what everybody is shown, and those before it are kept because
//! witnesses need a moment to cosign them.

use std::collections::BTreeMap;
use std::sync::Arc;

use gristmill_protocol::log::checkpoint::SignedCheckpoint;

/// Most checkpoints that are kept: with one every 200 ms, those of the last 25 seconds.
const RECENT_MAX: usize = 128;

/// The newest checkpoints by size.
#[derive(Debug, Default)]
pub(super) struct RecentCheckpoints {
    by_size: BTreeMap<u64, Arc<SignedCheckpoint>>,
}

impl RecentCheckpoints {
    pub(super) fn newest(&self) -> Option<Arc<SignedCheckpoint>> {
        self.by_size
            .last_key_value()
            .map(|(_, checkpoint)| Arc::clone(checkpoint))
    }

    pub(super) fn of_size(&self, size: u64) -> Option<Arc<SignedCheckpoint>> {
        self.by_size.get(&size).map(Arc::clone)
    }

    /// The one with the most signatures among those that cover a record; of several, the newest.
    pub(super) fn best_for(&self, sequence: u64) -> Option<Arc<SignedCheckpoint>> {
        let covering = self.by_size.range(sequence..).map(|(_, checkpoint)| checkpoint);
        covering
            .max_by_key(|checkpoint| checkpoint.note().signatures().len())
            .map(Arc::clone)
    }

    /// Keeps a checkpoint, in place of the one of the same size, unless that has more signatures.
    pub(super) fn insert(&mut self, checkpoint: SignedCheckpoint) {
        let signatures = |checkpoint: &SignedCheckpoint| checkpoint.note().signatures().len();
        let size = checkpoint.size();
        let there = self.by_size.get(&size);
        if there.is_none_or(|there| signatures(there) <= signatures(&checkpoint)) {
            self.by_size.insert(size, Arc::new(checkpoint));
        }
        while self.by_size.len() > RECENT_MAX {
            self.by_size.pop_first();
        }
    }
}
