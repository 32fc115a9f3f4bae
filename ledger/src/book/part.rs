//! Parts of a book: a store that keeps the state elsewhere loads what a batch concerns, and the same rules decide.

use std::collections::{BTreeMap, BTreeSet};

use gristmill_protocol::identity::AccountId;
use gristmill_protocol::ids::{ChannelId, EntryId};

use super::state::{Balance, Channel, Head, NamedEntry};
use super::{Book, BrokenInvariant};
use crate::entry::Entry;

/// What entries concern: everything that has to be loaded before they can be decided about, whether it exists or not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Accounts.
    pub accounts: BTreeSet<AccountId>,
    /// Channels; their consumers and providers are to be added to `accounts` once they are known.
    pub channels: BTreeSet<ChannelId>,
    /// Names of entries.
    pub names: BTreeSet<EntryId>,
}

/// What a store found of a [`Scope`]. What is not here does not exist.
#[derive(Clone, Debug, Default)]
pub struct Part {
    /// What is one for the whole book.
    pub head: Head,
    /// Accounts.
    pub accounts: BTreeMap<AccountId, Balance>,
    /// Channels.
    pub channels: BTreeMap<ChannelId, Channel>,
    /// Entries with a name.
    pub named: BTreeMap<EntryId, NamedEntry>,
}

impl Scope {
    /// What these entries name themselves.
    pub fn of<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Self {
        let mut scope = Self::default();
        for entry in entries {
            scope.accounts.extend(entry.accounts());
            scope.channels.extend(entry.channel());
            scope.names.extend(entry.name());
        }
        scope
    }
}

impl Book {
    /// A book that knows only what is in `scope`. Entries that concern anything else are
    /// [`BrokenInvariant::NotLoaded`]; totals are those of the whole, so [`Book::verify`] means nothing here.
    #[must_use]
    pub fn partial(scope: Scope, part: Part) -> Self {
        let Part {
            head,
            accounts,
            channels,
            named,
        } = part;
        let deadlines = channels
            .iter()
            .filter_map(|(id, channel)| Some((channel.deadline()?, *id)))
            .collect();
        Self {
            head,
            accounts,
            channels,
            named,
            deadlines,
            scope: Some(scope),
        }
    }

    /// Whether everything that an entry concerns was loaded.
    pub(super) fn check_scope(&self, entry: &Entry) -> Result<(), BrokenInvariant> {
        let Some(scope) = &self.scope else {
            return Ok(());
        };
        let missing = |what: String| Err(BrokenInvariant::NotLoaded { what });
        if let Some(name) = entry.name().filter(|name| !scope.names.contains(name)) {
            return missing(format!("the entry named {name}"));
        }
        let mut accounts = entry.accounts();
        if let Some(id) = entry.channel() {
            if !scope.channels.contains(&id) {
                return missing(format!("channel {id}"));
            }
            let parties = |channel: &Channel| [channel.terms.consumer, channel.terms.provider];
            accounts.extend(self.channels.get(&id).iter().flat_map(|channel| parties(channel)));
        }
        match accounts.iter().find(|account| !scope.accounts.contains(account)) {
            Some(account) => missing(format!("account {account}")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::book::ApplyError;
    use crate::entry::{Grant, GrantKind};
    use gristmill_protocol::credits::Credits;
    use gristmill_protocol::ids::GrantId;

    fn grant(account: u8) -> Entry {
        Entry::Grant(Grant {
            id: GrantId::from_bytes([1; 16]),
            account: AccountId::from_public_key([account; 32]),
            amount: Credits::micro(5),
            kind: GrantKind::Operator,
            reason: String::new(),
            starter_daily_budget: Credits::ZERO,
        })
    }

    #[test]
    fn a_part_decides_as_the_whole_and_refuses_what_it_does_not_know() {
        let entry = grant(1).check().unwrap();
        let mut whole = Book::new();
        let mut part = Book::partial(Scope::of([entry.entry()]), Part::default());
        assert_eq!(part.apply(&entry, 7), whole.apply(&entry, 7));
        assert_eq!(part.digest(), whole.digest());
        let other = grant(2).check().unwrap();
        assert!(matches!(
            part.apply(&other, 8),
            Err(ApplyError::Broken(BrokenInvariant::NotLoaded { .. }))
        ));
    }
}
