//! What can go wrong with a coordinator, or with its address.

use gristmill_protocol::identity::AccountId;
use thiserror::Error;

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CoordinatorCallError {
    /// The coordinator cannot be reached, also after retries; what was asked may or may not have happened.
    #[error("the coordinator at {url} cannot be reached: {reason}")]
    Unreachable {
        /// Where it should be.
        url: String,
        /// What went wrong.
        reason: String,
    },
    /// The coordinator said no.
    #[error("the coordinator refused: {message} ({code}, status {status})")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// For programs, such as `insufficient_credits`.
        code: String,
        /// For people.
        message: String,
    },
    /// What answered is no coordinator, or one of another version.
    #[error("the answer of {url} is not a coordinator's: {reason}")]
    InvalidAnswer {
        /// Who answered.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Another coordinator answers than the one expected.
    #[error(
        "the coordinator at {url} is {actual}, not {expected}; check the address and the account configured"
    )]
    WrongCoordinator {
        /// Where it is.
        url: String,
        /// Whom the configuration names.
        expected: AccountId,
        /// Who is there.
        actual: AccountId,
    },
    /// The keys that sign there now are not those that this installation knows, nor handed over by them.
    #[error(
        "the coordinator at {url} signs with the key of {actual}, to which {known}, known here at this address, never \
         handed over: it is another coordinator, or it lost its key. Nothing of it is accepted. If you trust it all \
         the same, {remedy}"
    )]
    KeyChanged {
        /// Where it is.
        url: String,
        /// Whose key was known last.
        known: AccountId,
        /// Whose key signs there now.
        actual: AccountId,
        /// What to do about it.
        remedy: String,
    },
    /// The keys of the coordinator can't be kept on disk, so that the next start would not know them.
    #[error("{0}")]
    KnownKeys(String),
}

impl CoordinatorCallError {
    /// The code of a refusal.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Refused { code, .. } => Some(code),
            _ => None,
        }
    }
}

/// An address that can't be a coordinator's.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("'{url}' is no coordinator's address: {reason}; they look like http://127.0.0.1:7400")]
pub struct CoordinatorUrlError {
    pub(super) url: String,
    pub(super) reason: String,
}
