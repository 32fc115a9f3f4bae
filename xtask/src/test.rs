//! `cargo xtask test`: everything that must hold, on a fresh machine with Rust, Python and Node.

mod chromium;
mod clients;
pub(crate) mod debian;
pub(crate) mod environment;
pub(crate) mod packages;
mod postgres;
mod steps;

use std::time::Instant;

use anyhow::{Context, bail};
use clap::Args;

use self::environment::Workplace;
use self::steps::{STEPS, Step, Thoroughness};

/// Which parts of the tests to run.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Only these steps, such as 'clients'; `--list` shows their names
    #[arg(value_name = "STEP")]
    steps: Vec<String>,
    /// The same, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "STEPS", conflicts_with = "steps")]
    only: Vec<String>,
    /// Shows the steps and ends
    #[arg(long)]
    list: bool,
}

/// Runs the steps, prints how long each took, and fails where one failed.
///
/// # Errors
/// Where a step failed, or one was named that there isn't.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if arguments.list {
        for step in STEPS {
            eprintln!("{:<14} {}", step.name, step.purpose);
        }
        return Ok(());
    }
    let named = if arguments.steps.is_empty() {
        &arguments.only
    } else {
        &arguments.steps
    };
    if let Some(unknown) = named
        .iter()
        .find(|name| STEPS.iter().all(|step| step.name != **name))
    {
        bail!("there is no step '{unknown}'; see cargo xtask test --list");
    }
    let is_named = |step: &Step| named.iter().any(|name| name == step.name);
    let wanted = |step: &&Step| named.is_empty() || is_named(step);
    let workplace = Workplace::find().context("the workplace of the tests can't be prepared")?;
    let mut results = Vec::new();
    for step in STEPS.iter().filter(wanted) {
        eprintln!("\n── {}: {}", step.name, step.purpose);
        let started = Instant::now();
        let thoroughness = if is_named(step) || std::env::var_os("CI").is_some() {
            Thoroughness::Everything
        } else {
            Thoroughness::Quick
        };
        let result = (step.run)(&workplace, thoroughness);
        if let Err(error) = &result {
            eprintln!("   {} failed: {error:#}", step.name);
        }
        results.push((step.name, started.elapsed(), result.is_ok()));
    }
    eprintln!();
    for (name, elapsed, passed) in &results {
        let verdict = if *passed { "passed" } else { "FAILED" };
        eprintln!("{name:<14} {verdict} {:>8.1} s", elapsed.as_secs_f64());
    }
    let failed = results.iter().filter(|(_, _, passed)| !passed).count();
    eprintln!("steps: {} passed, {failed} failed", results.len() - failed);
    if failed > 0 {
        bail!("{failed} of {} steps failed", results.len());
    }
    Ok(())
}
