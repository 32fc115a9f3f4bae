//! Runs from many folders, such as those of a Slurm array, as one experiment.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use super::summary::{by_value, by_variant, label};
use super::{Experiment, Grid, Manifest, RunResult};

/// The most combinations that are gone through.
const MAX_PLANNED: usize = 100_000;
/// The most missing runs that are named one by one.
const MAX_NAMED: usize = 50;

/// What may be put together although it differs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// Runs of different scenarios.
    pub scenarios: bool,
    /// Runs of different versions of the program.
    pub versions: bool,
}

/// Why runs are not one experiment.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MergeError {
    /// There are none.
    #[error("there is no run to merge")]
    Empty,
    /// Different scenarios.
    #[error("the runs are of different scenarios ({}); merge each on its own, or allow it with --mixed", .0.join(", "))]
    Scenarios(Vec<String>),
    /// Different versions of the program.
    #[error(
        "the runs were made by different versions ({}); compare them with gristmill simulate diff, or allow it with --mixed",
        .0.join(", ")
    )]
    Versions(Vec<String>),
    /// One scenario of one version, with different texts or changes: the tables could not tell the runs apart.
    #[error(
        "the runs of {scenario} are not of one scenario: {difference}; vary what differs in one sweep \
         (gristmill simulate sweep … --vary KEY=VALUE,VALUE), or give one of them another name"
    )]
    Changed {
        /// The scenario's name.
        scenario: String,
        /// What differs.
        difference: String,
    },
    /// Two runs of one variant and seed with different digests.
    #[error(
        "there are two runs of {variant} with seed {seed} and different digests ({first} and {second}); \
         one of them was not made by what its manifest says, so run both again"
    )]
    Contradiction {
        /// The parameters.
        variant: String,
        /// The seed.
        seed: u64,
        /// The digest of one.
        first: String,
        /// The digest of the other.
        second: String,
    },
}

/// Puts runs together. A run that is there twice counts once. What is missing is named: of the grid, or without one
/// of all combinations of the values and seeds that any run has.
///
/// # Errors
/// [`MergeError`] where the runs do not belong together.
pub fn merge(
    name: &str,
    mut runs: Vec<RunResult>,
    grid: Option<&Grid>,
    allowed: Allowed,
) -> Result<Experiment, MergeError> {
    if runs.is_empty() {
        return Err(MergeError::Empty);
    }
    let different = |of: fn(&RunResult) -> &String| -> Option<Vec<String>> {
        let found: BTreeSet<&String> = runs.iter().map(of).collect();
        (found.len() > 1).then(|| found.into_iter().cloned().collect())
    };
    if let Some(found) = different(|run| &run.manifest.scenario).filter(|_| !allowed.scenarios) {
        return Err(MergeError::Scenarios(found));
    }
    if let Some(found) = different(|run| &run.manifest.version).filter(|_| !allowed.versions) {
        return Err(MergeError::Versions(found));
    }
    all_alike(&runs)?;
    let grid = grid.cloned().unwrap_or_else(|| seen_in(&runs));
    let order = |one: &RunResult, other: &RunResult| order(&grid, one, other);
    runs.sort_by(|one, other| {
        order(one, other).then_with(|| one.manifest.digest.cmp(&other.manifest.digest))
    });
    for pair in runs.windows(2) {
        let (first, second) = (&pair[0].manifest, &pair[1].manifest);
        if order(&pair[0], &pair[1]).is_eq() && first.digest != second.digest {
            return Err(MergeError::Contradiction {
                variant: label(&first.parameters),
                seed: first.seed,
                first: first.digest.clone(),
                second: second.digest.clone(),
            });
        }
    }
    runs.dedup_by(|later, earlier| order(later, earlier).is_eq());
    Ok(Experiment {
        name: name.to_owned(),
        answer: None,
        missing: missing(&grid, &runs),
        grid,
        runs,
    })
}

/// Whether all runs that bear the same name of the same version are of one text with the same changes.
fn all_alike(runs: &[RunResult]) -> Result<(), MergeError> {
    let mut first: BTreeMap<(&str, &str), &Manifest> = BTreeMap::new();
    for RunResult { manifest, .. } in runs {
        let name = (manifest.scenario.as_str(), manifest.version.as_str());
        let before = *first.entry(name).or_insert(manifest);
        let difference = if before.scenario_digest != manifest.scenario_digest {
            format!(
                "their texts differ, with digests {} and {}",
                before.scenario_digest, manifest.scenario_digest
            )
        } else if before.changes != manifest.changes {
            changed_otherwise(&before.changes, &manifest.changes)
        } else {
            continue;
        };
        return Err(MergeError::Changed {
            scenario: manifest.scenario.clone(),
            difference,
        });
    }
    Ok(())
}

/// The first key that two runs changed in different ways, in words.
fn changed_otherwise(first: &BTreeMap<String, String>, second: &BTreeMap<String, String>) -> String {
    let keys: BTreeSet<&String> = first.keys().chain(second.keys()).collect();
    let value = |of: &BTreeMap<String, String>, key: &String| {
        of.get(key)
            .map_or_else(|| "what the file says".to_owned(), Clone::clone)
    };
    keys.into_iter()
        .find(|key| first.get(*key) != second.get(*key))
        .map_or_else(String::new, |key| {
            format!(
                "{key} is {} in one and {} in another",
                value(first, key),
                value(second, key)
            )
        })
}

/// The order of an experiment's runs. Equal are only runs that must have the same digest.
fn order(grid: &Grid, one: &RunResult, other: &RunResult) -> std::cmp::Ordering {
    let (first, second) = (&one.manifest, &other.manifest);
    by_variant(grid, first, second)
        .then_with(|| first.scenario.cmp(&second.scenario))
        .then_with(|| first.version.cmp(&second.version))
}

fn seen_in(runs: &[RunResult]) -> Grid {
    let mut grid = Grid::default();
    for run in runs {
        grid.seeds.insert(run.manifest.seed);
        for (name, value) in &run.manifest.parameters {
            let values = grid.parameters.entry(name.clone()).or_default();
            if !values.contains(value) {
                values.push(value.clone());
            }
        }
    }
    for values in grid.parameters.values_mut() {
        values.sort_by(|one, other| by_value(one, other));
    }
    grid
}

/// The runs of a grid that are not there, in words.
#[must_use]
pub fn missing(grid: &Grid, runs: &[RunResult]) -> Vec<String> {
    let there: BTreeSet<(&BTreeMap<String, String>, u64)> = runs
        .iter()
        .map(|run| (&run.manifest.parameters, run.manifest.seed))
        .collect();
    let combinations = grid
        .parameters
        .values()
        .try_fold(grid.seeds.len(), |count, values| count.checked_mul(values.len()));
    if combinations.is_none_or(|count| count > MAX_PLANNED) {
        return Vec::new();
    }
    let mut variants = vec![BTreeMap::new()];
    for (name, values) in &grid.parameters {
        let with = |variant: &BTreeMap<String, String>, value: &String| {
            let mut more = variant.clone();
            more.insert(name.clone(), value.clone());
            more
        };
        let longer = variants
            .iter()
            .flat_map(|variant| values.iter().map(move |value| with(variant, value)));
        variants = longer.collect();
    }
    let mut absent = Vec::new();
    for variant in &variants {
        for seed in &grid.seeds {
            if !there.contains(&(variant, *seed)) {
                absent.push(format!("{} with seed {seed}", label(variant)));
            }
        }
    }
    if absent.len() > MAX_NAMED {
        let more = absent.len() - MAX_NAMED;
        absent.truncate(MAX_NAMED);
        absent.push(format!("and {more} more"));
    }
    absent
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::run_of;

    fn runs() -> Vec<RunResult> {
        let with = |churn, seed| run_of(&[("churn", churn)], seed);
        vec![with("0.4", 2), with("0.1", 2), with("0.1", 1), with("0.4", 2)]
    }

    fn merged(runs: Vec<RunResult>, allowed: Allowed) -> Result<Experiment, MergeError> {
        merge("m", runs, None, allowed)
    }

    #[test]
    fn runs_are_ordered_counted_once_and_what_is_missing_is_named() {
        let experiment = merged(runs(), Allowed::default()).unwrap();
        let order: Vec<(&str, u64)> = experiment
            .runs
            .iter()
            .map(|run| (&*run.manifest.parameters["churn"], run.manifest.seed))
            .collect();
        assert_eq!(order, [("0.1", 1), ("0.1", 2), ("0.4", 2)]);
        assert_eq!(experiment.missing, ["churn = 0.4 with seed 1"]);
        let grid = Grid {
            parameters: [("churn".to_owned(), vec!["0.1".to_owned(), "0.9".to_owned()])].into(),
            seeds: [1, 2].into(),
        };
        let planned = merge("m", runs(), Some(&grid), Allowed::default()).unwrap();
        assert_eq!(
            planned.missing,
            ["churn = 0.9 with seed 1", "churn = 0.9 with seed 2"]
        );
        let many = Grid {
            seeds: (0..1_000).collect(),
            ..grid
        };
        let named = missing(&many, &[]);
        assert!(named.len() == MAX_NAMED + 1 && named[MAX_NAMED] == "and 1950 more");
    }

    #[test]
    fn what_does_not_belong_together_is_refused_unless_allowed() {
        assert_eq!(merged(Vec::new(), Allowed::default()), Err(MergeError::Empty));
        let mut mixed = runs();
        mixed[0].manifest.scenario = "price-war".into();
        let error = merged(mixed.clone(), Allowed::default()).unwrap_err();
        assert!(error.to_string().contains("gossip-reach, price-war"), "{error}");
        let allowed = Allowed {
            scenarios: true,
            ..Allowed::default()
        };
        assert_eq!(merged(mixed, allowed).unwrap().runs.len(), 4);
        let mut versions = runs();
        versions[1].manifest.version = "0.2.0".into();
        assert!(matches!(
            merged(versions, Allowed::default()),
            Err(MergeError::Versions(_))
        ));
        let mut changed = runs();
        changed[2].manifest.changes.insert("loss".into(), "0.5".into());
        let error = merged(changed, allowed).unwrap_err().to_string();
        assert!(
            error.contains("loss is what the file says in one and 0.5 in another"),
            "{error}"
        );
        let mut edited = runs();
        edited[0].manifest.scenario_digest = "another".into();
        let error = merged(edited, allowed).unwrap_err().to_string();
        assert!(error.contains("their texts differ"), "{error}");
        let mut wrong = runs();
        wrong[3].manifest.digest = "other".into();
        assert!(matches!(
            merged(wrong, Allowed::default()),
            Err(MergeError::Contradiction { seed: 2, .. })
        ));
    }
}
