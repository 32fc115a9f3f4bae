//! A disk that fills up.

use std::io;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::disk::{DiskFile, RealDisk};
use crate::index::file_index::*;

/// A disk with room for so many bytes more; a write that does not fit is done in part.
#[derive(Debug)]
pub(super) struct SmallDisk(pub(super) Arc<AtomicI64>);

#[derive(Debug)]
pub(super) struct SmallFile(Arc<dyn DiskFile>, Arc<AtomicI64>);

impl SmallDisk {
    pub(super) fn file(&self, opened: io::Result<Arc<dyn DiskFile>>) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(SmallFile(opened?, Arc::clone(&self.0))))
    }
}

impl Disk for SmallDisk {
    fn create_directory(&self, directory: &Path) -> io::Result<()> {
        RealDisk.create_directory(directory)
    }
    fn create(&self, file: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.file(RealDisk.create(file))
    }
    fn open(&self, file: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.file(RealDisk.open(file))
    }
    fn open_to_read(&self, file: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.file(RealDisk.open_to_read(file))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }
    fn remove(&self, file: &Path) -> io::Result<()> {
        RealDisk.remove(file)
    }
    fn list(&self, directory: &Path) -> io::Result<Vec<std::ffi::OsString>> {
        RealDisk.list(directory)
    }
    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        RealDisk.sync_directory(directory)
    }
    fn try_lock(&self, file: &Path) -> io::Result<Option<DiskLock>> {
        RealDisk.try_lock(file)
    }
    fn is_locked(&self, file: &Path) -> io::Result<bool> {
        RealDisk.is_locked(file)
    }
}

impl DiskFile for SmallFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let room = self.1.fetch_sub(bytes.len() as i64, Ordering::SeqCst);
        let fitting = usize::try_from(room).unwrap_or(0).min(bytes.len());
        self.0.write_at(offset, &bytes[..fitting])?;
        if fitting < bytes.len() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(offset, into)
    }
    fn length(&self) -> io::Result<u64> {
        self.0.length()
    }
    fn set_length(&self, bytes: u64) -> io::Result<()> {
        self.0.set_length(bytes)
    }
    fn allocate(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.0.allocate(offset, bytes)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
    fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }
}
