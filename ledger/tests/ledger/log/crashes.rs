//! A process that dies at any point leaves a log that goes on, and never signs two things for one size.

use std::sync::Arc;

use gristmill_ledger::conformance::database::PostgresKind;
use gristmill_ledger::conformance::{KeptLedger, StoreKind};
use gristmill_ledger::log::{Log, LogError};
use gristmill_ledger::store::Store;

use super::spy::{Moment, Seen, Spy};
use super::{EmbeddedKind, embedded, integrate_all, open_log, post, signer};

/// Dies at one call of a step, then a new process goes on with more records. Gives how many calls there were where
/// it did not die.
async fn die_and_go_on(
    ledger: &dyn KeptLedger,
    first: u64,
    death: Option<(usize, Moment)>,
    seen: &Arc<Seen>,
) -> Option<usize> {
    let store = ledger.open().await;
    post(&store, first..first + 20).await;
    let spy = match death {
        Some((call, moment)) => Spy::dying_at(&store, seen, call, moment),
        None => Spy::new(&store, seen),
    };
    let spy = Arc::new(spy);
    let dying: Arc<dyn Store> = spy.clone();
    let died = match Log::open(dying, signer()).await {
        Err(_) => true,
        Ok(log) => {
            let died = log.integrate().await;
            assert!(!matches!(died, Err(LogError::Halted { .. })), "{died:?}");
            died.is_err()
        }
    };
    store.shutdown().await.unwrap();

    let store = ledger.open().await;
    post(&store, first + 20..first + 25).await;
    let watched: Arc<dyn Store> = Arc::new(Spy::new(&store, seen));
    let log = open_log(&watched).await;
    assert_eq!(log.halted(), None, "{death:?}");
    assert_eq!(integrate_all(&log).await, first + 25, "{death:?}");
    assert_eq!(log.newest().unwrap().size(), first + 25);
    seen.assert_one_history(&*store).await;
    store.shutdown().await.unwrap();
    (!died).then(|| spy.calls())
}

async fn no_death_makes_two_histories(kind: &dyn StoreKind, begin: u64) {
    let seen = Arc::new(Seen::default());
    let ledger = kind.begin().await;
    let store = ledger.open().await;
    post(&store, 0..begin).await;
    if begin > 0 {
        integrate_all(&open_log(&store).await).await;
    }
    store.shutdown().await.unwrap();
    let mut size = begin;
    for moment in [Moment::Before, Moment::HalfWay, Moment::After] {
        let mut call = 0;
        let calls = loop {
            let survived = die_and_go_on(&*ledger, size, Some((call, moment)), &seen).await;
            size += 25;
            call += 1;
            if let Some(calls) = survived {
                break calls;
            }
        };
        // How many there are depends on the size; each was died at in a step that had it.
        assert!(calls < call, "it did not die at every call of a step");
        assert!(calls >= 10, "{calls}");
    }
}

#[tokio::test]
async fn no_death_makes_two_histories_in_a_folder() {
    no_death_makes_two_histories(&EmbeddedKind, 250).await;
}

#[tokio::test]
async fn no_death_makes_two_histories_in_a_database() {
    no_death_makes_two_histories(&PostgresKind, 250).await;
}

#[tokio::test]
async fn no_death_at_the_very_first_checkpoint_makes_two_histories() {
    no_death_makes_two_histories(&EmbeddedKind, 0).await;
}

/// A store that is away for a while costs nothing but that while, also within one process.
#[tokio::test]
async fn a_log_goes_on_in_the_same_process_once_the_store_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let store = embedded(folder.path());
    let seen = Arc::new(Seen::default());
    let mut size = 0;
    let mut call = 0;
    loop {
        post(&store, size..size + 7).await;
        size += 7;
        let spy = Arc::new(Spy::dying_at(&store, &seen, call, Moment::Before));
        let log = Log::open(spy.clone(), signer()).await;
        call += 1;
        let Ok(log) = log else { continue };
        let first = log.integrate().await;
        spy.revive();
        assert_eq!(log.integrate().await.unwrap().size, size, "{call}");
        assert_eq!(log.newest().unwrap().size(), size);
        seen.assert_one_history(&*store).await;
        if first.is_ok() {
            break;
        }
    }
    assert!(call > 10, "{call}");
    store.shutdown().await.unwrap();
}
