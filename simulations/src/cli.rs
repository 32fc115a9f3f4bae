//! `gristmill simulate`: runs scenarios, alone and in sweeps, and explains what happened. The only modules of this
//! crate that open files, beside that of results.

mod explain;
mod files;
mod machine;
mod merge;
mod one;
mod progress;
mod resume;
mod run;
mod show;
mod slurm;
mod soak;
mod sweep;

use std::io::Write;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, bail};
use clap::Subcommand;

use crate::scenario::library;
use crate::scenario::plan::Plan;

/// The exit code of what was stopped from outside.
const INTERRUPTED: u8 = 130;

/// The subcommands of `gristmill simulate`.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Run a scenario under a virtual clock and answer its question
    ///
    /// The same scenario and seed give the same digest on every machine and with any number of threads. A broken rule
    /// of the market, or a figure that is not as the scenario expects, gives the exit code 1. Ctrl-C stops the run and
    /// leaves a file from which `simulate resume` goes on.
    #[command(after_help = "Examples:\n  gristmill simulate run --seed 7\n  \
                            gristmill simulate run price-war --small\n  \
                            gristmill simulate run my-scenario.toml --nodes 100000 --seed 7 --json\n  \
                            gristmill simulate run flash-crowd --set consumers.crowd.count=400 --output crowd")]
    Run(run::Arguments),
    /// Run each variant of a scenario with many seeds on all cores, with a report
    ///
    /// A sweep that was stopped goes on with the same command, or with `simulate resume`: what is finished is kept.
    #[command(after_help = "Examples:\n  \
                            gristmill simulate sweep home-churn --seeds 20 --output churn\n  \
                            gristmill simulate sweep gossip-reach --vary loss=0,0.05,0.2 --output loss\n  \
                            gristmill simulate sweep price-war --seeds 200 --output war --slurm")]
    Sweep(sweep::Arguments),
    /// Go on with a run or a sweep that was stopped
    #[command(
        after_help = "Examples:\n  gristmill simulate resume price-war-seed-7.stopped\n  \
                            gristmill simulate resume churn"
    )]
    Resume(resume::Arguments),
    /// Put the runs of a sweep, or of several folders, together: tables, report and answer
    #[command(after_help = "Examples:\n  gristmill simulate merge war\n  \
                            gristmill simulate merge war-here war-there --output war\n  \
                            gristmill simulate merge price-war spot-prices --mixed --output prices")]
    Merge(merge::Arguments),
    /// Compare two results: digests, figures, and where two runs part
    ///
    /// The exit code is 1 where they differ.
    #[command(after_help = "Example:\n  gristmill simulate diff war-before war-after")]
    Diff(merge::DiffArguments),
    /// Tell what happened to a job or a node, in words
    #[command(
        after_help = "Examples:\n  gristmill simulate explain price-war --seed 7 --node 1 --until-s 60\n  \
                            gristmill simulate explain price-war --seed 7 --job 30:2"
    )]
    Explain(explain::Arguments),
    /// Run all scenarios with random seeds and faults until time is up, and report what broke
    #[command(after_help = "Example:\n  gristmill simulate soak --minutes 30")]
    Soak(soak::Arguments),
    /// List the scenarios that come with the program
    #[command(after_help = "Example:\n  gristmill simulate list")]
    List,
    /// Print a scenario that comes with the program, to copy and change
    #[command(after_help = "Example:\n  gristmill simulate example price-war > my-scenario.toml")]
    Example {
        /// Its name
        #[arg(default_value = library::DEFAULT)]
        name: String,
    },
}

/// Runs a subcommand: what it finds on stdout, as text or as JSON. `stop` is set where the user wants it to end.
///
/// # Errors
/// Where a scenario or a result cannot be read, run or written, or stdout cannot be written.
pub fn run(command: Command, json: bool, stop: &AtomicBool) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(arguments) => run::run(&arguments, json, stop),
        Command::Sweep(arguments) => sweep::sweep(&arguments, json, stop),
        Command::Resume(arguments) => resume::resume(&arguments, json, stop),
        Command::Merge(arguments) => merge::merge(&arguments, json),
        Command::Diff(arguments) => merge::diff(&arguments, json),
        Command::Explain(arguments) => explain::explain(&arguments, json, stop),
        Command::Soak(arguments) => soak::soak(&arguments, json, stop),
        Command::List => list(json),
        Command::Example { name } => example(&name),
    }
}

fn list(json: bool) -> anyhow::Result<ExitCode> {
    let mut stdout = std::io::stdout().lock();
    let mut scenarios = Vec::new();
    for (name, text) in library::ALL {
        let plan = Plan::parse(name, text).with_context(|| format!("the scenario {name} of the program"))?;
        scenarios.push((*name, plan.question));
    }
    if json {
        let scenarios: Vec<_> = scenarios
            .iter()
            .map(|(name, question)| serde_json::json!({ "name": name, "question": question }))
            .collect();
        writeln!(stdout, "{}", serde_json::to_string_pretty(&scenarios)?)?;
    } else {
        for (name, question) in scenarios {
            writeln!(stdout, "{name:<24} {question}")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn example(name: &str) -> anyhow::Result<ExitCode> {
    let Some((_, text)) = library::find(name) else {
        bail!("no scenario is called {name}; `gristmill simulate list` shows their names");
    };
    std::io::stdout()
        .lock()
        .write_all(text.as_bytes())
        .context("the scenario could not be written to stdout")?;
    Ok(ExitCode::SUCCESS)
}
