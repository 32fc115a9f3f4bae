//! What the snapshots of both sides of a session have in common.
//!
//! A simulator writes its sessions to disk and goes on later. A snapshot holds neither keys nor what was asked and
//! answered: whoever restores a session hands both in again, and a digest tells whether it is the same text.

use thiserror::Error;

use crate::identity::AccountId;
use crate::job::RequestId;

/// Why a session or a channel can't be restored.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RestoreError {
    /// The key is another one than before.
    #[error("the key of {actual} was handed in to restore a state of {expected}; hand in the same key")]
    OtherKey {
        /// Whose key it was.
        expected: AccountId,
        /// Whose key was handed in.
        actual: AccountId,
    },
    /// The text is another one than before, or too short.
    #[error(
        "the {what} handed in to restore job {request_id} is not what its session had seen; hand in the same"
    )]
    OtherContent {
        /// The job.
        request_id: RequestId,
        /// Which text.
        what: &'static str,
    },
    /// The snapshot contradicts itself.
    #[error("the snapshot of job {request_id} contradicts itself; take it from where it was written")]
    Contradiction {
        /// The job.
        request_id: RequestId,
    },
}

/// Checks that a key is the one that a snapshot was taken with.
pub(crate) fn same_key(expected: AccountId, actual: AccountId) -> Result<(), RestoreError> {
    if expected == actual {
        Ok(())
    } else {
        Err(RestoreError::OtherKey { expected, actual })
    }
}

/// How much of a text a session had seen, and its digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Seen {
    bytes: u64,
    digest: [u8; 32],
}

impl Seen {
    pub(super) fn by(hasher: &blake3::Hasher) -> Self {
        Self {
            bytes: hasher.count(),
            digest: *hasher.finalize().as_bytes(),
        }
    }

    pub(super) fn of(text: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(text);
        Self::by(&hasher)
    }

    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What was seen, as the beginning of a text that was handed in.
    pub(super) fn again<'text>(
        &self,
        text: &'text [u8],
        what: &'static str,
        request_id: &RequestId,
    ) -> Result<&'text [u8], RestoreError> {
        usize::try_from(self.bytes)
            .ok()
            .and_then(|bytes| text.get(..bytes))
            .filter(|seen| blake3::hash(seen).as_bytes() == &self.digest)
            .ok_or_else(|| RestoreError::OtherContent {
                request_id: request_id.clone(),
                what,
            })
    }
}
