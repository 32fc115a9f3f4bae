//! Peers for tests, and patience.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gristmill_protocol::codec;
use gristmill_protocol::credits::Credits;
use gristmill_protocol::handover::{KeyHandover, SignedHandover};
use gristmill_protocol::identity::{AccountId, Keypair};
use gristmill_protocol::job::{Chunk, ConsumerFrame, JobKind, OpenJob, ProviderFrame, RequestId};
use gristmill_protocol::listing::{Listing, Offer, PrivacyTier};
use gristmill_protocol::usage::{Price, Usage};
use gristmill_transport::mesh::Multiaddr;
use gristmill_transport::{Clock, ConsumerJobStream, IncomingJobs, Mesh, MeshConfig, ProviderJobStream};

/// Longer than anything here takes; a test that waits so long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A free port that stays free while nobody listens there: the system gives those below its ephemeral ones (from 32,768
/// on Linux) to nobody by itself.
pub(crate) fn steady_port() -> u16 {
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

/// Waits for what must come.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("nothing came in a minute")
}

/// Looks again and again until something holds.
pub(crate) async fn until(holds: impl AsyncFn() -> bool) {
    soon(async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

pub(crate) fn keypair(byte: u8) -> Keypair {
    Keypair::from_secret(&[byte; 32])
}

pub(crate) fn account(byte: u8) -> AccountId {
    keypair(byte).account()
}

/// A hand-over of a log from one key to another.
pub(crate) fn handover(log: u8, old: u8, new: u8) -> SignedHandover {
    let agreed = KeyHandover {
        log: account(log),
        old: account(old),
        new: account(new),
        agreed_at_ms: 5,
    };
    SignedHandover {
        by_old: keypair(old).sign(agreed),
        by_new: keypair(new).sign(agreed),
    }
}

pub(crate) fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

pub(crate) fn clock() -> Clock {
    Arc::new(now_ms)
}

pub(crate) fn quic_only() -> MeshConfig {
    MeshConfig {
        listen: vec!["/ip4/127.0.0.1/udp/0/quic-v1".parse().unwrap()],
        ..MeshConfig::default()
    }
}

pub(crate) fn tcp_only() -> MeshConfig {
    MeshConfig {
        listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
        ..MeshConfig::default()
    }
}

pub(crate) fn knowing(bootstrap: Vec<Multiaddr>) -> MeshConfig {
    MeshConfig {
        bootstrap,
        ..quic_only()
    }
}

pub(crate) async fn start(byte: u8, config: MeshConfig) -> (Mesh, IncomingJobs) {
    soon(Mesh::start(&keypair(byte), config, clock())).await.unwrap()
}

pub(crate) fn texts(addresses: &[Multiaddr]) -> Vec<String> {
    addresses.iter().map(ToString::to_string).collect()
}

/// Waits until a peer is connected.
pub(crate) async fn connected(mesh: &Mesh, peer: AccountId) {
    soon(mesh.peer_changes().wait_for(|peers| peers.contains(&peer)))
        .await
        .unwrap();
}

/// Waits until a peer listens to this one's listings.
pub(crate) async fn heard_by(mesh: &Mesh, peer: AccountId) {
    soon(mesh.listeners().wait_for(|peers| peers.contains(&peer)))
        .await
        .unwrap();
}

/// Two connected ends of a job stream, with the meshes that carry it.
pub(crate) struct JobPair {
    pub(crate) consumer: ConsumerJobStream,
    pub(crate) provider: ProviderJobStream,
    pub(crate) consumer_mesh: Mesh,
    pub(crate) provider_mesh: Mesh,
    pub(crate) incoming: IncomingJobs,
}

/// Opens a stream from peer 1 to peer 2 and sends its first frame, which is received.
pub(crate) async fn job_pair(config: MeshConfig) -> JobPair {
    let (consumer_mesh, _) = start(1, config.clone()).await;
    let (provider_mesh, mut incoming) = start(2, config).await;
    let addresses = texts(&provider_mesh.listen_addresses());
    let mut consumer = soon(consumer_mesh.open_job(account(2), &addresses))
        .await
        .unwrap();
    consumer.send(&open_frame("first"), PATIENCE).await.unwrap();
    let (from, mut provider) = soon(incoming.next()).await.unwrap();
    assert_eq!(from, account(1));
    assert_eq!(provider.receive(PATIENCE).await.unwrap(), open_frame("first"));
    JobPair {
        consumer,
        provider,
        consumer_mesh,
        provider_mesh,
        incoming,
    }
}

pub(crate) fn open_frame(request_id: &str) -> ConsumerFrame {
    ConsumerFrame::Open(OpenJob {
        ticket: "a.b.c".into(),
        request_id: request_id.parse::<RequestId>().unwrap(),
        kind: JobKind::ChatCompletions,
        model: "guide".into(),
        price_cap: price(),
        body_bytes: 0,
        content_type: String::new(),
        trace_parent: None,
    })
}

pub(crate) fn chunk(payload: Vec<u8>) -> ProviderFrame {
    ProviderFrame::Chunk(Chunk {
        payload,
        ends_message: true,
        meter: Usage::default(),
    })
}

fn price() -> Price {
    Price::per_million_tokens(Credits::micro(100_000), Credits::micro(400_000))
}

pub(crate) fn listing(byte: u8, sequence: u64) -> Listing {
    Listing {
        provider: account(byte),
        sequence,
        issued_at_ms: now_ms(),
        ttl_ms: 300_000,
        addresses: vec!["/ip4/127.0.0.1/udp/7410/quic-v1".into()],
        coordinators: vec![account(200)],
        region: "CH".into(),
        privacy: PrivacyTier::Standard,
        offers: vec![Offer {
            kind: JobKind::ChatCompletions,
            model: "guide".into(),
            weights_digest: None,
            quantization: String::new(),
            context_length: 512,
            capabilities: vec![],
            price: price(),
        }],
        slots: 1,
        free_slots: 1,
        certificates: vec![],
    }
}

pub(crate) fn sealed(byte: u8, sequence: u64) -> Vec<u8> {
    listing(byte, sequence).seal(&keypair(byte)).unwrap()
}

/// A listing that names one provider and is signed by another.
pub(crate) fn forged(byte: u8, sequence: u64) -> Vec<u8> {
    codec::encode(&keypair(byte.wrapping_add(1)).sign(listing(byte, sequence)))
}

/// The sequence of a provider's listing on a peer's board.
pub(crate) fn sequence_on(mesh: &Mesh, provider: u8) -> Option<u64> {
    mesh.with_board(|board| {
        board
            .listing(&account(provider), now_ms())
            .map(|listing| listing.sequence)
    })
}

/// Waits until a peer's board has a provider's listing with a sequence.
pub(crate) async fn hears(mesh: &Mesh, provider: u8, sequence: u64) {
    let mut changes = mesh.changes();
    soon(async {
        while sequence_on(mesh, provider) != Some(sequence) {
            changes.changed().await.unwrap();
        }
    })
    .await;
}
