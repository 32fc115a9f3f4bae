//! One mesh peer per data directory: node and client share its key, and one key can't be two peers at once.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

use super::StartError;

/// The client takes the same lock.
pub(super) const LOCK_FILE: &str = "identity.lock";

/// The right to use a data directory as a node, until dropped or the process ends, however that happens.
#[derive(Debug)]
pub(super) struct DataLock(#[expect(dead_code, reason = "holds the lock as long as it is open")] File);

impl DataLock {
    /// Takes the lock. The directory must be there.
    pub(super) fn take(data_dir: &Path) -> Result<Self, StartError> {
        let path = data_dir.join(LOCK_FILE);
        let failed = |source| StartError::DataDirectory {
            path: path.clone(),
            source,
        };
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(StartError::DataDirectoryInUse(data_dir.to_owned())),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_node_is_told_and_a_later_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let lock = DataLock::take(folder.path()).unwrap();
        let error = DataLock::take(folder.path()).unwrap_err();
        assert!(matches!(error, StartError::DataDirectoryInUse(_)));
        assert!(error.to_string().contains("--data-dir"));
        drop(lock);
        DataLock::take(folder.path()).unwrap();
    }
}
