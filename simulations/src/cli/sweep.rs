//! `simulate sweep`: each variant of a scenario with many seeds, side by side, one run a thread. Every finished run
//! lies in a folder of its own, so that a stopped sweep goes on where it was, here or on the nodes of a cluster.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, bail};
use clap::Args;
use serde::{Deserialize, Serialize};

use super::files::{self, ScenarioArguments};
use super::one::{Order, Outcome};
use super::progress::Progress;
use super::{INTERRUPTED, machine, merge, run, slurm};
use crate::results::RunResult;
use crate::results::folder::{self, Existing};
use crate::results::merge::Allowed;
use crate::running;
use crate::scenario::plan::{Plan, Recipe, Variant};

/// Most runs of one sweep.
pub(super) const RUNS_MAX: usize = 100_000;
/// What makes a folder a sweep's.
const SWEEP: &str = "sweep.json";

/// What `simulate sweep` is told.
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    scenario: ScenarioArguments,
    /// Compare these values of a key, such as churn=0.1,0.2,0.4; several keys give all combinations
    #[arg(long, value_name = "KEY=VALUE,VALUE", value_parser = Varied::parse)]
    vary: Vec<Varied>,
    /// Run each variant with so many seeds
    #[arg(long, value_name = "NUMBER", default_value_t = 10)]
    seeds: u64,
    /// The first seed; the others follow it
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    first_seed: u64,
    /// The folder of the results
    #[arg(long, value_name = "FOLDER")]
    output: PathBuf,
    /// Throw away the sweep that the folder holds
    #[arg(long)]
    force: bool,
    /// Run nothing, and write a script that runs it as a job array of Slurm
    #[arg(long)]
    slurm: bool,
    #[command(flatten)]
    share: Share,
}

/// Which part of a sweep is run here.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Share {
    /// How many runs side by side [default: as many as cores]
    #[arg(long, value_name = "NUMBER")]
    jobs: Option<usize>,
    /// Run only each so-manieth run, from this one; for the tasks of a job array
    #[arg(long, value_name = "NUMBER", requires = "of", hide = true)]
    task: Option<usize>,
    /// How many tasks the job array has
    #[arg(long, value_name = "NUMBER", requires = "task", hide = true)]
    of: Option<usize>,
}

/// A key and its values on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Varied {
    key: String,
    values: Vec<String>,
}

impl Varied {
    fn parse(text: &str) -> Result<Self, String> {
        let change = crate::scenario::document::Change::parse(text)?;
        let values: Vec<String> = change
            .value
            .split(',')
            .map(|value| value.trim().to_owned())
            .collect();
        if values.iter().any(String::is_empty) {
            return Err(format!("`{text}` has an empty value; write key=value,value"));
        }
        Ok(Self {
            key: change.key,
            values,
        })
    }
}

/// What a sweep's folder says of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sweep {
    /// Of the program.
    pub(super) version: String,
    pub(super) recipe: Recipe,
    pub(super) seeds: Vec<u64>,
}

/// One run of a sweep.
struct Assignment<'a> {
    variant: &'a Variant,
    seed: u64,
    folder: PathBuf,
}

impl Sweep {
    pub(super) fn read(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join(SWEEP);
        if !path.is_file() {
            bail!(
                "{} holds no sweep; name the folder that `simulate sweep` wrote",
                folder.display()
            );
        }
        files::read_json(&path)
    }

    /// Makes the folder, or takes the one that holds this very sweep.
    fn open(&self, folder: &Path, force: bool) -> anyhow::Result<()> {
        let path = folder.join(SWEEP);
        if path.is_file() && !force {
            if Self::read(folder)? == *self {
                return Ok(());
            }
            bail!(
                "{} holds another sweep; name another folder with --output, or throw that one away with --force",
                folder.display()
            );
        }
        if folder.exists() {
            run::check_output(Some(folder), force)?;
            if !path.is_file() {
                bail!(
                    "{} holds something else than a sweep and is not replaced; name another folder with --output",
                    folder.display()
                );
            }
            std::fs::remove_dir_all(folder)
                .with_context(|| format!("{} could not be thrown away", folder.display()))?;
        }
        std::fs::create_dir_all(folder.join(folder::RUNS))
            .with_context(|| format!("{} could not be made", folder.display()))?;
        files::write(&folder.join(folder::SCENARIO), self.recipe.text.as_bytes())?;
        files::write(&path, &serde_json::to_vec_pretty(self)?)
    }

    fn assignments<'a>(&self, folder: &Path, variants: &'a [Variant], share: &Share) -> Vec<Assignment<'a>> {
        let all = variants
            .iter()
            .flat_map(|variant| self.seeds.iter().map(move |seed| (variant, *seed)));
        let is_ours = |place: usize| match (share.task, share.of) {
            (Some(task), Some(of)) => place % of.max(1) == task,
            _ => true,
        };
        all.enumerate()
            .filter(|(place, _)| is_ours(*place))
            .map(|(place, (variant, seed))| Assignment {
                variant,
                seed,
                folder: folder.join(folder::RUNS).join(format!("{place:05}-seed-{seed}")),
            })
            .collect()
    }
}

impl Assignment<'_> {
    /// Whether an earlier command has done it: the folder holds this very run.
    fn is_done(&self, sweep: &Sweep) -> bool {
        folder::read_run(&self.folder).is_ok_and(|run| {
            run.manifest.version == sweep.version
                && run.manifest.seed == self.seed
                && run.manifest.parameters == self.variant.parameters
                && run.scenario == sweep.recipe.text
        })
    }
}

pub(super) fn sweep(arguments: &Arguments, json: bool, stop: &AtomicBool) -> anyhow::Result<ExitCode> {
    let mut plan = arguments.scenario.plan()?;
    for Varied { key, values } in &arguments.vary {
        plan.vary(key, values.clone()).context("--vary")?;
    }
    let variants = plan.variants().context("--vary")?;
    for variant in &variants {
        variant
            .read::<crate::world::config::MarketConfig>()
            .context("--vary")?;
    }
    let seeds = usize::try_from(arguments.seeds).unwrap_or(usize::MAX);
    let runs = variants.len().saturating_mul(seeds);
    if runs == 0 || runs > RUNS_MAX {
        bail!("--seeds={seeds}: {runs} runs; a sweep has 1 to {RUNS_MAX}");
    }
    let last_seed = arguments.first_seed.saturating_add(arguments.seeds);
    let sweep = Sweep {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        recipe: plan.recipe(),
        seeds: (arguments.first_seed..last_seed).collect(),
    };
    sweep.open(&arguments.output, arguments.force)?;
    if arguments.slurm {
        return slurm::write(&arguments.output, &plan.name, runs);
    }
    go_on(&arguments.output, &arguments.share, json, stop)
}

/// Runs what a sweep's folder still lacks.
pub(super) fn go_on(folder: &Path, share: &Share, json: bool, stop: &AtomicBool) -> anyhow::Result<ExitCode> {
    let sweep = Sweep::read(folder)?;
    let plan = sweep
        .recipe
        .plan()
        .with_context(|| format!("{} is damaged", folder.display()))?;
    let variants = plan.variants()?;
    let all = sweep.assignments(folder, &variants, share);
    let left: Vec<&Assignment<'_>> = all
        .iter()
        .filter(|assignment| !assignment.is_done(&sweep))
        .collect();
    let progress = Progress::of_runs(all.len(), all.len() - left.len());
    let finished = side_by_side(&plan, &left, share, stop, &progress);
    progress.end();
    if !finished? {
        writeln!(
            std::io::stderr().lock(),
            "stopped; finished runs are kept. Go on with: gristmill simulate resume {}",
            running::quoted(&folder.to_string_lossy())
        )?;
        return Ok(ExitCode::from(INTERRUPTED));
    }
    if share.task.is_some() {
        return Ok(ExitCode::SUCCESS);
    }
    merge::merge_sweep(folder, &sweep, &plan, Allowed::default(), json)
}

/// Runs assignments, as many at once as there are cores. False where it was stopped before all were done.
fn side_by_side(
    plan: &Plan,
    left: &[&Assignment<'_>],
    share: &Share,
    stop: &AtomicBool,
    progress: &Progress,
) -> anyhow::Result<bool> {
    let next = AtomicUsize::new(0);
    let failed: Mutex<Option<anyhow::Error>> = Mutex::new(None);
    let jobs = share
        .jobs
        .unwrap_or_else(machine::cores)
        .clamp(1, left.len().max(1));
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let Some(assignment) = left.get(next.fetch_add(1, Ordering::Relaxed)) else {
                        break;
                    };
                    match assignment.perform(plan, stop) {
                        Ok(Some(())) => progress.run_done(),
                        Ok(None) => break,
                        Err(error) => {
                            failed
                                .lock()
                                .unwrap_or_else(PoisonError::into_inner)
                                .get_or_insert(error);
                            next.store(left.len(), Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(!stop.load(Ordering::Relaxed)),
    }
}

impl Assignment<'_> {
    /// Runs and stores it; nothing where it was stopped.
    fn perform(&self, plan: &Plan, stop: &AtomicBool) -> anyhow::Result<Option<()>> {
        let order = Order {
            plan,
            variant: self.variant,
            seed: self.seed,
            threads: 1,
            interest: None,
            until_us: None,
        };
        let what = || format!("the run of {}", self.folder.display());
        match order.perform(None, stop, |_, _, _| {}).with_context(what)? {
            Outcome::Done { result, .. } => {
                let result: RunResult = *result;
                folder::write_run(&self.folder, &result, Existing::Replace)?;
                Ok(Some(()))
            }
            Outcome::Stopped(_) => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varied_values_are_read() {
        let varied = Varied::parse("churn=0.1, 0.2,0.4").unwrap();
        assert_eq!((varied.key.as_str(), varied.values.len()), ("churn", 3));
        assert!(Varied::parse("churn").is_err() && Varied::parse("churn=1,,2").is_err());
    }
}
