//! Ends channels whose time is over, so that what they still hold returns to their consumers.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use gristmill_ledger::entry::{CloseChannel, CloseReason, Entry};
use gristmill_ledger::ledger::PostError;
use tokio_util::sync::CancellationToken;

use crate::service::Service;

/// How often the sweeper looks.
const INTERVAL: Duration = Duration::from_secs(1);
/// Most channels that it ends at once.
const BATCH_MAX: usize = 256;

/// Ends expired channels until told to stop.
pub(crate) async fn run(service: Arc<Service>, stopping: CancellationToken) {
    loop {
        let swept = sweep(&service).await;
        let more = swept == BATCH_MAX;
        tokio::select! {
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(if more { Duration::ZERO } else { INTERVAL }) => {}
        }
    }
}

/// Ends one batch and says how many channels it ended.
async fn sweep(service: &Service) -> usize {
    let expired = service.expired_channels(BATCH_MAX);
    let close = |channel| {
        service.post(Entry::CloseChannel(CloseChannel {
            channel,
            reason: CloseReason::Expired,
        }))
    };
    let posted = join_all(expired.iter().map(|channel| close(*channel))).await;
    let mut swept = 0;
    for (channel, posted) in expired.iter().zip(posted) {
        match posted {
            Ok(_) => swept += 1,
            // The next look finds it again.
            Err(PostError::Refused(refusal)) => tracing::debug!(%channel, %refusal, "channel not ended"),
            Err(error) => tracing::error!(%channel, %error, "channel not ended"),
        }
    }
    if swept > 0 {
        tracing::info!(channels = swept, "expired channels ended");
    }
    swept
}
