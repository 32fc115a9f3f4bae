//! `gristmill coordinator backup` and `restore`.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use gristmill_ledger::backup;
use gristmill_ledger::statement::time_text;
use gristmill_protocol::log::note::NOTE_MAX_BYTES;
use serde_json::json;

use super::{blocking, print_facts};
use crate::clock::Clock;
use crate::server::{ledger_directory, signing_key_path};
use crate::settings::{FileSection, StoreArguments, StoreSetting};

/// How long the checkpoint of a coordinator is waited for.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

/// The arguments of `gristmill coordinator backup`.
#[derive(Debug, Args)]
pub struct BackupArguments {
    /// The folder for the backup: a new or empty one, or that of an earlier backup of the same ledger
    directory: PathBuf,
    /// Copy the secret signing key too. Whoever has it can sign in the coordinator's name: keep such a backup as you
    /// would keep the key
    #[arg(long)]
    include_key: bool,
}

/// The arguments of `gristmill coordinator restore`.
#[derive(Debug, Args)]
pub struct RestoreArguments {
    /// The folder with the backup
    directory: PathBuf,
    /// The newest checkpoint that the coordinator has published: a file with the signed note, or the URL of a
    /// coordinator or mirror that shows it at /log/checkpoint
    #[arg(long, value_name = "FILE|URL")]
    checkpoint: Option<String>,
}

pub(super) async fn back_up(
    arguments: BackupArguments,
    file: &FileSection,
    data_dir: &Path,
    json: bool,
) -> anyhow::Result<ExitCode> {
    if let StoreSetting::Postgres(url) = StoreArguments::from_environment().resolve(file.store.clone())? {
        bail!(
            "the ledger is in {url}: back it up with pg_dump or by archiving its write-ahead log, and check the copy \
             with 'gristmill coordinator verify --store URL'"
        );
    }
    let (ledger, key) = (ledger_directory(data_dir), signing_key_path(data_dir));
    let BackupArguments {
        directory,
        include_key,
    } = arguments;
    let now_ms = Clock::system().now_ms();
    let report = blocking(move || {
        let key = include_key.then_some(key.as_path());
        Ok(backup::back_up(&ledger, &directory, key, now_ms)?)
    })
    .await?;
    if json {
        writeln!(io::stdout(), "{}", serde_json::to_string(&report)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let new = report.records - report.records_before;
    let checkpoint = report
        .checkpoint_size
        .map_or("none yet".to_owned(), |size| format!("{size} records"));
    let mut facts = vec![
        ("backup", report.directory.display().to_string()),
        (
            "records",
            format!(
                "{}, of which {new} are new, read back and verified",
                report.records
            ),
        ),
        ("checkpoint", checkpoint),
        ("root", report.root.to_string()),
        ("written", format!("{} bytes", report.bytes_written)),
    ];
    if report.records_left_out > 0 {
        let left_out = report.records_left_out;
        facts.push((
            "left out",
            format!("{left_out} records on their way to the disk; the next backup takes them"),
        ));
    }
    facts.push((
        "signing key",
        match report.key_included {
            true => "included: keep this backup as you would keep the key".to_owned(),
            false => format!(
                "NOT included; keep a copy of {} apart, or give --include-key",
                signing_key_path(data_dir).display()
            ),
        },
    ));
    print_facts(&facts)?;
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn restore(
    arguments: RestoreArguments,
    data_dir: &Path,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let RestoreArguments {
        directory,
        checkpoint,
    } = arguments;
    let note = match &checkpoint {
        Some(place) => Some(checkpoint_note(place).await?),
        None => None,
    };
    let (ledger, key) = (ledger_directory(data_dir), signing_key_path(data_dir));
    let key_file = key.clone();
    let (restored, key_restored) = blocking(move || {
        let restored = backup::restore(&directory, &ledger, note.as_deref())?;
        let key_restored = backup::restore_key(&directory, &key_file)?;
        Ok((restored, key_restored))
    })
    .await?;
    if json {
        let line = json!({ "restored": restored, "key_restored": key_restored });
        writeln!(io::stdout(), "{line}")?;
    } else {
        let key = match (key_restored, key.exists()) {
            (true, _) => "restored".to_owned(),
            (false, true) => format!("{} was there and is kept", key.display()),
            (false, false) => format!("NOT in the backup: put it at {} with mode 0600", key.display()),
        };
        let against = restored.checked_against.map_or_else(
            || "NOT held against a published checkpoint".to_owned(),
            |size| format!("holds everything of the published checkpoint of {size} records"),
        );
        print_facts(&[
            ("ledger", restored.ledger.display().to_string()),
            (
                "records",
                format!(
                    "{}, the last of {}",
                    restored.records,
                    time_text(restored.last_time_ms)
                ),
            ),
            ("root", restored.root.to_string()),
            (
                "audit",
                "clean: every record, signature and balance holds".to_owned(),
            ),
            ("checkpoint", against),
            ("signing key", key),
        ])?;
    }
    if checkpoint.is_none() {
        writeln!(
            io::stderr(),
            "Before you start it: make sure that no newer backup or disk exists. If the coordinator published more than \
             {} records, do not start it; the nodes and clients that saw them would catch it signing another history. \
             'gristmill coordinator restore --checkpoint' checks that.",
            restored.records
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The signed note of a checkpoint from a file, or from where a coordinator or mirror shows it.
async fn checkpoint_note(place: &str) -> anyhow::Result<String> {
    if !place.starts_with("http://") && !place.starts_with("https://") {
        return std::fs::read_to_string(place).with_context(|| format!("cannot read the checkpoint {place}"));
    }
    let base = place.trim_end_matches('/').trim_end_matches("/log/checkpoint");
    let url = format!("{base}/log/checkpoint");
    let http = reqwest::Client::builder()
        .timeout(FETCH_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .build()?;
    let mut response = http
        .get(&url)
        .send()
        .await
        .with_context(|| format!("{url} cannot be reached"))?;
    if !response.status().is_success() {
        bail!(
            "{url} answered with status {}; it shows no checkpoint",
            response.status()
        );
    }
    let mut note = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        note.extend_from_slice(&chunk);
        if note.len() > NOTE_MAX_BYTES {
            bail!("the answer of {url} is longer than any checkpoint");
        }
    }
    String::from_utf8(note).with_context(|| format!("the answer of {url} is no checkpoint"))
}
