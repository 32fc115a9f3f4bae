//! `gristmill coordinator serve`.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::plain;
use crate::server::{Coordinator, RunningCoordinator, StartError};
use crate::settings::{FileSection, ServeArguments, Settings};

/// The exit code for a configuration that makes no sense.
const WRONG_CONFIGURATION: u8 = 3;
/// The exit code of a program that was interrupted (128 and the number of SIGINT).
const INTERRUPTED: u8 = 130;

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
    let ended = running.wait();
    tokio::pin!(ended);
    tokio::select! {
        ended = &mut ended => ended?,
        () = signals.next() => {
            writeln!(io::stderr(), "Stopping; once more to stop at once.")?;
            shutdown.cancel();
            tokio::select! {
                ended = &mut ended => ended?,
                () = signals.next() => return Ok(ExitCode::from(INTERRUPTED)),
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn wrong_configuration(error: &dyn std::error::Error) -> anyhow::Result<ExitCode> {
    writeln!(io::stderr(), "gristmill: {error}")?;
    Ok(ExitCode::from(WRONG_CONFIGURATION))
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

/// What tells the program to end.
struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn catch() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(not(unix))]
impl Signals {
    fn catch() -> io::Result<Self> {
        Ok(Self {})
    }

    async fn next(&mut self) {
        // Where Ctrl-C can't be caught the system ends the program by itself.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
    }
}
