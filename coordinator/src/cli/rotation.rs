//! `gristmill coordinator rotate-key`.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;

use super::print_facts;
use crate::clock::Clock;
use crate::rotation::KeyFiles;
use crate::server::{StartError, open_ledger, signing_key_path};
use crate::settings::{FileSection, StoreArguments, StoreSetting};

/// The arguments of `gristmill coordinator rotate-key`.
#[derive(Debug, Args)]
pub struct RotateKeyArguments {
    #[command(flatten)]
    store: StoreArguments,
}

pub(super) async fn rotate_key(
    arguments: RotateKeyArguments,
    file: FileSection,
    data_dir: &Path,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let store = arguments.store.resolve(file.store)?;
    let opened = open_ledger(&store, data_dir).await;
    if let Err(StartError::Ledger { .. }) = &opened {
        opened.context("the signing key is handed over while no coordinator runs; stop it first")?;
        return Ok(ExitCode::FAILURE);
    }
    let ledger = opened?;
    let path = signing_key_path(data_dir);
    let rotated = KeyFiles::of(&path)
        .rotate(&ledger, Clock::system().now_ms())
        .await;
    ledger.shutdown().await?;
    let rotation = rotated?;
    if json {
        writeln!(io::stdout(), "{}", serde_json::to_string(&rotation)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut facts = vec![
        ("log", rotation.log.to_string()),
        ("old key", format!("{} (its secret is gone)", rotation.old)),
        ("new key", rotation.new.to_string()),
        ("record", rotation.sequence.to_string()),
        ("key file", path.display().to_string()),
    ];
    if let StoreSetting::Postgres(_) = store {
        facts.push((
            "other processes",
            "copy the key file to each of them with mode 0600, and start them again".to_owned(),
        ));
    }
    print_facts(&facts)?;
    writeln!(
        io::stderr(),
        "Start the coordinator again; nodes and clients follow the hand-over. Take a backup that has the new key."
    )?;
    Ok(ExitCode::SUCCESS)
}
