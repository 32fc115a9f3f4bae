//! Runs grouped by what was varied: each variant's metrics over its seeds.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::statistics::{Growth, Sample, growth};
use super::table::number;
use super::{Experiment, Grid, Manifest, RunResult};
use crate::scenario::answer::Figured;

/// One choice of parameters, over its seeds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Variant {
    /// The varied parameters with their values.
    pub parameters: BTreeMap<String, String>,
    /// The seeds, ascending.
    pub seeds: Vec<u64>,
    /// Each metric over the runs that have it.
    pub metrics: BTreeMap<String, Sample>,
    /// Rules that its runs broke.
    pub breaches: usize,
    /// Its runs, as places in [`Experiment::runs`].
    #[serde(skip)]
    pub runs: Vec<usize>,
}

/// An experiment's variants.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// The parameters that have more than one value among the runs, with these
    /// in their order.
    pub varied: BTreeMap<String, Vec<String>>,
    /// The variants, ordered by their parameters' values.
    pub variants: Vec<Variant>,
    /// The metrics in the order in which people should see them: those of the headline first.
    pub metrics: Vec<String>,
    /// How many of these are of the headline.
    pub headline: usize,
}

/// Compares two values of a parameter: as numbers where both are.
#[must_use]
pub fn by_value(one: &str, other: &str) -> Ordering {
    match (number(one), number(other)) {
        (Some(first), Some(second)) => first.total_cmp(&second).then_with(|| one.cmp(other)),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => one.cmp(other),
    }
}

/// Compares two manifests by their parameters' values in the grid's order, then by their seeds.
#[must_use]
pub fn by_variant(grid: &Grid, one: &Manifest, other: &Manifest) -> Ordering {
    let mut pairs = one.parameters.iter().zip(&other.parameters);
    pairs
        .find_map(|((name, value), (other_name, other_value))| {
            let order = name
                .cmp(other_name)
                .then_with(|| by_place(grid, name, value, other_value));
            order.is_ne().then_some(order)
        })
        .unwrap_or_else(|| one.parameters.len().cmp(&other.parameters.len()))
        .then_with(|| one.seed.cmp(&other.seed))
}

/// Compares two values of a parameter by their places in the grid, and those that it does not name by value.
fn by_place(grid: &Grid, parameter: &str, one: &str, other: &str) -> Ordering {
    let place = |value: &str| {
        let values = grid.parameters.get(parameter);
        let found = values.and_then(|values| values.iter().position(|known| known == value));
        found.unwrap_or(usize::MAX)
    };
    place(one).cmp(&place(other)).then_with(|| by_value(one, other))
}

impl Variant {
    /// The values in a line, such as `churn = 0.1, region = eu`.
    #[must_use]
    pub fn label(&self) -> String {
        label(&self.parameters)
    }

    /// The means, for the sentence that answers.
    #[must_use]
    pub fn figured(&self) -> Figured {
        let means = self.metrics.iter();
        Figured {
            parameters: self.parameters.clone(),
            metrics: means.map(|(name, sample)| (name.clone(), sample.mean)).collect(),
        }
    }

    fn of(runs: &[RunResult], places: Vec<usize>) -> Option<Self> {
        let mine: Vec<&RunResult> = places.iter().filter_map(|place| runs.get(*place)).collect();
        let first = mine.first()?;
        let mut values: BTreeMap<&String, Vec<f64>> = BTreeMap::new();
        for run in &mine {
            for (name, value) in &run.metrics {
                values.entry(name).or_default().push(*value);
            }
        }
        let samples = values
            .into_iter()
            .filter_map(|(name, values)| Some((name.clone(), Sample::of(&values)?)));
        Some(Self {
            parameters: first.manifest.parameters.clone(),
            seeds: mine.iter().map(|run| run.manifest.seed).collect(),
            metrics: samples.collect(),
            breaches: mine.iter().map(|run| run.manifest.breaches.len()).sum(),
            runs: places,
        })
    }
}

/// Parameters in a line, such as `churn = 0.1, region = eu`.
#[must_use]
pub fn label(parameters: &BTreeMap<String, String>) -> String {
    if parameters.is_empty() {
        return "as the scenario says".to_owned();
    }
    let parts: Vec<String> = parameters
        .iter()
        .map(|(name, value)| format!("{name} = {value}"))
        .collect();
    parts.join(", ")
}

impl Summary {
    /// Groups an experiment's runs.
    #[must_use]
    pub fn of(experiment: &Experiment) -> Self {
        let runs = &experiment.runs;
        let mut order: Vec<usize> = (0..runs.len()).collect();
        order
            .sort_by(|one, other| by_variant(&experiment.grid, &runs[*one].manifest, &runs[*other].manifest));
        let mut groups: Vec<Vec<usize>> = Vec::new();
        for place in order {
            let parameters = &runs[place].manifest.parameters;
            match groups.last_mut() {
                Some(group) if runs[group[0]].manifest.parameters == *parameters => group.push(place),
                _ => groups.push(vec![place]),
            }
        }
        let (metrics, headline) = metrics(runs);
        Self {
            varied: varied(runs, &experiment.grid),
            variants: groups
                .into_iter()
                .filter_map(|group| Variant::of(runs, group))
                .collect(),
            metrics,
            headline,
        }
    }

    /// The headline's metrics. Without a headline the first that differ between variants, as many as are asked for.
    #[must_use]
    pub fn foremost(&self, count: usize) -> Vec<&str> {
        let is_one = self.variants.len() < 2;
        let all = self.metrics.iter().map(String::as_str).enumerate();
        let chosen = all.filter(|(place, metric)| match self.headline {
            0 => is_one || self.differs(metric),
            headline => *place < headline,
        });
        chosen.map(|(_, metric)| metric).take(count).collect()
    }

    /// Whether a metric is not the same in all variants.
    pub(super) fn differs(&self, metric: &str) -> bool {
        let mut means = self
            .variants
            .iter()
            .filter_map(|variant| Some(variant.metrics.get(metric)?.mean));
        let first = means.next();
        means.any(|mean| Some(mean) != first)
    }

    /// How a metric grows with a parameter, over all variants that have both above 0.
    #[must_use]
    pub fn growth(&self, metric: &str, parameter: &str) -> Option<Growth> {
        let point = |variant: &Variant| {
            let size = number(variant.parameters.get(parameter)?)?;
            Some((size, variant.metrics.get(metric)?.mean))
        };
        let points: Vec<(f64, f64)> = self.variants.iter().filter_map(point).collect();
        growth(&points)
    }
}

fn varied(runs: &[RunResult], grid: &Grid) -> BTreeMap<String, Vec<String>> {
    let mut values: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for run in runs {
        for (name, value) in &run.manifest.parameters {
            values.entry(name.clone()).or_default().insert(value.clone());
        }
    }
    let several = values.into_iter().filter(|(_, values)| values.len() > 1);
    let sorted = several.map(|(name, values)| {
        let mut values: Vec<String> = values.into_iter().collect();
        values.sort_by(|one, other| by_place(grid, &name, one, other));
        (name, values)
    });
    sorted.collect()
}

/// All metrics, those of the headline first, and how many these are.
fn metrics(runs: &[RunResult]) -> (Vec<String>, usize) {
    let known: BTreeSet<&String> = runs.iter().flat_map(|run| run.metrics.keys()).collect();
    let mut ordered: Vec<String> = Vec::new();
    let headline = runs.iter().flat_map(|run| &run.manifest.headline);
    for name in headline.filter(|name| known.contains(name)) {
        if !ordered.contains(name) {
            ordered.push(name.clone());
        }
    }
    let count = ordered.len();
    let rest: Vec<String> = known
        .into_iter()
        .filter(|name| !ordered.contains(name))
        .cloned()
        .collect();
    ordered.extend(rest);
    (ordered, count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::run_of;

    #[test]
    fn the_grid_says_the_order_of_values() {
        let order = ["never", "hourly", "0.5", "2"];
        let runs = ["2", "hourly", "0.5", "never"].map(|rate| run_of(&[("rate", rate)], 1));
        let experiment = Experiment {
            grid: Grid {
                parameters: [(
                    "rate".to_owned(),
                    order[..2].iter().map(ToString::to_string).collect(),
                )]
                .into(),
                ..Grid::default()
            },
            runs: runs.into(),
            ..Experiment::of_run(run_of(&[], 1))
        };
        let summary = Summary::of(&experiment);
        assert_eq!(summary.varied["rate"], order);
        let labels: Vec<String> = summary.variants.iter().map(Variant::label).collect();
        assert_eq!(labels, order.map(|rate| format!("rate = {rate}")));
        assert_eq!(summary.variants[0].figured().metrics.len(), 3);
    }

    #[test]
    fn variants_are_in_the_order_of_their_numbers_and_metrics_in_that_of_the_headline() {
        let mut runs = Vec::new();
        for churn in ["10", "9", "0.5"] {
            for seed in [3, 1, 2] {
                runs.push(run_of(&[("churn", churn), ("region", "eu")], seed));
            }
        }
        let experiment = Experiment {
            runs,
            ..Experiment::of_run(run_of(&[], 1))
        };
        let summary = Summary::of(&experiment);
        let values: Vec<&str> = summary
            .variants
            .iter()
            .map(|variant| &*variant.parameters["churn"])
            .collect();
        assert_eq!(values, ["0.5", "9", "10"]);
        assert!(summary.variants.iter().all(|variant| variant.seeds == [1, 2, 3]));
        assert_eq!(summary.varied.keys().collect::<Vec<_>>(), ["churn"]);
        assert_eq!(summary.metrics[0], "delivered_share");
        assert_eq!((summary.metrics.len(), summary.headline), (3, 1));
        assert_eq!(summary.foremost(5), ["delivered_share"]);
        let without = Experiment {
            runs: experiment
                .runs
                .iter()
                .cloned()
                .map(|mut run| {
                    run.manifest.headline.clear();
                    run
                })
                .collect(),
            ..experiment
        };
        // The third is the same everywhere.
        assert_eq!(
            Summary::of(&without).foremost(5),
            ["age_p99_s", "delivered_share"]
        );
        assert_eq!(summary.variants[1].label(), "churn = 9, region = eu");
        let sample = &summary.variants[0].metrics["age_p99_s"];
        assert!(sample.count == 3 && sample.interval.is_some());
        assert!(
            summary
                .growth("age_p99_s", "churn")
                .is_some_and(|growth| growth.exponent > 0.0)
        );
        assert_eq!(summary.growth("age_p99_s", "region"), None);
    }
}
