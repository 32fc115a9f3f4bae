//! Keys of auditors, who may read the entries of the log. The coordinator knows only their hashes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};
use thiserror::Error;

/// The BLAKE3 hash of an auditor's key, 64 hexadecimal digits.
#[derive(Clone, Copy)]
pub struct AuditorKeyHash(blake3::Hash);

/// A text that is no hash.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "an auditor's key is configured as its BLAKE3 hash, 64 hexadecimal digits (printf %s KEY | b3sum), which this is not"
)]
pub struct AuditorKeyHashError;

impl AuditorKeyHash {
    /// The hash of a key.
    #[must_use]
    pub fn of(key: &str) -> Self {
        Self(blake3::hash(key.as_bytes()))
    }

    /// Whether one of these is the hash of `key`. Takes the same time whatever of it is wrong.
    #[must_use]
    pub fn admit(hashes: &[Self], key: &str) -> bool {
        let given = Self::of(key);
        // `|` looks at all of them. Comparing BLAKE3 hashes takes constant time.
        hashes
            .iter()
            .fold(false, |admitted, hash| admitted | (hash.0 == given.0))
    }
}

impl PartialEq for AuditorKeyHash {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for AuditorKeyHash {}

impl fmt::Debug for AuditorKeyHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "AuditorKeyHash({}…)", &self.0.to_hex()[..8])
    }
}

impl FromStr for AuditorKeyHash {
    type Err = AuditorKeyHashError;

    fn from_str(text: &str) -> Result<Self, AuditorKeyHashError> {
        blake3::Hash::from_hex(text)
            .map(Self)
            .map_err(|_| AuditorKeyHashError)
    }
}

impl<'de> Deserialize<'de> for AuditorKeyHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_configured_keys_are_admitted() {
        let hashes = ["one", "two"].map(AuditorKeyHash::of);
        for (key, admitted) in [
            ("one", true),
            ("two", true),
            ("three", false),
            ("", false),
            ("on", false),
        ] {
            assert_eq!(AuditorKeyHash::admit(&hashes, key), admitted, "{key}");
        }
        assert!(!AuditorKeyHash::admit(&[], ""));
    }

    #[test]
    fn hashes_are_read_as_b3sum_writes_them_and_nothing_else_is() {
        // The BLAKE3 hash of nothing.
        let text = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
        assert_eq!(text.parse(), Ok(AuditorKeyHash::of("")));
        for wrong in [
            "",
            &text[1..],
            &format!("{text}0"),
            "a secret that was put here by mistake",
        ] {
            let error = wrong.parse::<AuditorKeyHash>().unwrap_err().to_string();
            assert!(wrong.is_empty() || !error.contains(wrong), "{error}");
        }
        assert!(!format!("{:?}", AuditorKeyHash::of("")).contains(text));
    }
}
