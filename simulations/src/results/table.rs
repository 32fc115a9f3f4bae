//! Results as long tables, one figure a row, that programs for statistics group and pivot. CSV and Parquet are two
//! spellings of these.

use std::collections::BTreeMap;

use super::{RunResult, unit_of};

/// A column's values.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// Texts, most of which repeat: which of the dictionary each row has.
    Text {
        /// Every text once, in the order of its first row.
        dictionary: Vec<String>,
        /// For each row its place in the dictionary.
        rows: Vec<u32>,
    },
    /// Whole numbers.
    Whole(Vec<u64>),
    /// Numbers, all finite.
    Number(Vec<f64>),
}

/// A named column.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// The heading.
    pub name: String,
    /// As many as the table has rows.
    pub values: Values,
}

/// Columns of one length.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// The columns from left to right.
    pub columns: Vec<Column>,
}

/// The tables of one run, or of all runs of an experiment.
#[derive(Clone, Debug, PartialEq)]
pub struct Tables {
    /// One row a metric and run.
    pub metrics: Table,
    /// One row a point of a series and run.
    pub series: Table,
    /// One row a bucket of a distribution and run.
    pub distributions: Table,
}

/// What the name of a varied parameter's column begins with, so that none has the name of another column.
pub const VARIED: &str = "varied_";

impl Table {
    /// How many rows there are.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.columns.first().map_or(0, |column| match &column.values {
            Values::Text { rows, .. } => rows.len(),
            Values::Whole(values) => values.len(),
            Values::Number(values) => values.len(),
        })
    }

    /// The column of a name.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<&Values> {
        let found = self.columns.iter().find(|column| column.name == name);
        found.map(|column| &column.values)
    }
}

impl Values {
    /// A row's value as CSV spells it: the shortest number that reads as the same again.
    #[must_use]
    pub fn spelled(&self, row: usize) -> Option<String> {
        match self {
            Self::Text { dictionary, rows } => {
                let place = usize::try_from(*rows.get(row)?).ok()?;
                dictionary.get(place).cloned()
            }
            Self::Whole(values) => values.get(row).map(u64::to_string),
            Self::Number(values) => values.get(row).map(f64::to_string),
        }
    }
}

/// Collects texts, each once.
#[derive(Default)]
struct Texts {
    places: BTreeMap<String, u32>,
    dictionary: Vec<String>,
    rows: Vec<u32>,
}

impl Texts {
    fn push(&mut self, text: &str) {
        let place = self.places.get(text).copied().unwrap_or_else(|| {
            // More than 2^32 different texts do not fit into memory.
            let place = u32::try_from(self.dictionary.len()).unwrap_or(u32::MAX);
            self.places.insert(text.to_owned(), place);
            self.dictionary.push(text.to_owned());
            place
        });
        self.rows.push(place);
    }

    fn values(self) -> Values {
        Values::Text {
            dictionary: self.dictionary,
            rows: self.rows,
        }
    }
}

/// The columns that say of which run a row is.
struct Origin {
    scenario: Texts,
    version: Texts,
    /// Each parameter with its texts and, as long as all are numbers, these.
    varied: Vec<(String, Texts, Option<Vec<f64>>)>,
    seed: Vec<u64>,
}

impl Origin {
    fn new(runs: &[RunResult]) -> Self {
        let mut names: Vec<&String> = runs
            .iter()
            .flat_map(|run| run.manifest.parameters.keys())
            .collect();
        names.sort();
        names.dedup();
        let varied = names
            .into_iter()
            .map(|name| (name.clone(), Texts::default(), Some(Vec::new())));
        Self {
            scenario: Texts::default(),
            version: Texts::default(),
            varied: varied.collect(),
            seed: Vec::new(),
        }
    }

    fn push(&mut self, run: &RunResult) {
        let manifest = &run.manifest;
        self.scenario.push(&manifest.scenario);
        self.version.push(&manifest.version);
        self.seed.push(manifest.seed);
        for (name, texts, numbers) in &mut self.varied {
            let value = manifest.parameters.get(name).map_or("", String::as_str);
            texts.push(value);
            match number(value) {
                Some(number) => numbers.iter_mut().for_each(|numbers| numbers.push(number)),
                None => *numbers = None,
            }
        }
    }

    fn columns(self) -> Vec<Column> {
        let mut columns = vec![
            column("scenario", self.scenario.values()),
            column("version", self.version.values()),
        ];
        for (name, texts, numbers) in self.varied {
            let values = numbers.map_or_else(|| texts.values(), Values::Number);
            columns.push(column(&format!("{VARIED}{name}"), values));
        }
        columns.push(column("seed", Values::Whole(self.seed)));
        columns
    }
}

/// A parameter's value as a number, where it is one.
#[must_use]
pub fn number(value: &str) -> Option<f64> {
    value.parse().ok().filter(|number: &f64| number.is_finite())
}

fn column(name: &str, values: Values) -> Column {
    Column {
        name: name.to_owned(),
        values,
    }
}

/// The tables of some runs.
#[must_use]
pub fn tables(runs: &[RunResult]) -> Tables {
    Tables {
        metrics: metrics(runs),
        series: series(runs),
        distributions: distributions(runs),
    }
}

fn metrics(runs: &[RunResult]) -> Table {
    let (mut origin, mut names, mut units) = (Origin::new(runs), Texts::default(), Texts::default());
    let mut values = Vec::new();
    for run in runs {
        for (name, value) in &run.metrics {
            origin.push(run);
            names.push(name);
            units.push(unit_of(name));
            values.push(*value);
        }
    }
    let mut columns = origin.columns();
    columns.extend([
        column("metric", names.values()),
        column("unit", units.values()),
        column("value", Values::Number(values)),
    ]);
    Table { columns }
}

fn series(runs: &[RunResult]) -> Table {
    let (mut origin, mut names, mut units) = (Origin::new(runs), Texts::default(), Texts::default());
    let (mut times, mut values) = (Vec::new(), Vec::new());
    for run in runs {
        for series in &run.series {
            for (at_s, value) in &series.points {
                origin.push(run);
                names.push(&series.name);
                units.push(&series.unit);
                times.push(*at_s);
                values.push(*value);
            }
        }
    }
    let mut columns = origin.columns();
    columns.extend([
        column("series", names.values()),
        column("unit", units.values()),
        column("at_s", Values::Number(times)),
        column("value", Values::Number(values)),
    ]);
    Table { columns }
}

fn distributions(runs: &[RunResult]) -> Table {
    let (mut origin, mut names, mut units) = (Origin::new(runs), Texts::default(), Texts::default());
    let (mut uppers, mut counts) = (Vec::new(), Vec::new());
    for run in runs {
        for distribution in &run.distributions {
            for (upper, count) in &distribution.buckets {
                origin.push(run);
                names.push(&distribution.name);
                units.push(&distribution.unit);
                uppers.push(*upper);
                counts.push(*count);
            }
        }
    }
    let mut columns = origin.columns();
    columns.extend([
        column("distribution", names.values()),
        column("unit", units.values()),
        column("upper", Values::Number(uppers)),
        column("count", Values::Whole(counts)),
    ]);
    Table { columns }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::run_of;

    #[test]
    fn a_parameter_is_a_column_of_numbers_only_where_all_values_are() {
        let runs = [run_of(&[("churn", "0.1")], 1), run_of(&[("churn", "0.4")], 1)];
        let numbers = tables(&runs).metrics;
        assert!(
            matches!(numbers.column("varied_churn"), Some(Values::Number(values)) if values.contains(&0.4))
        );
        let runs = [run_of(&[("churn", "0.1")], 1), run_of(&[("churn", "night")], 1)];
        let table = tables(&runs).metrics;
        let texts = table.column("varied_churn").unwrap();
        assert!(matches!(texts, Values::Text { dictionary, .. } if dictionary == &["0.1", "night"]));
        assert_eq!(texts.spelled(0).as_deref(), Some("0.1"));
    }

    #[test]
    fn all_columns_are_of_one_length() {
        let runs = [run_of(&[("churn", "0.1")], 1), run_of(&[("seed", "x")], 2)];
        let Tables {
            metrics,
            series,
            distributions,
        } = tables(&runs);
        for table in [metrics, series, distributions] {
            assert!(table.rows() > 0);
            for column in &table.columns {
                assert!(
                    column.values.spelled(table.rows() - 1).is_some(),
                    "{}",
                    column.name
                );
                assert_eq!(column.values.spelled(table.rows()), None, "{}", column.name);
            }
            assert!(table.column("seed").is_some() && table.column("varied_seed").is_some());
        }
    }
}
