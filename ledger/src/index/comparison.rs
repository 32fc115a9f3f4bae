//! Holding an index against the entries of the journal, replayed from the first. Changes nothing.

use std::path::Path;

use gristmill_protocol::identity::AccountId;

use super::accounts::Accounts;
use super::files::{Files, Found, IndexDamage};
use super::row::{Newest, Row};
use super::{IndexError, IndexedEntry};
use crate::disk::Disk;

/// An index that is held against its journal.
#[derive(Debug)]
pub struct Comparison {
    files: Files,
    found: Found,
    /// As the index should have them.
    accounts: Accounts,
}

impl Comparison {
    /// Opens the index in this folder for reading; `None` where none was begun.
    ///
    /// # Errors
    /// [`IndexError`] where it can't be read, or begins with damage.
    pub fn begin(disk: &dyn Disk, directory: &Path) -> Result<Option<Self>, IndexError> {
        let Some(files) = Files::open(directory, |path| disk.open_to_read(path))? else {
            return Ok(None);
        };
        let found = files.read_all()?;
        Ok(Some(Self {
            files,
            found,
            accounts: Accounts::default(),
        }))
    }

    /// How many entries the index has; it ends before anything damaged.
    #[must_use]
    pub const fn entries(&self) -> u64 {
        self.found.last
    }

    /// Where the index is damaged, if it is.
    #[must_use]
    pub const fn damage(&self) -> Option<&IndexDamage> {
        self.found.damage.as_ref()
    }

    /// Whether the index says of this entry, which follows those that were compared before, what the journal says.
    ///
    /// # Errors
    /// [`IndexError`] where the index can't be read, or has no room for such an entry.
    pub fn agrees(&mut self, replayed: &IndexedEntry) -> Result<bool, IndexError> {
        let mut additions = self.accounts.additions();
        let expected = additions.row(replayed)?;
        let changes = additions.finish();
        self.accounts.apply(changes);
        if replayed.sequence > self.entries() {
            return Ok(true);
        }
        let actual = self.files.row(replayed.sequence)?;
        // Numbers of accounts are the index's own matter.
        Ok(
            named(&actual, &self.found.accounts) == named(&expected, &self.accounts)
                && Row {
                    parties: expected.parties,
                    ..actual
                } == expected,
        )
    }
}

/// The parties of a row, by their names.
fn named(row: &Row, accounts: &Accounts) -> Vec<(Option<AccountId>, Newest)> {
    let parties = row.parties.iter().flatten();
    parties
        .map(|party| (accounts.account(party.number), party.before))
        .collect()
}
