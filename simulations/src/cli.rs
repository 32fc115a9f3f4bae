//! `gristmill simulate`: runs scenarios. The only module of this crate that opens files.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Subcommand;
use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;

use crate::listing_gossip::{self, Report};
use crate::routing_herd::{self, ROUTING_HERD};
use crate::scenario::{LISTING_GOSSIP, Scenario};

/// The subcommands of `gristmill simulate`.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Run a scenario under a virtual clock and answer its question
    ///
    /// The same scenario and seed give the same output on every machine. A broken rule of the market stops the run;
    /// the output says at which event, and the exit code is 1.
    #[command(after_help = "Examples:\n  gristmill simulate run --seed 7\n  \
                            gristmill simulate run my_scenario.toml --seed 7 --json")]
    Run {
        /// A scenario file [default: listing_gossip, which comes with the program]
        scenario: Option<PathBuf>,
        /// The seed of everything that is random
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Run a herd of consumers that choose providers, with the shipped policy and with another one
    #[command(after_help = "Examples:\n  gristmill simulate herd --seed 7\n  \
                            gristmill simulate herd my_herd.toml --seed 7 --json")]
    Herd {
        /// A scenario file [default: routing_herd, which comes with the program]
        scenario: Option<PathBuf>,
        /// The seed of everything that is random
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Print the scenario that comes with the program, to copy and change
    #[command(after_help = "Example:\n  gristmill simulate example > my_scenario.toml")]
    Example,
}

/// Runs a subcommand: the report on stdout as text or as JSON. A broken rule gives the exit code 1.
///
/// # Errors
/// Where the scenario cannot be read or run, or stdout cannot be written.
pub fn run(command: Command, json: bool) -> anyhow::Result<ExitCode> {
    let mut stdout = std::io::stdout().lock();
    match command {
        Command::Example => {
            stdout
                .write_all(LISTING_GOSSIP.as_bytes())
                .context("the scenario could not be written to stdout")?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Herd { scenario, seed } => {
            let text = scenario
                .as_deref()
                .map_or_else(|| Ok(ROUTING_HERD.to_owned()), read_text)?;
            let scenario = routing_herd::Scenario::parse(&text).context("that is no scenario of a herd")?;
            let report = routing_herd::run(&scenario, seed)?;
            print_herd(&report, json, &mut stdout).context("the report could not be written to stdout")?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Run { scenario, seed } => {
            let scenario = scenario.as_deref().map_or_else(embedded, read)?;
            let report = listing_gossip::run(&scenario, seed)?;
            print(&report, json, &mut stdout).context("the report could not be written to stdout")?;
            if let Some(breach) = report.breaches.first() {
                writeln!(
                    std::io::stderr().lock(),
                    "error: event {}: {}",
                    breach.event,
                    breach.message
                )?;
                return Ok(ExitCode::FAILURE);
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn embedded() -> anyhow::Result<Scenario> {
    Scenario::parse(LISTING_GOSSIP).context("the scenario that comes with the program is broken")
}

#[expect(
    clippy::disallowed_methods,
    reason = "the command line reads the scenario, before the run begins"
)]
fn read_text(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path)
        .with_context(|| format!("the scenario {} could not be read", path.display()))
}

fn read(path: &Path) -> anyhow::Result<Scenario> {
    let text = read_text(path)?;
    Scenario::parse(&text).with_context(|| format!("{} is no scenario", path.display()))
}

fn print(report: &Report, json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    if json {
        writeln!(out, "{}", serde_json::to_string_pretty(report)?)?;
        return Ok(());
    }
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED);
    table.add_rows(report.rows().into_iter().map(|(name, value)| [name, value]));
    writeln!(out, "{}\n\n{}\n\n{table}", report.question, report.answer)?;
    Ok(())
}

fn print_herd(report: &routing_herd::Report, json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    if json {
        writeln!(out, "{}", serde_json::to_string_pretty(report)?)?;
        return Ok(());
    }
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED);
    table.add_rows(report.rows());
    writeln!(out, "{}\n\n{}\n\n{table}", report.question, report.answer)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_prints_for_people_and_for_programs() {
        let text = LISTING_GOSSIP.replace("duration_s = 300", "duration_s = 60");
        let report = listing_gossip::run(&Scenario::parse(&text).unwrap(), 7).unwrap();
        let (mut json, mut table) = (Vec::new(), Vec::new());
        print(&report, true, &mut json).unwrap();
        print(&report, false, &mut table).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        for key in [
            "question",
            "answer",
            "nodes",
            "seed",
            "events",
            "digest",
            "breaches",
            "delivered",
            "age",
        ] {
            assert!(json.get(key).is_some(), "{key}");
        }
        assert_eq!((&json["seed"], &json["nodes"]), (&7.into(), &100.into()));
        let table = String::from_utf8(table).unwrap();
        assert!(table.starts_with("How stale") && table.contains(&report.digest));
    }

    #[test]
    fn a_missing_and_a_wrong_file_are_named() {
        let error = format!("{:#}", read(Path::new("/nowhere/scenario.toml")).unwrap_err());
        assert!(
            error.contains("/nowhere/scenario.toml could not be read"),
            "{error}"
        );
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        let error = format!("{:#}", read(Path::new(manifest)).unwrap_err());
        assert!(error.contains("Cargo.toml is no scenario: line 1"), "{error}");
    }
}
