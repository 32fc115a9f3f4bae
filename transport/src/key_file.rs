//! The file that holds an installation's key: 64 hexadecimal digits and a newline, for its owner's eyes only.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use gristmill_protocol::identity::Keypair;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::private_file::{create_folder, folder_of, permissions};

/// Most bytes read of a key file: digits, line ends and some blanks.
const FILE_MAX_BYTES: usize = 128;

/// Why there is no key. A key file that exists is never overwritten.
#[derive(Debug, Error)]
pub enum KeyFileError {
    /// Other users of the machine can read the key.
    #[error(
        "{path} can be read by others (mode {mode:04o}); run: chmod 600 '{path}', and if others may have read it, \
         move it away to get a new key",
        path = path.display()
    )]
    ReadableByOthers {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file holds something else than a key.
    #[error(
        "{path} is not a key file, which holds 64 hexadecimal digits; restore it from a backup, or move it away to \
         get a new key and with it a new account",
        path = path.display()
    )]
    Malformed {
        /// The key file.
        path: PathBuf,
    },
    /// The file is there and cannot be read.
    #[error("cannot read the key file {path}: {source}", path = path.display())]
    Read {
        /// The key file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file could not be created.
    #[error("cannot create the key file {path}: {source}; choose another place or free it", path = path.display())]
    Create {
        /// The key file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// The key in a file, or a fresh one that the file holds from now on. Where two processes race to create it, both
/// return the same key.
///
/// # Errors
/// [`KeyFileError`] where the file is unreadable, readable by others or no key, or cannot be created.
pub fn load_or_create(path: &Path) -> Result<Keypair, KeyFileError> {
    if let Some(keypair) = load(path)? {
        return Ok(keypair);
    }
    create(path).map_err(|source| KeyFileError::Create {
        path: path.to_owned(),
        source,
    })?;
    load(path)?.ok_or_else(|| KeyFileError::Read {
        path: path.to_owned(),
        source: io::ErrorKind::NotFound.into(),
    })
}

/// The key in a file; `None` where there is no such file.
///
/// # Errors
/// [`KeyFileError`] where the file is unreadable, readable by others or no key.
pub fn load(path: &Path) -> Result<Option<Keypair>, KeyFileError> {
    let unreadable = |source| KeyFileError::Read {
        path: path.to_owned(),
        source,
    };
    let malformed = || KeyFileError::Malformed {
        path: path.to_owned(),
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(malformed());
    }
    if let Some(mode) = permissions::open_to_others(&metadata) {
        return Err(KeyFileError::ReadableByOthers {
            path: path.to_owned(),
            mode,
        });
    }
    // The whole capacity from the start, so that growing leaves no copy behind.
    let mut text = Zeroizing::new(Vec::with_capacity(2 * FILE_MAX_BYTES));
    file.take(FILE_MAX_BYTES as u64)
        .read_to_end(&mut text)
        .map_err(unreadable)?;
    let mut secret = Zeroizing::new([0; 32]);
    hex::decode_to_slice(text.trim_ascii(), secret.as_mut_slice()).map_err(|_| malformed())?;
    Ok(Some(Keypair::from_secret(&secret)))
}

/// Writes a fresh key beside the path, syncs it, and links it into place unless somebody else was faster.
fn create(path: &Path) -> io::Result<()> {
    let folder = folder_of(path);
    create_folder(&folder)?;
    let mut random = Zeroizing::new([0; 40]);
    getrandom::fill(random.as_mut_slice()).map_err(io::Error::other)?;
    let (secret, name) = random.split_at(32);
    let temporary = folder.join(format!(".key-{}.new", hex::encode(name)));
    let written = write_synced(&temporary, secret).and_then(|()| match fs::hard_link(&temporary, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        linked => linked,
    });
    // Whether the link was made or not, the temporary name has served.
    let removed = fs::remove_file(&temporary);
    written.and(removed)?;
    permissions::sync_folder(&folder)
}

fn write_synced(path: &Path, secret: &[u8]) -> io::Result<()> {
    let mut file = permissions::private_file(OpenOptions::new().write(true).create_new(true)).open(path)?;
    let text = Zeroizing::new(hex::encode(secret));
    file.write_all(text.as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_created_once_and_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gristmill/identity.key");
        assert!(load(&path).unwrap().is_none());
        let first = load_or_create(&path).unwrap();
        assert_eq!(load_or_create(&path).unwrap().account(), first.account());
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, format!("{}\n", hex::encode(*first.secret())));
        assert_eq!(
            fs::read_dir(path.parent().unwrap()).unwrap().count(),
            1,
            "no temporary file is left"
        );
    }

    #[test]
    fn racing_creators_agree() {
        for _ in 0..20 {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("identity.key");
            let barrier = std::sync::Barrier::new(8);
            let accounts: std::collections::BTreeSet<_> = std::thread::scope(|scope| {
                let racers: Vec<_> = (0..8)
                    .map(|_| {
                        scope.spawn(|| {
                            barrier.wait();
                            load_or_create(&path).unwrap().account()
                        })
                    })
                    .collect();
                racers.into_iter().map(|racer| racer.join().unwrap()).collect()
            });
            assert_eq!(accounts.len(), 1);
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn malformed_files_are_refused_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity.key");
        let digits = "ab".repeat(32);
        for content in [
            String::new(),
            "hello\n".into(),
            digits[..63].into(),
            format!("{digits}ab"),
            "zz".repeat(32),
        ] {
            fs::write(&path, &content).unwrap();
            #[cfg(unix)]
            fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
            assert!(
                matches!(load_or_create(&path), Err(KeyFileError::Malformed { .. })),
                "{content:?}"
            );
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
        for content in [digits.clone(), format!("{digits}\r\n"), format!(" {digits} \n")] {
            fs::write(&path, content).unwrap();
            load_or_create(&path).unwrap();
        }
        assert!(
            matches!(load_or_create(folder.path()), Err(KeyFileError::Malformed { .. })),
            "a folder"
        );
    }

    #[cfg(unix)]
    #[test]
    fn keys_are_private_and_others_are_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/identity.key");
        load_or_create(&path).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        for open in [0o640, 0o604, 0o660, 0o601] {
            fs::set_permissions(&path, fs::Permissions::from_mode(open)).unwrap();
            let error = load_or_create(&path).unwrap_err();
            assert!(matches!(error, KeyFileError::ReadableByOthers { mode, .. } if mode == open));
            assert!(error.to_string().contains("chmod 600"));
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        load_or_create(&path).unwrap();
    }

    #[test]
    fn a_place_that_cannot_be_written_is_a_typed_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let error = load_or_create(&file.join("identity.key")).unwrap_err();
        assert!(
            matches!(error, KeyFileError::Create { .. } | KeyFileError::Read { .. }),
            "{error}"
        );
    }
}
