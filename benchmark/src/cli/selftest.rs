//! `gristmill benchmark selftest`: how often liars are caught, on a virtual clock.

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Args;
use gristmill_service::cli::{align_right, table};
use indicatif::{ProgressBar, ProgressStyle};

use crate::selftest::{self, QUICK_RUNS, Report};

/// How much is tried.
#[derive(Clone, Copy, Debug, Args)]
pub struct Arguments {
    /// Runs of each liar; there are ten times as many honest ones
    #[arg(long, value_name = "N", default_value_t = QUICK_RUNS, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    runs: u32,
}

/// Plays all runs: exit code 0 where no honest one was refused and liars were caught at the rates of the formula.
pub(super) async fn run(arguments: Arguments, json: bool) -> anyhow::Result<ExitCode> {
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos} of {len} runs {elapsed}") {
        bar.set_style(style);
    }
    let drawn = bar.clone();
    let report = tokio::task::spawn_blocking(move || {
        selftest::run(arguments.runs, &|done, of| {
            drawn.set_length(of.into());
            drawn.set_position(done.into());
        })
    })
    .await?;
    bar.finish_and_clear();
    if json {
        writeln!(io::stdout(), "{}", serde_json::to_string_pretty(&report)?)?;
    } else {
        print(&report)?;
    }
    let is_as_foretold = report.honest.refused == 0 && report.liars.iter().all(|liar| liar.is_as_foretold());
    Ok(if is_as_foretold {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn print(report: &Report) -> anyhow::Result<()> {
    let mut table = table(&["PROVER", "RUNS", "CAUGHT", "FORETOLD", ""]);
    let honest = report.honest;
    table.add_row([
        "honest".into(),
        honest.runs.to_string(),
        honest.refused.to_string(),
        "0.00 %".into(),
        verdict(honest.refused == 0),
    ]);
    for liar in &report.liars {
        table.add_row([
            liar.name.clone(),
            liar.runs.to_string(),
            liar.caught.to_string(),
            format!("{:.2} %", liar.expected_rate * 100.0),
            verdict(liar.is_as_foretold()),
        ]);
    }
    align_right(&mut table, &[1, 2, 3]);
    writeln!(io::stdout(), "{}", table.trim_fmt())?;
    Ok(())
}

fn verdict(is_as_foretold: bool) -> String {
    if is_as_foretold {
        "as foretold"
    } else {
        "NOT as foretold"
    }
    .to_owned()
}
