//! What differs between two results, such as of two versions of the code: digests, and metrics beyond chance.

use std::collections::BTreeMap;

use serde::Serialize;

use super::statistics::{Contrast, Sample, contrast};
use super::summary::{Summary, Variant, label};
use super::{Experiment, Manifest, RunResult};

/// How two results differ.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// Version of the program, before and after.
    pub versions: (String, String),
    /// Whether both are of the same text of a scenario, run by run.
    pub is_same_scenario: bool,
    /// Pairs of runs with one variant and seed.
    pub pairs: usize,
    /// How many of them have the same digest: not a single event differs.
    pub same: usize,
    /// The pairs whose digests differ.
    pub parted: Vec<Parting>,
    /// Metrics that differ, those beyond chance first, then the largest relative change.
    pub metrics: Vec<MetricChange>,
    /// Runs that only the first has, in words.
    pub only_before: Vec<String>,
    /// Runs that only the second has, in words.
    pub only_after: Vec<String>,
}

/// Two runs of one variant and seed that went different ways.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Parting {
    /// The parameters.
    pub variant: String,
    /// The seed.
    pub seed: u64,
    /// Virtual seconds up to which both are known to be the same; `None` where no epoch is.
    pub same_until_s: Option<f64>,
    /// The first epoch at which they are known to differ; `None` where they have no epoch in common that does.
    pub differs_at_s: Option<f64>,
}

/// A metric of one variant that changed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MetricChange {
    /// The parameters.
    pub variant: String,
    /// The metric.
    pub metric: String,
    /// Before; `None` where only the second has it.
    pub before: Option<Sample>,
    /// After; `None` where only the first has it.
    pub after: Option<Sample>,
    /// The change, where both have it.
    pub contrast: Option<Contrast>,
}

impl Difference {
    /// The headings of [`Difference::rows`].
    pub const HEADINGS: [&'static str; 6] = ["variant", "metric", "before", "after", "change", "verdict"];

    /// Compares two results.
    #[must_use]
    pub fn between(before: &Experiment, after: &Experiment) -> Self {
        let (first, second) = (by_key(before), by_key(after));
        let mut parted = Vec::new();
        let (mut pairs, mut same, mut is_same_scenario) = (0, 0, true);
        for (key, run) in &first {
            let Some(other) = second.get(key) else { continue };
            pairs += 1;
            is_same_scenario &= run.manifest.scenario_digest == other.manifest.scenario_digest
                && run.manifest.changes == other.manifest.changes;
            if run.manifest.digest == other.manifest.digest {
                same += 1;
            } else {
                parted.push(Parting::of(&run.manifest, &other.manifest));
            }
        }
        let only = |these: &Runs<'_>, those: &Runs<'_>| {
            let alone = these.keys().filter(|key| !those.contains_key(*key));
            alone
                .map(|(variant, seed)| format!("{} with seed {seed}", label(variant)))
                .collect()
        };
        Self {
            versions: (versions(before), versions(after)),
            is_same_scenario,
            pairs,
            same,
            parted,
            metrics: changes(&Summary::of(before), &Summary::of(after)),
            only_before: only(&first, &second),
            only_after: only(&second, &first),
        }
    }

    /// Whether both say the same: each run has its pair of the same digest, and the same metrics.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.same == self.pairs
            && self.only_before.is_empty()
            && self.only_after.is_empty()
            && self.metrics.is_empty()
    }

    /// Whether a metric changed by more than chance explains at 95 %.
    #[must_use]
    pub fn is_significant(&self) -> bool {
        self.metrics.iter().any(MetricChange::is_significant)
    }

    /// The finding in a sentence or two.
    #[must_use]
    pub fn sentence(&self) -> String {
        if self.pairs == 0 {
            return "The two have no run with the same parameters and seed, so only their metrics are compared.".into();
        }
        let digests = match self.pairs - self.same {
            0 => format!("All {} runs are the same, event for event.", self.pairs),
            parted => format!("{parted} of {} runs went different ways.", self.pairs),
        };
        let beyond = self
            .metrics
            .iter()
            .filter(|change| change.is_significant())
            .count();
        let metrics = match (self.metrics.len(), beyond) {
            (0, _) => "No metric changed.".to_owned(),
            (all, 0) => format!("{all} metrics changed, none beyond what chance explains at 95 %."),
            (all, beyond) => format!("{all} metrics changed, {beyond} beyond what chance explains at 95 %."),
        };
        format!("{digests} {metrics}")
    }

    /// The changed metrics for a table under [`Difference::HEADINGS`].
    #[must_use]
    pub fn rows(&self) -> Vec<[String; 6]> {
        self.metrics.iter().map(MetricChange::row).collect()
    }
}

impl MetricChange {
    /// Whether it is beyond chance at 95 %. A metric that only one of both has is.
    #[must_use]
    pub fn is_significant(&self) -> bool {
        self.contrast
            .is_none_or(|contrast| contrast.is_significant == Some(true))
    }

    fn row(&self) -> [String; 6] {
        let shown = |sample: &Option<Sample>| {
            sample
                .as_ref()
                .map_or("-".to_owned(), super::report::number::sample)
        };
        let change = self.contrast.map_or("-".to_owned(), |contrast| {
            let relative = contrast
                .relative
                .map_or(String::new(), |relative| format!(" ({:+.1} %)", relative * 100.0));
            format!("{}{relative}", super::report::number::signed(contrast.change))
        });
        let verdict = match self.contrast.map(|contrast| contrast.is_significant) {
            None => "only in one",
            Some(Some(true)) => "beyond chance",
            Some(Some(false)) => "within chance",
            Some(None) => "one seed: can't be told",
        };
        [
            self.variant.clone(),
            self.metric.clone(),
            shown(&self.before),
            shown(&self.after),
            change,
            verdict.to_owned(),
        ]
    }

    /// What is shown first: beyond chance, then large.
    fn weight(&self) -> (bool, f64) {
        let relative = self.contrast.and_then(|contrast| contrast.relative);
        (self.is_significant(), relative.map_or(f64::INFINITY, f64::abs))
    }
}

impl Parting {
    fn of(before: &Manifest, after: &Manifest) -> Self {
        let common = before.epochs.iter().filter_map(|epoch| {
            let at = after
                .epochs
                .binary_search_by(|other| other.at_s.total_cmp(&epoch.at_s));
            let other = after.epochs.get(at.ok()?)?;
            Some((epoch.at_s, epoch.digest == other.digest))
        });
        let (mut same_until_s, mut differs_at_s) = (None, None);
        for (at_s, is_same) in common {
            // The digests are a chain: once parted, they never meet again.
            if !is_same {
                differs_at_s = Some(at_s);
                break;
            }
            same_until_s = Some(at_s);
        }
        Self {
            variant: label(&before.parameters),
            seed: before.seed,
            same_until_s,
            differs_at_s,
        }
    }
}

type Runs<'a> = BTreeMap<(&'a BTreeMap<String, String>, u64), &'a RunResult>;

fn by_key(experiment: &Experiment) -> Runs<'_> {
    let runs = experiment.runs.iter();
    runs.map(|run| ((&run.manifest.parameters, run.manifest.seed), run))
        .collect()
}

fn versions(experiment: &Experiment) -> String {
    let mut found: Vec<&str> = experiment.runs.iter().map(|run| &*run.manifest.version).collect();
    found.sort_unstable();
    found.dedup();
    found.join(", ")
}

fn changes(before: &Summary, after: &Summary) -> Vec<MetricChange> {
    let mut changes = Vec::new();
    for variant in &before.variants {
        let other = after
            .variants
            .iter()
            .find(|other| other.parameters == variant.parameters);
        // Variants that only one has are told as runs that only one has.
        if let Some(other) = other {
            changes.extend(
                before
                    .metrics
                    .iter()
                    .filter_map(|metric| change(variant, other, metric)),
            );
            let new = after
                .metrics
                .iter()
                .filter(|metric| !before.metrics.contains(metric));
            changes.extend(new.filter_map(|metric| change(variant, other, metric)));
        }
    }
    changes.sort_by(|one, other| {
        let ((first, size), (second, other_size)) = (one.weight(), other.weight());
        second.cmp(&first).then_with(|| other_size.total_cmp(&size))
    });
    changes
}

fn change(before: &Variant, after: &Variant, metric: &str) -> Option<MetricChange> {
    let (first, second) = (before.metrics.get(metric), after.metrics.get(metric));
    if first == second {
        return None;
    }
    Some(MetricChange {
        variant: before.label(),
        metric: metric.to_owned(),
        before: first.copied(),
        after: second.copied(),
        contrast: first.zip(second).map(|(first, second)| contrast(first, second)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::run_of;

    fn experiment(change: impl Fn(&mut RunResult)) -> Experiment {
        let mut runs = Vec::new();
        for churn in ["0.1", "0.4"] {
            for seed in 1..=5 {
                let mut run = run_of(&[("churn", churn)], seed);
                change(&mut run);
                runs.push(run);
            }
        }
        Experiment {
            runs,
            ..Experiment::of_run(run_of(&[], 1))
        }
    }

    #[test]
    fn nothing_differs_from_itself() {
        let difference = Difference::between(&experiment(|_| ()), &experiment(|_| ()));
        assert!(difference.is_none() && !difference.is_significant());
        assert_eq!(
            difference.sentence(),
            "All 10 runs are the same, event for event. No metric changed."
        );
    }

    #[test]
    fn digests_part_at_an_epoch_and_a_shift_is_told_from_noise() {
        let changed = experiment(|run| {
            run.manifest.digest.push('x');
            for epoch in &mut run.manifest.epochs[2..] {
                epoch.digest.push('x');
            }
            *run.metrics.get_mut("delivered_share").unwrap() -= 0.2;
            *run.metrics.get_mut("age_p99_s").unwrap() += 0.1;
        });
        let difference = Difference::between(&experiment(|_| ()), &changed);
        assert_eq!(
            (difference.pairs, difference.same, difference.parted.len()),
            (10, 0, 10)
        );
        let parting = &difference.parted[0];
        assert_eq!(
            (parting.same_until_s, parting.differs_at_s),
            (Some(200.0), Some(400.0))
        );
        assert!(difference.is_significant() && difference.metrics.len() == 4);
        let verdicts: Vec<(&str, bool)> = difference
            .metrics
            .iter()
            .map(|change| (&*change.metric, change.is_significant()))
            .collect();
        assert_eq!(&verdicts[..2], [("delivered_share", true); 2]);
        assert_eq!(&verdicts[2..], [("age_p99_s", false); 2]);
        assert!(
            difference
                .sentence()
                .ends_with("4 metrics changed, 2 beyond what chance explains at 95 %.")
        );
        let row = &difference.rows()[0];
        assert_eq!(row[5], "beyond chance");
    }

    #[test]
    fn what_only_one_has_is_named() {
        let mut fewer = experiment(|run| {
            run.metrics.remove("age_p99_s");
        });
        fewer.runs.pop();
        let difference = Difference::between(&experiment(|_| ()), &fewer);
        assert_eq!(difference.only_before, ["churn = 0.4 with seed 5"]);
        assert!(difference.only_after.is_empty() && !difference.is_none());
        assert!(
            difference
                .metrics
                .iter()
                .any(|change| change.metric == "age_p99_s" && change.is_significant())
        );
    }
}
