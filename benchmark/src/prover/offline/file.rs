//! The file of an offline proof: a line that names it, the length of the header, the header as JSON, the openings.

use gristmill_protocol::hardware::PROOF_MAX_BYTES;
use thiserror::Error;

use super::OfflineProof;

const NAME: &[u8] = b"gristmill offline proof 1\n";
/// Most bytes of a header: the roots of three stages and of what stayed, and the units that are opened, are below.
const HEADER_MAX_BYTES: usize = 4 << 20;
/// Most bytes of a file, to be checked before it is read.
pub const OFFLINE_FILE_MAX_BYTES: u64 = (NAME.len() + 4 + HEADER_MAX_BYTES + PROOF_MAX_BYTES) as u64;

/// Bytes that are no offline proof.
#[derive(Debug, Error)]
pub enum FileError {
    /// Another file.
    #[error("it is no offline proof of gristmill; `gristmill benchmark run --offline` makes one")]
    Name,
    /// It is cut off, or too long.
    #[error("it is cut off, or longer than an offline proof can be")]
    Length,
    /// The header.
    #[error("its header can't be read: {0}")]
    Header(#[from] serde_json::Error),
}

impl OfflineProof {
    /// The bytes of the file.
    ///
    /// # Errors
    /// [`FileError`] where the header is larger than one can be.
    pub fn encode(&self) -> Result<Vec<u8>, FileError> {
        let header = serde_json::to_vec(&self.header)?;
        let length = u32::try_from(header.len()).map_err(|_| FileError::Length)?;
        if header.len() > HEADER_MAX_BYTES {
            return Err(FileError::Length);
        }
        Ok([NAME, &length.to_le_bytes(), &header, &self.proof].concat())
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`FileError`] where it is something else.
    pub fn decode(bytes: &[u8]) -> Result<Self, FileError> {
        let rest = bytes.strip_prefix(NAME).ok_or(FileError::Name)?;
        let (length, rest) = rest.split_first_chunk().ok_or(FileError::Length)?;
        let length = u32::from_le_bytes(*length) as usize;
        let (header, proof) = rest.split_at_checked(length).ok_or(FileError::Length)?;
        if length > HEADER_MAX_BYTES || proof.len() > PROOF_MAX_BYTES {
            return Err(FileError::Length);
        }
        Ok(Self {
            header: serde_json::from_slice(header)?,
            proof: proof.to_vec(),
        })
    }
}
