//! Sums of finished requests by day, model, key or provider.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::usage::{Unit, Usage};
use serde::{Deserialize, Serialize};

use crate::core::calendar::Day;
use crate::core::finished_request::FinishedRequest;

/// Most rows that are kept apart. Beyond, what is new is summed up under [`OTHER`]: programs choose the names of
/// models.
const ROWS_MAX: usize = 100_000;
/// What stands for everything that has no row of its own.
const OTHER: &str = "(other)";
/// What stands for requests without a key.
const NO_KEY: &str = "(none)";

/// What the sums are made by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum GroupBy {
    /// Each day in UTC
    #[default]
    Day,
    /// Each model
    Model,
    /// Each API key
    Key,
    /// Each provider
    Provider,
}

impl GroupBy {
    /// The name of the group's column.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Model => "model",
            Self::Key => "key",
            Self::Provider => "provider",
        }
    }
}

/// A sum of requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sums {
    /// How many requests. One that several providers worked on counts for each of them.
    pub requests: u64,
    /// How many of them failed.
    pub failed: u64,
    /// Tokens read.
    pub input_tokens: u64,
    /// Tokens written.
    pub output_tokens: u64,
    /// What they cost, in microcredits.
    pub cost: Credits,
}

impl Sums {
    fn add(&mut self, failed: bool, usage: &Usage, cost: Credits) {
        self.requests = self.requests.saturating_add(1);
        self.failed = self.failed.saturating_add(u64::from(failed));
        self.input_tokens = self.input_tokens.saturating_add(usage.count(Unit::InputToken));
        self.output_tokens = self.output_tokens.saturating_add(usage.count(Unit::OutputToken));
        self.cost = self.cost.saturating_add(cost);
    }

    fn merge(&mut self, other: &Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.failed = self.failed.saturating_add(other.failed);
        self.input_tokens = self.input_tokens.saturating_add(other.input_tokens);
        self.output_tokens = self.output_tokens.saturating_add(other.output_tokens);
        self.cost = self.cost.saturating_add(other.cost);
    }
}

/// A line of a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportRow {
    /// The day, model, key or provider.
    pub group: String,
    /// Its sums.
    #[serde(flatten)]
    pub sums: Sums,
}

/// A report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// What the sums are made by.
    pub by: GroupBy,
    /// The first day that counts.
    pub since: Option<Day>,
    /// Days in their order, everything else by cost, the dearest first.
    pub rows: Vec<ReportRow>,
    /// The sum of all. A request that several providers worked on counts once.
    pub total: Sums,
}

impl Report {
    /// As comma-separated values (RFC 4180), with a header. Costs are in microcredits.
    #[must_use]
    pub fn to_csv(&self) -> String {
        let mut text = format!(
            "{},requests,failed,input_tokens,output_tokens,cost_microcredits\r\n",
            self.by.name()
        );
        for ReportRow { group, sums } in &self.rows {
            let Sums {
                requests,
                failed,
                input_tokens,
                output_tokens,
                cost,
            } = sums;
            let group = csv_field(group);
            // Writing to a string always succeeds.
            let _ = write!(
                text,
                "{group},{requests},{failed},{input_tokens},{output_tokens},{}\r\n",
                cost.microcredits()
            );
        }
        text
    }
}

/// A field of a CSV file. Spreadsheets take what begins like a formula for one, so such a text gets an apostrophe
/// (OWASP, "CSV Injection"): names of models come from programs.
fn csv_field(text: &str) -> String {
    let guarded = match text.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        true => format!("'{text}"),
        false => text.to_owned(),
    };
    match guarded.contains(['"', ',', '\n', '\r', '\'']) {
        true => format!("\"{}\"", guarded.replace('"', "\"\"")),
        false => guarded,
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct RowKey {
    day: Day,
    key: Option<String>,
    model: String,
    provider: Option<AccountId>,
}

/// Sums of everything, small enough to be kept in memory.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(from = "Rows", into = "Rows")]
pub struct UsageTable {
    /// By provider too: one request has as many as worked on it.
    shares: BTreeMap<RowKey, Sums>,
    /// Without providers: each request once.
    requests: BTreeMap<RowKey, Sums>,
}

/// A table as it is written down: keys of maps would have to be texts.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rows {
    shares: Vec<(RowKey, Sums)>,
    requests: Vec<(RowKey, Sums)>,
}

impl From<Rows> for UsageTable {
    fn from(rows: Rows) -> Self {
        Self {
            shares: rows.shares.into_iter().collect(),
            requests: rows.requests.into_iter().collect(),
        }
    }
}

impl From<UsageTable> for Rows {
    fn from(table: UsageTable) -> Self {
        Self {
            shares: table.shares.into_iter().collect(),
            requests: table.requests.into_iter().collect(),
        }
    }
}

impl UsageTable {
    /// Adds another table.
    pub fn merge(&mut self, other: Self) {
        for (row, of_row) in other.shares {
            sums(&mut self.shares, row).merge(&of_row);
        }
        for (row, of_row) in other.requests {
            sums(&mut self.requests, row).merge(&of_row);
        }
    }

    /// Takes note of a request.
    pub fn add(&mut self, request: &FinishedRequest) {
        let row = RowKey {
            day: Day::of(request.started_at_ms),
            key: request.key.clone(),
            model: request.model.clone(),
            provider: None,
        };
        let failed = !request.is_answered();
        for share in &request.providers {
            let row = RowKey {
                provider: Some(share.provider),
                ..row.clone()
            };
            sums(&mut self.shares, row).add(!share.is_complete, &share.usage, share.cost);
        }
        sums(&mut self.requests, row).add(failed, &request.usage, request.cost);
    }

    /// A report from a day on, of one key where it is named.
    #[must_use]
    pub fn report(&self, by: GroupBy, since: Option<Day>, key: Option<&str>) -> Report {
        let wanted = |row: &RowKey| {
            since.is_none_or(|since| row.day >= since)
                && key.is_none_or(|key| row.key.as_deref() == Some(key))
        };
        let rows = match by {
            GroupBy::Provider => &self.shares,
            GroupBy::Day | GroupBy::Model | GroupBy::Key => &self.requests,
        };
        let mut groups: BTreeMap<String, Sums> = BTreeMap::new();
        for (row, sums) in rows.iter().filter(|(row, _)| wanted(row)) {
            groups.entry(group(row, by)).or_default().merge(sums);
        }
        let mut rows: Vec<_> = groups
            .into_iter()
            .map(|(group, sums)| ReportRow { group, sums })
            .collect();
        if by != GroupBy::Day {
            rows.sort_by_key(|row| std::cmp::Reverse(row.sums.cost));
        }
        let mut total = Sums::default();
        for (_, sums) in self.requests.iter().filter(|(row, _)| wanted(row)) {
            total.merge(sums);
        }
        Report {
            by,
            since,
            rows,
            total,
        }
    }
}

fn group(row: &RowKey, by: GroupBy) -> String {
    match by {
        GroupBy::Day => row.day.to_string(),
        GroupBy::Model => row.model.clone(),
        GroupBy::Key => row.key.clone().unwrap_or_else(|| NO_KEY.to_owned()),
        GroupBy::Provider => row
            .provider
            .map_or_else(|| OTHER.to_owned(), |provider| provider.to_string()),
    }
}

fn sums(rows: &mut BTreeMap<RowKey, Sums>, row: RowKey) -> &mut Sums {
    let row = if rows.len() < ROWS_MAX || rows.contains_key(&row) {
        row
    } else {
        // Days and keys stay apart: there are only so many of them.
        RowKey {
            model: OTHER.to_owned(),
            provider: None,
            ..row
        }
    };
    rows.entry(row).or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::finished_request::tests::finished;

    const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

    fn table() -> UsageTable {
        let mut table = UsageTable::default();
        table.add(&finished(1, 0, 10));
        table.add(&finished(2, DAY_MS, 5));
        let mut other = finished(3, DAY_MS, 40);
        (other.key, other.model) = (None, "mini".into());
        let mut second = other.providers[0].clone();
        second.provider = AccountId::from_public_key([2; 32]);
        second.cost = Credits::micro(30);
        other.providers[0].cost = Credits::micro(10);
        other.providers[0].is_complete = false;
        other.providers.push(second);
        table.add(&other);
        let mut failed = finished(4, DAY_MS, 0);
        (failed.status, failed.providers) = (503, vec![]);
        table.add(&failed);
        table
    }

    fn rows(report: &Report) -> Vec<(&str, u64, u64, u64)> {
        let row = |row: &'_ ReportRow| (row.sums.requests, row.sums.failed, row.sums.cost.microcredits());
        let with_group = |line| {
            let (requests, failed, cost) = row(line);
            (line.group.as_str(), requests, failed, cost)
        };
        report.rows.iter().map(with_group).collect()
    }

    #[test]
    fn requests_are_summed_by_day_model_key_and_provider() {
        let table = table();
        let by = |by| table.report(by, None, None);
        assert_eq!(
            rows(&by(GroupBy::Day)),
            [("1970-01-01", 1, 0, 10), ("1970-01-02", 3, 1, 45)]
        );
        assert_eq!(
            rows(&by(GroupBy::Model)),
            [("mini", 1, 0, 40), ("guide", 3, 1, 15)]
        );
        assert_eq!(rows(&by(GroupBy::Key)), [("(none)", 1, 0, 40), ("ci", 3, 1, 15)]);
        let providers = by(GroupBy::Provider);
        let [second, first] = [2, 1].map(|byte| AccountId::from_public_key([byte; 32]).to_string());
        assert_eq!(
            rows(&providers),
            [(second.as_str(), 1, 0, 30), (first.as_str(), 3, 1, 25)]
        );
        assert_eq!(
            (providers.total.requests, providers.total.cost),
            (4, Credits::micro(55))
        );
    }

    #[test]
    fn a_report_begins_where_it_is_told_to_and_can_be_of_one_key() {
        let table = table();
        let since = Some("1970-01-02".parse().unwrap());
        assert_eq!(
            rows(&table.report(GroupBy::Key, since, None)),
            [("(none)", 1, 0, 40), ("ci", 2, 1, 5)]
        );
        let own = table.report(GroupBy::Day, None, Some("ci"));
        assert_eq!(rows(&own), [("1970-01-01", 1, 0, 10), ("1970-01-02", 2, 1, 5)]);
        assert_eq!(own.total.cost, Credits::micro(15));
        assert!(
            table.report(GroupBy::Day, None, Some("(none)")).rows.is_empty(),
            "no key has that name"
        );
    }

    #[test]
    fn csv_is_what_spreadsheets_read_and_no_formula() {
        let mut table = UsageTable::default();
        for (number, model) in [(1, "a,b"), (2, "say \"hi\""), (3, "=1+1")] {
            table.add(&FinishedRequest {
                model: model.into(),
                ..finished(number, 0, u32::from(number))
            });
        }
        let csv = table.report(GroupBy::Model, None, None).to_csv();
        let expected = "model,requests,failed,input_tokens,output_tokens,cost_microcredits\r\n\
                        \"'=1+1\",1,0,12,3,3\r\n\"say \"\"hi\"\"\",1,0,12,3,2\r\n\"a,b\",1,0,12,3,1\r\n";
        assert_eq!(csv, expected);
    }

    #[test]
    fn memory_is_bounded_however_many_names_there_are() {
        let mut table = UsageTable::default();
        let request = finished(1, 0, 1);
        for number in 0..ROWS_MAX + 5 {
            table.add(&FinishedRequest {
                model: number.to_string(),
                ..request.clone()
            });
        }
        assert_eq!(
            (table.requests.len(), table.shares.len()),
            (ROWS_MAX + 1, ROWS_MAX + 1)
        );
        let report = table.report(GroupBy::Model, None, None);
        assert_eq!(report.total.requests, ROWS_MAX as u64 + 5);
        assert_eq!(
            report
                .rows
                .iter()
                .find(|row| row.group == OTHER)
                .unwrap()
                .sums
                .requests,
            5
        );
    }
}
