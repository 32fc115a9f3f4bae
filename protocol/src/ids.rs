//! 128-bit names that a party draws at random: channels, challenges, grants and other entries of the ledger.

use std::fmt;
use std::str::FromStr;

use bincode::{Decode, Encode};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// A text that is no 128-bit id.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("'{0}' is not an id; ids are 32 hexadecimal digits")]
pub struct IdError(String);

macro_rules! id {
    ($name:ident, $purpose:literal) => {
        #[doc = $purpose]
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
        #[cfg_attr(test, derive(wincode::SchemaWrite, wincode::SchemaRead))]
        pub struct $name([u8; 16]);

        impl $name {
            /// An id from 16 random bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// The 16 bytes.
            #[must_use]
            pub const fn bytes(&self) -> &[u8; 16] {
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
                write!(formatter, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let mut bytes = [0; 16];
                hex::decode_to_slice(text, &mut bytes)
                    .map_err(|_| IdError(text.chars().take(40).collect()))?;
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
        crate::text_schema!($name, $purpose, "0123456789abcdef0123456789abcdef");
    };
}

id!(
    ChannelId,
    "The name of a channel, drawn by its consumer; also the idempotency key of its opening."
);
id!(
    GrantId,
    "The name of a grant, drawn by the operator; also its idempotency key."
);

id!(
    EntryId,
    "The name of an operator's entry in the ledger, such as a freeze; also its idempotency key."
);

id!(
    ChallengeId,
    "The name of a challenge of hardware, drawn by who is challenged; also the idempotency key of asking for it."
);

impl From<GrantId> for EntryId {
    fn from(id: GrantId) -> Self {
        Self(id.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_back() {
        let id = ChannelId::from_bytes([0xa7; 16]);
        assert_eq!(id.to_string().parse::<ChannelId>().unwrap(), id);
        assert!("xyz".parse::<ChannelId>().is_err());
        assert!("00".parse::<GrantId>().is_err());
    }
}
