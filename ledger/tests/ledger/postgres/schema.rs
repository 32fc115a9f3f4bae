//! The tables, their steps, and who may do what with them.

use gristmill_ledger::conformance::database::TestDatabase;
use gristmill_ledger::conformance::world::{ALICE, checked, grant, story};
use gristmill_ledger::store::postgres::{
    ConnectError, MIGRATIONS, MigrateError, PostgresOptions, PostgresStore, SERVICE_ROLE, migrate,
};
use gristmill_ledger::store::{PostError, Store, VerifyError};
use tokio_postgres::error::SqlState;

fn names() -> Vec<String> {
    MIGRATIONS
        .iter()
        .map(|step| format!("{:04}_{}", step.version, step.name))
        .collect()
}

async fn told(database: &TestDatabase) -> PostgresStore {
    let store = database.store().await;
    for (entry, time_ms) in story().into_iter().zip(1..) {
        store.post(checked(entry), time_ms).await.unwrap();
    }
    let root = gristmill_protocol::log::hash::empty_root();
    store.reserve_checkpoint(3, root).await.unwrap();
    store.publish_checkpoint(3, "a note").await.unwrap();
    store
}

#[tokio::test]
async fn steps_are_taken_once_and_by_whoever_comes_first() {
    let database = TestDatabase::empty().await;
    let missing = PostgresStore::connect(&PostgresOptions::new(database.owner.clone())).await;
    assert!(matches!(missing, Err(ConnectError::Schema { .. })), "{missing:?}");

    let several = (0..8).map(|_| {
        let owner = database.owner.clone();
        tokio::spawn(async move { migrate(&owner, SERVICE_ROLE).await.unwrap() })
    });
    let mut took = 0;
    for report in futures::future::join_all(several).await {
        let report = report.unwrap();
        assert!(report.engine.starts_with("PostgreSQL "), "{report:?}");
        if report.applied == names() {
            took += 1;
        } else {
            assert_eq!((report.applied, report.present), (vec![], names()));
        }
    }
    assert_eq!(took, 1);

    let store = told(&database).await;
    let digest = store.state_digest().await.unwrap();
    let again = migrate(&database.owner, SERVICE_ROLE).await.unwrap();
    assert_eq!((again.applied, again.role_created), (vec![], false));
    assert_eq!(store.state_digest().await.unwrap(), digest);
    store.post(checked(grant(77, ALICE, 1)), 99).await.unwrap();
    store.shutdown().await.unwrap();
}

#[tokio::test]
async fn changed_and_newer_steps_are_refused_and_change_nothing() {
    let database = TestDatabase::migrated().await;
    let owner = TestDatabase::client(&database.owner).await;
    owner
        .batch_execute("INSERT INTO gristmill.migrations (version, name, digest) VALUES (3, 'later', 'x')")
        .await
        .unwrap();
    let newer = migrate(&database.owner, SERVICE_ROLE).await;
    assert!(
        matches!(
            newer,
            Err(MigrateError::Newer {
                found: 3,
                known: 2,
                ..
            })
        ),
        "{newer:?}"
    );
    owner
        .batch_execute(
            "DELETE FROM gristmill.migrations WHERE version = 3; \
             UPDATE gristmill.migrations SET digest = 'other' WHERE version = 1",
        )
        .await
        .unwrap();
    let changed = migrate(&database.owner, SERVICE_ROLE).await;
    assert!(
        matches!(changed, Err(MigrateError::Changed { version: 1, .. })),
        "{changed:?}"
    );
    for name in ["", "Service", "a\"b", "1a", &"a".repeat(64)] {
        let refused = migrate(&database.owner, name).await;
        assert!(matches!(refused, Err(MigrateError::RoleName(_))), "{name}");
    }
}

#[tokio::test]
async fn a_process_stops_at_its_next_batch_when_the_tables_are_newer() {
    let database = TestDatabase::migrated().await;
    let store = database.store().await;
    store.post(checked(grant(1, ALICE, 1)), 1).await.unwrap();
    let owner = TestDatabase::client(&database.owner).await;
    owner
        .batch_execute("UPDATE gristmill.head SET schema_version = 2")
        .await
        .unwrap();
    let refused = store.post(checked(grant(2, ALICE, 1)), 1).await;
    assert!(
        matches!(&refused, Err(PostError::ReadOnly { reason }) if reason.contains("version 2")),
        "{refused:?}"
    );
    assert!(store.read_only_reason().is_some());
    let other = PostgresStore::connect(&PostgresOptions::new(database.service.clone())).await;
    assert!(matches!(other, Err(ConnectError::Schema { .. })), "{other:?}");
    owner
        .batch_execute("UPDATE gristmill.head SET schema_version = 1")
        .await
        .unwrap();
    assert_eq!(
        store.post(checked(grant(2, ALICE, 1)), 1).await.unwrap().sequence,
        2
    );
    assert_eq!(store.read_only_reason(), None);
    store.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_is_only_added_to_can_not_be_changed_by_the_service_and_not_easily_by_the_owner() {
    let database = TestDatabase::migrated().await;
    let store = told(&database).await;
    let digest = store.state_digest().await.unwrap();
    let service = TestDatabase::client(&database.service).await;
    let owner = TestDatabase::client(&database.owner).await;
    let append_only = [
        ("entries", "content = content"),
        ("account_entries", "available_change = 0"),
        ("named_entries", "sequence = sequence"),
        ("tile_hashes", "hash = hash"),
        ("checkpoints", "root = root"),
    ];
    let mut statements: Vec<String> = append_only
        .iter()
        .map(|(table, change)| format!("UPDATE gristmill.{table} SET {change}"))
        .collect();
    for table in append_only
        .iter()
        .map(|(table, _)| *table)
        .chain(["accounts", "channels", "head"])
    {
        statements.push(format!("DELETE FROM gristmill.{table}"));
        statements.push(format!("TRUNCATE gristmill.{table}"));
    }
    for statement in &statements {
        for (client, expected) in [
            (&service, SqlState::INSUFFICIENT_PRIVILEGE),
            (&owner, SqlState::RESTRICT_VIOLATION),
        ] {
            let refused = client.batch_execute(statement).await.unwrap_err();
            assert_eq!(refused.code(), Some(&expected), "{statement}");
        }
    }
    // Nor can the service help itself.
    for statement in [
        "DROP TRIGGER append_only ON gristmill.entries",
        "ALTER TABLE gristmill.entries DISABLE TRIGGER ALL",
        "DROP TABLE gristmill.entries",
        "DROP SCHEMA gristmill CASCADE",
        "CREATE TABLE gristmill.own (number INTEGER)",
        "INSERT INTO gristmill.migrations (version, name, digest) VALUES (9, '', '')",
        "INSERT INTO gristmill.head SELECT * FROM gristmill.head",
        "SET session_replication_role = replica",
        "CREATE RULE away AS ON INSERT TO gristmill.entries DO INSTEAD NOTHING",
        "DELETE FROM gristmill.checkpoint_notes",
    ] {
        assert!(service.batch_execute(statement).await.is_err(), "{statement}");
    }
    // This is only a warning to PostgreSQL.
    let _ = service
        .batch_execute("GRANT UPDATE ON gristmill.entries TO gristmill_service")
        .await;
    assert!(
        service
            .batch_execute("UPDATE gristmill.entries SET content = content")
            .await
            .is_err()
    );
    assert_eq!(store.state_digest().await.unwrap(), digest);
    store.verify().await.unwrap();
    store.shutdown().await.unwrap();
}

#[tokio::test]
async fn the_database_refuses_what_does_not_balance_and_verification_finds_what_it_let_through() {
    let database = TestDatabase::migrated().await;
    let store = told(&database).await;
    let owner = TestDatabase::client(&database.owner).await;
    for statement in [
        "UPDATE gristmill.accounts SET available = available + 1",
        "UPDATE gristmill.accounts SET available = -1, granted = 0, earned = 0, held = 0, spent = 1",
        "UPDATE gristmill.channels SET held = held + 1",
        "UPDATE gristmill.channels SET settled = credit_limit + 1",
        "UPDATE gristmill.head SET fees = fees + 1",
        "UPDATE gristmill.head SET available = -1, issued = fees + held - 1",
        "INSERT INTO gristmill.entries SELECT sequence, time_ms, content, record_hash, outcome, 0, 0 \
         FROM gristmill.entries WHERE sequence = 1",
    ] {
        assert!(owner.batch_execute(statement).await.is_err(), "{statement}");
    }
    // What stays within every single row's rules is found by adding up.
    for (harm, mend) in [
        (
            "UPDATE gristmill.accounts SET available = available + 1, granted = granted + 1 WHERE frozen = false",
            "UPDATE gristmill.accounts SET available = available - 1, granted = granted - 1 WHERE frozen = false",
        ),
        (
            "UPDATE gristmill.head SET fees = fees + 1, issued = issued + 1",
            "UPDATE gristmill.head SET fees = fees - 1, issued = issued - 1",
        ),
        (
            "UPDATE gristmill.head SET settled = settled + 1",
            "UPDATE gristmill.head SET settled = settled - 1",
        ),
        (
            "UPDATE gristmill.head SET accounts = accounts + 1",
            "UPDATE gristmill.head SET accounts = accounts - 1",
        ),
        (
            "UPDATE gristmill.head SET sequence = sequence + 1",
            "UPDATE gristmill.head SET sequence = sequence - 1",
        ),
        (
            "UPDATE gristmill.channels SET credit_limit = credit_limit + 1, held = held + 1 WHERE is_open",
            "UPDATE gristmill.channels SET credit_limit = credit_limit - 1, held = held - 1 WHERE is_open",
        ),
        (
            "INSERT INTO gristmill.account_entries VALUES (decode(repeat('aa', 32), 'hex'), false, 1, 5, -5)",
            "ALTER TABLE gristmill.account_entries DISABLE TRIGGER ALL; \
             DELETE FROM gristmill.account_entries WHERE available_change = 5 AND held_change = -5; \
             ALTER TABLE gristmill.account_entries ENABLE TRIGGER ALL",
        ),
        (
            "INSERT INTO gristmill.account_entries VALUES (decode(repeat('aa', 32), 'hex'), false, 99, 0, 0)",
            "ALTER TABLE gristmill.account_entries DISABLE TRIGGER ALL; \
             DELETE FROM gristmill.account_entries WHERE sequence = 99; \
             ALTER TABLE gristmill.account_entries ENABLE TRIGGER ALL",
        ),
        (
            "INSERT INTO gristmill.entries SELECT sequence + 1000, time_ms, content, record_hash, outcome, 0, 0 \
             FROM gristmill.entries WHERE sequence = 1",
            "ALTER TABLE gristmill.entries DISABLE TRIGGER ALL; \
             DELETE FROM gristmill.entries WHERE sequence = 1001; \
             ALTER TABLE gristmill.entries ENABLE TRIGGER ALL",
        ),
    ] {
        store.verify().await.unwrap();
        owner.batch_execute(harm).await.unwrap();
        let found = store.verify().await;
        assert!(
            matches!(found, Err(VerifyError::Unbalanced(_))),
            "{harm}: {found:?}"
        );
        owner.batch_execute(mend).await.unwrap();
    }
    store.verify().await.unwrap();

    // A changed entry is found when it is read.
    owner
        .batch_execute(
            "ALTER TABLE gristmill.entries DISABLE TRIGGER ALL; \
             UPDATE gristmill.entries SET time_ms = time_ms + 1 WHERE sequence = 2",
        )
        .await
        .unwrap();
    assert_eq!(store.records(1, 1).await.unwrap().len(), 1);
    let damaged = store.records(1, 2).await.unwrap_err();
    assert!(
        damaged.to_string().contains("entry 2 is not what its hash says"),
        "{damaged}"
    );
    owner
        .batch_execute("DELETE FROM gristmill.entries WHERE sequence = 2")
        .await
        .unwrap();
    let gap = store.records(1, 3).await.unwrap_err();
    assert!(gap.to_string().contains("entry 2 is missing"), "{gap}");
    store.shutdown().await.unwrap();
}
