//! JSON Web Tokens (RFC 7519) in the compact serialization of JWS (RFC 7515) with `alg` `EdDSA` (RFC 8037), and
//! nothing else of JOSE: the algorithm, the type, the issuer and the audience are fixed by the caller, keys in
//! headers are ignored, `crit` is refused, and verification is strict.
//!
//! Why not a library: `docs/decisions/0002-own-jws.md`.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::identity::{AccountId, Keypair, Signature};

/// Most bytes of a token.
pub const TOKEN_MAX_BYTES: usize = 8 * 1024;
/// The expiry of what holds for ever: the end of the year 9999 in Unix seconds.
pub const NEVER_SECONDS: u64 = 253_402_300_799;

/// Why a token was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TokenError {
    /// Not a compact JWS, or its claims are not those of this kind of token.
    #[error("the token is malformed: {0}")]
    Malformed(&'static str),
    /// Another kind of token, or another algorithm.
    #[error("the token is not of type {expected} with algorithm EdDSA")]
    WrongType {
        /// What was expected.
        expected: &'static str,
    },
    /// Signed by another key than the issuer's, or changed.
    #[error("the token's signature is not its issuer's")]
    Signature,
    /// Issued by somebody else.
    #[error("the token was issued by {actual}, not by {expected}")]
    Issuer {
        /// Who issued it.
        actual: AccountId,
        /// Who should have.
        expected: AccountId,
    },
    /// Meant for somebody else.
    #[error("the token is not for {expected}; ask the issuer for one that is")]
    Audience {
        /// Who was to accept it.
        expected: AccountId,
    },
    /// Too late.
    #[error("the token expired {ago_ms} ms ago; ask for a new one, or check the clock")]
    Expired {
        /// How long ago, in milliseconds.
        ago_ms: u64,
    },
    /// Too early.
    #[error("the token was issued {ahead_ms} ms in the future; one of the clocks is wrong")]
    FromTheFuture {
        /// How far ahead, in milliseconds.
        ahead_ms: u64,
    },
}

/// Who a token is for: one or several accounts (RFC 7519 section 4.1.3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Audience {
    /// One account.
    One(AccountId),
    /// Several.
    Many(Vec<AccountId>),
}

impl Audience {
    /// Whether the token is for this account.
    #[must_use]
    pub fn contains(&self, account: &AccountId) -> bool {
        match self {
            Self::One(one) => one == account,
            Self::Many(many) => many.contains(account),
        }
    }
}

/// The claims of one kind of token.
pub trait Claims: Serialize + DeserializeOwned {
    /// The `typ` of the header.
    const TYPE: &'static str;
    /// How far the issuer's clock may be ahead, and how late a token may be, in milliseconds.
    const LEEWAY_MS: u64;

    /// `iss`.
    fn issuer(&self) -> &AccountId;
    /// `aud`.
    fn audience(&self) -> &Audience;
    /// `iat`, Unix seconds.
    fn issued_at(&self) -> u64;
    /// `exp`, Unix seconds.
    fn expires_at(&self) -> u64;
}

/// What we write into a header, in this order.
#[derive(Serialize)]
struct HeaderOut<'a> {
    typ: &'a str,
    alg: &'a str,
    kid: String,
}

/// What we read of a header. Keys and URLs in it are never looked at.
#[derive(Deserialize)]
struct HeaderIn {
    typ: String,
    alg: String,
    crit: Option<serde::de::IgnoredAny>,
}

/// Signs claims into a compact JWS. The same claims and key always give the same bytes.
#[must_use]
pub fn sign<C: Claims>(claims: &C, keypair: &Keypair) -> String {
    let header = HeaderOut {
        typ: C::TYPE,
        alg: "EdDSA",
        kid: keypair.account().to_string(),
    };
    // Our claims are structs of texts and numbers: writing them as JSON can't fail.
    let part = |json: Result<Vec<u8>, serde_json::Error>| URL_SAFE_NO_PAD.encode(json.unwrap_or_default());
    let mut token = format!(
        "{}.{}",
        part(serde_json::to_vec(&header)),
        part(serde_json::to_vec(claims))
    );
    let signature = keypair.sign_bytes(token.as_bytes());
    token.push('.');
    token.push_str(&URL_SAFE_NO_PAD.encode(signature.bytes()));
    token
}

/// Reads a token after checking everything about it.
///
/// # Errors
/// [`TokenError`] naming the first thing that is wrong.
pub fn verify<C: Claims>(
    token: &str,
    issuer: &AccountId,
    audience: &AccountId,
    now_ms: u64,
) -> Result<C, TokenError> {
    let claims: C = open(token, |_| Ok(*issuer))?;
    check(&claims, issuer, audience, now_ms)?;
    Ok(claims)
}

/// Reads a token that its own issuer signed, whoever that is: for calls that accounts sign themselves.
///
/// # Errors
/// [`TokenError`] naming the first thing that is wrong.
pub fn verify_self_issued<C: Claims>(
    token: &str,
    audience: &AccountId,
    now_ms: u64,
) -> Result<C, TokenError> {
    let claims: C = open(token, |claims: &C| Ok(*claims.issuer()))?;
    check(&claims, claims.issuer(), audience, now_ms)?;
    Ok(claims)
}

fn open<C: Claims>(
    token: &str,
    key: impl FnOnce(&C) -> Result<AccountId, TokenError>,
) -> Result<C, TokenError> {
    if token.len() > TOKEN_MAX_BYTES {
        return Err(TokenError::Malformed("it is over 8 KiB"));
    }
    let (signed, signature) = token
        .rsplit_once('.')
        .ok_or(TokenError::Malformed("it has no three parts"))?;
    let (header, payload) = signed
        .split_once('.')
        .ok_or(TokenError::Malformed("it has no three parts"))?;
    let decode = |part: &str| {
        URL_SAFE_NO_PAD
            .decode(part)
            .map_err(|_| TokenError::Malformed("not base64url"))
    };
    let header: HeaderIn = serde_json::from_slice(&decode(header)?)
        .map_err(|_| TokenError::Malformed("its header lacks alg or typ"))?;
    if header.alg != "EdDSA" || header.typ != C::TYPE {
        return Err(TokenError::WrongType { expected: C::TYPE });
    }
    if header.crit.is_some() {
        return Err(TokenError::Malformed("it has critical header parameters"));
    }
    let claims: C = serde_json::from_slice(&decode(payload)?)
        .map_err(|_| TokenError::Malformed("its claims are not those of its type"))?;
    let signature = <[u8; 64]>::try_from(decode(signature)?)
        .map_err(|_| TokenError::Malformed("no Ed25519 signature"))?;
    key(&claims)?
        .verify_bytes(signed.as_bytes(), &Signature::from_bytes(signature))
        .map_err(|_| TokenError::Signature)?;
    Ok(claims)
}

fn check<C: Claims>(
    claims: &C,
    issuer: &AccountId,
    audience: &AccountId,
    now_ms: u64,
) -> Result<(), TokenError> {
    if claims.issuer() != issuer {
        return Err(TokenError::Issuer {
            actual: *claims.issuer(),
            expected: *issuer,
        });
    }
    if !claims.audience().contains(audience) {
        return Err(TokenError::Audience { expected: *audience });
    }
    let ahead_ms = claims.issued_at().saturating_mul(1000).saturating_sub(now_ms);
    if ahead_ms > C::LEEWAY_MS {
        return Err(TokenError::FromTheFuture { ahead_ms });
    }
    let ends_at_ms = claims.expires_at().saturating_mul(1000);
    if now_ms >= ends_at_ms.saturating_add(C::LEEWAY_MS) {
        return Err(TokenError::Expired {
            ago_ms: now_ms.saturating_sub(ends_at_ms),
        });
    }
    Ok(())
}
