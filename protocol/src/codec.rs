//! The wire format of peer-to-peer messages, and the only place that names it.
//!
//! Messages are bincode 2 in its fixed ("legacy") configuration: little-endian integers of fixed width, 64-bit
//! lengths. A frame is a four-byte big-endian length, a version byte and one message. Every limit is checked
//! before anything is allocated.

use bincode::config::{Configuration, Fixint, LittleEndian, NoLimit};
use bincode::{Decode, Encode};
use thiserror::Error;

pub mod canonical;

/// The version byte of every frame.
pub const WIRE_VERSION: u8 = 1;
/// Bytes before a frame's body: the length.
pub const LENGTH_PREFIX_BYTES: usize = 4;
/// Most bytes of a signed listing on gossip.
pub const LISTING_MAX_BYTES: usize = 8 * 1024;
/// Most bytes of a frame that carries no payload.
pub const CONTROL_FRAME_MAX_BYTES: usize = 64 * 1024;
/// Most bytes of a frame that carries a payload.
pub const DATA_FRAME_MAX_BYTES: usize = 256 * 1024;
/// Most payload bytes in one data frame: the frame less room for its meter and lengths.
pub const PAYLOAD_MAX_BYTES: usize = DATA_FRAME_MAX_BYTES - 1024;
/// Most bytes of a request body unless configured otherwise.
pub const REQUEST_BODY_MAX_BYTES: usize = 16 * 1024 * 1024;

const CONFIGURATION: Configuration<LittleEndian, Fixint, NoLimit> = bincode::config::legacy();

/// Why bytes could not be read as a message.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// More bytes than this kind of message may have.
    #[error("a message of {actual} bytes is over the limit of {limit} bytes")]
    TooLarge {
        /// How many bytes were announced or given.
        actual: usize,
        /// How many are allowed.
        limit: usize,
    },
    /// A version that this program does not speak.
    #[error(
        "the peer speaks wire version {0}, this program speaks {WIRE_VERSION}; the older one needs an update"
    )]
    Version(u8),
    /// The bytes are not such a message.
    #[error("the bytes are not a valid message: {0}")]
    Malformed(String),
    /// Bytes are left after the message.
    #[error("{0} bytes follow the message")]
    TrailingBytes(usize),
}

/// The canonical encoding of a value. The same value always gives the same bytes.
#[must_use]
pub fn encode<T: Encode>(value: &T) -> Vec<u8> {
    // Encoding into memory fails only for types that refuse to be encoded; none of ours does.
    bincode::encode_to_vec(value, CONFIGURATION).unwrap_or_default()
}

/// Reads one value that must fill `bytes` exactly.
///
/// `LIMIT` bounds both the input and everything allocated while reading it.
///
/// # Errors
/// [`DecodeError`] where the bytes are too many, malformed or followed by others.
pub fn decode<T: Decode<()>, const LIMIT: usize>(bytes: &[u8]) -> Result<T, DecodeError> {
    if bytes.len() > LIMIT {
        return Err(DecodeError::TooLarge {
            actual: bytes.len(),
            limit: LIMIT,
        });
    }
    let (value, read) = bincode::decode_from_slice(bytes, CONFIGURATION.with_limit::<LIMIT>())
        .map_err(|error| DecodeError::Malformed(error.to_string()))?;
    if read != bytes.len() {
        return Err(DecodeError::TrailingBytes(bytes.len() - read));
    }
    Ok(value)
}

/// Reads one value from a stream that holds more.
///
/// Nothing larger than [`CONTROL_FRAME_MAX_BYTES`] is allocated for it.
///
/// # Errors
/// [`DecodeError::Malformed`] where the stream ends early or holds something else.
pub fn read<T: Decode<()>>(reader: &mut impl std::io::Read) -> Result<T, DecodeError> {
    bincode::decode_from_std_read(reader, CONFIGURATION.with_limit::<CONTROL_FRAME_MAX_BYTES>())
        .map_err(|error| DecodeError::Malformed(error.to_string()))
}

/// A whole frame: length, version, message.
#[must_use]
pub fn encode_frame<T: Encode>(message: &T) -> Vec<u8> {
    let mut frame = vec![0; LENGTH_PREFIX_BYTES];
    frame.push(WIRE_VERSION);
    // Encoding appends into memory; see `encode`.
    let _ = bincode::encode_into_std_write(message, &mut frame, CONFIGURATION);
    let length = u32::try_from(frame.len() - LENGTH_PREFIX_BYTES).unwrap_or(u32::MAX);
    frame[..LENGTH_PREFIX_BYTES].copy_from_slice(&length.to_be_bytes());
    frame
}

/// How many bytes follow a length prefix, checked before a buffer is made for them.
///
/// # Errors
/// [`DecodeError::TooLarge`] above `limit`, [`DecodeError::Malformed`] for an empty frame.
pub fn frame_body_bytes(prefix: [u8; LENGTH_PREFIX_BYTES], limit: usize) -> Result<usize, DecodeError> {
    let actual = usize::try_from(u32::from_be_bytes(prefix)).unwrap_or(usize::MAX);
    if actual > limit {
        return Err(DecodeError::TooLarge { actual, limit });
    }
    if actual == 0 {
        return Err(DecodeError::Malformed("an empty frame".into()));
    }
    Ok(actual)
}

/// Reads the body of a frame (version and message) that [`frame_body_bytes`] announced.
///
/// # Errors
/// [`DecodeError`] where the version is unknown or the message malformed.
pub fn decode_frame_body<T: Decode<()>, const LIMIT: usize>(body: &[u8]) -> Result<T, DecodeError> {
    match body.split_first() {
        Some((&WIRE_VERSION, message)) => decode::<T, LIMIT>(message),
        Some((version, _)) => Err(DecodeError::Version(*version)),
        None => Err(DecodeError::Malformed("an empty frame".into())),
    }
}

#[cfg(test)]
mod second_reader;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_length_bomb_is_refused_before_allocation() {
        // A vector that claims 2^40 elements in 12 bytes.
        let mut bytes = (1u64 << 40).to_le_bytes().to_vec();
        bytes.extend_from_slice(&[1, 2, 3, 4]);
        assert!(matches!(
            decode::<Vec<u64>, 1024>(&bytes),
            Err(DecodeError::Malformed(_))
        ));
    }

    #[test]
    fn frames_are_refused_one_byte_over_the_limit() {
        let at = u32::try_from(CONTROL_FRAME_MAX_BYTES).unwrap();
        assert_eq!(
            frame_body_bytes(at.to_be_bytes(), CONTROL_FRAME_MAX_BYTES),
            Ok(CONTROL_FRAME_MAX_BYTES)
        );
        assert!(matches!(
            frame_body_bytes((at + 1).to_be_bytes(), CONTROL_FRAME_MAX_BYTES),
            Err(DecodeError::TooLarge { .. })
        ));
        assert!(frame_body_bytes([0; 4], 10).is_err());
    }

    #[test]
    fn other_versions_and_trailing_bytes_are_told_apart() {
        let frame = encode_frame(&7u64);
        let body = &frame[LENGTH_PREFIX_BYTES..];
        assert_eq!(decode_frame_body::<u64, 64>(body), Ok(7));
        let mut other = body.to_vec();
        other[0] = 9;
        assert_eq!(decode_frame_body::<u64, 64>(&other), Err(DecodeError::Version(9)));
        let mut longer = body.to_vec();
        longer.push(0);
        assert_eq!(
            decode_frame_body::<u64, 64>(&longer),
            Err(DecodeError::TrailingBytes(1))
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = decode::<Vec<(String, Option<u32>)>, 512>(&bytes);
            let _ = decode_frame_body::<Vec<Vec<u8>>, 512>(&bytes);
        }
    }
}
