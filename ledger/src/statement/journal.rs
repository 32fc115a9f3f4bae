//! A statement from a ledger's journal alone, replayed from its first record: no running coordinator, no index.

use std::io::{self, Write};
use std::path::Path;

use gristmill_protocol::codec::DecodeError;
use gristmill_protocol::identity::AccountId;
use thiserror::Error;

use super::{Owned, Period, StatementError, StatementFormat, StatementWriter, statement_entry};
use crate::book::{Applied, ApplyError, Book};
use crate::entry::{CheckedEntry, Entry};
use crate::journal::{JournalError, Records};
use crate::outcome::Posted;
use crate::record::Record;
use crate::store::{LEDGER_JOURNAL, journal_directory};

/// Why there is no statement.
#[derive(Debug, Error)]
pub enum JournalStatementError {
    /// There is no ledger.
    #[error("{0} holds no ledger: it has no folder 'journal'; name the coordinator's ledger directory")]
    NotALedger(std::path::PathBuf),
    /// The journal can't be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A record holds no entry.
    #[error("record {sequence} is no entry: {source}; run 'gristmill ledger audit'")]
    Decode {
        /// The record.
        sequence: u64,
        /// Why not.
        source: DecodeError,
    },
    /// A record can't have happened.
    #[error("record {sequence} can't have happened: {source}; run 'gristmill ledger audit'")]
    Apply {
        /// The record.
        sequence: u64,
        /// Why not.
        source: ApplyError,
    },
    /// A record repeats another one.
    #[error("record {sequence} repeats an earlier one; run 'gristmill ledger audit'")]
    Repeated {
        /// The record.
        sequence: u64,
    },
    /// The entries do not add up.
    #[error(transparent)]
    Sum(#[from] StatementError),
    /// The sums are not the book's balances.
    #[error(
        "the entries of {account} add up to something else than its balance: this is an error of the program"
    )]
    OtherBalance {
        /// The account.
        account: AccountId,
    },
    /// The output can't be written.
    #[error("the statement can't be written: {0}")]
    Output(#[from] io::Error),
}

/// Writes the statement of an account out of the journal of the ledger in `directory`. Changes nothing there and can
/// be run while the coordinator is at work.
///
/// # Errors
/// [`JournalStatementError`]; part of the statement may be written then.
pub fn write_journal_statement(
    directory: &Path,
    account: &AccountId,
    period: &Period,
    format: StatementFormat,
    output: impl Write,
) -> Result<(), JournalStatementError> {
    let journal = journal_directory(directory);
    if !journal.is_dir() {
        return Err(JournalStatementError::NotALedger(directory.to_owned()));
    }
    let mut book = Book::new();
    let mut owned = Owned::default();
    let mut output = Some(output);
    let mut writer = None;
    for found in Records::read(&journal, LEDGER_JOURNAL)? {
        let (_, record) = found?;
        if period.is_after(record.time_ms) {
            break;
        }
        let Some(line) = replay(&mut book, &record).map(|(posted, entry)| {
            // Reading an entry that is not this account's costs nothing more.
            statement_entry(account, &posted, Some(&entry))
        })?
        else {
            continue;
        };
        if !period.is_before(line.time_ms)
            && let Some(output) = output.take()
        {
            writer = Some(StatementWriter::begin(output, format, account, period, owned)?);
        }
        owned = owned.after(&line)?;
        if let Some(writer) = &mut writer {
            writer.line(&line, owned)?;
        }
    }
    let balance = book.balance(account);
    if (balance.available, balance.held) != (owned.available, owned.held) {
        return Err(JournalStatementError::OtherBalance { account: *account });
    }
    let writer = match (writer, output) {
        (Some(writer), _) => writer,
        (None, Some(output)) => StatementWriter::begin(output, format, account, period, owned)?,
        (None, None) => return Ok(()),
    };
    Ok(writer.end(owned)?)
}

/// Applies a record to the book and says what it did.
fn replay(book: &mut Book, record: &Record) -> Result<(Posted, Entry), JournalStatementError> {
    let Record {
        sequence, time_ms, ..
    } = *record;
    let entry = Entry::decode_salted(&record.content)
        .map_err(|source| JournalStatementError::Decode { sequence, source })?;
    let checked = CheckedEntry::journaled(entry);
    match book.apply(&checked, time_ms) {
        Ok(Applied::New { sequence, outcome }) => Ok((
            Posted {
                sequence,
                time_ms,
                record_hash: record.hash(),
                outcome,
                repeated: false,
            },
            checked.entry().clone(),
        )),
        Ok(Applied::Before { .. }) => Err(JournalStatementError::Repeated { sequence }),
        Err(source) => Err(JournalStatementError::Apply { sequence, source }),
    }
}
