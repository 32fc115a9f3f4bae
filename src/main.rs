//! The `gristmill` program: one subcommand per role. Everything it does is in the roles' crates.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod configuration;
mod demo;
mod terminal;
mod threads;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use clap::{Parser, Subcommand};

use crate::configuration::Configuration;

/// A peer-to-peer market for GPU compute
#[derive(Debug, Parser)]
#[command(name = "gristmill", version, propagate_version = true, max_term_width = 100, after_help = AFTER_HELP)]
struct Program {
    #[command(subcommand)]
    command: Command,
    /// Print data as JSON on stdout, for programs
    #[arg(long, global = true)]
    json: bool,
    /// Where state is kept [default: $XDG_DATA_HOME/gristmill]
    #[arg(long, global = true, env = "GRISTMILL_DATA_DIR", value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
    /// The configuration file [default: $XDG_CONFIG_HOME/gristmill/config.toml, where there is one]
    #[arg(long, global = true, env = "GRISTMILL_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// What is logged on stderr, for example debug or gristmill_node=trace [default: what an operator wants to
    /// see of a serving role, warnings otherwise]
    #[arg(long, global = true, env = "GRISTMILL_LOG", value_name = "FILTER")]
    log: Option<String>,
}

const AFTER_HELP: &str = "\
Examples:
  gristmill demo                             the whole market on this machine, with one question
  gristmill coordinator serve                settle credits
  gristmill node serve                       earn with this machine
  gristmill client serve                     the OpenAI API on http://127.0.0.1:7420/v1
  gristmill client chat \"What is Gristmill?\"

Exit codes: 0 done, 1 it failed and stderr says why, 2 wrong usage, 3 wrong configuration, 130 interrupted.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the whole market on this machine and asks one question
    Demo(demo::Arguments),
    /// Earn: serve jobs with this machine
    #[command(subcommand)]
    Node(gristmill_node::cli::Command),
    /// Spend: the OpenAI API on this machine
    #[command(subcommand)]
    Client(gristmill_client::cli::Command),
    /// Settle: tickets, settlement and receipts for a network
    #[command(subcommand)]
    Coordinator(gristmill_coordinator::cli::Command),
    /// Check: a coordinator's ledger, offline and from outside
    #[command(subcommand)]
    Ledger(gristmill_coordinator::cli::ledger::Command),
    /// Prove: what this machine can compute with
    #[command(subcommand)]
    Benchmark(gristmill_benchmark::cli::Command),
    /// Ask: what if, of the whole network
    #[command(subcommand)]
    Simulate(gristmill_simulations::cli::Command),
}

impl Command {
    /// Whether its tasks hand each request on from one to the next.
    const fn hands_on(&self) -> bool {
        use gristmill_client::cli::Command as Client;
        use gristmill_node::cli::Command as Node;
        matches!(self, Self::Node(Node::Serve(_)) | Self::Client(Client::Serve(_)))
    }

    /// Roles that serve tell what they do; everything else speaks through its output.
    const fn default_log(&self) -> &'static str {
        use gristmill_client::cli::Command as Client;
        use gristmill_coordinator::cli::Command as Coordinator;
        use gristmill_node::cli::Command as Node;
        match self {
            Self::Node(Node::Serve(_))
            | Self::Client(Client::Serve(_))
            | Self::Coordinator(Coordinator::Serve(_)) => "warn,libp2p_kad=error,gristmill=info",
            _ => "error,gristmill=warn",
        }
    }
}

fn main() -> ExitCode {
    let program = Program::parse();
    threads::tell_candle();
    terminal::start_logging(
        program
            .log
            .as_deref()
            .unwrap_or_else(|| program.command.default_log()),
    );
    let configuration = match Configuration::load(program.config.as_deref(), program.data_dir) {
        Ok(configuration) => configuration,
        Err(error) => {
            terminal::report(&error.into());
            return ExitCode::from(3);
        }
    };
    let runtime = match threads::runtime(program.command.hands_on()) {
        Ok(runtime) => runtime,
        Err(error) => {
            terminal::report(
                &anyhow::Error::new(error).context("the threads of the program can't be started"),
            );
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(Box::pin(run(program.command, configuration, program.json)));
    // What still runs was told to stop and has had its time; a stuck thread must not hold the program.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    code.unwrap_or_else(|error| {
        terminal::report(&error);
        ExitCode::FAILURE
    })
}

/// A simulation computes for as long as it takes, so it has a thread of its own. Ctrl-C asks it to stop where it can go
/// on later; the second one ends the program.
async fn simulate(command: gristmill_simulations::cli::Command, json: bool) -> anyhow::Result<ExitCode> {
    let stop = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&stop);
    let work = tokio::task::spawn_blocking(move || gristmill_simulations::cli::run(command, json, &asked));
    tokio::pin!(work);
    for _ in 0..2 {
        tokio::select! {
            done = &mut work => return done.context("the simulation broke down")?,
            interrupted = tokio::signal::ctrl_c() => {
                interrupted.context("Ctrl-C can't be listened for")?;
                stop.store(true, Ordering::Relaxed);
            }
        }
    }
    Ok(ExitCode::from(130))
}

async fn run(command: Command, configuration: Configuration, json: bool) -> anyhow::Result<ExitCode> {
    let Configuration { file, data_dir } = configuration;
    match command {
        Command::Demo(arguments) => demo::run(arguments, json).await,
        Command::Node(command) => gristmill_node::cli::run(command, file.node, &data_dir, json).await,
        Command::Client(command) => gristmill_client::cli::run(command, file.client, &data_dir, json).await,
        Command::Coordinator(command) => {
            gristmill_coordinator::cli::run(command, file.coordinator, &data_dir, json).await
        }
        Command::Ledger(command) => gristmill_coordinator::cli::ledger::run(command, &data_dir, json).await,
        Command::Benchmark(command) => gristmill_benchmark::cli::run(command, &data_dir, json).await,
        Command::Simulate(command) => simulate(command, json).await,
    }
}
