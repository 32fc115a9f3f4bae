//! `cargo xtask …`: what a person would otherwise have to remember.
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::cast_possible_truncation
    )
)]

#[cfg(feature = "workbench")]
mod bench;
mod test;
#[cfg(feature = "workbench")]
mod train_guide;

use clap::Parser;

/// Tasks of the Gristmill repository
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Task {
    /// Check everything that must hold; installs what it needs below the target folder
    Test(test::Arguments),
    /// Train, check or ask the guide model in node/guide
    #[cfg(feature = "workbench")]
    TrainGuide(train_guide::Args),
    /// Measure, beside a peer or a physical limit in the same run
    #[cfg(feature = "workbench")]
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Train, check or ask the guide model in node/guide
    #[cfg(not(feature = "workbench"))]
    #[command(disable_help_flag = true)]
    TrainGuide(Workbench),
    /// Measure, beside a peer or a physical limit in the same run
    #[cfg(not(feature = "workbench"))]
    #[command(disable_help_flag = true)]
    Bench(Workbench),
}

fn main() -> anyhow::Result<()> {
    match Task::parse() {
        Task::Test(arguments) => test::run(&arguments),
        #[cfg(feature = "workbench")]
        Task::TrainGuide(arguments) => train_guide::run(arguments),
        #[cfg(feature = "workbench")]
        Task::Bench(bench) => bench::run(bench),
        #[cfg(not(feature = "workbench"))]
        Task::TrainGuide(workbench) => workbench.run("train-guide"),
        #[cfg(not(feature = "workbench"))]
        Task::Bench(workbench) => workbench.run("bench"),
    }
}

/// A task of the release build with the whole product in it: handed on as it was written.
#[cfg(not(feature = "workbench"))]
#[derive(Debug, clap::Args)]
struct Workbench {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

#[cfg(not(feature = "workbench"))]
impl Workbench {
    fn run(&self, task: &str) -> anyhow::Result<()> {
        use anyhow::Context;
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let status = std::process::Command::new(cargo)
            .args([
                "run",
                "--quiet",
                "--release",
                "--package",
                "xtask",
                "--features",
                "workbench",
                "--",
                task,
            ])
            .args(&self.arguments)
            .status()
            .context("cargo can't be started")?;
        anyhow::ensure!(status.success(), "{task} ended with {status}");
        Ok(())
    }
}
