//! What a batch writes, table by table: one statement each, its rows as arrays.

use std::collections::BTreeSet;

use futures::future::try_join_all;
use gristmill_protocol::codec;
use gristmill_protocol::credits::Credits;
use gristmill_protocol::ids::ChannelId;
use tokio_postgres::types::ToSql;

use super::batch::Additions;
use super::connection::Connection;
use super::failure::Failure;
use super::number::Whole;
use super::rows::{stored, stored_close_reason};
use crate::book::{Changes, Channel, ChannelStatus, Head};
use crate::outcome::{BookAccount, Effect, Posted};

const ADD_ENTRIES: &str = "INSERT INTO gristmill.entries (sequence, time_ms, content, record_hash, outcome, issued, fee) \
    SELECT * FROM unnest($1::BIGINT[], $2::NUMERIC[], $3::BYTEA[], $4::BYTEA[], $5::BYTEA[], $6::BIGINT[], \
    $7::BIGINT[])";
const ADD_ACCOUNT_ENTRIES: &str = "INSERT INTO gristmill.account_entries \
    (account, settlement, sequence, available_change, held_change) \
    SELECT * FROM unnest($1::BYTEA[], $2::BOOLEAN[], $3::BIGINT[], $4::BIGINT[], $5::BIGINT[])";
const ADD_NAMES: &str = "INSERT INTO gristmill.named_entries (name, content, sequence) \
    SELECT * FROM unnest($1::BYTEA[], $2::BYTEA[], $3::BIGINT[])";
const PUT_ACCOUNTS: &str = "INSERT INTO gristmill.accounts \
    (account, available, held, granted, earned, spent, starter_granted, frozen) \
    SELECT * FROM unnest($1::BYTEA[], $2::BIGINT[], $3::BIGINT[], $4::BIGINT[], $5::BIGINT[], $6::BIGINT[], \
    $7::BOOLEAN[], $8::BOOLEAN[]) \
    ON CONFLICT (account) DO UPDATE SET available = excluded.available, held = excluded.held, \
    granted = excluded.granted, earned = excluded.earned, spent = excluded.spent, \
    starter_granted = excluded.starter_granted, frozen = excluded.frozen";
const ADD_CHANNELS: &str = "INSERT INTO gristmill.channels (channel, consumer, provider, credit_limit, fee_basis_points, \
    redeem_by_ms, request_digest, opened_sequence, opened_at_ms, downtime_at_open_ms, deadline_ms, settled, held, \
    settled_sequence, is_open, closed_reason, closed_sequence, closed_at_ms) \
    SELECT * FROM unnest($1::BYTEA[], $2::BYTEA[], $3::BYTEA[], $4::BIGINT[], $5::INT4[], $6::NUMERIC[], \
    $7::BYTEA[], $8::BIGINT[], $9::NUMERIC[], $10::NUMERIC[], $11::NUMERIC[], $12::BIGINT[], $13::BIGINT[], \
    $14::BIGINT[], $15::BOOLEAN[], $16::SMALLINT[], $17::BIGINT[], $18::NUMERIC[])";
const CHANGE_CHANNELS: &str = "UPDATE gristmill.channels AS channels SET settled = changed.settled, \
    held = changed.held, settled_sequence = changed.settled_sequence, is_open = changed.is_open, \
    closed_reason = changed.closed_reason, closed_sequence = changed.closed_sequence, \
    closed_at_ms = changed.closed_at_ms \
    FROM unnest($1::BYTEA[], $2::BIGINT[], $3::BIGINT[], $4::BIGINT[], $5::BOOLEAN[], $6::SMALLINT[], $7::BIGINT[], \
    $8::NUMERIC[]) AS changed (channel, settled, held, settled_sequence, is_open, closed_reason, closed_sequence, \
    closed_at_ms) WHERE channels.channel = changed.channel";
const PUT_HEAD: &str = "UPDATE gristmill.head SET sequence = $1, last_time_ms = $2, downtime_ms = $3, issued = $4, \
    fees = $5, available = $6, held = $7, settled = $8, accounts = $9, channels_open = $10, channels_closed = $11, \
    starter_day = $12, starter_given = $13, signer_log = $14, signer_now = $15 WHERE id = 1";

/// The statements that [`Tables::write`] uses.
pub(super) const STATEMENTS: &[&str] = &[
    ADD_ENTRIES,
    ADD_ACCOUNT_ENTRIES,
    ADD_NAMES,
    PUT_ACCOUNTS,
    ADD_CHANNELS,
    CHANGE_CHANNELS,
    PUT_HEAD,
];

type Parameter<'a> = &'a (dyn ToSql + Sync);

/// All rows that a batch writes.
pub(super) struct Tables {
    entries: Entries,
    account_entries: AccountEntries,
    names: Names,
    accounts: Accounts,
    new_channels: Channels,
    changed_channels: Channels,
    head: HeadRow,
}

impl Tables {
    pub(super) fn of(
        additions: &Additions,
        changes: &Changes,
        new_channels: &BTreeSet<ChannelId>,
    ) -> Result<Self, Failure> {
        let channels = |new: bool| {
            let wanted = changes
                .channels
                .iter()
                .filter(move |(id, _)| new_channels.contains(id) == new);
            Channels::of(wanted.map(|(_, channel)| channel))
        };
        Ok(Self {
            entries: Entries::of(additions)?,
            account_entries: AccountEntries::of(additions, changes)?,
            names: Names::of(changes)?,
            accounts: Accounts::of(changes)?,
            new_channels: channels(true)?,
            changed_channels: channels(false)?,
            head: HeadRow::of(&changes.head)?,
        })
    }

    /// Sends all of them at once; they are done in this order.
    pub(super) async fn write(&self, connection: &Connection) -> Result<(), Failure> {
        let entries = self.entries.parameters();
        let account_entries = self.account_entries.parameters();
        let names = self.names.parameters();
        let accounts = self.accounts.parameters();
        let new_channels = self.new_channels.parameters();
        let changed_channels = self.changed_channels.changing_parameters();
        let head = self.head.parameters();
        let statements: [(&'static str, &[Parameter<'_>], bool); 7] = [
            (ADD_ENTRIES, &entries, true),
            (
                ADD_ACCOUNT_ENTRIES,
                &account_entries,
                !self.account_entries.account.is_empty(),
            ),
            (ADD_NAMES, &names, !self.names.name.is_empty()),
            (PUT_ACCOUNTS, &accounts, !self.accounts.account.is_empty()),
            (ADD_CHANNELS, &new_channels, !self.new_channels.channel.is_empty()),
            (
                CHANGE_CHANNELS,
                &changed_channels,
                !self.changed_channels.channel.is_empty(),
            ),
            (PUT_HEAD, &head, true),
        ];
        let needed = statements.into_iter().filter(|(_, _, needed)| *needed);
        try_join_all(needed.map(|(sql, parameters, _)| connection.execute(sql, parameters))).await?;
        Ok(())
    }
}

#[derive(Default)]
struct Entries {
    sequence: Vec<i64>,
    time_ms: Vec<Whole>,
    content: Vec<Vec<u8>>,
    record_hash: Vec<Vec<u8>>,
    outcome: Vec<Vec<u8>>,
    issued: Vec<i64>,
    fee: Vec<i64>,
}

impl Entries {
    fn of(additions: &Additions) -> Result<Self, Failure> {
        let mut rows = Self::default();
        for (posted, content) in additions.posted.iter().zip(&additions.contents) {
            let moved = |account: BookAccount| change(posted, |touched| touched == account);
            rows.sequence.push(stored(posted.sequence)?);
            rows.time_ms.push(posted.time_ms.into());
            rows.content.push(content.clone());
            rows.record_hash.push(posted.record_hash.bytes().to_vec());
            rows.outcome.push(codec::encode(&posted.outcome));
            rows.issued.push(-moved(BookAccount::Issuance)?);
            rows.fee.push(moved(BookAccount::Fees)?);
        }
        Ok(rows)
    }

    fn parameters(&self) -> [Parameter<'_>; 7] {
        [
            &self.sequence,
            &self.time_ms,
            &self.content,
            &self.record_hash,
            &self.outcome,
            &self.issued,
            &self.fee,
        ]
    }
}

/// What an entry moved into these accounts of the book, less what it moved out of them.
fn change(posted: &Posted, mut touched: impl FnMut(BookAccount) -> bool) -> Result<i64, Failure> {
    let mut sum = 0;
    for transfer in &posted.outcome.transfers {
        let amount = amount(transfer.amount)?;
        if touched(transfer.to) {
            sum += amount;
        }
        if touched(transfer.from) {
            sum -= amount;
        }
    }
    Ok(sum)
}

/// At most 2^53 - 1, so a few of them can be added.
fn amount(credits: Credits) -> Result<i64, Failure> {
    stored(credits.microcredits())
}

#[derive(Default)]
struct AccountEntries {
    account: Vec<Vec<u8>>,
    settlement: Vec<bool>,
    sequence: Vec<i64>,
    available_change: Vec<i64>,
    held_change: Vec<i64>,
}

impl AccountEntries {
    fn of(additions: &Additions, changes: &Changes) -> Result<Self, Failure> {
        let mut rows = Self::default();
        for posted in &additions.posted {
            for account in posted.outcome.parties() {
                let is_consumer = |channel| {
                    changes
                        .channels
                        .get(&channel)
                        .is_some_and(|channel| channel.terms.consumer == account)
                };
                let available = change(posted, |touched| touched == BookAccount::Available(account))?;
                let held = change(
                    posted,
                    |touched| matches!(touched, BookAccount::Held(channel) if is_consumer(channel)),
                )?;
                rows.account.push(account.public_key().to_vec());
                rows.settlement
                    .push(matches!(posted.outcome.effect, Effect::Settled(_)));
                rows.sequence.push(stored(posted.sequence)?);
                rows.available_change.push(available);
                rows.held_change.push(held);
            }
        }
        Ok(rows)
    }

    fn parameters(&self) -> [Parameter<'_>; 5] {
        [
            &self.account,
            &self.settlement,
            &self.sequence,
            &self.available_change,
            &self.held_change,
        ]
    }
}

#[derive(Default)]
struct Names {
    name: Vec<Vec<u8>>,
    content: Vec<Vec<u8>>,
    sequence: Vec<i64>,
}

impl Names {
    fn of(changes: &Changes) -> Result<Self, Failure> {
        let mut rows = Self::default();
        for (name, entry) in &changes.named {
            rows.name.push(name.bytes().to_vec());
            rows.content.push(entry.content.bytes().to_vec());
            rows.sequence.push(stored(entry.sequence)?);
        }
        Ok(rows)
    }

    fn parameters(&self) -> [Parameter<'_>; 3] {
        [&self.name, &self.content, &self.sequence]
    }
}

#[derive(Default)]
struct Accounts {
    account: Vec<Vec<u8>>,
    available: Vec<i64>,
    held: Vec<i64>,
    granted: Vec<i64>,
    earned: Vec<i64>,
    spent: Vec<i64>,
    starter_granted: Vec<bool>,
    frozen: Vec<bool>,
}

impl Accounts {
    fn of(changes: &Changes) -> Result<Self, Failure> {
        let mut rows = Self::default();
        for (id, balance) in &changes.accounts {
            rows.account.push(id.public_key().to_vec());
            rows.available.push(amount(balance.available)?);
            rows.held.push(amount(balance.held)?);
            rows.granted.push(amount(balance.granted)?);
            rows.earned.push(amount(balance.earned)?);
            rows.spent.push(amount(balance.spent)?);
            rows.starter_granted.push(balance.starter_granted);
            rows.frozen.push(balance.frozen);
        }
        Ok(rows)
    }

    fn parameters(&self) -> [Parameter<'_>; 8] {
        [
            &self.account,
            &self.available,
            &self.held,
            &self.granted,
            &self.earned,
            &self.spent,
            &self.starter_granted,
            &self.frozen,
        ]
    }
}

#[derive(Default)]
struct Channels {
    channel: Vec<Vec<u8>>,
    consumer: Vec<Vec<u8>>,
    provider: Vec<Vec<u8>>,
    credit_limit: Vec<i64>,
    fee_basis_points: Vec<i32>,
    redeem_by_ms: Vec<Whole>,
    request_digest: Vec<Vec<u8>>,
    opened_sequence: Vec<i64>,
    opened_at_ms: Vec<Whole>,
    downtime_at_open_ms: Vec<Whole>,
    deadline_ms: Vec<Whole>,
    settled: Vec<i64>,
    held: Vec<i64>,
    settled_sequence: Vec<Option<i64>>,
    is_open: Vec<bool>,
    closed_reason: Vec<Option<i16>>,
    closed_sequence: Vec<Option<i64>>,
    closed_at_ms: Vec<Option<Whole>>,
}

impl Channels {
    fn of<'a>(channels: impl Iterator<Item = &'a Channel>) -> Result<Self, Failure> {
        let mut rows = Self::default();
        for channel in channels {
            let terms = &channel.terms;
            rows.channel.push(terms.channel.bytes().to_vec());
            rows.consumer.push(terms.consumer.public_key().to_vec());
            rows.provider.push(terms.provider.public_key().to_vec());
            rows.credit_limit.push(amount(terms.limit)?);
            rows.fee_basis_points.push(terms.fee_basis_points.into());
            rows.redeem_by_ms.push(terms.redeem_by_ms.into());
            rows.request_digest.push(terms.request_digest.to_vec());
            rows.opened_sequence.push(stored(channel.opened_sequence)?);
            rows.opened_at_ms.push(channel.opened_at_ms.into());
            rows.downtime_at_open_ms.push(channel.downtime_at_open_ms.into());
            rows.deadline_ms.push(Whole(
                i128::from(terms.redeem_by_ms) - i128::from(channel.downtime_at_open_ms),
            ));
            rows.settled.push(amount(channel.settled)?);
            rows.held.push(amount(channel.held)?);
            rows.settled_sequence
                .push(channel.settled_sequence.map(stored).transpose()?);
            rows.push_status(channel.status)?;
        }
        Ok(rows)
    }

    fn push_status(&mut self, status: ChannelStatus) -> Result<(), Failure> {
        let closed = match status {
            ChannelStatus::Open => None,
            ChannelStatus::Closed {
                reason,
                sequence,
                closed_at_ms,
            } => Some((
                stored_close_reason(reason),
                stored(sequence)?,
                closed_at_ms.into(),
            )),
        };
        self.is_open.push(closed.is_none());
        self.closed_reason.push(closed.map(|(reason, _, _)| reason));
        self.closed_sequence.push(closed.map(|(_, sequence, _)| sequence));
        self.closed_at_ms.push(closed.map(|(_, _, at)| at));
        Ok(())
    }

    fn parameters(&self) -> [Parameter<'_>; 18] {
        [
            &self.channel,
            &self.consumer,
            &self.provider,
            &self.credit_limit,
            &self.fee_basis_points,
            &self.redeem_by_ms,
            &self.request_digest,
            &self.opened_sequence,
            &self.opened_at_ms,
            &self.downtime_at_open_ms,
            &self.deadline_ms,
            &self.settled,
            &self.held,
            &self.settled_sequence,
            &self.is_open,
            &self.closed_reason,
            &self.closed_sequence,
            &self.closed_at_ms,
        ]
    }

    /// What of a channel can change.
    fn changing_parameters(&self) -> [Parameter<'_>; 8] {
        [
            &self.channel,
            &self.settled,
            &self.held,
            &self.settled_sequence,
            &self.is_open,
            &self.closed_reason,
            &self.closed_sequence,
            &self.closed_at_ms,
        ]
    }
}

struct HeadRow {
    /// In the order of the statement, between the times and the signers.
    numbers: [i64; 11],
    last_time_ms: Whole,
    downtime_ms: Whole,
    signer_log: Option<Vec<u8>>,
    signer_now: Option<Vec<u8>>,
}

impl HeadRow {
    fn of(head: &Head) -> Result<Self, Failure> {
        let totals = head.totals;
        Ok(Self {
            numbers: [
                stored(head.sequence)?,
                amount(totals.issued)?,
                amount(totals.fees)?,
                amount(totals.available)?,
                amount(totals.held)?,
                amount(totals.settled)?,
                stored(totals.accounts)?,
                stored(totals.channels_open)?,
                stored(totals.channels_closed)?,
                stored(head.starter_day)?,
                amount(head.starter_given)?,
            ],
            last_time_ms: head.last_time_ms.into(),
            downtime_ms: head.downtime_ms.into(),
            signer_log: head.signer.map(|signer| signer.log.public_key().to_vec()),
            signer_now: head.signer.map(|signer| signer.now.public_key().to_vec()),
        })
    }

    fn parameters(&self) -> [Parameter<'_>; 15] {
        let [
            sequence,
            issued,
            fees,
            available,
            held,
            settled,
            accounts,
            open,
            closed,
            day,
            given,
        ] = &self.numbers;
        [
            sequence,
            &self.last_time_ms,
            &self.downtime_ms,
            issued,
            fees,
            available,
            held,
            settled,
            accounts,
            open,
            closed,
            day,
            given,
            &self.signer_log,
            &self.signer_now,
        ]
    }
}
