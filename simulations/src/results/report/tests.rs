use proptest::prelude::*;

use super::*;
use crate::results::BreachRecord;
use crate::results::tests::run_of;

fn experiment(parameters: &[&[(&str, &str)]], seeds: u64) -> Experiment {
    let runs = parameters
        .iter()
        .flat_map(|parameters| (1..=seeds).map(|seed| run_of(parameters, seed)));
    Experiment {
        runs: runs.collect(),
        ..Experiment::of_run(run_of(&[], 1))
    }
}

fn opened(page: &str, tag: &str) -> usize {
    page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count()
}

/// Every tag that is opened is closed, and nothing is fetched from anywhere.
fn is_sound(page: &str) {
    for tag in [
        "html",
        "head",
        "body",
        "main",
        "section",
        "h1",
        "h2",
        "p",
        "ul",
        "li",
        "dl",
        "dt",
        "dd",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "figure",
        "figcaption",
        "svg",
        "title",
        "desc",
        "text",
        "details",
        "summary",
        "pre",
        "code",
        "div",
        "footer",
    ] {
        assert_eq!(
            opened(page, tag),
            page.matches(&format!("</{tag}>")).count(),
            "{tag}"
        );
    }
    for forbidden in [
        "<script", "<link", "<img", "<iframe", "http:", "https:", "url(", "@import", " onload", "NaN",
        "inf\"",
    ] {
        assert!(!page.contains(forbidden), "{forbidden}");
    }
    assert_eq!(page.matches("<h1>").count(), 1);
    let plots = page.matches("role=\"img\"").count();
    assert_eq!(plots, page.matches("<desc id=").count());
}

#[test]
fn a_sweep_has_lines_with_bands_and_an_answer() {
    let sweep = experiment(&[&[("churn", "0.1")], &[("churn", "0.2")], &[("churn", "2")]], 5);
    let page = page(&sweep);
    is_sound(&page);
    // The metric of the headline, one series, one distribution.
    assert_eq!(page.matches("<figure>").count(), 3);
    assert!(
        page.contains("class=\"band l0\"") && page.contains("class=\"whisker") || page.contains("whiskers")
    );
    let summary = Summary::of(&sweep);
    assert_eq!(
        answer(&sweep, &summary),
        "Delivered share goes from 0.8930\u{a0}±\u{a0}0.0020 at churn = 0.1 to 0.7030\u{a0}±\u{a0}0.0020 at churn = 2."
    );
    assert!(page.contains("Growth with churn"));
    assert!(page.contains("gristmill simulate run scenario.toml --seed 1"));
}

#[test]
fn categories_have_bars_and_two_parameters_have_lines() {
    let bars = page(&experiment(
        &[&[("strategy", "fixed")], &[("strategy", "undercut")]],
        3,
    ));
    is_sound(&bars);
    assert!(bars.contains("class=\"bar\"") && bars.contains(">undercut: "));
    let lines = page(&experiment(
        &[
            &[("churn", "0.1"), ("strategy", "fixed")],
            &[("churn", "0.4"), ("strategy", "fixed")],
            &[("churn", "0.1"), ("strategy", "spot")],
            &[("churn", "0.4"), ("strategy", "spot")],
        ],
        2,
    ));
    is_sound(&lines);
    assert!(lines.contains("class=\"legend\"") && lines.contains("strategy = spot"));
}

#[test]
fn one_run_has_a_report_and_so_have_none() {
    let single = page(&Experiment::of_run(run_of(&[], 1)));
    is_sound(&single);
    assert!(single.contains("(one seed)") && !single.contains("class=\"band"));
    let empty = Experiment {
        runs: Vec::new(),
        ..Experiment::of_run(run_of(&[], 1))
    };
    is_sound(&page(&empty));
}

#[test]
fn breaches_and_missing_runs_are_told_first() {
    let mut sweep = experiment(&[&[("churn", "0.1")], &[("churn", "0.4")]], 2);
    sweep.missing = vec!["churn = 0.9 with seed 1".into()];
    sweep.runs[0].manifest.breaches.push(BreachRecord {
        rule: "conservation".into(),
        message: "12 µcr too many".into(),
        node: 4,
        at_us: 1_500_000,
        event: 99,
    });
    let page = page(&sweep);
    is_sound(&page);
    let place = |text: &str| page.find(text).unwrap();
    assert!(place("12 µcr too many") < place("What was varied"));
    assert!(place("churn = 0.9 with seed 1") < place("What was varied"));
    assert!(page.contains("at node 4, 1.5 s, event 99, seed 1"));
}

const ATTACK: &str = "</script></title><svg onload=alert(1)>\"'&\u{0}\u{202e}";

#[test]
fn names_from_files_stay_text() {
    let mut run = run_of(&[(ATTACK, ATTACK)], 1);
    let manifest = &mut run.manifest;
    for text in [
        &mut manifest.scenario,
        &mut manifest.question,
        &mut manifest.version,
        &mut manifest.replay,
        &mut manifest.digest,
        &mut manifest.host.cpu,
        &mut manifest.scenario_digest,
    ] {
        *text = ATTACK.to_owned();
    }
    run.scenario = ATTACK.to_owned();
    run.metrics.insert(ATTACK.to_owned(), 1.0);
    run.series[0].name = ATTACK.to_owned();
    run.series[0].unit = ATTACK.to_owned();
    run.distributions[0].name = ATTACK.to_owned();
    run.tables[0].name = ATTACK.to_owned();
    run.tables[0].columns[0] = ATTACK.to_owned();
    run.tables[0].rows[0][0] = ATTACK.to_owned();
    let mut other = run_of(&[(ATTACK, "x")], 1);
    other.metrics.insert(ATTACK.to_owned(), 2.0);
    let attacked = Experiment {
        name: ATTACK.to_owned(),
        answer: Some(ATTACK.to_owned()),
        grid: crate::results::Grid::default(),
        missing: vec![ATTACK.to_owned()],
        runs: vec![run, other],
    };
    let page = page(&attacked);
    assert!(!page.contains("<svg onload") && !page.contains("</script>") && !page.contains('\u{202e}'));
    is_sound(&page.replace(" onload", ""));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn no_text_and_no_number_breaks_the_page(
        text in ".{0,20}",
        values in prop::collection::vec(prop::num::f64::NORMAL, 4),
    ) {
        let mut sweep = experiment(&[&[("churn", "0.1")], &[("churn", &text)]], 2);
        for (run, value) in sweep.runs.iter_mut().zip(&values) {
            run.metrics.insert(text.clone(), *value);
            run.series[0].name.clone_from(&text);
            run.series[0].points[0].1 = *value;
        }
        let page = page(&sweep);
        for tag in ["svg", "table", "p", "code", "text"] {
            prop_assert_eq!(opened(&page, tag), page.matches(&format!("</{tag}>")).count());
        }
        prop_assert!(!page.contains("NaN"));
    }
}
