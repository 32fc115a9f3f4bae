//! Records get into the log, and every proof of them holds.

use std::sync::Arc;

use gristmill_ledger::conformance::StoreKind;
use gristmill_ledger::conformance::database::PostgresKind;
use gristmill_ledger::conformance::world::{account, keypair, rotate};
use gristmill_ledger::entry::Entry;
use gristmill_ledger::log::{Integration, Log, LogSigner, OpenLogError, ProveError, STEP_RECORDS};
use gristmill_ledger::record::Record;
use gristmill_protocol::handover::HandoverError;
use gristmill_protocol::log::checkpoint::{SignedCheckpoint, origin_of};
use gristmill_protocol::log::entry_bundle;
use gristmill_protocol::log::hash::LogHash;
use gristmill_protocol::log::inclusion_text::InclusionText;
use gristmill_protocol::log::tile::{EntryBundle, Tile, bundles_between, tiles_of};

use super::{COORDINATOR, EmbeddedKind, embedded, integrate_all, open_log, post, signer, true_roots};

async fn every_record_and_every_checkpoint_can_be_proved(kind: &dyn StoreKind) {
    let ledger = kind.begin().await;
    let store = ledger.open().await;
    let log = open_log(&store).await;
    let nothing = Integration {
        size: 0,
        integrated: 0,
        more: false,
    };
    assert_eq!(log.integrate().await, Ok(nothing));
    assert!(log.newest().is_none() && log.watch_notes().borrow().is_none());

    let mut acknowledged: Vec<(u64, LogHash)> = Vec::new();
    let mut checkpoints: Vec<Arc<SignedCheckpoint>> = Vec::new();
    let mut told = log.watch_notes();
    for ids in [0..1, 1..3, 3..256, 256..257, 257..600] {
        acknowledged.extend(post(&store, ids.clone()).await);
        let integration = log.integrate().await.unwrap();
        assert_eq!(
            (integration.size, integration.integrated, integration.more),
            (ids.end, ids.end - ids.start, false)
        );
        let newest = log.newest().unwrap();
        assert_eq!(newest.size(), ids.end);
        assert!(told.has_changed().unwrap());
        assert_eq!(
            told.borrow_and_update().as_deref(),
            Some(&*newest.note().to_string())
        );
        // Nothing new: nothing is signed.
        assert_eq!(log.integrate().await.unwrap().integrated, 0);
        assert!(!told.has_changed().unwrap());
        checkpoints.push(newest);
    }
    let roots = true_roots(&*store).await;
    for new in &checkpoints {
        assert_eq!(*new.root(), roots[usize::try_from(new.size()).unwrap()]);
        assert_eq!(new.checkpoint().origin, origin_of(&account(COORDINATOR)));
        for (sequence, leaf) in &acknowledged {
            if *sequence > new.size() {
                let refused = log.prove(*sequence, leaf, new).await;
                assert!(matches!(refused, Err(ProveError::NotInLog { .. })), "{refused:?}");
                continue;
            }
            let proof = log.prove(*sequence, leaf, new).await.unwrap();
            let read: InclusionText = proof.to_string().parse().unwrap();
            assert_eq!(read.verify(leaf, log.keys()).unwrap(), **new);
        }
        for old in &checkpoints {
            let proof = log.consistency_proof(old.size(), new.size()).await;
            if old.size() <= new.size() {
                proof.unwrap().verify(old.root(), new.root()).unwrap();
            } else {
                assert!(matches!(proof, Err(ProveError::NotInLog { .. })));
            }
        }
    }
    let other = log
        .prove(3, &acknowledged[3].1, checkpoints.last().unwrap())
        .await;
    assert!(
        matches!(other, Err(ProveError::Contradiction { .. })),
        "another leaf is not proved"
    );
    store.shutdown().await.unwrap();
}

#[tokio::test]
async fn every_record_and_every_checkpoint_can_be_proved_from_a_folder() {
    every_record_and_every_checkpoint_can_be_proved(&EmbeddedKind).await;
}

#[tokio::test]
async fn every_record_and_every_checkpoint_can_be_proved_from_a_database() {
    every_record_and_every_checkpoint_can_be_proved(&PostgresKind).await;
}

async fn a_log_goes_on_after_a_start(kind: &dyn StoreKind) {
    let ledger = kind.begin().await;
    let mut size = 0;
    for grown in [2, 255, 3, 700] {
        let store = ledger.open().await;
        let log = open_log(&store).await;
        assert_eq!(log.newest().map_or(0, |newest| newest.size()), size);
        post(&store, size..size + grown).await;
        size += grown;
        assert_eq!(integrate_all(&log).await, size);
        let roots = true_roots(&*store).await;
        assert_eq!(log.newest().unwrap().root(), roots.last().unwrap());
        store.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn a_log_goes_on_after_a_start_in_a_folder() {
    a_log_goes_on_after_a_start(&EmbeddedKind).await;
}

#[tokio::test]
async fn a_log_goes_on_after_a_start_in_a_database() {
    a_log_goes_on_after_a_start(&PostgresKind).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_ledger_without_a_log_is_integrated_in_steps() {
    let folder = tempfile::tempdir().unwrap();
    let store = embedded(folder.path());
    let records = 2 * STEP_RECORDS + 700;
    post(&store, 0..records).await;
    let log = open_log(&store).await;
    let mut sizes = Vec::new();
    loop {
        let integration = log.integrate().await.unwrap();
        assert!(integration.integrated <= STEP_RECORDS);
        sizes.push(integration.size);
        if !integration.more {
            break;
        }
    }
    assert_eq!(sizes, [STEP_RECORDS, 2 * STEP_RECORDS, records]);
    let roots = true_roots(&*store).await;
    assert_eq!(log.newest().unwrap().root(), roots.last().unwrap());
    store.shutdown().await.unwrap();
}

/// Whoever has an older checkpoint asks for the tiles of its tree, also where those have grown since.
#[tokio::test]
async fn tiles_of_every_earlier_size_are_given_and_none_beyond() {
    let folder = tempfile::tempdir().unwrap();
    let store = embedded(folder.path());
    let log = open_log(&store).await;
    for ids in [0..5, 5..9, 9..300, 300..515] {
        post(&store, ids).await;
        integrate_all(&log).await;
    }
    // Once from memory, once from the disk.
    for log in [log, open_log(&store).await] {
        for size in [1, 5, 8, 9, 256, 257, 300, 512, 515] {
            for tile in tiles_of(size) {
                let bytes = log.tile(tile).await.unwrap();
                let known = [5, 9, 300, 515].contains(&size) || !tile.is_partial();
                assert!(bytes.is_some() || !known, "{tile} of {size}");
                if let Some(bytes) = bytes {
                    assert_eq!(tile.hashes(&bytes).unwrap().len(), usize::from(tile.width()));
                }
            }
        }
        for (level, index, width) in [
            (0, 2, 4),
            (0, 3, 1),
            (1, 0, 3),
            (1, 0, 256),
            (2, 0, 1),
            (63, 0, 1),
        ] {
            let tile = Tile::new(level, index, width).unwrap();
            assert_eq!(log.tile(tile).await.unwrap(), None, "{tile}");
        }
    }
    store.shutdown().await.unwrap();
}

/// An auditor who has nothing but the bundles has the whole ledger.
#[tokio::test]
async fn entry_bundles_are_the_records_and_hash_to_the_tiles() {
    let folder = tempfile::tempdir().unwrap();
    let store = embedded(folder.path());
    let log = open_log(&store).await;
    post(&store, 0..300).await;
    integrate_all(&log).await;
    post(&store, 300..310).await;
    let mut sequence = 0;
    for bundle in bundles_between(0, 300) {
        let bytes = log.entry_bundle(bundle).await.unwrap().unwrap();
        let tile = log.tile(bundle.tile()).await.unwrap().unwrap();
        let hashes = bundle.tile().hashes(&tile).unwrap();
        for (entry, hash) in entry_bundle::decode(bundle, &bytes).unwrap().iter().zip(hashes) {
            sequence += 1;
            let record = Record::from_log_entry(entry).unwrap();
            assert_eq!((record.sequence, record.hash()), (sequence, hash));
            assert!(matches!(
                Entry::decode_salted(&record.content),
                Ok(Entry::Grant(_))
            ));
        }
    }
    assert_eq!(sequence, 300);
    // In the ledger, but not in the log yet; and never anywhere.
    for (index, width) in [(1, 45), (1, 256), (2, 1), (u64::MAX, 1)] {
        let bundle = EntryBundle::new(index, width).unwrap();
        assert_eq!(log.entry_bundle(bundle).await, Ok(None), "{bundle}");
    }
    store.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_log_outlives_its_key_and_is_not_continued_by_another() {
    let folder = tempfile::tempdir().unwrap();
    let store = embedded(folder.path());
    let first = open_log(&store).await;
    post(&store, 0..5).await;
    integrate_all(&first).await;
    let old = first.newest().unwrap();

    let Entry::RotateKey(handover) = rotate(COORDINATOR, COORDINATOR, 51) else {
        panic!("not a hand-over");
    };
    let first_account = account(COORDINATOR);
    let chain = vec![*handover.clone()];
    assert_eq!(
        LogSigner::new(keypair(52), first_account, chain.clone()).unwrap_err(),
        HandoverError::NotFromKnown {
            old: account(52),
            known: account(51)
        }
    );
    // The key that was handed over signs no more.
    assert!(LogSigner::new(keypair(COORDINATOR), first_account, chain.clone()).is_err());
    let signer_of_now = LogSigner::new(keypair(51), first_account, chain).unwrap();
    let second = Log::open(Arc::clone(&store), signer_of_now).await.unwrap();
    post(&store, 5..9).await;
    integrate_all(&second).await;
    let new = second.newest().unwrap();
    assert_eq!(new.checkpoint().origin, old.checkpoint().origin);
    assert_eq!(second.signer().verifier_key().account(), &account(51));
    new.note().verify(second.signer().verifier_key()).unwrap();
    let proof = second.consistency_proof(old.size(), new.size()).await.unwrap();
    proof.verify(old.root(), new.root()).unwrap();

    let stranger = LogSigner::new(keypair(53), account(53), Vec::new()).unwrap();
    assert!(matches!(
        Log::open(Arc::clone(&store), stranger).await.unwrap_err(),
        OpenLogError::OtherLog { .. }
    ));
    // Without the hand-over, the new key's note counts for nothing.
    let log = Log::open(Arc::clone(&store), signer()).await.unwrap();
    assert!(log.halted().unwrap().contains("not signed"), "{:?}", log.halted());
    store.shutdown().await.unwrap();
}
