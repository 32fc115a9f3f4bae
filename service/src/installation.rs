//! The identity of an installation, which its node and its client share: one key can't be two mesh peers at once.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Where an installation's key is.
#[must_use]
pub fn identity_path(data_dir: &Path) -> PathBuf {
    data_dir.join("identity.key")
}

/// The file that is locked while a node or a client uses an installation.
#[must_use]
pub fn identity_lock_path(data_dir: &Path) -> PathBuf {
    data_dir.join("identity.lock")
}

/// Why an installation can't be used now.
#[derive(Debug, Error)]
pub enum IdentityLockError {
    /// Another node or client uses it.
    #[error("another node or client uses it")]
    InUse,
    /// The lock can't be taken.
    #[error("{} can't be locked: {source}", path.display())]
    Failed {
        /// The lock's file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// The right to be the mesh peer of an installation, until dropped or the process ends, however that happens.
#[derive(Debug)]
pub struct IdentityLock(#[expect(dead_code, reason = "holds the lock as long as it is open")] File);

impl IdentityLock {
    /// Takes the lock. The directory must be there.
    ///
    /// # Errors
    /// [`IdentityLockError`] where somebody has it, or the file can't be opened.
    pub fn take(data_dir: &Path) -> Result<Self, IdentityLockError> {
        let path = identity_lock_path(data_dir);
        let failed = |source| IdentityLockError::Failed {
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
            Err(TryLockError::WouldBlock) => Err(IdentityLockError::InUse),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_peer_is_told_and_a_later_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let lock = IdentityLock::take(folder.path()).unwrap();
        let refused = IdentityLock::take(folder.path()).unwrap_err();
        assert!(matches!(refused, IdentityLockError::InUse));
        drop(lock);
        IdentityLock::take(folder.path()).unwrap();
        let nowhere = IdentityLock::take(&folder.path().join("nowhere")).unwrap_err();
        assert!(nowhere.to_string().contains("identity.lock"));
    }
}
