//! The machine's disk. Everything about files that depends on the operating system is here.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::{Disk, DiskFile, DiskLock};

/// Zeros are written in pieces of this size.
const ZEROS: &[u8] = &[0; 64 * 1024];

/// The machine's disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

/// A file of the machine's disk.
#[derive(Debug)]
struct RealFile(File);

impl RealDisk {
    /// The machine's disk, as those want it who keep it.
    #[must_use]
    pub fn shared() -> Arc<dyn Disk> {
        Arc::new(Self)
    }
}

impl Disk for RealDisk {
    fn create_directory(&self, directory: &Path) -> io::Result<()> {
        let missing: Vec<_> = directory
            .ancestors()
            .take_while(|path| !path.as_os_str().is_empty() && !path.is_dir())
            .collect();
        for path in missing.into_iter().rev() {
            let mut builder = fs::DirBuilder::new();
            // Not an error where another process was faster.
            builder.recursive(true);
            #[cfg(unix)]
            std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
            builder.create(path)?;
            if let Some(parent) = path.parent() {
                // The parent of a relative name is where the process is.
                let parent = if parent.as_os_str().is_empty() {
                    Path::new(".")
                } else {
                    parent
                };
                self.sync_directory(parent)?;
            }
        }
        Ok(())
    }

    fn create(&self, file: &Path) -> io::Result<Arc<dyn DiskFile>> {
        private(
            OpenOptions::new()
                .create(true)
                .truncate(true)
                .read(true)
                .write(true),
        )
        .open(file)
        .map(shared)
    }

    fn open(&self, file: &Path) -> io::Result<Arc<dyn DiskFile>> {
        OpenOptions::new().read(true).write(true).open(file).map(shared)
    }

    fn open_to_read(&self, file: &Path) -> io::Result<Arc<dyn DiskFile>> {
        File::open(file).map(shared)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, file: &Path) -> io::Result<()> {
        match fs::remove_file(file) {
            Err(_) if file.is_dir() => fs::remove_dir(file),
            removed => removed,
        }
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        fs::read_dir(directory)?
            .map(|item| Ok(item?.file_name()))
            .collect()
    }

    /// Windows keeps names without being asked and can't open directories.
    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        if cfg!(unix) {
            File::open(directory)?.sync_all()?;
        }
        Ok(())
    }

    fn try_lock(&self, file: &Path) -> io::Result<Option<DiskLock>> {
        let opened = private(OpenOptions::new().create(true).truncate(false).write(true)).open(file)?;
        match opened.try_lock() {
            Ok(()) => Ok(Some(DiskLock::new(opened))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn is_locked(&self, file: &Path) -> io::Result<bool> {
        let opened = match File::open(file) {
            Ok(opened) => opened,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        match opened.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

impl DiskFile for RealFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut written = 0;
        while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
            match write_some_at(&self.0, rest, offset + wide(written)) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut read = 0;
        while let Some(rest) = into.get_mut(read..).filter(|rest| !rest.is_empty()) {
            match read_some_at(&self.0, rest, offset + wide(read)) {
                Ok(0) => break,
                Ok(count) => read += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_length(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn allocate(&self, offset: u64, bytes: u64) -> io::Result<()> {
        let end = offset.saturating_add(bytes);
        let mut from = offset;
        while from < end {
            let piece = usize::try_from(end - from).map_or(ZEROS.len(), |rest| rest.min(ZEROS.len()));
            self.write_at(from, ZEROS.get(..piece).unwrap_or(ZEROS))?;
            from += wide(piece);
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }
}

fn shared(file: File) -> Arc<dyn DiskFile> {
    Arc::new(RealFile(file))
}

/// Files that are created are for their owner alone.
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

#[cfg(unix)]
fn write_some_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::write_at(file, bytes, offset)
}

#[cfg(unix)]
fn read_some_at(file: &File, into: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, into, offset)
}

#[cfg(windows)]
fn write_some_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_write(file, bytes, offset)
}

#[cfg(windows)]
fn read_some_at(file: &File, into: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, into, offset)
}

fn wide(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::write_file_durably;

    #[test]
    fn files_are_written_and_read_at_any_place() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a/b");
        RealDisk.create_directory(&deep).unwrap();
        RealDisk.create_directory(&deep).unwrap();
        let path = deep.join("file");
        let file = RealDisk.create(&path).unwrap();
        file.allocate(0, 100_000).unwrap();
        file.write_at(99_998, b"abcd").unwrap();
        assert_eq!(file.length().unwrap(), 100_002);
        let mut bytes = [1; 8];
        assert_eq!(file.read_at(99_996, &mut bytes).unwrap(), 6);
        assert_eq!(&bytes, b"\0\0abcd\x01\x01");
        file.set_length(3).unwrap();
        file.sync_data().unwrap();
        assert_eq!(RealDisk.read(&path, 3).unwrap(), [0; 3]);
        let too_large = RealDisk.read(&path, 2).unwrap_err();
        assert_eq!(too_large.kind(), io::ErrorKind::FileTooLarge);
        RealDisk.rename(&path, &deep.join("other")).unwrap();
        assert_eq!(RealDisk.list(&deep).unwrap(), ["other"]);
        RealDisk.remove(&deep.join("other")).unwrap();
        RealDisk.sync_directory(&deep).unwrap();
        let missing = RealDisk.open(&path).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }

    #[cfg(unix)]
    #[test]
    fn files_and_directories_are_for_their_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("ledger");
        RealDisk.create_directory(&directory).unwrap();
        write_file_durably(&RealDisk, &directory, "file", b"1").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&directory), mode(&directory.join("file"))), (0o700, 0o600));
    }

    #[test]
    fn a_lock_is_one_holders() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        assert!(!RealDisk.is_locked(&path).unwrap());
        let held = RealDisk.try_lock(&path).unwrap();
        assert!(held.is_some() && RealDisk.is_locked(&path).unwrap());
        assert!(RealDisk.try_lock(&path).unwrap().is_none());
        drop(held);
        assert!(RealDisk.try_lock(&path).unwrap().is_some());
    }

    #[test]
    fn a_file_is_replaced_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        for content in [b"first, and long".as_slice(), b"second"] {
            write_file_durably(&RealDisk, folder.path(), "file", content).unwrap();
            assert_eq!(RealDisk.read(&folder.path().join("file"), 100).unwrap(), content);
        }
        assert_eq!(RealDisk.list(folder.path()).unwrap(), ["file"]);
    }
}
