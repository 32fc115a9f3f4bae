//! `gristmill coordinator`: serve, grant, balance.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use gristmill_protocol::coordinator_api::{AccountView, GrantRequest};
use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::{AccountId, Keypair};
use gristmill_protocol::ids::GrantId;
use gristmill_transport::coordinator_client::CoordinatorClient;
use gristmill_transport::key_file;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::server::{Coordinator, RunningCoordinator, StartError, signing_key_path};
use crate::settings::{FileSection, HTTP_PORT, ServeArguments, Settings};

mod operator;

/// The exit code for a configuration that makes no sense.
const WRONG_CONFIGURATION: u8 = 3;
/// The exit code of a program that was interrupted (128 and the number of SIGINT).
const INTERRUPTED: u8 = 130;

/// What an operator does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Settle credits for a network, until Ctrl-C
    #[command(
        after_help = "Example:\n  gristmill coordinator serve --starter-grant 2.5 --starter-daily-budget 500"
    )]
    Serve(ServeArguments),
    /// Issue credits to an account, through the running coordinator
    #[command(
        after_help = "Example:\n  gristmill coordinator grant 12D3KooW… 25 --reason 'thanks for the GPU'\n\n\
                            Giving the printed --id again with the same account, amount and reason does nothing \
                            more, so a grant whose answer got lost can safely be repeated."
    )]
    Grant(GrantArguments),
    /// Show what an account has, as the running coordinator knows it
    #[command(after_help = "Example:\n  gristmill coordinator balance 12D3KooW…")]
    Balance(BalanceArguments),
}

/// The arguments of `gristmill coordinator grant`.
#[derive(Debug, Args)]
pub struct GrantArguments {
    /// Who is given
    account: AccountId,
    /// How many credits, such as 25 or 0.5
    amount: Credits,
    /// Why, for the journal
    #[arg(long, default_value = "")]
    reason: String,
    /// The name of the grant, to repeat one [default: drawn at random and printed]
    #[arg(long, value_name = "32 HEX DIGITS")]
    id: Option<GrantId>,
    #[command(flatten)]
    place: CoordinatorPlace,
}

/// The arguments of `gristmill coordinator balance`.
#[derive(Debug, Args)]
pub struct BalanceArguments {
    /// Whose [default: the coordinator's own]
    account: Option<AccountId>,
    #[command(flatten)]
    place: CoordinatorPlace,
}

/// Where the running coordinator is.
#[derive(Debug, Args)]
struct CoordinatorPlace {
    /// The running coordinator [default: the configured http_listen, or http://127.0.0.1:7400]
    #[arg(long = "coordinator", env = "GRISTMILL_COORDINATOR_URL", value_name = "URL")]
    url: Option<String>,
}

impl CoordinatorPlace {
    fn url(&self, file: &FileSection) -> String {
        self.url.clone().unwrap_or_else(|| configured_url(file))
    }
}

/// Does what an operator asks for. State is in `data_dir`.
///
/// # Errors
/// What is in the way, for people.
pub async fn run(
    command: Command,
    file: FileSection,
    data_dir: &Path,
    json: bool,
) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve(arguments) => serve(arguments, file, data_dir, json).await,
        Command::Grant(arguments) => grant(arguments, &file, data_dir, json).await,
        Command::Balance(arguments) => balance(arguments, &file, data_dir, json).await,
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

fn wrong_configuration(error: &dyn std::error::Error) -> anyhow::Result<ExitCode> {
    writeln!(io::stderr(), "gristmill: {error}")?;
    Ok(ExitCode::from(WRONG_CONFIGURATION))
}

/// Says where everything is: people on stderr, programs on stdout.
fn announce(running: &RunningCoordinator, settings: &Settings, json: bool) -> io::Result<()> {
    let (url, bootstrap) = (running.http_url(), running.bootstrap_addresses());
    let ledger = running.ledger_directory().display().to_string();
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

async fn grant(
    arguments: GrantArguments,
    file: &FileSection,
    data_dir: &Path,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let GrantArguments {
        account,
        amount,
        reason,
        id,
        place,
    } = arguments;
    let client = operator_client(&place, file, data_dir)?;
    let grant = id.map_or_else(random_grant_id, Ok)?;
    let request = GrantRequest {
        grant,
        account,
        amount,
        reason,
    };
    let view = client.grant(&request).await.with_context(|| {
        format!("grant {grant} is not confirmed; to repeat it safely, add --id {grant} to the same command")
    })?;
    if json {
        let line = json!({
            "grant": grant, "account": account, "amount": amount, "available": view.available, "held": view.held,
        });
        writeln!(io::stdout(), "{line}")?;
    } else {
        writeln!(
            io::stdout(),
            "Granted {} credits to {account} (grant {grant}).",
            plain(amount)
        )?;
        print_account(&view)?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn balance(
    arguments: BalanceArguments,
    file: &FileSection,
    data_dir: &Path,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let BalanceArguments { account, place } = arguments;
    let keypair = operator_key(data_dir)?;
    let account = account.unwrap_or_else(|| keypair.account());
    let view = operator::account_view(&place.url(file), &keypair, account).await?;
    if json {
        writeln!(io::stdout(), "{}", serde_json::to_string(&view)?)?;
    } else {
        print_account(&view)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn print_account(view: &AccountView) -> io::Result<()> {
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    if !io::stdout().is_terminal() {
        table.force_no_tty();
    }
    table.set_header(["ACCOUNT", "AVAILABLE", "HELD", "STARTER GRANT"]);
    let starter = if view.starter_granted { "given" } else { "-" };
    table.add_row([
        view.account.to_string(),
        plain(view.available),
        plain(view.held),
        starter.to_owned(),
    ]);
    for column in [1, 2] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(comfy_table::CellAlignment::Right);
        }
    }
    writeln!(io::stdout(), "{}", table.trim_fmt())
}

/// An amount without the zeros at its end.
fn plain(amount: Credits) -> String {
    let text = amount.to_string();
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A client that signs with the operator's key, which only the machine of the coordinator has.
fn operator_client(
    place: &CoordinatorPlace,
    file: &FileSection,
    data_dir: &Path,
) -> anyhow::Result<CoordinatorClient> {
    let keypair = operator_key(data_dir)?;
    let account = keypair.account();
    Ok(CoordinatorClient::new(
        &place.url(file),
        Some(account),
        keypair,
        Clock::system().for_mesh(),
    )?)
}

fn operator_key(data_dir: &Path) -> anyhow::Result<Keypair> {
    let path = signing_key_path(data_dir);
    match key_file::load(&path)? {
        Some(keypair) => Ok(keypair),
        None => bail!(
            "there is no coordinator's key at {}; run this where the coordinator has run, or name its folder with \
             --data-dir",
            path.display()
        ),
    }
}

/// Where a coordinator with this configuration is reached from its own machine.
fn configured_url(file: &FileSection) -> String {
    match file.http_listen {
        Some(mut address) => {
            if address.ip().is_unspecified() {
                address.set_ip(match address.is_ipv4() {
                    true => std::net::Ipv4Addr::LOCALHOST.into(),
                    false => std::net::Ipv6Addr::LOCALHOST.into(),
                });
            }
            format!("http://{address}")
        }
        None => format!("http://127.0.0.1:{HTTP_PORT}"),
    }
}

fn random_grant_id() -> anyhow::Result<GrantId> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).context("the system gives no randomness")?;
    Ok(GrantId::from_bytes(bytes))
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Program {
        #[command(subcommand)]
        command: Command,
    }

    #[test]
    fn grants_are_read_as_people_write_them() {
        let account = Keypair::from_secret(&[1; 32]).account();
        let line = [
            "coordinator",
            "grant",
            &account.to_string(),
            "2.5",
            "--reason",
            "hello",
        ];
        let Command::Grant(arguments) = Program::parse_from(line).command else {
            panic!("not a grant")
        };
        assert_eq!(
            (arguments.account, arguments.amount),
            (account, Credits::micro(2_500_000))
        );
        assert!(Program::try_parse_from(["coordinator", "grant", "nobody", "2.5"]).is_err());
        assert!(Program::try_parse_from(["coordinator", "grant", &account.to_string(), "-1"]).is_err());
    }

    #[test]
    fn amounts_are_shown_without_useless_zeros() {
        for (micro, text) in [(0, "0"), (2_500_000, "2.5"), (10_000_000, "10"), (1, "0.000001")] {
            assert_eq!(plain(Credits::micro(micro)), text);
        }
    }

    #[test]
    fn the_configured_address_is_where_the_coordinator_is_reached() {
        let url = |listen: Option<&str>| {
            configured_url(&FileSection {
                http_listen: listen.map(|text| text.parse().unwrap()),
                ..Default::default()
            })
        };
        assert_eq!(url(None), "http://127.0.0.1:7400");
        assert_eq!(url(Some("0.0.0.0:80")), "http://127.0.0.1:80");
        assert_eq!(url(Some("[::]:81")), "http://[::1]:81");
        assert_eq!(url(Some("10.0.0.7:82")), "http://10.0.0.7:82");
    }

    #[test]
    fn a_missing_key_says_where_it_was_looked_for() {
        let folder = tempfile::tempdir().unwrap();
        let error = operator_key(folder.path()).unwrap_err().to_string();
        assert!(
            error.contains("signing.key") && error.contains("--data-dir"),
            "{error}"
        );
        assert!(!folder.path().join("coordinator").exists());
    }
}
