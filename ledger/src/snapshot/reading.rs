//! Reading a snapshot.

use std::io::{self, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use gristmill_protocol::codec;

use super::{
    CHECKSUM_BYTES, HEADER_MAX_BYTES, MAGIC, PRELUDE_BYTES, SNAPSHOT_VERSION, Snapshot, SnapshotError,
    SnapshotHeader, path,
};
use crate::book::Book;
use crate::disk::{Disk, DiskFile};

/// Reads happen in pieces of this size.
const BUFFER_BYTES: usize = 1024 * 1024;

/// The part of a file before its checksum, and the checksum of what was read of it.
struct ChecksummedFile {
    file: Arc<dyn DiskFile>,
    position: u64,
    end: u64,
    checksum: blake3::Hasher,
}

impl Read for ChecksummedFile {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.position).unwrap_or(usize::MAX);
        let wanted = into.len().min(left);
        let into = into.get_mut(..wanted).unwrap_or_default();
        let read = self.file.read_at(self.position, into)?;
        self.checksum.update(into.get(..read).unwrap_or_default());
        self.position += u64::try_from(read).unwrap_or(u64::MAX);
        Ok(read)
    }
}

/// Reads the header of the snapshot after this record, without the state. The checksum is not verified.
///
/// # Errors
/// [`SnapshotError`]
pub fn read_header(
    disk: &dyn Disk,
    directory: &Path,
    sequence: u64,
) -> Result<SnapshotHeader, SnapshotError> {
    let (mut reader, _) = open(disk, directory, sequence)?;
    decode_header(&mut reader, sequence)
}

/// Reads the snapshot after this record and checks all of it: checksum, digest and the book's invariants.
///
/// # Errors
/// [`SnapshotError`]
pub fn read(disk: &dyn Disk, directory: &Path, sequence: u64) -> Result<Snapshot, SnapshotError> {
    let (mut reader, checksum_at) = open(disk, directory, sequence)?;
    let header = decode_header(&mut reader, sequence)?;
    let book = Book::read_state(&mut reader);
    // A changed byte is named as such, not by what it happens to mean.
    io::copy(&mut reader, &mut io::sink())?;
    let content = reader.into_inner();
    let mut stored = [0; CHECKSUM_BYTES];
    let read = content.file.read_at(checksum_at, &mut stored)?;
    if read != CHECKSUM_BYTES || content.checksum.finalize() != stored {
        return Err(SnapshotError::Checksum);
    }
    let book = book?;
    agrees(
        "the digest",
        header.state_digest.to_string(),
        book.digest().to_string(),
    )?;
    agrees("record", header.sequence.to_string(), book.sequence().to_string())?;
    Ok(Snapshot {
        header,
        book,
        bytes: checksum_at + u64::try_from(CHECKSUM_BYTES).unwrap_or_default(),
    })
}

/// The part before the checksum, and where that is.
fn open(
    disk: &dyn Disk,
    directory: &Path,
    sequence: u64,
) -> Result<(BufReader<ChecksummedFile>, u64), SnapshotError> {
    let file = disk.open_to_read(&path(directory, sequence))?;
    let checksum_bytes = u64::try_from(CHECKSUM_BYTES).unwrap_or_default();
    let end = file
        .length()?
        .checked_sub(checksum_bytes)
        .ok_or(SnapshotError::Magic)?;
    let content = ChecksummedFile {
        file,
        position: 0,
        end,
        checksum: blake3::Hasher::new(),
    };
    Ok((BufReader::with_capacity(BUFFER_BYTES, content), end))
}

fn decode_header(reader: &mut impl Read, sequence: u64) -> Result<SnapshotHeader, SnapshotError> {
    let mut prelude = [0; PRELUDE_BYTES];
    reader.read_exact(&mut prelude)?;
    let (magic, rest) = prelude.split_at(MAGIC.len());
    if magic != MAGIC {
        return Err(SnapshotError::Magic);
    }
    let (version, length) = rest.split_at(4);
    let number = |bytes: &[u8]| bytes.first_chunk().copied().map_or(0, u32::from_le_bytes);
    if number(version) != SNAPSHOT_VERSION {
        return Err(SnapshotError::Version(number(version)));
    }
    let length = usize::try_from(number(length)).unwrap_or(usize::MAX);
    if length > HEADER_MAX_BYTES {
        return Err(SnapshotError::Header(format!(
            "{length} bytes are more than it can have"
        )));
    }
    let mut bytes = vec![0; length];
    reader.read_exact(&mut bytes)?;
    let header = codec::decode::<SnapshotHeader, HEADER_MAX_BYTES>(&bytes)
        .map_err(|error| SnapshotError::Header(error.to_string()))?;
    agrees("record", header.sequence.to_string(), sequence.to_string())?;
    agrees(
        "a tree of",
        header.frontier.size().to_string(),
        sequence.to_string(),
    )?;
    Ok(header)
}

fn agrees(what: &str, header: String, actual: String) -> Result<(), SnapshotError> {
    if header == actual {
        return Ok(());
    }
    Err(SnapshotError::Contradiction {
        header: format!("{what} {header}"),
        actual,
    })
}
