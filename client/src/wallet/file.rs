//! `wallet.json`: the channels that are open, and those being opened. For its owner's eyes only, since whoever has
//! a ticket and the key can spend what it holds.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use gristmill_protocol::coordinator_api::OpenChannelRequest;
use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::ids::ChannelId;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::private_file;

/// The version of the file that is written.
const VERSION: u32 = 1;
/// Most bytes that are read: far more than the channels of any household.
const FILE_MAX_BYTES: u64 = 64 << 20;

/// What the file holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WalletContent {
    pub(crate) version: u32,
    /// The coordinator that answered last, so that a start without it can still spend what is open.
    pub(crate) coordinator: Option<AccountId>,
    pub(crate) channels: Vec<StoredChannel>,
    pub(crate) openings: Vec<StoredOpening>,
}

/// An open channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StoredChannel {
    pub(crate) channel: ChannelId,
    pub(crate) coordinator: AccountId,
    pub(crate) provider: AccountId,
    pub(crate) ticket: String,
    pub(crate) limit: Credits,
    pub(crate) redeem_by_ms: u64,
    pub(crate) use_until_ms: u64,
    /// As of the last time the file was written. Where more was promised since, the provider shows it.
    pub(crate) promised: Credits,
    /// Not used for new jobs: the provider said that it is used up.
    pub(crate) is_retired: bool,
}

/// A channel whose opening was asked for. Asking again with the same request gives the same ticket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StoredOpening {
    pub(crate) coordinator: AccountId,
    pub(crate) request: OpenChannelRequest,
    pub(crate) asked_at_ms: u64,
}

/// Why the wallet's file can't be used.
#[derive(Debug, Error)]
pub enum WalletFileError {
    /// The system refuses.
    #[error("the wallet {path} can't be {action}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// Written by a newer program.
    #[error(
        "the wallet {path} was written by a newer version of this program (format {version}, this one reads \
         {VERSION}); update this program",
        path = path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        version: u32,
    },
}

impl Default for WalletContent {
    fn default() -> Self {
        Self {
            version: VERSION,
            coordinator: None,
            channels: Vec::new(),
            openings: Vec::new(),
        }
    }
}

/// Reads the file; an empty wallet where there is none. A file that makes no sense is moved aside: what its channels
/// hold comes back when they end.
pub(crate) fn load(path: &Path, now_ms: u64) -> Result<WalletContent, WalletFileError> {
    let failed = |action| {
        move |source| WalletFileError::Io {
            path: path.to_owned(),
            action,
            source,
        }
    };
    let bytes = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(WalletContent::default()),
        Ok(metadata) if metadata.len() > FILE_MAX_BYTES => Vec::new(),
        Err(error) => return Err(failed("read")(error)),
        Ok(_) => fs::read(path).map_err(failed("read"))?,
    };
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    if let Ok(Version { version }) = serde_json::from_slice(&bytes)
        && version > VERSION
    {
        return Err(WalletFileError::Newer {
            path: path.to_owned(),
            version,
        });
    }
    match serde_json::from_slice(&bytes) {
        Ok(content) => Ok(content),
        Err(error) => {
            let aside = path.with_extension(format!("unreadable-{now_ms}.json"));
            fs::rename(path, &aside).map_err(failed("moved aside"))?;
            tracing::warn!(
                %error,
                aside = %aside.display(),
                "the wallet made no sense and was moved aside; what its channels hold comes back when they end"
            );
            Ok(WalletContent::default())
        }
    }
}

/// Writes the file, synced, all of it or nothing.
pub(crate) fn save(path: &Path, content: &WalletContent) -> Result<(), WalletFileError> {
    write_synced(path, content).map_err(|source| WalletFileError::Io {
        path: path.to_owned(),
        action: "written",
        source,
    })
}

fn write_synced(path: &Path, content: &WalletContent) -> io::Result<()> {
    let mut bytes = serde_json::to_vec_pretty(content)?;
    bytes.push(b'\n');
    private_file::write(path, &bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content() -> WalletContent {
        let account = AccountId::from_public_key([1; 32]);
        WalletContent {
            coordinator: Some(account),
            channels: vec![StoredChannel {
                channel: ChannelId::from_bytes([2; 16]),
                coordinator: account,
                provider: account,
                ticket: "a.b.c".into(),
                limit: Credits::micro(5),
                redeem_by_ms: 9,
                use_until_ms: 8,
                promised: Credits::micro(1),
                is_retired: false,
            }],
            ..WalletContent::default()
        }
    }

    #[test]
    fn what_was_saved_is_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("client/wallet.json");
        assert_eq!(load(&path, 0).unwrap(), WalletContent::default());
        for _ in 0..2 {
            save(&path, &content()).unwrap();
            assert_eq!(load(&path, 0).unwrap(), content());
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        }
    }

    #[test]
    fn nonsense_is_moved_aside_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wallet.json");
        for (now_ms, text) in [(1, ""), (2, "{"), (3, "{\"version\":1}"), (4, "\u{0}\u{0}")] {
            fs::write(&path, text).unwrap();
            assert_eq!(load(&path, now_ms).unwrap(), WalletContent::default());
            let aside = folder.path().join(format!("wallet.unreadable-{now_ms}.json"));
            assert_eq!(fs::read_to_string(aside).unwrap(), text);
        }
    }

    #[test]
    fn a_newer_file_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wallet.json");
        fs::write(&path, "{\"version\":2,\"new\":true}").unwrap();
        assert!(matches!(
            load(&path, 0),
            Err(WalletFileError::Newer { version: 2, .. })
        ));
        assert!(path.exists());
    }
}
