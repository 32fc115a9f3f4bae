//! What runs leave behind: figures, time series and distributions, with a manifest that says how to get them again.
//!
//! A world gives a [`RunResult`]; the command line stores it with [`folder`], joins many into an [`Experiment`] with
//! [`merge`], shows it with [`report`] and compares it with [`difference`]. Only [`folder`] touches files, and nothing
//! here reaches a run's trace: floating point is free to differ in its last digit from machine to machine.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub mod comma_separated;
pub mod difference;
pub mod folder;
pub mod merge;
#[cfg(feature = "parquet")]
pub mod parquet;
pub mod report;
pub mod statistics;
pub mod summary;
pub mod table;

/// The layout of a run's folder and manifest. One that is larger was written by a newer program.
pub const FORMAT: u32 = 1;

/// The most epochs whose digests a manifest holds.
pub const MAX_EPOCHS: usize = 1_000;

/// Where and how a run was made: all that somebody needs to make it again and to trust it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The layout of the files: [`FORMAT`].
    pub format: u32,
    /// Version of the program.
    pub version: String,
    /// Name of the scenario.
    pub scenario: String,
    /// BLAKE3 of the scenario's text, in hexadecimal.
    pub scenario_digest: String,
    /// What was changed of that text in all runs of the experiment, by whole key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub changes: BTreeMap<String, String>,
    /// What the scenario asks.
    pub question: String,
    /// What this run answers, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    /// The metrics that answer the question, the most important one first.
    #[serde(default)]
    pub headline: Vec<String>,
    /// What was varied in the experiment, with this run's values.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
    /// The seed.
    pub seed: u64,
    /// How many nodes there were.
    pub nodes: u64,
    /// How many events happened.
    pub events: u64,
    /// How long the run took in virtual time, in seconds.
    pub virtual_s: f64,
    /// BLAKE3 over everything that happened, in hexadecimal.
    pub digest: String,
    /// The digest at the end of some epochs, at most [`MAX_EPOCHS`], in the order of time.
    #[serde(default)]
    pub epochs: Vec<Epoch>,
    /// The machine.
    pub host: Host,
    /// How long the run took in real time, in seconds.
    pub wall_s: f64,
    /// Threads that ran it.
    pub threads: u32,
    /// The most memory that the program held, in bytes.
    pub peak_rss_bytes: u64,
    /// Rules that were broken. A run ends at the first.
    #[serde(default)]
    pub breaches: Vec<BreachRecord>,
    /// The command that makes this run again.
    pub replay: String,
}

/// The digest of everything up to one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// Virtual seconds since the beginning.
    pub at_s: f64,
    /// BLAKE3 in hexadecimal.
    pub digest: String,
}

/// A machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Operating system.
    pub os: String,
    /// Architecture, such as `x86_64`.
    pub arch: String,
    /// The processor's name, where the system tells it.
    pub cpu: String,
    /// Cores that the program may use.
    pub cores: u32,
}

/// A rule of the market that a run broke.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BreachRecord {
    /// The rule's name.
    pub rule: String,
    /// What happened.
    pub message: String,
    /// At which node.
    pub node: u32,
    /// When, in virtual microseconds.
    pub at_us: u64,
    /// How many events had happened.
    pub event: u64,
}

/// A figure over virtual time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// What is measured, in words with underscores.
    pub name: String,
    /// Its unit; empty for a plain number.
    pub unit: String,
    /// Virtual seconds and value, in the order of time.
    pub points: Vec<(f64, f64)>,
}

/// How often values of some size were seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    /// What is measured, in words with underscores.
    pub name: String,
    /// Its unit; empty for a plain number.
    pub unit: String,
    /// Largest value of a bucket and how many values lie in it, in ascending order.
    pub buckets: Vec<(f64, u64)>,
}

/// A small table that only people read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// Its heading.
    pub name: String,
    /// The columns' headings.
    pub columns: Vec<String>,
    /// As many cells a row as there are columns.
    pub rows: Vec<Vec<String>>,
}

/// Everything that one run found out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunResult {
    /// Where it comes from.
    pub manifest: Manifest,
    /// The scenario's text, without what was changed in it.
    pub scenario: String,
    /// Figures by name. The end of a name tells the unit, see [`unit_of`].
    pub metrics: BTreeMap<String, f64>,
    /// Figures over time.
    #[serde(default)]
    pub series: Vec<Series>,
    /// How values are distributed.
    #[serde(default)]
    pub distributions: Vec<Distribution>,
    /// Tables for people.
    #[serde(default)]
    pub tables: Vec<Listing>,
}

/// Why a result says nothing that can be stored.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ResultError {
    /// A figure that is infinite or not a number.
    #[error("{what} is no finite number; leave a figure out where it is not defined")]
    NotFinite {
        /// Which figure.
        what: String,
    },
    /// Points or buckets that go back.
    #[error("{what} is not in ascending order")]
    Disordered {
        /// Which series or distribution.
        what: String,
    },
    /// Two with the same name.
    #[error("there are two of the name {what}; each needs a name of its own")]
    Twice {
        /// Whose name.
        what: String,
    },
    /// A row that does not fit its table.
    #[error("row {row} of the table {table} has not as many cells as the table has columns")]
    Ragged {
        /// The table's name.
        table: String,
        /// The row, from 1.
        row: usize,
    },
}

impl RunResult {
    /// The bytes of the scenario's digest as the manifest should have it, in hexadecimal.
    #[must_use]
    pub fn digest_of(scenario: &str) -> String {
        blake3::hash(scenario.as_bytes()).to_hex().to_string()
    }

    /// Whether every figure can be written down and read again.
    ///
    /// # Errors
    /// [`ResultError`] naming the first that can't.
    pub fn check(&self) -> Result<(), ResultError> {
        let finite = |what: &str, values: &[f64]| {
            if values.iter().all(|value| value.is_finite()) {
                return Ok(());
            }
            Err(ResultError::NotFinite {
                what: what.to_owned(),
            })
        };
        let manifest = &self.manifest;
        finite("the run's time", &[manifest.virtual_s, manifest.wall_s])?;
        for epoch in &manifest.epochs {
            finite("an epoch's time", &[epoch.at_s])?;
        }
        for (name, value) in &self.metrics {
            finite(&format!("the metric {name}"), &[*value])?;
        }
        let mut names = BTreeSet::new();
        for series in &self.series {
            let what = format!("the series {}", series.name);
            for (at_s, value) in &series.points {
                finite(&what, &[*at_s, *value])?;
            }
            ascending(&what, series.points.iter().map(|point| point.0))?;
            unique(&mut names, what)?;
        }
        for distribution in &self.distributions {
            let what = format!("the distribution {}", distribution.name);
            for (upper, _) in &distribution.buckets {
                finite(&what, &[*upper])?;
            }
            ascending(&what, distribution.buckets.iter().map(|bucket| bucket.0))?;
            unique(&mut names, what)?;
        }
        for table in &self.tables {
            if let Some(row) = table.rows.iter().position(|row| row.len() != table.columns.len()) {
                return Err(ResultError::Ragged {
                    table: table.name.clone(),
                    row: row + 1,
                });
            }
            unique(&mut names, format!("the table {}", table.name))?;
        }
        Ok(())
    }
}

fn ascending(what: &str, values: impl Iterator<Item = f64>) -> Result<(), ResultError> {
    if values.is_sorted() {
        return Ok(());
    }
    Err(ResultError::Disordered {
        what: what.to_owned(),
    })
}

fn unique(names: &mut BTreeSet<String>, what: String) -> Result<(), ResultError> {
    if names.contains(&what) {
        return Err(ResultError::Twice { what });
    }
    names.insert(what);
    Ok(())
}

/// The runs that an experiment was meant to have: each combination of the values with each seed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grid {
    /// The values of each varied parameter, in the order in which people should see them.
    pub parameters: BTreeMap<String, Vec<String>>,
    /// The seeds.
    pub seeds: BTreeSet<u64>,
}

/// A set of runs that together answer a question: variants of parameters, each with some seeds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Experiment {
    /// Its name.
    pub name: String,
    /// The answer over all runs; without one, [`report`] makes a sentence of the first headline metric.
    #[serde(default)]
    pub answer: Option<String>,
    /// What it was meant to have. Values that it does not name come after those that it does, smallest first.
    #[serde(default)]
    pub grid: Grid,
    /// Runs that were meant to be and are not there, in words.
    #[serde(default)]
    pub missing: Vec<String>,
    /// The runs, ordered by variant and seed.
    pub runs: Vec<RunResult>,
}

impl Experiment {
    /// An experiment of one run, for its report.
    #[must_use]
    pub fn of_run(run: RunResult) -> Self {
        Self {
            name: run.manifest.scenario.clone(),
            answer: run.manifest.answer.clone(),
            grid: Grid::default(),
            missing: Vec::new(),
            runs: vec![run],
        }
    }

    /// BLAKE3 over the runs' digests in their order, in hexadecimal: two experiments with one digest are one.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for run in &self.runs {
            hasher.update(blake3::hash(run.manifest.digest.as_bytes()).as_bytes());
        }
        hasher.finalize().to_hex().to_string()
    }
}

/// What stands behind the unit in a metric's name: which of many values it is.
const WHICH: [&str; 8] = [
    "_p50",
    "_p90",
    "_p95",
    "_p99",
    "_p999",
    "_mean",
    "_smallest",
    "_largest",
];

/// Sums of a market that are in microcredits, in all or of a group as in `settled.home`.
const IN_MICROCREDITS: [&str; 14] = [
    "delivered",
    "settled",
    "owed",
    "paid",
    "paid_per_million_output_tokens",
    "provider_unpaid",
    "provider_lost_vouchers",
    "consumer_unpromised",
    "starter_given",
    "starter_farmed",
    "book_issued",
    "book_fees",
    "book_settled",
    "book_held",
];

/// The unit that the end of a metric's name tells: `age_p99_s` is in seconds, and so is `age_s_p99`; sums of money are in
/// microcredits. Empty for a plain number.
#[must_use]
pub fn unit_of(metric: &str) -> &'static str {
    const ENDINGS: [(&str, &str); 13] = [
        ("_bytes_per_second", "B/s"),
        ("_bytes_per_s", "B/s"),
        ("_bytes_per_node", "B"),
        ("_per_second", "1/s"),
        ("_per_s", "1/s"),
        ("_microcredits", "µcr"),
        ("_credits", "credits"),
        ("_fraction", "share"),
        ("_share", "share"),
        ("_bytes", "B"),
        ("_us", "µs"),
        ("_ms", "ms"),
        ("_s", "s"),
    ];
    let whole = metric.split('.').next().unwrap_or(metric);
    if IN_MICROCREDITS.contains(&whole) {
        return "µcr";
    }
    let bare = WHICH
        .iter()
        .find_map(|which| metric.strip_suffix(which))
        .unwrap_or(metric);
    let found = ENDINGS.iter().find(|(ending, _)| bare.ends_with(ending));
    found.map_or("", |(_, unit)| unit)
}

/// At most [`MAX_EPOCHS`] of a chain of digests, the last always among them. Each second one is left out until they
/// are few enough, so that what is left of two runs of one length lies at the same times.
#[must_use]
pub fn shortened(epochs: Vec<Epoch>) -> Vec<Epoch> {
    let (count, mut every) = (epochs.len(), 1);
    while count.div_ceil(every) + 1 > MAX_EPOCHS {
        every *= 2;
    }
    let is_kept = |index: usize| index.is_multiple_of(every) || index + 1 == count;
    let kept = epochs.into_iter().enumerate();
    kept.filter(|(index, _)| is_kept(*index))
        .map(|(_, epoch)| epoch)
        .collect()
}

#[cfg(test)]
pub(crate) mod tests;
