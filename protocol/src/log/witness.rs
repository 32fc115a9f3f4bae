//! Watching one log: what a node or client does with the checkpoints it hears, as a state machine of
//! `(event, now) -> effects`.
//!
//! A witness keeps the newest checkpoint that it knows to be consistent with all it accepted before, and never goes
//! back. A newer one is accepted after the log showed how it goes on from the one kept. An older one that is not
//! known is held against the one kept in the same way, so that a log which shows different people different histories
//! is caught as soon as its checkpoints meet, whatever their sizes. Memory is bounded: [`WITNESS_PENDING_MAX`]
//! checkpoints to check and [`WITNESS_RECENT_MAX`] checked ones.

mod pending;

use std::collections::VecDeque;

use thiserror::Error;

use crate::handover::{HandoverError, SignedHandover};
use crate::identity::AccountId;
use crate::log::checkpoint::{CheckpointError, LogKeys, SignedCheckpoint};
use crate::log::evidence::{Evidence, EvidenceError, Lie};
use crate::log::extension::Extension;
use crate::log::hash::empty_root;
use crate::log::note::SignedNote;
use crate::log::witness::pending::{Pending, PendingNote};

/// Most checkpoints that wait for being checked.
pub const WITNESS_PENDING_MAX: usize = 8;
/// Most checked checkpoints that are remembered, the newest ones.
pub const WITNESS_RECENT_MAX: usize = 64;
/// How long a log may fail to show how a checkpoint goes on before the witness says so, in milliseconds.
pub const WITHHELD_AFTER_MS: u64 = 60_000;
/// How long the witness waits for what it asked for before it counts that as failed, in milliseconds.
pub const FETCH_PATIENCE_MS: u64 = 30_000;
/// How long the witness waits after a first failure before it asks again, in milliseconds; doubled with each.
pub const RETRY_FIRST_MS: u64 = 1_000;
/// How long it waits at most, in milliseconds.
pub const RETRY_MAX_MS: u64 = 30_000;

/// How long the witness waits between two checks of checkpoints older than the one kept, in milliseconds.
pub const OLDER_CHECK_EVERY_MS: u64 = 250;

/// What happens to a witness.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A note was heard, from the log itself or from anybody.
    HeardNote(SignedNote),
    /// Evidence was heard from anybody, or kept from an earlier run.
    HeardEvidence(Evidence),
    /// What [`Effect::FetchExtension`] asked for is there.
    Extended(Extension),
    /// What [`Effect::FetchExtension`] asked for can't be had for now.
    FetchFailed {
        /// The size of the smaller tree.
        from: u64,
        /// The size of the larger tree.
        to: u64,
    },
    /// Time has passed. Once a second is often enough.
    Tick,
}

/// What a driver does for a witness, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing came of the event.
    Ignore(IgnoreReason),
    /// Fetch the tiles of the tree of `to` leaves
    /// ([`tiles_for_consistency`](crate::log::proof::tiles_for_consistency)), and answer with [`Event::Extended`] or
    /// [`Event::FetchFailed`]. Never more than one at a time.
    FetchExtension {
        /// The size of the smaller tree.
        from: u64,
        /// The size of the larger tree.
        to: u64,
    },
    /// Keep this as the newest checkpoint, durably, before the next effect.
    Persist(SignedCheckpoint),
    /// This checkpoint is the newest consistent one now.
    Accepted {
        /// The checkpoint.
        checkpoint: SignedCheckpoint,
        /// Whether this witness may cosign it: not once the log was caught lying.
        cosign: bool,
    },
    /// The log lied. Keep the evidence, tell everybody.
    Alarm(Box<Evidence>, Lie),
    /// The log has not shown for long how a checkpoint that it signed fits the one kept. That proves no lie, but an
    /// honest log that can be reached does not do it.
    Withheld {
        /// The size of that checkpoint.
        size: u64,
        /// Since when it could not be checked, Unix time in milliseconds.
        since_ms: u64,
    },
}

/// Why nothing came of an event.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum IgnoreReason {
    /// The note is not a checkpoint of this log; who sent it is mistaken or lies.
    #[error(transparent)]
    NotOfLog(#[from] CheckpointError),
    /// The evidence convicts nobody; who sent it is mistaken or lies.
    #[error(transparent)]
    NoEvidence(#[from] EvidenceError),
    /// The checkpoint is known.
    #[error("the checkpoint is known")]
    Known,
    /// The checkpoint is older than the one kept, and the one kept goes on from it.
    #[error("the checkpoint is older than the one that is kept, and fits it")]
    OlderAndConsistent,
    /// The checkpoint waits for being checked.
    #[error("the checkpoint waits for being checked")]
    Waits,
    /// Too many checkpoints wait for being checked.
    #[error("too many checkpoints wait for being checked")]
    TooMany,
    /// The log was caught lying before.
    #[error("the log was caught lying before")]
    CaughtBefore,
    /// What came was not asked for, or no longer.
    #[error("it was not asked for, or no longer")]
    NotAsked,
    /// What came does not lead to the root that the log signed.
    #[error("the hashes do not lead to the root that the log signed")]
    WrongHashes,
    /// It could not be had for now.
    #[error("what was asked for could not be had; it is asked for again later")]
    Failed,
}

/// The state of watching one log.
#[derive(Clone, Debug)]
pub struct Witness {
    keys: LogKeys,
    latest: Option<SignedCheckpoint>,
    /// Checked checkpoints up to the latest one, oldest first.
    recent: VecDeque<SignedCheckpoint>,
    pending: Pending,
    caught: Option<Lie>,
}

impl Witness {
    /// Watches the log of these keys, from the newest checkpoint that was kept before.
    #[must_use]
    pub fn new(keys: LogKeys, latest: Option<SignedCheckpoint>) -> Self {
        let latest = latest.map(|checkpoint| checkpoint.without_cosignatures(&keys));
        let recent = latest.iter().cloned().collect();
        Self {
            keys,
            latest,
            recent,
            pending: Pending::default(),
            caught: None,
        }
    }

    /// The keys of the log.
    #[must_use]
    pub const fn keys(&self) -> &LogKeys {
        &self.keys
    }

    /// The newest consistent checkpoint, with the log's signature alone.
    #[must_use]
    pub const fn latest(&self) -> Option<&SignedCheckpoint> {
        self.latest.as_ref()
    }

    /// How the log was caught, if it was.
    #[must_use]
    pub const fn caught(&self) -> Option<&Lie> {
        self.caught.as_ref()
    }

    /// How many checkpoints wait for being checked.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Takes a key that is known to sign for the log from now on. Prefer [`Witness::follow`].
    pub fn add_key(&mut self, account: AccountId) {
        self.keys.add_key(account);
    }

    /// Takes the key that the log was handed over to.
    ///
    /// # Errors
    /// [`HandoverError`] where the hand-over does not count.
    pub fn follow(&mut self, handover: &SignedHandover) -> Result<(), HandoverError> {
        self.keys.follow(handover)
    }

    /// What to do about an event at `now_ms`, Unix time in milliseconds. Time that goes back is harmless.
    #[must_use = "the effects are told once"]
    pub fn handle(&mut self, event: Event, now_ms: u64) -> Vec<Effect> {
        let mut effects = match event {
            Event::HeardNote(note) => self.heard_note(note, now_ms),
            Event::HeardEvidence(evidence) => self.heard_evidence(evidence),
            Event::Extended(extension) => self.extended(extension, now_ms),
            Event::FetchFailed { from, to } => self.fetch_failed(from, to, now_ms),
            Event::Tick => Vec::new(),
        };
        self.pending.forget_lost_fetch(now_ms);
        effects.extend(self.withheld(now_ms));
        effects.extend(self.next_fetch(now_ms));
        effects
    }

    fn heard_note(&mut self, note: SignedNote, now_ms: u64) -> Vec<Effect> {
        let heard = match SignedCheckpoint::open(note, &self.keys) {
            Ok(checkpoint) => checkpoint,
            Err(error) => return ignore(error.into()),
        };
        if let Some(other) = self.with_other_root(&heard) {
            let evidence = Evidence::two_roots(&self.keys, other, &heard);
            return self.alarm(evidence);
        }
        if self.recent.iter().any(|known| known.size() == heard.size()) {
            return ignore(IgnoreReason::Known);
        }
        if self
            .pending
            .checkpoints()
            .any(|known| known.size() == heard.size())
        {
            return ignore(IgnoreReason::Waits);
        }
        // Whatever the empty tree is followed by is consistent with it, so the first one needs no proof.
        let nothing_known = self.latest.as_ref().is_none_or(|latest| latest.size() == 0);
        if nothing_known && (heard.size() > 0 || *heard.root() == empty_root()) {
            return self.accept(&heard);
        }
        let heard = heard.without_cosignatures(&self.keys);
        match self.pending.add(heard, now_ms) {
            true => Vec::new(),
            false => ignore(IgnoreReason::TooMany),
        }
    }

    /// A checkpoint of the same size and another root.
    fn with_other_root(&self, heard: &SignedCheckpoint) -> Option<&SignedCheckpoint> {
        let mut known = self.recent.iter().chain(self.pending.checkpoints());
        known.find(|known| known.size() == heard.size() && known.root() != heard.root())
    }

    fn heard_evidence(&mut self, evidence: Evidence) -> Vec<Effect> {
        match evidence.verify(&self.keys) {
            Ok(_) => self.alarm(evidence),
            Err(error) => ignore(error.into()),
        }
    }

    fn extended(&mut self, extension: Extension, now_ms: u64) -> Vec<Effect> {
        let (from, to) = (extension.old_size, extension.new_size);
        let Some(pending) = self.pending.asked(from, to).cloned() else {
            return ignore(IgnoreReason::NotAsked);
        };
        let Some(latest) = self.latest.clone() else {
            return ignore(IgnoreReason::NotAsked);
        };
        let is_newer = pending.size() > latest.size();
        let (old, new) = if is_newer {
            (&latest, &pending)
        } else {
            (&pending, &latest)
        };
        match extension.roots() {
            Ok(roots) if roots.new == *new.root() => {
                self.pending.settle();
                if roots.old != *old.root() {
                    let evidence = Evidence::not_an_extension(&self.keys, old, new, extension);
                    return self.alarm(evidence);
                }
                match is_newer {
                    true => self.accept(&pending),
                    false => {
                        self.remember(pending);
                        ignore(IgnoreReason::OlderAndConsistent)
                    }
                }
            }
            // Anybody could have made these hashes up, so they prove nothing.
            Ok(_) | Err(_) => {
                self.pending.fail(now_ms);
                ignore(IgnoreReason::WrongHashes)
            }
        }
    }

    fn fetch_failed(&mut self, from: u64, to: u64, now_ms: u64) -> Vec<Effect> {
        if self.pending.asked(from, to).is_none() {
            return ignore(IgnoreReason::NotAsked);
        }
        self.pending.fail(now_ms);
        ignore(IgnoreReason::Failed)
    }

    fn accept(&mut self, checkpoint: &SignedCheckpoint) -> Vec<Effect> {
        let kept = checkpoint.without_cosignatures(&self.keys);
        self.latest = Some(kept.clone());
        self.remember(kept.clone());
        let cosign = self.caught.is_none();
        vec![
            Effect::Persist(kept),
            Effect::Accepted {
                checkpoint: checkpoint.clone(),
                cosign,
            },
        ]
    }

    /// Remembers a checked checkpoint; beyond the bound, the smallest one is forgotten.
    fn remember(&mut self, checkpoint: SignedCheckpoint) {
        let place = self
            .recent
            .partition_point(|known| known.size() < checkpoint.size());
        self.recent.insert(place, checkpoint);
        if self.recent.len() > WITNESS_RECENT_MAX {
            self.recent.pop_front();
        }
    }

    /// The first alarm; what is found later adds nothing. It is judged once more as everybody else will judge it.
    fn alarm(&mut self, evidence: Evidence) -> Vec<Effect> {
        if self.caught.is_some() {
            return ignore(IgnoreReason::CaughtBefore);
        }
        match evidence.verify(&self.keys) {
            Ok(lie) => {
                self.caught = Some(lie);
                vec![Effect::Alarm(Box::new(evidence), lie)]
            }
            Err(error) => ignore(error.into()),
        }
    }

    fn withheld(&mut self, now_ms: u64) -> Vec<Effect> {
        let told = |pending: PendingNote| Effect::Withheld {
            size: pending.size(),
            since_ms: pending.heard_at_ms,
        };
        self.pending.withheld(now_ms).into_iter().map(told).collect()
    }

    fn next_fetch(&mut self, now_ms: u64) -> Option<Effect> {
        let latest = self.latest.as_ref()?.size();
        let (from, to) = self.pending.ask(latest, now_ms)?;
        Some(Effect::FetchExtension { from, to })
    }
}

fn ignore(reason: IgnoreReason) -> Vec<Effect> {
    vec![Effect::Ignore(reason)]
}

#[cfg(test)]
mod tests;
