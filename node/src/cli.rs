//! `gristmill node`: serve, earnings, doctor, models, status, witness.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Subcommand;
use gristmill_protocol::listing::Offer;
use gristmill_protocol::usage::Unit;
use gristmill_service::cli::{INTERRUPTED, Signals, plain, run_to_end, witness, wrong_configuration};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::daemon::{Node, RunningNode, StartError};
use crate::settings::{FileSection, ServeArguments, Settings};

mod doctor;
mod earnings;
mod models;
mod status;

pub use earnings::EarningsArguments;
pub use status::StatusArguments;

/// What an owner does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve jobs with this machine, until Ctrl-C
    #[command(after_help = "Examples:\n  gristmill node serve\n  \
                            gristmill node serve --upstream http://127.0.0.1:11434 --price-output 0.3\n  \
                            gristmill node serve --model Qwen/Qwen2.5-0.5B-Instruct --slots 1")]
    Serve(Box<ServeArguments>),
    /// Show what was earned, whether or not the node runs
    #[command(
        after_help = "Examples:\n  gristmill node earnings\n  gristmill node earnings --by channel\n  \
                            gristmill node earnings --receipts --json"
    )]
    Earnings(EarningsArguments),
    /// Say line by line whether this machine is fit to serve with the same flags as 'serve', what is not, and how to
    /// mend it
    ///
    /// Exit codes: 0 fit; 1 something is unfit; 2 nothing is, but something could not be told, or wrong usage.
    #[command(
        after_help = "Examples:\n  gristmill node doctor\n  gristmill node doctor --coordinator \
                            https://coordinator.example.org --upstream http://127.0.0.1:8000\n  \
                            gristmill node doctor --json"
    )]
    Doctor(Box<ServeArguments>),
    /// Show what 'serve' would offer with the same flags, without serving
    #[command(after_help = "Example:\n  gristmill node models --upstream http://127.0.0.1:11434")]
    Models(Box<ServeArguments>),
    /// Show how a running node stands: coordinator, jobs, offers, and which hardware is verified
    #[command(after_help = "Examples:\n  gristmill node status\n  gristmill node status --json")]
    Status(StatusArguments),
    /// Show what this node found out about its coordinator's log, whether or not the node runs; exit code 1 where it
    /// was caught lying
    #[command(after_help = "Examples:\n  gristmill node witness\n  gristmill node witness --json")]
    Witness,
}

/// Runs a command with the `[node]` section of the configuration file and the installation's data directory.
///
/// # Errors
/// Whatever is in the way, for people to read.
pub async fn run(
    command: Command,
    file: FileSection,
    data_dir: &Path,
    json: bool,
) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve(arguments) => Box::pin(serve(*arguments, file, data_dir, json)).await,
        Command::Earnings(arguments) => earnings::show(arguments, data_dir, json, &mut io::stdout()),
        Command::Doctor(arguments) => Box::pin(doctor::show(*arguments, file, data_dir, json)).await,
        Command::Models(arguments) => Box::pin(models::show(*arguments, file, json)).await,
        Command::Status(arguments) => status::show(arguments, file, json, &mut io::stdout()).await,
        Command::Witness => witness::show("node", data_dir, json, &mut io::stdout()),
    }
}

async fn serve(
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
    let started = Node::start(settings.clone(), data_dir, Vec::new(), shutdown.clone());
    let started = tokio::select! {
        started = started => started,
        () = signals.next() => return Ok(ExitCode::from(INTERRUPTED)),
    };
    let mut running = match started {
        Ok(running) => running,
        Err(error @ (StartError::Settings(_) | StartError::Coordinator(_) | StartError::Upstream(_))) => {
            return wrong_configuration(&error);
        }
        Err(error) => return Err(error.into()),
    };
    announce(&running, &settings, json)?;
    let notice = "Stopping after the running jobs; once more to stop at once.";
    run_to_end(running.wait(), &mut signals, &shutdown, notice).await
}

/// Says what is on offer and where: people on stderr, programs on stdout.
fn announce(running: &RunningNode, settings: &Settings, json: bool) -> io::Result<()> {
    let addresses: Vec<_> = running
        .mesh()
        .listen_addresses()
        .iter()
        .map(ToString::to_string)
        .collect();
    let local_api = running
        .local_api_address()
        .map(|address| format!("http://{address}"));
    let offers = running.offers();
    if json {
        let line = json!({
            "account": running.account(), "coordinator": settings.coordinator, "mesh": addresses,
            "local_api": local_api, "offers": offers,
        });
        return writeln!(io::stdout(), "{line}");
    }
    let mut stderr = io::stderr().lock();
    writeln!(stderr, "Node {}", running.account())?;
    writeln!(stderr, "  coordinator  {}", settings.coordinator)?;
    for address in &addresses {
        writeln!(stderr, "  mesh         {address}")?;
    }
    if let Some(local_api) = &local_api {
        writeln!(stderr, "  status       {local_api}/v1/status")?;
    }
    if offers.is_empty() {
        writeln!(
            stderr,
            "  offers       nothing yet; upstreams are looked for every 30 seconds"
        )?;
    }
    for offer in &offers {
        writeln!(stderr, "  offers       {}", describe(offer))?;
    }
    let nowhere_else =
        addresses.iter().all(|address| is_loopback(address)) && settings.public_addresses.is_empty();
    if nowhere_else
        && !settings.coordinator.contains("127.0.0.1")
        && !settings.coordinator.contains("localhost")
    {
        writeln!(
            stderr,
            "Only this machine can reach the node: listen elsewhere with --mesh-listen."
        )?;
    }
    writeln!(stderr, "Earnings: gristmill node earnings. Stop with Ctrl-C.")
}

fn is_loopback(multiaddress: &str) -> bool {
    multiaddress.starts_with("/ip4/127.") || multiaddress.starts_with("/ip6/::1/")
}

fn describe(offer: &Offer) -> String {
    let coefficient = |unit| plain(offer.price.coefficient(unit));
    let (input, output) = (coefficient(Unit::InputToken), coefficient(Unit::OutputToken));
    format!(
        "{} ({}) at {input} in, {output} out per million tokens",
        offer.model, offer.kind
    )
}
