//! Evidence that a log lied: what the log itself signed, and hashes that show that it can't all be true. Anybody
//! checks it offline with the log's keys, and nobody can make it against a log that never lied.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::codec::{self, CONTROL_FRAME_MAX_BYTES, DecodeError};
use crate::jws::{self, TOKEN_MAX_BYTES, TokenError};
use crate::log::checkpoint::{CheckpointError, LogKeys, SignedCheckpoint, account_of_origin};
use crate::log::extension::Extension;
use crate::log::hash::LogHash;
use crate::log::note::SignedNote;
use crate::log::proof::{InclusionProof, ProofError};
use crate::tokens::ReceiptClaims;

/// Most bytes of evidence in its binary form.
pub const EVIDENCE_MAX_BYTES: usize = CONTROL_FRAME_MAX_BYTES;
/// Most bytes of evidence as JSON, which writes a hash in more than twice its bytes.
pub const EVIDENCE_JSON_MAX_BYTES: usize = 2 * EVIDENCE_MAX_BYTES;

/// What convicts a log.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Evidence {
    /// Two checkpoints of the same size with different roots.
    TwoRoots {
        /// One of them.
        first: SignedNote,
        /// The other one.
        second: SignedNote,
    },
    /// A checkpoint whose first leaves are not those of an earlier one.
    NotAnExtension {
        /// The checkpoint of the smaller tree.
        old: SignedNote,
        /// The checkpoint of the larger tree.
        new: SignedNote,
        /// The larger tree, cut at the size of the smaller one.
        extension: Extension,
    },
    /// A receipt for a record, in whose place the log has another one.
    BrokenReceipt {
        /// The receipt, as the coordinator signed it.
        receipt: String,
        /// A checkpoint of a tree that has the record's place.
        checkpoint: SignedNote,
        /// The hash of the leaf that is there.
        leaf: LogHash,
        /// The proof that it is there.
        proof: InclusionProof,
    },
}

/// What a log did that can't be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// It signed two roots for one size.
    TwoRoots {
        /// The size.
        size: u64,
        /// Both roots, in the order of the evidence.
        roots: [LogHash; 2],
    },
    /// It changed or dropped what it had signed for.
    NotAnExtension {
        /// The size of the smaller tree.
        old_size: u64,
        /// The size of the larger tree.
        new_size: u64,
        /// The root that it signed for the smaller tree.
        signed_root: LogHash,
        /// What the first leaves of the larger tree hash to.
        actual_root: LogHash,
    },
    /// It gave a receipt for a record that is not in it.
    BrokenReceipt {
        /// The number of the record, from one.
        sequence: u64,
        /// The hash that the receipt promises.
        promised: LogHash,
        /// The hash of the leaf in its place.
        actual: LogHash,
    },
}

impl fmt::Display for Lie {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TwoRoots {
                size,
                roots: [first, second],
            } => write!(
                formatter,
                "the log signed two histories of {size} records, with the roots {first} and {second}"
            ),
            Self::NotAnExtension {
                old_size,
                new_size,
                signed_root,
                actual_root,
            } => write!(
                formatter,
                "the log signed the root {signed_root} for its first {old_size} records, but in its history of \
                 {new_size} records they have the root {actual_root}"
            ),
            Self::BrokenReceipt {
                sequence,
                promised,
                actual,
            } => write!(
                formatter,
                "the coordinator gave a receipt for record {sequence} with the hash {promised}, but the log has \
                 {actual} in its place"
            ),
        }
    }
}

/// Why evidence convicts nobody.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EvidenceError {
    /// A note is not a checkpoint that this log signed.
    #[error("the evidence has a note that is no checkpoint of this log: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// The receipt is not one that this log's coordinator signed.
    #[error("the evidence has a receipt that is not this coordinator's: {0}")]
    Receipt(#[from] TokenError),
    /// Hashes do not lead to the root that the log signed.
    #[error("the hashes of the evidence do not hold: {0}")]
    Proof(#[from] ProofError),
    /// Its parts do not belong together.
    #[error("the parts of the evidence do not belong together: {0}")]
    Unrelated(&'static str),
    /// Everything in it can be true at once.
    #[error("the evidence shows no lie: {0}")]
    NoLie(&'static str),
}

/// Why bytes are no evidence.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EvidenceDecodeError {
    /// Not its binary form.
    #[error(transparent)]
    Binary(#[from] DecodeError),
    /// Not its JSON form.
    #[error("the evidence is not valid JSON: {0}")]
    Json(String),
    /// Not the evidence that it would be written as.
    #[error("the evidence is not in its only spelling")]
    Spelling,
}

impl Evidence {
    /// Evidence of two roots, from two checkpoints in any order. The same two always give the same evidence.
    #[must_use]
    pub fn two_roots(keys: &LogKeys, one: &SignedCheckpoint, other: &SignedCheckpoint) -> Self {
        let [one, other] = [one, other].map(|checkpoint| checkpoint.without_cosignatures(keys));
        let (first, second) = if one.root() <= other.root() {
            (one, other)
        } else {
            (other, one)
        };
        Self::TwoRoots {
            first: first.into_note(),
            second: second.into_note(),
        }
    }

    /// Evidence that `new` does not go on from `old`.
    #[must_use]
    pub fn not_an_extension(
        keys: &LogKeys,
        old: &SignedCheckpoint,
        new: &SignedCheckpoint,
        extension: Extension,
    ) -> Self {
        let [old, new] = [old, new].map(|checkpoint| checkpoint.without_cosignatures(keys).into_note());
        Self::NotAnExtension { old, new, extension }
    }

    /// Evidence that the leaf in the place of a receipt's record is another one.
    #[must_use]
    pub fn broken_receipt(
        keys: &LogKeys,
        receipt: String,
        checkpoint: &SignedCheckpoint,
        leaf: LogHash,
        proof: InclusionProof,
    ) -> Self {
        let checkpoint = checkpoint.without_cosignatures(keys).into_note();
        Self::BrokenReceipt {
            receipt,
            checkpoint,
            leaf,
            proof,
        }
    }

    /// The account of the first key of the log that this is said to convict, to find that log's keys by; `None` where
    /// it is of no log. Nothing is checked.
    #[must_use]
    pub fn accused(&self) -> Option<crate::identity::AccountId> {
        let note = match self {
            Self::TwoRoots { first, .. } => first,
            Self::NotAnExtension { new, .. } => new,
            Self::BrokenReceipt { checkpoint, .. } => checkpoint,
        };
        account_of_origin(note.text().split('\n').next()?)
    }

    /// What the log with these keys did. Everything is checked.
    ///
    /// # Errors
    /// [`EvidenceError`] where this convicts nobody.
    pub fn verify(&self, keys: &LogKeys) -> Result<Lie, EvidenceError> {
        let open = |note: &SignedNote| SignedCheckpoint::open(note.clone(), keys);
        match self {
            Self::TwoRoots { first, second } => two_roots(&open(first)?, &open(second)?),
            Self::NotAnExtension { old, new, extension } => {
                not_an_extension(&open(old)?, &open(new)?, extension)
            }
            Self::BrokenReceipt {
                receipt,
                checkpoint,
                leaf,
                proof,
            } => {
                let promise = open_receipt(receipt, keys)?;
                broken_receipt(&promise, &open(checkpoint)?, leaf, proof)
            }
        }
    }

    /// The binary form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads the binary form, at most [`EVIDENCE_MAX_BYTES`].
    ///
    /// # Errors
    /// [`EvidenceDecodeError`] where the bytes are none, or not in their only spelling.
    pub fn decode(bytes: &[u8]) -> Result<Self, EvidenceDecodeError> {
        let evidence: Self = codec::decode::<Self, EVIDENCE_MAX_BYTES>(bytes)?;
        match evidence.encode() == bytes {
            true => Ok(evidence),
            false => Err(EvidenceDecodeError::Spelling),
        }
    }

    /// Reads JSON, at most [`EVIDENCE_JSON_MAX_BYTES`].
    ///
    /// # Errors
    /// [`EvidenceDecodeError`] where the text is too long or no evidence.
    pub fn from_json(json: &[u8]) -> Result<Self, EvidenceDecodeError> {
        if json.len() > EVIDENCE_JSON_MAX_BYTES {
            let (actual, limit) = (json.len(), EVIDENCE_JSON_MAX_BYTES);
            return Err(DecodeError::TooLarge { actual, limit }.into());
        }
        serde_json::from_slice(json).map_err(|error| EvidenceDecodeError::Json(error.to_string()))
    }
}

fn two_roots(first: &SignedCheckpoint, second: &SignedCheckpoint) -> Result<Lie, EvidenceError> {
    if first.size() != second.size() {
        return Err(EvidenceError::Unrelated(
            "the two checkpoints have different sizes",
        ));
    }
    if first.root() == second.root() {
        return Err(EvidenceError::NoLie("the two checkpoints have the same root"));
    }
    Ok(Lie::TwoRoots {
        size: first.size(),
        roots: [*first.root(), *second.root()],
    })
}

fn not_an_extension(
    old: &SignedCheckpoint,
    new: &SignedCheckpoint,
    extension: &Extension,
) -> Result<Lie, EvidenceError> {
    if (extension.old_size, extension.new_size) != (old.size(), new.size()) {
        return Err(EvidenceError::Unrelated("the hashes are of trees of other sizes"));
    }
    let roots = extension.roots()?;
    // Only hashes that lead to the root the log signed say anything about the log.
    if roots.new != *new.root() {
        return Err(ProofError::Root {
            expected: *new.root(),
            actual: roots.new,
        }
        .into());
    }
    if roots.old == *old.root() {
        return Err(EvidenceError::NoLie(
            "the larger tree goes on from the smaller one",
        ));
    }
    Ok(Lie::NotAnExtension {
        old_size: old.size(),
        new_size: new.size(),
        signed_root: *old.root(),
        actual_root: roots.old,
    })
}

fn broken_receipt(
    promise: &ReceiptPromise,
    checkpoint: &SignedCheckpoint,
    leaf: &LogHash,
    proof: &InclusionProof,
) -> Result<Lie, EvidenceError> {
    if (proof.index, proof.size) != (promise.index, checkpoint.size()) {
        return Err(EvidenceError::Unrelated(
            "the proof is of another record or another tree",
        ));
    }
    proof.verify(leaf, checkpoint.root())?;
    if promise.record_hash == *leaf {
        return Err(EvidenceError::NoLie("the log has the record of the receipt"));
    }
    Ok(Lie::BrokenReceipt {
        sequence: promise.index + 1,
        promised: promise.record_hash,
        actual: *leaf,
    })
}

/// What a coordinator promised with a receipt.
pub(super) struct ReceiptPromise {
    /// The place of the record in the log, from zero.
    pub(super) index: u64,
    /// The hash of the record.
    pub(super) record_hash: LogHash,
}

/// A receipt that one of the log's keys signed, whoever it is for and however old it is: its signer's word holds for
/// ever, towards everybody.
pub(super) fn open_receipt(receipt: &str, keys: &LogKeys) -> Result<ReceiptPromise, EvidenceError> {
    let malformed = |reason| EvidenceError::Receipt(TokenError::Malformed(reason));
    if receipt.len() > TOKEN_MAX_BYTES {
        return Err(malformed("it is over 8 KiB"));
    }
    let claimed: ReceiptClaims = receipt
        .split('.')
        .nth(1)
        .and_then(|payload| URL_SAFE_NO_PAD.decode(payload).ok())
        .and_then(|payload| serde_json::from_slice(&payload).ok())
        .ok_or(malformed("its claims are not those of a receipt"))?;
    if !keys.contains(&claimed.iss) {
        let expected = *keys.newest();
        return Err(TokenError::Issuer {
            actual: claimed.iss,
            expected,
        }
        .into());
    }
    let party = match &claimed.aud {
        jws::Audience::One(party) => Some(party),
        jws::Audience::Many(parties) => parties.first(),
    }
    .ok_or(malformed("it is for nobody"))?;
    let issued_at_ms = claimed.iat.saturating_mul(1000);
    let claims = ReceiptClaims::verify(receipt, &claimed.iss, party, issued_at_ms)?;
    let index = claims
        .sequence
        .checked_sub(1)
        .ok_or(malformed("no record has the number zero"))?;
    let record_hash = claims
        .record_hash
        .parse()
        .map_err(|_| malformed("its record hash is no hash of a log"))?;
    Ok(ReceiptPromise { index, record_hash })
}

#[cfg(test)]
mod tests;
