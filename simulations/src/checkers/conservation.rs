//! Conservation of credits: a second bookkeeper who hears of every entry that took effect, books it in its own plain way,
//! and compares.
//!
//! The ledger's book checks itself at every entry, but a wrong rule can be consistent with itself. This one shares no code
//! with it but the entries.

use std::collections::{BTreeMap, BTreeSet};

use gristmill_ledger::book::{Book, ChannelStatus};
use gristmill_ledger::entry::{CloseReason, Entry, Grant, GrantKind, OpenChannel, Settle};
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::ids::ChannelId;
use serde::{Deserialize, Serialize};

use super::Place;
use crate::engine::Breach;

/// The rule's name in breaches.
pub const RULE: &str = "conservation";
const DAY_MS: u64 = 86_400_000;

/// What an account should have, in microcredits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Account {
    available: i128,
    held: i128,
    granted: i128,
    earned: i128,
    spent: i128,
    had_starter_grant: bool,
}

/// What a channel should be, in microcredits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Channel {
    consumer: AccountId,
    provider: AccountId,
    limit: i128,
    settled: i128,
    fee_basis_points: u16,
    redeem_by_ms: u64,
    is_open: bool,
}

/// A second book, kept from the entries alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conservation {
    accounts: BTreeMap<AccountId, Account>,
    channels: BTreeMap<ChannelId, Channel>,
    issued: i128,
    fees: i128,
    downtime_ms: u64,
    starter_day: u64,
    starter_given: i128,
}

impl Conservation {
    /// An entry took effect for the first time, at this time of the coordinator in Unix milliseconds; `book` is as it is
    /// after it.
    ///
    /// # Errors
    /// The breach, where the entry should not have taken effect or left another balance than it should.
    pub fn posted(&mut self, entry: &Entry, book: &Book, time_ms: u64, place: Place) -> Result<(), Breach> {
        self.post(entry, time_ms)
            .and_then(|touched| self.compare(book, touched))
            .map_err(|message| place.breach(RULE, message))
    }

    /// The book refused an entry at this time of the coordinator in Unix milliseconds.
    ///
    /// # Errors
    /// The breach, where it should have taken effect: a good voucher in time, or a channel that its consumer can pay for.
    pub fn refused(&self, entry: &Entry, book: &Book, time_ms: u64, place: Place) -> Result<(), Breach> {
        let is_owed = match entry {
            Entry::Settle(settle) => self.channels.get(&settle.channel).is_some_and(|channel| {
                let voucher = settle.voucher.content_unchecked();
                let cumulative = i128::from(voucher.cumulative.microcredits());
                channel.is_open
                    && time_ms <= channel.redeem_by_ms.saturating_add(self.downtime_ms)
                    && voucher.channel == settle.channel
                    && *settle.voucher.signer() == channel.consumer
                    && (1..=channel.limit).contains(&cumulative)
            }),
            Entry::OpenChannel(open) => {
                let available = self
                    .accounts
                    .get(&open.consumer)
                    .map_or(0, |account| account.available);
                let is_frozen = [open.consumer, open.provider]
                    .iter()
                    .any(|account| book.balance(account).frozen);
                !self.channels.contains_key(&open.channel)
                    && available >= i128::from(open.limit.microcredits())
                    && !is_frozen
                    && open.consumer != open.provider
                    && open.redeem_by_ms > time_ms
            }
            _ => false,
        };
        match is_owed {
            true => Err(place.breach(RULE, "an entry was refused that should have taken effect")),
            false => Ok(()),
        }
    }

    /// Looks at everything: the book's own sums, every account and every channel.
    ///
    /// # Errors
    /// The first difference.
    pub fn survey(&self, book: &Book, place: Place) -> Result<(), Breach> {
        let whole = || {
            book.verify().map_err(|broken| broken.to_string())?;
            self.compare(book, self.accounts.keys().copied().collect())?;
            if book.totals().accounts != self.accounts.len() as u64 {
                return Err(format!(
                    "the book has {} accounts, {} should be known",
                    book.totals().accounts,
                    self.accounts.len()
                ));
            }
            self.channels
                .iter()
                .try_for_each(|(id, channel)| compare_channel(book, *id, channel))
        };
        whole().map_err(|message| place.breach(RULE, message))
    }

    /// Books an entry, and says whose balance it changes.
    fn post(&mut self, entry: &Entry, time_ms: u64) -> Result<BTreeSet<AccountId>, String> {
        match entry {
            Entry::Grant(grant) => self.grant(grant, time_ms),
            Entry::OpenChannel(open) => self.open(open),
            Entry::Settle(settle) => self.settle(settle),
            Entry::CloseChannel(close) => self.close(close.channel, close.reason, time_ms),
            Entry::Started(started) => {
                self.downtime_ms = self.downtime_ms.saturating_add(started.downtime_ms);
                Ok(BTreeSet::new())
            }
            Entry::Freeze(freeze) | Entry::Unfreeze(freeze) => {
                self.accounts.entry(freeze.account).or_default();
                Ok(BTreeSet::from([freeze.account]))
            }
            Entry::RotateKey(_) => Ok(BTreeSet::new()),
        }
    }

    fn grant(&mut self, grant: &Grant, time_ms: u64) -> Result<BTreeSet<AccountId>, String> {
        let amount = i128::from(grant.amount.microcredits());
        let account = self.accounts.entry(grant.account).or_default();
        if grant.kind == GrantKind::Starter {
            if std::mem::replace(&mut account.had_starter_grant, true) {
                return Err(format!("{} had its starter grant before", grant.account));
            }
            if self.starter_day != time_ms / DAY_MS {
                (self.starter_day, self.starter_given) = (time_ms / DAY_MS, 0);
            }
            self.starter_given += amount;
            let budget = i128::from(grant.starter_daily_budget.microcredits());
            if self.starter_given > budget {
                return Err(format!(
                    "starter grants of one day come to {} microcredits, {budget} are allowed",
                    self.starter_given
                ));
            }
        }
        account.granted += amount;
        account.available += amount;
        self.issued += amount;
        Ok(BTreeSet::from([grant.account]))
    }

    fn open(&mut self, open: &OpenChannel) -> Result<BTreeSet<AccountId>, String> {
        let limit = i128::from(open.limit.microcredits());
        let channel = Channel {
            consumer: open.consumer,
            provider: open.provider,
            limit,
            settled: 0,
            fee_basis_points: open.fee_basis_points,
            redeem_by_ms: open.redeem_by_ms.saturating_sub(self.downtime_ms),
            is_open: true,
        };
        if self.channels.insert(open.channel, channel).is_some() {
            return Err(format!("channel {} was opened before", open.channel));
        }
        self.accounts.entry(open.provider).or_default();
        let consumer = self.accounts.entry(open.consumer).or_default();
        if consumer.available < limit {
            return Err(format!(
                "{} has {} microcredits and put aside {limit}",
                open.consumer, consumer.available
            ));
        }
        consumer.available -= limit;
        consumer.held += limit;
        Ok(BTreeSet::from([open.consumer, open.provider]))
    }

    fn settle(&mut self, settle: &Settle) -> Result<BTreeSet<AccountId>, String> {
        let id = settle.channel;
        let channel = self
            .channels
            .get_mut(&id)
            .ok_or_else(|| format!("channel {id} paid and was never opened"))?;
        let voucher = settle.voucher.content_unchecked();
        let cumulative = i128::from(voucher.cumulative.microcredits());
        // After its time a channel still pays until its hold has returned, which closes it.
        let wrong = match () {
            () if !channel.is_open => Some("paid after it was closed"),
            () if voucher.channel != id => Some("paid for a voucher of another one"),
            () if *settle.voucher.signer() != channel.consumer => {
                Some("paid for somebody who is not its consumer")
            }
            () if cumulative > channel.limit => Some("paid more than its limit"),
            () if cumulative <= channel.settled => Some("paid twice for one voucher"),
            () => None,
        };
        if let Some(wrong) = wrong {
            return Err(format!("channel {id} {wrong}"));
        }
        // As market-protocol.md has it: the fee is that of the sum, so batches do not matter.
        let fee_of = |settled: i128| settled * i128::from(channel.fee_basis_points) / 10_000;
        let (amount, fee) = (
            cumulative - channel.settled,
            fee_of(cumulative) - fee_of(channel.settled),
        );
        channel.settled = cumulative;
        let (consumer, provider) = (channel.consumer, channel.provider);
        let payer = self.accounts.entry(consumer).or_default();
        payer.held -= amount;
        payer.spent += amount;
        let payee = self.accounts.entry(provider).or_default();
        payee.available += amount - fee;
        payee.earned += amount - fee;
        self.fees += fee;
        Ok(BTreeSet::from([consumer, provider]))
    }

    fn close(
        &mut self,
        id: ChannelId,
        reason: CloseReason,
        time_ms: u64,
    ) -> Result<BTreeSet<AccountId>, String> {
        let channel = self
            .channels
            .get_mut(&id)
            .ok_or_else(|| format!("channel {id} was closed and never opened"))?;
        if !std::mem::replace(&mut channel.is_open, false) {
            return Err(format!("channel {id} was closed twice"));
        }
        let redeem_by_ms = channel.redeem_by_ms.saturating_add(self.downtime_ms);
        if reason == CloseReason::Expired && time_ms <= redeem_by_ms {
            return Err(format!("channel {id} expired before its time"));
        }
        let rest = channel.limit - channel.settled;
        let (consumer, provider) = (channel.consumer, channel.provider);
        let account = self.accounts.entry(consumer).or_default();
        account.held -= rest;
        account.available += rest;
        Ok(BTreeSet::from([consumer, provider]))
    }

    /// Whether the book says the same of these accounts, and of all of them together.
    fn compare(&self, book: &Book, accounts: BTreeSet<AccountId>) -> Result<(), String> {
        for id in accounts {
            let (expected, actual) = (
                self.accounts.get(&id).copied().unwrap_or_default(),
                book.balance(&id),
            );
            let actual = Account {
                available: i128::from(actual.available.microcredits()),
                held: i128::from(actual.held.microcredits()),
                granted: i128::from(actual.granted.microcredits()),
                earned: i128::from(actual.earned.microcredits()),
                spent: i128::from(actual.spent.microcredits()),
                had_starter_grant: actual.starter_granted,
            };
            if expected != actual {
                return Err(format!("{id} should have {expected:?} but has {actual:?}"));
            }
        }
        let totals = book.totals();
        let actual = [totals.issued, totals.fees].map(|credits| i128::from(credits.microcredits()));
        if actual != [self.issued, self.fees] {
            return Err(format!(
                "issued and fees should be {:?} microcredits but are {actual:?}",
                [self.issued, self.fees]
            ));
        }
        Ok(())
    }
}

fn compare_channel(book: &Book, id: ChannelId, expected: &Channel) -> Result<(), String> {
    let Some(actual) = book.channel(&id) else {
        return Err(format!("channel {id} is gone"));
    };
    let held = if expected.is_open {
        expected.limit - expected.settled
    } else {
        0
    };
    let is_same = i128::from(actual.settled.microcredits()) == expected.settled
        && i128::from(actual.held.microcredits()) == held
        && (actual.status == ChannelStatus::Open) == expected.is_open;
    match is_same {
        true => Ok(()),
        false => Err(format!("channel {id} should be {expected:?} but is {actual:?}")),
    }
}
