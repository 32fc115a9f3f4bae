//! Keeps every receipt: the coordinator's proofs of what the node was paid.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gristmill_ledger::journal::{Journal, JournalError, JournalOptions, NewRecord, Records};
use gristmill_ledger::record::{CONTENT_MAX_BYTES, JournalKind};
use gristmill_protocol::codec;

use crate::core::earnings::{Earnings, KeptReceipt};

/// Tells a journal of receipts from others.
const KIND: JournalKind = *b"receipts";

/// The receipt file of a running node.
#[derive(Clone)]
pub(crate) struct ReceiptFile(Arc<Mutex<Inner>>);

struct Inner {
    journal: Journal,
    earnings: Earnings,
}

impl ReceiptFile {
    /// Opens the file in `directory`, or begins one, and tells each receipt in it.
    ///
    /// # Errors
    /// [`JournalError`] where the file is damaged, in use or can't be written.
    pub(crate) fn open(directory: &Path, mut take: impl FnMut(KeptReceipt)) -> Result<Self, JournalError> {
        let (journal, records) = Journal::open(directory, JournalOptions::new(KIND))?;
        let mut earnings = Earnings::default();
        for_each(records, |receipt| {
            earnings.add(&receipt);
            take(receipt);
        })?;
        Ok(Self(Arc::new(Mutex::new(Inner { journal, earnings }))))
    }

    /// Writes those receipts that are not here yet, and syncs them. Blocks: call it where that is allowed.
    ///
    /// # Errors
    /// [`JournalError`] where the disk fails; none of the receipts counts then.
    pub(crate) fn keep(&self, receipts: Vec<KeptReceipt>, now_ms: u64) -> Result<(), JournalError> {
        let mut inner = self.lock();
        let is_new = |receipt: &KeptReceipt| !inner.earnings.has(&receipt.coordinator, receipt.sequence);
        let new: Vec<_> = receipts.into_iter().filter(is_new).collect();
        if new.is_empty() {
            return Ok(());
        }
        let encode = |receipt| NewRecord {
            time_ms: now_ms,
            content: codec::encode(receipt),
        };
        let batch: Vec<_> = new.iter().map(encode).collect();
        inner.journal.append_batch(&batch)?;
        inner.journal.sync()?;
        for receipt in &new {
            inner.earnings.add(receipt);
        }
        Ok(())
    }

    /// Reads the earnings. Keep it short.
    pub(crate) fn with_earnings<T>(&self, read: impl FnOnce(&Earnings) -> T) -> T {
        read(&self.lock().earnings)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads all receipts without disturbing whoever writes them. None where there is no file.
///
/// # Errors
/// [`JournalError`] where the file is damaged or unreadable.
pub(crate) fn read_receipts(directory: &Path) -> Result<Vec<KeptReceipt>, JournalError> {
    let mut receipts = Vec::new();
    if directory.exists() {
        for_each(Records::read(directory, KIND)?, |receipt| receipts.push(receipt))?;
    }
    Ok(receipts)
}

fn for_each(records: Records, mut take: impl FnMut(KeptReceipt)) -> Result<(), JournalError> {
    for record in records {
        let (_, record) = record?;
        match codec::decode::<KeptReceipt, CONTENT_MAX_BYTES>(&record.content) {
            Ok(receipt) => take(receipt),
            // The checksum holds, so a later version of this program wrote it.
            Err(error) => {
                tracing::warn!(sequence = record.sequence, %error, "a record of the receipt file is unknown");
            }
        }
    }
    Ok(())
}
