//! Opening what a coordinator works with: its ledger, and the key that signs for it.

use std::path::Path;

use gristmill_ledger::Ledger;
use gristmill_ledger::store::{EmbeddedOptions, PostgresOptions, PostgresStore};
use gristmill_protocol::identity::Keypair;
use gristmill_transport::key_file;

use super::{StartError, ledger_directory, signing_key_path};
use crate::rotation::KeyFiles;
use crate::settings::{SettingsError, StoreSetting};
use crate::signers::Signers;

/// Opens the ledger of a coordinator whose state is in `data_directory`. A ledger in a folder is locked for this
/// process then.
///
/// # Errors
/// [`StartError`]
pub async fn open_ledger(store: &StoreSetting, data_directory: &Path) -> Result<Ledger, StartError> {
    match store {
        StoreSetting::Embedded => {
            let directory = ledger_directory(data_directory);
            let place = directory.clone();
            blocking(move || Ledger::open(&place, &EmbeddedOptions::default()))
                .await
                .map_err(|source| StartError::Ledger {
                    directory,
                    source: Box::new(source),
                })
        }
        StoreSetting::Postgres(url) => {
            let address = url
                .address()
                .map_err(|error| SettingsError::Store(error.into()))?;
            let store = PostgresStore::connect(&PostgresOptions::new(address)).await;
            Ok(Ledger::over(store.map_err(Box::new)?))
        }
    }
}

/// The key that signs for a ledger, and who did before. A new ledger gets a new key; one that is signed for already
/// never does.
///
/// # Errors
/// [`StartError`]
pub(super) async fn open_key(
    ledger: &Ledger,
    data_directory: &Path,
) -> Result<(Keypair, Signers), StartError> {
    let path = signing_key_path(data_directory);
    let files = KeyFiles::of(&path);
    let signers = Signers::read(ledger).await?;
    let signer = signers.as_ref().map(Signers::now);
    let loaded = blocking(move || {
        files.finish(signer)?;
        Ok::<_, StartError>(match signer {
            Some(_) => key_file::load(&path)?,
            None => Some(key_file::load_or_create(&path)?),
        })
    })
    .await?;
    let Some(keypair) = loaded else {
        return Err(StartError::NoKey {
            path: signing_key_path(data_directory),
            signer: signer.map(|signer| signer.to_string()).unwrap_or_default(),
        });
    };
    let signers = signers.unwrap_or_else(|| Signers::first(keypair.account()));
    signers.check(keypair.account())?;
    Ok((keypair, signers))
}

/// Runs what blocks on a thread where it may. A panic there goes on here.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Blocking tasks are only cancelled with the runtime, which this one runs on.
            Err(_) => std::future::pending().await,
        },
    }
}
