//! The thread that writes batches to the journal and syncs them, so that the writer can decide about the next batch
//! meanwhile.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::Shared;
use super::admission::MonotonicClock;
use crate::journal::{Journal, JournalError, Location, NewRecord};

/// How writing a batch went.
pub(super) struct Written {
    /// Where its records are, all of them synced.
    pub(super) outcome: Result<Vec<Location>, NotWritten>,
    /// How long it took.
    pub(super) took: Duration,
}

/// Why a batch is not on the disk.
pub(super) enum NotWritten {
    /// There is no space. Nothing of it is in the journal.
    DiskFull(String),
    /// Nobody knows what is on the disk.
    Failed(String),
}

/// The handle of the thread. Dropping it closes the journal.
pub(super) struct DiskThread {
    batches: Option<SyncSender<Vec<NewRecord>>>,
    thread: Option<JoinHandle<()>>,
}

impl DiskThread {
    pub(super) fn spawn(
        shared: Arc<Shared>,
        clock: Arc<dyn MonotonicClock>,
        journal: Journal,
    ) -> io::Result<Self> {
        let (batches, waiting) = sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("ledger-disk".into())
            .spawn(move || run(&shared, &*clock, journal, &waiting))?;
        Ok(Self {
            batches: Some(batches),
            thread: Some(thread),
        })
    }

    /// Hands a batch over; [`super::inbox::Inbox::deliver`] gives the answer. False where the thread is gone.
    pub(super) fn write(&self, records: Vec<NewRecord>) -> bool {
        self.batches
            .as_ref()
            .is_some_and(|batches| batches.send(records).is_ok())
    }
}

impl Drop for DiskThread {
    fn drop(&mut self) {
        self.batches = None;
        if let Some(thread) = self.thread.take() {
            // It catches its own panics.
            let _ = thread.join();
        }
    }
}

fn run(
    shared: &Shared,
    clock: &dyn MonotonicClock,
    mut journal: Journal,
    batches: &Receiver<Vec<NewRecord>>,
) {
    // After a failure too: the journal then refuses, and stays locked as long as this store is there.
    while let Ok(records) = batches.recv() {
        let started = clock.now();
        let written = catch_unwind(AssertUnwindSafe(|| write(&mut journal, &records)));
        let outcome =
            written.unwrap_or_else(|_| Err(NotWritten::Failed("writing the journal panicked".into())));
        shared.inbox.deliver(Written {
            outcome,
            took: clock.now().saturating_sub(started),
        });
    }
}

fn write(journal: &mut Journal, records: &[NewRecord]) -> Result<Vec<Location>, NotWritten> {
    let locations = journal.append_batch(records).map_err(|error| match error {
        JournalError::DiskFull { .. } => NotWritten::DiskFull(error.to_string()),
        other => NotWritten::Failed(other.to_string()),
    })?;
    // Here a full disk is as bad as any other failure: the batch may be in the journal.
    journal
        .sync()
        .map_err(|error| NotWritten::Failed(error.to_string()))?;
    Ok(locations)
}
