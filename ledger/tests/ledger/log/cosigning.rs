//! Witnesses' cosignatures.

use std::sync::Arc;

use gristmill_ledger::conformance::StoreKind;
use gristmill_ledger::conformance::database::TestDatabase;
use gristmill_ledger::conformance::world::{account, keypair};
use gristmill_ledger::log::{CosignError, Cosigned, Log};
use gristmill_ledger::store::Store;
use gristmill_protocol::coordinator_api::COSIGNATURES_PER_CHECKPOINT_MAX;
use gristmill_protocol::log::checkpoint::SignedCheckpoint;
use gristmill_protocol::log::cosignature::{cosign, cosigners};

use super::{EmbeddedKind, integrate_all, open_log, post};

fn line(checkpoint: &SignedCheckpoint, witness: u8, seconds: u64) -> String {
    cosign(checkpoint, &keypair(witness), seconds)
        .unwrap()
        .to_string()
}

async fn offer(log: &Log, witness: u8, size: u64, line: &str) -> Result<Cosigned, CosignError> {
    log.cosign(&account(witness), size, line).await
}

#[tokio::test]
async fn cosignatures_are_published_with_the_note_and_outlive_a_start() {
    let ledger = EmbeddedKind.begin().await;
    let store = ledger.open().await;
    let log = open_log(&store).await;
    post(&store, 0..5).await;
    integrate_all(&log).await;
    let newest = log.newest().unwrap();
    let mut told = log.watch_notes();
    told.mark_unchanged();
    for (count, witness) in (1..).zip([7, 8]) {
        let cosigned = offer(&log, witness, 5, &line(&newest, witness, 1_000)).await;
        assert_eq!(
            cosigned,
            Ok(Cosigned {
                size: 5,
                cosignatures: count
            })
        );
    }
    assert!(told.has_changed().unwrap());
    // The first of an account stays.
    assert_eq!(
        offer(&log, 7, 5, &line(&newest, 7, 2_000))
            .await
            .unwrap()
            .cosignatures,
        2
    );
    let expected: std::collections::BTreeMap<_, _> = [7, 8].map(|witness| (account(witness), 1_000)).into();
    let has = |checkpoint: Arc<SignedCheckpoint>| {
        assert_eq!(
            cosigners(checkpoint.note())
                .into_iter()
                .collect::<std::collections::BTreeMap<_, _>>(),
            expected
        );
        checkpoint.note().verify(log.signer().verifier_key()).unwrap();
    };
    has(log.newest().unwrap());
    assert_eq!(
        store.published_checkpoint().await.unwrap().unwrap().note,
        told.borrow_and_update().clone()
    );
    store.shutdown().await.unwrap();
    let store = ledger.open().await;
    let again = open_log(&store).await;
    has(again.newest().unwrap());
    store.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_is_no_cosignature_of_the_caller_is_refused() {
    let ledger = EmbeddedKind.begin().await;
    let store = ledger.open().await;
    let log = open_log(&store).await;
    assert_eq!(
        offer(&log, 7, 0, "\u{2014} x AAAAAAAA\n").await,
        Err(CosignError::NotRecent { size: 0 })
    );
    post(&store, 0..5).await;
    integrate_all(&log).await;
    let five = log.newest().unwrap();
    post(&store, 5..9).await;
    integrate_all(&log).await;
    let nine = log.newest().unwrap();

    for (what, offered) in [
        ("nothing", offer(&log, 7, 9, "").await),
        ("two lines", offer(&log, 7, 9, &line(&nine, 7, 1).repeat(2)).await),
        ("another's", offer(&log, 7, 9, &line(&nine, 8, 1)).await),
        (
            "of another checkpoint",
            offer(&log, 7, 9, &line(&five, 7, 1)).await,
        ),
        ("of no checkpoint", offer(&log, 7, 8, &line(&nine, 7, 1)).await),
        (
            "the log's own signature",
            offer(&log, 7, 9, &nine.note().signatures()[0].to_string()).await,
        ),
    ] {
        assert!(offered.is_err(), "{what}");
    }
    assert_eq!(log.newest().unwrap(), nine);
    store.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_checkpoint_has_at_most_so_many_cosignatures_and_an_older_one_gets_them_too() {
    let ledger = EmbeddedKind.begin().await;
    let store = ledger.open().await;
    let log = open_log(&store).await;
    let hashes = post(&store, 0..5).await;
    integrate_all(&log).await;
    let five = log.newest().unwrap();
    post(&store, 5..9).await;
    integrate_all(&log).await;
    let nine = log.newest().unwrap();
    let most = u8::try_from(COSIGNATURES_PER_CHECKPOINT_MAX).unwrap();
    for witness in 100..100 + most {
        offer(&log, witness, 5, &line(&five, witness, 1)).await.unwrap();
    }
    assert_eq!(
        offer(&log, 99, 5, &line(&five, 99, 1)).await,
        Err(CosignError::Full { size: 5 })
    );
    assert_eq!(offer(&log, 100, 5, &line(&five, 100, 9)).await.unwrap().size, 5);
    assert_eq!(
        log.newest().unwrap(),
        nine,
        "the newest is what everybody is shown"
    );

    // Proofs use the checkpoint that most have seen, if it covers the record.
    let best = log.checkpoint_for(5).unwrap();
    assert_eq!(
        (best.size(), cosigners(best.note()).len()),
        (5, usize::from(most))
    );
    assert_eq!(log.checkpoint_for(6).unwrap(), nine);
    assert_eq!(log.checkpoint_for(10), None);
    let (sequence, leaf) = &hashes[4];
    let proof = log.prove(*sequence, leaf, &best).await.unwrap();
    let opened = proof.verify(leaf, log.keys()).unwrap();
    assert_eq!(cosigners(opened.note()).len(), usize::from(most));
    store.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_cosignature_that_one_process_took_is_shown_by_the_others() {
    let database = TestDatabase::migrated().await;
    let stores: [Arc<dyn Store>; 2] = [Arc::new(database.store().await), Arc::new(database.store().await)];
    let one = open_log(&stores[0]).await;
    let other = open_log(&stores[1]).await;
    post(&stores[0], 0..5).await;
    for log in [&one, &other] {
        integrate_all(log).await;
    }
    let newest = one.newest().unwrap();
    offer(&one, 7, 5, &line(&newest, 7, 1)).await.unwrap();
    integrate_all(&other).await;
    assert_eq!(cosigners(other.newest().unwrap().note()), [(account(7), 1)]);
    for store in stores {
        store.shutdown().await.unwrap();
    }
}
