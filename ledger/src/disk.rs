//! What a ledger's folder needs of a disk, and nothing more, so that tests can put one in its place that loses power.
//!
//! Whoever keeps files that must survive goes through an `Arc<dyn Disk>`: the journal, snapshots, tiles. The rules are
//! those of POSIX, taken strictly:
//!
//! - What was written is safe after [`DiskFile::sync_data`] on the file, not before.
//! - A name (of a new, renamed or removed file) is safe after [`Disk::sync_directory`] on its directory, not before,
//!   whatever was synced of the file itself.
//! - A rename replaces the target at once: everybody sees the old file or the new one.
//! - After a failed sync nobody knows what is on the disk; it is never tried again.
//!
//! [`RealDisk`] is the machine's. With the feature `simulated-disk` there are one that fills up, fails and is slow
//! (`faulty`), and one that records everything, so that a test can cut the power after every operation (`recording`).

#[cfg(feature = "simulated-disk")]
pub mod faulty;
mod real;
#[cfg(feature = "simulated-disk")]
pub mod recording;

use std::any::Any;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

pub use real::RealDisk;

/// A disk. Every error is the system's, unchanged.
pub trait Disk: fmt::Debug + Send + Sync {
    /// Creates a directory and those above it that are missing, for their owner alone, and makes their names durable.
    /// No error where it is there.
    ///
    /// # Errors
    /// What the system said.
    fn create_directory(&self, directory: &Path) -> io::Result<()>;

    /// Creates a file for its owner alone, or empties the one that is there, and opens it for reading and writing.
    /// The name is not durable before [`Disk::sync_directory`].
    ///
    /// # Errors
    /// What the system said.
    fn create(&self, file: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens a file that is there, for reading and writing.
    ///
    /// # Errors
    /// What the system said.
    fn open(&self, file: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens a file that is there, for reading only.
    ///
    /// # Errors
    /// What the system said.
    fn open_to_read(&self, file: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Gives a file another name in the same file system, replacing what has that name.
    ///
    /// # Errors
    /// What the system said.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file, or a directory that is empty. The removal is not durable before [`Disk::sync_directory`].
    ///
    /// # Errors
    /// What the system said.
    fn remove(&self, file: &Path) -> io::Result<()>;

    /// The names in a directory, in no order.
    ///
    /// # Errors
    /// What the system said.
    fn list(&self, directory: &Path) -> io::Result<Vec<OsString>>;

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// What the system said.
    fn sync_directory(&self, directory: &Path) -> io::Result<()>;

    /// Takes a lock among processes for as long as the returned value lives, creating the file where it is missing.
    /// `None` where another one has it, also one in this process.
    ///
    /// # Errors
    /// What the system said.
    fn try_lock(&self, file: &Path) -> io::Result<Option<DiskLock>>;

    /// Whether somebody has the lock. Changes nothing and creates nothing.
    ///
    /// # Errors
    /// What the system said; no error where there is no such file.
    fn is_locked(&self, file: &Path) -> io::Result<bool>;

    /// Reads a whole file of at most `max_bytes`.
    ///
    /// # Errors
    /// What the system said, or [`io::ErrorKind::FileTooLarge`].
    fn read(&self, file: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
        let opened = self.open_to_read(file)?;
        let length = opened.length()?;
        if length > max_bytes {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let mut bytes = vec![0; usize::try_from(length).map_err(|_| io::ErrorKind::FileTooLarge)?];
        let read = opened.read_at(0, &mut bytes)?;
        // Somebody may just have made it shorter.
        bytes.truncate(read);
        Ok(bytes)
    }
}

/// An open file.
pub trait DiskFile: fmt::Debug + Send + Sync {
    /// Writes all these bytes at `offset`, beyond the end too.
    ///
    /// # Errors
    /// What the system said; part of the bytes may be written then.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Reads from `offset` until `into` is full or the file ends, and says how many bytes that were.
    ///
    /// # Errors
    /// What the system said.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize>;

    /// How many bytes the file has.
    ///
    /// # Errors
    /// What the system said.
    fn length(&self) -> io::Result<u64>;

    /// Cuts the file, or makes it longer by zeros that take no space yet.
    ///
    /// # Errors
    /// What the system said.
    fn set_length(&self, bytes: u64) -> io::Result<()>;

    /// Writes zeros, so that what is written there later neither needs space nor changes the file's size.
    ///
    /// # Errors
    /// What the system said; part of the zeros may be written then.
    fn allocate(&self, offset: u64, bytes: u64) -> io::Result<()>;

    /// Returns once the content, and the size where it matters, are on the disk.
    ///
    /// # Errors
    /// What the system said. Never try again on the same file.
    fn sync_data(&self) -> io::Result<()>;

    /// As [`DiskFile::sync_data`], and everything else about the file too.
    ///
    /// # Errors
    /// What the system said. Never try again on the same file.
    fn sync_all(&self) -> io::Result<()>;
}

/// A lock that is held as long as this lives.
pub struct DiskLock(#[expect(dead_code, reason = "it is there to be dropped")] Box<dyn Any + Send + Sync>);

impl DiskLock {
    /// A lock that is given free when `held` is dropped.
    pub fn new(held: impl Any + Send + Sync) -> Self {
        Self(Box::new(held))
    }
}

impl fmt::Debug for DiskLock {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("DiskLock")
    }
}

/// Whether an error says that there is no space left, so that trying later may help.
#[must_use]
pub fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

/// Puts a file with this content into `directory`, or replaces the one there, and returns once it is durable.
/// Whatever interrupts this, the old file or the new one is there, whole; at worst `<name>.new` is left beside it.
///
/// # Errors
/// What the system said. The old file is as it was, unless syncing the directory failed.
pub fn write_file_durably(disk: &dyn Disk, directory: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let unfinished = directory.join(format!("{name}.new"));
    let written = disk.create(&unfinished).and_then(|file| {
        file.write_at(0, bytes)?;
        file.sync_all()
    });
    if let Err(error) = written {
        // It may be what fills the disk. If it stays, the next writing replaces it.
        let _ = disk.remove(&unfinished);
        return Err(error);
    }
    disk.rename(&unfinished, &directory.join(name))?;
    disk.sync_directory(directory)
}
