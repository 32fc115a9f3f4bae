//! What readers ask, each with one statement, so that an answer is of one moment.

use gristmill_protocol::identity::AccountId;
use gristmill_protocol::ids::ChannelId;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::connection::{Connection, Pool};
use super::failure::Failure;
use super::number::Whole;
use super::rows;
use crate::book::{Balance, Book, ChannelState, Head, Part, Scope};
use crate::digest::Digest;
use crate::index::{PAGE_MAX_ITEMS, Selection};
use crate::outcome::Posted;
use crate::record::Record;
use crate::store::{RECORDS_MAX, ReadError};

const HEAD: &str = "SELECT sequence, last_time_ms, downtime_ms, issued, fees, available, held, settled, accounts, \
    channels_open, channels_closed, starter_day, starter_given, signer_log, signer_now, schema_version \
    FROM gristmill.head WHERE id = 1";
const BALANCE: &str = "SELECT account, available, held, granted, earned, spent, starter_granted, frozen \
    FROM gristmill.accounts WHERE account = $1";
const CHANNEL: &str = "SELECT channels.channel, consumer, provider, credit_limit, fee_basis_points, redeem_by_ms, \
    request_digest, opened_sequence, opened_at_ms, downtime_at_open_ms, channels.settled, channels.held, \
    settled_sequence, closed_reason, closed_sequence, closed_at_ms, head.downtime_ms \
    FROM gristmill.channels AS channels CROSS JOIN gristmill.head AS head WHERE channels.channel = $1";
const EXPIRED: &str = "SELECT channel FROM gristmill.channels WHERE is_open \
    AND deadline_ms < $1::NUMERIC - (SELECT downtime_ms FROM gristmill.head WHERE id = 1) \
    ORDER BY deadline_ms, channel LIMIT $2";
const POSTED: &str =
    "SELECT sequence, time_ms, record_hash, outcome FROM gristmill.entries WHERE sequence = $1";
const SETTLEMENTS: &str = "SELECT entries.sequence, time_ms, record_hash, outcome FROM \
    (SELECT sequence FROM gristmill.account_entries WHERE account = $1 AND settlement AND sequence < $2 \
        ORDER BY sequence DESC LIMIT $3) AS page \
    JOIN gristmill.entries AS entries ON entries.sequence = page.sequence ORDER BY entries.sequence DESC";
const HISTORY: &str = "SELECT entries.sequence, time_ms, record_hash, outcome FROM \
    (SELECT sequence FROM \
        ((SELECT sequence FROM gristmill.account_entries WHERE account = $1 AND settlement AND sequence < $2 \
            ORDER BY sequence DESC LIMIT $3) \
        UNION ALL \
        (SELECT sequence FROM gristmill.account_entries WHERE account = $1 AND NOT settlement AND sequence < $2 \
            ORDER BY sequence DESC LIMIT $3)) AS both_kinds \
        ORDER BY sequence DESC LIMIT $3) AS page \
    JOIN gristmill.entries AS entries ON entries.sequence = page.sequence ORDER BY entries.sequence DESC";
const RECORDS: &str = "SELECT sequence, time_ms, content, record_hash FROM gristmill.entries \
    WHERE sequence >= $1 AND sequence < $2 ORDER BY sequence";
const ALL_ACCOUNTS: &str = "SELECT account, available, held, granted, earned, spent, starter_granted, frozen \
    FROM gristmill.accounts";
const ALL_CHANNELS: &str = "SELECT channel, consumer, provider, credit_limit, fee_basis_points, redeem_by_ms, \
    request_digest, opened_sequence, opened_at_ms, downtime_at_open_ms, settled, held, settled_sequence, \
    closed_reason, closed_sequence, closed_at_ms FROM gristmill.channels";
const ALL_NAMES: &str = "SELECT name, content, sequence FROM gristmill.named_entries";

impl From<Failure> for ReadError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Damaged(reason) => Self::Damaged { reason },
            other => Self::Unavailable {
                reason: other.reason(),
            },
        }
    }
}

/// Reads from a database.
pub(super) struct Reader {
    pool: Pool,
}

type Parameter<'a> = &'a (dyn ToSql + Sync);

impl Reader {
    pub(super) const fn new(pool: Pool) -> Self {
        Self { pool }
    }

    pub(super) const fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Rows, asked for once more where the connection has broken since it was last used: reading twice harms nobody.
    pub(super) async fn rows(
        &self,
        sql: &'static str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, ReadError> {
        let mut again = true;
        loop {
            let connection = self.pool.get().await?.ok_or(ReadError::Stopped)?;
            match connection.query(sql, parameters).await {
                Err(Failure::Unreachable(_)) if again => again = false,
                Err(Failure::Conflict(_)) if again => again = false,
                other => return Ok(other?),
            }
        }
    }

    pub(super) async fn row(
        &self,
        sql: &'static str,
        parameters: &[Parameter<'_>],
    ) -> Result<Option<Row>, ReadError> {
        Ok(self.rows(sql, parameters).await?.into_iter().next())
    }

    pub(super) async fn head(&self) -> Result<Head, ReadError> {
        let row = self.row(HEAD, &[]).await?;
        let row = row.ok_or_else(|| Failure::damaged("the head row is missing"))?;
        Ok(rows::head(&row)?)
    }

    pub(super) async fn balance(&self, account: &AccountId) -> Result<Balance, ReadError> {
        match self.row(BALANCE, &[&&account.public_key()[..]]).await? {
            Some(row) => Ok(rows::balance(&row)?),
            None => Ok(Balance::default()),
        }
    }

    pub(super) async fn channel(&self, id: &ChannelId) -> Result<Option<ChannelState>, ReadError> {
        let Some(row) = self.row(CHANNEL, &[&&id.bytes()[..]]).await? else {
            return Ok(None);
        };
        let downtime_ms = rows::whole(&row, "downtime_ms")?;
        Ok(Some(rows::channel(&row)?.state(*id, downtime_ms)))
    }

    pub(super) async fn expired_channels(
        &self,
        now_ms: u64,
        limit: usize,
    ) -> Result<Vec<ChannelId>, ReadError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = self.rows(EXPIRED, &[&Whole::from(now_ms), &limit]).await?;
        Ok(rows.iter().map(rows::channel_id).collect::<Result<_, _>>()?)
    }

    pub(super) async fn posted(&self, sequence: u64) -> Result<Option<Posted>, ReadError> {
        let Ok(sequence) = i64::try_from(sequence) else {
            return Ok(None);
        };
        let row = self.row(POSTED, &[&sequence]).await?;
        Ok(row.as_ref().map(rows::posted).transpose()?)
    }

    pub(super) async fn history(
        &self,
        account: &AccountId,
        selection: Selection,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Posted>, ReadError> {
        let sql = match selection {
            Selection::All => HISTORY,
            Selection::Settlements => SETTLEMENTS,
        };
        let before = before.map_or(i64::MAX, |before| i64::try_from(before).unwrap_or(i64::MAX));
        let limit = i64::try_from(limit.min(PAGE_MAX_ITEMS)).unwrap_or(i64::MAX);
        let page = self
            .rows(sql, &[&&account.public_key()[..], &before, &limit])
            .await?;
        Ok(page.iter().map(rows::posted).collect::<Result<_, _>>()?)
    }

    pub(super) async fn records(&self, first: u64, limit: usize) -> Result<Vec<Record>, ReadError> {
        let first = first.max(1);
        let end = first.saturating_add(limit.min(RECORDS_MAX) as u64);
        let (Ok(first), Ok(end)) = (i64::try_from(first), i64::try_from(end)) else {
            return Ok(Vec::new());
        };
        let rows = self.rows(RECORDS, &[&first, &end]).await?;
        let records: Vec<Record> = rows.iter().map(rows::record).collect::<Result<_, _>>()?;
        let wanted = records.iter().zip(u64::try_from(first).unwrap_or(0)..);
        for (record, sequence) in wanted {
            if record.sequence != sequence {
                return Err(Failure::damaged(format!("entry {sequence} is missing")).into());
            }
        }
        Ok(records)
    }

    /// Loads the whole state at one moment: for audits, not for every day.
    pub(super) async fn state_digest(&self) -> Result<Digest, ReadError> {
        let connection = self.at_one_moment().await?;
        let part = whole_state(&connection).await?;
        Ok(Book::partial(Scope::default(), part).digest())
    }

    /// A connection of its own on which everything is read as of one moment, however long it takes. Ends when it is
    /// dropped.
    pub(super) async fn at_one_moment(&self) -> Result<Connection, ReadError> {
        if self.pool.is_closed() {
            return Err(ReadError::Stopped);
        }
        let connection = self.pool.connector().connect_unbounded().await?;
        connection
            .command("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            .await?;
        Ok(connection)
    }
}

async fn whole_state(connection: &Connection) -> Result<Part, Failure> {
    let head = connection.query_one(HEAD, &[]).await?;
    let mut part = Part {
        head: rows::head(&head)?,
        ..Part::default()
    };
    for row in connection.query(ALL_ACCOUNTS, &[]).await? {
        part.accounts
            .insert(rows::account_id(&row, "account")?, rows::balance(&row)?);
    }
    for row in connection.query(ALL_CHANNELS, &[]).await? {
        part.channels
            .insert(rows::channel_id(&row)?, rows::channel(&row)?);
    }
    for row in connection.query(ALL_NAMES, &[]).await? {
        part.named.extend([rows::named(&row)?]);
    }
    Ok(part)
}
