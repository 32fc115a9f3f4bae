//! The thread that makes snapshots: from the one before and the journal, whenever a segment of the journal is full.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::replay::{Replay, ReplayError, ReplaySource};
use super::{OpenError, Shared};
use crate::index::IndexedEntry;
use crate::snapshot;

/// So many snapshots are kept: if the newest is damaged, there is another one.
const KEPT: usize = 2;
/// After so many records it looks whether it shall end, and gives way if somebody posts.
const RECORDS_AT_ONCE: u64 = 256;
/// The journal grows by so many times the size of a snapshot before there is another one.
const STATE_SHARE: u64 = 2;
/// How long it gives way.
const PAUSE: Duration = Duration::from_millis(1);

/// What the keeper is told.
#[derive(Debug, Default)]
pub(super) struct KeeperSignal {
    state: Mutex<Signals>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Signals {
    /// The segment that is being written.
    segment: u32,
    /// The last full segment and its last record, until the keeper has taken it.
    full: Option<Full>,
    is_last: bool,
}

/// A segment that is full.
#[derive(Clone, Copy, Debug)]
struct Full {
    segment: u32,
    last: u64,
}

impl KeeperSignal {
    /// The journal goes on in this segment.
    pub(super) fn new(segment: u32) -> Self {
        let signal = Self::default();
        signal.set(|signals| signals.segment = segment);
        signal
    }

    /// These were written.
    pub(super) fn notify(&self, entries: &[IndexedEntry]) {
        let Some(first) = entries.first() else {
            return;
        };
        self.set(|signals| {
            // A batch is in one segment as a whole.
            if first.location.segment > signals.segment {
                signals.full = Some(Full {
                    segment: signals.segment,
                    last: first.sequence.saturating_sub(1),
                });
                signals.segment = first.location.segment;
            }
        });
    }

    fn end(&self) {
        self.set(|signals| signals.is_last = true);
    }

    fn set(&self, change: impl FnOnce(&mut Signals)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        if state.full.is_some() || state.is_last {
            self.changed.notify_one();
        }
    }

    fn is_last(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).is_last
    }

    /// Waits for a full segment; `None` at the end.
    fn wait(&self) -> Option<Full> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if state.is_last {
                return None;
            }
            if let Some(full) = state.full.take() {
                return Some(full);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// The handle of the thread.
pub(super) struct SnapshotKeeper {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

impl SnapshotKeeper {
    pub(super) fn spawn(shared: &Arc<Shared>) -> Result<Self, OpenError> {
        let for_thread = Arc::clone(shared);
        let thread = std::thread::Builder::new()
            .name("ledger-snapshot".into())
            .spawn(move || run(&for_thread))
            .map_err(OpenError::Thread)?;
        Ok(Self {
            shared: Arc::clone(shared),
            thread,
        })
    }

    /// Ends it; a snapshot that is being made is given up.
    pub(super) fn finish(self) {
        self.shared.keeper.end();
        if self.thread.join().is_err() {
            tracing::error!(
                "the thread that makes the ledger's snapshots panicked; the next start takes longer"
            );
        }
    }
}

fn run(shared: &Shared) {
    // Its own reader, so that it does not disturb others who read in a row.
    let source = ReplaySource {
        records: Arc::new(shared.own_reader()),
        ..shared.source.clone()
    };
    while let Some(full) = shared.keeper.wait() {
        if !is_due(&source, full.segment, shared.segment_bytes) {
            continue;
        }
        if let Err(error) = make(shared, &source, full.last) {
            let sequence = full.last;
            tracing::error!(%error, sequence, "a snapshot can't be made from the journal: run 'gristmill ledger audit'");
        }
    }
}

/// Whether enough was written since the newest snapshot: a large state is not written as often as a small one.
fn is_due(source: &ReplaySource, full_segment: u32, segment_bytes: u64) -> bool {
    let (disk, directory) = (&*source.disk, &source.snapshots);
    let newest = snapshot::list(disk, directory)
        .ok()
        .and_then(|found| found.first().copied());
    let newest = newest.and_then(|sequence| {
        let header = snapshot::read_header(disk, directory, sequence).ok()?;
        let file = disk.open_to_read(&snapshot::path(directory, sequence)).ok()?;
        Some((header.location.segment, file.length().ok()?))
    });
    let Some((segment, snapshot_bytes)) = newest else {
        return true;
    };
    let written = u64::from(full_segment.saturating_sub(segment)).saturating_mul(segment_bytes);
    written > 0 && written >= snapshot_bytes.saturating_mul(STATE_SHARE)
}

/// Makes the snapshot after this record.
fn make(shared: &Shared, source: &ReplaySource, sequence: u64) -> Result<(), ReplayError> {
    let mut replay = Replay::from_snapshot(source, sequence);
    while replay.next_sequence() <= sequence {
        let first = replay.next_sequence();
        let last = sequence.min(first + RECORDS_AT_ONCE - 1);
        let place = replay.place();
        source.records.read(
            first,
            last,
            || Some(place),
            |location, record| replay.apply(location, record).map(|_| ()),
        )?;
        if shared.keeper.is_last() {
            return Ok(());
        }
        if shared.inbox.has_unanswered() {
            std::thread::sleep(PAUSE);
        }
    }
    save(source, &replay);
    Ok(())
}

/// Keeps a replay as a snapshot. If the disk does not take it, the next start just takes longer.
pub(super) fn save(source: &ReplaySource, replay: &Replay) {
    let Some(header) = replay.header() else {
        return;
    };
    let (disk, directory) = (&*source.disk, &source.snapshots);
    let saved = snapshot::write(disk, directory, &header, &replay.book)
        .and_then(|()| snapshot::prune(disk, directory, KEPT));
    if let Err(error) = saved {
        tracing::warn!(directory = %directory.display(), %error, "a snapshot of the ledger can't be kept");
    }
}
