//! The program as a person meets it when something is wrong: what it says, where, and with which exit code.
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
use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::Output;

use tempfile::TempDir;

use coordinator::Coordinator;
use program::run;

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn balance(coordinator: &Coordinator, folder: &Path, account: &str) -> u64 {
    let arguments = [
        "coordinator",
        "balance",
        account,
        "--coordinator",
        &coordinator.url,
        "--json",
    ];
    let output = run(folder, &arguments);
    assert!(output.status.success(), "{}", stderr(&output));
    let balance: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    balance["available"].as_u64().unwrap()
}

const ACCOUNT: &str = "12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5";

fn ledger(folder: &Path) -> std::path::PathBuf {
    folder.join("data/gristmill/coordinator/ledger")
}

fn journal(folder: &Path) -> std::path::PathBuf {
    let mut segments: Vec<_> = fs::read_dir(ledger(folder).join("journal"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    segments.retain(|path| path.extension().is_some_and(|ending| ending == "log"));
    segments.sort();
    segments.pop().unwrap()
}

#[test]
fn help_names_every_role_and_wrong_usage_is_exit_2() {
    let folder = folder();
    let help = run(folder.path(), &["--help"]);
    let text = String::from_utf8(help.stdout).unwrap();
    for role in [
        "demo",
        "node",
        "client",
        "coordinator",
        "ledger",
        "benchmark",
        "simulate",
    ] {
        assert!(text.contains(role), "{role}");
    }
    assert_eq!(run(folder.path(), &["grind"]).status.code(), Some(2));
}

#[test]
fn an_unknown_configuration_key_names_its_line_and_is_exit_3() {
    let folder = folder();
    let file = folder.path().join("config/gristmill/config.toml");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, "[coordinator]\nname = \"village\"\nnmae = \"oops\"\n").unwrap();
    let output = run(folder.path(), &["benchmark", "devices"]);
    assert_eq!(output.status.code(), Some(3));
    let text = stderr(&output);
    assert!(
        text.contains("line 3") && text.contains("nmae") && text.contains("config.toml"),
        "{text}"
    );
    assert!(output.stdout.is_empty());
}

#[test]
fn a_port_in_use_is_named_with_the_way_out() {
    let folder = folder();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mesh = "/ip4/127.0.0.1/udp/0/quic-v1";
    let output = run(
        folder.path(),
        &[
            "coordinator",
            "serve",
            "--http-listen",
            &address,
            "--mesh-listen",
            mesh,
        ],
    );
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains(&address) && stderr(&output).contains("--http-listen"),
        "{}",
        stderr(&output)
    );
    let output = run(folder.path(), &["client", "serve", "--listen", &address]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains(&address) && stderr(&output).contains("--listen"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn an_unreadable_model_file_is_named() {
    let folder = folder();
    let broken = folder.path().join("broken.gguf");
    fs::write(&broken, b"this is no model").unwrap();
    let broken = broken.to_string_lossy().into_owned();
    for source in [broken.as_str(), "/nowhere/model.gguf"] {
        let arguments = [
            "node",
            "serve",
            "--model",
            source,
            "--upstream",
            "none",
            "--coordinator",
            "http://127.0.0.1:9",
        ];
        let output = run(folder.path(), &arguments);
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        assert!(stderr(&output).contains(source), "{}", stderr(&output));
        assert!(!stderr(&output).contains("panicked"), "{}", stderr(&output));
    }
}

#[cfg(unix)]
#[test]
fn a_key_that_others_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let folder = folder();
    let place = folder.path().join("data/gristmill");
    fs::create_dir_all(&place).unwrap();
    fs::set_permissions(&place, fs::Permissions::from_mode(0o700)).unwrap();
    let key = place.join("identity.key");
    let secret = "11".repeat(32);
    fs::write(&key, format!("{secret}\n")).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let output = run(
        folder.path(),
        &["client", "balance", "--coordinator", "http://127.0.0.1:9"],
    );
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(text.contains("identity.key") && text.contains("600"), "{text}");
    assert!(!text.contains(&secret), "the secret is shown");
}

#[test]
fn acknowledged_grants_survive_sigkill_and_a_torn_tail() {
    let folder = folder();
    let coordinator = Coordinator::start(folder.path());
    coordinator.grant(folder.path(), ACCOUNT, "2.5");
    drop(coordinator);
    // What a power cut in the middle of a write leaves behind.
    fs::OpenOptions::new()
        .append(true)
        .open(journal(folder.path()))
        .unwrap()
        .write_all(&[0, 0, 1])
        .unwrap();
    let coordinator = Coordinator::start(folder.path());
    assert_eq!(balance(&coordinator, folder.path(), ACCOUNT), 2_500_000);
    coordinator.grant(folder.path(), ACCOUNT, "1");
    assert_eq!(balance(&coordinator, folder.path(), ACCOUNT), 3_500_000);
}

#[test]
fn a_corrupt_index_is_rebuilt_from_the_journal() {
    let folder = folder();
    let coordinator = Coordinator::start(folder.path());
    coordinator.grant(folder.path(), ACCOUNT, "2");
    drop(coordinator);
    for entry in fs::read_dir(ledger(folder.path()).join("index")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::write(&path, b"garbage").unwrap();
        }
    }
    let coordinator = Coordinator::start(folder.path());
    assert_eq!(balance(&coordinator, folder.path(), ACCOUNT), 2_000_000);
}

#[test]
fn a_damaged_middle_of_the_journal_stops_the_start_and_names_the_place() {
    let folder = folder();
    let coordinator = Coordinator::start(folder.path());
    for _ in 0..3 {
        coordinator.grant(folder.path(), ACCOUNT, "1");
    }
    drop(coordinator);
    let path = journal(folder.path());
    let mut bytes = fs::read(&path).unwrap();
    // Behind the records there is space made ahead, which holds zeros.
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    let middle = end / 2;
    bytes[middle] ^= 0x40;
    fs::write(&path, bytes).unwrap();
    let place = ledger(folder.path()).to_string_lossy().into_owned();
    let audit = run(folder.path(), &["ledger", "audit", &place, "--json"]);
    assert_eq!(audit.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&audit.stdout).unwrap();
    assert_eq!(report["clean"], false);
    assert!(report["problems"][0]["offset"].is_u64(), "{report}");
    let start = run(
        folder.path(),
        &["coordinator", "serve", "--http-listen", "127.0.0.1:0"],
    );
    assert_eq!(start.status.code(), Some(1), "{}", stderr(&start));
    assert!(stderr(&start).contains(".log"), "{}", stderr(&start));
}

#[test]
fn an_audit_of_something_else_says_so() {
    let folder = folder();
    let output = run(
        folder.path(),
        &["ledger", "audit", &folder.path().to_string_lossy()],
    );
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("holds no ledger"), "{}", stderr(&output));
}

#[test]
fn json_is_alone_on_stdout() {
    let folder = folder();
    for arguments in [
        &["benchmark", "devices", "--json"][..],
        &["simulate", "run", "--small", "--seed", "7", "--json"][..],
    ] {
        let output = run(folder.path(), arguments);
        assert!(output.status.success(), "{}", stderr(&output));
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap();
    }
}

#[test]
fn one_key_is_not_two_peers() {
    let folder = folder();
    let place = folder.path().join("data/gristmill");
    fs::create_dir_all(&place).unwrap();
    // What a running node or client holds.
    let lock = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(place.join("identity.lock"))
        .unwrap();
    lock.lock().unwrap();
    for role in ["node", "client"] {
        let output = run(
            folder.path(),
            &[role, "serve", "--coordinator", "http://127.0.0.1:9"],
        );
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        assert!(stderr(&output).contains("--data-dir"), "{}", stderr(&output));
    }
}
