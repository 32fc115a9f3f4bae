//! The invariants of the book, checked at every entry for what it touched and on demand for everything.

use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::ids::ChannelId;
use thiserror::Error;

use super::state::{Balance, Channel};
use super::{Book, Totals};

/// The book contradicts itself. This is an error of the program, never of who uses it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BrokenInvariant {
    /// The sum over all accounts is not zero.
    #[error("the book does not balance: {0:?}; stop the coordinator and run 'gristmill ledger audit'")]
    Unbalanced(Box<Totals>),
    /// A channel does not hold what it should.
    #[error(
        "channel {0} does not hold its limit less what it settled; stop the coordinator and run 'gristmill ledger audit'"
    )]
    Channel(ChannelId),
    /// An account does not have what it came to.
    #[error(
        "account {0} does not have what it was granted and earned less what it spent; stop the coordinator and run 'gristmill ledger audit'"
    )]
    Account(AccountId),
    /// The kept totals are not the sums.
    #[error(
        "the totals are kept as {kept:?} but the accounts sum up to {summed:?}; stop the coordinator and run 'gristmill ledger audit'"
    )]
    Totals {
        /// As kept.
        kept: Box<Totals>,
        /// As summed.
        summed: Box<Totals>,
    },
    /// An amount left its range although no entry can bring it there.
    #[error("an amount left its range; stop the coordinator and run 'gristmill ledger audit'")]
    OutOfRange,
    /// A part of the book does not have what an entry concerns.
    #[error("the part of the book that was loaded lacks {what}")]
    NotLoaded {
        /// What is missing.
        what: String,
    },
    /// A draft was made on another state of the book.
    #[error("a draft of state {draft} was to be committed to state {book}")]
    OtherState {
        /// The state of the draft.
        draft: u64,
        /// The state of the book.
        book: u64,
    },
}

impl Totals {
    /// The sum over all accounts is zero.
    pub(super) fn check(&self) -> Result<(), BrokenInvariant> {
        let accounts = wide(self.fees) + wide(self.available) + wide(self.held);
        if accounts == wide(self.issued) {
            Ok(())
        } else {
            Err(BrokenInvariant::Unbalanced(Box::new(*self)))
        }
    }
}

impl Balance {
    /// What came in is what is there or went out.
    pub(super) fn check(&self, account: &AccountId) -> Result<(), BrokenInvariant> {
        let came = wide(self.granted) + wide(self.earned);
        let there_or_gone = wide(self.available) + wide(self.held) + wide(self.spent);
        if came == there_or_gone {
            Ok(())
        } else {
            Err(BrokenInvariant::Account(*account))
        }
    }
}

impl Channel {
    /// An open channel holds its limit less what it settled, a closed one nothing.
    pub(super) fn check(&self, id: &ChannelId) -> Result<(), BrokenInvariant> {
        let should_hold = if self.is_open() {
            self.terms.limit.checked_sub(self.settled)
        } else {
            Ok(Credits::ZERO)
        };
        if should_hold == Ok(self.held) && self.settled <= self.terms.limit {
            Ok(())
        } else {
            Err(BrokenInvariant::Channel(*id))
        }
    }
}

fn wide(credits: Credits) -> u128 {
    u128::from(credits.microcredits())
}

fn sum(amounts: impl Iterator<Item = Credits>) -> Result<Credits, BrokenInvariant> {
    amounts
        .sum::<Result<Credits, _>>()
        .map_err(|_| BrokenInvariant::OutOfRange)
}

impl Book {
    /// Checks every account, every channel and all sums: what an audit and every start do.
    ///
    /// # Errors
    /// The first [`BrokenInvariant`] found.
    pub fn verify(&self) -> Result<(), BrokenInvariant> {
        self.accounts
            .iter()
            .try_for_each(|(id, balance)| balance.check(id))?;
        self.channels
            .iter()
            .try_for_each(|(id, channel)| channel.check(id))?;
        let kept = self.head.totals;
        kept.check()?;
        let open = self.channels.values().filter(|channel| channel.is_open()).count();
        let summed = Totals {
            issued: sum(self.accounts.values().map(|balance| balance.granted))?,
            fees: kept.fees,
            available: sum(self.accounts.values().map(|balance| balance.available))?,
            held: sum(self.channels.values().map(|channel| channel.held))?,
            settled: sum(self.accounts.values().map(|balance| balance.spent))?,
            accounts: count(self.accounts.len()),
            channels_open: count(open),
            channels_closed: count(self.channels.len() - open),
        };
        if kept == summed && self.deadlines.len() == open {
            Ok(())
        } else {
            Err(BrokenInvariant::Totals {
                kept: Box::new(kept),
                summed: Box::new(summed),
            })
        }
    }
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
