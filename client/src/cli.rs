//! `gristmill client`: serve, chat, models, providers, keys, usage, balance, witness.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use gristmill_service::cli::{INTERRUPTED, Signals, plain, run_to_end, witness, wrong_configuration};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::keys::has_program_keys;
use crate::server::{Client, RunningClient, StartError};
use crate::settings::{ConnectionArguments, FileSection, ServeArguments, Settings};

mod balance;
mod chat;
mod directory;
mod events;
mod keys;
mod models;
mod providers;
mod running_proxy;
mod usage;

pub use chat::ChatArguments;
pub use keys::{CreateArguments, KeysCommand};
pub use usage::UsageArguments;

/// What a developer does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the OpenAI API on this machine, until Ctrl-C
    #[command(after_help = "Examples:\n  gristmill client serve\n  \
                            gristmill client serve --coordinator http://192.0.2.7:7400 --max-price-per-million 0.5\n\n\
                            Then give an OpenAI SDK the base URL http://127.0.0.1:7420/v1 and any API key.")]
    Serve(Box<ServeArguments>),
    /// Ask one question; the answer comes on stdout as it is made
    #[command(after_help = "Examples:\n  gristmill client chat \"What is Gristmill?\"\n  \
                            gristmill client chat --model guide --max-tokens 100 - < question.txt\n\n\
                            Asks through the running client where there is one, and starts one for the question \
                            otherwise.")]
    Chat(ChatArguments),
    /// List the models on offer
    #[command(after_help = "Example:\n  gristmill client models")]
    Models(ModelsArguments),
    /// List who offers something, and which hardware of theirs is verified
    #[command(
        after_help = "Examples:\n  gristmill client providers\n  gristmill client providers --json\n\n\
                            To ask only those whose hardware is verified, send the field \
                            \"gristmill\": {\"only_verified\": true} or the header \
                            x-gristmill-only-verified: true with a request."
    )]
    Providers(ProvidersArguments),
    /// Keys for programs, each with what it may spend and how often it may ask
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Show what was asked and what it did cost, by day, model, key or provider
    #[command(after_help = "Examples:\n  gristmill client usage\n  \
                            gristmill client usage --by model --since 2026-11-01\n  \
                            gristmill client usage --by key --csv > usage.csv\n\n\
                            Days are those of UTC. Prompts and answers are not kept.")]
    Usage(UsageArguments),
    /// Show what the account has, as the coordinator knows it
    #[command(after_help = "Example:\n  gristmill client balance")]
    Balance(BalanceArguments),
    /// Show what this client found out about its coordinator's log, whether or not it runs; exit code 1 where it was
    /// caught lying
    #[command(after_help = "Examples:\n  gristmill client witness\n  gristmill client witness --json")]
    Witness,
}

/// The arguments of `gristmill client models`.
#[derive(Debug, Args)]
pub struct ModelsArguments {
    #[command(flatten)]
    connection: ConnectionArguments,
}

/// The arguments of `gristmill client providers`.
#[derive(Debug, Args)]
pub struct ProvidersArguments {
    #[command(flatten)]
    connection: ConnectionArguments,
}

/// The arguments of `gristmill client balance`.
#[derive(Debug, Args)]
pub struct BalanceArguments {
    #[command(flatten)]
    connection: ConnectionArguments,
}

/// Does what a developer asks for. State is in `data_dir`.
///
/// # Errors
/// What is in the way, for people.
pub async fn run(
    command: Command,
    file: FileSection,
    data_dir: &Path,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let (connection, rest) = match command {
        Command::Serve(arguments) => {
            return match Settings::resolve(*arguments, file) {
                Ok(settings) => Box::pin(serve(settings, data_dir, json)).await,
                Err(error) => wrong_configuration(&error),
            };
        }
        Command::Chat(chat) => (chat.connection.clone(), Some(Rest::Chat(chat))),
        Command::Models(models) => (models.connection, Some(Rest::Models)),
        Command::Providers(providers) => (providers.connection, Some(Rest::Providers)),
        Command::Balance(balance) => (balance.connection, None),
        Command::Keys(keys) => return keys::run(keys, data_dir, json, &mut io::stdout()),
        Command::Usage(usage) => return usage::show(&usage, data_dir, json, &mut io::stdout()),
        Command::Witness => return witness::show("client", data_dir, json, &mut io::stdout()),
    };
    let arguments = ServeArguments {
        connection,
        ..ServeArguments::default()
    };
    let settings = match Settings::resolve(arguments, file) {
        Ok(settings) => settings,
        Err(error) => return wrong_configuration(&error),
    };
    // What would not be served is no place to ask at either.
    if let Err(error) = settings.check_access(has_program_keys(data_dir)?) {
        return wrong_configuration(&error);
    }
    match rest {
        Some(Rest::Chat(chat)) => Box::pin(chat::ask(chat, settings, data_dir, json)).await,
        Some(Rest::Models) => models::show(&settings, data_dir, json).await,
        Some(Rest::Providers) => providers::show(&settings, data_dir, json).await,
        None => balance::show(&settings, data_dir, json).await,
    }
}

/// What needs the settings without serving them.
enum Rest {
    Chat(ChatArguments),
    Models,
    Providers,
}

async fn serve(settings: Settings, data_dir: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let shutdown = CancellationToken::new();
    // Signals are caught before anything is opened, so that none comes in between.
    let mut signals = Signals::catch().context("signals can't be caught")?;
    let coordinator = settings.coordinator.clone();
    let started = tokio::select! {
        started = Client::start(settings, data_dir, shutdown.clone()) => started,
        () = signals.next() => return Ok(ExitCode::from(INTERRUPTED)),
    };
    let running = match started {
        Ok(running) => running,
        Err(error) if is_configuration(&error) => return wrong_configuration(&error),
        Err(error) => return Err(error.into()),
    };
    announce(&running, &coordinator, json).await?;
    let notice = "Stopping; once more to stop at once.";
    run_to_end(running.wait(), &mut signals, &shutdown, notice).await
}

const fn is_configuration(error: &StartError) -> bool {
    matches!(
        error,
        StartError::Settings(_)
            | StartError::Coordinator(_)
            | StartError::MeshAddress { .. }
            | StartError::Otlp(_)
    )
}

/// Says where everything is: people on stderr, programs on stdout.
async fn announce(running: &RunningClient, coordinator: &str, json: bool) -> io::Result<()> {
    let (base_url, account) = (running.base_url(), running.account());
    let is_joined = running.is_joined();
    if json {
        let line = json!({
            "account": account, "base_url": base_url, "coordinator": coordinator, "joined": is_joined,
        });
        return writeln!(io::stdout(), "{line}");
    }
    let balance = match is_joined {
        true => running.balance().await.ok().map(|view| plain(view.available)),
        false => None,
    };
    let mut stderr = io::stderr().lock();
    writeln!(stderr, "OpenAI API of the network")?;
    writeln!(stderr, "  base URL     {base_url}")?;
    writeln!(stderr, "  account      {account}")?;
    let reach = if is_joined {
        ""
    } else {
        "  (does not answer; trying again)"
    };
    writeln!(stderr, "  coordinator  {coordinator}{reach}")?;
    if let Some(balance) = balance {
        writeln!(stderr, "  credits      {balance}")?;
    }
    writeln!(stderr, "Stop with Ctrl-C.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory as _, Parser};

    #[derive(Parser)]
    struct Program {
        #[command(subcommand)]
        command: Command,
    }

    #[test]
    fn commands_are_read_as_people_write_them() {
        Program::command().debug_assert();
        let parse = |line: &[&str]| Program::try_parse_from([&["client"], line].concat());
        let line = [
            "chat",
            "What is Gristmill?",
            "--model",
            "guide",
            "--coordinator",
            "http://a:1",
        ];
        let Ok(Program {
            command: Command::Chat(chat),
        }) = parse(&line)
        else {
            panic!("not a chat")
        };
        assert_eq!(chat.connection.coordinator.as_deref(), Some("http://a:1"));
        assert!(parse(&["chat"]).is_err());
        for line in [
            &["models"][..],
            &["providers"],
            &["balance"],
            &["keys", "create", "ci", "--cap", "2.5", "--per", "day"],
            &["usage", "--by", "key", "--csv"],
            &["serve", "--listen", "127.0.0.1:0"],
        ] {
            assert!(parse(line).is_ok(), "{line:?}");
        }
    }
}
