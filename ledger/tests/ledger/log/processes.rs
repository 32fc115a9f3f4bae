//! Any number of processes over one store: one log.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use gristmill_ledger::conformance::StoreKind;
use gristmill_ledger::conformance::database::TestDatabase;
use gristmill_ledger::log::{Log, LogError};
use gristmill_ledger::record::Record;
use gristmill_ledger::store::Store;

use super::spy::{Seen, Spy};
use super::{EmbeddedKind, integrate, integrate_all, open_log, post, signer, true_roots};

/// Everybody posts and integrates at once, each through a store of its own over the same place.
async fn many_integrate_one_log(stores: Vec<Arc<dyn Store>>) {
    const EACH: u64 = 400;
    let seen = Arc::new(Seen::default());
    let processes = u64::try_from(stores.len()).unwrap();
    let tasks: Vec<_> = (0..processes)
        .zip(stores.clone())
        .map(|(number, store)| {
            let watched: Arc<dyn Store> = Arc::new(Spy::new(&store, &seen));
            tokio::spawn(async move {
                let log = open_log(&watched).await;
                for ids in (0..EACH).step_by(25) {
                    let first = number * EACH + ids;
                    post(&store, first..first + 25).await;
                    integrate(&log).await;
                }
                log
            })
        })
        .collect();
    let mut logs = Vec::new();
    for task in tasks {
        logs.push(task.await.unwrap());
    }
    let roots = true_roots(&*stores[0]).await;
    for log in &logs {
        assert_eq!(integrate_all(log).await, processes * EACH);
        assert_eq!(log.newest().unwrap().root(), roots.last().unwrap());
        assert_eq!(
            log.newest().unwrap().note().to_string(),
            logs[0].newest().unwrap().note().to_string()
        );
    }
    assert!(seen.published() >= 20, "{}", seen.published());
    seen.assert_one_history(&*stores[0]).await;
    for store in stores {
        store.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_processes_on_one_database_make_one_log() {
    let database = TestDatabase::migrated().await;
    let mut stores: Vec<Arc<dyn Store>> = Vec::new();
    for _ in 0..4 {
        stores.push(Arc::new(database.store().await));
    }
    many_integrate_one_log(stores).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_integrators_of_one_folder_make_one_log() {
    let ledger = EmbeddedKind.begin().await;
    let store = ledger.open().await;
    many_integrate_one_log(vec![store; 4]).await;
}

/// A process that reads the third record as something else, from its first look on and always the same.
fn deluded(store: &Arc<dyn Store>, seen: &Arc<Seen>) -> Spy {
    let lie = |_: usize, record: &mut Record| {
        if record.sequence == 3 {
            record.content[0] ^= 1;
        }
    };
    let mut spy = Spy::new(store, seen);
    spy.record_lie = Some(Box::new(lie));
    spy
}

#[tokio::test]
async fn a_process_that_computes_other_roots_signs_nothing_and_says_so() {
    for own_tiles in [false, true] {
        let ledger = EmbeddedKind.begin().await;
        let store = ledger.open().await;
        let seen = Arc::new(Seen::default());
        let honest: Arc<dyn Store> = Arc::new(Spy::new(&store, &seen));
        let honest = open_log(&honest).await;
        let mut spy = deluded(&store, &seen);
        spy.own_tiles = own_tiles.then(|| Mutex::new(BTreeMap::new()));
        let other = Log::open(Arc::new(spy), signer()).await.unwrap();
        post(&store, 0..10).await;
        integrate_all(&honest).await;
        let Err(LogError::Halted { reason }) = other.integrate().await else {
            panic!("it signed");
        };
        let expected = if own_tiles {
            "is on record for size 10"
        } else {
            "is there with other hashes"
        };
        assert!(reason.contains(expected), "{reason}");
        assert_eq!(other.halted(), Some(&*reason));
        // For good, also when the reason is gone.
        assert_eq!(other.integrate().await, Err(LogError::Halted { reason }));
        assert!(other.newest().is_none());
        post(&store, 10..12).await;
        assert_eq!(integrate_all(&honest).await, 12);
        seen.assert_one_history(&*store).await;
        store.shutdown().await.unwrap();
    }
}

/// Where the deluded one comes first, everybody else finds out before they sign anything.
#[tokio::test]
async fn a_wrong_root_that_was_reserved_first_is_found_by_everybody_else() {
    for more in [0, 7] {
        let ledger = EmbeddedKind.begin().await;
        let store = ledger.open().await;
        let seen = Arc::new(Seen::default());
        let mut spy = deluded(&store, &seen);
        spy.own_tiles = Some(Mutex::new(BTreeMap::new()));
        let deluded = Log::open(Arc::new(spy), signer()).await.unwrap();
        let honest = open_log(&store).await;
        post(&store, 0..10).await;
        integrate_all(&deluded).await;
        post(&store, 10..10 + more).await;
        let Err(LogError::Halted { reason }) = honest.integrate().await else {
            panic!("it signed");
        };
        assert!(reason.contains("is on record for size 10"), "{reason}");
        assert!(honest.newest().is_none());
        store.shutdown().await.unwrap();
    }
}
