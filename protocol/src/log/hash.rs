//! Hashes of the Merkle tree: SHA-256 with leaves and inner nodes told apart.
//!
//! Source: RFC 6962 section 2.1.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bincode::{Decode, Encode};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};
use thiserror::Error;

/// Bytes of a hash.
pub const HASH_BYTES: usize = 32;

const LEAF_PREFIX: u8 = 0;
const NODE_PREFIX: u8 = 1;

/// The SHA-256 of a leaf or of a node of the Merkle tree. As text it is 64 hexadecimal digits; notes write it in
/// base64.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cfg_attr(test, derive(wincode::SchemaWrite, wincode::SchemaRead))]
pub struct LogHash([u8; HASH_BYTES]);

/// A text that is no hash.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LogHashError {
    /// Not 64 hexadecimal digits.
    #[error("'{0}' is not a hash; hashes are 64 hexadecimal digits")]
    Hexadecimal(String),
    /// Not 32 bytes in base64 with padding.
    #[error("'{0}' is not a hash; in a note, hashes are 44 characters of base64")]
    Base64(String),
}

/// Longest part of a wrong text that an error repeats, in characters.
const SHOWN_CHARACTERS_MAX: usize = 70;

fn shown(text: &str) -> String {
    text.chars().take(SHOWN_CHARACTERS_MAX).collect()
}

impl LogHash {
    /// A hash from its bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; HASH_BYTES]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; HASH_BYTES] {
        &self.0
    }

    /// The hash in base64 with padding (RFC 4648 section 4), as notes and proofs write it.
    #[must_use]
    pub fn to_base64(&self) -> String {
        STANDARD.encode(self.0)
    }

    /// A hash from its only spelling in base64.
    ///
    /// # Errors
    /// [`LogHashError::Base64`] where the text is anything else.
    pub fn from_base64(text: &str) -> Result<Self, LogHashError> {
        let mut bytes = [0; HASH_BYTES];
        // The length is checked first, so that nothing long is decoded.
        if text.len() == 44 && matches!(STANDARD.decode_slice(text, &mut bytes), Ok(HASH_BYTES)) {
            return Ok(Self(bytes));
        }
        Err(LogHashError::Base64(shown(text)))
    }
}

impl fmt::Display for LogHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&hex::encode(self.0))
    }
}

impl fmt::Debug for LogHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "LogHash({self})")
    }
}

impl FromStr for LogHash {
    type Err = LogHashError;

    fn from_str(text: &str) -> Result<Self, LogHashError> {
        let mut bytes = [0; HASH_BYTES];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| LogHashError::Hexadecimal(shown(text)))?;
        Ok(Self(bytes))
    }
}

impl Serialize for LogHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for LogHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(feature = "openapi")]
crate::text_schema!(
    LogHash,
    "A SHA-256 of the Merkle log",
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
);

/// The hash of a leaf: SHA-256 of 0x00 and the log entry.
#[must_use]
pub fn leaf_hash(entry: &[u8]) -> LogHash {
    let mut hasher = Sha256::new();
    hasher.update([LEAF_PREFIX]);
    hasher.update(entry);
    LogHash(hasher.finalize().into())
}

/// The hash of an inner node: SHA-256 of 0x01, the left and the right hash.
#[must_use]
pub fn node_hash(left: &LogHash, right: &LogHash) -> LogHash {
    let mut input = [NODE_PREFIX; 1 + 2 * HASH_BYTES];
    input[1..=HASH_BYTES].copy_from_slice(&left.0);
    input[1 + HASH_BYTES..].copy_from_slice(&right.0);
    LogHash(Sha256::digest(input).into())
}

/// The root of a tree without leaves: SHA-256 of nothing.
#[must_use]
pub fn empty_root() -> LogHash {
    LogHash(Sha256::digest([]).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_hashes() {
        for (hash, expected) in [
            (
                empty_root(),
                "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            ),
            (
                leaf_hash(b""),
                "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            ),
            (
                node_hash(&leaf_hash(b""), &leaf_hash(&[0])),
                "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            ),
        ] {
            assert_eq!(hash.to_string(), expected);
            assert_eq!(expected.parse(), Ok(hash));
            assert_eq!(LogHash::from_base64(&hash.to_base64()), Ok(hash));
            let json = serde_json::to_string(&hash).unwrap();
            assert_eq!(json, format!("\"{expected}\""));
            assert_eq!(serde_json::from_str::<LogHash>(&json).unwrap(), hash);
        }
    }

    #[test]
    fn leaves_and_nodes_never_share_a_hash() {
        let (left, right) = (leaf_hash(b"left"), leaf_hash(b"right"));
        let both = [left.bytes().as_slice(), right.bytes()].concat();
        assert_ne!(leaf_hash(&both), node_hash(&left, &right));
        assert_ne!(node_hash(&left, &right), node_hash(&right, &left));
    }

    #[test]
    fn other_texts_are_refused() {
        let good = leaf_hash(b"").to_string();
        for text in [
            "",
            "00",
            &good[..63],
            &format!("{good}0"),
            &good.replace('6', "g"),
        ] {
            assert!(text.parse::<LogHash>().is_err(), "{text}");
        }
        let good = leaf_hash(b"").to_base64();
        let no_padding = good.trim_end_matches('=');
        // 32 bytes leave two bits of the last character unused; they must be zero.
        let spare_bits = format!("{}{}=", &good[..42], if &good[42..43] == "0" { "1" } else { "/" });
        for text in [
            "",
            no_padding,
            &format!("{good} "),
            &good.replace('=', "A"),
            &spare_bits,
        ] {
            assert!(LogHash::from_base64(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_hash_comes_back_and_no_text_panics(bytes: [u8; 32], text in ".{0,80}") {
            let hash = LogHash::from_bytes(bytes);
            prop_assert_eq!(hash.to_string().parse(), Ok(hash));
            prop_assert_eq!(LogHash::from_base64(&hash.to_base64()), Ok(hash));
            prop_assert!(LogHash::from_base64(&text).is_err());
            prop_assert!(text.parse::<LogHash>().is_err());
        }
    }
}
