//! Checkpoints: a log's signed word on its size and root.
//!
//! Source: [C2SP tlog-checkpoint](https://c2sp.org/tlog-checkpoint).

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::handover::{HandoverError, SignedHandover};
use crate::identity::{AccountId, Keypair};
use crate::log::LOG_SIZE_MAX;
use crate::log::hash::LogHash;
use crate::log::note::{KeyKind, NOTE_MAX_BYTES, NoteError, SignedNote, VerifierKey};

const ORIGIN_PREFIX: &str = "gristmill/log/";

/// The name of the log of a coordinator whose first signing key is this account's. It never changes.
#[must_use]
pub fn origin_of(first: &AccountId) -> String {
    format!("{ORIGIN_PREFIX}{first}")
}

/// The account of a log's first signing key; `None` where the origin is not that of a coordinator.
#[must_use]
pub fn account_of_origin(origin: &str) -> Option<AccountId> {
    let account: AccountId = origin.strip_prefix(ORIGIN_PREFIX)?.parse().ok()?;
    (origin_of(&account) == origin).then_some(account)
}

/// How many leaves a log has and what they hash to. As text, the lines of a note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The name of the log.
    pub origin: String,
    /// How many leaves.
    pub size: u64,
    /// The root over them.
    pub root: LogHash,
    /// Further lines. Coordinators write none; they are kept so that whatever a log signed counts as its word.
    pub extensions: Vec<String>,
}

/// Why a text is no checkpoint, or a note is none of a log.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CheckpointError {
    /// Not the lines of a checkpoint.
    #[error("the checkpoint is malformed: {0}")]
    Malformed(&'static str),
    /// More leaves than a log can have.
    #[error("a checkpoint of {0} leaves is over the limit of {LOG_SIZE_MAX}")]
    Size(u64),
    /// A checkpoint of another log.
    #[error("the checkpoint is of the log '{actual}', not of '{expected}'")]
    Origin {
        /// The log it is of.
        actual: String,
        /// The log it should be of.
        expected: String,
    },
    /// Its signatures do not hold.
    #[error(transparent)]
    Note(#[from] NoteError),
}

impl Checkpoint {
    /// A checkpoint without further lines.
    #[must_use]
    pub fn new(origin: &str, size: u64, root: LogHash) -> Self {
        Self {
            origin: origin.to_owned(),
            size,
            root,
            extensions: Vec::new(),
        }
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "{}\n{}\n{}",
            self.origin,
            self.size,
            self.root.to_base64()
        )?;
        self.extensions
            .iter()
            .try_for_each(|line| writeln!(formatter, "{line}"))
    }
}

impl FromStr for Checkpoint {
    type Err = CheckpointError;

    fn from_str(text: &str) -> Result<Self, CheckpointError> {
        let malformed = CheckpointError::Malformed;
        if text.len() > NOTE_MAX_BYTES {
            return Err(malformed("it is over 16 KiB"));
        }
        let text = text
            .strip_suffix('\n')
            .ok_or(malformed("it does not end with a newline"))?;
        let mut lines = text.split('\n');
        let (Some(origin), Some(size), Some(root)) = (lines.next(), lines.next(), lines.next()) else {
            return Err(malformed("it has fewer than three lines"));
        };
        if origin.is_empty() {
            return Err(malformed("its origin is empty"));
        }
        let size = parse_decimal(size).ok_or(malformed("its size is not a number in its only spelling"))?;
        if size > LOG_SIZE_MAX {
            return Err(CheckpointError::Size(size));
        }
        let root = LogHash::from_base64(root).map_err(|_| malformed("its root is not 32 bytes in base64"))?;
        let extensions: Vec<String> = lines.map(str::to_owned).collect();
        if extensions.iter().any(String::is_empty) {
            return Err(malformed("it has an empty line"));
        }
        Ok(Self {
            origin: origin.to_owned(),
            size,
            root,
            extensions,
        })
    }
}

/// A number in decimal digits without leading zeroes.
pub(super) fn parse_decimal(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

/// The keys that sign for one log: its first one, and those it was handed over to. Signatures of all of them count
/// for ever, since checkpoints and receipts do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogKeys {
    first: AccountId,
    origin: String,
    /// In the order of the hand-overs; never empty.
    keys: Vec<VerifierKey>,
}

impl LogKeys {
    /// The keys of the log that this account signed first for.
    #[must_use]
    pub fn new(first: AccountId) -> Self {
        let origin = origin_of(&first);
        let keys = vec![VerifierKey::of_account(&origin, KeyKind::Ed25519, first)];
        Self { first, origin, keys }
    }

    /// The name of the log.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The account of the first key.
    #[must_use]
    pub const fn first(&self) -> &AccountId {
        &self.first
    }

    /// The keys, the first one first.
    #[must_use]
    pub fn keys(&self) -> &[VerifierKey] {
        &self.keys
    }

    /// The account that signs now, as far as is known.
    #[must_use]
    pub fn newest(&self) -> &AccountId {
        self.keys.last().map_or(&self.first, VerifierKey::account)
    }

    /// Whether the account signs or has signed for this log.
    #[must_use]
    pub fn contains(&self, account: &AccountId) -> bool {
        self.keys.iter().any(|key| key.account() == account)
    }

    /// Adds a key that is known to sign for this log from now on. Prefer [`LogKeys::follow`].
    pub fn add_key(&mut self, account: AccountId) {
        if !self.contains(&account) {
            let key = VerifierKey::of_account(&self.origin, KeyKind::Ed25519, account);
            self.keys.push(key);
        }
    }

    /// Adds the key that the newest one hands over to. A hand-over that is known already changes nothing.
    ///
    /// # Errors
    /// [`HandoverError`] where the hand-over is not signed by both, not of this log, or not by its newest key.
    pub fn follow(&mut self, handover: &SignedHandover) -> Result<(), HandoverError> {
        let agreed = handover.verify()?;
        if agreed.log != self.first {
            return Err(HandoverError::OtherLog {
                actual: agreed.log,
                expected: self.first,
            });
        }
        let mut pairs = self.keys.windows(2);
        if pairs.any(
            |pair| matches!(pair, [old, new] if *old.account() == agreed.old && *new.account() == agreed.new),
        ) {
            return Ok(());
        }
        if agreed.old != *self.newest() {
            return Err(HandoverError::NotFromKnown {
                old: agreed.old,
                known: *self.newest(),
            });
        }
        self.add_key(agreed.new);
        Ok(())
    }
}

/// A checkpoint that a log signed: the note was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedCheckpoint {
    note: SignedNote,
    checkpoint: Checkpoint,
}

impl SignedCheckpoint {
    /// Checks a note as a checkpoint of this log.
    ///
    /// # Errors
    /// [`CheckpointError`] where it is of another log, malformed, or not signed by one of the log's keys.
    pub fn open(note: SignedNote, keys: &LogKeys) -> Result<Self, CheckpointError> {
        let checkpoint: Checkpoint = note.text().parse()?;
        if checkpoint.origin != keys.origin {
            let expected = keys.origin.clone();
            return Err(CheckpointError::Origin {
                actual: checkpoint.origin,
                expected,
            });
        }
        note.verify_any(&keys.keys)?;
        Ok(Self { note, checkpoint })
    }

    /// Signs a checkpoint as its log. One root per size for ever: the caller has made the pair durable before.
    ///
    /// # Errors
    /// [`CheckpointError`] where the checkpoint is not one that could be read again.
    pub fn sign(checkpoint: &Checkpoint, keypair: &Keypair) -> Result<Self, CheckpointError> {
        let text = checkpoint.to_string();
        // An origin or a further line with a newline in it would be read as something else.
        if text.parse::<Checkpoint>()? != *checkpoint {
            return Err(CheckpointError::Malformed("its lines have newlines in them"));
        }
        let note = SignedNote::sign(&text, &checkpoint.origin, keypair)?;
        Ok(Self {
            note,
            checkpoint: checkpoint.clone(),
        })
    }

    /// The note, with all its signatures.
    #[must_use]
    pub const fn note(&self) -> &SignedNote {
        &self.note
    }

    /// What the log signed.
    #[must_use]
    pub const fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// How many leaves.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.checkpoint.size
    }

    /// The root over them.
    #[must_use]
    pub const fn root(&self) -> &LogHash {
        &self.checkpoint.root
    }

    /// The note, to keep.
    #[must_use]
    pub fn into_note(self) -> SignedNote {
        self.note
    }

    /// The same checkpoint with only the first signature of the log itself: small, and enough as evidence.
    #[must_use]
    pub fn without_cosignatures(&self, keys: &LogKeys) -> Self {
        let by_log = self
            .note
            .signatures()
            .iter()
            .find(|line| keys.keys.iter().any(|key| line.is_by(key)));
        let note = by_log.map(|line| self.note.with_only(line.clone()));
        Self {
            note: note.unwrap_or_else(|| self.note.clone()),
            checkpoint: self.checkpoint.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
