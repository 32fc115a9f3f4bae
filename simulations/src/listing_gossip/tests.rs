use super::*;

const SMALL: &str = "# Does a small world hold?
duration_s = 90
network = { degree = 6, latency_min_ms = 5, latency_max_ms = 80, jitter_ms = 10, loss = 0.05 }
providers = { count = 10, publish_every_s = 15, ttl_s = 45, leaving = 2, crashing = 2 }
liars = { count = 4, lie_every_s = 3 }
consumers = { count = 6, ask_every_s = 5 }
";

fn small() -> Scenario {
    Scenario::parse(SMALL).unwrap()
}

#[test]
fn the_same_seed_gives_the_same_report_and_another_one_another() {
    let report = run(&small(), 7).unwrap();
    assert_eq!(report, run(&small(), 7).unwrap());
    let other = run(&small(), 8).unwrap();
    assert_ne!(report.digest, other.digest);
    assert_eq!((report.nodes, report.duration_ms), (20, 90_000));
}

#[test]
fn no_lie_is_forwarded_or_shown_and_nearly_everything_true_arrives() {
    for seed in 0..8 {
        let report = run(&small(), seed).unwrap();
        assert_eq!(report.breaches, []);
        assert_eq!((report.invalid_forwarded, report.invalid_shown), (0, 0));
        assert!(
            report.lies_sent.len() == 4 && report.invalid_refused > 100,
            "{report:?}"
        );
        assert!(report.delivered.whole > 500, "{report:?}");
        assert!(
            report.delivered.part * 100 >= report.delivered.whole * 95,
            "{report:?}"
        );
        assert!(
            report.running_known.part * 100 >= report.running_known.whole * 95,
            "{report:?}"
        );
        assert!(
            report.messages_lost * 100 / report.messages_sent < 8,
            "{report:?}"
        );
        // Nobody can be seen longer than a listing holds, and nobody's is renewed in less than an interval.
        assert!(
            report.age.p99_ms.unwrap() < 45_000 && report.age.p50_ms.unwrap() < 15_000,
            "{report:?}"
        );
        assert!(report.gone_shown.part > 0, "{report:?}");
    }
}

#[test]
fn without_loss_liars_and_departures_every_listing_arrives() {
    let calm = SMALL
        .replace("loss = 0.05", "loss = 0.0")
        .replace("leaving = 2, crashing = 2", "leaving = 0, crashing = 0")
        .replace("liars = { count = 4", "liars = { count = 0");
    let report = run(&Scenario::parse(&calm).unwrap(), 1).unwrap();
    assert!(
        report.delivered.whole > 0 && report.delivered.part == report.delivered.whole,
        "{report:?}"
    );
    assert_eq!(report.running_known.part, report.running_known.whole);
    assert_eq!(
        (
            report.gone_shown.part,
            report.messages_lost,
            report.invalid_refused
        ),
        (0, 0, 0)
    );
    assert!(report.delivery.p99_ms.unwrap() <= 5 * 90, "{report:?}");
}

#[test]
fn a_network_that_loses_everything_delivers_nothing() {
    let lost = SMALL.replace("loss = 0.05", "loss = 1.0");
    let report = run(&Scenario::parse(&lost).unwrap(), 1).unwrap();
    assert_eq!(
        (report.delivered.part, report.messages_lost),
        (0, report.messages_sent)
    );
    assert_eq!((report.age.p50_ms, report.running_known.part), (None, 0));
    assert!(report.answer.contains("unknown"));
}

#[test]
fn a_farewell_is_heard_and_a_crash_is_seen_until_the_listing_expires() {
    let gone = |leaving, crashing| {
        let text = SMALL
            .replace(
                "leaving = 2, crashing = 2",
                &format!("leaving = {leaving}, crashing = {crashing}"),
            )
            .replace("loss = 0.05", "loss = 0.0")
            .replace("liars = { count = 4", "liars = { count = 0");
        run(&Scenario::parse(&text).unwrap(), 3).unwrap().gone_shown.part
    };
    assert!(gone(5, 0) * 10 < gone(0, 5), "{} {}", gone(5, 0), gone(0, 5));
}

#[test]
fn forwarding_what_is_no_news_is_found() {
    // Longer than peers remember messages, so that replays are read again.
    let text = SMALL.replace("duration_s = 90", "duration_s = 240");
    let scenario = Scenario::parse(&text).unwrap();
    assert_eq!(run(&scenario, 1).unwrap().breaches, []);
    let report = run_with(&scenario, 1, Forwarding::EverythingValid).unwrap();
    let breach = report
        .breaches
        .first()
        .expect("forwarding old listings was not found");
    assert!(
        matches!(breach.breach, Breach::StaleForwarded { .. }),
        "{breach:?}"
    );
}

#[test]
fn a_planted_bug_is_found_at_an_event_that_replays() {
    for seed in 0..8 {
        let report = run_with(&small(), seed, Forwarding::Everything).unwrap();
        let breach = report
            .breaches
            .first()
            .expect("forwarding without verifying was not found");
        assert!(
            matches!(breach.breach, Breach::InvalidForwarded { .. }),
            "{breach:?}"
        );
        assert_eq!((breach.event, report.invalid_forwarded), (report.events, 1));
        assert!(report.answer.contains(&format!("event {}", breach.event)));
        assert!(report.answer.contains(&format!("--seed {seed}")));
        assert_eq!(report, run_with(&small(), seed, Forwarding::Everything).unwrap());
    }
}
