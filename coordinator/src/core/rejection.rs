//! How a call that fails is answered: one place that maps every refusal to an HTTP status and a code for programs.

use gristmill_ledger::refusal::Refusal;
use gristmill_ledger::store::{PostError, ReadError};

use crate::core::authentication::AuthenticationError;
use crate::core::channel_policy::PolicyError;
use crate::core::replay_guard::ReplayError;

/// The answer to a call that fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The HTTP status.
    pub status: u16,
    /// For programs.
    pub code: &'static str,
    /// For people.
    pub message: String,
    /// When to try again, in seconds, where that can help.
    pub retry_after_seconds: Option<u32>,
}

impl Rejection {
    fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            retry_after_seconds: None,
        }
    }

    /// The request makes no sense as it is.
    #[must_use]
    pub fn invalid_request(message: impl Into<String>) -> Self {
        Self::new(400, "invalid_request", message)
    }

    /// The caller is not known.
    #[must_use]
    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(401, "unauthorized", message)
    }

    /// The caller is known and may not do this.
    #[must_use]
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(403, "forbidden", message)
    }

    /// There is no such thing, or none that the caller may see.
    #[must_use]
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(404, "not_found", message)
    }

    /// The path exists, the method does not.
    #[must_use]
    pub fn method_not_allowed(message: impl Into<String>) -> Self {
        Self::new(405, "method_not_allowed", message)
    }

    /// What is asked contradicts what was before.
    #[must_use]
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(409, "conflict", message)
    }

    /// Another account has shown the device.
    #[must_use]
    pub fn uuid_taken(message: impl Into<String>) -> Self {
        Self::new(409, "uuid_taken", message)
    }

    /// The body is too large.
    #[must_use]
    pub fn too_large(limit_bytes: usize) -> Self {
        Self::new(
            413,
            "request_too_large",
            format!("the body is over {limit_bytes} bytes; split the call"),
        )
    }

    /// One caller asks too often.
    #[must_use]
    pub fn rate_limited(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        Self {
            retry_after_seconds: Some(retry_after_seconds),
            ..Self::new(429, "rate_limit_exceeded", message)
        }
    }

    /// The coordinator cannot do it now.
    #[must_use]
    pub fn unavailable(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        Self {
            retry_after_seconds: Some(retry_after_seconds),
            ..Self::new(503, "unavailable", message)
        }
    }

    /// An error of this program. What it is stands in the logs.
    #[must_use]
    pub fn internal() -> Self {
        Self::new(
            500,
            "internal_error",
            "the coordinator made an error; repeat the call, nothing is done twice",
        )
    }

    /// The call took too long. What it began may still be done; every call can be repeated.
    #[must_use]
    pub fn timed_out() -> Self {
        Self::unavailable("the call took too long; repeat it, nothing is done twice", 1)
    }
}

impl From<AuthenticationError> for Rejection {
    fn from(error: AuthenticationError) -> Self {
        let message = error.to_string();
        match error {
            AuthenticationError::Replay(ReplayError::TooManyCalls { .. }) => Self::rate_limited(message, 10),
            AuthenticationError::Replay(ReplayError::Full) => Self::unavailable(message, 10),
            AuthenticationError::Replay(ReplayError::Replayed)
            | AuthenticationError::Missing
            | AuthenticationError::Malformed
            | AuthenticationError::Token(_) => Self::unauthorized(message),
        }
    }
}

impl From<PolicyError> for Rejection {
    fn from(error: PolicyError) -> Self {
        Self::invalid_request(error.to_string())
    }
}

impl From<Refusal> for Rejection {
    fn from(refusal: Refusal) -> Self {
        let message = refusal.to_string();
        match refusal {
            Refusal::InsufficientCredits { .. } => Self::new(402, "insufficient_credits", message),
            Refusal::UnknownChannel { .. } => Self::not_found(message),
            Refusal::ChannelConflict { .. }
            | Refusal::GrantConflict { .. }
            | Refusal::ChannelClosed { .. }
            | Refusal::NotExpired { .. }
            | Refusal::StarterAlreadyGranted { .. }
            | Refusal::IssuanceExhausted { .. }
            | Refusal::TurnoverExhausted { .. }
            | Refusal::StarterBudgetExhausted { .. }
            | Refusal::FrozenAlready { .. }
            | Refusal::EntryConflict { .. }
            | Refusal::Handover(_) => Self::new(409, "conflict", message),
            Refusal::AccountFrozen { .. } => Self::new(403, "account_frozen", message),
            Refusal::InvalidSignature { .. }
            | Refusal::WrongSigner { .. }
            | Refusal::OtherChannel { .. }
            | Refusal::AboveLimit { .. }
            | Refusal::ZeroAmount
            | Refusal::FeeTooHigh { .. }
            | Refusal::ReasonTooLong { .. }
            | Refusal::NoReason => Self::invalid_request(message),
        }
    }
}

impl From<PostError> for Rejection {
    fn from(error: PostError) -> Self {
        match error {
            PostError::Refused(refusal) => refusal.into(),
            PostError::Overloaded { .. } => Self::unavailable(error.to_string(), 1),
            // What failed stands in the operator's logs; a caller can only come back later.
            PostError::ReadOnly { .. } => Self::unavailable(
                "the coordinator's ledger takes no entries now; its operator has to act",
                60,
            ),
            PostError::DiskFull { .. } => Self::unavailable(
                "the disk of the coordinator's ledger is full; its operator has to act",
                30,
            ),
            PostError::Unavailable { .. } => Self::unavailable(
                "the coordinator's database can't be reached now; repeat the call",
                2,
            ),
            PostError::Stopped => Self::unavailable("the coordinator is shutting down", 10),
            PostError::Read(error) => error.into(),
        }
    }
}

impl From<ReadError> for Rejection {
    fn from(_: ReadError) -> Self {
        Self::unavailable(
            "the coordinator's ledger can't be read now; its operator has to act",
            60,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_protocol::credits::Credits;
    use gristmill_protocol::ids::ChannelId;
    use gristmill_protocol::jws::TokenError;

    #[test]
    fn refusals_have_the_status_that_programs_expect() {
        let channel = ChannelId::from_bytes([1; 16]);
        let insufficient = Refusal::InsufficientCredits {
            available: Credits::ZERO,
            wanted: Credits::MAX,
        };
        for (refusal, status, code) in [
            (insufficient, 402, "insufficient_credits"),
            (Refusal::UnknownChannel { channel }, 404, "not_found"),
            (Refusal::ChannelConflict { channel }, 409, "conflict"),
            (Refusal::ZeroAmount, 400, "invalid_request"),
        ] {
            let rejection = Rejection::from(refusal.clone());
            assert_eq!((rejection.status, rejection.code), (status, code));
            assert_eq!(rejection.message, refusal.to_string());
        }
    }

    #[test]
    fn only_what_helps_to_wait_for_says_when_to_retry() {
        let replay = |error| Rejection::from(AuthenticationError::Replay(error));
        assert_eq!(replay(ReplayError::Replayed).status, 401);
        assert_eq!(replay(ReplayError::Replayed).retry_after_seconds, None);
        assert_eq!(replay(ReplayError::TooManyCalls { limit: 1 }).status, 429);
        assert!(replay(ReplayError::Full).retry_after_seconds.is_some());
        assert_eq!(
            Rejection::from(AuthenticationError::Token(TokenError::Signature)).status,
            401
        );
    }
}
