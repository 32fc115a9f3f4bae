//! A coordinator that signs whatever it likes, over real HTTP, and peers that watch it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use gristmill_protocol::coordinator_api::{
    CosignatureAnswer, CosignatureRequest, LogInfo, NetworkInfo, handover_text,
};
use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::ids::ChannelId;
use gristmill_protocol::job::RequestId;
use gristmill_protocol::jws::{self, Audience};
use gristmill_protocol::log::checkpoint::{Checkpoint, LogKeys, SignedCheckpoint, origin_of};
use gristmill_protocol::log::evidence::Evidence;
use gristmill_protocol::log::hash::{LogHash, leaf_hash, node_hash};
use gristmill_protocol::log::note::{KeyKind, VerifierKey};
use gristmill_protocol::log::tile::Tile;
use gristmill_protocol::log::tile_tree::TileTree;
use gristmill_protocol::tokens::ReceiptClaims;
use gristmill_transport::mesh::Multiaddr;
use gristmill_transport::witness::{
    OwnReceipt, ProvedReceipt, Witness, WitnessConfig, WitnessParts, WitnessStatus, kept_evidence,
};
use gristmill_transport::{Clock, CoordinatorClient, Mesh};
use tempfile::TempDir;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::support::{account, handover, keypair, knowing, now_ms, soon};

/// The first key of the coordinator.
pub(crate) const COORDINATOR: u8 = 100;

/// So many leaves that differ.
pub(crate) fn leaves(count: u64) -> Vec<LogHash> {
    (0..count)
        .map(|number| leaf_hash(&number.to_le_bytes()))
        .collect()
}

/// Some other leaf.
pub(crate) fn other_leaf() -> LogHash {
    leaf_hash(b"another record")
}

pub(crate) fn log_keys() -> LogKeys {
    LogKeys::new(account(COORDINATOR))
}

/// What a coordinator shows to whoever calls it at one address.
pub(crate) struct Shown {
    pub(crate) leaves: Vec<LogHash>,
    /// Its keys, one after the other.
    pub(crate) keys: Vec<u8>,
    /// Whether it answers questions for tiles.
    pub(crate) shows_tiles: bool,
    /// Whether the tiles that it shows are those of its log.
    pub(crate) tiles_are_true: bool,
    /// The sizes that were cosigned.
    pub(crate) cosigned: Vec<u64>,
    pub(crate) tiles_asked: usize,
}

impl Shown {
    fn checkpoint(&self) -> String {
        checkpoint(&self.leaves, self.keys[self.keys.len() - 1])
            .note()
            .to_string()
    }

    fn network(&self) -> NetworkInfo {
        let (first, newest) = (account(self.keys[0]), account(self.keys[self.keys.len() - 1]));
        let origin = origin_of(&first);
        NetworkInfo {
            name: "liar".into(),
            coordinator: newest,
            version: "0.1.0".into(),
            bootstrap: vec![],
            fee_basis_points: 0,
            starter_grant: Credits::micro(0),
            channel_limit_max: Credits::micro(1),
            channel_life_max_ms: 1,
            log: LogInfo {
                verifier_key: VerifierKey::new(&origin, KeyKind::Ed25519, newest).unwrap(),
                origin,
                account: first,
                keys: self
                    .keys
                    .windows(2)
                    .map(|pair| handover_text(&handover(self.keys[0], pair[0], pair[1])))
                    .collect(),
            },
        }
    }

    fn tile(&self, tile: Tile) -> Option<Vec<u8>> {
        let mut hashes = self.leaves.clone();
        for _ in 0..tile.level() {
            hashes = hashes
                .as_chunks::<256>()
                .0
                .iter()
                .map(|chunk| perfect_root(chunk))
                .collect();
        }
        let start = usize::try_from(tile.index()).ok()?.checked_mul(256)?;
        let wanted = hashes.get(start..start + usize::from(tile.width()))?;
        let shown = |hash: &LogHash| match self.tiles_are_true {
            true => *hash.bytes(),
            false => [0; 32],
        };
        Some(wanted.iter().flat_map(shown).collect())
    }
}

fn perfect_root(hashes: &[LogHash]) -> LogHash {
    match hashes {
        [one] => *one,
        _ => {
            let (left, right) = hashes.split_at(hashes.len() / 2);
            node_hash(&perfect_root(left), &perfect_root(right))
        }
    }
}

/// What a key signs for a tree of leaves.
pub(crate) fn checkpoint(leaves: &[LogHash], signer: u8) -> SignedCheckpoint {
    let shown = Shown {
        leaves: leaves.to_vec(),
        keys: vec![signer],
        shows_tiles: true,
        tiles_are_true: true,
        cosigned: Vec::new(),
        tiles_asked: 0,
    };
    let size = leaves.len() as u64;
    let mut tree = TileTree::new(size, |tile| shown.tile(tile).ok_or(()));
    let root = tree.subtree(0, size).unwrap();
    let checkpoint = Checkpoint::new(&origin_of(&account(COORDINATOR)), size, root);
    SignedCheckpoint::sign(&checkpoint, &keypair(signer)).unwrap()
}

/// A receipt for the record of this number, from one, as the coordinator signs it.
pub(crate) fn receipt(leaves: &[LogHash], sequence: u64) -> OwnReceipt {
    let hash = leaves[usize::try_from(sequence).unwrap() - 1];
    let claims = ReceiptClaims {
        iss: account(COORDINATOR),
        sub: account(1),
        aud: Audience::Many(vec![account(1), account(2)]),
        jti: format!("rcpt_{sequence}"),
        iat: now_ms() / 1_000,
        exp: ReceiptClaims::EXPIRES_AT,
        channel: ChannelId::from_bytes([4; 16]),
        consumer: account(2),
        settled: Credits::micro(10),
        paid: Credits::micro(10),
        fee: Credits::micro(0),
        request_id: RequestId::from_random([5; 16]),
        sequence,
        record_hash: hash.to_string(),
    };
    OwnReceipt {
        sequence,
        token: jws::sign(&claims, &keypair(COORDINATOR)),
    }
}

/// One address of the coordinator.
pub(crate) struct View {
    pub(crate) address: SocketAddr,
    shown: Arc<Mutex<Shown>>,
    server: JoinHandle<()>,
}

impl View {
    /// Shows these leaves at an address of its own.
    pub(crate) async fn of(leaves: Vec<LogHash>) -> Self {
        let shown = Shown {
            leaves,
            keys: vec![COORDINATOR],
            shows_tiles: true,
            tiles_are_true: true,
            cosigned: Vec::new(),
            tiles_asked: 0,
        };
        let shown = Arc::new(Mutex::new(shown));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = serve(listener, shown.clone());
        Self {
            address,
            shown,
            server,
        }
    }

    pub(crate) fn now(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap()
    }

    /// Goes away without a word, as when killed.
    pub(crate) async fn kill(&mut self) {
        self.server.abort();
        let _ = (&mut self.server).await;
    }

    /// Comes back at the same address.
    pub(crate) async fn come_back(&mut self) {
        let listener = soon(async {
            loop {
                match tokio::net::TcpListener::bind(self.address).await {
                    Ok(listener) => return listener,
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        })
        .await;
        self.server = serve(listener, self.shown.clone());
    }
}

fn serve(listener: tokio::net::TcpListener, shown: Arc<Mutex<Shown>>) -> JoinHandle<()> {
    let router = Router::new().fallback(answer).with_state(shown);
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() })
}

async fn answer(State(shown): State<Arc<Mutex<Shown>>>, method: Method, uri: Uri, body: Bytes) -> Response {
    let mut shown = shown.lock().unwrap();
    match (method.as_str(), uri.path()) {
        ("GET", "/v1/network") => axum::Json(shown.network()).into_response(),
        ("GET", "/log/checkpoint") => shown.checkpoint().into_response(),
        ("POST", "/v1/cosignatures") => {
            let request: CosignatureRequest = serde_json::from_slice(&body).unwrap();
            shown.cosigned.push(request.size);
            let answer = CosignatureAnswer {
                size: request.size,
                cosignatures: 1,
            };
            axum::Json(answer).into_response()
        }
        ("GET", path) => {
            let tile = path.strip_prefix("/log/").and_then(|path| Tile::parse(path).ok());
            shown.tiles_asked += 1;
            let found = match shown.shows_tiles {
                true => tile.and_then(|tile| shown.tile(tile)),
                false => None,
            };
            match found {
                Some(hashes) => hashes.into_response(),
                None => StatusCode::NOT_FOUND.into_response(),
            }
        }
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

/// Somebody who watches the coordinator.
pub(crate) struct Watcher {
    pub(crate) mesh: Mesh,
    pub(crate) witness: Witness,
    pub(crate) client: Arc<CoordinatorClient>,
    pub(crate) proofs: mpsc::Receiver<Vec<ProvedReceipt>>,
    folder: Arc<TempDir>,
    byte: u8,
    address: SocketAddr,
    /// How far its clock is ahead, in milliseconds.
    ahead_ms: Arc<AtomicU64>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Watcher {
    /// Watches what the coordinator shows at an address, with a mesh peer that knows some others.
    pub(crate) async fn start(byte: u8, view: &View, peers: Vec<Multiaddr>) -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        Self::start_in(folder, byte, view.address, peers).await
    }

    async fn start_in(folder: Arc<TempDir>, byte: u8, address: SocketAddr, peers: Vec<Multiaddr>) -> Self {
        let ahead_ms = Arc::new(AtomicU64::new(0));
        let clock: Clock = {
            let ahead_ms = ahead_ms.clone();
            Arc::new(move || now_ms() + ahead_ms.load(Ordering::SeqCst))
        };
        let (mesh, _) = soon(Mesh::start(&keypair(byte), knowing(peers), clock.clone()))
            .await
            .unwrap();
        let url = format!("http://{address}");
        let client = CoordinatorClient::new(&url, None, keypair(byte), clock.clone())
            .unwrap()
            .with_known_keys_in(folder.path())
            .unwrap();
        let client = Arc::new(client);
        let config = WitnessConfig {
            poll_every: Duration::from_millis(100),
            tick: Duration::from_millis(20),
            ..WitnessConfig::new(folder.path().to_owned())
        };
        let WitnessParts {
            witness,
            driver,
            proofs,
        } = WitnessParts::new(client.clone(), mesh.clone(), keypair(byte), clock, config);
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(driver.run(async {
            let _ = stopped.await;
        }));
        // Whoever runs a witness asks for the network now and then.
        let asks = client.clone();
        tokio::spawn(async move { asks.network().await });
        Self {
            mesh,
            witness,
            client,
            proofs,
            folder,
            byte,
            address,
            ahead_ms,
            stop: Some(stop),
            task,
        }
    }

    /// Ends it, and starts it again from what it kept.
    pub(crate) async fn restart(mut self, meanwhile: impl FnOnce()) -> Self {
        self.stop.take().unwrap().send(()).unwrap();
        soon(&mut self.task).await.unwrap();
        self.mesh.shutdown().await;
        meanwhile();
        Self::start_in(self.folder.clone(), self.byte, self.address, Vec::new()).await
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn let_pass_ms(&self, milliseconds: u64) {
        self.ahead_ms.fetch_add(milliseconds, Ordering::SeqCst);
    }

    /// Waits until its status is as it should be.
    pub(crate) async fn sees(&self, is_so: impl FnMut(&WitnessStatus) -> bool) -> WitnessStatus {
        let mut changes = self.witness.changes();
        soon(changes.wait_for(is_so)).await.unwrap().clone()
    }

    /// Waits until it has a checkpoint of this size.
    pub(crate) async fn accepts(&self, size: u64) {
        self.sees(|status| status.checkpoint.as_ref().is_some_and(|kept| kept.size == size))
            .await;
    }

    /// Waits until it has raised the alarm, and checks that it is raised as it should be: the evidence is on disk,
    /// holds for another process, and the coordinator is distrusted.
    pub(crate) async fn raises_the_alarm(&self) -> Evidence {
        let status = self
            .sees(|status| status.alarms.first().is_some_and(|alarm| alarm.file.is_some()))
            .await;
        let file = status.alarms[0].file.clone().unwrap();
        assert!(status.distrust().unwrap().contains(&file.display().to_string()));
        assert!(self.witness.distrust().is_some());
        let kept = kept_evidence(self.folder()).unwrap();
        let evidence = kept
            .iter()
            .find(|kept| kept.path == file)
            .unwrap()
            .evidence
            .clone();
        assert!(evidence.verify(&log_keys()).is_ok());
        assert!(another_process_is_convinced(&file, account(COORDINATOR)));
        assert!(
            !another_process_is_convinced(&file, account(COORDINATOR + 50)),
            "of nobody else's guilt"
        );
        evidence
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

const EVIDENCE_FILE: &str = "GRISTMILL_TEST_EVIDENCE_FILE";
const ACCUSED: &str = "GRISTMILL_TEST_ACCUSED";

/// Has another process, which knows nothing but the file and the account, judge the evidence.
fn another_process_is_convinced(file: &Path, accused: AccountId) -> bool {
    let judged = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "liar::judges_evidence_where_it_is_asked_to"])
        .env(EVIDENCE_FILE, file)
        .env(ACCUSED, accused.to_string())
        .output()
        .unwrap();
    judged.status.success()
}

/// What that other process runs. By itself, this checks that nothing is judged unasked.
#[test]
fn judges_evidence_where_it_is_asked_to() {
    let Some(file) = std::env::var_os(EVIDENCE_FILE).map(PathBuf::from) else {
        assert!(std::env::var_os(ACCUSED).is_none());
        return;
    };
    let accused: AccountId = std::env::var(ACCUSED).unwrap().parse().unwrap();
    let evidence = Evidence::from_json(&std::fs::read(file).unwrap()).unwrap();
    evidence.verify(&LogKeys::new(accused)).unwrap();
}
