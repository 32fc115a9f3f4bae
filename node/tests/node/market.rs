//! A coordinator, a node and a scripted server.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gristmill_coordinator::server::signing_key_path;
use gristmill_coordinator::{Coordinator, RunningCoordinator};
use gristmill_node::settings::{HardwareSettings, LocalApi, MeshListen, Upstreams};
use gristmill_node::{Node, RunningNode, Settings};
use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::Keypair;
use gristmill_protocol::usage::Price;
use gristmill_transport::mesh::listen_addresses;
use gristmill_transport::{Clock, key_file};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::consumer::Consumer;
use crate::server::Server;

/// What every account begins with.
pub const STARTER: Credits = Credits::micro(50_000_000);
/// One credit for a thousand tokens of answer, so that each chunk of a scripted answer costs a thousand microcredits.
pub const OUTPUT_PRICE: Credits = Credits::micro(1_000_000_000);

pub fn clock() -> Clock {
    Arc::new(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

pub fn price() -> Price {
    Price::per_million_tokens(Credits::micro(1_000_000), OUTPUT_PRICE)
}

/// Runs a test, but not for ever.
pub async fn within_a_minute<T>(test: impl Future<Output = T>) -> T {
    Box::pin(tokio::time::timeout(Duration::from_secs(60), test))
        .await
        .expect("a minute is more than enough")
}

/// A market on loopback.
pub struct Market {
    pub coordinator: RunningCoordinator,
    pub server: Server,
    pub folder: TempDir,
}

impl Market {
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let coordinator = start_coordinator(folder.path(), steady_port()).await;
        Self {
            coordinator,
            server: Server::start().await,
            folder,
        }
    }

    /// Settings of a node that sells the server's models.
    pub fn settings(&self) -> Settings {
        let mut settings = Settings {
            coordinator: self.coordinator.http_url(),
            mesh_listen: MeshListen::At(listen_addresses([127, 0, 0, 1].into(), 0)),
            upstreams: Upstreams {
                discover: false,
                urls: vec![self.server.url().parse().unwrap()],
                allowed_hosts: vec![],
                models: std::collections::BTreeMap::new(),
            },
            local_api: LocalApi::At("127.0.0.1:0".parse().unwrap()),
            redeem_interval: Duration::from_secs(3_600),
            drain: Duration::from_secs(10),
            // Those tests that show hardware say so: it takes the whole machine.
            hardware: HardwareSettings {
                enabled: false,
                ..HardwareSettings::default()
            },
            ..Settings::default()
        };
        settings.prices.default = price();
        settings
    }

    pub async fn node(&self, change: impl FnOnce(&mut Settings)) -> RunningNode {
        let mut settings = self.settings();
        change(&mut settings);
        let node = self.start_node(settings).await.unwrap();
        node.joined().await.unwrap();
        node
    }

    pub async fn start_node(&self, settings: Settings) -> Result<RunningNode, gristmill_node::StartError> {
        start_node(self.folder.path(), settings).await
    }

    pub async fn consumer(&self, seed: u8) -> Consumer {
        Consumer::start(seed, &self.coordinator).await
    }

    /// The coordinator's own key, to sign what an honest coordinator would not.
    pub fn coordinator_key(&self) -> Keypair {
        key_file::load(&signing_key_path(&self.folder.path().join("coordinator")))
            .unwrap()
            .unwrap()
    }
}

/// A free port that stays free while nobody listens there: the system gives those below its ephemeral ones (from 32,768
/// on Linux) to nobody by itself.
fn steady_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = u16::try_from(std::process::id() % 2_000).unwrap_or(0) * 10;
    let is_free = |port: &u16| {
        let tcp = std::net::TcpListener::bind(("127.0.0.1", *port));
        tcp.is_ok() && std::net::UdpSocket::bind(("127.0.0.1", *port)).is_ok()
    };
    std::iter::repeat_with(|| 10_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 22_000)
        .take(22_000)
        .find(is_free)
        .expect("one of so many ports is free")
}

/// A node with its state in a folder of the market's.
pub async fn start_node(
    folder: &Path,
    settings: Settings,
) -> Result<RunningNode, gristmill_node::StartError> {
    Box::pin(Node::start(
        settings,
        &folder.join("node"),
        vec![],
        CancellationToken::new(),
    ))
    .await
}

/// A coordinator with its state in a folder of the market's, on a given port.
pub async fn start_coordinator(folder: &Path, port: u16) -> RunningCoordinator {
    let settings = gristmill_coordinator::Settings {
        http_listen: ([127, 0, 0, 1], port).into(),
        mesh_listen: listen_addresses([127, 0, 0, 1].into(), 0)
            .iter()
            .map(ToString::to_string)
            .collect(),
        starter_grant: STARTER,
        starter_daily_budget: Credits::micro(2_000_000_000),
        ..gristmill_coordinator::Settings::default()
    };
    let data_dir = folder.join("coordinator");
    Box::pin(Coordinator::start(settings, &data_dir, CancellationToken::new()))
        .await
        .unwrap()
}
