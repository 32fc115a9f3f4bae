//! 32 bytes with a meaning, written as 64 hexadecimal digits.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// A text that is not 64 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("'{0}' is not 64 hexadecimal digits")]
pub struct DigestTextError(String);

macro_rules! digest {
    ($name:ident, $purpose:literal) => {
        #[doc = $purpose]
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// From its bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// Its bytes.
            #[must_use]
            pub const fn bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.pad(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(
                    formatter,
                    concat!(stringify!($name), "({}…)"),
                    hex::encode(&self.0[..4])
                )
            }
        }

        impl FromStr for $name {
            type Err = DigestTextError;

            fn from_str(text: &str) -> Result<Self, DigestTextError> {
                let mut bytes = [0; 32];
                hex::decode_to_slice(text, &mut bytes)
                    .map_err(|_| DigestTextError(text.chars().take(80).collect()))?;
                Ok(Self(bytes))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        #[cfg(feature = "openapi")]
        crate::text_schema!(
            $name,
            $purpose,
            "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
        );
    };
}

digest!(
    ChallengeSeed,
    "Randomness of the coordinator that the provider is told: the seed of the matrices, of a stage's rounds, of the fold of what stayed in memory, or of an echo."
);
digest!(
    UnitsRoot,
    "The root of the Merkle tree over the units that a result is folded into: a commitment to one round."
);
digest!(
    HardwareDigest,
    "A BLAKE3 digest that stands for a device: of its UUID, or of everything that identifies it (its fingerprint)."
);

impl HardwareDigest {
    /// The digest of a device's UUID, as certificates carry it.
    #[must_use]
    pub fn of_uuid(uuid: &str) -> Self {
        Self(blake3::derive_key("gristmill hardware uuid 1", uuid.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_back_and_others_do_not() {
        let root = UnitsRoot::from_bytes([0xa5; 32]);
        assert_eq!(root.to_string().parse(), Ok(root));
        let json = serde_json::to_string(&root).unwrap();
        assert_eq!(serde_json::from_str::<UnitsRoot>(&json).unwrap(), root);
        for bad in ["", "a5", &"g".repeat(64), &"a".repeat(66), &"a".repeat(1 << 16)] {
            let error = bad.parse::<UnitsRoot>().unwrap_err();
            assert!(error.to_string().len() < 200, "{error}");
        }
    }

    #[test]
    fn uuids_have_lasting_digests() {
        let digest = HardwareDigest::of_uuid("GPU-1");
        assert_eq!(digest, HardwareDigest::of_uuid("GPU-1"));
        assert_ne!(digest, HardwareDigest::of_uuid("GPU-2"));
    }
}
