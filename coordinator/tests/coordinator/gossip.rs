//! The coordinator's checkpoints on the mesh.

use std::sync::Arc;
use std::time::Duration;

use gristmill_protocol::identity::Keypair;
use gristmill_protocol::log::checkpoint::{Checkpoint, LogKeys, SignedCheckpoint, origin_of};
use gristmill_protocol::log::evidence::Evidence;
use gristmill_protocol::log::hash::leaf_hash;
use gristmill_transport::mesh::{Heard, LogFeed};
use gristmill_transport::{Mesh, MeshConfig};

use crate::harness::{Network, random};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A peer that watches the coordinator's log.
async fn watching(network: &Network) -> (Mesh, LogFeed) {
    let keypair = Keypair::from_secret(&random());
    let bootstrap = network.running().bootstrap_addresses();
    let config = MeshConfig {
        bootstrap: bootstrap.iter().map(|address| address.parse().unwrap()).collect(),
        ..MeshConfig::default()
    };
    let now_ms = network.clock.now_ms();
    let (mesh, _) = Mesh::start(&keypair, config, Arc::new(move || now_ms))
        .await
        .unwrap();
    let feed = mesh.watch_log(&LogKeys::new(network.coordinator()));
    (mesh, feed)
}

async fn hears(feed: &mut LogFeed) -> Heard {
    tokio::time::timeout(PATIENCE, feed.next())
        .await
        .unwrap()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_peer_is_told_the_newest_checkpoint_and_newcomers_what_is_known() {
    let network = Network::start().await;
    let (_first, mut first) = watching(&network).await;
    let mut newest = 0;
    for _ in 0..3 {
        let _ = network.account_with(1).await;
        let shown = |text: String| {
            SignedCheckpoint::open(text.parse().ok()?, &LogKeys::new(network.coordinator())).ok()
        };
        let fetch = || async {
            let answer = network
                .http()
                .get(network.url("/log/checkpoint"))
                .send()
                .await
                .unwrap();
            shown(answer.text().await.unwrap()).filter(|checkpoint| checkpoint.size() > newest)
        };
        let published = network.eventually(fetch).await;
        // Those before may be told too.
        while newest < published.size() {
            let Heard::Checkpoint { checkpoint, .. } = hears(&mut first).await else {
                panic!("nobody has evidence")
            };
            assert!(checkpoint.size() > newest);
            newest = checkpoint.size();
        }
    }
    let (_newcomer, mut feed) = watching(&network).await;
    assert!(
        matches!(hears(&mut feed).await, Heard::Checkpoint { checkpoint, .. } if checkpoint.size() >= newest)
    );
}

/// Evidence that the network's coordinator signed two roots of one size.
fn two_roots(network: &Network) -> Evidence {
    let key =
        gristmill_transport::key_file::load(&gristmill_coordinator::server::signing_key_path(network.path()));
    let key = key.unwrap().unwrap();
    let origin = origin_of(&key.account());
    let [one, other] = [b"one".as_slice(), b"other"]
        .map(|root| SignedCheckpoint::sign(&Checkpoint::new(&origin, 1_000, leaf_hash(root)), &key).unwrap());
    Evidence::two_roots(&LogKeys::new(key.account()), &one, &other)
}

async fn hears_evidence(feed: &mut LogFeed) -> Evidence {
    loop {
        if let Heard::Evidence(heard) = hears(feed).await {
            return *heard;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_peers_say_of_the_log_is_passed_on_by_the_coordinator_itself() {
    let network = Network::start().await;
    let (accuser, _accusing) = watching(&network).await;
    let (_bystander, mut hearing) = watching(&network).await;
    let evidence = two_roots(&network);
    accuser.publish_evidence(evidence.clone()).await.unwrap();
    assert_eq!(hears_evidence(&mut hearing).await, evidence);
}

#[tokio::test(flavor = "multi_thread")]
async fn evidence_reaches_whoever_comes_after_it_was_passed_on() {
    let network = Network::start().await;
    let (accuser, _accusing) = watching(&network).await;
    let (_witness, mut witnessing) = watching(&network).await;
    let evidence = two_roots(&network);
    accuser.publish_evidence(evidence.clone()).await.unwrap();
    hears_evidence(&mut witnessing).await;
    accuser.shutdown().await;
    // It knows the coordinator alone, which has forwarded the evidence already.
    let (_newcomer, mut hearing) = watching(&network).await;
    assert_eq!(hears_evidence(&mut hearing).await, evidence);
}
