//! Keys that programs show to the endpoint.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use thiserror::Error;

/// Shortest key: what is shorter can be guessed.
const BYTES_MIN: usize = 16;
/// Longest key.
const BYTES_MAX: usize = 256;

/// A key that programs show to the endpoint. It is never printed.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ApiKey {
    text: String,
    hash: blake3::Hash,
}

/// A text that can't be a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "an API key has {BYTES_MIN} to {BYTES_MAX} printable characters without blanks; make one with: openssl rand -hex 24"
)]
pub struct ApiKeyError;

impl ApiKey {
    /// Whether this is the key that was shown, in a time that does not depend on how alike they are.
    #[must_use]
    pub fn is(&self, shown: &[u8]) -> bool {
        // Equality of hashes is compared in constant time.
        self.hash == blake3::hash(shown)
    }

    /// The key itself, for those commands that show it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.text
    }
}

impl FromStr for ApiKey {
    type Err = ApiKeyError;

    fn from_str(text: &str) -> Result<Self, ApiKeyError> {
        let fits = (BYTES_MIN..=BYTES_MAX).contains(&text.len());
        if !fits || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ApiKeyError);
        }
        Ok(Self {
            text: text.to_owned(),
            hash: blake3::hash(text.as_bytes()),
        })
    }
}

impl TryFrom<String> for ApiKey {
    type Error = ApiKeyError;

    fn try_from(text: String) -> Result<Self, ApiKeyError> {
        text.parse()
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ApiKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_key_is_the_key() {
        let key: ApiKey = "sk-0123456789abcdef".parse().unwrap();
        assert!(key.is(b"sk-0123456789abcdef"));
        for other in [
            "",
            "sk-0123456789abcde",
            "sk-0123456789abcdeF",
            "sk-0123456789abcdef ",
        ] {
            assert!(!key.is(other.as_bytes()), "{other:?}");
        }
    }

    #[test]
    fn keys_that_can_be_guessed_or_not_be_sent_are_refused() {
        assert!("0123456789abcde".parse::<ApiKey>().is_err());
        assert!("0123456789abcdef".parse::<ApiKey>().is_ok());
        assert!("x".repeat(256).parse::<ApiKey>().is_ok());
        for text in [
            &"x".repeat(257),
            "0123456789 abcdef",
            "0123456789abcdef\n",
            "0123456789abcdéf",
        ] {
            assert!(text.parse::<ApiKey>().is_err(), "{text:?}");
        }
    }
}
