//! `simulate run`: each variant of a scenario once.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

use anyhow::Context;
use clap::Args;

use super::files::ScenarioArguments;
use super::one::{Order, Outcome};
use super::progress::Progress;
use super::resume::{self, Paused};
use super::{INTERRUPTED, machine, show};
use crate::results::folder::{self, Existing, WriteError};
use crate::results::{RunResult, merge};
use crate::running;
use crate::scenario::plan::Plan;

/// What `simulate run` is told.
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    scenario: ScenarioArguments,
    /// The seed of everything that is random
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// On how many threads; the outcome is the same [default: all cores]
    #[arg(long, value_name = "NUMBER")]
    threads: Option<usize>,
    /// Store figures and a report in this folder
    #[arg(long, value_name = "FOLDER")]
    output: Option<PathBuf>,
    /// Replace the results in the folder
    #[arg(long, requires = "output")]
    force: bool,
}

pub(super) fn existing(force: bool) -> Existing {
    if force {
        Existing::Replace
    } else {
        Existing::Refuse
    }
}

/// Says before anything is run that the results could not be stored.
pub(super) fn check_output(output: Option<&Path>, force: bool) -> anyhow::Result<()> {
    match output {
        Some(folder) if folder.exists() && !force => Err(WriteError::Exists(folder.to_owned()).into()),
        _ => Ok(()),
    }
}

pub(super) fn run(arguments: &Arguments, json: bool, stop: &AtomicBool) -> anyhow::Result<ExitCode> {
    check_output(arguments.output.as_deref(), arguments.force)?;
    let plan = arguments.scenario.plan()?;
    let paused = Paused {
        recipe: plan.recipe(),
        seed: arguments.seed,
        threads: arguments.threads.unwrap_or_else(machine::cores).max(1),
        output: arguments.output.clone(),
        force: arguments.force,
        finished: Vec::new(),
    };
    go_on(paused, &plan, None, json, stop)
}

/// Runs what is left of a command's variants, the first one from a snapshot if there is one.
pub(super) fn go_on(
    mut paused: Paused,
    plan: &Plan,
    mut snapshot: Option<resume::Snapshot>,
    json: bool,
    stop: &AtomicBool,
) -> anyhow::Result<ExitCode> {
    let variants = plan.variants()?;
    let progress = Progress::of_variants(variants.len(), paused.finished.len());
    for variant in variants.iter().skip(paused.finished.len()) {
        let order = Order {
            plan,
            variant,
            seed: paused.seed,
            threads: paused.threads,
            interest: None,
            until_us: None,
        };
        let outcome = order.perform(snapshot.take(), stop, |now_us, until_us, events| {
            progress.within(now_us, until_us, events);
        })?;
        match outcome {
            Outcome::Done { result, .. } => paused.finished.push(*result),
            Outcome::Stopped(mut simulation) => {
                progress.end();
                let path = resume::place(&paused);
                resume::write(&path, &paused, &mut simulation, variant)?;
                writeln!(
                    std::io::stderr().lock(),
                    "stopped at {:.1} s of virtual time; go on with: gristmill simulate resume {}",
                    running::seconds(simulation.now_us()),
                    running::quoted(&path.to_string_lossy())
                )?;
                return Ok(ExitCode::from(INTERRUPTED));
            }
        }
        progress.variant_done();
    }
    progress.end();
    if let Some(output) = &paused.output {
        store(plan, &paused.finished, output, existing(paused.force))?;
    }
    let mut stdout = std::io::stdout().lock();
    let is_well =
        show::print(plan, &paused.finished, json, &mut stdout).context("the results could not be printed")?;
    Ok(if is_well {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn store(plan: &Plan, runs: &[RunResult], output: &Path, existing: Existing) -> anyhow::Result<()> {
    if let [only] = runs {
        folder::write_run(output, only, existing)?;
    } else {
        let mut experiment = merge::merge(&plan.name, runs.to_vec(), None, merge::Allowed::default())?;
        super::merge::in_order_of(plan, &mut experiment.runs)?;
        experiment.answer = running::answer(plan, runs)
            .ok()
            .filter(|answer| !answer.is_empty());
        folder::write_experiment(output, &experiment, existing)?;
    }
    writeln!(std::io::stderr().lock(), "stored in {}", output.display())?;
    Ok(())
}
