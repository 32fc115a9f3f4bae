//! The keys of programs on disk, and who asks.
//!
//! `keys.json` is written by `gristmill client keys`, whether or not a client runs; the running one looks at each
//! request whether it has changed. `owner.key` is new with each start: the client's own commands show it where
//! programs need a key.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::time::Instant;

use crate::core::failure::ApiFailure;
use crate::core::keys::{
    Allowance, CreateKeyError, KEY_PREFIX, KEY_RANDOM_BYTES, KeyBook, KeyDigest, KeyName, NoSuchKey, Program,
};
use crate::core::request_rate::RequestRates;
use crate::private_file;
use crate::settings::ApiKey;
use crate::wallet::lock;

const KEYS_FILE: &str = "client/keys.json";
const LOCK_FILE: &str = "client/keys.lock";
const OWNER_FILE: &str = "client/owner.key";
const VERSION: u32 = 1;
/// More than the book ever has.
const FILE_MAX_BYTES: u64 = 4 << 20;
const OWNER_MAX_BYTES: u64 = 256;

/// Why the keys can't be read or written.
#[derive(Debug, Error)]
pub enum KeysFileError {
    /// The system refuses.
    #[error("the keys in {path} can't be {action}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// The file makes no sense. It is not replaced: without it everybody could get in, or nobody.
    #[error("{path} makes no sense: {source}; restore it, or move it away and make the keys anew", path = path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// Written by a newer program.
    #[error("{path} was written by a newer version of this program (format {version}); update this program", path = path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        version: u32,
    },
}

/// Why a key was not made.
#[derive(Debug, Error)]
pub(crate) enum NewKeyError {
    /// It can't be.
    #[error(transparent)]
    Refused(#[from] CreateKeyError),
    /// The file.
    #[error(transparent)]
    File(#[from] KeysFileError),
}

/// Why a key was not revoked.
#[derive(Debug, Error)]
pub(crate) enum RevokeKeyError {
    /// There is none.
    #[error(transparent)]
    NoSuchKey(#[from] NoSuchKey),
    /// The file.
    #[error(transparent)]
    File(#[from] KeysFileError),
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    version: u32,
    keys: KeyBook,
}

fn failed<'a>(path: &'a Path, action: &'static str) -> impl Fn(io::Error) -> KeysFileError + 'a {
    move |source| KeysFileError::Io {
        path: path.to_owned(),
        action,
        source,
    }
}

/// The keys as they are on disk; none where there is no file.
pub(crate) fn load(data_dir: &Path) -> Result<KeyBook, KeysFileError> {
    let path = data_dir.join(KEYS_FILE);
    let Some(bytes) = private_file::read(&path, FILE_MAX_BYTES).map_err(failed(&path, "read"))? else {
        return Ok(KeyBook::default());
    };
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    let malformed = |source| KeysFileError::Malformed {
        path: path.clone(),
        source,
    };
    let Version { version } = serde_json::from_slice(&bytes).map_err(malformed)?;
    if version > VERSION {
        return Err(KeysFileError::Newer { path, version });
    }
    let content: Content = serde_json::from_slice(&bytes).map_err(malformed)?;
    Ok(content.keys)
}

/// Whether there ever was a key.
pub(crate) fn has_program_keys(data_dir: &Path) -> Result<bool, KeysFileError> {
    Ok(!load(data_dir)?.is_unused())
}

fn save(data_dir: &Path, keys: KeyBook) -> Result<(), KeysFileError> {
    let path = data_dir.join(KEYS_FILE);
    let content = Content {
        version: VERSION,
        keys,
    };
    let write = || {
        let mut json = serde_json::to_vec_pretty(&content)?;
        json.push(b'\n');
        private_file::write(&path, &json)
    };
    write().map_err(failed(&path, "written"))
}

/// Keeps other commands from changing the keys at the same time, as long as it lives.
fn take_turn(data_dir: &Path) -> Result<File, KeysFileError> {
    let path = data_dir.join(LOCK_FILE);
    let lock = || {
        let file = private_file::open_lock(&path)?;
        file.lock()?;
        Ok(file)
    };
    lock().map_err(failed(&path, "locked"))
}

/// Makes a key and gives its text, which is not kept.
pub(crate) fn create(
    data_dir: &Path,
    name: KeyName,
    allowance: Allowance,
    now_ms: u64,
) -> Result<String, NewKeyError> {
    let _turn = take_turn(data_dir)?;
    let mut book = load(data_dir)?;
    let text = book.create(name, allowance, rand::random::<[u8; KEY_RANDOM_BYTES]>(), now_ms)?;
    save(data_dir, book)?;
    Ok(text)
}

/// Revokes a key.
pub(crate) fn revoke(data_dir: &Path, name: &KeyName, now_ms: u64) -> Result<(), RevokeKeyError> {
    let _turn = take_turn(data_dir)?;
    let mut book = load(data_dir)?;
    book.revoke(name, now_ms)?;
    save(data_dir, book)?;
    Ok(())
}

/// The key that the running client's own commands show, where there is one.
pub(crate) fn owner_key(data_dir: &Path) -> Option<String> {
    let bytes = private_file::read(&data_dir.join(OWNER_FILE), OWNER_MAX_BYTES).ok()??;
    String::from_utf8(bytes).ok()
}

/// What tells one state of the file from another. It is only ever replaced as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileVersion {
    changed_at: Option<SystemTime>,
    bytes: u64,
    number: u64,
}

impl FileVersion {
    fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        #[cfg(unix)]
        let number = std::os::unix::fs::MetadataExt::ino(&metadata);
        #[cfg(not(unix))]
        let number = 0;
        Some(Self {
            changed_at: metadata.modified().ok(),
            bytes: metadata.len(),
            number,
        })
    }
}

struct Known {
    book: Arc<KeyBook>,
    version: Option<FileVersion>,
}

/// The keys of a running client.
pub(crate) struct Keyring {
    data_dir: PathBuf,
    /// Keys of the settings.
    of_settings: Vec<ApiKey>,
    owner: KeyDigest,
    known: Mutex<Known>,
    rates: Mutex<RequestRates>,
    began: Instant,
}

impl Keyring {
    /// Reads the keys, and makes the owner's key anew.
    pub(crate) fn open(data_dir: &Path, of_settings: Vec<ApiKey>) -> Result<Self, KeysFileError> {
        let path = data_dir.join(OWNER_FILE);
        let owner = format!(
            "{KEY_PREFIX}{}",
            hex::encode(rand::random::<[u8; KEY_RANDOM_BYTES]>())
        );
        private_file::write(&path, owner.as_bytes()).map_err(failed(&path, "written"))?;
        // Before the content is read: what changes in between is read again.
        let version = FileVersion::of(&data_dir.join(KEYS_FILE));
        let book = Arc::new(load(data_dir)?);
        Ok(Self {
            data_dir: data_dir.to_owned(),
            of_settings,
            owner: KeyDigest::of(owner.as_bytes()),
            known: Mutex::new(Known { book, version }),
            rates: Mutex::default(),
            began: Instant::now(),
        })
    }

    /// The keys, as they are now.
    fn book(&self) -> Arc<KeyBook> {
        let mut known = lock(&self.known);
        let version = FileVersion::of(&self.data_dir.join(KEYS_FILE));
        // A file that is gone does not open the endpoint to everybody.
        if version.is_some() && version != known.version {
            known.version = version;
            match load(&self.data_dir) {
                Ok(book) => {
                    lock(&self.rates).retain(|id| book.keys().iter().any(|key| key.digest.id() == *id));
                    known.book = Arc::new(book);
                }
                Err(error) => tracing::error!(%error, "the keys stay as they were"),
            }
        }
        known.book.clone()
    }

    /// Whether there ever was a key of `gristmill client keys`.
    pub(crate) fn has_program_keys(&self) -> bool {
        !self.book().is_unused()
    }

    /// Whether programs have to show a key.
    pub(crate) fn are_asked_for(&self) -> bool {
        !self.of_settings.is_empty() || self.has_program_keys()
    }

    /// Who asks, by the key that was shown.
    ///
    /// # Errors
    /// 401 where a key is asked for and none that fits was shown.
    pub(crate) fn program(&self, shown: Option<&[u8]>) -> Result<Program, ApiFailure> {
        let book = self.book();
        if let Some(shown) = shown {
            // Every key is compared, so that the time does not tell which one was near.
            let is_of_settings = self
                .of_settings
                .iter()
                .fold(false, |fits, key| fits | key.is(shown));
            if let Some(key) = book.find(shown) {
                return Ok(key.into());
            }
            if is_of_settings {
                return Ok(Program::Settings);
            }
            if KeyDigest::of(shown) == self.owner {
                return Ok(Program::Owner);
            }
        }
        if self.of_settings.is_empty() && book.is_unused() {
            return Ok(Program::Anyone);
        }
        Err(ApiFailure::unauthorized())
    }

    /// Takes note of a request.
    ///
    /// # Errors
    /// 429 where it is one too many for its key.
    pub(crate) fn admit(&self, program: &Program) -> Result<(), ApiFailure> {
        let (Some(key), Some(per_minute)) = (program.key(), program.allowance().requests_per_minute) else {
            return Ok(());
        };
        let now_us = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        lock(&self.rates).admit(key, per_minute, now_us).map_err(|seconds| {
            let message = format!(
                "this API key may ask {per_minute} times per minute; try again in {seconds} s, or have the owner make \
                 one with a higher rate"
            );
            ApiFailure::new(429, "rate_limit_exceeded", message).retry_after(seconds)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> KeyName {
        text.parse().unwrap()
    }

    fn of_key(program: Result<Program, ApiFailure>) -> Option<String> {
        program.ok()?.label().map(str::to_owned)
    }

    #[tokio::test]
    async fn keys_that_come_and_go_while_it_runs_count_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let keyring = Keyring::open(folder.path(), vec![]).unwrap();
        assert_eq!(keyring.program(None), Ok(Program::Anyone));
        assert_eq!(keyring.program(Some(b"anything")), Ok(Program::Anyone));
        let owner = owner_key(folder.path()).unwrap();
        assert_eq!(keyring.program(Some(owner.as_bytes())), Ok(Program::Owner));
        let key = create(folder.path(), name("ci"), Allowance::default(), 1).unwrap();
        assert!(keyring.are_asked_for());
        assert_eq!(
            of_key(keyring.program(Some(key.as_bytes()))).as_deref(),
            Some("ci")
        );
        assert_eq!(keyring.program(None).unwrap_err().status, 401);
        assert_eq!(keyring.program(Some(b"anything")).unwrap_err().status, 401);
        assert_eq!(keyring.program(Some(owner.as_bytes())), Ok(Program::Owner));
        revoke(folder.path(), &name("ci"), 2).unwrap();
        assert_eq!(keyring.program(Some(key.as_bytes())).unwrap_err().status, 401);
        let again = create(folder.path(), name("ci"), Allowance::default(), 3).unwrap();
        assert_eq!(
            of_key(keyring.program(Some(again.as_bytes()))).as_deref(),
            Some("ci")
        );
        fs::remove_file(folder.path().join(KEYS_FILE)).unwrap();
        assert_eq!(
            keyring.program(None).unwrap_err().status,
            401,
            "a lost file opens nothing"
        );
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = fs::metadata(folder.path().join(OWNER_FILE))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[tokio::test]
    async fn a_file_that_makes_no_sense_is_neither_used_nor_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let key = create(folder.path(), name("ci"), Allowance::default(), 1).unwrap();
        let keyring = Keyring::open(folder.path(), vec![]).unwrap();
        let path = folder.path().join(KEYS_FILE);
        for text in [
            "",
            "{",
            "{\"version\":1}",
            "{\"version\":2,\"keys\":[]}",
            "\u{0}\u{0}",
        ] {
            fs::write(&path, text).unwrap();
            assert!(load(folder.path()).is_err(), "{text}");
            assert!(create(folder.path(), name("b"), Allowance::default(), 1).is_err());
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
            assert!(keyring.program(Some(key.as_bytes())).is_ok() && keyring.program(None).is_err());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_asks_as_often_as_it_may() {
        let folder = tempfile::tempdir().unwrap();
        let allowance = Allowance {
            requests_per_minute: Some(2),
            ..Allowance::default()
        };
        let key = create(folder.path(), name("ci"), allowance, 1).unwrap();
        let keyring = Keyring::open(folder.path(), vec![]).unwrap();
        let program = keyring.program(Some(key.as_bytes())).unwrap();
        assert_eq!(
            (keyring.admit(&program), keyring.admit(&program)),
            (Ok(()), Ok(()))
        );
        let refused = keyring.admit(&program).unwrap_err();
        assert_eq!((refused.status, refused.retry_after_seconds), (429, Some(30)));
        tokio::time::advance(std::time::Duration::from_secs(30)).await;
        assert_eq!(keyring.admit(&program), Ok(()));
        assert_eq!(keyring.admit(&Program::Anyone), Ok(()));
    }
}
