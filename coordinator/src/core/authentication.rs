//! Who calls: the bearer token in the `authorization` header, signed by the caller's own key for this very call.

use gristmill_protocol::identity::AccountId;
use gristmill_protocol::jws::TokenError;
use gristmill_protocol::tokens::{Call, CallerClaims};
use thiserror::Error;

use crate::core::replay_guard::ReplayError;

/// Why nobody is known to call.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AuthenticationError {
    /// No header.
    #[error("the call has no 'authorization: Bearer …' header; sign it with the account's key")]
    Missing,
    /// A header that is no bearer token.
    #[error("the 'authorization' header is not 'Bearer' and a token")]
    Malformed,
    /// A token that does not stand for this call.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// A good token that is not admitted.
    #[error(transparent)]
    Replay(#[from] ReplayError),
}

/// The token in an `authorization` header (RFC 6750 section 2.1; the scheme's case does not matter, RFC 9110
/// section 11.1).
///
/// # Errors
/// [`AuthenticationError::Missing`] without a header, [`AuthenticationError::Malformed`] for another scheme.
pub fn bearer_token(header: Option<&[u8]>) -> Result<&str, AuthenticationError> {
    let header = header.ok_or(AuthenticationError::Missing)?;
    let text = std::str::from_utf8(header).map_err(|_| AuthenticationError::Malformed)?;
    let (scheme, token) = text.split_once(' ').ok_or(AuthenticationError::Malformed)?;
    if !scheme.eq_ignore_ascii_case("bearer") || token.trim().is_empty() {
        return Err(AuthenticationError::Malformed);
    }
    Ok(token.trim())
}

/// Checks the token of a call. The caller admits the claims once with a
/// [`ReplayGuard`](crate::core::replay_guard::ReplayGuard).
///
/// # Errors
/// [`AuthenticationError`] naming what is wrong.
pub fn verify_call(
    call: Call<'_>,
    authorization: Option<&[u8]>,
    coordinator: &AccountId,
    now_ms: u64,
) -> Result<CallerClaims, AuthenticationError> {
    let token = bearer_token(authorization)?;
    Ok(call.verify(token, coordinator, now_ms)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_protocol::identity::Keypair;

    const NOW: u64 = 1_800_000_000_000;

    #[test]
    fn headers_are_read_as_the_standard_says() {
        assert_eq!(bearer_token(Some(b"Bearer abc")), Ok("abc"));
        assert_eq!(bearer_token(Some(b"bearer  abc ")), Ok("abc"));
        assert_eq!(bearer_token(None), Err(AuthenticationError::Missing));
        for header in [
            b"abc".as_slice(),
            b"Basic abc",
            b"Bearer ",
            b"Bearer",
            b"",
            b"\xff\xfe abc",
        ] {
            assert_eq!(
                bearer_token(Some(header)),
                Err(AuthenticationError::Malformed),
                "{header:?}"
            );
        }
    }

    #[test]
    fn a_token_stands_for_its_call_only() {
        let (caller, coordinator) = (
            Keypair::from_secret(&[1; 32]),
            Keypair::from_secret(&[2; 32]).account(),
        );
        let call = Call {
            method: "POST",
            path: "/v1/accounts",
            body: b"",
        };
        let header = format!("Bearer {}", call.sign(&caller, coordinator, [3; 16], NOW));
        let verify = |call| verify_call(call, Some(header.as_bytes()), &coordinator, NOW);
        assert_eq!(verify(call).unwrap().iss, caller.account());
        let elsewhere = Call {
            path: "/v1/channels",
            ..call
        };
        assert!(matches!(verify(elsewhere), Err(AuthenticationError::Token(_))));
    }
}
