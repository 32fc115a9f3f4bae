//! The bytes of a proof: the openings, in the order in which they were asked for.

use bincode::{Decode, Encode};
use gristmill_protocol::codec;
use gristmill_protocol::hardware::PROOF_MAX_BYTES;
use thiserror::Error;

use super::commitment::{CHUNK_VALUES, Opening, levels};
use super::dimension::Dimension;

/// What a prover shows: one opening for each unit that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Proof {
    /// Openings of units of the stages.
    pub openings: Vec<Opening>,
    /// Openings of units of what stayed in memory.
    pub resident_openings: Vec<Opening>,
}

/// Bytes that are no proof.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProofError {
    /// More bytes than any proof has.
    #[error("a proof of {actual} bytes is over the limit of {limit} bytes")]
    TooLarge {
        /// How many bytes were announced or given.
        actual: u64,
        /// How many are allowed.
        limit: u64,
    },
    /// Not the encoding of a proof.
    #[error("the bytes are no proof: {0}")]
    Malformed(#[from] codec::DecodeError),
}

/// Whether a proof may be as long as announced, before any of it is read.
///
/// # Errors
/// [`ProofError::TooLarge`] where it may not.
pub fn check_length(bytes: u64) -> Result<(), ProofError> {
    let limit = PROOF_MAX_BYTES as u64;
    if bytes > limit {
        return Err(ProofError::TooLarge { actual: bytes, limit });
    }
    Ok(())
}

/// How long a proof of so many openings is: every opening of one dimension has the same length.
#[must_use]
pub const fn encoded_bytes(dimension: Dimension, openings: usize) -> usize {
    let opening = 8 + 4 * CHUNK_VALUES + 8 + 32 * levels(dimension);
    2 * 8 + openings * opening
}

impl Proof {
    /// The bytes to send.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads a proof. No more is allocated than the bytes hold.
    ///
    /// # Errors
    /// [`ProofError`] where there are too many bytes or they are something else.
    pub fn decode(bytes: &[u8]) -> Result<Self, ProofError> {
        check_length(bytes.len() as u64)?;
        Ok(codec::decode::<Self, PROOF_MAX_BYTES>(bytes)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_protocol::hardware::OPENINGS_MAX;
    use proptest::prelude::*;

    fn proof(openings: usize) -> Proof {
        let opening = Opening {
            values: vec![-1; CHUNK_VALUES],
            siblings: vec![[7; 32]; 2],
        };
        Proof {
            openings: vec![opening.clone(); openings],
            resident_openings: vec![opening; 1],
        }
    }

    #[test]
    fn a_proof_comes_back_and_has_the_length_foretold() {
        let bytes = proof(3).encode();
        assert_eq!(bytes.len(), encoded_bytes(Dimension::SMALLEST, 4));
        assert_eq!(Proof::decode(&bytes), Ok(proof(3)));
        let most = encoded_bytes(Dimension::LARGEST, 2 * OPENINGS_MAX as usize);
        assert!(most <= PROOF_MAX_BYTES, "{most}");
    }

    #[test]
    fn ten_gigabytes_are_refused_by_their_length() {
        assert_eq!(check_length(PROOF_MAX_BYTES as u64), Ok(()));
        let one_more = PROOF_MAX_BYTES as u64 + 1;
        assert!(matches!(check_length(one_more), Err(ProofError::TooLarge { .. })));
        assert!(check_length(10 << 30).is_err());
        let bytes = vec![0; PROOF_MAX_BYTES + 1];
        assert!(matches!(Proof::decode(&bytes), Err(ProofError::TooLarge { .. })));
    }

    #[test]
    fn a_count_that_the_bytes_can_not_hold_is_refused_before_allocation() {
        // How many openings, how many values of the first, how many neighbours.
        for at in [0, 8, 16 + 1024] {
            let mut bytes = proof(1).encode();
            bytes[at..at + 8].copy_from_slice(&(1_u64 << 40).to_le_bytes());
            assert!(
                matches!(Proof::decode(&bytes), Err(ProofError::Malformed(_))),
                "{at}"
            );
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..4096)) {
            let _ = Proof::decode(&bytes);
        }

        #[test]
        fn what_is_read_is_written_the_same(
            cut in 0..4096_usize,
            changes in proptest::collection::vec((0..4096_usize, any::<u8>()), 0..4),
        ) {
            let mut bytes = proof(2).encode();
            bytes.truncate(bytes.len().saturating_sub(cut));
            for (at, byte) in changes {
                if let Some(place) = bytes.get_mut(at) {
                    *place = byte;
                }
            }
            if let Ok(proof) = Proof::decode(&bytes) {
                prop_assert_eq!(proof.encode(), bytes);
            }
        }
    }
}
