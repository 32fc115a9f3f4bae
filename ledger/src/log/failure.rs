//! How a log fails, by what its keeper can do about it.

use thiserror::Error;

use crate::store::{LogWriteError, ReadError};

/// Why a log can't be opened.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OpenLogError {
    /// The store can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The published checkpoint is another log's.
    #[error(
        "the ledger's log is '{actual}', but the signing key here is of '{expected}'; put back the key file that \
         belongs to this ledger"
    )]
    OtherLog {
        /// The log that the store has.
        actual: String,
        /// The log of the key.
        expected: String,
    },
}

/// Why a log did not grow.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LogError {
    /// The store can't be read now. Try again.
    #[error(transparent)]
    Read(ReadError),
    /// The store can't be written now. Try again.
    #[error(transparent)]
    Write(LogWriteError),
    /// Something that can't be: nothing is signed any more, until somebody has found out why.
    #[error("the Merkle log has halted: {reason}")]
    Halted {
        /// What was found.
        reason: String,
    },
}

/// Why one step was not done.
#[derive(Debug)]
pub(super) enum StepError {
    Read(ReadError),
    Write(LogWriteError),
    /// What is stored, or what was computed, contradicts itself.
    Damaged(String),
}

impl From<ReadError> for StepError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Damaged { reason } => Self::Damaged(reason),
            other => Self::Read(other),
        }
    }
}

impl From<LogWriteError> for StepError {
    fn from(error: LogWriteError) -> Self {
        match error {
            LogWriteError::OtherTile { .. } | LogWriteError::OtherRoot { .. } => {
                Self::Damaged(error.to_string())
            }
            LogWriteError::Unavailable { .. } => Self::Write(error),
        }
    }
}
