//! What a node does about its coordinator's log: it watches it, cosigns it, proves its receipts by it, follows its keys,
//! and takes no jobs once it was caught lying.

use gristmill_coordinator::rotation::KeyFiles;
use gristmill_coordinator::server::{ledger_directory, signing_key_path};
use gristmill_ledger::journal::Records;
use gristmill_ledger::record::CONTENT_MAX_BYTES;
use gristmill_ledger::{EmbeddedOptions, Ledger};
use gristmill_node::RunningNode;
use gristmill_node::daemon::proof_directory;
use gristmill_protocol::codec;
use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::{AccountId, Keypair};
use gristmill_protocol::job::RefusalCode;
use gristmill_protocol::log::checkpoint::{Checkpoint, LogKeys, SignedCheckpoint, origin_of};
use gristmill_protocol::log::evidence::Evidence;
use gristmill_protocol::log::hash::leaf_hash;
use gristmill_protocol::log::inclusion_text::InclusionText;
use gristmill_protocol::tokens::{ReceiptClaims, TicketClaims};
use gristmill_transport::{Mesh, MeshConfig};
use serde_json::Value;

use crate::consumer::Ask;
use crate::market::{Market, clock, start_coordinator, start_node, within_a_minute};

const LIMIT: Credits = Credits::micro(1_000_000);

async fn local(node: &RunningNode, path: &str) -> Value {
    let address = node.local_api_address().unwrap();
    let answer = reqwest::get(format!("http://{address}{path}")).await.unwrap();
    serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
}

/// Evidence against whoever holds this key: two signed histories of one size.
fn two_roots(coordinator: &Keypair) -> Evidence {
    let origin = origin_of(&coordinator.account());
    let [one, other] = [b"one".as_slice(), b"other"].map(|root| {
        SignedCheckpoint::sign(&Checkpoint::new(&origin, 1_000, leaf_hash(root)), coordinator).unwrap()
    });
    Evidence::two_roots(&LogKeys::new(coordinator.account()), &one, &other)
}

/// A bystander who tells the mesh.
async fn tell(market: &Market, evidence: Evidence) -> (Mesh, gristmill_transport::mesh::LogFeed) {
    let bootstrap = market
        .coordinator
        .bootstrap_addresses()
        .iter()
        .map(|address| address.parse().unwrap())
        .collect();
    let config = MeshConfig {
        bootstrap,
        ..MeshConfig::default()
    };
    let (mesh, _) = Mesh::start(&Keypair::from_secret(&[77; 32]), config, clock())
        .await
        .unwrap();
    let feed = mesh.watch_log(&LogKeys::new(market.coordinator_key().account()));
    mesh.publish_evidence(evidence).await.unwrap();
    (mesh, feed)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_watched_and_cosigned_and_receipts_are_proved_and_kept() {
    within_a_minute(async {
        let market = Market::start().await;
        let node = market.node(|_| {}).await;
        let consumer = market.consumer(2).await;
        let mut paid = consumer.channel(node.account(), LIMIT).await;
        consumer.ask(&node, &mut paid, &Ask::script("say 3")).await;
        assert_eq!(node.redeem_now().await.unwrap().vouchers, 1);
        let mut changes = node.witness().changes();
        changes
            .wait_for(|status| status.receipts.proved == 1 && status.cosigned.is_some())
            .await
            .unwrap();
        let shown = local(&node, "/v1/witness").await;
        assert_eq!(shown["witness"]["receipts"]["proved"], 1);
        assert_eq!(shown["takes_jobs"], true);
        assert!(shown["witness"]["checkpoint"]["size"].as_u64().unwrap() > 0);
        assert!(shown["checkpoint_age_ms"].is_u64() && shown["distrusted_because"].is_null());
        node.shutdown().await.unwrap();

        // The proof is kept, and holds for whoever knows the coordinator's key.
        let coordinator = market.coordinator_key().account();
        let page = consumer.client.receipts(None, 10).await.unwrap();
        let party = consumer.account();
        let claims = ReceiptClaims::verify(&page.receipts[0], &coordinator, &party, clock()()).unwrap();
        let kept = kept_proofs(&market);
        let [(log, sequence, proof)] = &kept[..] else {
            panic!("{kept:?}")
        };
        assert_eq!((*log, *sequence), (coordinator, claims.sequence));
        let proof: InclusionText = proof.parse().unwrap();
        let leaf = claims.record_hash.parse().unwrap();
        let proved = proof.verify(&leaf, &LogKeys::new(coordinator)).unwrap();
        assert!(proved.size() >= claims.sequence);

        // What was proved is not proved again.
        let node = start_node(market.folder.path(), market.settings()).await.unwrap();
        node.joined().await.unwrap();
        let mut changes = node.witness().changes();
        let status = changes
            .wait_for(|status| status.shown_at_ms.is_some())
            .await
            .unwrap()
            .clone();
        assert_eq!((status.receipts.proved, status.receipts.waiting), (0, 0));
        node.shutdown().await.unwrap();
    })
    .await;
}

/// The proofs in the file of the market's node: log, record, proof.
fn kept_proofs(market: &Market) -> Vec<(AccountId, u64, String)> {
    let directory = proof_directory(&market.folder.path().join("node"));
    Records::read(&directory, *b"rcptprfs")
        .unwrap()
        .map(|record| codec::decode::<_, CONTENT_MAX_BYTES>(&record.unwrap().1.content).unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_was_caught_lying_gets_no_jobs_done_unless_the_owner_says_so() {
    within_a_minute(async {
        for refuses in [true, false] {
            let market = Market::start().await;
            let node = market
                .node(|settings| settings.refuse_lying_coordinator = refuses)
                .await;
            let consumer = market.consumer(2).await;
            let mut paid = consumer.channel(node.account(), LIMIT).await;
            let (_mesh, _feed) = tell(&market, two_roots(&market.coordinator_key())).await;
            let mut changes = node.witness().changes();
            changes
                .wait_for(|status| status.distrust().is_some())
                .await
                .unwrap();
            let shown = local(&node, "/v1/witness").await;
            assert_eq!(shown["takes_jobs"], !refuses);
            let status = local(&node, "/v1/status").await;
            let because = status["coordinator"]["distrusted_because"].as_str().unwrap();
            assert!(because.contains("two histories of 1000 records"), "{because}");
            if refuses {
                let refused = consumer.refusal(&node, &paid.ticket, &Ask::script("say 1")).await;
                assert_eq!(refused.code, RefusalCode::ShuttingDown);
                assert!(refused.reason.contains("caught lying"), "{}", refused.reason);
            } else {
                let answer = consumer.ask(&node, &mut paid, &Ask::script("say 1")).await;
                assert!(!answer.messages.is_empty());
            }
            // What was promised for work done is handed in all the same.
            node.redeem_now().await.unwrap();
            node.shutdown().await.unwrap();
            if refuses {
                // It is remembered.
                let node = start_node(market.folder.path(), market.settings()).await.unwrap();
                let mut changes = node.witness().changes();
                changes
                    .wait_for(|status| status.distrust().is_some())
                    .await
                    .unwrap();
                node.shutdown().await.unwrap();
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_node_follows_the_coordinator_to_a_new_key() {
    within_a_minute(async {
        let mut market = Market::start().await;
        let node = market.node(|_| {}).await;
        let consumer = market.consumer(2).await;
        let old_key = market.coordinator_key().account();
        let mut before = consumer.channel(node.account(), LIMIT).await;
        consumer.ask(&node, &mut before, &Ask::script("say 2")).await;

        let port = market.coordinator.http_address().port();
        market.coordinator.shutdown().await.unwrap();
        let data_dir = market.folder.path().join("coordinator");
        let ledger = Ledger::open(&ledger_directory(&data_dir), &EmbeddedOptions::default()).unwrap();
        let rotated = KeyFiles::of(&signing_key_path(&data_dir))
            .rotate(&ledger, clock()())
            .await
            .unwrap();
        ledger.shutdown().await.unwrap();
        market.coordinator = start_coordinator(market.folder.path(), port).await;
        assert_ne!(rotated.new, old_key);

        // A ticket of the new key is taken by a node that has not heard of it yet.
        let mut after = consumer.channel(node.account(), LIMIT).await;
        let now_ms = clock()();
        TicketClaims::verify(&after.ticket, &rotated.new, &node.account(), now_ms).unwrap();
        let answer = consumer.ask(&node, &mut after, &Ask::script("say 2")).await;
        assert!(!answer.messages.is_empty());
        // One of the old key still is.
        let answer = consumer.ask(&node, &mut before, &Ask::script("say 2")).await;
        assert!(!answer.messages.is_empty());
        // Both are settled, with receipts of the new key, and the witness went along.
        let redeemed = node.redeem_now().await.unwrap();
        assert_eq!((redeemed.vouchers, redeemed.refused), (2, 0));
        assert_eq!(node.joined().await, Some(rotated.new));
        let mut changes = node.witness().changes();
        let status = changes
            .wait_for(|status| status.receipts.proved == 2)
            .await
            .unwrap()
            .clone();
        assert_eq!(status.signer, Some(rotated.new));
        assert!(status.alarms.is_empty());
        node.shutdown().await.unwrap();
    })
    .await;
}
