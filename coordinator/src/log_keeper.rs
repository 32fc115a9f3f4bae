//! Keeps the Merkle log up with the ledger: every record is covered by a published checkpoint within a second.

use std::sync::Arc;
use std::time::Duration;

use gristmill_ledger::Ledger;
use gristmill_ledger::log::{Integration, Log, LogError, LogSigner, OpenLogError};
use gristmill_protocol::handover::HandoverError;
use gristmill_protocol::identity::Keypair;
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use crate::service::Service;
use crate::signers::Signers;

/// Why there is no log to keep.
#[derive(Debug, Error)]
pub enum LogKeeperError {
    /// It can't be opened.
    #[error(transparent)]
    Open(#[from] OpenLogError),
    /// The hand-overs in the ledger do not lead to the key here.
    #[error("the hand-overs of the signing key in the ledger do not hold: {0}. Run 'gristmill ledger audit'")]
    Handover(#[from] HandoverError),
    /// What is stored contradicts what was signed.
    #[error(
        "the ledger's Merkle log can't be signed any more: {reason}. Entries that nobody can prove are not taken; run \
         'gristmill ledger audit', and restore the ledger from a backup that has everything"
    )]
    Halted {
        /// What was found.
        reason: String,
    },
}

/// The log of a ledger.
///
/// # Errors
/// [`LogKeeperError`]
pub(crate) async fn open(
    ledger: &Ledger,
    keypair: &Keypair,
    signers: &Signers,
) -> Result<Log, LogKeeperError> {
    let signer = LogSigner::new(keypair.clone(), signers.log(), signers.handovers().to_vec())?;
    let log = Log::open(ledger.store(), signer).await?;
    match log.halted() {
        None => Ok(log),
        Some(reason) => Err(LogKeeperError::Halted {
            reason: reason.to_owned(),
        }),
    }
}

/// How often the keeper looks for new records.
const INTERVAL: Duration = Duration::from_millis(200);
/// The longest that it waits after a failure.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// Integrates records until told to stop.
pub(crate) async fn run(service: Arc<Service>, stopping: CancellationToken) {
    let mut failures = 0;
    loop {
        let wait = match service.log().integrate().await {
            Ok(integration) => {
                failures = 0;
                tell(&integration);
                if integration.more {
                    Duration::ZERO
                } else {
                    INTERVAL
                }
            }
            Err(LogError::Halted { .. }) => {
                // The reason stands in the logs, calls are refused with it, and only a person can help.
                stopping.cancelled().await;
                return;
            }
            Err(error @ (LogError::Read(_) | LogError::Write(_))) => {
                failures += 1;
                let wait = wait_after(failures);
                tracing::warn!(%error, failures, ?wait, "the Merkle log does not grow now");
                wait
            }
        };
        tokio::select! {
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Integrates what came in last, once nothing more can.
pub(crate) async fn finish(service: &Service) {
    loop {
        match service.log().integrate().await {
            Ok(integration) if integration.more => {}
            Ok(_) | Err(LogError::Halted { .. }) => return,
            Err(error) => {
                tracing::warn!(%error, "the last records are not in the Merkle log yet; the next start adds them");
                return;
            }
        }
    }
}

fn tell(integration: &Integration) {
    let Integration {
        size,
        integrated,
        more,
    } = *integration;
    if more {
        tracing::info!(size, "records are being put into the Merkle log");
    } else if integrated > 0 {
        tracing::debug!(size, integrated, "the Merkle log has grown");
    }
}

/// Doubles with each failure in a row.
fn wait_after(failures: u32) -> Duration {
    INTERVAL
        .saturating_mul(2_u32.saturating_pow(failures.min(16)))
        .min(WAIT_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound() {
        let waits = [1, 2, 4, 5, 60, u32::MAX].map(|failures| wait_after(failures).as_millis());
        assert_eq!(waits, [400, 800, 3_200, 5_000, 5_000, 5_000]);
    }
}
