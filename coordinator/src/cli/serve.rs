//! `gristmill coordinator serve`.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use gristmill_service::cli::{Signals, plain, run_to_end, wrong_configuration};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::server::{Coordinator, RunningCoordinator, StartError};
use crate::settings::{FileSection, ServeArguments, Settings};

pub(super) async fn serve(
    arguments: ServeArguments,
    file: FileSection,
    data_dir: &Path,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let settings = match Settings::resolve(arguments, file) {
        Ok(settings) => settings,
        Err(error) => return wrong_configuration(&error),
    };
    let shutdown = CancellationToken::new();
    // Signals are caught before anything is opened, so that none comes in between.
    let mut signals = Signals::catch().context("signals can't be caught")?;
    let running = match Coordinator::start(settings.clone(), data_dir, shutdown.clone()).await {
        Ok(running) => running,
        Err(error @ (StartError::Settings(_) | StartError::Address { .. })) => {
            return wrong_configuration(&error);
        }
        Err(error) => return Err(error.into()),
    };
    announce(&running, &settings, json)?;
    let notice = "Stopping; once more to stop at once.";
    run_to_end(running.wait(), &mut signals, &shutdown, notice).await
}

/// Says where everything is: people on stderr, programs on stdout.
fn announce(running: &RunningCoordinator, settings: &Settings, json: bool) -> io::Result<()> {
    let (url, bootstrap) = (running.http_url(), running.bootstrap_addresses());
    let ledger = running.ledger_place();
    if json {
        let line = json!({
            "account": running.account(), "http": url, "bootstrap": bootstrap, "ledger": ledger,
        });
        return writeln!(io::stdout(), "{line}");
    }
    let mut stderr = io::stderr().lock();
    writeln!(stderr, "Coordinator of the network '{}'", settings.name)?;
    writeln!(stderr, "  address    {url}")?;
    writeln!(stderr, "  account    {}", running.account())?;
    for address in &bootstrap {
        writeln!(stderr, "  bootstrap  {address}")?;
    }
    writeln!(stderr, "  ledger     {ledger}")?;
    writeln!(
        stderr,
        "  fee        {}.{:02} %",
        settings.fee_basis_points / 100,
        settings.fee_basis_points % 100
    )?;
    if !settings.starter_grant.is_zero() {
        let (grant, budget) = (
            plain(settings.starter_grant),
            plain(settings.starter_daily_budget),
        );
        writeln!(
            stderr,
            "  starters   {grant} credits each, at most {budget} a day"
        )?;
    }
    if !settings.http_listen.ip().is_loopback() {
        writeln!(
            stderr,
            "The address is open to others: put a proxy with TLS in front of it."
        )?;
    }
    writeln!(stderr, "Stop with Ctrl-C.")
}
