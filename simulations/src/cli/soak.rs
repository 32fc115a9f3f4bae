//! `simulate soak`: random seeds and random faults over all scenarios, until time is up; says what broke and how to
//! see it again.

use std::io::Write;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use serde::Serialize;

use super::INTERRUPTED;
use super::machine::{self, Watch};
use super::one::{Order, Outcome};
use crate::results::BreachRecord;
use crate::running;
use crate::scenario::plan::Plan;
use crate::scenario::{faults, library};

/// Most breaches that are told before it ends.
const FINDINGS_MAX: usize = 100;

/// What `simulate soak` is told.
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    /// For how many minutes
    #[arg(long, value_name = "NUMBER", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=10_080))]
    minutes: u64,
    /// The seed of what is tried; the trials that are made in time follow from it
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many runs side by side [default: as many as cores]
    #[arg(long, value_name = "NUMBER")]
    jobs: Option<usize>,
    /// End after so many runs, if time is not up before
    #[arg(long, value_name = "NUMBER")]
    runs: Option<u64>,
}

/// A run that broke a rule.
#[derive(Debug, Serialize)]
struct Finding {
    scenario: String,
    #[serde(flatten)]
    breach: BreachRecord,
    replay: String,
}

/// What came of it.
#[derive(Debug, Default, Serialize)]
struct Report {
    runs: u64,
    events: u64,
    findings: Vec<Finding>,
    /// Runs that ended for another reason than a rule: the message, and how to see it again.
    failures: Vec<String>,
}

pub(super) fn soak(arguments: &Arguments, json: bool, stop: &AtomicBool) -> anyhow::Result<ExitCode> {
    let watch = Watch::start();
    let time = Duration::from_secs(arguments.minutes.saturating_mul(60));
    let report = Mutex::new(Report::default());
    let next = AtomicU64::new(0);
    let is_over = |trial: u64| {
        watch.passed() >= time
            || stop.load(Ordering::Relaxed)
            || arguments.runs.is_some_and(|runs| trial >= runs)
            || report
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .findings
                .len()
                >= FINDINGS_MAX
    };
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs.unwrap_or_else(machine::cores).max(1) {
            scope.spawn(|| {
                loop {
                    let trial = next.fetch_add(1, Ordering::Relaxed);
                    if is_over(trial) {
                        break;
                    }
                    attempt(arguments.seed, trial, stop, &report);
                }
            });
        }
    });
    let report = report.into_inner().unwrap_or_else(PoisonError::into_inner);
    print(&report, json).context("what was found could not be printed")?;
    Ok(if stop.load(Ordering::Relaxed) {
        ExitCode::from(INTERRUPTED)
    } else if report.findings.is_empty() && report.failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// One run of a scenario, with faults and a seed of its own.
fn attempt(seed: u64, trial: u64, stop: &AtomicBool, report: &Mutex<Report>) {
    let (plan, run_seed) = match faults::trial(library::ALL, seed, trial) {
        Ok(made) => made,
        Err(error) => {
            note(report, format!("trial {trial} could not be made: {error}"));
            return;
        }
    };
    if let Err(error) = attempt_of(&plan, run_seed, stop, report) {
        let replay = running::replay(&plan.source, plan.changes(), run_seed);
        note(report, format!("{error:#}; see it again with: {replay}"));
    }
}

fn note(report: &Mutex<Report>, failure: String) {
    let mut report = report.lock().unwrap_or_else(PoisonError::into_inner);
    if report.failures.len() < FINDINGS_MAX {
        report.failures.push(failure);
    }
}

fn attempt_of(plan: &Plan, seed: u64, stop: &AtomicBool, report: &Mutex<Report>) -> anyhow::Result<()> {
    let variants = plan.variants()?;
    let variant = variants.first().context("a plan without variants")?;
    let order = Order {
        plan,
        variant,
        seed,
        threads: 1,
        interest: None,
        until_us: None,
    };
    if let Outcome::Done { result, .. } = order.perform(None, stop, |_, _, _| {})? {
        let mut report = report.lock().unwrap_or_else(PoisonError::into_inner);
        report.runs += 1;
        report.events += result.manifest.events;
        for breach in result.manifest.breaches {
            report.findings.push(Finding {
                scenario: plan.name.clone(),
                breach,
                replay: result.manifest.replay.clone(),
            });
        }
    }
    Ok(())
}

fn print(report: &Report, json: bool) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    if json {
        writeln!(stdout, "{}", serde_json::to_string_pretty(report)?)?;
        return Ok(());
    }
    writeln!(
        stdout,
        "{} runs, {} events, {} broken rules",
        report.runs,
        report.events,
        report.findings.len()
    )?;
    for Finding {
        scenario,
        breach,
        replay,
    } in &report.findings
    {
        writeln!(
            stdout,
            "\n{scenario}: {} at node {}, {} µs: {}\n  {replay}",
            breach.rule, breach.node, breach.at_us, breach.message
        )?;
    }
    for failure in &report.failures {
        writeln!(stdout, "\nfailed: {failure}")?;
    }
    Ok(())
}
