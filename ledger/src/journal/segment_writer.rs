//! The segment that is being written: space ahead of what is written, and its name once its content is safe.
//!
//! A new segment is written as the file `next`. It gets its name when it is first synced, so that a segment that has
//! its name always has a whole header, whatever interrupts the writer.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::files::{Folder, failed, failed_or_full};
use super::{JournalError, wide};
use crate::disk::DiskFile;
use crate::record::SegmentHeader;

/// The segment that is being written.
#[derive(Debug)]
pub(super) struct SegmentWriter {
    folder: Folder,
    number: u32,
    file: Arc<dyn DiskFile>,
    salt: u32,
    /// Bytes of the header and of whole records.
    length: u64,
    /// How far there is space. Between the length and this are zeros.
    allocated: u64,
    has_its_name: bool,
}

impl SegmentWriter {
    /// Opens a segment whose records end at `length`, and makes sure that all of them are on the disk. What follows
    /// them is cut off if `cut`; otherwise it must be zeros.
    pub(super) fn open(
        folder: &Folder,
        number: u32,
        header: &SegmentHeader,
        length: u64,
        cut: bool,
    ) -> Result<Self, JournalError> {
        let path = folder.segment(number);
        let opened = folder
            .disk
            .open(&path)
            .and_then(|file| Ok((file.length()?, file)));
        let (mut allocated, file) = opened.map_err(failed("open", &path))?;
        if cut {
            file.set_length(length).map_err(failed("shorten", &path))?;
            allocated = length;
        }
        // Whoever wrote the last records may have been killed before they were synced, or the name was.
        file.sync_all()
            .and_then(|()| folder.disk.sync_directory(&folder.directory))
            .map_err(failed("sync", &path))?;
        Ok(Self {
            folder: folder.clone(),
            number,
            file,
            salt: header.salt,
            length,
            allocated,
            has_its_name: true,
        })
    }

    /// Begins a segment in a file that was made ready for it, or in a new one.
    ///
    /// [`JournalError::DiskFull`] leaves everything as it was.
    pub(super) fn begin(
        folder: &Folder,
        number: u32,
        first_sequence: u64,
        ready: Option<Arc<dyn DiskFile>>,
    ) -> Result<Self, JournalError> {
        let path = folder.next();
        let opened = ready
            .map_or_else(|| folder.disk.create(&path), Ok)
            .and_then(|file| Ok((file.length()?, file)));
        let (allocated, file) = opened.map_err(failed_or_full("create", &path))?;
        let header = SegmentHeader {
            kind: folder.kind,
            // The standard library's own random state: the salt must be unknown to strangers, not more.
            salt: low_half(RandomState::new().hash_one(number)),
            first_sequence,
        };
        let mut segment = Self {
            folder: folder.clone(),
            number,
            file,
            salt: header.salt,
            length: 0,
            allocated,
            has_its_name: false,
        };
        segment.append(&header.encode(), 0)?;
        Ok(segment)
    }

    pub(super) const fn number(&self) -> u32 {
        self.number
    }

    pub(super) const fn salt(&self) -> u32 {
        self.salt
    }

    pub(super) const fn length(&self) -> u64 {
        self.length
    }

    /// Where the bytes are, as long as the file has not got its name too.
    fn path(&self) -> PathBuf {
        if self.has_its_name {
            self.folder.segment(self.number)
        } else {
            self.folder.next()
        }
    }

    /// Appends bytes. Where the space ahead does not suffice, it is made to reach to `allocate_to`.
    ///
    /// [`JournalError::DiskFull`] leaves the segment as it was; after other errors what is in it is unknown.
    pub(super) fn append(&mut self, bytes: &[u8], allocate_to: u64) -> Result<(), JournalError> {
        let end = self.length + wide(bytes.len());
        if end > self.allocated && allocate_to > end {
            self.allocate(allocate_to);
        }
        if let Err(source) = self.file.write_at(self.length, bytes) {
            return Err(self.undo(source));
        }
        self.length = end;
        self.allocated = self.allocated.max(end);
        Ok(())
    }

    /// Writes zeros ahead. Where that does not go, writing goes on without.
    fn allocate(&mut self, end: u64) {
        let from = self.allocated.max(self.length);
        match self.file.allocate(from, end.saturating_sub(from)) {
            Ok(()) => self.allocated = end,
            Err(error) => {
                tracing::debug!(path = %self.path().display(), %error, "no space is kept ahead of the journal");
                // Half of the zeros would take the space that the records need.
                let _ = self.file.set_length(from);
            }
        }
    }

    /// Takes back what was written of a failed append, so that it can't come back later behind other records.
    fn undo(&mut self, source: io::Error) -> JournalError {
        let path = self.path();
        let undone = self
            .file
            .set_length(self.length)
            .and_then(|()| self.file.sync_data());
        self.allocated = self.length;
        match undone {
            Ok(()) => failed_or_full("write to", &path)(source),
            Err(_) => failed("write to", &path)(source),
        }
    }

    /// Returns once everything appended is on the disk, under the segment's name.
    pub(super) fn sync(&mut self) -> Result<(), JournalError> {
        let path = self.path();
        self.file.sync_data().map_err(failed("sync", &path))?;
        if !self.has_its_name {
            let name = self.folder.segment(self.number);
            self.folder
                .disk
                .rename(&path, &name)
                .and_then(|()| self.folder.disk.sync_directory(&self.folder.directory))
                .map_err(failed("create", &name))?;
            self.has_its_name = true;
        }
        Ok(())
    }

    /// Gives the space back that was not needed. The zeros mean nothing, so it need not be durable.
    pub(super) fn give_space_back(&mut self) {
        if self.allocated > self.length && self.file.set_length(self.length).is_ok() {
            self.allocated = self.length;
        }
    }
}

fn low_half(random: u64) -> u32 {
    let [a, b, c, d, ..] = random.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}
