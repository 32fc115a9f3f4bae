//! The accounts that an index knows, by number, and the newest entries of each. Pure.

use std::collections::HashMap;

use gristmill_protocol::identity::AccountId;

use super::row::{HashStart, Newest, Party, Row};
use super::{IndexError, IndexedEntry, recall};

/// All accounts of an index as of its newest entry.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    numbers: HashMap<AccountId, u32>,
    /// The account with number `n` is at `n - 1`.
    known: Vec<Known>,
}

#[derive(Debug)]
struct Known {
    account: AccountId,
    newest: Newest,
}

/// What entries that are being appended will change.
pub(super) struct Additions<'accounts> {
    before: &'accounts Accounts,
    new_numbers: HashMap<AccountId, u32>,
    changes: Changes,
}

/// What appended entries have changed.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// In the order of their numbers.
    pub(super) new: Vec<AccountId>,
    newest: HashMap<u32, Newest>,
}

impl Accounts {
    /// How many there are.
    pub(super) fn count(&self) -> u32 {
        // A number that does not fit is not given out.
        u32::try_from(self.known.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn number(&self, account: &AccountId) -> Option<u32> {
        self.numbers.get(account).copied()
    }

    pub(super) fn account(&self, number: u32) -> Option<AccountId> {
        self.known(number).map(|known| known.account)
    }

    /// The newest entries of an account; none where there is no such account.
    pub(super) fn newest(&self, number: u32) -> Newest {
        self.known(number).map(|known| known.newest).unwrap_or_default()
    }

    /// Adds an account that nothing concerns yet. False where it is known already.
    pub(super) fn add(&mut self, account: AccountId) -> bool {
        let number = self.count().saturating_add(1);
        if self.numbers.contains_key(&account) {
            return false;
        }
        self.numbers.insert(account, number);
        self.known.push(Known {
            account,
            newest: Newest::default(),
        });
        true
    }

    /// Takes over a row that follows all rows so far. False where it does not: then nothing has changed.
    pub(super) fn follow(&mut self, sequence: u64, row: &Row) -> bool {
        let fits = |party: &Party| party.number <= self.count() && self.newest(party.number) == party.before;
        let [first, second] = &row.parties;
        let in_order = match (first, second) {
            (None, Some(_)) => false,
            (Some(first), Some(second)) => first.number != second.number,
            _ => true,
        };
        if !in_order || !row.parties.iter().flatten().all(fits) {
            return false;
        }
        for party in row.parties.iter().flatten() {
            self.set(
                party.number,
                party.before.followed_by(sequence, row.is_settlement),
            );
        }
        true
    }

    /// A place beside the accounts to make rows on.
    pub(super) fn additions(&self) -> Additions<'_> {
        Additions {
            before: self,
            new_numbers: HashMap::new(),
            changes: Changes::default(),
        }
    }

    pub(super) fn apply(&mut self, changes: Changes) {
        for account in changes.new {
            self.add(account);
        }
        for (number, newest) in changes.newest {
            self.set(number, newest);
        }
    }

    fn known(&self, number: u32) -> Option<&Known> {
        self.known.get(usize::try_from(number.checked_sub(1)?).ok()?)
    }

    fn set(&mut self, number: u32, newest: Newest) {
        let place = usize::try_from(number)
            .ok()
            .and_then(|number| number.checked_sub(1));
        if let Some(known) = place.and_then(|place| self.known.get_mut(place)) {
            known.newest = newest;
        }
    }
}

impl Additions<'_> {
    /// The row of the entry that follows those so far.
    ///
    /// # Errors
    /// [`IndexError::Store`] where the index has no room for such an entry.
    pub(super) fn row(&mut self, entry: &IndexedEntry) -> Result<Row, IndexError> {
        let accounts = entry.outcome.parties();
        let is_settlement = entry.is_settlement();
        let mut parties = [None; 2];
        if accounts.len() > parties.len() {
            return Err(IndexError::Store(format!(
                "entry {} concerns {} accounts, an index keeps {}",
                entry.sequence,
                accounts.len(),
                parties.len()
            )));
        }
        for (party, account) in parties.iter_mut().zip(&accounts) {
            let number = self.number(account)?;
            let before = self.newest(number);
            let after = before.followed_by(entry.sequence, is_settlement);
            self.changes.newest.insert(number, after);
            *party = Some(Party { number, before });
        }
        Ok(Row {
            location: entry.location,
            hash_start: HashStart::of(&entry.record_hash),
            is_settlement,
            parties,
            amounts: recall::amounts(&entry.outcome),
        })
    }

    pub(super) fn finish(self) -> Changes {
        self.changes
    }

    fn number(&mut self, account: &AccountId) -> Result<u32, IndexError> {
        let known = self.before.number(account);
        if let Some(number) = known.or_else(|| self.new_numbers.get(account).copied()) {
            return Ok(number);
        }
        let count = usize::try_from(self.before.count()).unwrap_or(usize::MAX) + self.changes.new.len();
        let number = u32::try_from(count + 1)
            .map_err(|_| IndexError::Store("an index has no room for more accounts".into()))?;
        self.new_numbers.insert(*account, number);
        self.changes.new.push(*account);
        Ok(number)
    }

    fn newest(&self, number: u32) -> Newest {
        let changed = self.changes.newest.get(&number).copied();
        changed.unwrap_or_else(|| self.before.newest(number))
    }
}
