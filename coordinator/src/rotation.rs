//! Handing the signing key over to a new one, so that whatever interrupts it, one key signs and nothing is lost.
//!
//! ```text
//! step      signing.key   signing.key.next   who signs by the ledger
//! before    old           -                  old
//! prepare   old           new                old     a start goes on with the old key
//! hand over old           new                new     a start swaps the files and goes on with the new key
//! swap      new           -                  new
//! ```
//!
//! The ledger decides: the hand-over is an entry of it, signed by both keys, and each start compares. The old
//! secret key is gone after the swap; its public key stays in the ledger for whoever checks what it signed.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use gristmill_ledger::Ledger;
use gristmill_ledger::entry::Entry;
use gristmill_ledger::store::PostError;
use gristmill_protocol::handover::{KeyHandover, SignedHandover};
use gristmill_protocol::identity::{AccountId, Keypair};
use gristmill_transport::key_file::{self, KeyFileError};
use serde::Serialize;
use thiserror::Error;

use crate::signers::{Signers, SignersError};

/// What a hand-over did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Rotation {
    /// The first key, which names the log for ever.
    pub log: AccountId,
    /// The key that signed until now.
    pub old: AccountId,
    /// The key that signs from now on.
    pub new: AccountId,
    /// The record of the hand-over.
    pub sequence: u64,
}

/// Why the signing key is not handed over, or its file is not in its place.
#[derive(Debug, Error)]
pub enum RotationError {
    /// There is no key to hand over.
    #[error("there is no signing key at {path}; run this where the coordinator has run", path = .0.display())]
    NoKey(PathBuf),
    /// A key file can't be used.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// The key is not the one that signs.
    #[error(transparent)]
    Signers(#[from] SignersError),
    /// The ledger does not take the hand-over.
    #[error(
        "the ledger does not take the hand-over: {0}. The old key signs on; give the same command again to try again"
    )]
    Post(#[from] PostError),
    /// The new key's file can't be put in its place.
    #[error(
        "the new key signs by the ledger, but {from} can't be renamed to {to}: {source}. Rename it yourself, or start \
         the coordinator, which tries again",
        from = from.display(), to = to.display()
    )]
    Swap {
        /// The new key.
        from: PathBuf,
        /// Where it belongs.
        to: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The key files of a hand-over.
#[derive(Clone, Debug)]
pub struct KeyFiles {
    signing: PathBuf,
    next: PathBuf,
}

impl KeyFiles {
    /// The files beside this signing key.
    #[must_use]
    pub fn of(signing_key: &Path) -> Self {
        Self {
            signing: signing_key.to_owned(),
            next: signing_key.with_extension("key.next"),
        }
    }

    /// Hands the signing key over to a new one. Interrupted anywhere, it can be given again.
    ///
    /// # Errors
    /// [`RotationError`], which says who signs then.
    pub async fn rotate(&self, ledger: &Ledger, now_ms: u64) -> Result<Rotation, RotationError> {
        self.finish(Signers::read(ledger).await?.map(|signers| signers.now()))?;
        let old = key_file::load(&self.signing)?.ok_or_else(|| RotationError::NoKey(self.signing.clone()))?;
        let new = self.prepare()?;
        let rotation = self.hand_over(ledger, &old, &new, now_ms).await?;
        self.swap()?;
        Ok(rotation)
    }

    /// Makes the new key, or finds the one that was made before.
    ///
    /// # Errors
    /// [`KeyFileError`]
    pub fn prepare(&self) -> Result<Keypair, KeyFileError> {
        key_file::load_or_create(&self.next)
    }

    /// Writes the hand-over into the ledger. From then on the new key signs.
    ///
    /// # Errors
    /// [`RotationError`]; the old key signs on then.
    pub async fn hand_over(
        &self,
        ledger: &Ledger,
        old: &Keypair,
        new: &Keypair,
        now_ms: u64,
    ) -> Result<Rotation, RotationError> {
        let signers = Signers::read(ledger).await?;
        let signers = signers.unwrap_or_else(|| Signers::first(old.account()));
        signers.check(old.account())?;
        let agreed = KeyHandover {
            log: signers.log(),
            old: old.account(),
            new: new.account(),
            agreed_at_ms: now_ms,
        };
        let handover = SignedHandover {
            by_old: old.sign(agreed),
            by_new: new.sign(agreed),
        };
        let posted = ledger.post(Entry::RotateKey(Box::new(handover)), now_ms).await?;
        Ok(Rotation {
            log: agreed.log,
            old: agreed.old,
            new: agreed.new,
            sequence: posted.sequence,
        })
    }

    /// Finishes a hand-over that was interrupted after the ledger had taken it. `signer` is who signs by the ledger.
    ///
    /// # Errors
    /// [`RotationError`]
    pub fn finish(&self, signer: Option<AccountId>) -> Result<(), RotationError> {
        let Some(next) = key_file::load(&self.next)? else {
            return Ok(());
        };
        if signer == Some(next.account()) {
            tracing::info!(new = %next.account(), "the hand-over of the signing key was interrupted; finishing it");
            return self.swap();
        }
        tracing::warn!(
            file = %self.next.display(),
            "a new signing key was prepared, but the ledger has no hand-over to it; 'gristmill coordinator \
             rotate-key' goes on with it, or remove the file"
        );
        Ok(())
    }

    /// Puts the new key in its place. The old secret key is gone then.
    ///
    /// # Errors
    /// [`RotationError::Swap`]
    pub fn swap(&self) -> Result<(), RotationError> {
        fs::rename(&self.next, &self.signing)
            .and_then(|()| sync_folder(&self.signing))
            .map_err(|source| RotationError::Swap {
                from: self.next.clone(),
                to: self.signing.clone(),
                source,
            })
    }
}

/// Makes the names in a file's folder durable.
fn sync_folder(file: &Path) -> io::Result<()> {
    if cfg!(not(unix)) {
        return Ok(());
    }
    File::open(file.parent().unwrap_or(Path::new(".")))?.sync_all()
}
