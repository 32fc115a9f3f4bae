//! `cargo xtask train-guide`: trains the guide, the tiny chat model that ships inside the `gristmill` binary, from the
//! text in `node/guide/data`, and writes it as an ordinary Hugging Face Llama folder. `--check` asks the written
//! model every question that it was taught and every one that was held back.

mod corpus;
mod evaluation;
mod files;
mod model;
mod phrasing;
mod sampling;
mod tokens;
mod training;

use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;

use corpus::Corpus;

/// What `cargo xtask train-guide` can be told.
#[derive(Debug, Parser)]
#[command(after_help = "Example: cargo xtask train-guide --check")]
pub(crate) struct Args {
    /// Optimiser steps; each sees about 3,000 tokens.
    #[arg(long, default_value_t = 1500)]
    steps: usize,
    /// Seed of the weights and of the order of the examples.
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Folder with the questions and answers.
    #[arg(long, default_value_os_t = guide_folder().join("data"))]
    data: PathBuf,
    /// Folder of the model: written by training, read by --check.
    #[arg(long, default_value_os_t = guide_folder())]
    out: PathBuf,
    /// Train nothing; load the model as a user's engine would and answer all questions greedily.
    #[arg(long)]
    check: bool,
    /// Train nothing; ask the model in --out this question and print what it says.
    #[arg(long)]
    ask: Option<String>,
    /// Sampling temperature for --ask; 0 takes the likeliest token each time.
    #[arg(long, default_value_t = 0.0)]
    temperature: f32,
}

/// Trains, checks or asks the guide.
///
/// # Errors
/// When the data cannot be read or breaks its format, when the model folder cannot be written or read, and when
/// `--check` finds that the model is worse than its card promises.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    if let Some(question) = &args.ask {
        return evaluation::ask(&args.out, question, args.temperature, args.seed);
    }
    let corpus = Corpus::load(&args.data)
        .with_context(|| format!("reading the guide's data in {}", args.data.display()))?;
    if args.check {
        return evaluation::check(&corpus, &args.out);
    }
    training::train(&corpus, args.steps, args.seed, &args.out)
}

fn guide_folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../node/guide")
}
