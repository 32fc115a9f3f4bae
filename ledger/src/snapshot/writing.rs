//! Writing a snapshot.

use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use gristmill_protocol::codec;

use super::{MAGIC, SNAPSHOT_VERSION, SnapshotHeader, UNFINISHED, path};
use crate::book::Book;
use crate::disk::{Disk, DiskFile};

/// Writes happen in pieces of this size.
const BUFFER_BYTES: usize = 1024 * 1024;

/// A file that is written from its start on, and the checksum of what was written.
struct ChecksummedFile {
    file: Arc<dyn DiskFile>,
    length: u64,
    checksum: blake3::Hasher,
}

impl Write for ChecksummedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_at(self.length, bytes)?;
        self.checksum.update(bytes);
        self.length += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes the snapshot with this header and state into `directory`, and returns once it is durable. Until then it
/// has another name.
///
/// # Errors
/// What the disk says. What was written is removed then.
pub fn write(disk: &dyn Disk, directory: &Path, header: &SnapshotHeader, book: &Book) -> io::Result<()> {
    disk.create_directory(directory)?;
    let unfinished = path(directory, header.sequence).with_extension(UNFINISHED);
    if let Err(error) = write_content(disk, &unfinished, header, book) {
        // It may be what fills the disk.
        let _ = disk.remove(&unfinished);
        return Err(error);
    }
    disk.rename(&unfinished, &path(directory, header.sequence))?;
    disk.sync_directory(directory)
}

fn write_content(disk: &dyn Disk, file: &Path, header: &SnapshotHeader, book: &Book) -> io::Result<()> {
    let encoded = codec::encode(header);
    let header_bytes = u32::try_from(encoded.len()).unwrap_or(u32::MAX);
    let mut writer = BufWriter::with_capacity(
        BUFFER_BYTES,
        ChecksummedFile {
            file: disk.create(file)?,
            length: 0,
            checksum: blake3::Hasher::new(),
        },
    );
    writer.write_all(MAGIC)?;
    writer.write_all(&SNAPSHOT_VERSION.to_le_bytes())?;
    writer.write_all(&header_bytes.to_le_bytes())?;
    writer.write_all(&encoded)?;
    book.write_state(&mut writer)?;
    let mut written = writer.into_inner().map_err(io::IntoInnerError::into_error)?;
    let checksum = written.checksum.finalize();
    written.write_all(checksum.as_bytes())?;
    written.file.sync_all()
}
