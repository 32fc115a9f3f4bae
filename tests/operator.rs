//! The operator's commands as processes: exit codes, what is said and where, and what is never said.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/bounded.rs"]
mod bounded;
#[path = "support/coordinator.rs"]
mod coordinator;
#[path = "support/program.rs"]
mod program;
#[path = "support/steady_port.rs"]
mod steady_port;

use std::fs;
use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use coordinator::Coordinator;
use program::{gristmill, run};

const ACCOUNT: &str = "12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5";

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

fn json(folder: &Path, arguments: &[&str]) -> serde_json::Value {
    let output = run(folder, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", texts(&output).1);
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn passwords_in_sight_are_refused_and_never_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let url = "postgres://clerk:s3cret@127.0.0.1:9/books";
    for command in ["serve", "migrate", "verify", "rotate-key"] {
        let output = run(folder.path(), &["coordinator", command, "--store", url]);
        let (stdout, stderr) = texts(&output);
        assert!(!output.status.success(), "{command}");
        assert!(
            !stdout.contains("s3cret") && !stderr.contains("s3cret"),
            "{command}: {stderr}"
        );
        assert!(stderr.contains("PGPASSWORD"), "{command}: {stderr}");
    }
    // Out of the variable it is taken, and is not shown where the database can't be reached.
    let mut verify = gristmill(folder.path(), &["coordinator", "verify"]);
    let output = bounded::output(verify.env("GRISTMILL_COORDINATOR_STORE", url));
    let (stdout, stderr) = texts(&output);
    assert!(stderr.contains("clerk@127.0.0.1:9"), "{stderr}");
    assert!(
        !stdout.contains("s3cret") && !stderr.contains("s3cret"),
        "{stderr}"
    );
    let mut help = gristmill(folder.path(), &["coordinator", "serve", "--help"]);
    let help = texts(&bounded::output(help.env("GRISTMILL_COORDINATOR_STORE", url)));
    assert!(!help.0.contains("s3cret"), "{}", help.0);
}

#[test]
fn a_killed_coordinators_backup_is_restored_and_an_older_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let (backup, old, elsewhere) = (path("backup"), path("old"), path("elsewhere"));
    let coordinator = Coordinator::start(folder.path());
    coordinator.grant(folder.path(), ACCOUNT, "1");
    let taken = json(folder.path(), &["coordinator", "backup", &old, "--json"]);
    assert_eq!(
        (&taken["records"], &taken["key_included"]),
        (&1.into(), &false.into())
    );
    for _ in 0..5 {
        coordinator.grant(folder.path(), ACCOUNT, "1");
    }
    let verify = ["ledger", "verify", "--coordinator", &coordinator.url, "--json"];
    let deadline = Instant::now() + Duration::from_secs(60);
    while json(folder.path(), &verify)["checkpoint"]["size"] != 6 {
        assert!(Instant::now() < deadline, "the log does not grow");
    }
    let note = path("note");
    let seen = fs::read_dir(folder.path().join("data/gristmill/verified-logs")).unwrap();
    fs::copy(seen.last().unwrap().unwrap().path(), &note).unwrap();
    json(
        folder.path(),
        &["coordinator", "backup", &backup, "--include-key", "--json"],
    );
    drop(coordinator);
    let disk = folder.path().join("data/gristmill/coordinator");
    fs::remove_dir_all(&disk).unwrap();

    let restore = |from: &str, to: &str| {
        let arguments = [
            "--data-dir",
            to,
            "coordinator",
            "restore",
            from,
            "--checkpoint",
            &note,
            "--json",
        ];
        run(folder.path(), &arguments)
    };
    let refused = restore(&old, &elsewhere);
    assert_eq!(refused.status.code(), Some(1));
    let text = texts(&refused).1;
    assert!(text.contains("5 acknowledged records are missing"), "{text}");
    assert!(!Path::new(&elsewhere).join("coordinator/ledger").exists());
    let place = folder
        .path()
        .join("data/gristmill")
        .to_string_lossy()
        .into_owned();
    let restored = restore(&backup, &place);
    assert!(restored.status.success(), "{}", texts(&restored).1);
    let restored: serde_json::Value = serde_json::from_slice(&restored.stdout).unwrap();
    assert_eq!(
        (&restored["restored"]["records"], &restored["key_restored"]),
        (&6.into(), &true.into())
    );
    assert_eq!(restored["restored"]["audit"]["clean"], true);

    // It goes on as the same log, for whoever saw it before.
    let coordinator = Coordinator::start(folder.path());
    coordinator.grant(folder.path(), ACCOUNT, "1");
    let arguments = [
        "coordinator",
        "statement",
        ACCOUNT,
        "--coordinator",
        &coordinator.url,
        "--json",
    ];
    let statement = json(folder.path(), &arguments);
    assert_eq!(statement["lines"].as_array().unwrap().len(), 7);
    assert_eq!(statement["closing"]["available"], 7_000_000);
    let ledger = disk.join("ledger").to_string_lossy().into_owned();
    assert_eq!(
        json(
            folder.path(),
            &["ledger", "statement", &ledger, ACCOUNT, "--json"]
        ),
        statement
    );
    let refused = run(folder.path(), &["coordinator", "rotate-key"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        texts(&refused).1.contains("stop it first"),
        "{}",
        texts(&refused).1
    );
}
