//! What may travel on a job stream, and how large it may be.

use gristmill_protocol::codec::{
    CONTROL_FRAME_MAX_BYTES, DATA_FRAME_MAX_BYTES, DecodeError, decode_frame_body, encode_frame,
};
use gristmill_protocol::job::{ConsumerFrame, ProviderFrame};

/// A message of a job stream. Implemented by the two frame types of the protocol.
pub trait JobFrame: Sized + Send + Sync + 'static {
    /// Most bytes that this frame's version and message may have, by its kind.
    fn limit_bytes(&self) -> usize;

    /// The whole frame: length, version, message.
    fn encode(&self) -> Vec<u8>;

    /// Reads version and message.
    ///
    /// # Errors
    /// [`DecodeError`] where the bytes are no such frame, or more than its kind may have.
    fn decode(body: &[u8]) -> Result<Self, DecodeError>;
}

/// Checks a decoded frame against the limit of its kind, which is not known before.
fn within_limit<Frame: JobFrame>(frame: Frame, actual: usize) -> Result<Frame, DecodeError> {
    let limit = frame.limit_bytes();
    if actual > limit {
        Err(DecodeError::TooLarge { actual, limit })
    } else {
        Ok(frame)
    }
}

impl JobFrame for ConsumerFrame {
    fn limit_bytes(&self) -> usize {
        match self {
            Self::BodyPart(_) => DATA_FRAME_MAX_BYTES,
            Self::Open(_) | Self::Voucher(_) | Self::Cancel => CONTROL_FRAME_MAX_BYTES,
        }
    }

    fn encode(&self) -> Vec<u8> {
        encode_frame(self)
    }

    fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        within_limit(decode_frame_body::<Self, DATA_FRAME_MAX_BYTES>(body)?, body.len())
    }
}

impl JobFrame for ProviderFrame {
    fn limit_bytes(&self) -> usize {
        match self {
            Self::Chunk(_) => DATA_FRAME_MAX_BYTES,
            Self::Accepted(_) | Self::Refused(_) | Self::Done(_) | Self::Failed(_) => CONTROL_FRAME_MAX_BYTES,
        }
    }

    fn encode(&self) -> Vec<u8> {
        encode_frame(self)
    }

    fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        within_limit(decode_frame_body::<Self, DATA_FRAME_MAX_BYTES>(body)?, body.len())
    }
}
