//! Checkpoints on gossip: what travels on `/gristmill/checkpoints/1`, and what a peer makes of it.
//!
//! A peer takes part for the logs that it watches ([`Mesh::watch_log`](super::Mesh::watch_log)). It forwards what is
//! signed by such a log and new, and evidence that holds; what nobody honest can have sent costs its sender score.

use std::collections::{BTreeMap, BTreeSet};

use bincode::{Decode, Encode};
use gristmill_protocol::codec::{self, CONTROL_FRAME_MAX_BYTES, DecodeError};
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::jws::TokenError;
use gristmill_protocol::log::checkpoint::{
    Checkpoint, CheckpointError, LogKeys, SignedCheckpoint, origin_of,
};
use gristmill_protocol::log::evidence::{Evidence, EvidenceError};
use gristmill_protocol::log::hash::LogHash;
use gristmill_protocol::log::note::{NoteError, SignedNote};
use thiserror::Error;
use tokio::sync::mpsc;

use super::token_bucket::TokenBucket;

/// The gossip topic of checkpoints.
pub const CHECKPOINTS_TOPIC: &str = "/gristmill/checkpoints/1";
/// Most bytes of a message on it.
pub const CHECKPOINT_MESSAGE_MAX_BYTES: usize = CONTROL_FRAME_MAX_BYTES;
/// What was heard of a log and waits for whoever watches it.
pub const LOG_FEED_QUEUE: usize = 256;
/// Most pieces of evidence against one log that are passed on.
pub const EVIDENCE_PER_LOG_MAX: usize = 16;
/// Most sizes of one log whose checkpoints are remembered, the largest ones.
const SIZES_MAX: usize = 256;
/// Most roots that are remembered for one size.
const ROOTS_PER_SIZE_MAX: usize = 4;
/// For how long a checkpoint that was told is not told again. After that it is: its reader may have lost it.
const TOLD_FOR_MS: u64 = 60_000;
/// Most peers whose rates are remembered.
const SOURCES_MAX: usize = 512;
/// How many messages of one peer are looked at at once, and how many more each second.
const SOURCE_RATE: (u32, u32) = (64, 4);
/// How many messages about one log are forwarded at once, and how many more each second. A log has one new
/// checkpoint a second.
const LOG_RATE: (u32, u32) = (64, 8);

/// A message on the topic.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct CheckpointMessage {
    /// Makes an announcement for newcomers a new message for gossip, which sends none twice. Whoever knows its
    /// content does not forward it.
    pub(super) round: u64,
    pub(super) content: CheckpointContent,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) enum CheckpointContent {
    /// A checkpoint with the signature of its log alone.
    Checkpoint(SignedNote),
    /// Evidence that a log lied.
    Evidence(Evidence),
}

impl CheckpointMessage {
    pub(super) fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode::<Self, CHECKPOINT_MESSAGE_MAX_BYTES>(bytes)
    }
}

/// What was heard of a watched log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A checkpoint that the log signed, whether new or old.
    Checkpoint {
        /// The checkpoint.
        checkpoint: SignedCheckpoint,
        /// The peer that sent it, which need not have made it.
        from: AccountId,
    },
    /// Evidence that holds against the log.
    Evidence(Box<Evidence>),
    /// Something that no known key of the log signed: it may have been handed over to a new one.
    UnknownKey,
}

/// What is heard of one log. While it lives, this peer forwards what concerns the log.
#[derive(Debug)]
pub struct LogFeed {
    pub(super) heard: mpsc::Receiver<Heard>,
}

impl LogFeed {
    /// What was heard next. `None` once another feed took its place, or the mesh has ended.
    pub async fn next(&mut self) -> Option<Heard> {
        self.heard.recv().await
    }
}

/// Why something about a log was not published.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AnnounceError {
    /// This peer does not watch the log; others might not either.
    #[error("the log is not one that this peer watches")]
    NotWatched,
    /// Peers would refuse the checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Peers would refuse the evidence.
    #[error(transparent)]
    Evidence(#[from] EvidenceError),
    /// Peers would refuse evidence of so many bytes.
    #[error("the evidence is larger than a message on gossip may be")]
    TooLarge,
    /// The mesh has been shut down.
    #[error("the mesh has been shut down")]
    Stopped,
}

/// What to do with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// New and true: forwarded.
    Forward,
    /// Of no use to others.
    Drop,
    /// No honest peer sends it.
    Blame,
}

struct WatchedLog {
    keys: LogKeys,
    feed: mpsc::Sender<Heard>,
    /// By size: each root, and when its checkpoint was last told to whoever watches.
    roots: BTreeMap<u64, BTreeMap<LogHash, u64>>,
    evidence: BTreeSet<[u8; 32]>,
    rate: TokenBucket,
}

/// Judges messages about the logs that are watched.
#[derive(Default)]
pub(super) struct CheckpointFilter {
    /// By origin.
    logs: BTreeMap<String, WatchedLog>,
    sources: BTreeMap<AccountId, TokenBucket>,
}

impl CheckpointFilter {
    /// Watches a log, in place of whoever watched it before.
    pub(super) fn watch(&mut self, keys: &LogKeys) -> LogFeed {
        let (feed, heard) = mpsc::channel(LOG_FEED_QUEUE);
        self.logs.retain(|_, log| !log.feed.is_closed());
        let watched = WatchedLog {
            keys: keys.clone(),
            feed,
            roots: BTreeMap::new(),
            evidence: BTreeSet::new(),
            rate: TokenBucket::full(LOG_RATE),
        };
        self.logs.insert(keys.origin().to_owned(), watched);
        LogFeed { heard }
    }

    /// Takes the keys that a watched log has now.
    pub(super) fn follow(&mut self, keys: &LogKeys) {
        if let Some(log) = self.logs.get_mut(keys.origin()) {
            log.keys = keys.clone();
        }
    }

    /// Checks an own checkpoint as peers will, and brings it into the form in which it travels.
    pub(super) fn announce_checkpoint(&mut self, note: SignedNote) -> Result<Announcement, AnnounceError> {
        let origin = origin(&note).to_owned();
        let log = self.watched(&origin).ok_or(AnnounceError::NotWatched)?;
        let checkpoint = SignedCheckpoint::open(note, &log.keys)?.without_cosignatures(&log.keys);
        // Whoever announces it knows it; that others do is told too.
        let is_news = log.remember(&checkpoint, 0) != Standing::Known;
        let content = CheckpointContent::Checkpoint(checkpoint.into_note());
        Ok(Announcement {
            origin,
            is_news,
            content,
        })
    }

    /// Checks own evidence as peers will.
    pub(super) fn announce_evidence(&mut self, evidence: Evidence) -> Result<Announcement, AnnounceError> {
        let origin = evidence
            .accused()
            .map(|account| origin_of(&account))
            .unwrap_or_default();
        let log = self.watched(&origin).ok_or(AnnounceError::NotWatched)?;
        evidence.verify(&log.keys)?;
        let is_news = log.evidence.insert(digest(&evidence));
        let content = CheckpointContent::Evidence(evidence);
        let message = CheckpointMessage { round: 0, content };
        if message.encode().len() > CHECKPOINT_MESSAGE_MAX_BYTES {
            return Err(AnnounceError::TooLarge);
        }
        let content = message.content;
        Ok(Announcement {
            origin,
            is_news,
            content,
        })
    }

    /// What to do with a message. What is true reaches whoever watches the log, whether it is forwarded or not.
    pub(super) fn judge(&mut self, bytes: &[u8], from: AccountId, now_ms: u64) -> Judgement {
        if !self.within_rate(from, now_ms) {
            return Judgement::Drop;
        }
        match CheckpointMessage::decode(bytes) {
            Err(_) => Judgement::Blame,
            Ok(message) => match message.content {
                CheckpointContent::Checkpoint(note) => self.judge_checkpoint(note, from, now_ms),
                CheckpointContent::Evidence(evidence) => self.judge_evidence(evidence, now_ms),
            },
        }
    }

    fn judge_checkpoint(&mut self, note: SignedNote, from: AccountId, now_ms: u64) -> Judgement {
        let origin = origin(&note).to_owned();
        let Some(log) = self.watched(&origin) else {
            return Judgement::Drop;
        };
        // What is known costs no look at the signature.
        let Ok(claimed) = note.text().parse::<Checkpoint>() else {
            return Judgement::Blame;
        };
        if log.was_told(claimed.size, &claimed.root, now_ms) {
            return Judgement::Drop;
        }
        let checkpoint = match SignedCheckpoint::open(note, &log.keys) {
            Ok(checkpoint) => checkpoint,
            Err(CheckpointError::Note(NoteError::NotSigned(_))) => {
                log.ask_for_keys();
                return Judgement::Drop;
            }
            Err(_) => return Judgement::Blame,
        };
        // Signatures of others would let one checkpoint travel as many messages.
        if checkpoint.without_cosignatures(&log.keys) != checkpoint {
            return Judgement::Blame;
        }
        let Some(place) = log.place() else {
            return Judgement::Drop;
        };
        place.send(Heard::Checkpoint {
            checkpoint: checkpoint.clone(),
            from,
        });
        match log.remember(&checkpoint, now_ms) {
            Standing::Newest | Standing::Contradicting => log.forward(now_ms),
            Standing::Known | Standing::Older => Judgement::Drop,
        }
    }

    fn judge_evidence(&mut self, evidence: Evidence, now_ms: u64) -> Judgement {
        let origin = evidence.accused().map(|account| origin_of(&account));
        let Some(log) = origin.and_then(|origin| self.watched(&origin)) else {
            return Judgement::Drop;
        };
        let digest = digest(&evidence);
        if log.evidence.contains(&digest) || log.evidence.len() >= EVIDENCE_PER_LOG_MAX {
            return Judgement::Drop;
        }
        match evidence.verify(&log.keys) {
            Ok(_) => {
                let Some(place) = log.place() else {
                    return Judgement::Drop;
                };
                place.send(Heard::Evidence(Box::new(evidence)));
                log.evidence.insert(digest);
                log.forward(now_ms)
            }
            Err(
                EvidenceError::Checkpoint(CheckpointError::Note(NoteError::NotSigned(_)))
                | EvidenceError::Receipt(TokenError::Issuer { .. }),
            ) => {
                log.ask_for_keys();
                Judgement::Drop
            }
            Err(_) => Judgement::Blame,
        }
    }

    fn watched(&mut self, origin: &str) -> Option<&mut WatchedLog> {
        self.logs.get_mut(origin).filter(|log| !log.feed.is_closed())
    }

    fn within_rate(&mut self, source: AccountId, now_ms: u64) -> bool {
        if self.sources.len() >= SOURCES_MAX && !self.sources.contains_key(&source) {
            // Whoever has rested is as good as new.
            self.sources.retain(|_, rate| !rate.is_full(now_ms));
            if self.sources.len() >= SOURCES_MAX {
                return false;
            }
        }
        let rate = self
            .sources
            .entry(source)
            .or_insert_with(|| TokenBucket::full(SOURCE_RATE));
        rate.take(now_ms)
    }
}

/// What an own announcement is about.
pub(super) struct Announcement {
    pub(super) origin: String,
    /// Whether it is neither announced nor heard yet.
    pub(super) is_news: bool,
    pub(super) content: CheckpointContent,
}

/// How a checkpoint stands to those of its log that are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Known,
    Older,
    Newest,
    /// Another root is known for its size.
    Contradicting,
}

impl WatchedLog {
    fn was_told(&self, size: u64, root: &LogHash, now_ms: u64) -> bool {
        let told_at_ms = self.roots.get(&size).and_then(|roots| roots.get(root));
        told_at_ms.is_some_and(|told_at_ms| now_ms.saturating_sub(*told_at_ms) < TOLD_FOR_MS)
    }

    fn remember(&mut self, checkpoint: &SignedCheckpoint, now_ms: u64) -> Standing {
        let size = checkpoint.size();
        let newest = self.roots.last_key_value().map(|(newest, _)| *newest);
        let roots = self.roots.entry(size).or_default();
        if let Some(told_at_ms) = roots.get_mut(checkpoint.root()) {
            *told_at_ms = now_ms;
            return Standing::Known;
        }
        if roots.len() >= ROOTS_PER_SIZE_MAX {
            return Standing::Known;
        }
        roots.insert(*checkpoint.root(), now_ms);
        let contradicts = roots.len() > 1;
        if self.roots.len() > SIZES_MAX {
            self.roots.pop_first();
        }
        match contradicts {
            true => Standing::Contradicting,
            false if newest.is_none_or(|newest| size > newest) => Standing::Newest,
            false => Standing::Older,
        }
    }

    /// A place for what was heard. Where its reader is behind, there is none, and what was heard counts as not heard.
    fn place(&self) -> Option<mpsc::OwnedPermit<Heard>> {
        let place = self.feed.clone().try_reserve_owned().ok();
        if place.is_none() {
            let log = self.keys.origin();
            tracing::debug!(log, "something heard of the log is lost: its reader is behind");
        }
        place
    }

    fn ask_for_keys(&self) {
        if let Some(place) = self.place() {
            place.send(Heard::UnknownKey);
        }
    }

    fn forward(&mut self, now_ms: u64) -> Judgement {
        match self.rate.take(now_ms) {
            true => Judgement::Forward,
            false => Judgement::Drop,
        }
    }
}

fn origin(note: &SignedNote) -> &str {
    note.text().split('\n').next().unwrap_or_default()
}

/// What tells pieces of evidence apart.
pub(super) fn digest(evidence: &Evidence) -> [u8; 32] {
    *blake3::hash(&evidence.encode()).as_bytes()
}

#[cfg(test)]
mod tests;
