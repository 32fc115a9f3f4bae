//! The index in a sled tree. One batch per group of entries keeps it consistent with itself.
//!
//! Keys, all integers big-endian so that they sort: `e` sequence → entry; `h` record hash → sequence;
//! `a` account sequence and `s` account sequence → nothing; `m` → head.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

use gristmill_protocol::codec;
use gristmill_protocol::identity::AccountId;

use super::{Index, IndexError, IndexHead, IndexedEntry, PAGE_MAX_ITEMS, Selection};
use crate::digest::Digest;

/// Raised when the keys or values change: an index of another format is rebuilt.
const TREE: &[u8] = b"gristmill-ledger-index-1";
const HEAD_KEY: &[u8] = b"m";
const CACHE_BYTES: u64 = 64 * 1024 * 1024;
/// sled gives its folder free some time after it was dropped, when its own threads have noticed.
const OPEN_ATTEMPTS: u32 = 40;
const OPEN_RETRY_AFTER: Duration = Duration::from_millis(50);
const VALUE_MAX_BYTES: usize = 16 * 1024;

/// An [`Index`] in a folder of its own.
#[derive(Debug)]
pub struct SledIndex {
    database: sled::Db,
    tree: sled::Tree,
}

impl SledIndex {
    /// Opens the index in this folder, or begins one. Waits for an earlier user to let go of it, for at most two
    /// seconds.
    ///
    /// # Errors
    /// [`IndexError`] where the folder is in use, holds something else, or something damaged.
    pub fn open(directory: &Path) -> Result<Self, IndexError> {
        for _ in 1..OPEN_ATTEMPTS {
            match Self::try_open(directory) {
                Err(IndexError::InUse) => std::thread::sleep(OPEN_RETRY_AFTER),
                opened => return opened,
            }
        }
        Self::try_open(directory)
    }

    fn try_open(directory: &Path) -> Result<Self, IndexError> {
        guarded(|| {
            let database = sled::Config::new()
                .path(directory)
                .cache_capacity(CACHE_BYTES)
                .mode(sled::Mode::HighThroughput)
                .open()
                .map_err(store)?;
            let tree = database.open_tree(TREE).map_err(store)?;
            Ok(Self { database, tree })
        })
    }
}

impl Index for SledIndex {
    fn head(&self) -> Result<Option<IndexHead>, IndexError> {
        guarded(|| {
            self.tree
                .get(HEAD_KEY)
                .map_err(store)?
                .map(|bytes| decode(&bytes))
                .transpose()
        })
    }

    fn append(&self, entries: &[IndexedEntry]) -> Result<(), IndexError> {
        let Some(newest) = entries.last() else {
            return Ok(());
        };
        let mut batch = sled::Batch::default();
        for entry in entries {
            insert(&mut batch, entry);
        }
        batch.insert(HEAD_KEY, codec::encode(&newest.head()));
        guarded(|| self.tree.apply_batch(batch).map_err(store))
    }

    fn entry(&self, sequence: u64) -> Result<Option<IndexedEntry>, IndexError> {
        let found: Option<IndexedEntry> = guarded(|| {
            self.tree
                .get(entry_key(sequence))
                .map_err(store)?
                .map(|bytes| decode(&bytes))
                .transpose()
        })?;
        match found {
            Some(entry) if entry.sequence != sequence => Err(IndexError::Damaged(format!(
                "entry {} stands where {sequence} should be",
                entry.sequence
            ))),
            found => Ok(found),
        }
    }

    fn sequence_of(&self, record_hash: &Digest) -> Result<Option<u64>, IndexError> {
        guarded(|| {
            let found = self.tree.get(hash_key(record_hash)).map_err(store)?;
            found.map(|bytes| decode(&bytes)).transpose()
        })
    }

    fn history(
        &self,
        account: &AccountId,
        selection: Selection,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<u64>, IndexError> {
        let first = account_key(account, selection, 0);
        let end = account_key(account, selection, before.unwrap_or(u64::MAX));
        guarded(|| {
            let newest_first = self
                .tree
                .range(first..end)
                .keys()
                .rev()
                .take(limit.min(PAGE_MAX_ITEMS));
            newest_first
                .map(|key| sequence_in(&key.map_err(store)?))
                .collect()
        })
    }

    fn flush(&self) -> Result<(), IndexError> {
        guarded(|| self.database.flush().map(|_| ()).map_err(store))
    }
}

fn insert(batch: &mut sled::Batch, entry: &IndexedEntry) {
    batch.insert(entry_key(entry.sequence), codec::encode(entry));
    batch.insert(hash_key(&entry.record_hash), codec::encode(&entry.sequence));
    for account in entry.outcome.parties() {
        batch.insert(account_key(&account, Selection::All, entry.sequence), &[]);
        if entry.is_settlement() {
            batch.insert(account_key(&account, Selection::Settlements, entry.sequence), &[]);
        }
    }
}

fn entry_key(sequence: u64) -> Vec<u8> {
    [b"e".as_slice(), &sequence.to_be_bytes()].concat()
}

fn hash_key(record_hash: &Digest) -> Vec<u8> {
    [b"h".as_slice(), record_hash.bytes()].concat()
}

fn account_key(account: &AccountId, selection: Selection, sequence: u64) -> Vec<u8> {
    let prefix = match selection {
        Selection::All => b"a",
        Selection::Settlements => b"s",
    };
    [prefix.as_slice(), account.public_key(), &sequence.to_be_bytes()].concat()
}

fn sequence_in(account_key: &[u8]) -> Result<u64, IndexError> {
    match account_key.last_chunk() {
        Some(sequence) => Ok(u64::from_be_bytes(*sequence)),
        None => Err(IndexError::Damaged("a key of an account is too short".into())),
    }
}

fn decode<T: bincode::Decode<()>>(bytes: &[u8]) -> Result<T, IndexError> {
    codec::decode::<T, VALUE_MAX_BYTES>(bytes).map_err(|error| IndexError::Damaged(error.to_string()))
}

fn store(error: sled::Error) -> IndexError {
    match error {
        // The only way in which sled names this case.
        sled::Error::Io(source) if source.to_string().contains("could not acquire lock") => IndexError::InUse,
        other => IndexError::Store(other.to_string()),
    }
}

/// sled panics on some kinds of damage. Nothing of ours is left half done by that, so it is an error like others.
fn guarded<T>(operation: impl FnOnce() -> Result<T, IndexError>) -> Result<T, IndexError> {
    catch_unwind(AssertUnwindSafe(operation)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("it panicked");
        Err(IndexError::Damaged(text.chars().take(200).collect()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::GrantKind;
    use crate::journal::Location;
    use crate::outcome::{Effect, Granted, Outcome};
    use gristmill_protocol::credits::Credits;
    use gristmill_protocol::ids::GrantId;

    fn granted(sequence: u64, account: AccountId) -> IndexedEntry {
        let amount = Credits::micro(5);
        let grant = GrantId::from_bytes([3; 16]);
        IndexedEntry {
            sequence,
            time_ms: sequence * 10,
            record_hash: Digest::of(&sequence.to_le_bytes()),
            location: Location {
                segment: 1,
                offset: sequence * 100,
                bytes: 100,
            },
            outcome: Outcome {
                transfers: vec![],
                effect: Effect::Granted(Granted {
                    grant,
                    account,
                    amount,
                    kind: GrantKind::Operator,
                }),
            },
        }
    }

    #[test]
    fn what_is_put_in_is_found_in_order_and_after_reopening() {
        let folder = tempfile::tempdir().unwrap();
        let (alice, bob) = (
            AccountId::from_public_key([1; 32]),
            AccountId::from_public_key([2; 32]),
        );
        let index = SledIndex::open(folder.path()).unwrap();
        assert_eq!(index.head().unwrap(), None);
        let entries: Vec<_> = (1..=300)
            .map(|sequence| granted(sequence, if sequence % 3 == 0 { bob } else { alice }))
            .collect();
        index.append(&entries[..100]).unwrap();
        index.append(&entries[100..]).unwrap();
        index.flush().unwrap();
        drop(index);

        let index = SledIndex::open(folder.path()).unwrap();
        assert_eq!(index.head().unwrap(), Some(entries[299].head()));
        assert_eq!(index.entry(7).unwrap().as_ref(), Some(&entries[6]));
        assert_eq!(index.entry(301).unwrap(), None);
        assert_eq!(index.sequence_of(&entries[6].record_hash).unwrap(), Some(7));
        assert_eq!(
            index.history(&bob, Selection::All, None, 3).unwrap(),
            [300, 297, 294]
        );
        assert_eq!(
            index.history(&bob, Selection::All, Some(294), 2).unwrap(),
            [291, 288]
        );
        assert_eq!(
            index.history(&bob, Selection::All, Some(3), 2).unwrap(),
            Vec::<u64>::new()
        );
        assert_eq!(
            index.history(&bob, Selection::Settlements, None, 2).unwrap(),
            Vec::<u64>::new()
        );
    }

    #[test]
    fn a_panic_in_the_store_is_an_error() {
        let result: Result<(), _> = guarded(|| panic!("page {} is gone", 7));
        assert!(matches!(result, Err(IndexError::Damaged(text)) if text == "page 7 is gone"));
    }
}
