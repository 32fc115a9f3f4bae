//! What a witness keeps on disk: the newest consistent checkpoint of each log, and evidence.

use std::io;
use std::path::{Path, PathBuf};

use gristmill_protocol::identity::AccountId;
use gristmill_protocol::log::checkpoint::{LogKeys, SignedCheckpoint};
use gristmill_protocol::log::evidence::{EVIDENCE_JSON_MAX_BYTES, Evidence};
use gristmill_protocol::log::note::NOTE_MAX_BYTES;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::private_file;

/// Most pieces of evidence that are kept.
pub const EVIDENCE_FILES_MAX: usize = 256;
/// The version of the file with a checkpoint that is written.
const VERSION: u32 = 1;
const CHECKPOINT_FILE_MAX_BYTES: usize = 4 * NOTE_MAX_BYTES;

/// Where an installation keeps evidence.
#[must_use]
pub fn evidence_directory(data_dir: &Path) -> PathBuf {
    data_dir.join("evidence")
}

/// The newest consistent checkpoint of a log, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptCheckpoint {
    /// The checkpoint.
    pub checkpoint: SignedCheckpoint,
    /// When it was found to be consistent, Unix milliseconds.
    pub accepted_at_ms: u64,
}

/// Evidence that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptEvidence {
    /// Its file.
    pub path: PathBuf,
    /// The evidence. Whom it convicts, if anybody, is not checked.
    pub evidence: Evidence,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    version: u32,
    accepted_at_ms: u64,
    checkpoint: String,
}

fn checkpoint_path(data_dir: &Path, log: &AccountId) -> PathBuf {
    data_dir.join("witness").join(format!("{log}.json"))
}

/// The checkpoint that is kept of the log of these keys. `None` where there is none, or none of this log.
///
/// # Errors
/// The system's, where a file can't be read.
pub fn kept_checkpoint(data_dir: &Path, keys: &LogKeys) -> io::Result<Option<KeptCheckpoint>> {
    let path = checkpoint_path(data_dir, keys.first());
    let Some(bytes) = private_file::read(&path, CHECKPOINT_FILE_MAX_BYTES)? else {
        return Ok(None);
    };
    let read = || -> Result<KeptCheckpoint, String> {
        let content: Content = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
        if content.version != VERSION {
            return Err(format!("it is of version {}", content.version));
        }
        let note = content
            .checkpoint
            .parse()
            .map_err(|error: gristmill_protocol::log::note::NoteError| error.to_string())?;
        let checkpoint = SignedCheckpoint::open(note, keys).map_err(|error| error.to_string())?;
        let accepted_at_ms = content.accepted_at_ms;
        Ok(KeptCheckpoint {
            checkpoint,
            accepted_at_ms,
        })
    };
    match read() {
        Ok(kept) => Ok(Some(kept)),
        Err(reason) => {
            let path = path.display();
            tracing::warn!(%path, reason, "the checkpoint kept of the log can't be used; watching begins anew");
            Ok(None)
        }
    }
}

/// Keeps a checkpoint in place of the one before, durably.
pub(super) fn keep_checkpoint(data_dir: &Path, log: &AccountId, kept: &KeptCheckpoint) -> io::Result<()> {
    let content = Content {
        version: VERSION,
        accepted_at_ms: kept.accepted_at_ms,
        checkpoint: kept.checkpoint.note().to_string(),
    };
    let json = serde_json::to_vec_pretty(&content)?;
    private_file::write(&checkpoint_path(data_dir, log), &json)
}

/// What names a piece of evidence: SHA-256 over its binary form, in hexadecimal digits.
#[must_use]
pub fn evidence_digest(evidence: &Evidence) -> String {
    hex::encode(Sha256::digest(evidence.encode()))
}

/// Keeps evidence, durably. Where it is kept already, nothing changes.
pub(super) fn keep_evidence(data_dir: &Path, evidence: &Evidence) -> io::Result<PathBuf> {
    let folder = evidence_directory(data_dir);
    let path = folder.join(format!("{}.json", evidence_digest(evidence)));
    if path.exists() {
        return Ok(path);
    }
    if evidence_files(&folder)?.len() >= EVIDENCE_FILES_MAX {
        let reason = format!("{} has {EVIDENCE_FILES_MAX} files already", folder.display());
        return Err(io::Error::new(io::ErrorKind::QuotaExceeded, reason));
    }
    private_file::write(&path, &serde_json::to_vec_pretty(evidence)?)?;
    Ok(path)
}

/// All evidence that is kept. Files that are none are passed over, with a warning.
///
/// # Errors
/// The system's, where the folder can't be read.
pub fn kept_evidence(data_dir: &Path) -> io::Result<Vec<KeptEvidence>> {
    let mut kept = Vec::new();
    for path in evidence_files(&evidence_directory(data_dir))? {
        let read = private_file::read(&path, EVIDENCE_JSON_MAX_BYTES)
            .map_err(|error| error.to_string())
            .and_then(|bytes| {
                Evidence::from_json(&bytes.unwrap_or_default()).map_err(|error| error.to_string())
            });
        match read {
            Ok(evidence) => kept.push(KeptEvidence { path, evidence }),
            Err(reason) => tracing::warn!(path = %path.display(), reason, "a file of evidence is none"),
        }
    }
    Ok(kept)
}

fn evidence_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_protocol::identity::Keypair;
    use gristmill_protocol::log::checkpoint::{Checkpoint, origin_of};
    use gristmill_protocol::log::hash::leaf_hash;

    fn keys(byte: u8) -> LogKeys {
        LogKeys::new(Keypair::from_secret(&[byte; 32]).account())
    }

    fn signed(log: u8, size: u64, root: &[u8]) -> SignedCheckpoint {
        let keypair = Keypair::from_secret(&[log; 32]);
        let checkpoint = Checkpoint::new(&origin_of(&keypair.account()), size, leaf_hash(root));
        SignedCheckpoint::sign(&checkpoint, &keypair).unwrap()
    }

    #[test]
    fn checkpoints_are_kept_by_log_and_found_again() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(kept_checkpoint(folder.path(), &keys(1)).unwrap(), None);
        for log in [1, 2] {
            for size in [5, 6] {
                let kept = KeptCheckpoint {
                    checkpoint: signed(log, size, b"root"),
                    accepted_at_ms: size,
                };
                keep_checkpoint(folder.path(), keys(log).first(), &kept).unwrap();
                assert_eq!(kept_checkpoint(folder.path(), &keys(log)).unwrap(), Some(kept));
            }
        }
        // A file that was changed, or of another log, is none.
        let (one, two) = (keys(1), keys(2));
        std::fs::copy(
            checkpoint_path(folder.path(), two.first()),
            checkpoint_path(folder.path(), one.first()),
        )
        .unwrap();
        assert_eq!(kept_checkpoint(folder.path(), &one).unwrap(), None);
        std::fs::write(checkpoint_path(folder.path(), one.first()), "{").unwrap();
        assert_eq!(kept_checkpoint(folder.path(), &one).unwrap(), None);
    }

    #[test]
    fn evidence_is_kept_once_and_only_so_much_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let evidence =
            |root: &[u8]| Evidence::two_roots(&keys(1), &signed(1, 5, b"one"), &signed(1, 5, root));
        assert!(kept_evidence(folder.path()).unwrap().is_empty());
        let path = keep_evidence(folder.path(), &evidence(b"two")).unwrap();
        assert_eq!(keep_evidence(folder.path(), &evidence(b"two")).unwrap(), path);
        std::fs::write(evidence_directory(folder.path()).join("x.json"), "nothing").unwrap();
        let kept = kept_evidence(folder.path()).unwrap();
        assert_eq!(
            kept,
            [KeptEvidence {
                path,
                evidence: evidence(b"two")
            }]
        );
        for number in 2..EVIDENCE_FILES_MAX {
            keep_evidence(folder.path(), &evidence(&number.to_le_bytes())).unwrap();
        }
        assert!(keep_evidence(folder.path(), &evidence(b"one more")).is_err());
        assert!(keep_evidence(folder.path(), &evidence(b"two")).is_ok());
    }
}
