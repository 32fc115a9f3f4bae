//! `gristmill client usage`: what was asked and what it did cost. Read from the files, so it makes no difference
//! whether a client runs.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use gristmill_service::cli::{align_right, plain, table};

use crate::core::calendar::Day;
use crate::core::usage_report::{GroupBy, Report, Sums, UsageTable};
use crate::usage::store::{self, Remembered};

/// The arguments of `gristmill client usage`.
#[derive(Debug, Args)]
pub struct UsageArguments {
    /// What to sum up by; days are those of UTC
    #[arg(long, value_enum, default_value_t)]
    by: GroupBy,
    /// The first day that counts, such as 2026-11-01 [default: as long as it is kept]
    #[arg(long, value_name = "DATE")]
    since: Option<Day>,
    /// Only what was asked with the key of this name
    #[arg(long, value_name = "NAME")]
    key: Option<String>,
    /// As comma-separated values, costs in microcredits
    #[arg(long)]
    csv: bool,
}

pub(super) fn show(
    arguments: &UsageArguments,
    data_dir: &Path,
    json: bool,
    stdout: &mut impl io::Write,
) -> anyhow::Result<ExitCode> {
    let mut usage = UsageTable::default();
    store::read(&data_dir.join(store::FOLDER), |remembered| match remembered {
        Remembered::Request(request) => usage.add(&request),
        Remembered::Month(table) => usage.merge(table),
        Remembered::Spent { .. } => {}
    })?;
    let report = usage.report(arguments.by, arguments.since, arguments.key.as_deref());
    if arguments.csv {
        write!(stdout, "{}", report.to_csv())?;
    } else if json {
        writeln!(stdout, "{}", serde_json::to_string(&report)?)?;
    } else if report.rows.is_empty() {
        writeln!(io::stderr(), "Nothing was asked{}.", since(&report))?;
    } else {
        for_people(&report, stdout)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn since(report: &Report) -> String {
    report
        .since
        .map_or_else(String::new, |day| format!(" since {day}"))
}

fn for_people(report: &Report, stdout: &mut impl io::Write) -> anyhow::Result<()> {
    let group = report.by.name().to_uppercase();
    let mut table = table(&[&group, "REQUESTS", "FAILED", "TOKENS IN", "TOKENS OUT", "CREDITS"]);
    for row in &report.rows {
        table.add_row(cells(&row.group, &row.sums));
    }
    // A request that several providers worked on counts for each, and for the sum once.
    table.add_row(cells("total", &report.total));
    align_right(&mut table, &[1, 2, 3, 4, 5]);
    writeln!(stdout, "{}", table.trim_fmt())?;
    Ok(())
}

fn cells(group: &str, sums: &Sums) -> [String; 6] {
    // Programs choose the names of models, and terminals obey control characters.
    let shown = group
        .chars()
        .map(|letter| if letter.is_control() { '\u{fffd}' } else { letter });
    [
        shown.collect(),
        sums.requests.to_string(),
        sums.failed.to_string(),
        sums.input_tokens.to_string(),
        sums.output_tokens.to_string(),
        plain(sums.cost),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::finished_request::FinishedRequest;
    use crate::core::finished_request::tests::finished;
    use clap::Parser;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        arguments: UsageArguments,
    }

    fn said(folder: &Path, line: &[&str], json: bool) -> String {
        let Program { arguments } = Program::parse_from(std::iter::once(&"usage").chain(line));
        let mut stdout = Vec::new();
        show(&arguments, folder, json, &mut stdout).unwrap();
        String::from_utf8(stdout).unwrap()
    }

    #[test]
    fn usage_is_shown_to_people_programs_and_spreadsheets() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        assert_eq!(said(folder, &[], false), "");
        let mut files = store::UsageFiles::new(folder.join(store::FOLDER));
        files.append(&finished(1, 0, 1_500_000)).unwrap();
        let other = FinishedRequest {
            model: "\u{1b}[31mred".into(),
            key: None,
            ..finished(2, 40 * 24 * 60 * 60 * 1_000, 2)
        };
        files.append(&other).unwrap();
        let table = said(folder, &[], false);
        let lines: Vec<Vec<&str>> = table
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(lines[1], ["1970-01-01", "1", "0", "12", "3", "1.5"]);
        assert_eq!(lines[3], ["total", "2", "0", "24", "6", "1.500002"]);
        assert!(!said(folder, &["--by", "model"], false).contains('\u{1b}'));
        let csv = said(folder, &["--by", "key", "--csv"], false);
        assert_eq!(csv.lines().nth(1), Some("ci,1,0,12,3,1500000"));
        let json: serde_json::Value =
            serde_json::from_str(&said(folder, &["--since", "1970-02-01", "--by", "model"], true)).unwrap();
        assert_eq!(
            (&json["total"]["requests"], &json["since"]),
            (&1.into(), &"1970-02-01".into())
        );
        assert!(said(folder, &["--key", "nobody"], false).is_empty());
    }
}
