//! Ends channels whose time is over, so that what they still hold returns to their consumers.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use gristmill_ledger::entry::{CloseChannel, CloseReason, Entry};
use gristmill_ledger::store::PostError;
use tokio_util::sync::CancellationToken;

use crate::downtime;
use crate::service::Service;

/// How often the sweeper looks.
const INTERVAL: Duration = Duration::from_secs(1);
/// Most channels that it ends at once: calls come first.
const BATCH_MAX: usize = 64;

/// Ends expired channels until told to stop.
pub(crate) async fn run(service: Arc<Service>, stopping: CancellationToken) {
    loop {
        let more = sweep(&service).await == BATCH_MAX;
        tokio::select! {
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(if more { Duration::ZERO } else { INTERVAL }) => {}
        }
    }
}

/// Ends one batch and says how many channels it ended. Of several processes on one database each may try the same
/// ones; the ledger ends a channel once.
async fn sweep(service: &Service) -> usize {
    match downtime::beat(service, service.now_ms()).await {
        Ok(true) => {}
        // While it is not on record how long nobody could redeem, no channel is late.
        Ok(false) => return 0,
        Err(error) => {
            tracing::warn!(%error, "no expired channels are ended now");
            return 0;
        }
    }
    let expired = match service.expired_channels(BATCH_MAX).await {
        Ok(expired) => expired,
        Err(error) => {
            tracing::error!(%error, "expired channels not found");
            return 0;
        }
    };
    let close = |channel| {
        service.post(Entry::CloseChannel(CloseChannel {
            channel,
            reason: CloseReason::Expired,
        }))
    };
    let posted = join_all(expired.iter().map(|channel| close(*channel))).await;
    let (mut swept, mut ended) = (0, 0);
    for (channel, posted) in expired.iter().zip(posted) {
        match posted {
            Ok(posted) => {
                swept += 1;
                ended += usize::from(!posted.repeated);
            }
            // The next look finds it again.
            Err(error @ (PostError::Refused(_) | PostError::Overloaded { .. })) => {
                tracing::debug!(%channel, %error, "channel not ended yet");
            }
            Err(error) => tracing::error!(%channel, %error, "channel not ended"),
        }
    }
    if ended > 0 {
        tracing::info!(channels = ended, "expired channels ended");
    }
    swept
}
