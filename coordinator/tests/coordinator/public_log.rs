//! `gristmill ledger verify` and `evidence` against logs that hold and logs that lie, served over HTTP.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::IntoResponse;
use clap::Parser as _;
use gristmill_coordinator::cli::ledger;
use gristmill_protocol::coordinator_api::{LogInfo, NetworkInfo};
use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::Keypair;
use gristmill_protocol::log::checkpoint::{Checkpoint, LogKeys, SignedCheckpoint};
use gristmill_protocol::log::hash::{LogHash, leaf_hash};
use gristmill_protocol::log::tile_builder::TileBuilder;
use tempfile::TempDir;

#[derive(clap::Parser)]
struct Program {
    #[command(subcommand)]
    command: ledger::Command,
}

type Files = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

/// A server of a log's files, which says whatever it is told to.
struct Log {
    keypair: Keypair,
    files: Files,
    url: String,
    user: TempDir,
}

async fn file(State(files): State<Files>, uri: Uri) -> impl IntoResponse {
    match files.lock().unwrap().get(uri.path()) {
        Some(bytes) => (StatusCode::OK, bytes.clone()),
        None => (
            StatusCode::NOT_FOUND,
            br#"{"error":{"code":"not_found","message":"no"}}"#.to_vec(),
        ),
    }
}

fn leaf(content: u64) -> LogHash {
    leaf_hash(&content.to_le_bytes())
}

impl Log {
    async fn new() -> Self {
        let files = Files::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(file).with_state(files.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let log = Self {
            keypair: Keypair::from_secret(&crate::harness::random()),
            files,
            url,
            user: tempfile::tempdir().unwrap(),
        };
        let keys = log.keys();
        let info = NetworkInfo {
            name: "test".into(),
            coordinator: log.keypair.account(),
            version: "0".into(),
            bootstrap: Vec::new(),
            fee_basis_points: 0,
            starter_grant: Credits::ZERO,
            channel_limit_max: Credits::MAX,
            channel_life_max_ms: 1,
            log: LogInfo {
                origin: keys.origin().to_owned(),
                account: *keys.first(),
                verifier_key: keys.keys()[0].clone(),
                keys: Vec::new(),
            },
        };
        log.put("/v1/network", serde_json::to_vec(&info).unwrap());
        log
    }

    fn keys(&self) -> LogKeys {
        LogKeys::new(self.keypair.account())
    }

    fn put(&self, path: &str, bytes: Vec<u8>) {
        self.files.lock().unwrap().insert(path.to_owned(), bytes);
    }

    /// Shows the log of these leaves.
    fn show(&self, leaves: impl IntoIterator<Item = u64>) {
        let mut builder = TileBuilder::new();
        self.files
            .lock()
            .unwrap()
            .retain(|path, _| !path.starts_with("/log/"));
        for content in builder.append(leaves.into_iter().map(leaf)) {
            self.put(&format!("/log/{}", content.tile.path()), content.bytes);
        }
        self.sign(builder.size(), builder.root());
    }

    fn sign(&self, size: u64, root: LogHash) {
        let checkpoint = Checkpoint::new(self.keys().origin(), size, root);
        let signed = SignedCheckpoint::sign(&checkpoint, &self.keypair).unwrap();
        self.put("/log/checkpoint", signed.note().to_string().into_bytes());
    }

    async fn run(&self, line: &[&str]) -> anyhow::Result<bool> {
        run(self.user.path(), line).await
    }

    async fn verify(&self) -> bool {
        self.run(&["verify", "--coordinator", &self.url]).await.unwrap()
    }

    fn evidence(&self) -> Vec<PathBuf> {
        let Ok(entries) = std::fs::read_dir(self.user.path().join("evidence")) else {
            return Vec::new();
        };
        entries.map(|entry| entry.unwrap().path()).collect()
    }
}

async fn run(data_dir: &Path, line: &[&str]) -> anyhow::Result<bool> {
    let line = ["ledger"].into_iter().chain(line.iter().copied());
    let code = ledger::run(Program::parse_from(line).command, data_dir, true).await?;
    Ok(format!("{code:?}") == format!("{:?}", ExitCode::SUCCESS))
}

#[tokio::test]
async fn a_log_that_grows_holds_and_is_remembered() {
    let log = Log::new().await;
    assert!(log.verify().await, "a log without a checkpoint");
    for size in [1, 2, 255, 256, 257, 700, 70_000] {
        log.show(0..size);
        assert!(log.verify().await, "{size}");
        assert!(
            log.run(&["verify", "--coordinator", &log.url, "--full"])
                .await
                .unwrap(),
            "{size}"
        );
    }
    assert!(log.evidence().is_empty());
    let origin = log.keys().origin().to_owned();
    let named = ["verify", "--coordinator", &log.url, "--log", &origin];
    assert!(log.run(&named).await.unwrap());
    let other = Keypair::from_secret(&[9; 32]).account().to_string();
    let named = ["verify", "--coordinator", &log.url, "--log", &other];
    let stranger = tempfile::tempdir().unwrap();
    let error = run(stranger.path(), &named).await.unwrap_err();
    assert!(format!("{error:#}").contains(&other), "{error:#}");
}

#[tokio::test]
async fn a_fork_is_caught_and_its_evidence_convinces_others() {
    for (what, first, second) in [
        ("another root for one size", 300, 300),
        ("a changed history", 300, 900),
        ("a history of other records, cut short", 900, 300),
    ] {
        let log = Log::new().await;
        log.show(0..first);
        assert!(log.verify().await);
        // Tiles of the earlier tree stay, as caches keep them.
        let kept = log.files.lock().unwrap().clone();
        log.show((0..second).map(|content| if content == 100 { 5_000 } else { content }));
        for (path, bytes) in kept {
            log.files.lock().unwrap().entry(path).or_insert(bytes);
        }
        assert!(!log.verify().await, "{what}");
        if first > second {
            // Without the tiles of the larger tree there is a problem, and no more than that can be shown.
            continue;
        }
        let evidence = log.evidence();
        assert_eq!(evidence.len(), 1, "{what}");
        let file = evidence[0].to_str().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        assert!(
            run(elsewhere.path(), &["evidence", "verify", file])
                .await
                .unwrap(),
            "{what}"
        );
        assert!(run(elsewhere.path(), &["evidence", "show", file]).await.unwrap());
        assert!(
            log.run(&["evidence", "verify"]).await.unwrap(),
            "all that is kept"
        );
        // Another log's evidence, or a changed one, convicts nobody.
        let text = std::fs::read_to_string(file).unwrap();
        let other = Keypair::from_secret(&[9; 32]).account().to_string();
        let forged = elsewhere.path().join("forged.json");
        std::fs::write(&forged, text.replace(&log.keypair.account().to_string(), &other)).unwrap();
        assert!(
            !run(
                elsewhere.path(),
                &["evidence", "verify", forged.to_str().unwrap()]
            )
            .await
            .unwrap_or(false)
        );
        // What was seen first stays what the log is held against.
        assert!(!log.verify().await, "{what}, again");
    }
}

#[tokio::test]
async fn a_log_that_goes_back_or_hides_is_told_of() {
    let log = Log::new().await;
    log.show(0..600);
    assert!(log.verify().await);
    log.show(0..500);
    assert!(!log.verify().await, "it went back");
    assert!(log.evidence().is_empty(), "an old copy is no proof of a lie");
    log.files.lock().unwrap().remove("/log/checkpoint");
    assert!(!log.verify().await, "it hides");
    log.show(0..601);
    assert!(log.verify().await, "it was a stale copy");
}

#[tokio::test]
async fn tiles_that_do_not_lead_to_the_root_are_found() {
    let log = Log::new().await;
    let full = ["verify", "--coordinator", &log.url, "--full"];
    log.show(0..70_000);
    let tiles: Vec<String> = log
        .files
        .lock()
        .unwrap()
        .keys()
        .filter(|path| path.starts_with("/log/tile/"))
        .cloned()
        .collect();
    for path in tiles.iter().step_by(37).chain(tiles.last()) {
        let bytes = log.files.lock().unwrap()[path].clone();
        let mut changed = bytes.clone();
        changed[40 % bytes.len()] ^= 1;
        log.put(path, changed);
        assert!(!log.run(&full).await.unwrap(), "{path}");
        log.put(path, bytes);
    }
    assert!(log.run(&full).await.unwrap());
    log.sign(70_001, leaf(1));
    assert!(log.run(&full).await.is_err() || !log.run(&full).await.unwrap());
    let forged = Keypair::from_secret(&[9; 32]);
    let checkpoint = Checkpoint::new(log.keys().origin(), 70_000, leaf(2));
    let signed = SignedCheckpoint::sign(&checkpoint, &forged).unwrap();
    log.put("/log/checkpoint", signed.note().to_string().into_bytes());
    assert!(!log.run(&full).await.unwrap(), "somebody else signed");
}

#[tokio::test]
async fn files_that_are_no_evidence_are_told_of() {
    let user = tempfile::tempdir().unwrap();
    assert!(run(user.path(), &["evidence", "show"]).await.unwrap());
    assert!(!run(user.path(), &["evidence", "verify"]).await.unwrap());
    let file = user.path().join("junk.json");
    for junk in ["", "{}", "[1]", "\u{0}\u{1}"] {
        std::fs::write(&file, junk).unwrap();
        let error = run(user.path(), &["evidence", "verify", file.to_str().unwrap()])
            .await
            .unwrap_err();
        assert!(format!("{error:#}").contains("junk.json"), "{error:#}");
    }
    assert!(
        run(user.path(), &["evidence", "show", "/nowhere/x.json"])
            .await
            .is_err()
    );
}
