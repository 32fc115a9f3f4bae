//! `gristmill coordinator`: everything an operator does.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use gristmill_protocol::identity::Keypair;
use gristmill_transport::key_file;

use crate::server::signing_key_path;
use crate::settings::{FileSection, HTTP_PORT, ServeArguments};

mod accounts;
mod backup;
mod hardware;
pub mod ledger;
mod operator;
mod rotation;
mod serve;
mod statement;
mod store;

pub use accounts::{BalanceArguments, FreezeArguments, GrantArguments};
pub use backup::{BackupArguments, RestoreArguments};
pub use hardware::HardwareArguments;
pub use rotation::RotateKeyArguments;
pub use statement::StatementArguments;
pub use store::{MigrateArguments, VerifyArguments};

/// What an operator does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Settle credits for a network, until Ctrl-C
    #[command(
        after_help = "Examples:\n  gristmill coordinator serve --starter-grant 2.5 --starter-daily-budget 500\n  \
                            gristmill coordinator serve --store postgres://gristmill_service@db.example/mill"
    )]
    Serve(Box<ServeArguments>),
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
    /// Freeze an account: it opens no more channels and none is opened for it
    #[command(
        after_help = "Example:\n  gristmill coordinator freeze 12D3KooW… --reason 'stolen key, ticket 17'\n\n\
                            What the account promised before is still paid, because others have served it on that \
                            promise, and it can still earn on channels that are open. The reason stands in the \
                            journal for ever."
    )]
    Freeze(FreezeArguments),
    /// End the freezing of an account
    #[command(
        after_help = "Example:\n  gristmill coordinator unfreeze 12D3KooW… --reason 'owner has a new key'"
    )]
    Unfreeze(FreezeArguments),
    /// Write what moved on an account, with the balance after each line
    #[command(after_help = "Examples:\n  gristmill coordinator statement 12D3KooW…\n  \
                            gristmill coordinator statement 12D3KooW… --from 2026-11-01 --until 2026-12-01 --format csv\n\n\
                            From the running coordinator; 'gristmill ledger statement' makes the same one offline.")]
    Statement(StatementArguments),
    /// List the hardware that holds certificates, as the running coordinator knows it
    #[command(after_help = "Examples:\n  gristmill coordinator hardware\n  \
                            gristmill coordinator hardware --account 12D3KooW… --json")]
    Hardware(HardwareArguments),
    /// Back up a ledger that is kept in a folder, also while the coordinator runs
    #[command(after_help = "Examples:\n  gristmill coordinator backup /mnt/backup/mill\n  \
                            gristmill coordinator backup /mnt/backup/mill --include-key\n\n\
                            A folder with an earlier backup of the same ledger gets what is new. What was written is \
                            read back and verified. A ledger in PostgreSQL is backed up with PostgreSQL's own tools.")]
    Backup(BackupArguments),
    /// Restore a backup where no ledger is, after auditing all of it
    #[command(
        after_help = "Example:\n  gristmill coordinator restore /mnt/backup/mill --checkpoint https://mill.example\n\n\
                            An old backup must not be started: the coordinator would sign another history for sizes \
                            that nodes and clients have seen, which they prove to everybody. --checkpoint holds the \
                            backup against the newest checkpoint that was published; any node or mirror has it."
    )]
    Restore(RestoreArguments),
    /// Check the whole ledger where it is kept: records, signatures, balances, Merkle roots, key
    #[command(after_help = "Examples:\n  gristmill coordinator verify\n  \
                            gristmill coordinator verify --store postgres://gristmill_service@db.example/mill")]
    Verify(VerifyArguments),
    /// Make or update the tables of a ledger in PostgreSQL, as their owner
    #[command(
        after_help = "Examples:\n  gristmill coordinator migrate --store postgres://mill_owner@db.example/mill\n  \
                            gristmill coordinator migrate --store postgres://mill_owner@db.example/mill --dry-run\n\n\
                            Run it as the role that is to own the tables. Coordinators then use the service's role, \
                            which can add entries but neither change nor remove any."
    )]
    Migrate(MigrateArguments),
    /// Hand the signing key over to a new one, while no coordinator runs on the ledger
    #[command(after_help = "Example:\n  gristmill coordinator rotate-key\n\n\
                            The hand-over is an entry of the ledger, signed by both keys, so that nodes and clients \
                            follow it. What the old key signed can be checked for ever; its secret is gone. \
                            Interrupted, it is finished by the next start or by the same command.")]
    RotateKey(RotateKeyArguments),
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
        Command::Serve(arguments) => serve::serve(*arguments, file, data_dir, json).await,
        Command::Grant(arguments) => accounts::grant(arguments, &file, data_dir, json).await,
        Command::Balance(arguments) => accounts::balance(arguments, &file, data_dir, json).await,
        Command::Freeze(arguments) => accounts::freeze(arguments, true, &file, data_dir, json).await,
        Command::Unfreeze(arguments) => accounts::freeze(arguments, false, &file, data_dir, json).await,
        Command::Statement(arguments) => statement::statement(arguments, &file, data_dir, json).await,
        Command::Hardware(arguments) => hardware::hardware(arguments, &file, data_dir, json).await,
        Command::Backup(arguments) => backup::back_up(arguments, &file, data_dir, json).await,
        Command::Restore(arguments) => backup::restore(arguments, data_dir, json).await,
        Command::Verify(arguments) => store::verify(arguments, file, data_dir, json).await,
        Command::Migrate(arguments) => store::migrate(arguments, file, json).await,
        Command::RotateKey(arguments) => rotation::rotate_key(arguments, file, data_dir, json).await,
    }
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

fn random_bytes<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).context("the system gives no randomness")?;
    Ok(bytes)
}

/// Runs what blocks on a thread where it may.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work).await?
}

/// Prints facts: aligned lines for people.
fn print_facts(facts: &[(&str, String)]) -> io::Result<()> {
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut stdout = io::stdout().lock();
    for (name, value) in facts {
        writeln!(stdout, "{name:width$}  {value}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use gristmill_protocol::credits::Credits;

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
