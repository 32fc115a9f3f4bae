//! How long no call could be answered, so that providers get that time back.
//!
//! A ledger in a folder has one process: a file says every few seconds that it lives, and the next start reads when
//! it last did. Processes on one database say so in the database, each every second, and only a time in which none of
//! them did counts: whoever notices it first posts it, once, before any expired channel is ended.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gristmill_ledger::entry::{Entry, Started};
use gristmill_ledger::store::{Beat, PostError, ReadError};
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::service::Service;
use crate::signers::{Signers, SignersError};

const FILE_NAME: &str = "heartbeat";
/// How often the file is written.
const INTERVAL: Duration = Duration::from_secs(2);
/// How often each process on a database says that it lives.
const SHARED_INTERVAL: Duration = Duration::from_secs(1);
/// Gaps on a database up to this long are not counted: a process may be late once.
const SHARED_UNNOTICED_MS: u64 = 5_000;
/// How often a start looks whether another process has posted the gap, and how long it does.
const TURN_INTERVAL: Duration = Duration::from_millis(200);
const TURN_TIMEOUT: Duration = Duration::from_secs(60);
/// Gaps up to this long are not counted: nobody waits for a new entry in the journal because of them.
const UNNOTICED_MS: u64 = 1_000;

/// The file that says when the coordinator last lived. It is not synced: after a power cut it may be some seconds
/// older than the truth, or lost, and then the downtime is counted longer, in the providers' favour.
#[derive(Clone, Debug)]
pub(crate) struct Heartbeat {
    path: PathBuf,
    clock: Clock,
}

impl Heartbeat {
    /// The heartbeat in a directory.
    pub(crate) fn new(directory: &Path, clock: Clock) -> Self {
        Self {
            path: directory.join(FILE_NAME),
            clock,
        }
    }

    /// When the coordinator last lived, Unix milliseconds; `None` where no file says so.
    pub(crate) fn last_ms(&self) -> Option<u64> {
        fs::read_to_string(&self.path).ok()?.trim().parse().ok()
    }

    /// Writes that the coordinator lives now.
    pub(crate) fn beat(&self) -> io::Result<()> {
        let next = self.path.with_extension("next");
        fs::write(&next, format!("{}\n", self.clock.now_ms()))?;
        fs::rename(&next, &self.path)
    }

    /// Beats until told to stop, and once more then.
    pub(crate) async fn run(self, stopping: CancellationToken) -> io::Result<()> {
        loop {
            let heartbeat = self.clone();
            match tokio::task::spawn_blocking(move || heartbeat.beat()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(%error, path = %self.path.display(), "heartbeat not written");
                }
                Err(error) => tracing::warn!(%error, "heartbeat not written"),
            }
            if stopping.is_cancelled() {
                return Ok(());
            }
            tokio::select! {
                () = stopping.cancelled() => {}
                () = tokio::time::sleep(INTERVAL) => {}
            }
        }
    }
}

/// Why the time in which no call could be answered is not on record.
#[derive(Debug, Error)]
pub(crate) enum DowntimeError {
    /// It can't be read when a process last lived.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It can't be posted.
    #[error(transparent)]
    Post(#[from] PostError),
    /// Another process has claimed to post it and does not.
    #[error("another coordinator on the same database has begun to start and does not get on")]
    Waiting,
}

/// Says that this process lives, where several may, and posts the time in which none did. False where another process
/// is about to post it: then nothing may be ended yet for being late.
pub(crate) async fn beat(service: &Service, now_ms: u64) -> Result<bool, DowntimeError> {
    let beat = service.ledger.store().beat(now_ms, SHARED_UNNOTICED_MS).await?;
    count(service, beat, now_ms).await
}

async fn count(service: &Service, beat: Beat, now_ms: u64) -> Result<bool, DowntimeError> {
    match beat {
        Beat::Alone | Beat::Counted => Ok(true),
        Beat::Waiting => Ok(false),
        Beat::Gap { alive_ms } => {
            // A record is a sign of life too, and the one of this gap, where its writer died before ending it.
            let last_record_ms = service.ledger.head().await?.last_time_ms;
            post(service, downtime_ms(Some(alive_ms), Some(last_record_ms), now_ms)).await?;
            service.ledger.store().end_gap(now_ms).await?;
            Ok(true)
        }
    }
}

/// Puts on record how long no call could be answered before this start.
pub(crate) async fn record_start(
    service: &Service,
    heartbeat: &Heartbeat,
    clock: &Clock,
) -> Result<(), DowntimeError> {
    let now_ms = clock.now_ms();
    let first = service.ledger.store().beat(now_ms, SHARED_UNNOTICED_MS).await?;
    if first == Beat::Alone {
        let last_record_ms = Some(service.ledger.head().await?.last_time_ms).filter(|time_ms| *time_ms > 0);
        return post(service, downtime_ms(heartbeat.last_ms(), last_record_ms, now_ms)).await;
    }
    let turn = async {
        let mut is_counted = count(service, first, now_ms).await?;
        while !is_counted {
            tokio::time::sleep(TURN_INTERVAL).await;
            is_counted = beat(service, clock.now_ms()).await?;
        }
        Ok(())
    };
    tokio::time::timeout(TURN_TIMEOUT, turn)
        .await
        .unwrap_or(Err(DowntimeError::Waiting))
}

/// Says every second that this process lives, where several may, until told to stop. Ends with an error once another
/// key than this process's signs for the ledger.
pub(crate) async fn run_shared(service: Arc<Service>, stopping: CancellationToken) -> io::Result<()> {
    loop {
        if let Err(error) = beat(&service, service.now_ms()).await {
            tracing::warn!(%error, "this process can't say that it lives");
        }
        match Signers::read(&service.ledger).await {
            Ok(Some(signers)) => signers.check(service.operator()).map_err(io::Error::other)?,
            Ok(None) | Err(SignersError::Read(_)) => {}
            Err(error) => return Err(io::Error::other(error)),
        }
        tokio::select! {
            () = stopping.cancelled() => return Ok(()),
            () = tokio::time::sleep(SHARED_INTERVAL) => {}
        }
    }
}

/// Gives every open channel the time in which it could not be redeemed.
async fn post(service: &Service, downtime_ms: u64) -> Result<(), DowntimeError> {
    if downtime_ms == 0 {
        return Ok(());
    }
    tracing::info!(downtime_ms, "open channels are extended by the downtime");
    service.post(Entry::Started(Started { downtime_ms })).await?;
    Ok(())
}

/// How long the coordinator was away, from the last sign of life: its heartbeat or its newest record. Zero where it
/// never lived, where the gap is too short to matter, and where the clock was set back.
pub(crate) fn downtime_ms(heartbeat_ms: Option<u64>, last_record_ms: Option<u64>, now_ms: u64) -> u64 {
    let last_alive_ms = heartbeat_ms.max(last_record_ms).unwrap_or(now_ms);
    let away_ms = now_ms.saturating_sub(last_alive_ms);
    if away_ms > UNNOTICED_MS { away_ms } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn downtime_counts_from_the_last_sign_of_life() {
        assert_eq!(downtime_ms(None, None, 100_000), 0);
        assert_eq!(downtime_ms(Some(90_000), None, 100_000), 10_000);
        assert_eq!(downtime_ms(Some(90_000), Some(95_000), 100_000), 5_000);
        assert_eq!(downtime_ms(None, Some(40_000), 100_000), 60_000);
        assert_eq!(downtime_ms(Some(99_000), None, 100_000), 0);
        assert_eq!(downtime_ms(Some(98_999), None, 100_000), 1_001);
        assert_eq!(downtime_ms(Some(200_000), None, 100_000), 0);
    }

    #[tokio::test]
    async fn the_file_keeps_the_last_beat() {
        let directory = tempfile::tempdir().unwrap();
        let heartbeat = Heartbeat::new(directory.path(), Clock::new(|| 1_234));
        assert_eq!(heartbeat.last_ms(), None);
        let stopping = CancellationToken::new();
        stopping.cancel();
        heartbeat.clone().run(stopping).await.unwrap();
        assert_eq!(heartbeat.last_ms(), Some(1_234));
        fs::write(directory.path().join(FILE_NAME), "").unwrap();
        assert_eq!(heartbeat.last_ms(), None);
    }
}
