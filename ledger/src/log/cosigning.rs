//! Cosignatures of witnesses under the checkpoints of the last seconds.

use gristmill_protocol::coordinator_api::COSIGNATURES_PER_CHECKPOINT_MAX;
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::log::checkpoint::SignedCheckpoint;
use gristmill_protocol::log::cosignature::{self, AddCosignatureError, cosigners};
use gristmill_protocol::log::note::{NoteError, NoteSignature};
use thiserror::Error;

use super::Log;
use crate::store::LogWriteError;

/// Why a cosignature is not kept.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CosignError {
    /// Not a signature line.
    #[error(transparent)]
    Line(#[from] NoteError),
    /// Not this account's over the checkpoint.
    #[error(transparent)]
    Cosignature(AddCosignatureError),
    /// The checkpoint is not one of the last seconds.
    #[error("the log has no checkpoint of size {size} from the last seconds; cosign the newest one")]
    NotRecent {
        /// The size.
        size: u64,
    },
    /// As many others have cosigned it.
    #[error(
        "the checkpoint of size {size} has all {COSIGNATURES_PER_CHECKPOINT_MAX} cosignatures that are kept"
    )]
    Full {
        /// The size.
        size: u64,
    },
    /// The cosigned note can't be stored now.
    #[error(transparent)]
    Write(#[from] LogWriteError),
}

/// A checkpoint with a cosignature more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cosigned {
    /// Its size.
    pub size: u64,
    /// How many witnesses have cosigned it.
    pub cosignatures: usize,
}

impl Log {
    /// Adds an account's cosignature to a checkpoint of the last seconds, and publishes the note again if it is the
    /// newest one. The first cosignature of an account stays; further ones change nothing.
    ///
    /// # Errors
    /// [`CosignError`]
    pub async fn cosign(&self, account: &AccountId, size: u64, line: &str) -> Result<Cosigned, CosignError> {
        let line = NoteSignature::parse(line)?;
        let _one_at_a_time = self.cosigning.lock().await;
        let checkpoint = self
            .recent()
            .of_size(size)
            .ok_or(CosignError::NotRecent { size })?;
        let cosigned_by = cosigners(checkpoint.note());
        let cosignatures = cosigned_by.len();
        if cosigned_by.iter().any(|(cosigner, _)| cosigner == account) {
            return Ok(Cosigned { size, cosignatures });
        }
        if cosignatures >= COSIGNATURES_PER_CHECKPOINT_MAX {
            return Err(CosignError::Full { size });
        }
        let mut note = checkpoint.note().clone();
        cosignature::add(&mut note, account, line).map_err(CosignError::Cosignature)?;
        let newest = self.newest().is_some_and(|newest| newest.size() == size);
        if newest {
            self.store.publish_checkpoint(size, &note.to_string()).await?;
        }
        let cosigned =
            SignedCheckpoint::open(note, &self.signer.keys).map_err(|_| CosignError::NotRecent { size })?;
        self.announce(cosigned);
        Ok(Cosigned {
            size,
            cosignatures: cosignatures + 1,
        })
    }
}
