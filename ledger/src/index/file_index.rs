//! The index in two files that are only ever appended to: one row of fixed width for each entry, and the accounts
//! that rows call by number.
//!
//! A row says where the entry's record is, what of its outcome is not in the record, and for each account concerned
//! which entries concerned it before: a history is a walk from row to row. In memory are the accounts with their newest
//! entries, nothing that grows with the number of entries.
//!
//! # Why no damage is believed
//!
//! Rows count only as a whole prefix. Opening reads all of them, and the index ends before the first whose checksum
//! does not hold, that names an account which can't be read, or that does not continue what the rows before it say about
//! its accounts; what follows is cut off and written again from the journal. So nothing needs to be synced: whatever
//! part of the files a kill or a loss of power leaves, the index opens to a prefix, and [`Index::head`] says to which.
//! - A flipped bit in a row or an account breaks its checksum, which finds every single flipped bit and every run of
//!   32. Slots of an older index or in the wrong place have another salt or number in theirs. A flipped bit in the head
//!   of a file makes the whole index damaged, which means made anew.
//! - A bit that flips after the opening is found when the row is read: an error, never another answer; the next opening
//!   ends before it.
//! - Every entry is read from the journal, where the record has its own checksum; it must have the row's sequence and
//!   begin of hash, and its outcome the row's parties. Rows of another journal are found out that way.
//! - The file `lock` has no content.
//!
//! # A full disk
//!
//! An append that fails changes nothing that counts: bytes it left behind the last row are written over by the next
//! append, which the caller tries when it likes, with the same entries.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use gristmill_protocol::identity::AccountId;
use gristmill_protocol::log::hash::LogHash;

use super::accounts::Accounts;
use super::files::{Files, failed, lock_path};
use super::row::{HashStart, Newest, Party, Row};
use super::{Index, IndexError, IndexHead, IndexedEntry, PAGE_MAX_ITEMS, Selection, recall};
use crate::disk::{Disk, DiskLock};
use crate::entry::Entry;
use crate::journal::{JournalError, Location};
use crate::record::Record;

/// Reads a record of the journal that the index is of.
pub type ReadRecord = Box<dyn Fn(Location) -> Result<Record, JournalError> + Send + Sync>;

/// How often the lock is tried: an earlier user in this process may still be closing.
const LOCK_ATTEMPTS: u32 = 40;
const LOCK_RETRY_AFTER: Duration = Duration::from_millis(50);
/// A search begins with one row, which is the right one where a page follows another, and doubles up to many.
const SEARCH_FIRST_ROWS: u64 = 1;
const SEARCH_MOST_ROWS: u64 = 4_096;

/// An [`Index`] in a folder of its own.
pub struct FileIndex {
    disk: Arc<dyn Disk>,
    files: Files,
    read_record: ReadRecord,
    state: RwLock<State>,
    /// Held while appending.
    appending: Mutex<()>,
    _lock: DiskLock,
}

/// What counts.
struct State {
    accounts: Accounts,
    /// The sequence of the newest entry; 0 where there is none.
    newest: u64,
}

impl FileIndex {
    /// Opens the index in this folder, or begins one. Waits for an earlier user to let go of it, for at most two
    /// seconds.
    ///
    /// # Errors
    /// [`IndexError`] where the folder is in use, holds something else, or what begins with damage.
    pub fn open(disk: &Arc<dyn Disk>, directory: &Path, read_record: ReadRecord) -> Result<Self, IndexError> {
        disk.create_directory(directory)
            .map_err(failed("create", directory))?;
        let lock = lock(&**disk, directory)?;
        let files = match Files::open(directory, |path| disk.open(path))? {
            Some(files) => files,
            None => Files::begin(&**disk, directory, new_salt())?,
        };
        let found = files.read_all()?;
        if let Some(damage) = &found.damage {
            tracing::warn!(
                file = %damage.file.display(), offset = damage.offset, kept_entries = found.last,
                "the ledger's index is damaged or was not written to its end; the rest is made anew from the journal"
            );
        }
        files.cut_after(found.last, found.accounts.count())?;
        Ok(Self {
            disk: Arc::clone(disk),
            files,
            read_record,
            state: RwLock::new(State {
                accounts: found.accounts,
                newest: found.last,
            }),
            appending: Mutex::new(()),
            _lock: lock,
        })
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        // Changes of the state can't panic half way.
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The row of this sequence, if it is in the index.
    fn row(&self, sequence: u64) -> Result<Option<Row>, IndexError> {
        if sequence == 0 || sequence > self.state().newest {
            return Ok(None);
        }
        self.files.row(sequence).map(Some)
    }

    /// The entry of a row, from the journal.
    fn recall(&self, sequence: u64, row: &Row) -> Result<IndexedEntry, IndexError> {
        let differs = |what: &str| IndexError::Damaged(format!("entry {sequence}: {what}"));
        let record = (self.read_record)(row.location).map_err(|error| differs(&error.to_string()))?;
        let record_hash = record.hash();
        if record.sequence != sequence || HashStart::of(&record_hash) != row.hash_start {
            return Err(differs("another record is in its place in the journal"));
        }
        let entry = Entry::decode_salted(&record.content).map_err(|error| differs(&error.to_string()))?;
        let parties = self
            .parties(row)
            .ok_or_else(|| differs("it names an unknown account"))?;
        let outcome = recall::outcome(&entry, &parties, row.amounts)
            .ok_or_else(|| differs("it can't have done what the index says"))?;
        Ok(IndexedEntry {
            sequence,
            time_ms: record.time_ms,
            record_hash,
            location: row.location,
            outcome,
        })
    }

    fn parties(&self, row: &Row) -> Option<Vec<AccountId>> {
        let state = self.state();
        let account = |party: &Party| state.accounts.account(party.number);
        row.parties.iter().flatten().map(account).collect()
    }

    /// A row that is known to concern an account, as the account sees it.
    fn row_of(&self, sequence: u64, number: u32) -> Result<(Row, Party), IndexError> {
        let row = self.files.row(sequence)?;
        match row.party(number).filter(|party| party.before.of_all() < sequence) {
            Some(party) => Ok((row, party)),
            None => Err(IndexError::Damaged(format!(
                "entry {sequence} is not of the account whose history names it"
            ))),
        }
    }

    /// The newest entries of an account below `before`, which need not be one of its own. Searches down from `before`
    /// and walks down from the newest by turns, so that it costs little where either is short.
    fn newest_below(&self, number: u32, newest: Newest, before: u64) -> Result<Newest, IndexError> {
        let mut walked = newest;
        let mut searched = before.saturating_add(1);
        let mut step = SEARCH_FIRST_ROWS;
        loop {
            let from = searched.saturating_sub(step).max(1);
            let count = usize::try_from(searched - from).unwrap_or_default();
            let rows = self.files.rows(from, count)?;
            for (row, sequence) in rows.iter().rev().zip((from..searched).rev()) {
                if let Some(party) = row.party(number) {
                    return Ok(if sequence < before {
                        party.before.followed_by(sequence, row.is_settlement)
                    } else {
                        party.before
                    });
                }
            }
            if from == 1 {
                return Ok(Newest::default());
            }
            searched = from;
            for _ in 0..step {
                if walked.of_all() < before {
                    return Ok(walked);
                }
                walked = self.row_of(walked.of_all(), number)?.1.before;
            }
            step = (step * 2).min(SEARCH_MOST_ROWS);
        }
    }
}

impl Index for FileIndex {
    fn head(&self) -> Result<Option<IndexHead>, IndexError> {
        let sequence = self.state().newest;
        let Some(row) = self.row(sequence)? else {
            return Ok(None);
        };
        let record = (self.read_record)(row.location).ok();
        let record_hash = record
            .map(|record| record.hash())
            .filter(|hash| HashStart::of(hash) == row.hash_start)
            .unwrap_or(LogHash::from_bytes([0; 32]));
        Ok(Some(IndexHead {
            sequence,
            record_hash,
            location: row.location,
        }))
    }

    fn append(&self, entries: &[IndexedEntry]) -> Result<(), IndexError> {
        let _appending = self.appending.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(newest) = entries.last().map(|entry| entry.sequence) else {
            return Ok(());
        };
        let state = self.state();
        let (first, known) = (state.newest + 1, state.accounts.count());
        let mut additions = state.accounts.additions();
        let mut rows = Vec::with_capacity(entries.len());
        for (entry, expected) in entries.iter().zip(first..) {
            if entry.sequence != expected {
                return Err(IndexError::Store(format!(
                    "entry {} was to be appended where entry {expected} should follow",
                    entry.sequence
                )));
            }
            rows.push(additions.row(entry)?);
        }
        let changes = additions.finish();
        drop(state);
        // The accounts first, so that no row names one that is not there.
        self.files.write_accounts(known, &changes.new)?;
        self.files.write_rows(first, &rows)?;
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.accounts.apply(changes);
        state.newest = newest;
        Ok(())
    }

    fn entry(&self, sequence: u64) -> Result<Option<IndexedEntry>, IndexError> {
        self.row(sequence)?
            .map(|row| self.recall(sequence, &row))
            .transpose()
    }

    fn location(&self, sequence: u64) -> Result<Option<Location>, IndexError> {
        Ok(self.row(sequence)?.map(|row| row.location))
    }

    fn history(
        &self,
        account: &AccountId,
        selection: Selection,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<u64>, IndexError> {
        let state = self.state();
        let Some(number) = state.accounts.number(account) else {
            return Ok(Vec::new());
        };
        let mut newest = state.accounts.newest(number);
        drop(state);
        if before.is_some_and(|before| before <= 1) {
            return Ok(Vec::new());
        }
        if let Some(before) = before.filter(|before| *before <= newest.of_all()) {
            newest = self.newest_below(number, newest, before)?;
        }
        let mut page = Vec::new();
        while page.len() < limit.min(PAGE_MAX_ITEMS) {
            let next = match selection {
                Selection::All => newest.of_all(),
                Selection::Settlements => newest.settlement,
            };
            if next == 0 {
                break;
            }
            page.push(next);
            newest = self.row_of(next, number)?.1.before;
        }
        Ok(page)
    }

    fn flush(&self) -> Result<(), IndexError> {
        self.files.sync(&*self.disk)
    }
}

impl fmt::Debug for FileIndex {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("FileIndex")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

fn lock(disk: &dyn Disk, directory: &Path) -> Result<DiskLock, IndexError> {
    let path = lock_path(directory);
    for attempt in 1..=LOCK_ATTEMPTS {
        match disk.try_lock(&path).map_err(failed("lock", &path))? {
            Some(lock) => return Ok(lock),
            None if attempt < LOCK_ATTEMPTS => std::thread::sleep(LOCK_RETRY_AFTER),
            None => break,
        }
    }
    Err(IndexError::InUse)
}

/// Tells this index from those that were in its place; not a secret.
fn new_salt() -> u32 {
    let [a, b, c, d, ..] = RandomState::new().hash_one(0).to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests;
