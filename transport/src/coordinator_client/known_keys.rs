//! Whose keys a coordinator signs with, as far as this installation knows: the first one it met at an address, and
//! those it was handed over to. Kept in a file, so that another coordinator can't take its place unnoticed.

use std::io;
use std::path::{Path, PathBuf};

use gristmill_protocol::coordinator_api::{NetworkInfo, handover_from_text, handover_text};
use gristmill_protocol::handover::SignedHandover;
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::jws::TokenError;
use gristmill_protocol::log::checkpoint::LogKeys;
use reqwest::Url;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::private_file;

/// Most hand-overs that are followed: one a week for almost twenty years.
pub const HANDOVERS_MAX: usize = 1_000;
/// Most bytes of the file.
const FILE_MAX_BYTES: usize = 2 << 20;
/// The version of the file that is written.
const VERSION: u32 = 1;

/// The keys of a coordinator's log, and the hand-overs between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownKeys {
    keys: LogKeys,
    handovers: Vec<SignedHandover>,
}

impl KnownKeys {
    /// The first key alone.
    #[must_use]
    pub fn first(first: AccountId) -> Self {
        Self {
            keys: LogKeys::new(first),
            handovers: Vec::new(),
        }
    }

    /// The keys.
    #[must_use]
    pub const fn keys(&self) -> &LogKeys {
        &self.keys
    }

    /// The hand-overs, in order.
    #[must_use]
    pub fn handovers(&self) -> &[SignedHandover] {
        &self.handovers
    }

    /// The keys that hand-overs lead to, written as [`handover_text`] does.
    fn from_texts(first: AccountId, texts: &[String]) -> Result<Self, String> {
        if texts.len() > HANDOVERS_MAX {
            return Err(format!("it names {} hand-overs", texts.len()));
        }
        let mut known = Self::first(first);
        for text in texts {
            let handover = handover_from_text(text).map_err(|error| error.to_string())?;
            known.keys.follow(&handover).map_err(|error| error.to_string())?;
            known.handovers.push(handover);
        }
        // A hand-over that is repeated, or leads back, is none.
        match known.keys.keys().len() == texts.len() + 1 {
            true => Ok(known),
            false => Err("a hand-over in it leads nowhere new".to_owned()),
        }
    }

    /// What a coordinator says its keys are, after checking every hand-over.
    pub(super) fn claimed(info: &NetworkInfo) -> Result<Self, String> {
        let claimed = Self::from_texts(info.log.account, &info.log.keys)?;
        let newest = claimed.keys.newest();
        if *newest != info.coordinator {
            return Err(format!(
                "its hand-overs lead to {newest}, but it says that {} signs",
                info.coordinator
            ));
        }
        if info.log.origin != claimed.keys.origin() || info.log.verifier_key.account() != newest {
            return Err("the name or the key of its log is not what its hand-overs lead to".to_owned());
        }
        Ok(claimed)
    }

    /// Whether these keys go on from others that are known: the same ones, and maybe more.
    pub(super) fn goes_on_from(&self, known: &Self) -> bool {
        self.keys.first() == known.keys.first() && self.keys.keys().starts_with(known.keys.keys())
    }
}

/// Verifies a token by whichever of a coordinator's keys signed it, the newest one first.
///
/// # Errors
/// What `verify` says for the key that signed it; [`TokenError::Signature`] where none did, which can also mean that
/// the coordinator has handed over to a key that is not known yet.
pub fn verify_by_any<T>(
    keys: &LogKeys,
    mut verify: impl FnMut(&AccountId) -> Result<T, TokenError>,
) -> Result<T, TokenError> {
    for key in keys.keys().iter().rev() {
        match verify(key.account()) {
            Err(TokenError::Signature) => {}
            verified => return verified,
        }
    }
    Err(TokenError::Signature)
}

/// Why the keys of a coordinator can't be kept.
#[derive(Debug, Error)]
pub enum KnownKeysError {
    /// The system refuses.
    #[error("the keys of the coordinator can't be {action} {path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// The file makes no sense.
    #[error(
        "{path} should hold the keys of the coordinator and does not: {reason}; restore it, or remove it if you trust \
         whoever answers at the coordinator's address now",
        path = path.display()
    )]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    version: u32,
    url: String,
    log: AccountId,
    handovers: Vec<String>,
}

/// The file with the keys of the coordinator at one address.
#[derive(Clone, Debug)]
pub(super) struct KnownKeysFile {
    path: PathBuf,
    url: String,
}

impl KnownKeysFile {
    pub(super) fn new(data_dir: &Path, url: &Url) -> Self {
        Self {
            path: folder(data_dir).join(file_name(url)),
            url: url.to_string(),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What is kept; `None` where there is no file.
    pub(super) fn load(&self) -> Result<Option<KnownKeys>, KnownKeysError> {
        load(&self.path)
    }

    pub(super) fn save(&self, known: &KnownKeys) -> Result<(), KnownKeysError> {
        let content = Content {
            version: VERSION,
            url: self.url.clone(),
            log: *known.keys.first(),
            handovers: known.handovers.iter().map(handover_text).collect(),
        };
        let failed = |source| KnownKeysError::Io {
            path: self.path.clone(),
            action: "written to",
            source,
        };
        let json = serde_json::to_vec_pretty(&content).map_err(|error| failed(error.into()))?;
        private_file::write(&self.path, &json).map_err(failed)
    }
}

/// The keys of all coordinators that an installation has met.
///
/// # Errors
/// [`KnownKeysError`] where a file can't be read or makes no sense.
pub fn all_known_keys(data_dir: &Path) -> Result<Vec<KnownKeys>, KnownKeysError> {
    let folder = folder(data_dir);
    let failed = |source| KnownKeysError::Io {
        path: folder.clone(),
        action: "read from",
        source,
    };
    let entries = match std::fs::read_dir(&folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut known = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            known.extend(load(&path)?);
        }
    }
    Ok(known)
}

fn folder(data_dir: &Path) -> PathBuf {
    data_dir.join("coordinators")
}

fn load(path: &Path) -> Result<Option<KnownKeys>, KnownKeysError> {
    let malformed = |reason: String| KnownKeysError::Malformed {
        path: path.to_owned(),
        reason,
    };
    let bytes = private_file::read(path, FILE_MAX_BYTES).map_err(|source| KnownKeysError::Io {
        path: path.to_owned(),
        action: "read from",
        source,
    })?;
    let Some(bytes) = bytes else { return Ok(None) };
    let content: Content = serde_json::from_slice(&bytes).map_err(|error| malformed(error.to_string()))?;
    if content.version != VERSION {
        return Err(malformed(format!("it is of version {}", content.version)));
    }
    KnownKeys::from_texts(content.log, &content.handovers)
        .map(Some)
        .map_err(malformed)
}

/// `127.0.0.1_7400.json` for `http://127.0.0.1:7400`.
fn file_name(url: &Url) -> String {
    let port = url.port_or_known_default().unwrap_or_default();
    let is_plain = |character: char| character.is_ascii_alphanumeric() || matches!(character, '.' | '-');
    let host: String = url
        .host_str()
        .unwrap_or_default()
        .chars()
        .map(|character| if is_plain(character) { character } else { '_' })
        .collect();
    format!("{host}_{port}.json")
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_protocol::handover::KeyHandover;
    use gristmill_protocol::identity::Keypair;

    fn keypair(byte: u8) -> Keypair {
        Keypair::from_secret(&[byte; 32])
    }

    fn handover(old: u8, new: u8) -> String {
        let agreed = KeyHandover {
            log: keypair(1).account(),
            old: keypair(old).account(),
            new: keypair(new).account(),
            agreed_at_ms: 5,
        };
        handover_text(&SignedHandover {
            by_old: keypair(old).sign(agreed),
            by_new: keypair(new).sign(agreed),
        })
    }

    fn known(handovers: &[(u8, u8)]) -> Result<KnownKeys, String> {
        let texts: Vec<_> = handovers.iter().map(|(old, new)| handover(*old, *new)).collect();
        KnownKeys::from_texts(keypair(1).account(), &texts)
    }

    #[test]
    fn keys_go_on_from_their_beginning_and_from_nothing_else() {
        let [none, one, two] = [&[][..], &[(1, 2)], &[(1, 2), (2, 3)]].map(|chain| known(chain).unwrap());
        assert!(one.goes_on_from(&none) && two.goes_on_from(&one) && two.goes_on_from(&two));
        assert!(
            !one.goes_on_from(&two),
            "a key that was retired does not come back"
        );
        let fork = known(&[(1, 4)]).unwrap();
        assert!(!fork.goes_on_from(&one));
        let other = KnownKeys::first(keypair(7).account());
        assert!(!none.goes_on_from(&other));
        for broken in [
            &[(2, 3)][..],
            &[(1, 2), (1, 3)],
            &[(1, 2), (1, 2)],
            &[(1, 2), (2, 1)],
        ] {
            assert!(known(broken).is_err(), "{broken:?}");
        }
    }

    #[test]
    fn tokens_of_every_key_are_verified_and_their_errors_told() {
        let keys = known(&[(1, 2), (2, 3)]).unwrap();
        for signer in [1, 2, 3] {
            let signer = keypair(signer).account();
            let by = |key: &AccountId| match *key == signer {
                true => Ok(signer),
                false => Err(TokenError::Signature),
            };
            assert_eq!(verify_by_any(keys.keys(), by), Ok(signer));
            let expired = |key: &AccountId| match *key == signer {
                true => Err::<(), _>(TokenError::Expired { ago_ms: 5 }),
                false => Err(TokenError::Signature),
            };
            assert_eq!(
                verify_by_any(keys.keys(), expired),
                Err(TokenError::Expired { ago_ms: 5 })
            );
        }
        let nobody = |_: &AccountId| Err::<(), _>(TokenError::Signature);
        assert_eq!(verify_by_any(keys.keys(), nobody), Err(TokenError::Signature));
    }

    #[test]
    fn files_are_kept_per_address_and_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let url = |text: &str| Url::parse(text).unwrap();
        let file = |text| KnownKeysFile::new(folder.path(), &url(text));
        let (first, second) = (file("http://127.0.0.1:7400"), file("https://[::1]"));
        assert!(first.load().unwrap().is_none());
        let (one, two) = (known(&[(1, 2)]).unwrap(), known(&[]).unwrap());
        first.save(&one).unwrap();
        second.save(&two).unwrap();
        assert_eq!(first.load().unwrap(), Some(one));
        assert_eq!(second.load().unwrap(), Some(two));
        assert!(first.path().ends_with("coordinators/127.0.0.1_7400.json"));
        assert!(second.path().ends_with("coordinators/___1__443.json"));
        assert_eq!(all_known_keys(folder.path()).unwrap().len(), 2);
        std::fs::write(first.path(), "{}").unwrap();
        let error = first.load().unwrap_err();
        assert!(error.to_string().contains("127.0.0.1_7400.json"), "{error}");
        assert!(all_known_keys(&folder.path().join("nowhere")).unwrap().is_empty());
    }
}
