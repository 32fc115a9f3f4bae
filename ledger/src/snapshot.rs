//! Snapshots: the state of the book after some record, so that a start need not replay everything before it.
//!
//! A snapshot is made from the one before and the journal, never from the book at work, and says after which record
//! it is. A start that uses one checks that the journal has that very record; an audit replays everything and compares.
//!
//! ```text
//! file     magic "GRSTSNAP" | version u32 | bytes of the header u32 | header | state | BLAKE3 of everything before it
//! header   sequence u64 | record hash | location | digest of the state | frontier of the Merkle log
//! name     <sequence>, twenty digits
//! ```
//!
//! All integers are little-endian. The state is what [`Book::write_state`] writes; its digest is [`Book::digest`].

mod reading;
mod writing;

use std::io;
use std::path::{Path, PathBuf};

use bincode::{Decode, Encode};
use gristmill_protocol::log::frontier::Frontier;
use gristmill_protocol::log::hash::LogHash;
use thiserror::Error;

use crate::book::{Book, StateError};
use crate::digest::Digest;
use crate::disk::Disk;
use crate::journal::Location;

pub use reading::{read, read_header};
pub use writing::write;

const MAGIC: &[u8; 8] = b"GRSTSNAP";
/// The version of the format that this program writes, and the only one that it reads.
pub const SNAPSHOT_VERSION: u32 = 1;
/// Magic, version and length of the header.
const PRELUDE_BYTES: usize = 16;
/// Most bytes of a header: a frontier has 64 hashes at most.
const HEADER_MAX_BYTES: usize = 4 * 1024;
/// Bytes of the checksum at the end.
const CHECKSUM_BYTES: usize = 32;
/// How many digits a name has, so that names sort like numbers.
const NAME_DIGITS: usize = 20;

/// The extension of one that is being written.
const UNFINISHED: &str = "new";

/// What a snapshot says besides the state.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SnapshotHeader {
    /// The last record whose entry is in the state.
    pub sequence: u64,
    /// The hash of that record.
    pub record_hash: LogHash,
    /// Where that record is in the journal.
    pub location: Location,
    /// The digest of the state.
    pub state_digest: Digest,
    /// The right edge of the Merkle tree over the records.
    pub frontier: Frontier,
}

/// A snapshot that was read and is whole.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// What it says of itself.
    pub header: SnapshotHeader,
    /// The state.
    pub book: Book,
    /// How many bytes its file has.
    pub bytes: u64,
}

/// Why a file is no snapshot that can be used.
#[derive(Debug, Error)]
pub enum SnapshotError {
    /// It can't be read.
    #[error("it can't be read: {0}")]
    Read(#[from] io::Error),
    /// It does not begin like a snapshot.
    #[error("it is not a snapshot of a Gristmill ledger")]
    Magic,
    /// A version that this program does not know.
    #[error("it has version {0}, this program reads version {SNAPSHOT_VERSION}")]
    Version(u32),
    /// Its header is malformed.
    #[error("its header is malformed: {0}")]
    Header(String),
    /// Its state can't be read.
    #[error(transparent)]
    State(#[from] StateError),
    /// Its checksum does not hold.
    #[error("its checksum does not hold")]
    Checksum,
    /// The header does not fit the state or the name.
    #[error("its header says {header} where the file has {actual}")]
    Contradiction {
        /// What the header says.
        header: String,
        /// What is there.
        actual: String,
    },
}

/// The file of the snapshot after this record.
#[must_use]
pub fn path(directory: &Path, sequence: u64) -> PathBuf {
    directory.join(name(sequence))
}

fn name(sequence: u64) -> String {
    format!("{sequence:0NAME_DIGITS$}")
}

/// The sequences of the snapshots in a directory, the newest first. None where there is no such directory.
///
/// # Errors
/// What the disk says.
pub fn list(disk: &dyn Disk, directory: &Path) -> io::Result<Vec<u64>> {
    let names = match disk.list(directory) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut sequences: Vec<u64> = names
        .iter()
        .filter_map(|file| {
            let sequence = file.to_str()?.parse().ok()?;
            (file.to_str() == Some(&name(sequence))).then_some(sequence)
        })
        .collect();
    sequences.sort_unstable_by(|one, other| other.cmp(one));
    Ok(sequences)
}

/// Removes all snapshots but the newest `kept`, and what interrupted writings left.
///
/// # Errors
/// What the disk says.
pub fn prune(disk: &dyn Disk, directory: &Path, kept: usize) -> io::Result<()> {
    for sequence in list(disk, directory)?.into_iter().skip(kept) {
        disk.remove(&path(directory, sequence))?;
    }
    for file in disk.list(directory)? {
        if Path::new(&file)
            .extension()
            .is_some_and(|extension| extension == UNFINISHED)
        {
            disk.remove(&directory.join(file))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
