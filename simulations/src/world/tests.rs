use std::sync::atomic::AtomicBool;

mod hardware;

use super::*;
use crate::engine::{Ended, Limits, Simulation, Stop};

static NEVER: AtomicBool = AtomicBool::new(false);

const SMALL: &str = "
duration_s = 120
bystanders = 20
network = { equal_latency_ms = 40, clocks = { wrong = 0.0 } }
[[providers]]
name = 'home'
count = 6
models = ['small']
[[consumers]]
name = 'programs'
count = 8
demand = { every_s = 10, follows_day = false, popularity = { models = ['small'] } }
";

fn config(text: &str) -> MarketConfig {
    toml::from_str(text).unwrap()
}

fn run(config: MarketConfig, seed: u64, threads: usize) -> Simulation<MarketWorld> {
    let until_us = config.duration_s.get() * 1_000_000;
    let mut simulation = build(config, seed);
    run_until(&mut simulation, until_us, threads);
    simulation
}

fn run_until(simulation: &mut Simulation<MarketWorld>, until_us: u64, threads: usize) {
    let stop = Stop {
        requested: &NEVER,
        threads,
        interest: None,
    };
    let ended = simulation
        .run(Limits::until_us(until_us), stop, |_, _| {})
        .unwrap();
    assert_eq!(ended, Ended::AtEnd);
}

fn written_and_read_back(
    stopped: &mut Simulation<MarketWorld>,
    config: MarketConfig,
    seed: u64,
) -> Simulation<MarketWorld> {
    let mut bytes = Vec::new();
    stopped.write_snapshot([1; 32], &mut bytes).unwrap();
    let world = MarketWorld::new(config, seed);
    Simulation::read_snapshot(world, [1; 32], seed, &mut bytes.as_slice()).unwrap()
}

#[test]
fn a_small_market_serves_pays_and_conserves() {
    let mut simulation = run(config(SMALL), 7, 1);
    let figures = figures(&mut simulation);
    let of = |name: &str| figures.metrics[name];
    assert!(of("jobs_asked") > 40.0);
    assert!(of("jobs_served_share") > 0.99);
    assert_eq!(of("misbehaviour_seen"), 0.0);
    assert!(of("book_settled") > 0.0);
}

#[test]
fn threads_and_repetition_change_nothing() {
    let digest = |seed, threads| run(config(SMALL), seed, threads).digest();
    assert_eq!(digest(7, 1), digest(7, 2));
    assert_ne!(digest(7, 1), digest(8, 1));
}

#[test]
fn a_stopped_run_goes_on_as_if_it_had_never_stopped() {
    let whole = run(config(SMALL), 7, 1).digest();
    let mut stopped = build(config(SMALL), 7);
    run_until(&mut stopped, 61_000_000, 1);
    let mut resumed = written_and_read_back(&mut stopped, config(SMALL), 7);
    run_until(&mut resumed, 120_000_000, 1);
    assert_eq!(resumed.digest(), whole);
    assert!(figures(&mut resumed).metrics["jobs_served"] > 10.0);
}

#[test]
fn crashes_and_an_outage_are_survived_and_break_no_rule() {
    let text = SMALL.replace(
        "models = ['small']\n[[",
        "models = ['small']\nonline_s = 60\noffline_s = 20\ncrashes = 0.5\n[[",
    ) + "[[faults]]\nkind = 'outage'\nat_s = 40\nfor_s = 20\n";
    let mut simulation = run(config(&text), 7, 1);
    let figures = figures(&mut simulation);
    let of = |name: &str| figures.metrics[name];
    assert!(of("provider_departures") > 3.0 && of("messages_lost") > 0.0);
    assert!(of("jobs_served") > 30.0, "{}", of("jobs_served"));
    let ended: f64 = of("jobs_served") + of("jobs_unserved");
    assert!(of("jobs_asked") - ended < 20.0, "{ended}");
}

/// Few providers and many short answers: second providers are asked, and told to stop at once.
#[test]
fn what_was_set_aside_for_a_second_provider_is_free_again() {
    let text = SMALL.replace(
        "bystanders = 20\nnetwork = { equal_latency_ms = 40,",
        "network = {",
    );
    let text = text.replace("duration_s = 120", "duration_s = 200");
    for seed in 1..=4 {
        let mut simulation = run(config(&text), seed, 1);
        let figures = figures(&mut simulation);
        assert!(figures.metrics["hedges"] > 0.0);
        assert!(figures.metrics["jobs_served"] > 100.0);
    }
}

/// Whoever waits no longer asks nobody else, and nothing stays set aside.
#[test]
fn a_program_that_gives_up_leaves_nothing_behind() {
    let text = SMALL.replace("name = 'programs'", "name = 'programs'\npatience_s = 3");
    let mut simulation = run(config(&text), 7, 1);
    let figures = figures(&mut simulation);
    let of = |name: &str| figures.metrics[name];
    assert!(
        of("jobs_unserved_too_late") > 3.0,
        "{}",
        of("jobs_unserved_too_late")
    );
    assert!(of("attempts") - of("hedges") <= of("jobs_asked"));
}

#[test]
fn lies_show_in_the_figures() {
    let liars = "
[[providers]]
name = 'inflating'
count = 2
models = ['small']
lie = { lie = 'token_inflation', percent = 50 }
[[providers]]
name = 'flooding'
count = 1
models = ['small']
lie = { lie = 'listing_flood', forged = 2 }
[[consumers]]
name = 'leaving'
count = 2
demand = { every_s = 10, follows_day = false, popularity = { models = ['small'] } }
lie = { lie = 'non_paying', leaves_after_chunks = 2 }
[defences]
audit_rate = 1.0
";
    let mut simulation = run(config(&format!("{SMALL}{liars}")), 7, 1);
    let figures = figures(&mut simulation);
    let of = |name: &str| figures.metrics[name];
    assert!(of("lies_found") > 0.0 && of("inflated_tokens") > 0.0);
    assert!(of("gossip_invalid_heard") > 0.0);
    assert!(of("consumers_vanished") > 0.0 && of("provider_unpaid") > 0.0);
    assert!(of("jobs_served") > 30.0);
}

#[test]
fn a_job_tells_its_story() {
    let first_consumer = Roster::new(&config(SMALL)).consumers().start;
    let job = event::JobId::new(first_consumer, 0);
    let interest = crate::engine::Interest::Job(job.0);
    let stop = Stop {
        requested: &NEVER,
        threads: 1,
        interest: Some(&interest),
    };
    let mut simulation = build(config(SMALL), 7);
    let _ = simulation
        .run(Limits::until_us(120_000_000), stop, |_, _| {})
        .unwrap();
    let words: Vec<String> = simulation
        .take_stories()
        .into_iter()
        .map(|story| story.words)
        .collect();
    for part in [
        "A program asks",
        "It asks node",
        "The provider takes the job",
        "The first output",
        "complete",
    ] {
        assert!(
            words.iter().any(|words| words.contains(part)),
            "{part}: {words:#?}"
        );
    }
}
