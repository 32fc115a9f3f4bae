use super::*;

/// A table of a few runs: rates as foretold, and no honest prover refused. `gristmill benchmark selftest --runs 1000`
/// plays the thousands.
#[test]
fn liars_are_caught_as_foretold_and_nobody_honest_is_refused() {
    let report = run(5, &|_, _| {});
    assert_eq!(report.honest, HonestRuns { runs: 50, refused: 0 });
    assert_eq!(report.liars.len(), Liar::all().len());
    for liar in &report.liars {
        assert_eq!(liar.runs, 5);
        assert!(liar.is_as_foretold(), "{liar:?}");
    }
}

#[test]
fn the_same_number_gives_the_same_report() {
    assert_eq!(run(1, &|_, _| {}), run(1, &|_, _| {}));
}

#[test]
fn progress_comes_to_its_end() {
    let most = AtomicU32::new(0);
    let report = run(1, &|done, of| {
        most.fetch_max(done, Ordering::Relaxed);
        assert!(done <= of);
    });
    let all = report.honest.runs + report.liars.iter().map(|liar| liar.runs).sum::<u32>();
    assert_eq!(most.into_inner(), all);
}

#[test]
fn the_report_has_the_fields_that_programs_read() {
    let report = Report {
        honest: HonestRuns { runs: 10, refused: 0 },
        liars: vec![LiarRuns {
            name: "never answers".into(),
            runs: 1,
            caught: 1,
            expected_rate: 1.0,
        }],
    };
    let json = serde_json::to_string(&report).unwrap();
    assert_eq!(
        json,
        r#"{"honest":{"runs":10,"refused":0},"liars":[{"name":"never answers","runs":1,"caught":1,"expected_rate":1.0}]}"#
    );
}

#[test]
fn a_rate_that_is_off_is_noticed() {
    let runs = |caught, expected_rate| LiarRuns {
        name: String::new(),
        runs: 1_000,
        caught,
        expected_rate,
    };
    assert!(runs(1_000, 1.0).is_as_foretold());
    assert!(!runs(999, 1.0).is_as_foretold());
    // Standard deviation 8.1.
    assert!(runs(930, 0.93).is_as_foretold());
    assert!(runs(896, 0.93).is_as_foretold());
    assert!(!runs(890, 0.93).is_as_foretold());
    assert!(!runs(970, 0.93).is_as_foretold());
}

/// The coordinator's number is the one that the formula asks for.
#[test]
fn the_policy_misses_five_percent_at_most_once_in_two_to_the_20() {
    let share = crate::challenge::soundness::Share::percent(5).unwrap();
    let needed = crate::challenge::soundness::openings_for(share, 20, 1_024);
    assert_eq!(needed, Some(crate::session::Policy::default().openings));
}

/// The formula stands on its own: (1 - 10/1024)^271 and so on, worked out by hand.
#[test]
fn expected_rates_are_the_formulas() {
    let rate = |liar: Liar| liar.expected_rate();
    assert!((rate(Liar::SkipsWork(1)) - (1.0 - (1.0_f64 - 10.0 / 1024.0).powi(271))).abs() < 1e-12);
    assert!((rate(Liar::SkipsWork(1)) - 0.9301).abs() < 1e-3);
    assert!(rate(Liar::SkipsWork(5)) > 1.0 - 1.1e-6);
    assert!((rate(Liar::Honest)).abs() < 1e-12);
    assert!((rate(Liar::Garbage) - 1.0).abs() < 1e-12);
}
