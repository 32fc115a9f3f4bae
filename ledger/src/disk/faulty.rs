//! A disk that fills up, fails and is slow when a test says so.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Disk, DiskFile, DiskLock};

/// A disk with faults that are turned on and off while it is in use. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct FaultyDisk {
    inner: Arc<dyn Disk>,
    faults: Arc<Mutex<Faults>>,
}

#[derive(Debug, Default)]
struct Faults {
    /// How many bytes files may grow by, if there is a limit.
    free_bytes: Option<u64>,
    sync_delay: Duration,
    syncs_fail: bool,
    directory_syncs_fail: bool,
    syncs_are_left_out: bool,
    writes_fail: bool,
}

#[derive(Debug)]
struct FaultyFile {
    inner: Arc<dyn DiskFile>,
    faults: Arc<Mutex<Faults>>,
}

impl FaultyDisk {
    /// A disk that does as `inner` does, until faults are turned on.
    #[must_use]
    pub fn over(inner: Arc<dyn Disk>) -> Self {
        Self {
            inner,
            faults: Arc::default(),
        }
    }

    /// From now on files can grow by this many bytes together; what is cut off or removed comes back. Space that
    /// [`DiskFile::set_length`] makes counts as none. `None` is no limit.
    pub fn set_free_bytes(&self, free_bytes: Option<u64>) {
        self.faults().free_bytes = free_bytes;
    }

    /// From now on every sync takes this much longer.
    pub fn delay_syncs(&self, delay: Duration) {
        self.faults().sync_delay = delay;
    }

    /// Whether syncs fail from now on.
    pub fn fail_syncs(&self, fail: bool) {
        self.faults().syncs_fail = fail;
    }

    /// Whether syncs of directories fail from now on.
    pub fn fail_directory_syncs(&self, fail: bool) {
        self.faults().directory_syncs_fail = fail;
    }

    /// Whether syncs do nothing from now on, for tests that only want to be quick.
    pub fn leave_syncs_out(&self, leave_out: bool) {
        self.faults().syncs_are_left_out = leave_out;
    }

    /// Whether writes fail from now on, after half of their bytes.
    pub fn fail_writes(&self, fail: bool) {
        self.faults().writes_fail = fail;
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        locked(&self.faults)
    }

    fn file(&self, inner: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(FaultyFile {
            inner,
            faults: Arc::clone(&self.faults),
        })
    }

    fn length(&self, file: &Path) -> u64 {
        let length = self.inner.open_to_read(file).and_then(|opened| opened.length());
        length.unwrap_or(0)
    }
}

impl Faults {
    fn give_back(&mut self, bytes: u64) {
        if let Some(free) = &mut self.free_bytes {
            *free = free.saturating_add(bytes);
        }
    }

    /// Takes as many of these bytes as there are.
    fn take(&mut self, bytes: u64) -> u64 {
        let Some(free) = &mut self.free_bytes else {
            return bytes;
        };
        let taken = bytes.min(*free);
        *free -= taken;
        taken
    }
}

impl Disk for FaultyDisk {
    fn create_directory(&self, directory: &Path) -> io::Result<()> {
        self.inner.create_directory(directory)
    }

    fn create(&self, file: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut faults = self.faults();
        let replaced = self.length(file);
        let created = self.inner.create(file)?;
        faults.give_back(replaced);
        Ok(self.file(created))
    }

    fn open(&self, file: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.inner.open(file).map(|inner| self.file(inner))
    }

    fn open_to_read(&self, file: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.inner.open_to_read(file)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut faults = self.faults();
        let replaced = self.length(to);
        self.inner.rename(from, to)?;
        faults.give_back(replaced);
        Ok(())
    }

    fn remove(&self, file: &Path) -> io::Result<()> {
        let mut faults = self.faults();
        let removed = self.length(file);
        self.inner.remove(file)?;
        faults.give_back(removed);
        Ok(())
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        self.inner.list(directory)
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        if self.faults().directory_syncs_fail {
            return Err(io::Error::other("the disk was told to fail"));
        }
        sync(&self.faults, || self.inner.sync_directory(directory))
    }

    fn try_lock(&self, file: &Path) -> io::Result<Option<DiskLock>> {
        self.inner.try_lock(file)
    }

    fn is_locked(&self, file: &Path) -> io::Result<bool> {
        self.inner.is_locked(file)
    }
}

impl FaultyFile {
    /// Does a write of `bytes` at `offset` as far as there is space for it.
    fn grow(&self, offset: u64, bytes: u64, write: impl FnOnce(u64) -> io::Result<()>) -> io::Result<()> {
        let mut faults = locked(&self.faults);
        let length = self.inner.length()?;
        let end = offset.saturating_add(bytes);
        let needed = end.saturating_sub(length.max(offset));
        let missing = needed - faults.take(needed);
        write(bytes - missing)?;
        if missing > 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

impl DiskFile for FaultyFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if locked(&self.faults).writes_fail {
            self.inner
                .write_at(offset, bytes.get(..bytes.len() / 2).unwrap_or_default())?;
            return Err(io::Error::other("the disk was told to fail"));
        }
        self.grow(offset, u64::try_from(bytes.len()).unwrap_or(u64::MAX), |fits| {
            let fits = usize::try_from(fits).unwrap_or(usize::MAX);
            self.inner.write_at(offset, bytes.get(..fits).unwrap_or(bytes))
        })
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        self.inner.read_at(offset, into)
    }

    fn length(&self) -> io::Result<u64> {
        self.inner.length()
    }

    fn set_length(&self, bytes: u64) -> io::Result<()> {
        let mut faults = locked(&self.faults);
        let before = self.inner.length()?;
        self.inner.set_length(bytes)?;
        faults.give_back(before.saturating_sub(bytes));
        Ok(())
    }

    fn allocate(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.grow(offset, bytes, |fits| self.inner.allocate(offset, fits))
    }

    fn sync_data(&self) -> io::Result<()> {
        sync(&self.faults, || self.inner.sync_data())
    }

    fn sync_all(&self) -> io::Result<()> {
        sync(&self.faults, || self.inner.sync_all())
    }
}

fn sync(faults: &Mutex<Faults>, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let (delay, fails, is_left_out) = {
        let faults = locked(faults);
        (faults.sync_delay, faults.syncs_fail, faults.syncs_are_left_out)
    };
    if !delay.is_zero() {
        std::thread::sleep(delay);
    }
    match (fails, is_left_out) {
        (true, _) => Err(io::Error::other("the disk was told to fail")),
        (false, true) => Ok(()),
        (false, false) => sync(),
    }
}

fn locked(faults: &Mutex<Faults>) -> MutexGuard<'_, Faults> {
    faults.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{RealDisk, is_full};

    #[test]
    fn space_is_counted_and_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let disk = FaultyDisk::over(RealDisk::shared());
        let path = folder.path().join("file");
        disk.set_free_bytes(Some(10));
        let file = disk.create(&path).unwrap();
        file.write_at(0, b"12345678").unwrap();
        assert!(is_full(&file.write_at(6, b"abcdef").unwrap_err()));
        assert_eq!(disk.read(&path, 100).unwrap(), b"123456abcd");
        file.write_at(0, b"0").unwrap();
        assert!(is_full(&file.allocate(10, 1).unwrap_err()));
        file.set_length(4).unwrap();
        file.allocate(4, 6).unwrap();
        assert!(is_full(&file.write_at(10, b"x").unwrap_err()));
        disk.remove(&path).unwrap();
        disk.create(&path).unwrap().write_at(0, &[1; 10]).unwrap();
        disk.set_free_bytes(None);
        disk.open(&path).unwrap().write_at(10, &[1; 10]).unwrap();
    }

    #[test]
    fn syncs_and_writes_fail_as_long_as_they_are_told_to() {
        let folder = tempfile::tempdir().unwrap();
        let disk = FaultyDisk::over(RealDisk::shared());
        let file = disk.create(&folder.path().join("file")).unwrap();
        disk.fail_syncs(true);
        assert!(file.sync_data().is_err() && file.sync_all().is_err());
        assert!(disk.sync_directory(folder.path()).is_err());
        disk.fail_syncs(false);
        disk.fail_writes(true);
        assert!(file.write_at(0, b"1234").is_err());
        assert_eq!(file.length().unwrap(), 2);
        disk.fail_writes(false);
        file.write_at(0, b"1234").unwrap();
        file.sync_all().unwrap();
    }
}
