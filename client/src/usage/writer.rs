//! Writes finished requests down, beside everything else.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::store::{UsageFileError, UsageFiles};
use crate::core::finished_request::FinishedRequest;

/// Most requests that are written at once.
const BATCH_REQUESTS: usize = 256;
/// How long requests are gathered before they are written: each time costs two switches between threads. A program
/// that is killed loses so much.
const GATHER_TIME: Duration = Duration::from_millis(25);
/// For so long what was written may be lost in a power cut, though not when this program is killed.
const SYNC_DELAY: Duration = Duration::from_secs(1);
/// How long to wait after the disk refused.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);

/// The part that has to be run.
pub(crate) struct UsageWriter {
    queue: mpsc::Receiver<Arc<FinishedRequest>>,
    work: Work,
}

/// What is written, in the order in which it came, and where to.
struct Work {
    files: UsageFiles,
    batch: Vec<Arc<FinishedRequest>>,
}

impl UsageWriter {
    pub(super) fn new(folder: PathBuf, queue: mpsc::Receiver<Arc<FinishedRequest>>) -> Self {
        let work = Work {
            files: UsageFiles::new(folder),
            batch: Vec::new(),
        };
        Self { queue, work }
    }

    /// Writes what comes until `ended`, and then what is left.
    pub(crate) async fn run(mut self, ended: CancellationToken) {
        let mut was_refused = false;
        while !ended.is_cancelled() {
            let has_come = tokio::select! {
                () = ended.cancelled() => break,
                has_come = self.gather() => has_come,
            };
            let (work, outcome) = self.work.write(!has_come).await;
            self.work = work;
            if let Err(error) = outcome {
                // Once, and not every second.
                if !std::mem::replace(&mut was_refused, true) {
                    tracing::error!(%error, "usage is not written down; it is tried again");
                }
                tokio::select! {
                    () = ended.cancelled() => {}
                    () = sleep(REFUSED_PAUSE) => {}
                }
            } else {
                was_refused = false;
            }
        }
        self.queue.close();
        while let Ok(request) = self.queue.try_recv() {
            self.work.batch.push(request);
        }
        let left = self.work.batch.len();
        if let (_, Err(error)) = self.work.write(true).await {
            tracing::error!(%error, left, "usage was not written down");
        }
    }

    /// Waits for requests. Tells whether any came before what was written has to be synced.
    async fn gather(&mut self) -> bool {
        let batch = &mut self.work.batch;
        let room = BATCH_REQUESTS.saturating_sub(batch.len());
        if room == 0 {
            return true;
        }
        let is_synced = self.work.files.is_synced() && batch.is_empty();
        let come = self.queue.recv_many(batch, room);
        let have_come = match is_synced {
            true => come.await,
            false => match timeout(SYNC_DELAY, come).await {
                Ok(come) => come,
                Err(_) => return false,
            },
        };
        if (1..room).contains(&have_come) {
            sleep(GATHER_TIME).await;
            while self.work.batch.len() < BATCH_REQUESTS
                && let Ok(request) = self.queue.try_recv()
            {
                self.work.batch.push(request);
            }
        }
        true
    }
}

impl Work {
    /// Writes the batch; what can't be written stays in it.
    async fn write(mut self, is_to_sync: bool) -> (Self, Result<(), UsageFileError>) {
        let write = move || {
            let mut written = 0;
            let outcome = loop {
                match self.batch.get(written) {
                    Some(request) => match self.files.append(request) {
                        Ok(()) => written += 1,
                        Err(error) => break Err(error),
                    },
                    None if is_to_sync => break self.files.sync(),
                    None => break Ok(()),
                }
            };
            self.batch.drain(..written);
            (self, outcome)
        };
        match spawn_blocking(write).await {
            Ok(done) => done,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime ends, and with it this task.
                Err(_) => std::future::pending().await,
            },
        }
    }
}
