//! Has the node's receipts proved by its witness, and keeps the proofs.

use std::collections::BTreeSet;

use gristmill_protocol::identity::AccountId;
use gristmill_transport::Clock;
use gristmill_transport::witness::{OwnReceipt, ProvedReceipt, RECEIPTS_WAITING_MAX, Witness};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::core::earnings::KeptReceipt;
use crate::known_coordinator::KnownCoordinator;
use crate::proof_file::{KeptProof, ProofFile};

/// Keeps proofs, and hands in the receipts that had none at the start.
pub(crate) struct Prover {
    pub(crate) witness: Witness,
    pub(crate) coordinator: KnownCoordinator,
    pub(crate) unproved: Vec<KeptReceipt>,
    pub(crate) proofs: mpsc::Receiver<Vec<ProvedReceipt>>,
    pub(crate) file: ProofFile,
    pub(crate) clock: Clock,
}

impl Prover {
    /// Keeps proofs until told to stop.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let log = tokio::select! {
            () = stop.cancelled() => return,
            log = self.log() => match log {
                Some(log) => log,
                // The coordinator was never reached.
                None => return stop.cancelled().await,
            },
        };
        let of_log = |receipt: &&KeptReceipt| receipt.coordinator == log;
        let receipts = self.unproved.iter().filter(of_log).map(own_receipt).collect();
        self.witness.prove(receipts).await;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                proved = self.proofs.recv() => match proved {
                    Some(proved) => self.keep(log, proved).await,
                    None => return stop.cancelled().await,
                },
            }
        }
    }

    /// The account that names the log.
    async fn log(&mut self) -> Option<AccountId> {
        let known = self.coordinator.wait_for(Option::is_some).await.ok()?;
        known.as_ref().map(|keys| *keys.first())
    }

    async fn keep(&self, log: AccountId, proved: Vec<ProvedReceipt>) {
        let proofs: Vec<_> = proved
            .into_iter()
            .map(|ProvedReceipt { sequence, proof }| KeptProof { log, sequence, proof })
            .collect();
        let (file, now_ms) = (self.file.clone(), (self.clock)());
        match tokio::task::spawn_blocking(move || file.keep(&proofs, now_ms)).await {
            Ok(Ok(())) => {}
            // What is not kept is proved again after the next start.
            Ok(Err(error)) => tracing::warn!(%error, "proofs of receipts can't be kept on disk"),
            Err(error) => tracing::error!(%error, "keeping proofs of receipts panicked"),
        }
    }
}

/// A receipt as a witness takes it.
pub(crate) fn own_receipt(receipt: &KeptReceipt) -> OwnReceipt {
    OwnReceipt {
        sequence: receipt.sequence,
        token: receipt.token.clone(),
    }
}

/// Collects the receipts that have no proof yet, the newest ones where there are too many.
#[derive(Default)]
pub(crate) struct Unproved {
    pub(crate) proved: BTreeSet<(AccountId, u64)>,
    receipts: Vec<KeptReceipt>,
}

impl Unproved {
    /// Takes a receipt that is kept.
    pub(crate) fn take(&mut self, receipt: KeptReceipt) {
        if !self.proved.contains(&(receipt.coordinator, receipt.sequence)) {
            self.receipts.push(receipt);
        }
        // Twice as many before the older half goes, so that each is moved once at most.
        if self.receipts.len() >= 2 * RECEIPTS_WAITING_MAX {
            self.receipts.drain(..RECEIPTS_WAITING_MAX);
        }
    }

    /// What was collected.
    pub(crate) fn receipts(mut self) -> Vec<KeptReceipt> {
        let older = self.receipts.len().saturating_sub(RECEIPTS_WAITING_MAX);
        if older > 0 {
            tracing::warn!(
                older,
                "so many receipts without a proof are proved after later starts"
            );
        }
        self.receipts.drain(..older);
        self.receipts
    }
}
