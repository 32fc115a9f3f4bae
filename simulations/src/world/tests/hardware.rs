//! Challenges of hardware in the market: from joining to the consumer who asks for nothing else.

use super::*;

const MIXED: &str = "
duration_s = 300
network = { equal_latency_ms = 40, clocks = { wrong = 0.0 } }
[defences]
challenges_per_day = 0.0
only_verified = 1.0
[[providers]]
name = 'honest'
count = 3
models = ['small']
[[providers]]
name = 'pretenders'
count = 3
device = 'rtx3070'
models = ['small']
lie = { lie = 'fake_gpu', claims = 'rtx3090' }
[[consumers]]
name = 'programs'
count = 6
demand = { every_s = 20, follows_day = false, popularity = { models = ['small'] } }
";

#[test]
fn who_asks_for_verified_hardware_gets_it_and_a_pretender_gets_nothing() {
    let mut simulation = run(config(MIXED), 7, 1);
    let strict = figures(&mut simulation);
    let of = |name: &str| strict.metrics[name];
    assert!(of("hardware_certificates") >= 3.0 && of("hardware_refusals_slower_than_claimed") >= 3.0);
    assert_eq!(of("hardware_refusals_of_honest"), 0.0);
    assert_eq!((of("settled.pretenders"), of("delivered.pretenders")), (0.0, 0.0));
    assert_eq!(of("earned.fake_gpu"), 0.0);
    assert!(of("earned.honest") > 0.0 && of("earned_per_provider.honest") * 3.0 - of("earned.honest") < 1.0);
    assert_eq!(of("earned.strategy_fixed"), of("settled"));
    assert!(of("certified_share.honest") > 0.6 && of("certified_share.pretenders") == 0.0);
    assert!(of("jobs_served") > 40.0, "{}", of("jobs_served"));
    let mut simulation = run(
        config(&MIXED.replace("only_verified = 1.0", "only_verified = 0.0")),
        7,
        1,
    );
    assert!(figures(&mut simulation).metrics["delivered.pretenders"] > 0.0);
}

#[test]
fn nobody_is_verified_where_nobody_is_challenged() {
    let text = MIXED.replace("challenges_per_day = 0.0\n", "");
    let mut simulation = run(config(&text), 7, 1);
    let figures = figures(&mut simulation);
    assert_eq!(figures.metrics["jobs_served"], 0.0);
    assert!(!figures.metrics.contains_key("hardware_challenges"));
}

/// What was set aside for the slower one of a pair stayed so when the faster one had ended first.
#[test]
fn nothing_stays_set_aside_where_devices_differ() {
    let text = MIXED.replace("challenges_per_day = 0.0\nonly_verified = 1.0\n", "");
    let mut simulation = run(config(&text), 7, 1);
    assert!(figures(&mut simulation).metrics["hedges"] > 0.0);
}

#[test]
fn challenges_do_not_depend_on_threads() {
    let digest = |threads| run(config(MIXED), 7, threads).digest();
    assert_eq!(digest(1), digest(2));
}

#[test]
fn a_run_that_stops_amid_a_challenge_goes_on_as_if_it_had_never_stopped() {
    let whole = run(config(MIXED), 7, 1).digest();
    let mut stopped = build(config(MIXED), 7);
    run_until(&mut stopped, 25_000_000, 1);
    let amid = figures(&mut stopped);
    assert!(amid.metrics["hardware_challenges"] > 0.0);
    assert_eq!(amid.metrics["hardware_certificates"], 0.0);
    let mut resumed = written_and_read_back(&mut stopped, config(MIXED), 7);
    run_until(&mut resumed, 300_000_000, 1);
    assert_eq!(resumed.digest(), whole);
    assert!(figures(&mut resumed).metrics["hardware_certificates"] >= 3.0);
}

/// The real GPU is given back after ten minutes: the first certificate is all that it brings, and nobody who asks for verified
/// hardware asks after its six hours.
#[test]
fn a_certificate_that_was_rented_ends_with_the_next_challenge() {
    let text = "
duration_s = 27000
connections = 3
network = { equal_latency_ms = 40, clocks = { wrong = 0.0 } }
[defences]
challenges_per_day = 144.0
only_verified = 1.0
[[providers]]
name = 'honest'
count = 1
publish_every_s = 600
models = ['small']
[[providers]]
name = 'renters'
count = 2
device = 'rtx3070'
publish_every_s = 600
models = ['small']
lie = { lie = 'fake_gpu', claims = 'rtx3090', rents_for_s = 600 }
[[consumers]]
name = 'programs'
count = 2
channel_life_s = 30000
demand = { every_s = 300, follows_day = false, popularity = { models = ['small'] } }
";
    let mut simulation = run(config(text), 7, 1);
    let figures = figures(&mut simulation);
    let of = |name: &str| figures.metrics[name];
    let hours = of("certified_share.renters") * 7.5;
    assert!((5.9..6.5).contains(&hours), "{hours}");
    assert!(of("certified_share.honest") > 0.95);
    assert_eq!(of("hardware_rented_s"), 1_200.0);
    assert_eq!(of("hardware_refusals_of_honest"), 0.0);
    assert!(of("earned.fake_gpu") > 0.0 && of("hardware_certificates") > 5.0);
    assert!(of("jobs_served_share") > 0.95);
}

/// One device, three listings, each of which has it for ten minutes in turn: nothing ties them to each other at three
/// addresses, and at one they would have to be shown at one time.
#[test]
fn one_device_behind_listings_at_one_address_is_certified_once() {
    let certificates = |one_address: bool| {
        let text = format!(
            "
duration_s = 2700
connections = 3
network = {{ equal_latency_ms = 40, clocks = {{ wrong = 0.0 }} }}
[defences]
challenges_per_day = 0.0
[[providers]]
name = 'sharers'
count = 3
device = 'rtx4090'
models = ['small']
lie = {{ lie = 'fake_gpu', claims = 'rtx4090', turn_s = 600, one_address = {one_address} }}
"
        );
        let mut simulation = run(config(&text), 7, 1);
        let figures = figures(&mut simulation);
        let refused_together = figures.metrics.get("hardware_refusals_together").copied();
        (
            figures.metrics["hardware_certificates"],
            refused_together.unwrap_or(0.0),
        )
    };
    assert_eq!(certificates(false), (3.0, 0.0));
    let (given, refused) = certificates(true);
    assert!(given <= 2.0 && refused >= 1.0, "{given} {refused}");
}
