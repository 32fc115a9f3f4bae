//! For serde: a value as its [canonical bytes](super::encode), for what is kept in a state and has no other form.
//!
//! `#[serde(with = "gristmill_protocol::codec::canonical")]`. Formats that people read get the bytes in hexadecimal.

use std::fmt;

use bincode::{Decode, Encode};
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize as _, Deserializer, Serializer};

use super::DATA_FRAME_MAX_BYTES;

/// Writes the canonical bytes of a value.
///
/// # Errors
/// What the serializer says.
pub fn serialize<T: Encode, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    let bytes = super::encode(value);
    if serializer.is_human_readable() {
        serializer.serialize_str(&hex::encode(bytes))
    } else {
        serializer.serialize_bytes(&bytes)
    }
}

/// Reads what [`serialize`] wrote, of at most [`DATA_FRAME_MAX_BYTES`].
///
/// # Errors
/// What the deserializer says, and where the bytes are no such value.
pub fn deserialize<'de, T: Decode<()>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    let bytes = if deserializer.is_human_readable() {
        hex::decode(String::deserialize(deserializer)?).map_err(Error::custom)?
    } else {
        deserializer.deserialize_byte_buf(Bytes)?
    };
    super::decode::<T, DATA_FRAME_MAX_BYTES>(&bytes).map_err(Error::custom)
}

/// Takes bytes in each of the ways in which a format may give them.
struct Bytes;

impl<'de> Visitor<'de> for Bytes {
    type Value = Vec<u8>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("bytes")
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
        Ok(bytes.to_vec())
    }

    fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
        Ok(bytes)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Vec<u8>, A::Error> {
        let mut bytes = Vec::new();
        while let Some(byte) = sequence.next_element()? {
            if bytes.len() == DATA_FRAME_MAX_BYTES {
                return Err(A::Error::custom("more bytes than any message has"));
            }
            bytes.push(byte);
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use crate::codec::canonical;
    use serde::{Deserialize, Serialize};

    #[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
    struct Kept {
        #[serde(with = "canonical")]
        value: (String, Option<u32>),
    }

    #[test]
    fn values_come_back_and_what_is_no_value_does_not() {
        let kept = Kept {
            value: ("a".into(), Some(7)),
        };
        let text = serde_json::to_string(&kept).unwrap();
        assert_eq!(serde_json::from_str::<Kept>(&text).unwrap(), kept);
        for wrong in [r#"{"value":"xy"}"#, r#"{"value":"00"}"#, r#"{"value":7}"#] {
            assert!(serde_json::from_str::<Kept>(wrong).is_err(), "{wrong}");
        }
        let longer = text.replace("\"}", "00\"}");
        assert!(serde_json::from_str::<Kept>(&longer).is_err(), "{longer}");
    }
}
