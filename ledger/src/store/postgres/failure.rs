//! What can go wrong with a database, by what there is to do about it.

use tokio_postgres::error::{DbError, SqlState};

/// What went wrong, by what there is to do about it. Never holds what was sent, nor the values that PostgreSQL adds
/// to its messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The database was not reached, or has just no time: a new connection may do.
    Unreachable(String),
    /// Two transactions met: the same again at once.
    Conflict(String),
    /// Its disk is full.
    DiskFull(String),
    /// It will say the same again until somebody changes something: a right, a table, a password.
    Refused(String),
    /// What is stored contradicts itself, or the database refuses what the book decided.
    Damaged(String),
}

impl Failure {
    /// What went wrong, for people.
    pub(super) fn reason(self) -> String {
        match self {
            Self::Unreachable(reason)
            | Self::Conflict(reason)
            | Self::DiskFull(reason)
            | Self::Refused(reason)
            | Self::Damaged(reason) => reason,
        }
    }

    /// A row that can't be what it should be.
    pub(super) fn damaged(what: impl Into<String>) -> Self {
        Self::Damaged(what.into())
    }
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(said) => of_database(said),
            None => Self::Unreachable(without_database(&error)),
        }
    }
}

fn of_database(said: &DbError) -> Failure {
    let code = said.code();
    let reason = format!("{} (SQLSTATE {})", said.message(), code.code());
    let class = code.code().get(..2).unwrap_or_default();
    match code {
        &SqlState::T_R_SERIALIZATION_FAILURE
        | &SqlState::T_R_DEADLOCK_DETECTED
        | &SqlState::UNIQUE_VIOLATION
        | &SqlState::LOCK_NOT_AVAILABLE => Failure::Conflict(reason),
        &SqlState::DISK_FULL => Failure::DiskFull(reason),
        // After a failover the old primary, or a standby, may answer; a plan may be older than the table.
        &SqlState::READ_ONLY_SQL_TRANSACTION
        | &SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT
        | &SqlState::FEATURE_NOT_SUPPORTED => Failure::Unreachable(reason),
        &SqlState::CHECK_VIOLATION
        | &SqlState::NOT_NULL_VIOLATION
        | &SqlState::NUMERIC_VALUE_OUT_OF_RANGE => Failure::Damaged(reason),
        // Connection, resources, intervention, and errors of the system below.
        _ if matches!(class, "08" | "53" | "57" | "58") => Failure::Unreachable(reason),
        _ => Failure::Refused(reason),
    }
}

/// Says what the driver and the system say; neither repeats a password.
fn without_database(error: &tokio_postgres::Error) -> String {
    let mut reason = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        reason = format!("{reason}: {cause}");
        source = cause.source();
    }
    reason
}
