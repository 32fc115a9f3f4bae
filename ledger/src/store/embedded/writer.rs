//! The one thread that decides: takes what is waiting, tries it on a draft, has it written and synced together, and
//! only then lets anybody see it.
//!
//! Two batches are on their way at once. While one is at the disk, the next is decided about on a draft over the book
//! and the batch before it. The book that readers see never has anything that is not synced. Where many entries come,
//! the writer lets some of them gather before it begins: [`super::pace`].

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use std::vec;

use tokio::sync::{oneshot, watch};

use super::admission::{Admission, MonotonicClock};
use super::background::Background;
use super::batch::{Batch, DecideError};
use super::disk_thread::{DiskThread, NotWritten, Written};
use super::inbox::{Awaited, Woken};
use super::pace::Pace;
use super::salts::Salts;
use super::{EmbeddedOptions, Shared};
use crate::entry::CheckedEntry;
use crate::index::IndexedEntry;
use crate::journal::{Journal, NewRecord};
use crate::store::PostError;

/// Posts that are worth waking up for while others are at the disk or gathering.
pub(super) const POSTS_WORTH_WAKING: usize = 32;

/// An entry to write.
pub(super) struct Post {
    pub(super) entry: CheckedEntry,
    pub(super) time_ms: u64,
    pub(super) answer: oneshot::Sender<Result<Answer, PostError>>,
}

/// How a post went that was not refused.
pub(super) enum Answer {
    /// It is in the journal: the entry at this place of a batch.
    Now(Arc<Vec<IndexedEntry>>, usize),
    /// It was in the journal under this sequence.
    Before(u64),
}

/// How the writer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WriterState {
    /// At work.
    Running,
    /// It has given everything free.
    Ended,
    /// An error of this program ended it.
    Panicked,
}

/// Starts the writer. The receiver says when it has ended.
pub(super) fn spawn(
    shared: Arc<Shared>,
    journal: Journal,
    background: Background,
    options: &EmbeddedOptions,
) -> io::Result<watch::Receiver<WriterState>> {
    let (state, watched) = watch::channel(WriterState::Running);
    let clock = Arc::clone(&options.clock);
    let disk = DiskThread::spawn(Arc::clone(&shared), Arc::clone(&clock), journal)?;
    let open = Batch::new(shared.book().no_changes());
    let writer = Writer {
        shared: Arc::clone(&shared),
        disk,
        clock,
        admission: options.admission(),
        batch_entries: options.batch_entries.max(1),
        undecided: Vec::new().into_iter(),
        open,
        records: Vec::new(),
        salts: Salts::default(),
        flying: None,
        pace: Pace::default(),
        has_gathered: false,
        work: Duration::ZERO,
        noted: Duration::ZERO,
    };
    std::thread::Builder::new()
        .name("ledger-writer".into())
        .spawn(move || {
            // The writer is consumed, so the journal is closed before anybody hears that it is.
            let ended = catch_unwind(AssertUnwindSafe(|| writer.run())).is_ok();
            if !ended {
                shared.fail("the ledger's writer panicked".into());
            }
            shared.inbox.abandon();
            background.finish();
            state.send_replace(if ended {
                WriterState::Ended
            } else {
                WriterState::Panicked
            });
        })?;
    Ok(watched)
}

struct Writer {
    shared: Arc<Shared>,
    disk: DiskThread,
    clock: Arc<dyn MonotonicClock>,
    admission: Admission,
    batch_entries: usize,
    /// Taken from the inbox.
    undecided: vec::IntoIter<Post>,
    /// Decided about, waiting for the disk to be free.
    open: Batch,
    /// What has to be written of `open`.
    records: Vec<NewRecord>,
    salts: Salts,
    /// At the disk.
    flying: Option<Batch>,
    pace: Pace,
    /// Whether `open` has waited for others as long as it should.
    has_gathered: bool,
    /// Time spent since the last batch came back from the disk, up to `noted`.
    work: Duration,
    noted: Duration,
}

impl Writer {
    fn run(mut self) {
        self.noted = self.clock.now();
        loop {
            if let Some(written) = self.shared.inbox.take_written() {
                self.land(written);
            }
            if self.take_more() {
                self.decide();
                continue;
            }
            let gathering = self.gathering();
            if self.may_launch() && gathering.is_none() {
                self.launch();
                continue;
            }
            self.note_work();
            match self.shared.inbox.wait(self.awaited(gathering)) {
                Woken::Something => {}
                Woken::TimedOut => self.has_gathered = true,
                Woken::Ended => return,
            }
            self.noted = self.clock.now();
        }
    }

    fn has_room(&self) -> bool {
        self.open.len() < self.batch_entries
    }

    /// Takes what is waiting, if there is room for it. Whether there is anything to decide about.
    fn take_more(&mut self) -> bool {
        if self.undecided.len() == 0 {
            self.undecided = self.shared.inbox.take_posts().into_iter();
        }
        self.has_room() && self.undecided.len() > 0
    }

    fn may_launch(&self) -> bool {
        self.flying.is_none() && !self.open.is_empty()
    }

    /// How long the open batch waits for more entries, where it could begin.
    fn gathering(&self) -> Option<Duration> {
        let gathers = self.may_launch() && self.open.has_entries() && !self.has_gathered;
        let wait = || self.pace.wait(self.open.len(), self.clock.now());
        gathers.then(wait).flatten()
    }

    fn awaited(&self, gathering: Option<Duration>) -> Awaited {
        let posts = match self.has_room() {
            true if self.flying.is_none() && gathering.is_none() => 1,
            true => POSTS_WORTH_WAKING.min(self.batch_entries - self.open.len()),
            false => usize::MAX,
        };
        Awaited {
            posts,
            is_certain: self.flying.is_some() || gathering.is_some(),
            timeout: gathering,
        }
    }

    /// Decides about what is waiting, until the disk is free or the batch is full.
    fn decide(&mut self) {
        if let Some(reason) = self.shared.failure() {
            let error = PostError::ReadOnly { reason };
            let count = self.undecided.len();
            self.about_to_answer(count);
            for post in self.undecided.by_ref() {
                let _ = post.answer.send(Err(error.clone()));
            }
            return;
        }
        let inbox = &self.shared.inbox;
        let batch_entries = self.batch_entries;
        let decided = self.open.decide(
            &self.shared.book(),
            self.flying.as_ref().map(|batch| &batch.changes),
            &mut self.undecided,
            &mut self.records,
            &mut self.salts,
            |count| count >= batch_entries || inbox.is_written(),
        );
        if let Err(error) = decided {
            let error = self.shared.fail(match error {
                DecideError::Broken(broken) => broken.to_string(),
                DecideError::NoSalt(reason) => reason,
            });
            self.fail_open(&error);
        }
    }

    /// Hands the open batch to the disk. What needs no disk is answered once nothing before it does.
    fn launch(&mut self) {
        let next = Batch::new(self.open.changes.followed());
        let batch = std::mem::replace(&mut self.open, next);
        self.has_gathered = false;
        if !batch.has_entries() {
            self.about_to_answer(batch.len());
            return batch.answer(&Arc::default());
        }
        let room = Vec::with_capacity(self.records.len());
        let records = std::mem::replace(&mut self.records, room);
        self.pace.began(records.len(), self.clock.now());
        self.flying = Some(batch);
        if !self.disk.write(records) {
            let error = self.shared.fail("the ledger's disk thread has ended".into());
            self.fail_all(&error);
        }
    }

    /// What was at the disk came back. If it is there, the next batch goes first, so that the disk is not idle.
    fn land(&mut self, written: Written) {
        let Some(mut batch) = self.flying.take() else {
            return;
        };
        let locations = match written.outcome {
            Ok(locations) => locations,
            Err(not_written) => {
                self.flying = Some(batch);
                let error = match not_written {
                    NotWritten::DiskFull(reason) => {
                        tracing::warn!(reason, "the ledger's disk is full");
                        PostError::DiskFull { reason }
                    }
                    NotWritten::Failed(reason) => self.shared.fail(reason),
                };
                return self.fail_all(&error);
            }
        };
        let entries = batch.written(&locations);
        // Before the book, so that whoever sees the entry in the book finds it here.
        self.shared.recent.add(Arc::clone(&entries));
        let changes = std::mem::replace(&mut batch.changes, self.open.changes.followed());
        let committed = self
            .shared
            .book
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .commit(changes);
        if let Err(broken) = committed {
            let error = self.shared.fail(broken.to_string());
            self.flying = Some(batch);
            return self.fail_all(&error);
        }
        if self.take_more() {
            self.decide();
        }
        if self.open.has_entries() && self.gathering().is_none() {
            self.launch();
        }
        self.shared.show_written(&entries);
        self.note_work();
        let work = std::mem::take(&mut self.work);
        self.admission.measured(batch.len(), work, written.took);
        self.about_to_answer(batch.len());
        batch.answer(&entries);
    }

    fn note_work(&mut self) {
        let now = self.clock.now();
        self.work += now.saturating_sub(self.noted);
        self.noted = now;
    }

    /// Makes room for so many before they hear their answers, so that they can post at once.
    fn about_to_answer(&self, count: usize) {
        self.shared.inbox.answered(count, self.admission.limit());
    }

    /// Nothing of the open batch happened.
    fn fail_open(&mut self, error: &PostError) {
        let before = match &self.flying {
            Some(batch) => batch.changes.followed(),
            None => self.shared.book().no_changes(),
        };
        let batch = std::mem::replace(&mut self.open, Batch::new(before));
        self.records.clear();
        self.about_to_answer(batch.len());
        batch.fail(error);
    }

    /// Nothing of what is on its way happened: the open batch rests on the one at the disk.
    fn fail_all(&mut self, error: &PostError) {
        if let Some(batch) = self.flying.take() {
            self.about_to_answer(batch.len());
            batch.fail(error);
        }
        self.fail_open(error);
    }
}
