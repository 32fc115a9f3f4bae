//! What a client does about its coordinator's log: it watches it, follows its keys, and sets nothing more aside with it
//! once it was caught lying.

use std::sync::Arc;

use gristmill_coordinator::rotation::KeyFiles;
use gristmill_coordinator::server::{open_ledger, signing_key_path};
use gristmill_coordinator::settings::StoreSetting;
use gristmill_coordinator::{Coordinator, RunningCoordinator};
use gristmill_protocol::identity::Keypair;
use gristmill_protocol::log::checkpoint::{Checkpoint, LogKeys, SignedCheckpoint, origin_of};
use gristmill_protocol::log::evidence::Evidence;
use gristmill_protocol::log::hash::leaf_hash;
use gristmill_transport::mesh::LogFeed;
use gristmill_transport::{Mesh, MeshConfig, key_file};
use serde_json::json;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::harness::{
    Market, PATIENCE, STARTER, client_settings, coordinator_settings, start_client, unix_ms,
};
use crate::provider::{Setup, TestProvider, words};

fn coordinator_key(market: &Market) -> Keypair {
    key_file::load(&signing_key_path(market.coordinator_directory.path()))
        .unwrap()
        .unwrap()
}

/// A bystander who tells the mesh that the coordinator signed two histories.
async fn tell_that_it_lied(market: &Market) -> (Mesh, LogFeed) {
    let coordinator = coordinator_key(market);
    let (keys, origin) = (
        LogKeys::new(coordinator.account()),
        origin_of(&coordinator.account()),
    );
    let [one, other] = [b"one".as_slice(), b"other"].map(|root| {
        SignedCheckpoint::sign(&Checkpoint::new(&origin, 1_000, leaf_hash(root)), &coordinator).unwrap()
    });
    let bootstrap = market.coordinator.bootstrap_addresses();
    let config = MeshConfig {
        bootstrap: bootstrap.iter().map(|address| address.parse().unwrap()).collect(),
        ..MeshConfig::default()
    };
    let (mesh, _) = Mesh::start(&Keypair::from_secret(&[77; 32]), config, Arc::new(unix_ms))
        .await
        .unwrap();
    let feed = mesh.watch_log(&keys);
    mesh.publish_evidence(Evidence::two_roots(&keys, &one, &other))
        .await
        .unwrap();
    (mesh, feed)
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_more_is_set_aside_with_a_coordinator_that_was_caught_lying() {
    for refuses in [true, false] {
        let market = Market::start_with(STARTER, |settings| gristmill_client::Settings {
            refuse_lying_coordinator: refuses,
            ..settings
        })
        .await;
        let first = market.provider(Setup::default(), words(&["a", "b"])).await;
        assert_eq!(market.chat(json!({"max_tokens": 10})).await.status, 200);
        let _told = tell_that_it_lied(&market).await;
        let mut changes = market.client.witness().changes();
        timeout(PATIENCE, changes.wait_for(|status| status.distrust().is_some()))
            .await
            .unwrap()
            .unwrap();
        let shown = market.get("/v1/witness").await.json();
        assert_eq!(shown["opens_channels"], !refuses);
        assert!(
            shown["distrusted_because"]
                .as_str()
                .unwrap()
                .contains("two histories")
        );
        assert!(!market.get("/readyz").await.json()["coordinator_distrusted_because"].is_null());
        // What is set aside already can be spent.
        assert_eq!(market.chat(json!({"max_tokens": 10})).await.status, 200);
        drop(first);
        let other = Setup {
            model: "other",
            ..Setup::default()
        };
        let _second = market.provider(other, words(&["c"])).await;
        let answer = market.chat(json!({"model": "other", "max_tokens": 10})).await;
        if refuses {
            assert_eq!(answer.error(), (503, "coordinator_distrusted".to_owned()));
        } else {
            assert_eq!(answer.status, 200, "{}", answer.text);
        }
    }
}

async fn start_again(directory: &std::path::Path, port: u16) -> RunningCoordinator {
    let settings = gristmill_coordinator::Settings {
        http_listen: ([127, 0, 0, 1], port).into(),
        ..coordinator_settings(STARTER)
    };
    Coordinator::start(settings, directory, CancellationToken::new())
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_client_follows_the_coordinator_to_a_new_key() {
    let mut market = Market::start().await;
    let first_key = market.coordinator.account();
    let _old = market.provider(Setup::default(), words(&["a", "b"])).await;
    assert_eq!(market.chat(json!({"max_tokens": 10})).await.status, 200);

    let port = market.coordinator.http_address().port();
    let directory = market.coordinator_directory.path().to_owned();
    market.coordinator.shutdown().await.unwrap();
    let ledger = open_ledger(&StoreSetting::Embedded, &directory).await.unwrap();
    let rotated = KeyFiles::of(&signing_key_path(&directory))
        .rotate(&ledger, unix_ms())
        .await
        .unwrap();
    ledger.shutdown().await.unwrap();
    market.coordinator = start_again(&directory, port).await;
    assert_eq!(market.coordinator.account(), rotated.new);

    // The channel of the old key pays on, and another one is opened with a ticket of the new key.
    assert_eq!(market.chat(json!({"max_tokens": 10})).await.status, 200);
    let other = Setup {
        model: "other",
        ..Setup::default()
    };
    let bootstrap = market.coordinator.bootstrap_addresses();
    let keys = vec![first_key, rotated.new];
    let new = TestProvider::start_with_keys(other, keys, &bootstrap, words(&["c"])).await;
    market.client.mesh().learn_listing(&new.sealed).unwrap();
    let answer = market.chat(json!({"model": "other", "max_tokens": 10})).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let mut changes = market.client.witness().changes();
    let status = timeout(
        PATIENCE,
        changes.wait_for(|status| status.signer == Some(rotated.new)),
    )
    .await
    .unwrap()
    .unwrap()
    .clone();
    assert!(status.alarms.is_empty());

    // A restart knows the new key, and a coordinator of another key at that address is refused.
    market.client.shutdown().await.unwrap();
    market.coordinator.shutdown().await.unwrap();
    let stranger = tempfile::tempdir().unwrap();
    let posing = start_again(stranger.path(), port).await;
    let client = start_client(
        client_settings(&posing.http_url()),
        market.client_directory.path(),
    )
    .await;
    assert!(!client.is_joined());
    assert_eq!(client.witness().status().alarms, []);
    client.shutdown().await.unwrap();
}
