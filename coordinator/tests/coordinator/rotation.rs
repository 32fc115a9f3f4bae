//! Handing the signing key over, interrupted after every step.

use gristmill_coordinator::StartError;
use gristmill_coordinator::rotation::KeyFiles;
use gristmill_coordinator::server::{ledger_directory, signing_key_path};
use gristmill_ledger::{EmbeddedOptions, Ledger};
use gristmill_protocol::coordinator_api::{JwkSet, NetworkInfo, SettlementResult, handover_from_text};
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::log::checkpoint::{LogKeys, SignedCheckpoint};
use gristmill_protocol::tokens::ReceiptClaims;
use gristmill_transport::key_file;

use crate::harness::{Account, Network, credits};

fn open_ledger(network: &Network) -> Ledger {
    Ledger::open(&ledger_directory(network.path()), &EmbeddedOptions::default()).unwrap()
}

fn files(network: &Network) -> KeyFiles {
    KeyFiles::of(&signing_key_path(network.path()))
}

fn next_key(network: &Network) -> std::path::PathBuf {
    signing_key_path(network.path()).with_extension("key.next")
}

async fn jwks(network: &Network) -> Vec<String> {
    let keys: JwkSet = network.get("/.well-known/jwks.json").await;
    keys.keys.into_iter().map(|key| key.kid).collect()
}

/// The newest checkpoint, once it covers everything, under the keys that the network names.
async fn checkpoint(network: &Network) -> (SignedCheckpoint, LogKeys) {
    let info: NetworkInfo = network.get("/v1/network").await;
    let mut keys = LogKeys::new(info.log.account);
    for text in &info.log.keys {
        keys.follow(&handover_from_text(text).unwrap()).unwrap();
    }
    assert_eq!(*keys.newest(), info.coordinator);
    let fetch = || async {
        let response = network
            .http()
            .get(network.url("/log/checkpoint"))
            .send()
            .await
            .unwrap();
        let text = response.text().await.unwrap();
        SignedCheckpoint::open(text.parse().ok()?, &keys).ok()
    };
    (network.eventually(fetch).await, keys)
}

async fn restarted(network: &mut Network) -> AccountId {
    network.start_again().await;
    network.coordinator()
}

#[tokio::test]
async fn a_hand_over_that_is_interrupted_anywhere_leaves_one_key_that_signs() {
    let mut network = Network::start().await;
    let first = network.coordinator();
    let (consumer, provider) = (network.account_with(10).await, Account::new());
    let channel = consumer.open_to(&network, &provider, 4).await;
    let settled = provider
        .settle(&network, &[consumer.voucher(channel, 1_000_000)])
        .await;
    let SettlementResult::Settled { receipt, .. } = &settled.results[0] else {
        panic!("{settled:?}")
    };
    network.stop().await;

    // Interrupted after the new key was made: the old one signs on, and the new one is kept for the next attempt.
    let prepared = files(&network).prepare().unwrap().account();
    assert_eq!(restarted(&mut network).await, first);
    assert_eq!(jwks(&network).await, [first.to_string()]);
    network.stop().await;

    // Interrupted after the ledger took it: the next start goes on with the new key.
    let old = key_file::load(&signing_key_path(network.path()))
        .unwrap()
        .unwrap();
    let new = files(&network).prepare().unwrap();
    assert_eq!(new.account(), prepared);
    let ledger = open_ledger(&network);
    let rotation = files(&network)
        .hand_over(&ledger, &old, &new, network.clock.now_ms())
        .await
        .unwrap();
    assert_eq!(
        (rotation.log, rotation.old, rotation.new),
        (first, first, prepared)
    );
    ledger.shutdown().await.unwrap();
    assert_eq!(restarted(&mut network).await, prepared);
    assert!(!next_key(&network).exists());
    let kept = key_file::load(&signing_key_path(network.path()))
        .unwrap()
        .unwrap();
    assert_eq!(kept.account(), prepared);

    // What the old key signed can be checked, the log is the same one, and money moves on.
    assert_eq!(jwks(&network).await, [prepared.to_string(), first.to_string()]);
    ReceiptClaims::verify(receipt, &first, &provider.id(), network.clock.now_ms()).unwrap();
    let (checkpoint, keys) = checkpoint(&network).await;
    assert_eq!((*keys.first(), *keys.newest()), (first, prepared));
    assert_eq!(checkpoint.checkpoint().origin, keys.origin());
    provider
        .settle(&network, &[consumer.voucher(channel, 2_000_000)])
        .await;
    let totals = network.totals_at_the_end().await;
    assert_eq!(totals.settled, credits(2));

    // All at once, and once more.
    let ledger = open_ledger(&network);
    let third = files(&network)
        .rotate(&ledger, network.clock.now_ms())
        .await
        .unwrap()
        .new;
    ledger.shutdown().await.unwrap();
    assert_eq!(restarted(&mut network).await, third);
    assert_eq!(
        jwks(&network).await,
        [third, prepared, first].map(|account| account.to_string())
    );
    network.stop().await;
    // Interrupted between the ledger and the files, the same command finishes and then makes one more.
    let ledger = open_ledger(&network);
    let old = key_file::load(&signing_key_path(network.path()))
        .unwrap()
        .unwrap();
    let new = files(&network).prepare().unwrap();
    files(&network)
        .hand_over(&ledger, &old, &new, network.clock.now_ms())
        .await
        .unwrap();
    let rotation = files(&network)
        .rotate(&ledger, network.clock.now_ms())
        .await
        .unwrap();
    assert_eq!(rotation.old, new.account());
    ledger.shutdown().await.unwrap();
    assert_eq!(restarted(&mut network).await, rotation.new);
    assert_eq!(jwks(&network).await.len(), 5);
}

#[tokio::test]
async fn a_key_that_does_not_sign_for_the_ledger_starts_nothing() {
    let mut network = Network::start().await;
    network.account_with(1).await;
    let own = network.coordinator();
    checkpoint(&network).await;
    network.stop().await;
    let path = signing_key_path(network.path());
    let kept = std::fs::read(&path).unwrap();

    std::fs::remove_file(&path).unwrap();
    let error = network.try_start().await.unwrap_err();
    assert!(matches!(error, StartError::NoKey { .. }), "{error:?}");
    assert!(error.to_string().contains(&own.to_string()), "{error}");
    assert!(
        !path.exists(),
        "no new key is made for a ledger that is signed for"
    );

    let stranger = key_file::load_or_create(&path).unwrap().account();
    let error = network.try_start().await.unwrap_err();
    assert!(matches!(error, StartError::Signers(_)), "{error:?}");
    let text = error.to_string();
    assert!(
        text.contains(&own.to_string()) && text.contains(&stranger.to_string()),
        "{text}"
    );

    // A retired key comes back from an old copy.
    std::fs::write(&path, &kept).unwrap();
    let ledger = open_ledger(&network);
    let rotation = files(&network)
        .rotate(&ledger, network.clock.now_ms())
        .await
        .unwrap();
    ledger.shutdown().await.unwrap();
    let new = std::fs::read(&path).unwrap();
    std::fs::write(&path, &kept).unwrap();
    let error = network.try_start().await.unwrap_err();
    assert!(matches!(error, StartError::Signers(_)), "{error:?}");
    std::fs::write(&path, &new).unwrap();
    assert_eq!(restarted(&mut network).await, rotation.new);
}

#[tokio::test]
async fn a_ledger_without_any_checkpoint_can_hand_its_key_over_too() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(&folder.path().join("ledger"), &EmbeddedOptions::default()).unwrap();
    let path = folder.path().join("signing.key");
    let first = key_file::load_or_create(&path).unwrap().account();
    let rotation = KeyFiles::of(&path).rotate(&ledger, 5).await.unwrap();
    assert_eq!((rotation.log, rotation.old), (first, first));
    let missing = KeyFiles::of(&folder.path().join("nowhere.key"));
    let error = missing.rotate(&ledger, 6).await.unwrap_err();
    assert!(error.to_string().contains("nowhere.key"), "{error}");
}
