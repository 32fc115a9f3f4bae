//! `gristmill demo`: a coordinator, two providers and a client over real sockets on loopback, one question, and what
//! happened with the money.

mod market;
mod question;
mod story;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use clap::Args;

use self::market::Market;
use self::story::{Purses, Story};

/// How the demo is run.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// End after the story instead of keeping the endpoint up
    #[arg(long)]
    once: bool,
    /// What to ask
    #[arg(long, default_value = "What is Gristmill?")]
    question: String,
}

/// Runs the market, asks, and tells the story. With `json` the last line on stdout is the story as one JSON object.
pub(crate) async fn run(arguments: Arguments, json: bool) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    let state = tempfile::tempdir().context("there is no temporary folder for the demo's state")?;
    // The well-known port only where somebody is there to use it.
    let market = Market::start(state.path(), !arguments.once).await?;
    let told = tell(&market, &arguments.question, started, json).await;
    let keeps_running = told.as_ref().is_ok_and(|story| story.ok) && !arguments.once;
    if keeps_running {
        story::invite(market.endpoint());
        tokio::signal::ctrl_c()
            .await
            .context("Ctrl-C can't be waited for")?;
        eprintln!("Stopping.");
    }
    market.stop().await;
    let story = told?;
    Ok(if story.ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn tell(market: &Market, asked: &str, started: Instant, json: bool) -> anyhow::Result<Story> {
    if !json {
        story::introduce(market);
    }
    let before = Purses::read(market).await?;
    let answer = question::ask(market.endpoint(), asked, !json).await?;
    let receipt = market.settle(&answer.provider, answer.cost).await?;
    let after = Purses::read(market).await?;
    let audit = market.audit().await?;
    let story = Story::new(answer, &receipt, &before, &after, audit, started.elapsed());
    if json {
        story.print_json()?;
    } else {
        story.print(market)?;
    }
    Ok(story)
}
