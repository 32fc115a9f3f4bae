#![expect(
    clippy::disallowed_methods,
    reason = "tests look at the files that were written"
)]

use proptest::prelude::*;

use super::*;
use crate::results::Grid;
use crate::results::tests::run_of;

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn a_run_comes_back_and_nothing_is_left_beside_it() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("deep/run");
    let run = run_of(&[("churn", "0.1")], 7);
    write_run(&folder, &run, Existing::Refuse).unwrap();
    assert_eq!(read_run(&folder).unwrap(), run);
    assert_eq!(names(&temporary.path().join("deep")), ["run"]);
    let files = names(&folder);
    for file in [
        "manifest.json",
        "scenario.toml",
        "metrics.csv",
        "series.csv",
        "distributions.csv",
        "tables.csv",
        "report.html",
    ] {
        assert!(files.iter().any(|name| name == file), "{file}");
    }
}

#[test]
fn what_is_there_is_replaced_only_by_force_and_only_where_it_is_a_result() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("run");
    let (first, second) = (run_of(&[], 1), run_of(&[], 2));
    write_run(&folder, &first, Existing::Refuse).unwrap();
    let error = write_run(&folder, &second, Existing::Refuse).unwrap_err();
    assert!(error.to_string().contains("--force"), "{error}");
    assert_eq!(read_run(&folder).unwrap(), first);
    write_run(&folder, &second, Existing::Replace).unwrap();
    assert_eq!(read_run(&folder).unwrap(), second);
    let home = temporary.path().join("home");
    std::fs::create_dir(&home).unwrap();
    std::fs::write(home.join("thesis.tex"), "years of work").unwrap();
    let error = write_run(&home, &second, Existing::Replace).unwrap_err();
    assert!(matches!(error, WriteError::Foreign(_)), "{error}");
    assert_eq!(names(&home), ["thesis.tex"]);
    assert_eq!(names(temporary.path()), ["home", "run"]);
}

#[test]
fn a_result_that_cannot_be_written_leaves_what_is_there() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("run");
    let good = run_of(&[], 1);
    write_run(&folder, &good, Existing::Refuse).unwrap();
    let mut bad = run_of(&[], 2);
    bad.metrics.insert("nothing_share".into(), f64::NAN);
    let error = write_run(&folder, &bad, Existing::Replace).unwrap_err();
    assert!(matches!(error, WriteError::Result(_)), "{error}");
    assert_eq!(read_run(&folder).unwrap(), good);
}

#[test]
fn damage_is_named_with_its_file() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("run");
    let error = |file: &str, from: &str, to: &str| {
        write_run(
            &folder,
            &run_of(&[], 1),
            if folder.exists() {
                Existing::Replace
            } else {
                Existing::Refuse
            },
        )
        .unwrap();
        let path = folder.join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{file}: {from}");
        std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
        let error = read_run(&folder).unwrap_err().to_string();
        assert!(error.contains(file), "{error}");
        error
    };
    assert!(error("metrics.csv", "0.8", "O.8").contains("is no finite number"));
    assert!(error("manifest.json", "\"seed\": 1", "\"seed\": -1").contains("-1"));
    assert!(error("manifest.json", "\"format\": 1", "\"format\": 9").contains("format 9"));
    assert!(error("scenario.toml", "1000", "1001").contains("not the scenario that was run"));
    assert!(error("series.csv", "series", "cereals").contains("column series is missing"));
    std::fs::remove_file(folder.join("tables.csv")).unwrap();
    write_run(&folder, &run_of(&[], 1), Existing::Replace).unwrap();
    std::fs::remove_file(folder.join("distributions.csv")).unwrap();
    let missing = read_run(&folder).unwrap_err().to_string();
    assert!(
        missing.contains("distributions.csv could not be read"),
        "{missing}"
    );
    let nothing = read_experiment(&folder.join("absent")).unwrap_err().to_string();
    assert!(nothing.contains("holds no result"), "{nothing}");
    let large = folder.join(SCENARIO);
    std::fs::write(&large, vec![b'#'; (SCENARIO_LIMIT + 1) as usize]).unwrap();
    let error = read_run(&folder).unwrap_err().to_string();
    assert!(error.contains("larger than 1 MiB"), "{error}");
}

#[test]
fn an_experiment_comes_back_with_its_tables_and_its_report() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("sweep");
    let experiment = Experiment {
        name: "gossip-reach".into(),
        answer: Some("Far.".into()),
        grid: Grid {
            parameters: [("churn".to_owned(), vec!["0.4".to_owned(), "0.1".to_owned()])].into(),
            seeds: [1, 2].into(),
        },
        missing: vec!["churn = 0.4 with seed 2".into()],
        runs: vec![run_of(&[("churn", "0.1")], 1), run_of(&[("churn", "0.4")], 1)],
    };
    write_experiment(&folder, &experiment, Existing::Refuse).unwrap();
    assert_eq!(read_experiment(&folder).unwrap(), experiment);
    let merged = std::fs::read_to_string(folder.join("metrics.csv")).unwrap();
    assert_eq!(merged.lines().count(), 1 + 2 * 3);
    assert!(
        merged.starts_with("scenario,version,varied_churn,seed,metric,unit,value\n"),
        "{merged}"
    );
    assert!(
        std::fs::read_to_string(folder.join(REPORT))
            .unwrap()
            .contains("Far.")
    );
    renew_experiment(&folder, &experiment).unwrap();
    let single = temporary.path().join("single");
    write_run(&single, &run_of(&[("churn", "0.1")], 2), Existing::Refuse).unwrap();
    let seeds = |folders: &[PathBuf]| -> Vec<u64> {
        let runs = read_runs(folders).unwrap();
        runs.iter().map(|run| run.manifest.seed).collect()
    };
    assert_eq!(seeds(&[folder.clone(), single]), [1, 1, 2]);
    // Also from a folder around them, but for hidden ones that somebody was still writing.
    std::fs::rename(folder.join("runs/00000-seed-1"), folder.join("runs/.unfinished")).unwrap();
    assert_eq!(seeds(&[temporary.path().to_owned()]), [2, 1]);
    std::fs::rename(folder.join("runs/.unfinished"), folder.join("runs/00000-seed-1")).unwrap();
    assert!(names(&folder).iter().all(|name| !name.starts_with('.')));
}

fn text() -> impl Strategy<Value = String> {
    // Commas, quotes, line ends and what a name may hold in the worst case.
    "[a-z,\"\n\r =#<é]{0,12}"
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn whatever_is_written_is_read(
        metrics in prop::collection::btree_map(text(), prop::num::f64::NORMAL, 0..6),
        points in prop::collection::vec(prop::num::f64::NORMAL, 1..6),
        counts in prop::collection::vec(any::<u64>(), 1..6),
        (name, unit, cell, value) in (text(), text(), text(), text()),
        seed: u64,
    ) {
        let mut run = run_of(&[("any", &value)], seed);
        run.metrics = metrics;
        run.series[0].name.clone_from(&name);
        run.series[0].unit = unit;
        run.series[0].points = points.iter().enumerate().map(|(at, value)| (at as f64, *value)).collect();
        run.distributions[0].buckets = counts.iter().enumerate().map(|(at, count)| (at as f64, *count)).collect();
        run.tables[0].rows[0][1] = cell;
        run.tables[0].name = name;
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path().join("run");
        write_run(&folder, &run, Existing::Refuse).unwrap();
        prop_assert_eq!(read_run(&folder).unwrap(), run);
    }
}

/// A Python with pandas, pyarrow and matplotlib; none where the variable does not name one.
fn python() -> Option<std::ffi::OsString> {
    let python = std::env::var_os("GRISTMILL_PANDAS_PYTHON").filter(|python| !python.is_empty());
    if python.is_none() {
        let skipped = "SKIPPED: GRISTMILL_PANDAS_PYTHON does not name a Python that has \
                       docs/simulations/requirements/redraw.txt";
        // Past the test harness, which would keep it for failures.
        writeln!(std::io::stderr(), "{skipped}").unwrap();
    }
    python
}

fn run_python(command: &mut std::process::Command) -> String {
    let output = command.env("PYTHONDONTWRITEBYTECODE", "1").output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

const SAME: &str = r#"
import sys, pandas
for name in ["metrics", "series", "distributions"]:
    file = f"{sys.argv[1]}/{name}"
    # An empty unit is a text, not a missing value, and every digit counts.
    text = pandas.read_csv(file + ".csv", keep_default_na=False, float_precision="round_trip")
    pandas.testing.assert_frame_equal(text, pandas.read_parquet(file + ".parquet"), check_dtype=False, check_exact=True)
    print(name, len(text))
"#;

#[test]
fn pandas_reads_the_same_from_both_and_the_script_of_the_guide_redraws_a_plot() {
    let Some(python) = python() else { return };
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("sweep");
    let variants =
        ["0.1", "0.4", "2"].map(|churn| (1..=3).map(move |seed| run_of(&[("churn", churn)], seed)));
    let experiment = Experiment {
        runs: variants.into_iter().flatten().collect(),
        ..Experiment::of_run(run_of(&[], 1))
    };
    write_experiment(&folder, &experiment, Existing::Refuse).unwrap();
    let told = run_python(
        std::process::Command::new(&python)
            .args(["-c", SAME])
            .arg(&folder),
    );
    assert_eq!(
        told.replace("\r\n", "\n"),
        "metrics 27\nseries 45\ndistributions 36\n"
    );

    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/simulations/redraw.py");
    let picture = temporary.path().join("redrawn.svg");
    let table = run_python(
        std::process::Command::new(&python)
            .arg(script)
            .env("RESULT", &folder)
            .env("METRIC", "age_p99_s")
            .env("PICTURE", &picture)
            .env("MPLCONFIGDIR", temporary.path()),
    );
    let summary = crate::results::summary::Summary::of(&experiment);
    let mut lines = csv::Reader::from_reader(table.as_bytes());
    let rows: Vec<Vec<f64>> = lines.deserialize().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 3);
    for (row, variant) in rows.iter().zip(&summary.variants) {
        let sample = variant.metrics["age_p99_s"];
        let known = [
            sample.mean,
            sample.deviation,
            sample.count as f64,
            sample.smallest,
            sample.largest,
        ];
        for (found, wanted) in row[1..].iter().zip(known) {
            assert!((found - wanted).abs() < 1e-9, "{table}\n{sample:?}");
        }
    }
    assert!(std::fs::read_to_string(picture).unwrap().contains("<svg"));
}
