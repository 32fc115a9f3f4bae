//! The checkpoints that a witness has to check, and the one fetch that is under way for them.

use crate::log::checkpoint::SignedCheckpoint;
use crate::log::witness::{
    FETCH_PATIENCE_MS, OLDER_CHECK_EVERY_MS, RETRY_FIRST_MS, RETRY_MAX_MS, WITHHELD_AFTER_MS,
    WITNESS_PENDING_MAX,
};

/// A checkpoint that waits for being checked.
#[derive(Clone, Debug)]
pub(super) struct PendingNote {
    checkpoint: SignedCheckpoint,
    /// When it was first heard, Unix time in milliseconds.
    pub(super) heard_at_ms: u64,
    failures: u32,
    /// When it could not be checked for the last time, Unix time in milliseconds.
    failed_at_ms: u64,
    told_withheld: bool,
}

impl PendingNote {
    pub(super) const fn size(&self) -> u64 {
        self.checkpoint.size()
    }

    fn is_ready(&self, now_ms: u64) -> bool {
        let Some(doublings) = self.failures.checked_sub(1) else {
            return true;
        };
        let wait_ms = RETRY_MAX_MS.min(RETRY_FIRST_MS << doublings.min(16));
        has_passed(self.failed_at_ms, wait_ms, now_ms)
    }
}

/// What was asked for and has not come yet.
#[derive(Clone, Copy, Debug)]
struct Asked {
    /// The size of the checkpoint that waits for it.
    size: u64,
    from: u64,
    to: u64,
    at_ms: u64,
}

/// All that waits. No two have the same size.
#[derive(Clone, Debug, Default)]
pub(super) struct Pending {
    notes: Vec<PendingNote>,
    asked: Option<Asked>,
    /// When an older checkpoint was last asked for, Unix time in milliseconds.
    older_asked_at_ms: Option<u64>,
}

impl Pending {
    pub(super) fn len(&self) -> usize {
        self.notes.len()
    }

    pub(super) fn checkpoints(&self) -> impl Iterator<Item = &SignedCheckpoint> {
        self.notes.iter().map(|note| &note.checkpoint)
    }

    /// Adds a checkpoint; `false` where it found no place.
    ///
    /// What could not be checked so far is the most suspicious and stays. Of the others the smallest goes first,
    /// since the newer ones bring the witness further.
    pub(super) fn add(&mut self, checkpoint: SignedCheckpoint, now_ms: u64) -> bool {
        let size = checkpoint.size();
        self.notes.push(PendingNote {
            checkpoint,
            heard_at_ms: now_ms,
            failures: 0,
            failed_at_ms: now_ms,
            told_withheld: false,
        });
        if self.notes.len() > WITNESS_PENDING_MAX {
            let under_way = self.asked.map(|asked| asked.size);
            // One at most is under way and at least one never failed, the new one, so this finds one.
            let leaves = self
                .notes
                .iter()
                .filter(|note| note.failures == 0 && Some(note.size()) != under_way)
                .map(PendingNote::size)
                .min();
            self.notes.retain(|note| Some(note.size()) != leaves);
        }
        self.notes.iter().any(|note| note.size() == size)
    }

    /// The checkpoint that waits for what was asked for with these sizes.
    pub(super) fn asked(&self, from: u64, to: u64) -> Option<&SignedCheckpoint> {
        let asked = self.asked.filter(|asked| (asked.from, asked.to) == (from, to))?;
        self.checkpoints()
            .find(|checkpoint| checkpoint.size() == asked.size)
    }

    /// What was asked for came, and its checkpoint is checked.
    pub(super) fn settle(&mut self) {
        if let Some(asked) = self.asked.take() {
            self.notes.retain(|note| note.size() != asked.size);
        }
    }

    /// What was asked for did not come; it is asked for again later.
    pub(super) fn fail(&mut self, now_ms: u64) {
        let Some(asked) = self.asked.take() else { return };
        if let Some(note) = self.notes.iter_mut().find(|note| note.size() == asked.size) {
            note.failures = note.failures.saturating_add(1);
            note.failed_at_ms = now_ms;
        }
    }

    /// Counts what was asked for too long ago as failed.
    pub(super) fn forget_lost_fetch(&mut self, now_ms: u64) {
        if self
            .asked
            .is_some_and(|asked| has_passed(asked.at_ms, FETCH_PATIENCE_MS, now_ms))
        {
            self.fail(now_ms);
        }
    }

    /// The checkpoints that have waited too long, each told once.
    pub(super) fn withheld(&mut self, now_ms: u64) -> Vec<PendingNote> {
        let late = |note: &&mut PendingNote| {
            !note.told_withheld && now_ms.saturating_sub(note.heard_at_ms) >= WITHHELD_AFTER_MS
        };
        self.notes
            .iter_mut()
            .filter(late)
            .map(|note| {
                note.told_withheld = true;
                note.clone()
            })
            .collect()
    }

    /// What to ask for next to check one of these against the one kept: the largest whose time has come. Older ones
    /// can be repeated by anybody who collected them, so they are not asked for at any rate.
    pub(super) fn ask(&mut self, latest: u64, now_ms: u64) -> Option<(u64, u64)> {
        if self.asked.is_some() {
            return None;
        }
        let ready = self.notes.iter().filter(|note| note.is_ready(now_ms));
        let size = ready.map(PendingNote::size).max()?;
        if size < latest {
            let rested = |at_ms| has_passed(at_ms, OLDER_CHECK_EVERY_MS, now_ms);
            if !self.older_asked_at_ms.is_none_or(rested) {
                return None;
            }
            self.older_asked_at_ms = Some(now_ms);
        }
        let (from, to) = (size.min(latest), size.max(latest));
        self.asked = Some(Asked {
            size,
            from,
            to,
            at_ms: now_ms,
        });
        Some((from, to))
    }
}

/// Whether so much time has passed since then. A clock that was set back by as much counts as well, so that nothing
/// waits for a time that was never right.
fn has_passed(since_ms: u64, period_ms: u64, now_ms: u64) -> bool {
    now_ms.abs_diff(since_ms) >= period_ms
}
