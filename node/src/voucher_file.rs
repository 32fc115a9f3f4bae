//! Keeps the highest voucher of each channel where a restart finds it: in memory at once, on disk at most a tenth of
//! a second later, so that no job waits for a disk.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use gristmill_ledger::journal::{Journal, JournalError};
use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::Signed;
use gristmill_protocol::ids::ChannelId;
use gristmill_protocol::voucher::Voucher;
use gristmill_transport::Clock;
use thiserror::Error;
use tokio::sync::{oneshot, watch};

use crate::core::voucher_book::{ChannelTerms, VoucherBook, VoucherRecord};

mod disk;

pub(crate) use disk::read_book;

/// The pause between two writes: many vouchers share one sync, and none waits for longer than a tenth of a second
/// on a disk that syncs in half of that.
const PAUSE_BETWEEN_WRITES: Duration = Duration::from_millis(40);
/// After how many records the file is written anew with the highest vouchers alone.
const COMPACT_AFTER_RECORDS: u64 = 200_000;

/// Why vouchers could not be written to disk.
#[derive(Clone, Debug, Error)]
#[error("vouchers can't be kept on disk: {0}")]
pub(crate) struct VoucherFileError(Arc<JournalError>);

/// The voucher file of a running node.
pub(crate) struct VoucherFile {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    state: Mutex<State>,
    work: Condvar,
    /// What the disk said, once it has failed. Nothing is written any more then.
    failure: watch::Sender<Option<VoucherFileError>>,
}

#[derive(Default)]
struct State {
    book: VoucherBook,
    /// Channels whose voucher in the book is higher than on disk.
    unwritten: BTreeSet<ChannelId>,
    /// Settlements and refusals that are not on disk.
    notes: Vec<VoucherRecord>,
    /// Who waits until everything so far is on disk.
    waiting: Vec<oneshot::Sender<()>>,
    closing: bool,
}

impl State {
    fn has_work(&self) -> bool {
        !self.unwritten.is_empty() || !self.notes.is_empty() || !self.waiting.is_empty()
    }

    /// What is not on disk yet, each channel's voucher before what became of it.
    fn take_records(&mut self) -> Vec<VoucherRecord> {
        let unwritten = std::mem::take(&mut self.unwritten);
        let vouchers = unwritten
            .iter()
            .filter_map(|channel| self.book.channel(channel))
            .map(|kept| VoucherRecord::Kept {
                voucher: Box::new(kept.voucher.clone()),
                terms: kept.terms,
            });
        let mut records: Vec<_> = vouchers.collect();
        records.append(&mut self.notes);
        records
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl VoucherFile {
    /// Opens the file in `directory`, or begins one, and starts its writer.
    ///
    /// # Errors
    /// [`JournalError`] where the file is damaged, in use or can't be written.
    pub(crate) fn open(directory: PathBuf, clock: Clock) -> Result<Self, JournalError> {
        let (journal, book) = disk::open(&directory, clock())?;
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                book,
                ..State::default()
            }),
            work: Condvar::new(),
            failure: watch::Sender::new(None),
        });
        let for_writer = Arc::clone(&shared);
        let writer = std::thread::Builder::new()
            .name("vouchers".into())
            .spawn(move || write_until_closed(&for_writer, journal, &directory, &clock))
            .map_err(|source| JournalError::Io {
                action: "start a thread for",
                path: "vouchers".into(),
                source,
            })?;
        Ok(Self {
            shared,
            writer: Mutex::new(Some(writer)),
        })
    }

    /// Remembers a voucher. It is on disk soon.
    pub(crate) fn keep(&self, voucher: Box<Signed<Voucher>>, terms: ChannelTerms) {
        let channel = voucher.content_unchecked().channel;
        let mut state = self.shared.lock();
        if state.book.apply(&VoucherRecord::Kept { voucher, terms }) {
            state.unwritten.insert(channel);
            self.shared.work.notify_one();
        }
    }

    /// Remembers how much of a channel is settled in all.
    pub(crate) fn note_settled(&self, channel: ChannelId, settled: Credits) {
        self.note(VoucherRecord::Settled { channel, settled });
    }

    /// Remembers that the coordinator refused a channel's voucher for good.
    pub(crate) fn note_refused(&self, channel: ChannelId, reason: String) {
        self.note(VoucherRecord::Refused { channel, reason });
    }

    fn note(&self, record: VoucherRecord) {
        let mut state = self.shared.lock();
        if state.book.apply(&record) {
            state.notes.push(record);
            self.shared.work.notify_one();
        }
    }

    /// Reads the book. Keep it short: jobs wait meanwhile.
    pub(crate) fn with_book<T>(&self, read: impl FnOnce(&VoucherBook) -> T) -> T {
        read(&self.shared.lock().book)
    }

    /// Follows whether the disk has failed.
    pub(crate) fn failure(&self) -> watch::Receiver<Option<VoucherFileError>> {
        self.shared.failure.subscribe()
    }

    /// Waits until everything remembered so far is on disk.
    ///
    /// # Errors
    /// [`VoucherFileError`] where the disk fails or has failed.
    pub(crate) async fn sync(&self) -> Result<(), VoucherFileError> {
        let (sender, done) = oneshot::channel();
        {
            let mut state = self.shared.lock();
            let failed = self.shared.failure.borrow().clone();
            if let Some(error) = failed {
                return Err(error);
            }
            state.waiting.push(sender);
            self.shared.work.notify_one();
        }
        let written = done.await;
        let failed = self.shared.failure.borrow().clone();
        match (written, failed) {
            (_, Some(error)) => Err(error),
            (Ok(()), None) => Ok(()),
            // The writer has ended in between because the file was closed, after writing everything.
            (Err(_), None) => Ok(()),
        }
    }

    /// Writes what is left and ends the writer. A panic of it reaches the caller here.
    pub(crate) fn close(&self) {
        self.shared.lock().closing = true;
        self.shared.work.notify_one();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Err(panic)) = writer.map(JoinHandle::join) {
            std::panic::resume_unwind(panic);
        }
    }
}

/// The writer's thread.
fn write_until_closed(shared: &Shared, mut journal: Journal, directory: &Path, clock: &Clock) {
    let mut written: u64 = 0;
    loop {
        let (records, waiting, book, closing) = {
            let mut state = shared.lock();
            while !state.has_work() && !state.closing {
                state = shared.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            let compact = written >= COMPACT_AFTER_RECORDS;
            let records = state.take_records();
            let book = compact.then(|| {
                state.book.forget_ended(clock());
                state.book.clone()
            });
            (records, std::mem::take(&mut state.waiting), book, state.closing)
        };
        written += records.len() as u64;
        let result = match book {
            None => disk::append(&mut journal, &records, clock()).map(|()| journal),
            Some(book) => {
                written = 0;
                drop(journal);
                disk::rewrite(directory, &book, clock())
            }
        };
        match result {
            Ok(good) => journal = good,
            Err(error) => {
                tracing::error!(%error, "vouchers can't be kept on disk; no further jobs are taken");
                shared
                    .failure
                    .send_replace(Some(VoucherFileError(Arc::new(error))));
                // Dropping the answers tells those who wait; the failure says why.
                shared.lock().waiting.clear();
                return;
            }
        }
        for answer in waiting {
            // Whoever asked may have gone.
            let _ = answer.send(());
        }
        if closing {
            return;
        }
        std::thread::sleep(PAUSE_BETWEEN_WRITES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::voucher_book::tests::kept;
    use gristmill_service::clock::system_clock;

    fn channel(byte: u8) -> ChannelId {
        ChannelId::from_bytes([byte; 16])
    }

    fn keep(file: &VoucherFile, byte: u8, cumulative: u32) {
        let VoucherRecord::Kept { voucher, terms } = kept(byte, cumulative, u64::MAX) else {
            panic!("kept() makes a kept voucher");
        };
        file.keep(voucher, terms);
    }

    fn open(directory: &Path) -> VoucherFile {
        VoucherFile::open(directory.join("vouchers"), system_clock()).unwrap()
    }

    #[tokio::test]
    async fn what_was_synced_is_found_again_without_closing() {
        let folder = tempfile::tempdir().unwrap();
        let file = open(folder.path());
        for cumulative in 1..=50 {
            keep(&file, 1, cumulative);
        }
        keep(&file, 2, 7);
        file.note_settled(channel(1), Credits::micro(30));
        file.note_refused(channel(2), "closed".into());
        file.sync().await.unwrap();
        // As after a kill: the file is read while the writer still has it.
        let found = read_book(&folder.path().join("vouchers")).unwrap();
        assert_eq!(file.with_book(Clone::clone), found);
        assert_eq!(found.channel(&channel(1)).unwrap().pending(), Credits::micro(20));
        file.close();
        let reopened = open(folder.path());
        let promised = reopened.with_book(|book| book.channel(&channel(1)).unwrap().promised());
        assert_eq!(promised, Credits::micro(50));
        reopened.close();
    }

    #[tokio::test]
    async fn closing_writes_what_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let file = open(folder.path());
        keep(&file, 3, 9);
        file.close();
        file.close();
        assert_eq!(read_book(&folder.path().join("vouchers")).unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_voucher_reaches_the_disk_without_being_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let file = open(folder.path());
        keep(&file, 4, 1);
        let path = folder.path().join("vouchers");
        while read_book(&path).unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        file.close();
    }
}
