//! The files of an index, and what is found in them when it is opened.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use gristmill_protocol::identity::AccountId;

use super::IndexError;
use super::accounts::Accounts;
use super::row::{self, ACCOUNT_BYTES, ROW_BYTES, Row};
use crate::disk::{Disk, DiskFile};

const ROWS_FILE: &str = "rows";
const ACCOUNTS_FILE: &str = "accounts";
const LOCK_FILE: &str = "lock";
/// How many slots are read at once when a file is read from its start.
const SLOTS_READ_AT_ONCE: usize = 16 * 1_024;

/// Both files of an index.
#[derive(Debug)]
pub(super) struct Files {
    directory: PathBuf,
    rows: Arc<dyn DiskFile>,
    accounts: Arc<dyn DiskFile>,
    salt: u32,
}

/// What the files hold: all rows up to the first that is missing or damaged.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) accounts: Accounts,
    /// The sequence of the last row.
    pub(super) last: u64,
    /// The first place from which on something could not be used.
    pub(super) damage: Option<IndexDamage>,
}

/// A place in an index that is damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexDamage {
    /// The file.
    pub file: PathBuf,
    /// At which byte of it.
    pub offset: u64,
}

/// The slots of a file, up to where it ends or one is damaged.
struct Slots {
    /// How many slots after the first are whole and accepted.
    accepted: u64,
    /// Whether something other than the beginning of a slot follows them.
    followed_by_damage: bool,
}

impl Files {
    /// Begins an index in this directory, whatever there was.
    pub(super) fn begin(disk: &dyn Disk, directory: &Path, salt: u32) -> Result<Self, IndexError> {
        let failed = failed("create", directory);
        // The rows last: without them the rest is nothing.
        let rows = disk.create(&directory.join(ROWS_FILE)).map_err(&failed)?;
        let accounts = disk.create(&directory.join(ACCOUNTS_FILE)).map_err(&failed)?;
        accounts
            .write_at(0, &row::encode_accounts_header(salt))
            .map_err(&failed)?;
        rows.write_at(0, &row::encode_rows_header(salt))
            .map_err(&failed)?;
        Ok(Self {
            directory: directory.to_owned(),
            rows,
            accounts,
            salt,
        })
    }

    /// Opens the index in this directory; `None` where none was begun.
    ///
    /// # Errors
    /// [`IndexError::Damaged`] where the beginning of a file is, or what the disk says.
    pub(super) fn open(
        directory: &Path,
        open: impl Fn(&Path) -> std::io::Result<Arc<dyn DiskFile>>,
    ) -> Result<Option<Self>, IndexError> {
        let failed = failed("open", directory);
        let open = |name| match open(&directory.join(name)) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(error)),
        };
        let mut header = [0; ROW_BYTES];
        let Some(rows) = open(ROWS_FILE)? else {
            return Ok(None);
        };
        if rows.read_at(0, &mut header).map_err(&failed)? < ROW_BYTES {
            return Ok(None);
        }
        let salt = row::decode_rows_header(&header)
            .ok_or_else(|| damaged(&IndexDamage::at(directory, ROWS_FILE, 0)))?;
        let accounts_damaged = || damaged(&IndexDamage::at(directory, ACCOUNTS_FILE, 0));
        let accounts = open(ACCOUNTS_FILE)?.ok_or_else(accounts_damaged)?;
        let mut header = [0; ACCOUNT_BYTES];
        accounts.read_at(0, &mut header).map_err(&failed)?;
        if header != row::encode_accounts_header(salt) {
            return Err(accounts_damaged());
        }
        Ok(Some(Self {
            directory: directory.to_owned(),
            rows,
            accounts,
            salt,
        }))
    }

    /// Reads everything.
    ///
    /// # Errors
    /// What the disk says. Damage is no error but where the index ends.
    pub(super) fn read_all(&self) -> Result<Found, IndexError> {
        let mut accounts = Accounts::default();
        let named = self.read_slots(&*self.accounts, |number, slot: &[u8; ACCOUNT_BYTES]| {
            let account = u32::try_from(number)
                .ok()
                .and_then(|number| row::decode_account(slot, self.salt, number));
            account.is_some_and(|account| accounts.add(account))
        })?;
        let rows = self.read_slots(&*self.rows, |sequence, slot: &[u8; ROW_BYTES]| {
            Row::decode(slot, self.salt, sequence).is_some_and(|row| accounts.follow(sequence, &row))
        })?;
        let damaged_account = named.followed_by_damage.then(|| {
            IndexDamage::at(
                &self.directory,
                ACCOUNTS_FILE,
                offset::<ACCOUNT_BYTES>(named.accepted + 1),
            )
        });
        let damaged_row = rows
            .followed_by_damage
            .then(|| IndexDamage::at(&self.directory, ROWS_FILE, offset::<ROW_BYTES>(rows.accepted + 1)));
        Ok(Found {
            accounts,
            last: rows.accepted,
            damage: damaged_account.or(damaged_row),
        })
    }

    /// Cuts off what follows the last row and the last account.
    pub(super) fn cut_after(&self, last: u64, accounts: u32) -> Result<(), IndexError> {
        let failed = failed("shorten", &self.directory);
        for (file, end) in [
            (&self.rows, offset::<ROW_BYTES>(last + 1)),
            (&self.accounts, offset::<ACCOUNT_BYTES>(u64::from(accounts) + 1)),
        ] {
            if file.length().map_err(&failed)? > end {
                file.set_length(end).map_err(&failed)?;
            }
        }
        Ok(())
    }

    /// Writes accounts behind the first `known` ones. Nothing counts before its rows do.
    pub(super) fn write_accounts(&self, known: u32, new: &[AccountId]) -> Result<(), IndexError> {
        let slots: Vec<u8> = new
            .iter()
            .zip(known.saturating_add(1)..)
            .flat_map(|(account, number)| row::encode_account(account, self.salt, number))
            .collect();
        if slots.is_empty() {
            return Ok(());
        }
        let place = offset::<ACCOUNT_BYTES>(u64::from(known) + 1);
        self.accounts
            .write_at(place, &slots)
            .map_err(failed("write to", &self.directory))
    }

    /// Writes rows from the sequence `first` on, over whatever a failed attempt left there.
    pub(super) fn write_rows(&self, first: u64, rows: &[Row]) -> Result<(), IndexError> {
        let mut slots = Vec::with_capacity(rows.len() * ROW_BYTES);
        for (row, sequence) in rows.iter().zip(first..) {
            let slot = row.encode(self.salt, sequence).ok_or_else(|| {
                IndexError::Store(format!(
                    "the numbers of entry {sequence} are too large for an index"
                ))
            })?;
            slots.extend_from_slice(&slot);
        }
        self.rows
            .write_at(offset::<ROW_BYTES>(first), &slots)
            .map_err(failed("write to", &self.directory))
    }

    /// The row of an entry that is in the index.
    ///
    /// # Errors
    /// [`IndexError::Damaged`] where it is not there any more.
    pub(super) fn row(&self, sequence: u64) -> Result<Row, IndexError> {
        let mut found = self.rows(sequence, 1)?;
        found.pop().ok_or_else(|| self.damaged_row(sequence))
    }

    /// The rows of entries that are in the index.
    ///
    /// # Errors
    /// [`IndexError::Damaged`] where one is not there any more.
    pub(super) fn rows(&self, first: u64, count: usize) -> Result<Vec<Row>, IndexError> {
        let mut slots = vec![0; count * ROW_BYTES];
        self.rows
            .read_at(offset::<ROW_BYTES>(first), &mut slots)
            .map_err(failed("read", &self.directory))?;
        let (slots, _) = slots.as_chunks::<ROW_BYTES>();
        slots
            .iter()
            .zip(first..)
            .map(|(slot, sequence)| {
                Row::decode(slot, self.salt, sequence).ok_or_else(|| self.damaged_row(sequence))
            })
            .collect()
    }

    /// Returns once everything is on the disk.
    pub(super) fn sync(&self, disk: &dyn Disk) -> Result<(), IndexError> {
        let synced = self
            .accounts
            .sync_data()
            .and_then(|()| self.rows.sync_data())
            .and_then(|()| disk.sync_directory(&self.directory));
        synced.map_err(failed("sync", &self.directory))
    }

    fn damaged_row(&self, sequence: u64) -> IndexError {
        damaged(&IndexDamage::at(
            &self.directory,
            ROWS_FILE,
            offset::<ROW_BYTES>(sequence),
        ))
    }

    /// Hands the slots of a file, without the first, to `accept` until it says no.
    fn read_slots<const SLOT: usize>(
        &self,
        file: &dyn DiskFile,
        mut accept: impl FnMut(u64, &[u8; SLOT]) -> bool,
    ) -> Result<Slots, IndexError> {
        let failed = failed("read", &self.directory);
        let slots = file.length().map_err(&failed)? / SLOT as u64;
        // One more than there are, so that a file that fits needs no second reading.
        let at_once =
            usize::try_from(slots + 1).map_or(SLOTS_READ_AT_ONCE, |all| all.min(SLOTS_READ_AT_ONCE));
        let mut buffer = vec![0; at_once * SLOT];
        let mut accepted = 0;
        loop {
            let read = file
                .read_at(offset::<SLOT>(accepted + 1), &mut buffer)
                .map_err(&failed)?;
            let (slots, _) = buffer.get(..read).unwrap_or_default().as_chunks::<SLOT>();
            for slot in slots {
                if !accept(accepted + 1, slot) {
                    let followed_by_damage = true;
                    return Ok(Slots {
                        accepted,
                        followed_by_damage,
                    });
                }
                accepted += 1;
            }
            if read < buffer.len() {
                let followed_by_damage = false;
                return Ok(Slots {
                    accepted,
                    followed_by_damage,
                });
            }
        }
    }
}

impl IndexDamage {
    fn at(directory: &Path, name: &str, offset: u64) -> Self {
        Self {
            file: directory.join(name),
            offset,
        }
    }
}

/// The file that is locked by whoever writes an index.
pub(super) fn lock_path(directory: &Path) -> PathBuf {
    directory.join(LOCK_FILE)
}

fn offset<const SLOT: usize>(number: u64) -> u64 {
    number.saturating_mul(SLOT as u64)
}

fn damaged(damage: &IndexDamage) -> IndexError {
    IndexError::Damaged(format!("byte {} of {}", damage.offset, damage.file.display()))
}

pub(super) fn failed<'path>(
    action: &'static str,
    path: &'path Path,
) -> impl Fn(std::io::Error) -> IndexError + 'path {
    move |error| IndexError::Store(format!("cannot {action} {}: {error}", path.display()))
}
