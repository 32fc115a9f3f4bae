//! Connections that break, a database that is away, and one that has no time.

use std::sync::Arc;
use std::time::Duration;

use gristmill_ledger::conformance::assert_consistent;
use gristmill_ledger::conformance::database::TestDatabase;
use gristmill_ledger::conformance::world::{ALICE, BOB, account, checked, grant, open, settle, started};
use gristmill_ledger::entry::Entry;
use gristmill_ledger::outcome::Posted;
use gristmill_ledger::store::postgres::{PostgresOptions, PostgresStore};
use gristmill_ledger::store::{PostError, ReadError, Store};
use gristmill_protocol::credits::Credits;

use super::proxy::{Loses, Proxy};

async fn post_until_known(store: &dyn Store, entry: Entry, time_ms: u64) -> Posted {
    loop {
        match store.post(checked(entry.clone()), time_ms).await {
            Ok(posted) => return posted,
            Err(PostError::Unavailable { .. } | PostError::Overloaded { .. }) => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(other) => panic!("{other}"),
        }
    }
}

/// Ends every connection of the ledger there is, again and again, while entries are posted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_cut_at_any_time_lose_and_double_nothing() {
    const WRITERS: u64 = 8;
    const EACH: u64 = 60;
    let database = TestDatabase::migrated().await;
    let store: Arc<dyn Store> = Arc::new(database.store().await);
    let owner = TestDatabase::client(&database.owner).await;
    let cutting = tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_millis(150)).await;
            let cut = owner.batch_execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                 WHERE datname = current_database() AND pid <> pg_backend_pid()",
            );
            cut.await.unwrap();
        }
    });
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let mut acknowledged = Vec::new();
                for number in 0..EACH {
                    let id = writer * EACH + number;
                    acknowledged.push(post_until_known(&*store, grant(id, BOB, 1), id).await);
                }
                acknowledged
            })
        })
        .collect();
    let mut acknowledged = Vec::new();
    for writer in writers {
        acknowledged.extend(writer.await.unwrap());
    }
    cutting.abort();
    let _ = cutting.await;
    let head = loop {
        match store.head().await {
            Ok(head) => break head,
            Err(ReadError::Unavailable { .. }) => tokio::task::yield_now().await,
            Err(other) => panic!("{other}"),
        }
    };
    assert_eq!(head.sequence, WRITERS * EACH);
    for posted in &acknowledged {
        let there = store.posted(posted.sequence).await.unwrap().unwrap();
        assert_eq!(there.record_hash, posted.record_hash);
        assert_eq!(there.outcome, posted.outcome);
    }
    assert_eq!(
        store.balance(&account(BOB)).await.unwrap().granted,
        Credits::micro((WRITERS * EACH) as u32)
    );
    assert_consistent(&*store).await;
    store.shutdown().await.unwrap();
}

fn port(database: &TestDatabase) -> u16 {
    let shown = database.service.to_string();
    let (_, rest) = shown.split_once("127.0.0.1:").unwrap();
    rest.split_once('/').unwrap().0.parse().unwrap()
}

fn through(proxy: &Proxy, database: &TestDatabase) -> PostgresOptions {
    let (direct, shown) = (port(database).to_string(), database.service.to_string());
    let address = shown.replace(&format!(":{direct}/"), &format!(":{}/", proxy.port));
    PostgresOptions::new(address.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_away_is_said_to_be_and_found_again() {
    let database = TestDatabase::migrated().await;
    let proxy = Proxy::start(port(&database), 0).await;
    let options = PostgresOptions {
        patience: Duration::from_millis(100),
        ..through(&proxy, &database)
    };
    let store = PostgresStore::connect(&options).await.unwrap();
    store.post(checked(grant(1, ALICE, 1)), 1).await.unwrap();
    let place = proxy.port;
    proxy.stop().await;
    for id in 2..6 {
        let away = store.post(checked(grant(id, ALICE, 1)), 2).await;
        assert!(matches!(away, Err(PostError::Unavailable { .. })), "{away:?}");
        let unreadable = store.head().await;
        assert!(
            matches!(unreadable, Err(ReadError::Unavailable { .. })),
            "{unreadable:?}"
        );
        assert!(store.read_only_reason().is_some());
    }
    let _proxy = Proxy::start(port(&database), place).await;
    for id in (2..6).rev() {
        assert!(
            !store
                .post(checked(grant(id, ALICE, 1)), 3)
                .await
                .unwrap()
                .repeated
        );
    }
    assert_eq!(store.read_only_reason(), None);
    assert_consistent(&store).await;
    store.shutdown().await.unwrap();
}

/// A start takes effect each time it is posted, so one that was committed without an answer must not be repeated, and
/// one that was not committed must be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_end_is_not_known_is_found_out() {
    const POSTS: u64 = 30;
    let database = TestDatabase::migrated().await;
    let proxy = Proxy::start(port(&database), 0).await;
    let store = PostgresStore::connect(&through(&proxy, &database)).await.unwrap();
    for number in 1..=POSTS {
        let loses = [Loses::Answer, Loses::Commit, Loses::Nothing][number as usize % 3];
        proxy.next_commit_loses(loses);
        let posted = store.post(checked(started(1)), number).await.unwrap();
        assert!(proxy.is_done(), "{loses:?} did not happen");
        assert_eq!((posted.sequence, posted.repeated), (number, false), "{loses:?}");
        let there = store.posted(number).await.unwrap();
        assert_eq!(there, Some(posted), "{loses:?}");
    }
    assert_eq!(store.head().await.unwrap().downtime_ms, POSTS);

    // The same for a whole batch of entries of which some repeat, some are refused.
    for (round, loses) in (0..).zip([Loses::Answer, Loses::Commit]) {
        proxy.next_commit_loses(loses);
        let posts = (0..200).map(|id| store.post(checked(grant(round * 100 + id, ALICE, 1)), id));
        let new = futures::future::join_all(posts).await;
        let new = new
            .into_iter()
            .filter(|posted| !posted.as_ref().unwrap().repeated)
            .count();
        assert_eq!(new, if round == 0 { 200 } else { 100 }, "{loses:?}");
    }
    assert_consistent(&store).await;
    store.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_database_is_overload_and_then_everything_is_answered() {
    let database = TestDatabase::migrated().await;
    let options = PostgresOptions {
        queue_entries: 4,
        batch_entries: 2,
        ..PostgresOptions::new(database.service.clone())
    };
    let store: Arc<dyn Store> = Arc::new(PostgresStore::connect(&options).await.unwrap());
    let owner = TestDatabase::client(&database.owner).await;
    owner
        .batch_execute("BEGIN; SELECT * FROM gristmill.head FOR UPDATE")
        .await
        .unwrap();
    let mut waiting = Vec::new();
    let mut refused = 0;
    for id in 0..40 {
        let store = Arc::clone(&store);
        waiting.push(tokio::spawn(async move {
            store.post(checked(grant(id, ALICE, 1)), 1).await
        }));
        tokio::task::yield_now().await;
    }
    // Readers go on meanwhile.
    assert_eq!(store.head().await.unwrap().sequence, 0);
    owner.batch_execute("COMMIT").await.unwrap();
    let mut written = 0;
    for post in waiting {
        match post.await.unwrap() {
            Ok(_) => written += 1,
            Err(PostError::Overloaded { waiting: 4 }) => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert!(written >= 4, "{written}");
    assert!(refused > 0);
    assert_eq!(store.head().await.unwrap().sequence, written);
    store.shutdown().await.unwrap();
}

/// Whoever holds the head row and is gone without a word does not stop the others for ever; here it is told to go.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_of_several_stores_take_turns() {
    let database = TestDatabase::migrated().await;
    let stores: Vec<Arc<dyn Store>> = vec![
        Arc::new(database.store().await),
        Arc::new(database.store().await),
        Arc::new(database.store().await),
    ];
    stores[0]
        .post(checked(grant(0, ALICE, 1_000_000)), 1)
        .await
        .unwrap();
    stores[1].post(checked(open(1, 1_000_000)), 1).await.unwrap();
    let tasks: Vec<_> = (0..600_u64)
        .map(|number| {
            let store = Arc::clone(&stores[number as usize % 3]);
            let entry = match number % 3 {
                0 => settle(1, 1 + (number as u32 * 7_919) % 999_999),
                _ => grant(1 + number / 4, BOB, 1),
            };
            tokio::spawn(async move { post_until_known(&*store, entry, number).await })
        })
        .collect();
    let mut newly = 0;
    for task in tasks {
        newly += u64::from(!task.await.unwrap().repeated);
    }
    for store in &stores {
        assert_eq!(store.head().await.unwrap().sequence, 2 + newly);
        assert_consistent(&**store).await;
        store.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_integrators_that_race_for_a_size_have_one_root() {
    let database = TestDatabase::migrated().await;
    let stores = [Arc::new(database.store().await), Arc::new(database.store().await)];
    let root = |number: u8| gristmill_protocol::log::hash::LogHash::from_bytes([number; 32]);
    for size in 1..=100 {
        let race = stores.iter().zip(0..).map(|(store, number)| {
            let store = Arc::clone(store);
            tokio::spawn(async move { store.reserve_checkpoint(size, root(number)).await })
        });
        let answers = futures::future::join_all(race).await;
        let won = answers
            .iter()
            .filter(|answer| matches!(answer, Ok(Ok(()))))
            .count();
        assert_eq!(won, 1, "size {size}: {answers:?}");
    }
    for store in stores {
        store.shutdown().await.unwrap();
    }
}
