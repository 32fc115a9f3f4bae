//! Why no channel was opened, and what the program is told.

use gristmill_protocol::credits::Credits;
use gristmill_transport::CoordinatorCallError;

use super::file::WalletFileError;
use crate::core::failure::ApiFailure;

/// Why no channel was opened.
pub(super) enum OpeningError {
    Insufficient { needed: Credits, available: Credits },
    Coordinator(CoordinatorCallError),
    TimedOut,
    Ticket(String),
    Distrusted(String),
    File(WalletFileError),
}

impl OpeningError {
    pub(super) fn from_call(error: CoordinatorCallError, needed: Credits) -> Self {
        match error.code() {
            Some("insufficient_credits") => Self::Insufficient {
                needed,
                available: Credits::ZERO,
            },
            _ => Self::Coordinator(error),
        }
    }

    /// Whether other requests would meet the same error now.
    pub(super) const fn concerns_all(&self) -> bool {
        !matches!(self, Self::Insufficient { .. })
    }

    pub(super) fn into_failure(self) -> ApiFailure {
        match self {
            Self::Insufficient { needed, available } => ApiFailure::insufficient_credits(needed, available),
            Self::Coordinator(error) => ApiFailure::coordinator_unavailable(&error.to_string()),
            Self::TimedOut => ApiFailure::coordinator_unavailable("it did not answer in time"),
            Self::Ticket(reason) => {
                ApiFailure::coordinator_unavailable(&format!("its ticket is not valid: {reason}"))
            }
            Self::Distrusted(reason) => ApiFailure::coordinator_distrusted(&reason),
            Self::File(error) => {
                tracing::error!(%error, "no channel can be opened");
                ApiFailure::internal()
            }
        }
    }
}
