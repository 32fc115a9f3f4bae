//! The operator's commands as processes: exit codes, what is said and where, and what is never said.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/bounded.rs"]
mod bounded;
#[path = "support/steady_port.rs"]
mod steady_port;

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const ACCOUNT: &str = "12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5";

fn gristmill(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gristmill"));
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("GRISTMILL_") || name.starts_with("PG") {
            command.env_remove(name);
        }
    }
    command
        .args(arguments)
        .env("XDG_DATA_HOME", folder.join("data"))
        .env("XDG_CONFIG_HOME", folder.join("config"))
        .env("HOME", folder)
        .stdin(Stdio::null());
    command
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    bounded::output(&mut gristmill(folder, arguments))
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

fn json(folder: &Path, arguments: &[&str]) -> serde_json::Value {
    let output = run(folder, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", texts(&output).1);
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A coordinator that runs until it is dropped.
struct Coordinator {
    process: Child,
    url: String,
}

impl Coordinator {
    fn start(folder: &Path) -> Self {
        let address = steady_port::steady_address();
        let listen = address.to_string();
        let mesh = "/ip4/127.0.0.1/udp/0/quic-v1";
        let arguments = [
            "coordinator",
            "serve",
            "--http-listen",
            &listen,
            "--mesh-listen",
            mesh,
        ];
        let mut process = gristmill(folder, &arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while std::net::TcpStream::connect(address).is_err() {
            assert!(process.try_wait().unwrap().is_none(), "the coordinator ended");
            assert!(Instant::now() < deadline, "the coordinator did not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self {
            process,
            url: format!("http://{listen}"),
        }
    }

    fn grant(&self, folder: &Path, amount: &str) {
        let arguments = [
            "coordinator",
            "grant",
            ACCOUNT,
            amount,
            "--coordinator",
            &self.url,
            "--json",
        ];
        json(folder, &arguments);
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
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
    coordinator.grant(folder.path(), "1");
    let taken = json(folder.path(), &["coordinator", "backup", &old, "--json"]);
    assert_eq!(
        (&taken["records"], &taken["key_included"]),
        (&1.into(), &false.into())
    );
    for _ in 0..5 {
        coordinator.grant(folder.path(), "1");
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
    coordinator.grant(folder.path(), "1");
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
