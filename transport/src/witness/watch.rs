//! What a node or client does about one log, as a state machine of `(input, now, random) -> actions`: when it looks at
//! the log, which of the checkpoints that it hears it has proved, when it cosigns, and which receipts it checks. What
//! is consistent is decided by [`Witness`].

use gristmill_protocol::identity::AccountId;
use gristmill_protocol::log::checkpoint::{CheckpointError, LogKeys, SignedCheckpoint};
use gristmill_protocol::log::evidence::{Evidence, Lie};
use gristmill_protocol::log::extension::Extension;
use gristmill_protocol::log::note::{NoteError, SignedNote};
use gristmill_protocol::log::witness::{Effect, Event, IgnoreReason, Witness};

use super::receipts::{OwnReceipt, ProvedReceipt, ReceiptFound, Receipts};
use super::waiting::Waiting;

/// How long this waits for what the coordinator shows before it looks again, in milliseconds.
const POLL_PATIENCE_MS: u64 = 60_000;
/// Of this many thousandths of the interval, the time between two looks is shorter or longer at random.
const JITTER_THOUSANDTHS: u64 = 200;
/// So many checkpoints may wait in [`Witness`] while older ones are handed to it: it must have room for new ones.
const PENDING_BEFORE_OLDER: usize = 4;

/// What happens.
#[derive(Clone, Debug)]
pub(super) enum Input {
    /// A peer told of a checkpoint that the log signed.
    Heard {
        checkpoint: SignedCheckpoint,
        from: AccountId,
    },
    /// Evidence was heard, or was kept from an earlier run.
    HeardEvidence(Box<Evidence>),
    /// What the coordinator showed as its newest checkpoint; `None` where it did not show one.
    Polled(Option<SignedNote>),
    /// What [`Action::Fetch`] asked for.
    Extended(Extension),
    /// It could not be had.
    FetchFailed { from: u64, to: u64 },
    /// Receipts to be proved.
    Receipts(Vec<OwnReceipt>),
    /// What [`Action::Check`] found.
    Checked(Vec<(u64, ReceiptFound)>),
    /// The log's keys, after a hand-over.
    Keys(LogKeys),
    /// Time has passed.
    Tick,
}

/// What to do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Ask the coordinator for its newest checkpoint.
    Poll,
    /// Fetch how the tree of `from` leaves goes on to that of `to`.
    Fetch { from: u64, to: u64 },
    /// Tiles that were fetched are not those of the log: forget them.
    ForgetTiles,
    /// Ask the coordinator for its keys.
    AskForKeys,
    /// Keep the checkpoint on disk before the next action.
    Keep(SignedCheckpoint),
    /// Tell peers that this is the newest checkpoint here.
    Announce(SignedCheckpoint),
    /// Offer a cosignature.
    Cosign(SignedCheckpoint),
    /// The log lied.
    Alarm(Box<Evidence>, Lie),
    /// The log does not show how this checkpoint goes on.
    Withheld { size: u64, since_ms: u64 },
    /// Hold receipts against the tree of this checkpoint.
    Check {
        checkpoint: SignedCheckpoint,
        receipts: Vec<OwnReceipt>,
    },
    /// Keep these proofs.
    Proved(Vec<ProvedReceipt>),
    /// The log has lacked the records of these receipts for too long.
    Missing(Vec<u64>),
}

/// How often things are done, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pace {
    /// Between two looks at the log, on average.
    pub(super) poll_ms: u64,
    /// Between two cosignatures; `None`: none are made.
    pub(super) cosign_ms: Option<u64>,
}

/// A log that is watched.
#[derive(Debug)]
pub(super) struct Watch {
    witness: Witness,
    waiting: Waiting,
    receipts: Receipts,
    pace: Pace,
    next_poll_ms: u64,
    polling_since_ms: Option<u64>,
    polled_at_ms: Option<u64>,
    to_cosign: Option<SignedCheckpoint>,
    cosigned_at_ms: Option<u64>,
    withheld: Option<(u64, u64)>,
}

impl Watch {
    /// Watches the log of these keys, from the checkpoint that was kept before. Looks at it at once.
    pub(super) fn new(keys: LogKeys, kept: Option<SignedCheckpoint>, pace: Pace) -> Self {
        Self {
            witness: Witness::new(keys, kept),
            waiting: Waiting::default(),
            receipts: Receipts::default(),
            pace,
            next_poll_ms: 0,
            polling_since_ms: None,
            polled_at_ms: None,
            to_cosign: None,
            cosigned_at_ms: None,
            withheld: None,
        }
    }

    /// The keys of the log.
    pub(super) const fn keys(&self) -> &LogKeys {
        self.witness.keys()
    }

    /// The newest consistent checkpoint.
    pub(super) const fn latest(&self) -> Option<&SignedCheckpoint> {
        self.witness.latest()
    }

    /// Whether the log was caught lying.
    pub(super) const fn caught(&self) -> bool {
        self.witness.caught().is_some()
    }

    /// When the coordinator last showed a checkpoint, Unix milliseconds.
    pub(super) const fn polled_at_ms(&self) -> Option<u64> {
        self.polled_at_ms
    }

    /// The size that the log does not show how it goes on from or to, and since when, Unix milliseconds.
    pub(super) const fn withheld(&self) -> Option<(u64, u64)> {
        self.withheld
    }

    /// The receipts.
    pub(super) const fn receipts(&self) -> &Receipts {
        &self.receipts
    }

    /// What to do about an input at `now_ms`, Unix time in milliseconds, with a random number.
    #[must_use = "the actions are told once"]
    pub(super) fn handle(&mut self, input: Input, now_ms: u64, random: u64) -> Vec<Action> {
        let mut actions = match input {
            Input::Heard { checkpoint, from } => self.heard(checkpoint, from, now_ms, random),
            Input::HeardEvidence(evidence) => self.witness(Event::HeardEvidence(*evidence), now_ms),
            Input::Polled(shown) => self.polled(shown, now_ms, random),
            Input::Extended(extension) => self.witness(Event::Extended(extension), now_ms),
            Input::FetchFailed { from, to } => self.witness(Event::FetchFailed { from, to }, now_ms),
            Input::Receipts(receipts) => {
                receipts
                    .into_iter()
                    .for_each(|receipt| self.receipts.add(receipt));
                Vec::new()
            }
            Input::Checked(found) => self.checked(found, now_ms),
            Input::Keys(keys) => {
                for key in keys.keys() {
                    self.witness.add_key(*key.account());
                }
                Vec::new()
            }
            Input::Tick => self.witness(Event::Tick, now_ms),
        };
        self.hand_in_older(now_ms, &mut actions);
        self.forget_withheld();
        self.poll(now_ms, &mut actions);
        self.cosign(now_ms, &mut actions);
        self.check(now_ms, &mut actions);
        actions
    }

    fn latest_size(&self) -> u64 {
        self.latest().map_or(0, SignedCheckpoint::size)
    }

    fn heard(
        &mut self,
        checkpoint: SignedCheckpoint,
        from: AccountId,
        now_ms: u64,
        random: u64,
    ) -> Vec<Action> {
        if checkpoint.size() <= self.latest_size() {
            return self.witness(Event::HeardNote(checkpoint.into_note()), now_ms);
        }
        let contradicting = self.waiting.add(from, checkpoint, random);
        contradicting
            .into_iter()
            .flat_map(|checkpoint| self.witness(Event::HeardNote(checkpoint.into_note()), now_ms))
            .collect()
    }

    fn polled(&mut self, shown: Option<SignedNote>, now_ms: u64, random: u64) -> Vec<Action> {
        self.polling_since_ms = None;
        self.next_poll_ms = now_ms.saturating_add(with_jitter(self.pace.poll_ms, random));
        let mut actions = Vec::new();
        let mut shown_size = 0;
        match shown.map(|note| SignedCheckpoint::open(note, self.witness.keys())) {
            Some(Ok(checkpoint)) => {
                shown_size = checkpoint.size();
                self.polled_at_ms = Some(now_ms);
                let missing = self.receipts.shown(shown_size, now_ms);
                actions.extend(self.witness(Event::HeardNote(checkpoint.into_note()), now_ms));
                if !missing.is_empty() {
                    actions.push(Action::Missing(missing));
                }
            }
            Some(Err(error)) => {
                self.receipts.not_shown();
                tracing::debug!(%error, "what the coordinator shows is no checkpoint of its log");
                if matches!(error, CheckpointError::Note(NoteError::NotSigned(_))) {
                    actions.push(Action::AskForKeys);
                }
            }
            None => self.receipts.not_shown(),
        }
        // What others say the log has by now is to be proved as well.
        let known = self.latest_size().max(shown_size);
        if let Some(newest) = self.waiting.take_newest(known) {
            actions.extend(self.witness(Event::HeardNote(newest.into_note()), now_ms));
        }
        actions
    }

    fn witness(&mut self, event: Event, now_ms: u64) -> Vec<Action> {
        let mut actions = Vec::new();
        for effect in self.witness.handle(event, now_ms) {
            match effect {
                Effect::Ignore(IgnoreReason::WrongHashes) => actions.push(Action::ForgetTiles),
                Effect::Ignore(_) => {}
                Effect::FetchExtension { from, to } => actions.push(Action::Fetch { from, to }),
                Effect::Persist(checkpoint) => actions.push(Action::Keep(checkpoint)),
                Effect::Accepted { checkpoint, cosign } => {
                    let checkpoint = checkpoint.without_cosignatures(self.witness.keys());
                    self.to_cosign = cosign.then(|| checkpoint.clone());
                    actions.push(Action::Announce(checkpoint));
                }
                Effect::Alarm(evidence, lie) => {
                    self.to_cosign = None;
                    actions.push(Action::Alarm(evidence, lie));
                }
                Effect::Withheld { size, since_ms } => {
                    self.withheld = Some((size, since_ms));
                    actions.push(Action::Withheld { size, since_ms });
                }
            }
        }
        actions
    }

    fn checked(&mut self, found: Vec<(u64, ReceiptFound)>, now_ms: u64) -> Vec<Action> {
        let some_unknown = found
            .iter()
            .any(|(_, found)| matches!(found, ReceiptFound::Unknown));
        let (proved, evidence) = self.receipts.checked(found, now_ms);
        let mut actions = Vec::new();
        if some_unknown {
            actions.push(Action::ForgetTiles);
        }
        if !proved.is_empty() {
            actions.push(Action::Proved(proved));
        }
        for evidence in evidence {
            actions.extend(self.witness(Event::HeardEvidence(evidence), now_ms));
        }
        actions
    }

    /// What waited and turned out to be older is held against the one kept, a few at a time.
    fn hand_in_older(&mut self, now_ms: u64, actions: &mut Vec<Action>) {
        while self.witness.pending() < PENDING_BEFORE_OLDER {
            let Some(older) = self.waiting.take_older(self.latest_size()) else {
                return;
            };
            actions.extend(self.witness(Event::HeardNote(older.into_note()), now_ms));
        }
    }

    fn forget_withheld(&mut self) {
        if self.witness.pending() == 0 {
            self.withheld = None;
        }
    }

    fn poll(&mut self, now_ms: u64, actions: &mut Vec<Action>) {
        // A clock that was set back must not keep this from looking.
        let waits = |since_ms| {
            now_ms
                .checked_sub(since_ms)
                .is_some_and(|waited_ms| waited_ms < POLL_PATIENCE_MS)
        };
        if self.polling_since_ms.is_some_and(waits) {
            return;
        }
        let too_far = now_ms.saturating_add(2 * self.pace.poll_ms);
        if now_ms >= self.next_poll_ms || self.next_poll_ms > too_far {
            self.polling_since_ms = Some(now_ms);
            actions.push(Action::Poll);
        }
    }

    fn cosign(&mut self, now_ms: u64, actions: &mut Vec<Action>) {
        let Some(every_ms) = self.pace.cosign_ms else {
            return;
        };
        let rested = |at_ms| now_ms.checked_sub(at_ms).is_none_or(|passed| passed >= every_ms);
        if self.cosigned_at_ms.is_none_or(rested)
            && let Some(checkpoint) = self.to_cosign.take()
        {
            self.cosigned_at_ms = Some(now_ms);
            actions.push(Action::Cosign(checkpoint));
        }
    }

    fn check(&mut self, now_ms: u64, actions: &mut Vec<Action>) {
        let Some(checkpoint) = self.witness.latest().cloned() else {
            return;
        };
        let receipts = self.receipts.next_check(&checkpoint, now_ms);
        if !receipts.is_empty() {
            actions.push(Action::Check { checkpoint, receipts });
        }
    }
}

/// A time around this one, so that peers do not ask all at once.
fn with_jitter(time_ms: u64, random: u64) -> u64 {
    let span = time_ms * JITTER_THOUSANDTHS / 1_000;
    time_ms - span + random % (2 * span + 1)
}

#[cfg(test)]
mod tests;
