//! What `gristmill simulate` does for a researcher: it refuses what is wrong before it runs, keeps what is finished,
//! and goes on where it was stopped.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(
    clippy::disallowed_methods,
    reason = "what the command line wrote is read again"
)]

use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

use clap::Parser;
use gristmill_simulations::cli::{self, Command};
use gristmill_simulations::results::RunResult;
use gristmill_simulations::results::folder::{read_experiment, read_run};

#[derive(Parser)]
struct Program {
    #[command(subcommand)]
    command: Command,
}

fn simulate_until(arguments: &str, folder: &Path, stop: &AtomicBool) -> Result<ExitCode, String> {
    let folder = folder.to_string_lossy();
    let words = arguments
        .split_whitespace()
        .map(|word| word.replace("FOLDER", &folder));
    let program = Program::try_parse_from(std::iter::once("simulate".to_owned()).chain(words))
        .map_err(|error| error.to_string())?;
    cli::run(program.command, true, stop).map_err(|error| format!("{error:#}"))
}

fn simulate(arguments: &str, folder: &Path) -> Result<ExitCode, String> {
    simulate_until(arguments, folder, &AtomicBool::new(false))
}

fn digests(runs: &[RunResult]) -> Vec<String> {
    runs.iter().map(|run| run.manifest.digest.clone()).collect()
}

const SMALL: &str = "gossip-reach --small --set duration_s=10";

#[test]
fn what_is_wrong_is_said_before_anything_runs() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mine.toml");
    std::fs::write(&file, "# Why?\nduration_s = 10\nbystander = 3\n").unwrap();
    let varied =
        "# Why?\nduration_s = 10\n[defences]\nonly_verified = 1.5\n[vary]\nonly_verified = [0.0, 1.0]\n";
    std::fs::write(folder.path().join("varied.toml"), varied).unwrap();
    std::fs::create_dir(folder.path().join("there")).unwrap();
    for (arguments, part) in [
        (
            "run FOLDER/mine.toml",
            "mine.toml is no scenario: line 3, key bystander: unknown field `bystander`",
        ),
        (
            "run FOLDER/varied.toml",
            "varied.toml is no scenario: line 4, key defences.only_verified: 1.5 is out of bounds",
        ),
        ("run FOLDER/absent.toml", "absent.toml could not be read"),
        (
            "run gossip-reach --set publishers.count=-1",
            "publishers.count=-1: -1 is negative",
        ),
        ("run gossip-reach --set churn", "write key=value"),
        ("run gossip-reach --nodes 3", "write at least 20"),
        (
            "run gossip-reach --output FOLDER/there",
            "there is there already; name another folder",
        ),
        (
            "sweep gossip-reach --vary count= --output FOLDER/new",
            "changes nothing",
        ),
        (
            "sweep gossip-reach --seeds 0 --output FOLDER/new",
            "a sweep has 1 to",
        ),
        (
            "sweep gossip-reach --output FOLDER/there",
            "there is there already",
        ),
        ("merge FOLDER/there FOLDER/mine", "name it with --output"),
        ("merge FOLDER/there --output FOLDER/new", "there"),
        ("resume FOLDER/mine.toml", "holds no stopped run"),
        ("resume FOLDER/there", "holds no sweep"),
        ("explain gossip-reach", "--job"),
        ("explain gossip-reach --job 5:x", "such as 57:3"),
        ("example nothing", "simulate list"),
    ] {
        let error = simulate(arguments, folder.path()).unwrap_err();
        assert!(error.contains(part), "{arguments}: {error}");
    }
    assert!(!folder.path().join("new").exists());
}

#[test]
fn a_result_is_replaced_only_by_force() {
    let folder = tempfile::tempdir().unwrap();
    let run = format!("run {SMALL} --set bystanders=20 --output FOLDER/result");
    assert_eq!(simulate(&run, folder.path()), Ok(ExitCode::SUCCESS));
    let before = read_run(&folder.path().join("result")).unwrap();
    assert!(
        before.manifest.replay.contains("--set bystanders=20"),
        "{}",
        before.manifest.replay
    );
    assert!(simulate(&run, folder.path()).unwrap_err().contains("--force"));
    assert_eq!(
        simulate(&format!("{run} --seed 2 --force"), folder.path()),
        Ok(ExitCode::SUCCESS)
    );
    let after = read_run(&folder.path().join("result")).unwrap();
    assert_ne!(before.manifest.digest, after.manifest.digest);
}

#[test]
fn what_is_put_together_is_in_the_order_that_the_scenario_compares() {
    let folder = tempfile::tempdir().unwrap();
    let scenario = "# Which one first?\nduration_s = 5\n[vary]\nbystanders = [40, 20, 30]\n\
                    [answer]\nsentence = '{bystanders[first]}, {bystanders[2]}, {bystanders[last]}'\n";
    std::fs::write(folder.path().join("mine.toml"), scenario).unwrap();
    for (run, answer) in [
        ("run FOLDER/mine.toml --output FOLDER/one", Some("40, 20, 30")),
        ("merge FOLDER/one --output FOLDER/all", Some("40, 20, 30")),
        // Of a part of the variants none has a number.
        (
            "run FOLDER/mine.toml --set bystanders=20 --output FOLDER/all --force",
            None,
        ),
    ] {
        assert_eq!(simulate(run, folder.path()), Ok(ExitCode::SUCCESS), "{run}");
        let name = if run.contains("FOLDER/all") { "all" } else { "one" };
        let experiment = read_experiment(&folder.path().join(name)).unwrap();
        assert_eq!(experiment.answer.as_deref(), answer, "{run}");
    }
}

#[test]
fn a_sentence_that_cannot_be_made_takes_no_figure_away() {
    let folder = tempfile::tempdir().unwrap();
    // Nobody publishes, so that there is nothing that could reach anyone.
    let run = format!("run {SMALL} --set publishers.count=0 --output FOLDER/silent");
    assert_eq!(
        simulate(&run, folder.path()),
        Ok(ExitCode::FAILURE),
        "not as the scenario expects"
    );
    let silent = read_experiment(&folder.path().join("silent")).unwrap();
    assert_eq!(silent.answer, None);
    assert!(
        silent
            .runs
            .iter()
            .all(|run| run.metrics["listings_published"] == 0.0)
    );
}

#[test]
fn a_stopped_run_goes_on_to_the_same_digest() {
    let folder = tempfile::tempdir().unwrap();
    let stopped = simulate_until(
        &format!("run {SMALL} --output FOLDER/stopped"),
        folder.path(),
        &AtomicBool::new(true),
    );
    assert_eq!(stopped, Ok(ExitCode::from(130)));
    assert!(!folder.path().join("stopped").exists());
    assert_eq!(
        simulate("resume FOLDER/stopped.stopped", folder.path()),
        Ok(ExitCode::SUCCESS)
    );
    assert_eq!(
        simulate(&format!("run {SMALL} --output FOLDER/whole"), folder.path()),
        Ok(ExitCode::SUCCESS)
    );
    assert!(!folder.path().join("stopped.stopped").exists(), "it is finished");
    let runs = |name| read_experiment(&folder.path().join(name)).unwrap().runs;
    assert_eq!(digests(&runs("stopped")), digests(&runs("whole")));
    assert_eq!(
        simulate("diff FOLDER/stopped FOLDER/whole", folder.path()),
        Ok(ExitCode::SUCCESS)
    );
}

#[test]
fn runs_of_several_folders_are_put_together_and_mixed_only_where_that_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    for run in [
        format!("run {SMALL} --seed 1 --output FOLDER/here"),
        format!("run {SMALL} --seed 2 --output FOLDER/there"),
    ] {
        assert_eq!(simulate(&run, folder.path()), Ok(ExitCode::SUCCESS));
    }
    let merge = "merge FOLDER/here FOLDER/there FOLDER/here --output FOLDER/both";
    assert_eq!(simulate(merge, folder.path()), Ok(ExitCode::SUCCESS));
    let both = read_experiment(&folder.path().join("both")).unwrap();
    let seeds: Vec<u64> = both.runs.iter().map(|run| run.manifest.seed).collect();
    assert_eq!(
        seeds,
        [1, 2, 1, 2],
        "two variants; what is there twice counts once"
    );
    assert!(both.answer.is_some());
    assert!(simulate(merge, folder.path()).unwrap_err().contains("--force"));
    assert_eq!(
        simulate(&format!("{merge} --force"), folder.path()),
        Ok(ExitCode::SUCCESS)
    );
    let changed = format!("run {SMALL} --set network.loss=1000 --seed 3 --output FOLDER/changed");
    assert_eq!(simulate(&changed, folder.path()), Ok(ExitCode::SUCCESS));
    let refused = simulate(
        "merge FOLDER/here FOLDER/changed --output FOLDER/all",
        folder.path(),
    )
    .unwrap_err();
    assert!(
        refused.contains("network.loss is what the file says in one and 1000 in another"),
        "{refused}"
    );
    // The same under another name is another scenario.
    std::fs::write(folder.path().join("mine.toml"), &both.runs[0].scenario).unwrap();
    let mine = "run FOLDER/mine.toml --small --set duration_s=10 --seed 1 --output FOLDER/mine";
    assert_eq!(simulate(mine, folder.path()), Ok(ExitCode::SUCCESS));
    let merge = "merge FOLDER/both FOLDER/mine --output FOLDER/all";
    let refused = simulate(merge, folder.path()).unwrap_err();
    assert!(
        refused.contains("gossip-reach, mine") && refused.contains("--mixed"),
        "{refused}"
    );
    assert!(!folder.path().join("all").exists());
    assert_eq!(
        simulate(&format!("{merge} --mixed"), folder.path()),
        Ok(ExitCode::SUCCESS)
    );
    assert_eq!(read_experiment(&folder.path().join("all")).unwrap().runs.len(), 6);
}

#[test]
fn a_sweep_keeps_what_is_finished_and_runs_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let sweep = format!("sweep {SMALL} --vary publishers.count=3,5 --seeds 2 --output FOLDER/sweep");
    let stopped = simulate_until(&sweep, folder.path(), &AtomicBool::new(true));
    assert_eq!(stopped, Ok(ExitCode::from(130)));
    // A task of a job array runs its own part.
    assert_eq!(
        simulate("resume FOLDER/sweep --task 1 --of 4", folder.path()),
        Ok(ExitCode::SUCCESS)
    );
    let place = folder.path().join("sweep");
    assert_eq!(
        read_experiment(&place.join("runs/00001-seed-2"))
            .unwrap()
            .runs
            .len(),
        1
    );
    assert_eq!(
        simulate("merge FOLDER/sweep", folder.path()),
        Ok(ExitCode::FAILURE)
    );
    assert_eq!(read_experiment(&place).unwrap().missing.len(), 6);
    let kept = std::fs::metadata(place.join("runs/00001-seed-2/manifest.json"))
        .unwrap()
        .modified()
        .unwrap();
    assert_eq!(
        simulate("resume FOLDER/sweep", folder.path()),
        Ok(ExitCode::SUCCESS)
    );
    let again = std::fs::metadata(place.join("runs/00001-seed-2/manifest.json"))
        .unwrap()
        .modified()
        .unwrap();
    assert_eq!(kept, again);
    let whole = read_experiment(&place).unwrap();
    assert_eq!((whole.runs.len(), whole.missing.len()), (8, 0));
    assert!(whole.answer.is_some() && place.join("report.html").is_file());
    let other = simulate(&format!("{sweep} --first-seed 5"), folder.path()).unwrap_err();
    assert!(other.contains("holds another sweep"), "{other}");
}

#[test]
fn a_sweep_becomes_a_job_array() {
    let folder = tempfile::tempdir().unwrap();
    let sweep = format!("sweep {SMALL} --seeds 3 --output FOLDER/sweep --slurm");
    assert_eq!(simulate(&sweep, folder.path()), Ok(ExitCode::SUCCESS));
    let script = std::fs::read_to_string(folder.path().join("sweep/sweep.sbatch")).unwrap();
    assert!(script.contains("#SBATCH --array=0-5\n"), "{script}");
    // What the script's tasks do, one after the other, and the same sweep without a cluster.
    for task in 0..6 {
        let run = format!("resume FOLDER/sweep --task {task} --of 6 --jobs 1");
        assert_eq!(simulate(&run, folder.path()), Ok(ExitCode::SUCCESS));
    }
    assert_eq!(
        simulate("merge FOLDER/sweep", folder.path()),
        Ok(ExitCode::SUCCESS)
    );
    let local = format!("sweep {SMALL} --seeds 3 --output FOLDER/local");
    assert_eq!(simulate(&local, folder.path()), Ok(ExitCode::SUCCESS));
    let of = |name: &str| digests(&read_experiment(&folder.path().join(name)).unwrap().runs);
    assert_eq!(of("sweep").len(), 6);
    assert_eq!(of("sweep"), of("local"));
}

#[test]
fn a_node_is_explained_and_a_soak_finds_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let explain = "explain home-churn --small --node 1 --until-s 60";
    assert_eq!(simulate(explain, folder.path()), Ok(ExitCode::SUCCESS));
    let nobody = simulate("explain home-churn --small --job 1:1 --until-s 30", folder.path()).unwrap_err();
    assert!(nobody.contains("nothing happened to it"), "{nobody}");
    assert_eq!(
        simulate("soak --minutes 5 --runs 4", folder.path()),
        Ok(ExitCode::SUCCESS)
    );
    assert_eq!(simulate("list", folder.path()), Ok(ExitCode::SUCCESS));
}
