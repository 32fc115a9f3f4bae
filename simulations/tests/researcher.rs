//! What a researcher relies on: the guide's scenario runs, and a report is the same every time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use gristmill_simulations::listing_gossip::run;
use gristmill_simulations::scenario::Scenario;

const GUIDE: &str = include_str!("../../docs/guides/researcher.md");

/// The only TOML block of the guide.
fn scenario_of_the_guide() -> Scenario {
    let mut blocks = GUIDE.split("```toml\n").skip(1);
    let block = blocks.next().and_then(|block| block.split("```").next()).unwrap();
    assert!(blocks.next().is_none());
    Scenario::parse(block).unwrap()
}

#[test]
fn the_scenario_of_the_guide_runs_and_answers() {
    let scenario = scenario_of_the_guide();
    let report = run(&scenario, 7).unwrap();
    assert_eq!(
        report.question,
        "How much of the market do consumers lose when every third peer lies?"
    );
    assert_eq!(
        (report.nodes, report.breaches.len(), report.invalid_forwarded),
        (45, 0, 0)
    );
    assert!(
        report.answer.contains("reach a peer within 5 s"),
        "{}",
        report.answer
    );
    assert_eq!(report, run(&scenario, 7).unwrap());
    assert_ne!(report.digest, run(&scenario, 8).unwrap().digest);
}

#[test]
fn the_guide_explains_every_figure_of_the_report() {
    let report = serde_json::to_value(run(&scenario_of_the_guide(), 7).unwrap()).unwrap();
    let speaks_for_itself = ["question", "answer", "nodes", "seed", "duration_ms", "published"];
    for key in report
        .as_object()
        .unwrap()
        .keys()
        .filter(|key| !speaks_for_itself.contains(&key.as_str()))
    {
        assert!(GUIDE.contains(&format!("`{key}`")), "{key}");
    }
}
