//! `gristmill ledger`: what anybody checks of a coordinator, from its files, from outside, and from evidence.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use gristmill_protocol::identity::{AccountId, Keypair};
use gristmill_protocol::log::checkpoint::account_of_origin;
use gristmill_service::installation::identity_path;
use gristmill_transport::coordinator_client::CoordinatorClient;
use gristmill_transport::key_file;

use super::{print_facts, random_bytes};
use crate::clock::Clock;

mod evidence;
mod public_log;

pub use evidence::EvidenceCommand;
use public_log::{PublicReport, Verification};

/// What can be checked.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// What needs the ledger's files.
    #[command(flatten)]
    Offline(gristmill_ledger::cli::Command),
    /// Check a coordinator's public Merkle log from outside, trusting nothing but its first key
    ///
    /// Verifies the newest checkpoint's signature, that the tiles lead to its root, that it goes on from the
    /// checkpoint that was seen here before, and that this installation's receipts are in it. Exits with 0 when
    /// everything holds and with 1 when something does not; evidence of a lie is kept.
    #[command(
        after_help = "Examples:\n  gristmill ledger verify --coordinator http://127.0.0.1:7400\n  \
                            gristmill ledger verify --coordinator https://mill.example --full --json\n  \
                            gristmill ledger verify --coordinator https://mill.example --log gristmill/log/12D3KooW…\n\n\
                            The first key met at an address is kept in the data folder, and no other is accepted there \
                            afterwards unless it was handed over to. --log says from the start which log it must be."
    )]
    Verify(VerifyArguments),
    /// Look at evidence that a coordinator lied, and check it offline
    #[command(subcommand)]
    Evidence(EvidenceCommand),
}

/// The arguments of `gristmill ledger verify`.
#[derive(Debug, Args)]
pub struct VerifyArguments {
    /// The coordinator
    #[arg(long, env = "GRISTMILL_COORDINATOR_URL", value_name = "URL")]
    coordinator: String,
    /// Which log it must be: its origin, its verifier key, or the account of its first key [default: the one met
    /// first at this address]
    #[arg(long, value_name = "ORIGIN", value_parser = log_account)]
    log: Option<AccountId>,
    /// Read every tile, and check all own receipts, instead of the right edge, a random sample and the newest ones
    #[arg(long)]
    full: bool,
}

/// The first key of the log that a person names.
fn log_account(text: &str) -> Result<AccountId, String> {
    // A verifier key is the origin, an id and the key, with plus signs between them.
    let origin = text.split('+').next().unwrap_or_default();
    account_of_origin(origin)
        .or_else(|| text.parse().ok())
        .ok_or_else(|| "write an origin such as gristmill/log/12D3KooW…, or the account in it".to_owned())
}

/// Does what is asked for. State is in `data_dir`.
///
/// # Errors
/// What is in the way, for people.
pub async fn run(command: Command, data_dir: &Path, json: bool) -> anyhow::Result<ExitCode> {
    match command {
        Command::Offline(command) => super::blocking(move || gristmill_ledger::cli::run(command, json)).await,
        Command::Verify(arguments) => verify(arguments, data_dir, json).await,
        Command::Evidence(command) => evidence::run(command, data_dir, json),
    }
}

async fn verify(arguments: VerifyArguments, data_dir: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let VerifyArguments {
        coordinator,
        log,
        full,
    } = arguments;
    let identity = key_file::load(&identity_path(data_dir))?;
    let has_identity = identity.is_some();
    // Whoever has no receipts needs no name.
    let keypair = match identity {
        Some(keypair) => keypair,
        None => Keypair::from_secret(&random_bytes()?),
    };
    let client = CoordinatorClient::new(&coordinator, log, keypair, Clock::system().for_mesh())?
        .with_known_keys_in(data_dir)?;
    let verification = Verification {
        client: &client,
        data_dir,
        full,
        receipts: has_identity,
        now_ms: Clock::system().now_ms(),
    };
    let report = verification
        .run()
        .await
        .with_context(|| format!("the log of {coordinator} can't be checked"))?;
    if json {
        writeln!(io::stdout(), "{}", serde_json::to_string_pretty(&report)?)?;
    } else {
        print_report(&report)?;
    }
    Ok(if report.clean {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn print_report(report: &PublicReport) -> io::Result<()> {
    let mut facts = vec![
        ("log", report.origin.clone()),
        ("signed by", report.signer.to_string()),
        ("hand-overs", report.handovers.to_string()),
    ];
    if let Some(checkpoint) = &report.checkpoint {
        facts.push(("checkpoint", format!("{} records", checkpoint.size)));
        facts.push(("root", checkpoint.root.to_string()));
    }
    let witnesses: Vec<String> = report
        .cosigners
        .iter()
        .map(|cosigner| cosigner.account.to_string())
        .collect();
    facts.push((
        "cosigned by",
        match witnesses.is_empty() {
            true => "nobody".to_owned(),
            false => witnesses.join(" "),
        },
    ));
    facts.push((
        "tiles",
        match report.sampled_records {
            None => format!("all {} read, they lead to the root", report.tiles),
            Some(sampled) => format!(
                "{} read: the right edge and {sampled} random records",
                report.tiles
            ),
        },
    ));
    facts.push((
        "seen before",
        match report.seen_before {
            Some(size) => format!("a checkpoint of {size} records"),
            None => "nothing; from now on, this checkpoint".to_owned(),
        },
    ));
    if let Some(receipts) = &report.receipts {
        let waiting = match receipts.waiting {
            0 => String::new(),
            waiting => format!(", {waiting} too new to be in it"),
        };
        facts.push(("own receipts", format!("{} in the log{waiting}", receipts.in_log)));
    }
    print_facts(&facts)?;
    let mut stdout = io::stdout().lock();
    for problem in &report.problems {
        writeln!(stdout, "PROBLEM  {problem}")?;
    }
    for path in &report.evidence {
        writeln!(
            stdout,
            "EVIDENCE {}: give it to others, they can check it with 'gristmill ledger evidence verify'",
            path.display()
        )?;
    }
    let verdict = match (report.clean, &report.checkpoint) {
        (true, Some(_)) => "everything holds",
        (true, None) => "the log has no checkpoint yet",
        (false, _) => {
            "SOMETHING DOES NOT HOLD: do not trust this coordinator with more until it is explained"
        }
    };
    writeln!(stdout, "{verdict}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_protocol::log::checkpoint::LogKeys;

    #[test]
    fn a_log_is_named_in_three_ways() {
        let account = Keypair::from_secret(&[1; 32]).account();
        let keys = LogKeys::new(account);
        let names = [
            account.to_string(),
            keys.origin().to_owned(),
            keys.keys()[0].to_string(),
        ];
        for name in names {
            assert_eq!(log_account(&name), Ok(account), "{name}");
        }
        assert!(log_account("example.com/log").is_err());
    }
}
