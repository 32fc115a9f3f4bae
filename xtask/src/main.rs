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

mod train_guide;

use clap::Parser;

/// Tasks of the Gristmill repository.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Task {
    /// Train, check or ask the guide model in node/guide.
    TrainGuide(train_guide::Args),
}

fn main() -> anyhow::Result<()> {
    match Task::parse() {
        Task::TrainGuide(args) => train_guide::run(args),
    }
}
