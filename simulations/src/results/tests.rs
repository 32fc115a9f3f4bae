use proptest::prelude::*;

use super::*;

/// A run with a little of everything, and texts that break careless code.
pub(crate) fn run_of(parameters: &[(&str, &str)], seed: u64) -> RunResult {
    let scenario = "# How far does gossip reach?\nnodes = 1000\n".to_owned();
    let noise = (seed % 7) as f64;
    let first = parameters.first().and_then(|(_, value)| value.parse().ok());
    let level: f64 = first.unwrap_or(1.0);
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    RunResult {
        manifest: Manifest {
            format: FORMAT,
            version: "0.1.0".into(),
            scenario: "gossip-reach".into(),
            scenario_digest: RunResult::digest_of(&scenario),
            changes: BTreeMap::new(),
            question: "How far does gossip reach?".into(),
            answer: None,
            headline: vec!["delivered_share".into()],
            parameters: parameters.iter().map(owned).collect(),
            seed,
            nodes: 1_000,
            events: 123_456,
            virtual_s: 600.0,
            digest: RunResult::digest_of(&format!("{parameters:?} {seed}")),
            epochs: (0..4)
                .map(|epoch| Epoch {
                    at_s: f64::from(epoch) * 200.0,
                    digest: format!("{epoch}-{seed}"),
                })
                .collect(),
            host: Host {
                os: "linux".into(),
                arch: "x86_64".into(),
                cpu: "A \"CPU\" & more".into(),
                cores: 2,
            },
            wall_s: 1.25,
            threads: 2,
            peak_rss_bytes: 64_000_000,
            breaches: Vec::new(),
            replay: format!("gristmill simulate run scenario.toml --seed {seed}"),
        },
        scenario,
        metrics: [
            ("delivered_share".to_owned(), 0.9 - level / 10.0 + noise / 1_000.0),
            ("age_p99_s".to_owned(), 60.1 + 10.0 * level + noise),
            ("odd, \"name\"".to_owned(), 1e-300),
        ]
        .into(),
        series: vec![Series {
            name: "known_providers".into(),
            unit: String::new(),
            points: (0..5)
                .map(|step| (f64::from(step) * 60.0, f64::from(step) * level + noise))
                .collect(),
        }],
        distributions: vec![Distribution {
            name: "delivery".into(),
            unit: "s".into(),
            buckets: vec![(0.1, 10), (0.2, 400 + seed % 10), (0.4, 30), (1.6, 2)],
        }],
        tables: vec![Listing {
            name: "who earned".into(),
            columns: vec!["role".into(), "credits".into()],
            rows: vec![
                vec!["liar, \"fake\"".into(), "0".into()],
                vec!["honest\nline".into(), "17".into()],
            ],
        }],
    }
}

#[test]
fn a_figure_that_is_not_defined_is_no_result() {
    let error = |change: fn(&mut RunResult)| {
        let mut run = run_of(&[], 1);
        run.check().unwrap();
        change(&mut run);
        run.check().unwrap_err().to_string()
    };
    let nan = error(|run| {
        run.metrics.insert("gone_share".into(), f64::NAN);
    });
    assert!(
        nan.starts_with("the metric gone_share is no finite number"),
        "{nan}"
    );
    assert!(
        error(|run| run.series[0].points.reverse()).contains("series known_providers is not in ascending")
    );
    assert!(error(|run| run.distributions[0].buckets[0].0 = f64::INFINITY).contains("distribution delivery"));
    assert!(error(|run| run.series.push(run.series[0].clone())).contains("two of the name the series"));
    assert!(error(|run| run.tables[0].rows[1].truncate(1)).contains("row 2 of the table who earned"));
}

#[test]
fn units_are_in_the_names() {
    for (name, unit) in [
        ("age_p99_s", "s"),
        ("lost_share", "share"),
        ("sent_bytes_per_second", "B/s"),
        ("paid_microcredits", "µcr"),
        ("gossip_delivery_ms_p99", "ms"),
        ("gossip_bytes_per_node", "B"),
        ("settled.home", "µcr"),
        ("providers", ""),
    ] {
        assert_eq!(unit_of(name), unit, "{name}");
    }
}

proptest! {
    #[test]
    fn epochs_of_two_lengths_stay_comparable(short in 1usize..5_000, more in 0usize..20_000) {
        let epochs = |count: usize| -> Vec<Epoch> {
            let epoch = |index: usize| Epoch { at_s: index as f64, digest: index.to_string() };
            shortened((0..count).map(epoch).collect())
        };
        let (few, many) = (epochs(short), epochs(short + more));
        prop_assert!(few.len() <= MAX_EPOCHS && many.len() <= MAX_EPOCHS);
        prop_assert!(many.last().is_some_and(|last| last.at_s == (short + more - 1) as f64));
        // Each that the longer one has within the shorter one's time is in both, but for the last of the longer one.
        let inner = many.iter().take(many.len() - 1).filter(|epoch| epoch.at_s < short as f64);
        for epoch in inner {
            prop_assert!(few.contains(epoch));
        }
    }

    #[test]
    fn a_whole_result_comes_back_from_json(seed: u64, value in prop::num::f64::NORMAL, text in ".*") {
        let mut run = run_of(&[("text", &text)], seed);
        run.metrics.insert(text, value);
        let json = serde_json::to_string(&run).unwrap();
        prop_assert_eq!(serde_json::from_str::<RunResult>(&json).unwrap(), run);
    }
}
