//! The threads beside the writer: they follow what was written and hold nobody up.

use std::sync::Arc;

use super::index_follower::IndexFollower;
use super::snapshot_keeper::SnapshotKeeper;
use super::{OpenError, Shared};

/// The handles of the threads.
pub(super) struct Background {
    index: IndexFollower,
    snapshots: SnapshotKeeper,
}

impl Background {
    pub(super) fn spawn(shared: &Arc<Shared>) -> Result<Self, OpenError> {
        Ok(Self {
            index: IndexFollower::spawn(shared)?,
            snapshots: SnapshotKeeper::spawn(shared)?,
        })
    }

    /// Ends them. The index is brought up to date; a snapshot that is being made is given up.
    pub(super) fn finish(self) {
        self.snapshots.finish();
        self.index.finish();
    }
}
