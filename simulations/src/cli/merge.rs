//! `simulate merge`: puts the runs of a sweep together, wherever they were run; `simulate diff` compares two results.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;

use super::show;
use super::sweep::Sweep;
use crate::results::difference::Difference;
use crate::results::{Grid, folder, merge};
use crate::running;
use crate::scenario::plan::Plan;

/// Most changed metrics that are shown to people.
const ROWS_MAX: usize = 60;
/// Most runs of which is shown where they part.
const PARTINGS_SHOWN: usize = 20;

/// What `simulate merge` is told.
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    /// The folder of a sweep
    folder: PathBuf,
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
    let sweep = Sweep::read(&arguments.folder)?;
    let plan = sweep
        .recipe
        .plan()
        .with_context(|| format!("{} is damaged", arguments.folder.display()))?;
    merge_sweep(&arguments.folder, &sweep, &plan, json)
}

/// Puts together what a sweep's folder holds, writes tables and report, and says what came of it.
pub(super) fn merge_sweep(folder: &Path, sweep: &Sweep, plan: &Plan, json: bool) -> anyhow::Result<ExitCode> {
    let runs = folder::run_folders(folder)?
        .iter()
        .map(|run| folder::read_run(run))
        .collect::<Result<Vec<_>, _>>()?;
    let planned = Grid {
        parameters: parameters(plan)?,
        seeds: sweep.seeds.iter().copied().collect(),
    };
    let mut experiment = merge::merge(&plan.name, runs, Some(&planned), merge::Allowed::default())?;
    in_order_of(plan, &mut experiment.runs)?;
    experiment.answer = running::answer(plan, &experiment.runs)
        .ok()
        .filter(|answer| !answer.is_empty());
    folder::renew_experiment(folder, &experiment)?;
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
    let is_well = show::print(plan, &experiment.runs, json, &mut std::io::stdout().lock())?;
    let is_whole = experiment.missing.is_empty();
    Ok(if is_well && is_whole {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
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
    Ok(if difference.is_none() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
