//! One run: a variant of a scenario with a seed, from its beginning to its result.

use std::collections::BTreeMap;
use std::io::Read;

use thiserror::Error;

use crate::engine::{Breach, Ended, EpochDigest, LimitError, Limits, Simulation, SnapshotError};
use crate::results::{
    BreachRecord, Distribution, Epoch, FORMAT, Host, Manifest, RunResult, Series, shortened,
};
use crate::scenario::answer::{AnswerError, Figured};
use crate::scenario::document::{Change, DocumentError};
use crate::scenario::plan::{Plan, PlanError, Variant};
use crate::world::config::MarketConfig;
use crate::world::{self, Figures, MarketWorld};

/// Why there is no result.
#[derive(Debug, Error)]
pub enum RunError {
    /// The scenario has a mistake.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The scenario's world has a mistake.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// The snapshot is not of this run.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// It grew beyond its limits.
    #[error(transparent)]
    Limit(#[from] LimitError),
}

/// What a result says about the machine that made it. Nothing of it reaches a digest.
#[derive(Clone, Debug, PartialEq)]
pub struct Circumstances {
    /// The machine.
    pub host: Host,
    /// Real time that the run took, in seconds.
    pub wall_s: f64,
    /// Threads that ran it.
    pub threads: usize,
    /// The most memory that the program has held, in bytes; 0 where the system does not say.
    pub peak_rss_bytes: u64,
}

/// A world at its beginning, and how far it may go.
///
/// # Errors
/// [`DocumentError`] where the scenario has a mistake.
pub fn begin(variant: &Variant, seed: u64) -> Result<(Simulation<MarketWorld>, Limits), DocumentError> {
    let config: MarketConfig = variant.read()?;
    let limits = limits(&config);
    Ok((world::build(config, seed), limits))
}

fn limits(config: &MarketConfig) -> Limits {
    Limits::until_us(config.duration_s.get().saturating_mul(1_000_000))
}

/// A world as a snapshot has it, and how far it may go.
///
/// # Errors
/// [`RunError`] where the scenario has a mistake, or the snapshot is damaged or of another run.
pub fn resume(
    variant: &Variant,
    seed: u64,
    snapshot: &mut impl Read,
) -> Result<(Simulation<MarketWorld>, Limits), RunError> {
    let config: MarketConfig = variant.read()?;
    let limits = limits(&config);
    let world = MarketWorld::new(config, seed);
    let simulation = Simulation::read_snapshot(world, variant.identity(), seed, snapshot)?;
    Ok((simulation, limits))
}

/// What a run found out.
pub fn finish(
    plan: &Plan,
    variant: &Variant,
    seed: u64,
    simulation: &mut Simulation<MarketWorld>,
    ended: &Ended,
    circumstances: &Circumstances,
) -> RunResult {
    let Figures {
        mut metrics,
        series,
        spreads,
    } = world::figures(simulation);
    metrics.insert("nodes".to_owned(), f64::from(simulation.nodes()));
    let events = simulation.events();
    let breaches: Vec<BreachRecord> = match ended {
        Ended::Broken(breach) => vec![recorded(breach, events)],
        Ended::AtEnd | Ended::Stopped => Vec::new(),
    };
    metrics.insert("breaches".to_owned(), if breaches.is_empty() { 0.0 } else { 1.0 });
    let mut result = RunResult {
        manifest: Manifest {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            scenario: plan.name.clone(),
            scenario_digest: RunResult::digest_of(plan.text()),
            changes: changed_in_all(variant),
            question: plan.question.clone(),
            answer: None,
            headline: plan.answer.headline.clone(),
            parameters: variant.parameters.clone(),
            seed,
            nodes: u64::from(simulation.nodes()),
            events,
            virtual_s: seconds(simulation.now_us()),
            digest: simulation.digest(),
            epochs: shortened(simulation.epochs().iter().map(epoch).collect()),
            host: circumstances.host.clone(),
            wall_s: circumstances.wall_s,
            threads: u32::try_from(circumstances.threads).unwrap_or(u32::MAX),
            peak_rss_bytes: circumstances.peak_rss_bytes,
            breaches,
            replay: replay(&plan.source, variant.changes(), seed),
        },
        scenario: plan.text().to_owned(),
        metrics,
        series: series
            .into_iter()
            .map(|series| Series {
                name: series.name,
                unit: series.unit.to_owned(),
                points: series.points,
            })
            .collect(),
        distributions: spreads
            .into_iter()
            .map(|spread| Distribution {
                name: spread.name,
                unit: spread.unit.to_owned(),
                buckets: spread.parts,
            })
            .collect(),
        tables: Vec::new(),
    };
    // A sentence that names a figure of another variant cannot be made of this one alone.
    let answer = answer(plan, std::slice::from_ref(&result)).ok();
    result.manifest.answer = answer.filter(|answer| !answer.is_empty());
    result
}

/// What was changed of the file's text, without what is varied.
fn changed_in_all(variant: &Variant) -> BTreeMap<String, String> {
    let changes = variant.changes().iter();
    changes
        .filter(|change| !variant.parameters.contains_key(&change.key))
        .map(|Change { key, value }| (key.clone(), value.clone()))
        .collect()
}

/// Seconds of virtual time.
#[expect(clippy::cast_precision_loss, reason = "2^53 microseconds are 285 years")]
pub(crate) fn seconds(microseconds: u64) -> f64 {
    microseconds as f64 / 1e6
}

fn epoch(epoch: &EpochDigest) -> Epoch {
    Epoch {
        at_s: seconds(epoch.at_us),
        digest: blake3::Hash::from_bytes(epoch.digest).to_hex().to_string(),
    }
}

fn recorded(breach: &Breach, event: u64) -> BreachRecord {
    BreachRecord {
        rule: breach.rule.clone(),
        message: breach.message.clone(),
        node: breach.node,
        at_us: breach.at_us,
        event,
    }
}

/// The command that makes a run again.
#[must_use]
pub fn replay(scenario: &str, changes: &[Change], seed: u64) -> String {
    let mut command = format!("gristmill simulate run {}", quoted(scenario));
    for Change { key, value } in changes {
        command.push_str(" --set ");
        command.push_str(&quoted(&format!("{key}={value}")));
    }
    format!("{command} --seed {seed}")
}

/// A word for a POSIX shell.
pub(crate) fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./=,:+@%".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// The variants with the means of their figures over all seeds, in the order of the runs.
#[must_use]
pub fn figured(runs: &[RunResult]) -> Vec<Figured> {
    let mut variants: Vec<(Figured, BTreeMap<&str, f64>)> = Vec::new();
    for run in runs {
        let parameters = &run.manifest.parameters;
        let place = variants
            .iter()
            .position(|(figured, _)| figured.parameters == *parameters)
            .unwrap_or_else(|| {
                let figured = Figured {
                    parameters: parameters.clone(),
                    metrics: BTreeMap::new(),
                };
                variants.push((figured, BTreeMap::new()));
                variants.len() - 1
            });
        let Some((figured, counts)) = variants.get_mut(place) else {
            continue;
        };
        for (name, value) in &run.metrics {
            *figured.metrics.entry(name.clone()).or_insert(0.0) += value;
            *counts.entry(name.as_str()).or_insert(0.0) += 1.0;
        }
    }
    let mean = |(mut figured, counts): (Figured, BTreeMap<&str, f64>)| {
        for (name, sum) in &mut figured.metrics {
            *sum /= counts.get(name.as_str()).copied().unwrap_or(1.0);
        }
        figured
    };
    variants.into_iter().map(mean).collect()
}

/// The sentence that answers the plan's question, of these runs.
///
/// # Errors
/// [`AnswerError`] where the sentence names a figure that is not there.
pub fn answer(plan: &Plan, runs: &[RunResult]) -> Result<String, AnswerError> {
    let mut variants = figured(runs);
    let are_those_of_the_file = plan.varies_as_its_file() && are_of_all_variants(plan, &variants);
    for variant in &mut variants {
        for Change { key, value } in plan.changes() {
            let value = value.trim_matches('"').to_owned();
            variant.parameters.entry(key.clone()).or_insert(value);
        }
    }
    plan.answer.sentence(&variants, are_those_of_the_file)
}

/// Whether these are the plan's variants, all of them in its order.
fn are_of_all_variants(plan: &Plan, figured: &[Figured]) -> bool {
    plan.variants().is_ok_and(|variants| {
        let planned = variants.iter().map(|variant| &variant.parameters);
        planned.eq(figured.iter().map(|figured| &figured.parameters))
    })
}

/// What the runs show that the plan did not expect, in words.
#[must_use]
pub fn unexpected(plan: &Plan, runs: &[RunResult]) -> Vec<String> {
    let variants = figured(runs);
    plan.expectations
        .iter()
        .flat_map(|expectation| expectation.failures(&variants))
        .collect()
}
