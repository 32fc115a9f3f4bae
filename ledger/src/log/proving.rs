//! Proofs from the tiles.

use std::sync::Arc;

use gristmill_protocol::log::checkpoint::SignedCheckpoint;
use gristmill_protocol::log::hash::LogHash;
use gristmill_protocol::log::inclusion_text::{InclusionText, InclusionTextError};
use gristmill_protocol::log::proof::{
    ConsistencyProof, InclusionProof, tiles_for_consistency, tiles_for_inclusion,
};
use gristmill_protocol::log::tile_tree::TreeError;
use thiserror::Error;

use super::{Log, tree_error};
use crate::store::ReadError;

/// Why there is no proof.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProveError {
    /// The tiles can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Asked for what is not in the log.
    #[error("a log of {size} records has no proof about record {sequence}")]
    NotInLog {
        /// The record, or the smaller size.
        sequence: u64,
        /// How many records there are.
        size: u64,
    },
    /// The tiles prove something else than what the ledger says.
    #[error("the log's tiles do not prove what the ledger says: {reason}; run 'gristmill ledger audit'")]
    Contradiction {
        /// What does not hold.
        reason: String,
    },
}

impl Log {
    /// The published checkpoint to prove a record with: of those of the last seconds that cover it the one with the
    /// most signatures, otherwise `None`.
    #[must_use]
    pub fn checkpoint_for(&self, sequence: u64) -> Option<Arc<SignedCheckpoint>> {
        self.recent().best_for(sequence.max(1))
    }

    /// The proof that the record of this sequence, whose leaf hash the ledger says is `leaf`, is in the log at a
    /// published checkpoint of it. It was verified before it is returned.
    ///
    /// # Errors
    /// [`ProveError`]
    pub async fn prove(
        &self,
        sequence: u64,
        leaf: &LogHash,
        checkpoint: &SignedCheckpoint,
    ) -> Result<InclusionText, ProveError> {
        let size = checkpoint.size();
        let not_in_log = ProveError::NotInLog { sequence, size };
        let index = sequence.checked_sub(1).ok_or(not_in_log)?;
        let proof = self.inclusion_proof(index, size).await?;
        let text = proof
            .verify(leaf, checkpoint.root())
            .map_err(InclusionTextError::from)
            .and_then(|()| InclusionText::new(proof, checkpoint, None));
        text.map_err(|error| {
            // Whatever is wrong may be wrong in memory alone.
            self.tiles.forget(tiles_for_inclusion(index, size));
            let reason = format!("record {sequence} in the log of {size}: {error}");
            tracing::error!(reason, "a proof does not hold");
            ProveError::Contradiction { reason }
        })
    }

    /// The proof for a leaf in the tree of a size that the log has or had.
    ///
    /// # Errors
    /// [`ProveError`]
    pub async fn inclusion_proof(&self, index: u64, size: u64) -> Result<InclusionProof, ProveError> {
        if index >= size {
            let sequence = index.saturating_add(1);
            return Err(ProveError::NotInLog { sequence, size });
        }
        let tiles = self.tiles.read_all(tiles_for_inclusion(index, size)).await?;
        InclusionProof::build(index, size, |tile| tiles.bytes(tile)).map_err(|error| unusable(&error))
    }

    /// The proof that the tree of `new_size` begins with that of `old_size`, both of which the log has or had.
    ///
    /// # Errors
    /// [`ProveError`]
    pub async fn consistency_proof(
        &self,
        old_size: u64,
        new_size: u64,
    ) -> Result<ConsistencyProof, ProveError> {
        if old_size > new_size {
            return Err(ProveError::NotInLog {
                sequence: old_size,
                size: new_size,
            });
        }
        let tiles = tiles_for_consistency(old_size, new_size);
        let tiles = self.tiles.read_all(tiles).await?;
        ConsistencyProof::build(old_size, new_size, |tile| tiles.bytes(tile))
            .map_err(|error| unusable(&error))
    }
}

fn unusable(error: &TreeError<&'static str>) -> ProveError {
    ProveError::Contradiction {
        reason: tree_error(error),
    }
}
