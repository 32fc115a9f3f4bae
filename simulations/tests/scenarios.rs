//! The scenarios that come with the program: each runs at its small size, breaks no rule, is as it expects, and
//! answers its question.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;

use gristmill_simulations::engine::{Ended, Stop};
use gristmill_simulations::results::{Host, RunResult};
use gristmill_simulations::running::{self, Circumstances};
use gristmill_simulations::scenario::library;
use gristmill_simulations::scenario::plan::{Plan, Variant};
use gristmill_simulations::world::config::MarketConfig;

const SEED: u64 = 7;

fn perform(plan: &Plan, variant: &Variant, threads: usize) -> RunResult {
    let (mut simulation, limits) = running::begin(variant, SEED).unwrap();
    let stop = Stop {
        requested: &AtomicBool::new(false),
        threads,
        interest: None,
    };
    let ended = simulation.run(limits, stop, |_, _| {}).unwrap();
    assert_ne!(ended, Ended::Stopped);
    let circumstances = Circumstances {
        host: Host {
            os: String::new(),
            arch: String::new(),
            cpu: String::new(),
            cores: 1,
        },
        wall_s: 0.0,
        threads,
        peak_rss_bytes: 0,
    };
    running::finish(plan, variant, SEED, &mut simulation, &ended, &circumstances)
}

#[test]
fn every_scenario_breaks_no_rule_and_answers_at_its_small_size() {
    for (name, text) in library::ALL {
        let mut plan = Plan::parse(name, text).unwrap_or_else(|error| panic!("{name}: {error}"));
        plan.make_small()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let runs: Vec<RunResult> = plan
            .variants()
            .unwrap()
            .iter()
            .map(|variant| perform(&plan, variant, 2))
            .collect();
        for run in &runs {
            assert_eq!(run.manifest.breaches, [], "{name}: {}", run.manifest.replay);
            run.check().unwrap();
        }
        assert_eq!(running::unexpected(&plan, &runs), Vec::<String>::new(), "{name}");
        let answer = running::answer(&plan, &runs).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(answer.ends_with('.') && answer.len() > 40, "{name}: {answer}");
        assert!(!plan.answer.headline.is_empty(), "{name} has no headline");
        for metric in &plan.answer.headline {
            assert!(
                runs.iter().any(|run| run.metrics.contains_key(metric)),
                "{name}: no figure {metric}"
            );
        }
    }
}

#[test]
fn every_scenario_reads_at_full_size_and_asks_a_question_of_its_own() {
    let mut questions = BTreeSet::new();
    for (name, text) in library::ALL {
        let plan = Plan::parse(name, text).unwrap_or_else(|error| panic!("{name}: {error}"));
        for variant in plan.variants().unwrap() {
            variant
                .read::<MarketConfig>()
                .unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        assert!(questions.insert(plan.question.clone()), "{}", plan.question);
        assert!(!plan.dimensions().is_empty(), "{name} compares nothing");
    }
}

#[test]
fn threads_change_nothing() {
    let (name, text) = library::ALL.last().unwrap();
    let mut plan = Plan::parse(name, text).unwrap();
    plan.make_small().unwrap();
    let variants = plan.variants().unwrap();
    let (one, two) = (perform(&plan, &variants[0], 1), perform(&plan, &variants[0], 2));
    assert_eq!(
        (&one.manifest.digest, &one.metrics),
        (&two.manifest.digest, &two.metrics)
    );
}
