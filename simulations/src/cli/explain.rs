//! `simulate explain`: the story of one node or one job, in words, from the same scenario and seed.

use std::io::Write;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

use anyhow::bail;
use clap::Args;

use super::files::ScenarioArguments;
use super::machine;
use super::one::{Order, Outcome};
use super::progress::Progress;
use crate::engine::{Interest, NodeId, Story};
use crate::running;

/// What `simulate explain` is told.
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    scenario: ScenarioArguments,
    /// The seed of the run that is explained
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Explain a job: its consumer and the consumer's count of it, such as 57:3
    #[arg(long, value_name = "CONSUMER:COUNT", value_parser = job, conflicts_with = "node", required_unless_present = "node")]
    job: Option<u64>,
    /// Explain a node, by its number
    #[arg(long, value_name = "NUMBER")]
    node: Option<NodeId>,
    /// Stop after so many seconds of virtual time
    #[arg(long, value_name = "SECONDS")]
    until_s: Option<u64>,
}

/// A job's number: its consumer's in the upper half, the count in the lower one.
fn job(text: &str) -> Result<u64, String> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let parsed = text.split_once(':').and_then(|(consumer, count)| {
        Some((u64::from(consumer.parse::<u32>().ok()?) << 32) | u64::from(count.parse::<u32>().ok()?))
    });
    parsed.ok_or_else(|| format!("`{text}` is no job; write its consumer and count, such as 57:3"))
}

/// How a job is written.
fn job_words(job: u64) -> String {
    format!("job {}:{}", job >> 32, job & 0xffff_ffff)
}

pub(super) fn explain(arguments: &Arguments, json: bool, stop: &AtomicBool) -> anyhow::Result<ExitCode> {
    let plan = arguments.scenario.plan()?;
    let variants = plan.variants()?;
    let Some(variant) = variants.first() else {
        bail!("the scenario has no variant");
    };
    let mut stderr = std::io::stderr().lock();
    if variants.len() > 1 {
        let pairs: Vec<String> = variant
            .parameters
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        writeln!(
            stderr,
            "of the first variant, {}; choose another one with --set",
            pairs.join(" ")
        )?;
    }
    let interest = match (arguments.job, arguments.node) {
        (Some(job), _) => Interest::Job(job),
        (None, Some(node)) => Interest::Node(node),
        (None, None) => bail!("name a job with --job or a node with --node"),
    };
    let progress = Progress::of_variants(1, 0);
    let order = Order {
        plan: &plan,
        variant,
        seed: arguments.seed,
        threads: machine::cores(),
        interest: Some(&interest),
        until_us: arguments.until_s.map(|seconds| seconds.saturating_mul(1_000_000)),
    };
    let outcome = order.perform(None, stop, |now_us, until_us, events| {
        progress.within(now_us, until_us, events);
    })?;
    progress.end();
    let stories = match outcome {
        Outcome::Done { stories, .. } => stories,
        Outcome::Stopped(mut simulation) => simulation.take_stories(),
    };
    if stories.is_empty() {
        bail!(
            "nothing happened to it until the end of the run; nodes are numbered from 0, jobs from 0 by consumer \
             (explain the consumer's node to see its jobs)"
        );
    }
    print(&stories, json, &mut std::io::stdout().lock())?;
    Ok(ExitCode::SUCCESS)
}

fn print(stories: &[Story], json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    if json {
        writeln!(out, "{}", serde_json::to_string_pretty(stories)?)?;
        return Ok(());
    }
    for story in stories {
        let job = story
            .job
            .map_or_else(String::new, |job| format!(", {}", job_words(job)));
        writeln!(
            out,
            "{:>14.6} s  node {}{job}: {}",
            running::seconds(story.at_us),
            story.node,
            story.words
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_story_reads_and_jobs_are_named_by_their_consumer() {
        assert_eq!(job("57:3"), Ok((57 << 32) | 3));
        assert_eq!(job("244813135875"), job("57:3"));
        assert!(job("57").is_ok() && job("a:1").is_err() && job("1:").is_err());
        let stories = [Story {
            at_us: 1_500_000,
            tie: 0,
            node: 57,
            job: Some((57 << 32) | 3),
            words: "asks for guide-8b".to_owned(),
        }];
        let (mut text, mut as_json) = (Vec::new(), Vec::new());
        print(&stories, false, &mut text).unwrap();
        print(&stories, true, &mut as_json).unwrap();
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "      1.500000 s  node 57, job 57:3: asks for guide-8b\n"
        );
        assert!(serde_json::from_slice::<Vec<Story>>(&as_json).is_ok());
    }
}
