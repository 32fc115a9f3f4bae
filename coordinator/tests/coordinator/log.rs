//! The Merkle log over HTTP: what anybody can check, what auditors can read, what witnesses can say.

use std::fs;

use gristmill_coordinator::StartError;
use gristmill_coordinator::core::auditor_key::AuditorKeyHash;
use gristmill_coordinator::log_keeper::LogKeeperError;
use gristmill_ledger::record::Record;
use gristmill_protocol::coordinator_api::{
    CosignatureAnswer, CosignatureRequest, NetworkInfo, ReceiptView, SettlementResult, log_entry_from_text,
};
use gristmill_protocol::log::checkpoint::{LogKeys, SignedCheckpoint};
use gristmill_protocol::log::cosignature::{cosign, cosigners};
use gristmill_protocol::log::entry_bundle;
use gristmill_protocol::log::hash::leaf_hash;
use gristmill_protocol::log::inclusion_text::InclusionText;
use gristmill_protocol::log::note::SignedNote;
use gristmill_protocol::log::proof::{ConsistencyProof, tiles_for_consistency};
use gristmill_protocol::log::tile::{EntryBundle, Tile};
use gristmill_protocol::tokens::ReceiptClaims;
use reqwest::StatusCode;
use reqwest::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, IF_NONE_MATCH,
    WWW_AUTHENTICATE,
};

use crate::harness::{Account, Network, credits, grant, settings};

/// Status, headers and body of what a browser would get.
async fn fetch(network: &Network, path: &str) -> (StatusCode, HeaderMap, Vec<u8>) {
    let response = network.http().get(network.url(path)).send().await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    (status, headers, response.bytes().await.unwrap().to_vec())
}

fn value(headers: &HeaderMap, name: HeaderName) -> &str {
    headers
        .get(&name)
        .unwrap_or_else(|| panic!("no {name}"))
        .to_str()
        .unwrap()
}

async fn keys(network: &Network) -> LogKeys {
    let info: NetworkInfo = network.get("/v1/network").await;
    let keys = LogKeys::new(info.log.account);
    assert_eq!(info.log.origin, keys.origin());
    assert_eq!(keys.keys(), [info.log.verifier_key]);
    assert!(info.log.keys.is_empty());
    keys
}

async fn checkpoint(network: &Network) -> Option<SignedCheckpoint> {
    let (status, _, body) = fetch(network, "/log/checkpoint").await;
    if status == StatusCode::NOT_FOUND {
        return None;
    }
    assert_eq!(status, StatusCode::OK);
    let note: SignedNote = String::from_utf8(body).unwrap().parse().unwrap();
    Some(SignedCheckpoint::open(note, &keys(network).await).unwrap())
}

/// Waits for a checkpoint of at least this size.
async fn checkpoint_of(network: &Network, size: u64) -> SignedCheckpoint {
    network
        .eventually(|| async {
            checkpoint(network)
                .await
                .filter(|checkpoint| checkpoint.size() >= size)
        })
        .await
}

async fn proved(network: &Network, party: &Account, sequence: u64) -> ReceiptView {
    network
        .eventually(|| async {
            let reply = party.get(network, &format!("/v1/receipts/{sequence}")).await;
            let view: ReceiptView = reply.ok();
            view.proof.is_some().then_some(view)
        })
        .await
}

#[tokio::test]
async fn a_receipt_is_proved_to_both_parties_and_nobody_else() {
    let network = Network::start().await;
    let (consumer, provider) = (network.account_with(10).await, Account::new());
    let channel = consumer.open_to(&network, &provider, 4).await;
    let vouchers: Vec<_> = [1_000, 2_000, 1_500]
        .map(|amount| consumer.voucher(channel, amount))
        .into();
    let answer = provider.settle(&network, &vouchers).await;
    // A voucher that pays nothing new was paid by the one before.
    let [Some(first), Some(second), Some(third)] = answer.log_indices[..] else {
        panic!("{:?}", answer.log_indices);
    };
    assert_eq!((second, third), (first + 1, first + 1));
    let refused = provider
        .settle(&network, &[Account::new().voucher(channel, 9)])
        .await;
    assert_eq!(refused.log_indices, [None]);

    let log = keys(&network).await;
    for (result, index) in answer.results.iter().zip([first, second]) {
        let SettlementResult::Settled { receipt, .. } = result else {
            panic!("{result:?}");
        };
        for party in [&consumer, &provider] {
            let view = proved(&network, party, index + 1).await;
            assert_eq!(view.receipt, *receipt, "a receipt never changes");
            let now_ms = network.clock.now_ms();
            let claims =
                ReceiptClaims::verify(&view.receipt, &network.coordinator(), &party.id(), now_ms).unwrap();
            let entry = log_entry_from_text(&view.log_entry).unwrap();
            let leaf = leaf_hash(&entry);
            assert_eq!(
                (claims.sequence, claims.record_hash),
                (index + 1, leaf.to_string())
            );
            assert_eq!(Record::from_log_entry(&entry).unwrap().sequence, claims.sequence);
            let proof: InclusionText = view.proof.unwrap().parse().unwrap();
            assert_eq!(proof.index, index);
            proof.verify(&leaf, &log).unwrap();
        }
    }
    for sequence in [0, 1, first, second + 2, u64::MAX] {
        let path = format!("/v1/receipts/{sequence}");
        consumer
            .get(&network, &path)
            .await
            .assert_refused(404, "not_found");
    }
    let path = format!("/v1/receipts/{}", first + 1);
    let stranger = Account::new().get(&network, &path).await;
    stranger.assert_refused(404, "not_found");
    let unsigned = network.http().get(network.url(&path)).send().await.unwrap();
    assert_eq!(unsigned.status(), StatusCode::UNAUTHORIZED);
    for path in [
        "/v1/receipts/x",
        "/v1/receipts/-1",
        "/v1/receipts/18446744073709551616",
    ] {
        consumer
            .get(&network, path)
            .await
            .assert_refused(400, "invalid_request");
    }
}

#[tokio::test]
async fn a_page_of_receipts_has_their_proofs() {
    let network = Network::start().await;
    let (consumer, provider) = (network.account_with(10).await, Account::new());
    let channel = consumer.open_to(&network, &provider, 4).await;
    let vouchers: Vec<_> = (1..=5)
        .map(|step| consumer.voucher(channel, step * 1_000))
        .collect();
    let settled = provider.settle(&network, &vouchers).await;
    let newest = settled.log_indices.last().unwrap().unwrap() + 1;
    // Whatever the log covers at that moment, each receipt has a proof or none, in its own place.
    let early = provider.receipts(&network, "").await;
    assert_eq!(early.proofs.len(), 5);
    checkpoint_of(&network, newest).await;
    let page = provider.receipts(&network, "?limit=4").await;
    assert_eq!((page.receipts.len(), page.proofs.len()), (4, 4));
    assert_eq!(page.receipts, early.receipts[..4]);
    let log = keys(&network).await;
    for (receipt, proof) in page.receipts.iter().zip(&page.proofs) {
        let now_ms = network.clock.now_ms();
        let claims = ReceiptClaims::verify(receipt, &network.coordinator(), &provider.id(), now_ms).unwrap();
        let proof: InclusionText = proof.as_ref().unwrap().parse().unwrap();
        let leaf = claims.record_hash.parse().unwrap();
        proof.verify(&leaf, &log).unwrap();
        assert_eq!(proof.index + 1, claims.sequence);
    }
}

#[tokio::test]
async fn the_log_is_public_and_can_be_cached() {
    let network = Network::start().await;
    let (status, headers, _) = fetch(&network, "/log/checkpoint").await;
    assert_eq!(status, StatusCode::NOT_FOUND, "an empty ledger has no checkpoint");
    assert_eq!(value(&headers, CACHE_CONTROL), "no-store");
    for _ in 0..3 {
        network.account_with(1).await;
    }
    checkpoint_of(&network, 3).await;

    let (_, headers, body) = fetch(&network, "/log/checkpoint").await;
    assert_eq!(value(&headers, CONTENT_TYPE), "text/plain; charset=utf-8");
    assert_eq!(value(&headers, CACHE_CONTROL), "public, max-age=1");
    assert_eq!(value(&headers, ACCESS_CONTROL_ALLOW_ORIGIN), "*");
    let unchanged = network
        .http()
        .get(network.url("/log/checkpoint"))
        .header(IF_NONE_MATCH, value(&headers, ETAG));
    let unchanged = unchanged.send().await.unwrap();
    assert_eq!(unchanged.status(), StatusCode::NOT_MODIFIED);
    assert!(unchanged.bytes().await.unwrap().is_empty());
    assert!(body.starts_with(b"gristmill/log/12D3KooW"));

    for width in 1..=3_u16 {
        let (status, headers, body) = fetch(&network, &format!("/log/tile/0/000.p/{width}")).await;
        assert_eq!((status, body.len()), (StatusCode::OK, usize::from(width) * 32));
        assert_eq!(value(&headers, CONTENT_TYPE), "application/octet-stream");
        assert_eq!(value(&headers, CACHE_CONTROL), "public, max-age=3600, immutable");
        assert_eq!(value(&headers, ACCESS_CONTROL_ALLOW_ORIGIN), "*");
    }
    for path in [
        "/log",
        "/log/",
        "/log/checkpoint/",
        "/log/tile",
        "/log/tile/0",
        "/log/tile/0/",
        "/log/tile/0/000",
        "/log/tile/0/000.p/0",
        "/log/tile/0/000.p/4",
        "/log/tile/0/000.p/256",
        "/log/tile/0/000.p/+3",
        "/log/tile/0/000.p/03",
        "/log/tile/0/0.p/3",
        "/log/tile/0/001.p/1",
        "/log/tile/00/000.p/3",
        "/log/tile/64/000.p/3",
        "/log/tile/-1/000.p/3",
        "/log/tile/data/000.p/3",
        "/log/tile/0/x000/000.p/3",
        "/log/tile/0/../0/000.p/3x",
        "/log/tile/0/%2e%2e/checkpoint",
    ] {
        let (status, _, body) = fetch(&network, path).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
        assert!(body.starts_with(b"{\"error\""), "{path}");
    }
    let posted = network.http().post(network.url("/log/checkpoint")).send().await;
    assert_eq!(posted.unwrap().status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn two_checkpoints_are_consistent_by_the_tiles_that_are_served() {
    let mut network = Network::start().await;
    network.account_with(1).await;
    let old = checkpoint_of(&network, 1).await;
    for _ in 0..4 {
        network.account_with(1).await;
    }
    // What came last is in the log when the coordinator has ended.
    network.stop().await;
    network.start_again().await;
    let new = checkpoint(&network).await.unwrap();
    assert!(new.size() >= 5);
    let mut tiles = std::collections::BTreeMap::new();
    for tile in tiles_for_consistency(old.size(), new.size()) {
        let (status, _, body) = fetch(&network, &format!("/log/{tile}")).await;
        assert_eq!(status, StatusCode::OK, "{tile}");
        tiles.insert(tile, body);
    }
    let read = |tile: Tile| tiles.get(&tile).cloned().ok_or("missing");
    let proof = ConsistencyProof::build(old.size(), new.size(), read).unwrap();
    proof.verify(old.root(), new.root()).unwrap();
}

#[tokio::test]
async fn entries_are_for_auditors_with_a_key() {
    let network = Network::start_with(gristmill_coordinator::Settings {
        auditor_key_hashes: vec![AuditorKeyHash::of("first"), AuditorKeyHash::of("second")],
        ..settings()
    })
    .await;
    let account = network.account_with(1).await;
    let newest = checkpoint_of(&network, 1).await;
    let path = format!("/log/tile/entries/000.p/{}", newest.size());
    let read = async |key: Option<&str>, path: &str| {
        let mut request = network.http().get(network.url(path));
        if let Some(key) = key {
            request = request.bearer_auth(key);
        }
        request.send().await.unwrap()
    };
    for key in [None, Some("third"), Some("firs"), Some("first2"), Some("FIRST")] {
        for path in [&*path, "/log/tile/entries/009"] {
            let refused = read(key, path).await;
            assert_eq!(refused.status(), StatusCode::UNAUTHORIZED, "{key:?}");
            assert_eq!(value(refused.headers(), WWW_AUTHENTICATE), "Bearer");
        }
    }
    // Nor does an account's own token help.
    let call = gristmill_protocol::tokens::Call {
        method: "GET",
        path: &path,
        body: b"",
    };
    let token = account.token(&network, call);
    assert_eq!(read(Some(&token), &path).await.status(), StatusCode::UNAUTHORIZED);

    for key in ["first", "second"] {
        let response = read(Some(key), &path).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(value(response.headers(), CACHE_CONTROL), "no-store");
        assert!(response.headers().get(ACCESS_CONTROL_ALLOW_ORIGIN).is_none());
        let bytes = response.bytes().await.unwrap();
        let bundle = EntryBundle::in_tree(0, newest.size()).unwrap();
        let entries = entry_bundle::decode(bundle, &bytes).unwrap();
        let (_, _, tile) = fetch(&network, &format!("/log/{}", bundle.tile())).await;
        for (entry, hash) in entries.iter().zip(bundle.tile().hashes(&tile).unwrap()) {
            assert_eq!(leaf_hash(entry), hash);
        }
    }
    for path in [
        "/log/tile/entries/000",
        "/log/tile/entries/001.p/1",
        "/log/tile/entries/0",
    ] {
        assert_eq!(
            read(Some("first"), path).await.status(),
            StatusCode::NOT_FOUND,
            "{path}"
        );
    }
}

#[tokio::test]
async fn without_configured_keys_nobody_reads_entries() {
    let network = Network::start().await;
    network.account_with(1).await;
    checkpoint_of(&network, 1).await;
    for key in ["", "x"] {
        let request = network
            .http()
            .get(network.url("/log/tile/entries/000.p/1"))
            .bearer_auth(key);
        assert_eq!(request.send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
    }
}

#[tokio::test]
async fn witnesses_in_the_ledger_cosign_what_everybody_is_shown() {
    let mut network = Network::start().await;
    let witness = network.account_with(1).await;
    let newest = checkpoint_of(&network, 1).await;
    let offer = |by: &Account, checkpoint: &SignedCheckpoint, size| CosignatureRequest {
        size,
        cosignature: cosign(checkpoint, &by.keypair, 1_700_000_000)
            .unwrap()
            .to_string(),
    };
    let size = newest.size();
    let stranger = Account::new();
    let refused = stranger
        .post(&network, "/v1/cosignatures", &offer(&stranger, &newest, size))
        .await;
    refused.assert_refused(403, "forbidden");
    let forged = witness
        .post(&network, "/v1/cosignatures", &offer(&stranger, &newest, size))
        .await;
    forged.assert_refused(400, "invalid_request");
    let unknown = witness
        .post(&network, "/v1/cosignatures", &offer(&witness, &newest, size + 9))
        .await;
    unknown.assert_refused(404, "not_found");
    let malformed = CosignatureRequest {
        size,
        cosignature: "x".into(),
    };
    let malformed = witness.post(&network, "/v1/cosignatures", &malformed).await;
    malformed.assert_refused(400, "invalid_request");
    assert_eq!(checkpoint(&network).await.unwrap(), newest);

    for _ in 0..2 {
        let answer = witness
            .post(&network, "/v1/cosignatures", &offer(&witness, &newest, size))
            .await;
        let answer: CosignatureAnswer = answer.ok();
        assert_eq!(
            answer,
            CosignatureAnswer {
                size,
                cosignatures: 1
            }
        );
    }
    let cosigned = checkpoint(&network).await.unwrap();
    assert_eq!(cosigners(cosigned.note()), [(witness.id(), 1_700_000_000)]);
    assert_eq!(cosigned.without_cosignatures(&keys(&network).await), newest);
    network.stop().await;
    network.start_again().await;
    // A start may have written a record of the time in between; the checkpoint before it stays cosigned.
    let after = checkpoint(&network).await.unwrap();
    assert!(after == cosigned || after.size() > size);
}

#[tokio::test]
async fn a_ledger_whose_log_is_gone_is_integrated_again_with_the_same_roots() {
    let mut network = Network::start().await;
    for _ in 0..5 {
        network.account_with(1).await;
    }
    let before = checkpoint_of(&network, 5).await;
    let log = network.running().ledger_directory().join("log");
    network.stop().await;
    fs::remove_dir_all(&log).unwrap();
    network.start_again().await;
    let after = checkpoint_of(&network, before.size()).await;
    if after.size() == before.size() {
        assert_eq!(after, before);
    }
}

/// Flips a bit of the tile at the right edge of the log.
fn damage_the_edge(network: &Network, size: u64) {
    let log = network.path().join("coordinator").join("ledger").join("log");
    let tile = Tile::in_tree(0, 0, size).unwrap();
    let path = log.join(tile.path());
    let mut bytes = fs::read(&path).unwrap();
    bytes[0] ^= 1;
    fs::write(&path, bytes).unwrap();
}

#[tokio::test]
async fn a_damaged_log_signs_nothing_and_the_ledger_takes_no_entries() {
    let mut network = Network::start().await;
    let account = network.account_with(1).await;
    let before = checkpoint_of(&network, 1).await;
    damage_the_edge(&network, before.size());
    network
        .eventually(|| async {
            let request = grant(account.id(), credits(1));
            let reply = network.operator().post(&network, "/v1/grants", &request).await;
            (reply.status == StatusCode::SERVICE_UNAVAILABLE).then_some(reply)
        })
        .await
        .assert_refused(503, "unavailable");
    let ready = network.http().get(network.url("/readyz")).send().await.unwrap();
    assert_eq!(ready.status(), StatusCode::SERVICE_UNAVAILABLE);
    // What was signed is still shown, and balances can be read.
    assert_eq!(checkpoint(&network).await.unwrap(), before);
    assert!(account.view(&network).await.available >= credits(1));

    network.stop().await;
    let error = network.try_start().await.unwrap_err();
    assert!(
        matches!(error, StartError::Log(LogKeeperError::Halted { .. })),
        "{error:?}"
    );
    damage_the_edge(&network, before.size());
    network.start_again().await;
    assert!(checkpoint_of(&network, before.size() + 1).await.size() > before.size());
}
