//! How long the coordinator could not be reached, so that providers get that time back: a file says every few
//! seconds that the coordinator lives, and the next start reads when it last did.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::clock::Clock;

const FILE_NAME: &str = "heartbeat";
/// How often the file is written.
const INTERVAL: Duration = Duration::from_secs(2);
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
    pub(crate) async fn run(self, stopping: CancellationToken) {
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
                return;
            }
            tokio::select! {
                () = stopping.cancelled() => {}
                () = tokio::time::sleep(INTERVAL) => {}
            }
        }
    }
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
        heartbeat.clone().run(stopping).await;
        assert_eq!(heartbeat.last_ms(), Some(1_234));
        fs::write(directory.path().join(FILE_NAME), "").unwrap();
        assert_eq!(heartbeat.last_ms(), None);
    }
}
