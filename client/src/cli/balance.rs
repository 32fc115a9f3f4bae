//! `gristmill client balance`: what the account has.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::bail;
use gristmill_service::cli::{align_right, plain, table};
use gristmill_service::clock::unix_ms;
use gristmill_service::installation::identity_path;
use gristmill_transport::{CoordinatorClient, key_file};

use crate::settings::Settings;

pub(super) async fn show(settings: &Settings, data_dir: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let path = identity_path(data_dir);
    let Some(keypair) = key_file::load(&path)? else {
        bail!(
            "there is no key at {}, so there is no account yet; 'gristmill client serve' makes one, or name the \
             folder with --data-dir",
            path.display()
        );
    };
    let client = CoordinatorClient::new(&settings.coordinator, None, keypair, Arc::new(unix_ms))?;
    let view = client.account_view().await?;
    if json {
        writeln!(io::stdout(), "{}", serde_json::to_string(&view)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = table(&["ACCOUNT", "AVAILABLE", "HELD"]);
    table.add_row([view.account.to_string(), plain(view.available), plain(view.held)]);
    align_right(&mut table, &[1, 2]);
    writeln!(io::stdout(), "{}", table.trim_fmt())?;
    writeln!(
        io::stderr(),
        "What open channels hold and is not spent comes back when they end."
    )?;
    Ok(ExitCode::SUCCESS)
}
