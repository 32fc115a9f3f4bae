//! An operator who rewrites history is caught by a node that runs, and anybody can check it: all of it with the program
//! itself, as processes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/bounded.rs"]
mod bounded;
#[path = "support/program.rs"]
mod program;
#[path = "support/steady_port.rs"]
mod steady_port;

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use program::{gristmill, run};

const ACCOUNT: &str = "12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5";
const MESH: &str = "/ip4/127.0.0.1/udp/0/quic-v1";
/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(90);

/// A process that runs until it is dropped.
struct Serving(Child);

impl Serving {
    fn start(folder: &Path, arguments: &[&str]) -> Self {
        let process = gristmill(folder, arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Self(process.unwrap())
    }

    fn coordinator(folder: &Path, address: SocketAddr) -> Self {
        let listen = address.to_string();
        let serving = Self::start(
            folder,
            &[
                "coordinator",
                "serve",
                "--http-listen",
                &listen,
                "--mesh-listen",
                MESH,
            ],
        );
        eventually("the coordinator", || {
            TcpStream::connect(address).is_ok().then_some(())
        });
        serving
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} did not come");
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn grant(folder: &Path, coordinator: &str) {
    let arguments = ["coordinator", "grant", ACCOUNT, "1", "--coordinator", coordinator];
    let output = run(folder, &arguments);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// What the node has found out so far, and whether the command was content.
fn witness(node: &Path) -> (Value, bool) {
    let output = run(node, &["node", "witness", "--json"]);
    (
        serde_json::from_slice(&output.stdout).unwrap(),
        output.status.success(),
    )
}

fn seen_records(node: &Path) -> Option<u64> {
    witness(node).0["logs"][0]["checkpoint"]["size"].as_u64()
}

#[test]
fn an_operator_who_rewrites_history_is_caught_and_anybody_can_check_it() {
    let [operator, node, anybody] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let (operator, node, anybody) = (operator.path(), node.path(), anybody.path());
    let address = steady_port::steady_address();
    let url = format!("http://{address}");

    let coordinator = Serving::coordinator(operator, address);
    grant(operator, &url);
    drop(coordinator);
    let (data, earlier) = (operator.join("data"), operator.join("earlier"));
    copy(&data, &earlier);

    let coordinator = Serving::coordinator(operator, address);
    for _ in 0..4 {
        grant(operator, &url);
    }
    let arguments = [
        "node",
        "serve",
        "--coordinator",
        &url,
        "--mesh-listen",
        MESH,
        "--upstream",
        "none",
        "--local-api",
        "none",
    ];
    let _node = Serving::start(node, &arguments);
    let seen = eventually("a checkpoint", || {
        seen_records(node).filter(|records| *records >= 5)
    });
    assert!(witness(node).1, "nothing speaks against it yet");
    drop(coordinator);

    // Back to the earlier state, and on from there with other records, to more of them than before.
    fs::remove_dir_all(&data).unwrap();
    copy(&earlier, &data);
    let _coordinator = Serving::coordinator(operator, address);
    for _ in 0..=seen {
        grant(operator, &url);
    }
    eventually("the alarm", || (!witness(node).1).then_some(()));

    let told = run(node, &["node", "witness"]);
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(
        told.contains("CAUGHT LYING") && told.contains("evidence"),
        "{told}"
    );
    assert!(run(node, &["ledger", "evidence", "verify"]).status.success());
    let alarm = &witness(node).0["logs"][0]["alarms"][0];
    let handed_on = anybody.join("evidence.json");
    fs::copy(alarm["file"].as_str().unwrap(), &handed_on).unwrap();
    let handed_on = handed_on.to_str().unwrap();
    let verified = run(anybody, &["ledger", "evidence", "verify", handed_on]);
    assert!(
        verified.status.success(),
        "{}",
        String::from_utf8_lossy(&verified.stderr)
    );
    assert!(String::from_utf8_lossy(&verified.stdout).contains("PROVED"));
}
