//! One batch of entries in one transaction.
//!
//! The head row is locked first, so transactions of all processes take turns; under PostgreSQL's `READ COMMITTED` every
//! statement after that sees all that was committed before, and under stronger isolation whoever would not see it is
//! told to repeat. The sequence of the log is the locked head's and the primary key of the entries: two transactions
//! can't both add the same one.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::{join, try_join};
use gristmill_protocol::ids::ChannelId;
use gristmill_protocol::log::hash::LogHash;
use tokio_postgres::types::ToSql;

use super::connection::Connection;
use super::failure::Failure;
use super::rows::{self, stored};
use super::schema::SCHEMA_VERSION;
use super::tables::Tables;
use crate::book::{Applied, ApplyError, Book, Changes, Part, Scope};
use crate::entry::{CheckedEntry, Salt};
use crate::outcome::{Outcome, Posted};
use crate::record::record_hash;
use crate::refusal::Refusal;

/// An entry that is to be posted.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) entry: CheckedEntry,
    pub(super) time_ms: u64,
}

/// What became of a request.
pub(super) type Answer = Result<Posted, Refusal>;

/// A batch that has been decided about, with everything written but the commit not known to have succeeded.
#[derive(Debug)]
pub(super) struct Undecided {
    /// The last entry that it adds: where it is found, the commit has succeeded, where not, it never will.
    last: Option<(u64, LogHash)>,
    answers: Vec<Answer>,
}

/// Why a batch is not known to be committed.
#[derive(Debug)]
pub(super) enum BatchError {
    /// It is not committed and will not be.
    NotCommitted(Failure),
    /// It may be.
    Unknown(Failure, Box<Undecided>),
}

impl From<Failure> for BatchError {
    fn from(failure: Failure) -> Self {
        Self::NotCommitted(failure)
    }
}

const LOCK_HEAD: &str = "SELECT sequence, last_time_ms, downtime_ms, issued, fees, available, held, settled, accounts, \
    channels_open, channels_closed, starter_day, starter_given, signer_log, signer_now, schema_version \
    FROM gristmill.head WHERE id = 1 FOR UPDATE";
const CHANNELS: &str = "SELECT channel, consumer, provider, credit_limit, fee_basis_points, redeem_by_ms, \
    request_digest, opened_sequence, opened_at_ms, downtime_at_open_ms, settled, held, settled_sequence, \
    closed_reason, closed_sequence, closed_at_ms FROM gristmill.channels WHERE channel = ANY($1)";
const NAMES: &str = "SELECT name, content, sequence FROM gristmill.named_entries WHERE name = ANY($1)";
const ACCOUNTS: &str = "SELECT account, available, held, granted, earned, spent, starter_granted, frozen \
    FROM gristmill.accounts WHERE account = ANY($1)";
const POSTED: &str =
    "SELECT sequence, time_ms, record_hash, outcome FROM gristmill.entries WHERE sequence = ANY($1)";
const IS_THERE: &str = "SELECT sequence FROM gristmill.entries WHERE sequence = $1 AND record_hash = $2";

/// What a connection has to know before it can write batches.
pub(super) const STATEMENTS: &[&str] = &[LOCK_HEAD, CHANNELS, NAMES, ACCOUNTS, POSTED, IS_THERE];

/// Posts a batch. Where an earlier attempt at it may have succeeded, that is found out first.
pub(super) async fn commit(
    connection: &Connection,
    requests: &[Request],
    salts: &[Salt],
    undecided: &mut Option<Undecided>,
) -> Result<Vec<Answer>, BatchError> {
    let scope = Scope::of(requests.iter().map(|request| request.entry.entry()));
    let part = match load(connection, scope, undecided).await {
        Ok(Loaded::Part(part)) => part,
        Ok(Loaded::Before(answers)) => {
            roll_back(connection).await;
            return Ok(answers);
        }
        Err(failure) => {
            roll_back(connection).await;
            return Err(failure.into());
        }
    };
    let decided = match decide(*part, requests, salts) {
        Ok(decided) => decided,
        Err(failure) => {
            roll_back(connection).await;
            return Err(failure.into());
        }
    };
    write(connection, decided).await
}

/// What was found under the lock of the head row.
enum Loaded {
    Part(Box<(Scope, Part)>),
    /// The earlier attempt has succeeded.
    Before(Vec<Answer>),
}

async fn load(
    connection: &Connection,
    mut scope: Scope,
    undecided: &mut Option<Undecided>,
) -> Result<Loaded, Failure> {
    let channel_ids: Vec<&[u8]> = scope.channels.iter().map(|id| &id.bytes()[..]).collect();
    let names: Vec<&[u8]> = scope.names.iter().map(|name| &name.bytes()[..]).collect();
    // They travel together and are done one after the other.
    let begin = connection.command("BEGIN ISOLATION LEVEL READ COMMITTED");
    let locked = connection.query_one(LOCK_HEAD, &[]);
    let found = try_join(
        async {
            let parameters: [&(dyn ToSql + Sync); 1] = [&channel_ids];
            connection.query(CHANNELS, &parameters).await
        },
        async {
            let parameters: [&(dyn ToSql + Sync); 1] = [&names];
            connection.query(NAMES, &parameters).await
        },
    );
    let (((), head), (channels, named)) = try_join(try_join(begin, locked), found).await?;
    check_version(&head)?;
    if let Some(answers) = resolve(connection, undecided).await? {
        return Ok(Loaded::Before(answers));
    }
    let mut part = Part {
        head: rows::head(&head)?,
        ..Part::default()
    };
    for row in &channels {
        let channel = rows::channel(row)?;
        scope
            .accounts
            .extend([channel.terms.consumer, channel.terms.provider]);
        part.channels.insert(channel.terms.channel, channel);
    }
    for row in &named {
        part.named.extend([rows::named(row)?]);
    }
    let accounts: Vec<&[u8]> = scope.accounts.iter().map(|id| &id.public_key()[..]).collect();
    for row in connection.query(ACCOUNTS, &[&accounts]).await? {
        part.accounts
            .insert(rows::account_id(&row, "account")?, rows::balance(&row)?);
    }
    Ok(Loaded::Part(Box::new((scope, part))))
}

fn check_version(head: &tokio_postgres::Row) -> Result<(), Failure> {
    let version: i32 = rows::value(head, "schema_version")?;
    if version == SCHEMA_VERSION {
        return Ok(());
    }
    Err(Failure::Refused(format!(
        "the tables have version {version}, this program writes version {SCHEMA_VERSION}; start the program that \
         migrated them"
    )))
}

/// Whether the attempt whose end is not known has succeeded: the lock has waited for its end, so it shows now.
async fn resolve(
    connection: &Connection,
    undecided: &mut Option<Undecided>,
) -> Result<Option<Vec<Answer>>, Failure> {
    let Some(Undecided {
        last: Some((sequence, hash)),
        ..
    }) = undecided
    else {
        *undecided = None;
        return Ok(None);
    };
    let found = connection
        .query_opt(IS_THERE, &[&stored(*sequence)?, &&hash.bytes()[..]])
        .await?;
    let before = undecided.take();
    Ok(found.and(before).map(|before| before.answers))
}

/// What the book has decided, and what of it is not known before the transaction asks.
struct Decided {
    answers: Vec<Option<Answer>>,
    /// Which requests repeat which entries from before this batch.
    repeats: Vec<(usize, u64)>,
    additions: Additions,
    changes: Changes,
    new_channels: BTreeSet<ChannelId>,
}

/// New rows of the entries and of what is derived from them alone.
#[derive(Default)]
pub(super) struct Additions {
    pub(super) posted: Vec<Posted>,
    pub(super) contents: Vec<Vec<u8>>,
}

fn decide(part: (Scope, Part), requests: &[Request], salts: &[Salt]) -> Result<Decided, Failure> {
    let (scope, part) = part;
    let known: BTreeSet<ChannelId> = part.channels.keys().copied().collect();
    let first = part.head.sequence + 1;
    let book = Book::partial(scope, part);
    let mut draft = book.draft();
    let mut answers = Vec::with_capacity(requests.len());
    let mut repeats = Vec::new();
    let mut additions = Additions::default();
    for (request, salt) in requests.iter().zip(salts) {
        answers.push(match draft.apply(&request.entry, request.time_ms) {
            Ok(Applied::New { sequence, outcome }) => {
                Some(Ok(additions.add(request, salt, sequence, outcome)))
            }
            Ok(Applied::Before { sequence }) => match sequence.checked_sub(first) {
                Some(of_this_batch) => Some(Ok(additions.repeat(of_this_batch)?)),
                None => {
                    repeats.push((answers.len(), sequence));
                    None
                }
            },
            Err(ApplyError::Refused(refusal)) => Some(Err(refusal)),
            Err(ApplyError::Broken(broken)) => return Err(Failure::Damaged(broken.to_string())),
        });
    }
    let changes = draft.finish();
    let new_channels = changes
        .channels
        .keys()
        .copied()
        .filter(|id| !known.contains(id))
        .collect();
    Ok(Decided {
        answers,
        repeats,
        additions,
        changes,
        new_channels,
    })
}

impl Additions {
    fn add(&mut self, request: &Request, salt: &Salt, sequence: u64, outcome: Outcome) -> Posted {
        let content = request.entry.entry().encode_salted(salt);
        let posted = Posted {
            sequence,
            time_ms: request.time_ms,
            record_hash: record_hash(sequence, request.time_ms, &content),
            outcome,
            repeated: false,
        };
        self.contents.push(content);
        self.posted.push(posted.clone());
        posted
    }

    fn repeat(&self, position: u64) -> Result<Posted, Failure> {
        let found = usize::try_from(position)
            .ok()
            .and_then(|position| self.posted.get(position));
        let posted = found.ok_or_else(|| Failure::damaged("an entry repeats one that is not there"))?;
        Ok(Posted {
            repeated: true,
            ..posted.clone()
        })
    }
}

async fn write(connection: &Connection, decided: Decided) -> Result<Vec<Answer>, BatchError> {
    let Decided {
        mut answers,
        repeats,
        additions,
        changes,
        new_channels,
    } = decided;
    let repeated = match repeated(connection, &repeats).await {
        Ok(repeated) => repeated,
        Err(failure) => {
            roll_back(connection).await;
            return Err(failure.into());
        }
    };
    for ((position, _), posted) in repeats.into_iter().zip(repeated) {
        if let Some(answer) = answers.get_mut(position) {
            *answer = Some(Ok(posted));
        }
    }
    let undecided = Undecided {
        last: additions
            .posted
            .last()
            .map(|posted| (posted.sequence, posted.record_hash)),
        answers: answers.into_iter().flatten().collect(),
    };
    if undecided.last.is_none() {
        // Nothing to write; what was read is as committed as it will ever be.
        roll_back(connection).await;
        return Ok(undecided.answers);
    }
    let tables = match Tables::of(&additions, &changes, &new_channels) {
        Ok(tables) => tables,
        Err(failure) => {
            roll_back(connection).await;
            return Err(failure.into());
        }
    };
    // The commit travels with the rest: where a statement before it fails, the database rolls back instead.
    match join(tables.write(connection), connection.command("COMMIT")).await {
        (Ok(()), Ok(())) => Ok(undecided.answers),
        (Err(failure @ Failure::Unreachable(_)), _) | (Ok(()), Err(failure @ Failure::Unreachable(_))) => {
            Err(BatchError::Unknown(failure, Box::new(undecided)))
        }
        (Err(failure), _) | (Ok(()), Err(failure)) => Err(failure.into()),
    }
}

async fn roll_back(connection: &Connection) {
    // Where this fails the connection is gone, and the transaction with it.
    let _ = connection.command("ROLLBACK").await;
}

/// The answers that earlier entries had, in the order of `repeats`.
async fn repeated(connection: &Connection, repeats: &[(usize, u64)]) -> Result<Vec<Posted>, Failure> {
    if repeats.is_empty() {
        return Ok(Vec::new());
    }
    let sequences: Vec<i64> = repeats
        .iter()
        .map(|(_, sequence)| stored(*sequence))
        .collect::<Result<_, _>>()?;
    let mut found = BTreeMap::new();
    for row in connection.query(POSTED, &[&sequences]).await? {
        let posted = rows::posted(&row)?;
        found.insert(posted.sequence, posted);
    }
    let answer = |(_, sequence): &(usize, u64)| {
        let posted = found
            .get(sequence)
            .ok_or_else(|| Failure::damaged(format!("entry {sequence} is missing")))?;
        Ok(Posted {
            repeated: true,
            ..posted.clone()
        })
    };
    repeats.iter().map(answer).collect()
}
