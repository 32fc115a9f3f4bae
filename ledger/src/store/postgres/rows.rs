//! Rows of the tables as what the book knows, and back. A row that says something impossible is damage, not a panic.

use gristmill_protocol::codec;
use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::ids::{ChannelId, EntryId};
use gristmill_protocol::log::hash::LogHash;
use tokio_postgres::Row;
use tokio_postgres::types::FromSql;

use super::failure::Failure;
use super::number::Whole;
use crate::book::{Balance, Channel, ChannelStatus, Head, NamedEntry, Signer, Totals};
use crate::digest::Digest;
use crate::entry::{CloseReason, OpenChannel};
use crate::outcome::{Outcome, Posted};
use crate::record::Record;

/// Most bytes of an encoded outcome: a few transfers and one effect.
const OUTCOME_MAX_BYTES: usize = 8 * 1_024;

/// A number of this row as `BIGINT`. Sequences and counts stay far below where that ends.
pub(super) fn stored(number: u64) -> Result<i64, Failure> {
    i64::try_from(number).map_err(|_| Failure::damaged(format!("{number} is too large for the database")))
}

pub(super) fn head(row: &Row) -> Result<Head, Failure> {
    let log = bytes::<Option<&[u8]>, 32>(row, "signer_log", |found| found)?;
    let now = bytes::<Option<&[u8]>, 32>(row, "signer_now", |found| found)?;
    let signer = log.zip(now).map(|(log, now)| Signer {
        log: AccountId::from_public_key(log),
        now: AccountId::from_public_key(now),
    });
    Ok(Head {
        sequence: number(row, "sequence")?,
        last_time_ms: whole(row, "last_time_ms")?,
        downtime_ms: whole(row, "downtime_ms")?,
        totals: Totals {
            issued: credits(row, "issued")?,
            fees: credits(row, "fees")?,
            available: credits(row, "available")?,
            held: credits(row, "held")?,
            settled: credits(row, "settled")?,
            accounts: number(row, "accounts")?,
            channels_open: number(row, "channels_open")?,
            channels_closed: number(row, "channels_closed")?,
        },
        starter_day: number(row, "starter_day")?,
        starter_given: credits(row, "starter_given")?,
        signer,
    })
}

pub(super) fn account_id(row: &Row, column: &str) -> Result<AccountId, Failure> {
    Ok(AccountId::from_public_key(required(row, column)?))
}

pub(super) fn balance(row: &Row) -> Result<Balance, Failure> {
    Ok(Balance {
        available: credits(row, "available")?,
        held: credits(row, "held")?,
        granted: credits(row, "granted")?,
        earned: credits(row, "earned")?,
        spent: credits(row, "spent")?,
        starter_granted: value(row, "starter_granted")?,
        frozen: value(row, "frozen")?,
    })
}

pub(super) fn channel_id(row: &Row) -> Result<ChannelId, Failure> {
    Ok(ChannelId::from_bytes(required(row, "channel")?))
}

pub(super) fn channel(row: &Row) -> Result<Channel, Failure> {
    let terms = OpenChannel {
        channel: channel_id(row)?,
        consumer: account_id(row, "consumer")?,
        provider: account_id(row, "provider")?,
        limit: credits(row, "credit_limit")?,
        fee_basis_points: u16::try_from(value::<i32>(row, "fee_basis_points")?)
            .map_err(|_| Failure::damaged("a fee is out of range"))?,
        redeem_by_ms: whole(row, "redeem_by_ms")?,
        request_digest: required(row, "request_digest")?,
    };
    let status = match value::<Option<i16>>(row, "closed_reason")? {
        None => ChannelStatus::Open,
        Some(reason) => ChannelStatus::Closed {
            reason: close_reason(reason)?,
            sequence: number(row, "closed_sequence")?,
            closed_at_ms: whole(row, "closed_at_ms")?,
        },
    };
    let settled_sequence = value::<Option<i64>>(row, "settled_sequence")?;
    Ok(Channel {
        terms,
        settled: credits(row, "settled")?,
        held: credits(row, "held")?,
        opened_sequence: number(row, "opened_sequence")?,
        opened_at_ms: whole(row, "opened_at_ms")?,
        downtime_at_open_ms: whole(row, "downtime_at_open_ms")?,
        settled_sequence: settled_sequence.map(unsigned).transpose()?,
        status,
    })
}

fn close_reason(stored: i16) -> Result<CloseReason, Failure> {
    match stored {
        0 => Ok(CloseReason::Provider),
        1 => Ok(CloseReason::Expired),
        _ => Err(Failure::damaged("a channel was closed for no known reason")),
    }
}

/// What stands for a reason in the table.
pub(super) const fn stored_close_reason(reason: CloseReason) -> i16 {
    match reason {
        CloseReason::Provider => 0,
        CloseReason::Expired => 1,
    }
}

pub(super) fn named(row: &Row) -> Result<(EntryId, NamedEntry), Failure> {
    let entry = NamedEntry {
        content: Digest::from_bytes(required(row, "content")?),
        sequence: number(row, "sequence")?,
    };
    Ok((EntryId::from_bytes(required(row, "name")?), entry))
}

pub(super) fn posted(row: &Row) -> Result<Posted, Failure> {
    let sequence = number(row, "sequence")?;
    let outcome = codec::decode::<Outcome, OUTCOME_MAX_BYTES>(value(row, "outcome")?)
        .map_err(|error| Failure::damaged(format!("the outcome of entry {sequence}: {error}")))?;
    Ok(Posted {
        sequence,
        time_ms: whole(row, "time_ms")?,
        record_hash: log_hash(row, "record_hash")?,
        outcome,
        repeated: false,
    })
}

pub(super) fn record(row: &Row) -> Result<Record, Failure> {
    let record = Record {
        sequence: number(row, "sequence")?,
        time_ms: whole(row, "time_ms")?,
        content: value(row, "content")?,
    };
    if record.hash() != log_hash(row, "record_hash")? {
        let sequence = record.sequence;
        return Err(Failure::damaged(format!(
            "entry {sequence} is not what its hash says"
        )));
    }
    Ok(record)
}

pub(super) fn log_hash(row: &Row, column: &str) -> Result<LogHash, Failure> {
    Ok(LogHash::from_bytes(required(row, column)?))
}

pub(super) fn number(row: &Row, column: &str) -> Result<u64, Failure> {
    unsigned(value(row, column)?)
}

fn unsigned(number: i64) -> Result<u64, Failure> {
    u64::try_from(number).map_err(|_| Failure::damaged(format!("{number} stands where nothing is negative")))
}

pub(super) fn whole(row: &Row, column: &str) -> Result<u64, Failure> {
    value::<Whole>(row, column)?.unsigned().map_err(Failure::Damaged)
}

fn credits(row: &Row, column: &str) -> Result<Credits, Failure> {
    Credits::from_microcredits(number(row, column)?)
        .map_err(|error| Failure::damaged(format!("{column}: {error}")))
}

fn required<const N: usize>(row: &Row, column: &str) -> Result<[u8; N], Failure> {
    bytes::<&[u8], N>(row, column, Some)?.ok_or_else(|| Failure::damaged(format!("{column} is missing")))
}

fn bytes<'a, T: FromSql<'a>, const N: usize>(
    row: &'a Row,
    column: &str,
    present: impl FnOnce(T) -> Option<&'a [u8]>,
) -> Result<Option<[u8; N]>, Failure> {
    let Some(found) = present(value(row, column)?) else {
        return Ok(None);
    };
    <[u8; N]>::try_from(found)
        .map(Some)
        .map_err(|_| Failure::damaged(format!("{column} has {} bytes, not {N}", found.len())))
}

pub(super) fn value<'a, T: FromSql<'a>>(row: &'a Row, column: &str) -> Result<T, Failure> {
    row.try_get(column)
        .map_err(|error| Failure::damaged(format!("{column}: {error}")))
}
