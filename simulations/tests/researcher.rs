//! What a researcher relies on: the guide's scenario runs and answers, and the guide names every figure.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::atomic::AtomicBool;

use gristmill_simulations::engine::Stop;
use gristmill_simulations::results::{Host, RunResult};
use gristmill_simulations::running::{self, Circumstances};
use gristmill_simulations::scenario::plan::Plan;

const GUIDE: &str = include_str!("../../docs/guides/researcher.md");

/// The only TOML block of the guide.
fn plan_of_the_guide() -> Plan {
    let mut blocks = GUIDE.split("```toml\n").skip(1);
    let block = blocks.next().and_then(|block| block.split("```").next()).unwrap();
    assert!(blocks.next().is_none());
    let mut plan = Plan::parse("guide", block).unwrap();
    plan.make_small().unwrap();
    plan
}

fn perform(plan: &Plan, seed: u64) -> Vec<RunResult> {
    let circumstances = Circumstances {
        host: Host {
            os: String::new(),
            arch: String::new(),
            cpu: String::new(),
            cores: 1,
        },
        wall_s: 0.0,
        threads: 1,
        peak_rss_bytes: 0,
    };
    let requested = AtomicBool::new(false);
    let run = |variant: &_| {
        let (mut simulation, limits) = running::begin(variant, seed).unwrap();
        let stop = Stop {
            requested: &requested,
            threads: 1,
            interest: None,
        };
        let ended = simulation.run(limits, stop, |_, _| {}).unwrap();
        running::finish(plan, variant, seed, &mut simulation, &ended, &circumstances)
    };
    plan.variants().unwrap().iter().map(run).collect()
}

#[test]
fn the_scenario_of_the_guide_runs_and_answers() {
    let plan = plan_of_the_guide();
    let runs = perform(&plan, 7);
    assert_eq!(runs.len(), 2);
    assert_eq!(running::unexpected(&plan, &runs), Vec::<String>::new());
    let answer = running::answer(&plan, &runs).unwrap();
    assert!(answer.starts_with("With 2 and 4 providers "), "{answer}");
    assert_eq!(runs, perform(&plan, 7));
    assert_ne!(runs[0].manifest.digest, perform(&plan, 8)[0].manifest.digest);
}

#[test]
fn the_guide_names_every_figure() {
    for name in perform(&plan_of_the_guide(), 7)[0].metrics.keys() {
        let family = name.split('.').next().unwrap();
        let endings = ["_mean", "_p50", "_p95", "_p99"];
        let family = endings
            .iter()
            .find_map(|ending| family.strip_suffix(ending))
            .unwrap_or(family);
        let is_named = GUIDE.contains(&format!("`{family}`"));
        assert!(is_named || family.starts_with("jobs_unserved_"), "{name}");
    }
}
