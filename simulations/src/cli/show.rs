//! What is said of runs that are done: for people as a sentence and a table, for programs as JSON.

use std::io::Write;

use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use serde::Serialize;
use serde_json::{Value, json};

use crate::results::{BreachRecord, RunResult};
use crate::running;
use crate::scenario::plan::Plan;

/// What all runs of one command come to.
#[derive(Debug, Serialize)]
struct Summary<'a> {
    scenario: &'a str,
    question: &'a str,
    /// None where the sentence cannot be made of these runs, such as of one variant where it compares several.
    answer: Option<String>,
    /// Of the largest run.
    nodes: u64,
    seed: u64,
    /// Of all runs together.
    events: u64,
    events_per_second: f64,
    peak_rss_bytes: u64,
    /// Of the only run, or over those of all.
    digest: String,
    breaches: Vec<&'a BreachRecord>,
    unexpected: Vec<String>,
    wall_s: f64,
    threads: u32,
    /// Of the largest run, where any node of it is idle at its end.
    bytes_per_idle_node: Option<f64>,
    protocol_bytes_per_node: f64,
    runs: Vec<Value>,
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn summary<'a>(plan: &'a Plan, runs: &'a [RunResult], answer: Option<String>) -> Summary<'a> {
    let manifests = || runs.iter().map(|run| &run.manifest);
    let largest = runs.iter().max_by_key(|run| run.manifest.nodes);
    let metric = |name: &str| largest.and_then(|run| run.metrics.get(name)).copied();
    let events = manifests().map(|manifest| manifest.events).sum();
    let wall_s: f64 = manifests().map(|manifest| manifest.wall_s).sum();
    Summary {
        scenario: &plan.name,
        question: &plan.question,
        answer,
        nodes: manifests().map(|manifest| manifest.nodes).max().unwrap_or(0),
        seed: manifests().next().map_or(0, |manifest| manifest.seed),
        events,
        events_per_second: if wall_s > 0.0 { events as f64 / wall_s } else { 0.0 },
        peak_rss_bytes: manifests()
            .map(|manifest| manifest.peak_rss_bytes)
            .max()
            .unwrap_or(0),
        digest: digest(runs),
        breaches: manifests().flat_map(|manifest| &manifest.breaches).collect(),
        unexpected: running::unexpected(plan, runs),
        wall_s,
        threads: manifests().map(|manifest| manifest.threads).max().unwrap_or(0),
        bytes_per_idle_node: metric("bytes_per_idle_node"),
        protocol_bytes_per_node: metric("protocol_bytes_per_node").unwrap_or(0.0),
        runs: runs.iter().map(run_as_json).collect(),
    }
}

fn run_as_json(run: &RunResult) -> Value {
    let manifest = &run.manifest;
    json!({
        "parameters": manifest.parameters,
        "nodes": manifest.nodes,
        "seed": manifest.seed,
        "events": manifest.events,
        "virtual_s": manifest.virtual_s,
        "wall_s": manifest.wall_s,
        "digest": manifest.digest,
        "breaches": manifest.breaches,
        "replay": manifest.replay,
        "metrics": run.metrics,
    })
}

/// The digest of the only run, or BLAKE3 over those of all.
fn digest(runs: &[RunResult]) -> String {
    if let [only] = runs {
        return only.manifest.digest.clone();
    }
    let mut hasher = blake3::Hasher::new();
    for run in runs {
        hasher.update(run.manifest.digest.as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

/// Prints what runs found out. Whether all is well: no rule was broken, and everything is as the scenario expects.
pub(super) fn print(
    plan: &Plan,
    runs: &[RunResult],
    json: bool,
    out: &mut impl Write,
) -> anyhow::Result<bool> {
    let answer = running::answer(plan, runs);
    if let Err(error) = &answer {
        writeln!(std::io::stderr().lock(), "no answer in a sentence: {error}")?;
    }
    let summary = summary(plan, runs, answer.ok());
    if json {
        writeln!(out, "{}", serde_json::to_string_pretty(&summary)?)?;
    } else {
        writeln!(
            out,
            "{}\n\n{}\n\n{}",
            summary.question,
            summary.answer.as_deref().unwrap_or("See the figures."),
            table(plan, runs)
        )?;
        writeln!(
            out,
            "\n{} events in {:.2} s on {} threads, {:.0} a second; digest {}",
            summary.events, summary.wall_s, summary.threads, summary.events_per_second, summary.digest
        )?;
    }
    let mut stderr = std::io::stderr().lock();
    for breach in &summary.breaches {
        writeln!(
            stderr,
            "error: {} was broken at node {} at {} µs of virtual time, within {} events: {}",
            breach.rule, breach.node, breach.at_us, breach.event, breach.message
        )?;
    }
    for run in runs.iter().filter(|run| !run.manifest.breaches.is_empty()) {
        writeln!(stderr, "It breaks again with: {}", run.manifest.replay)?;
    }
    for unexpected in &summary.unexpected {
        writeln!(stderr, "error: not as the scenario expects: {unexpected}")?;
    }
    Ok(summary.breaches.is_empty() && summary.unexpected.is_empty())
}

/// A row for each figure, a column for each variant: all figures of a single one, those that answer of several.
fn table(plan: &Plan, runs: &[RunResult]) -> Table {
    let variants = running::figured(runs);
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED);
    for key in plan.dimensions().iter().map(|dimension| &dimension.key) {
        let values = variants
            .iter()
            .map(|variant| variant.parameters.get(key).cloned().unwrap_or_default());
        table.add_row(std::iter::once(key.clone()).chain(values));
    }
    let mut names: Vec<&String> = plan.answer.headline.iter().collect();
    if variants.len() == 1 || names.is_empty() {
        names = variants
            .iter()
            .flat_map(|variant| variant.metrics.keys())
            .collect();
        names.sort();
        names.dedup();
    }
    for name in names {
        let values = variants.iter().map(|variant| {
            variant
                .metrics
                .get(name)
                .map_or_else(String::new, |value| figure(*value))
        });
        table.add_row(std::iter::once(name.clone()).chain(values));
    }
    table
}

/// A figure without digits that say nothing.
fn figure(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        return format!("{value:.0}");
    }
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
