//! `simulate merge`: puts the runs of a sweep, or of several folders, together, wherever they were run; `simulate diff`
//! compares two results.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use serde_json::json;

use super::sweep::Sweep;
use super::{run, show};
use crate::results::difference::Difference;
use crate::results::folder::Existing;
use crate::results::{Experiment, Grid, folder, merge};
use crate::running;
use crate::scenario::plan::Plan;

/// Most changed metrics that are shown to people.
const ROWS_MAX: usize = 60;
/// Most runs of which is shown where they part.
const PARTINGS_SHOWN: usize = 20;

/// What `simulate merge` is told.
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    /// The folder of a sweep; or several folders of runs and sweeps, which --output puts together
    #[arg(required = true, value_name = "FOLDER")]
    folders: Vec<PathBuf>,
    /// A new folder for what is put together; the folders themselves stay as they are
    #[arg(long, value_name = "FOLDER")]
    output: Option<PathBuf>,
    /// Put runs of different scenarios or versions of the program together too
    #[arg(long)]
    mixed: bool,
    /// Replace the result that --output names
    #[arg(long, requires = "output")]
    force: bool,
}

/// What `simulate diff` is told.
#[derive(Clone, Debug, Args)]
pub struct DiffArguments {
    /// The folder of a run or a sweep
    before: PathBuf,
    /// Another one, for instance by another version of the program
    after: PathBuf,
}

pub(super) fn merge(arguments: &Arguments, json: bool) -> anyhow::Result<ExitCode> {
    let allowed = merge::Allowed {
        scenarios: arguments.mixed,
        versions: arguments.mixed,
    };
    match (&arguments.output, arguments.folders.as_slice()) {
        (Some(output), folders) => {
            let existing = run::existing(arguments.force);
            merge_folders(folders, allowed, output, existing, json)
        }
        (None, [folder]) => {
            let sweep = Sweep::read(folder)?;
            let plan = sweep
                .recipe
                .plan()
                .with_context(|| format!("{} is damaged", folder.display()))?;
            merge_sweep(folder, &sweep, &plan, allowed, json)
        }
        (None, _) => bail!("several folders are put together in a new one; name it with --output FOLDER"),
    }
}

/// Puts the runs of some folders together in a new one, with tables and report. Where they are of one scenario, its
/// question is answered.
fn merge_folders(
    folders: &[PathBuf],
    allowed: merge::Allowed,
    output: &Path,
    existing: Existing,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let runs = folder::read_runs(folders)?;
    let scenarios: BTreeSet<(&str, &str)> = runs
        .iter()
        .map(|run| (run.manifest.scenario.as_str(), run.scenario.as_str()))
        .collect();
    let names: Vec<&str> = scenarios.iter().map(|(name, _)| *name).collect();
    let plan = match scenarios.iter().next() {
        Some((name, text)) if scenarios.len() == 1 => Some(Plan::parse(name, text)?),
        _ => None,
    };
    let name = names.join(", ");
    let mut experiment = merge::merge(&name, runs, None, allowed)?;
    if let Some(plan) = &plan {
        in_order_of(plan, &mut experiment.runs)?;
        experiment.answer = running::answer(plan, &experiment.runs)
            .ok()
            .filter(|answer| !answer.is_empty());
    }
    folder::write_experiment(output, &experiment, existing)?;
    let is_whole = say(&experiment, output)?;
    let mut stdout = std::io::stdout().lock();
    let is_well = match &plan {
        Some(plan) => show::print(plan, &experiment.runs, json, &mut stdout)?,
        None if json => {
            let told = json!({
                "scenarios": name,
                "runs": experiment.runs.len(),
                "missing": experiment.missing,
                "folder": output,
            });
            writeln!(stdout, "{}", serde_json::to_string_pretty(&told)?)?;
            true
        }
        None => true,
    };
    Ok(code(is_well && is_whole))
}

/// Says where everything lies and what is missing. False where anything is.
fn say(experiment: &Experiment, folder: &Path) -> anyhow::Result<bool> {
    let mut stderr = std::io::stderr().lock();
    for missing in &experiment.missing {
        writeln!(stderr, "missing: {missing}")?;
    }
    writeln!(
        stderr,
        "{} runs in {}, the report in {}",
        experiment.runs.len(),
        folder.display(),
        folder.join(folder::REPORT).display()
    )?;
    Ok(experiment.missing.is_empty())
}

const fn code(is_well: bool) -> ExitCode {
    if is_well {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Puts together what a sweep's folder holds, writes tables and report, and says what came of it.
pub(super) fn merge_sweep(
    folder: &Path,
    sweep: &Sweep,
    plan: &Plan,
    allowed: merge::Allowed,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let runs = folder::read_runs(&[folder.to_owned()])?;
    let planned = Grid {
        parameters: parameters(plan)?,
        seeds: sweep.seeds.iter().copied().collect(),
    };
    let mut experiment = merge::merge(&plan.name, runs, Some(&planned), allowed)?;
    in_order_of(plan, &mut experiment.runs)?;
    experiment.answer = running::answer(plan, &experiment.runs)
        .ok()
        .filter(|answer| !answer.is_empty());
    folder::renew_experiment(folder, &experiment)?;
    let is_whole = say(&experiment, folder)?;
    let is_well = show::print(plan, &experiment.runs, json, &mut std::io::stdout().lock())?;
    Ok(code(is_well && is_whole))
}

/// The varied keys with their values, as manifests have them.
fn parameters(plan: &Plan) -> anyhow::Result<BTreeMap<String, Vec<String>>> {
    let mut parameters: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for variant in plan.variants()? {
        for (key, value) in variant.parameters {
            let values = parameters.entry(key).or_default();
            if !values.contains(&value) {
                values.push(value);
            }
        }
    }
    Ok(parameters)
}

/// Orders runs as the plan's variants are, so that "first" and "last" mean what the scenario says.
pub(super) fn in_order_of(plan: &Plan, runs: &mut [crate::results::RunResult]) -> anyhow::Result<()> {
    let variants = plan.variants()?;
    runs.sort_by_key(|run| {
        let place = variants
            .iter()
            .position(|variant| variant.parameters == run.manifest.parameters);
        (place, run.manifest.seed)
    });
    Ok(())
}

/// Exit code 0 where nothing differs, 1 where something does.
pub(super) fn diff(arguments: &DiffArguments, json: bool) -> anyhow::Result<ExitCode> {
    let before = folder::read_experiment(&arguments.before)?;
    let after = folder::read_experiment(&arguments.after)?;
    let difference = Difference::between(&before, &after);
    let mut stdout = std::io::stdout().lock();
    if json {
        writeln!(stdout, "{}", serde_json::to_string_pretty(&difference)?)?;
    } else {
        let mut table = Table::new();
        table.load_preset(UTF8_FULL_CONDENSED);
        table.set_header(["variant", "metric", "before", "after", "change", "verdict"]);
        let rows = difference.rows();
        table.add_rows(rows.iter().take(ROWS_MAX).cloned());
        writeln!(stdout, "{}\n{table}", difference.sentence())?;
        if rows.len() > ROWS_MAX {
            writeln!(stdout, "and {} more; --json shows all", rows.len() - ROWS_MAX)?;
        }
        for parting in difference.parted.iter().take(PARTINGS_SHOWN) {
            let until = parting
                .same_until_s
                .map_or("the beginning".to_owned(), |at_s| format!("{at_s} s"));
            writeln!(
                stdout,
                "{} seed {}: the same until {until} of virtual time",
                parting.variant, parting.seed
            )?;
        }
    }
    Ok(code(difference.is_none()))
}
