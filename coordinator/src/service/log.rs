//! The Merkle log as callers see it: checkpoint, tiles, entries for auditors, cosignatures, proofs of receipts.

use gristmill_ledger::log::{CosignError, Log, ProveError};
use gristmill_ledger::outcome::{Effect, Posted};
use gristmill_protocol::coordinator_api::{
    CosignatureAnswer, CosignatureRequest, LogInfo, ReceiptView, handover_text, log_entry_text,
};
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::log::checkpoint::SignedCheckpoint;
use gristmill_protocol::log::tile::{EntryBundle, Tile};

use super::Service;
use crate::core::auditor_key::AuditorKeyHash;
use crate::core::authentication::bearer_token;
use crate::core::documents::receipt;
use crate::core::rejection::Rejection;

impl Service {
    /// The Merkle log.
    pub(crate) const fn log(&self) -> &Log {
        &self.log
    }

    /// Which log this is.
    pub(super) fn log_info(&self) -> LogInfo {
        let signer = self.log.signer();
        LogInfo {
            origin: self.log.origin().to_owned(),
            account: *self.log.keys().first(),
            verifier_key: signer.verifier_key().clone(),
            keys: signer.handovers().iter().map(handover_text).collect(),
        }
    }

    /// The newest signed note.
    pub(crate) fn checkpoint(&self) -> Result<String, Rejection> {
        let newest = self.log.newest();
        newest
            .map(|checkpoint| checkpoint.note().to_string())
            .ok_or_else(|| {
                Rejection::not_found("the log has no checkpoint yet; there is one after the first entry")
            })
    }

    /// A tile of hashes.
    pub(crate) async fn tile(&self, path: &str) -> Result<Vec<u8>, Rejection> {
        let tile = Tile::parse(path).map_err(|error| Rejection::not_found(error.to_string()))?;
        let bytes = self.log.tile(tile).await?;
        bytes.ok_or_else(|| Rejection::not_found(format!("the log has no {path}")))
    }

    /// The entries of a bundle, for those who have an auditor's key.
    pub(crate) async fn entry_bundle(
        &self,
        path: &str,
        authorization: Option<&[u8]>,
    ) -> Result<Vec<u8>, Rejection> {
        let key = bearer_token(authorization)?;
        if !AuditorKeyHash::admit(&self.settings.auditor_key_hashes, key) {
            return Err(Rejection::unauthorized(
                "this is not the key of an auditor; the operator gives such keys",
            ));
        }
        let bundle = EntryBundle::parse(path).map_err(|error| Rejection::not_found(error.to_string()))?;
        tracing::info!(path, "an auditor reads entries");
        let bytes = self.log.entry_bundle(bundle).await?;
        bytes.ok_or_else(|| Rejection::not_found(format!("the log has no {path}")))
    }

    /// Adds the caller's cosignature to a checkpoint of the last seconds.
    pub(crate) async fn cosign(
        &self,
        caller: AccountId,
        request: CosignatureRequest,
    ) -> Result<CosignatureAnswer, Rejection> {
        // Whoever never had anything to do with the ledger can't use up the places.
        if self.ledger.history(&caller, None, 1).await?.is_empty() {
            return Err(Rejection::forbidden(
                "only accounts that are in the ledger can cosign; open a channel, or earn something first",
            ));
        }
        let CosignatureRequest { size, cosignature } = request;
        let cosigned = self.log.cosign(&caller, size, &cosignature).await?;
        tracing::debug!(size, account = %caller, cosignatures = cosigned.cosignatures, "checkpoint cosigned");
        Ok(CosignatureAnswer {
            size: cosigned.size,
            cosignatures: u64::try_from(cosigned.cosignatures).unwrap_or(u64::MAX),
        })
    }

    /// One receipt of the caller with all that proves it.
    pub(crate) async fn receipt(&self, caller: AccountId, sequence: u64) -> Result<ReceiptView, Rejection> {
        let unknown = || Rejection::not_found(format!("{caller} has no receipt {sequence}"));
        let posted = self.ledger.posted(sequence).await?.ok_or_else(unknown)?;
        let settlement = match &posted.outcome.effect {
            Effect::Settled(settled) if [settled.consumer, settled.provider].contains(&caller) => settled,
            _ => return Err(unknown()),
        };
        let record = self.ledger.record(sequence).await?;
        let record = record
            .filter(|record| record.hash() == posted.record_hash)
            .ok_or_else(|| Self::contradiction("the record of a receipt", sequence))?;
        let checkpoint = self.log.checkpoint_for(sequence);
        let proof = match &checkpoint {
            Some(checkpoint) => Some(
                self.log
                    .prove(sequence, &posted.record_hash, checkpoint)
                    .await?
                    .to_string(),
            ),
            None => None,
        };
        Ok(ReceiptView {
            receipt: receipt(&posted, settlement, &self.keypair),
            log_entry: log_entry_text(&record.log_entry()),
            proof,
        })
    }

    /// The proofs of these records at the newest checkpoint, without cosignatures so that a page stays small. Where
    /// one can't be made, that stands in the logs: the receipts are given all the same.
    pub(super) async fn proofs(&self, page: &[Posted]) -> Vec<Option<String>> {
        let Some(newest) = self.log.newest() else {
            return vec![None; page.len()];
        };
        let checkpoint = newest.without_cosignatures(self.log.keys());
        let mut proofs = Vec::with_capacity(page.len());
        for posted in page {
            proofs.push(self.proof_in(posted, &checkpoint).await);
            // Each takes a few hundred hashes; others have their turn.
            tokio::task::yield_now().await;
        }
        proofs
    }

    async fn proof_in(&self, posted: &Posted, checkpoint: &SignedCheckpoint) -> Option<String> {
        if posted.sequence > checkpoint.size() {
            return None;
        }
        let proof = self
            .log
            .prove(posted.sequence, &posted.record_hash, checkpoint)
            .await;
        proof
            .inspect_err(
                |error| tracing::error!(%error, sequence = posted.sequence, "a receipt has no proof"),
            )
            .ok()
            .map(|proof| proof.to_string())
    }
}

impl From<ProveError> for Rejection {
    fn from(error: ProveError) -> Self {
        match error {
            ProveError::Read(error) => error.into(),
            ProveError::NotInLog { .. } => Self::not_found(error.to_string()),
            ProveError::Contradiction { .. } => Self::unavailable(
                "the coordinator's log does not prove what its ledger says; its operator has to act",
                60,
            ),
        }
    }
}

impl From<CosignError> for Rejection {
    fn from(error: CosignError) -> Self {
        let message = error.to_string();
        match error {
            CosignError::Line(_) | CosignError::Cosignature(_) => Self::invalid_request(message),
            CosignError::NotRecent { .. } => Self::not_found(message),
            CosignError::Full { .. } => Self::rate_limited(message, 1),
            CosignError::Write(_) => Self::unavailable("the coordinator's log can't be written now", 2),
        }
    }
}
