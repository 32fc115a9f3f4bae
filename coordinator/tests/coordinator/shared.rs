//! Several coordinators on one database: one ledger, one key, one downtime.

use std::path::{Path, PathBuf};

use clap::Parser as _;
use gristmill_coordinator::rotation::KeyFiles;
use gristmill_coordinator::server::{open_ledger, signing_key_path};
use gristmill_coordinator::settings::{StoreSetting, StoreUrl};
use gristmill_coordinator::{
    Coordinator, FileSection, RunningCoordinator, Settings, StartError, cli, store_verification,
};
use gristmill_ledger::conformance::database::TestDatabase;
use gristmill_ledger::store::{Beat, Store as _};
use gristmill_protocol::identity::AccountId;
use gristmill_transport::key_file;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::harness::{TestClock, settings};

/// A database and the places of coordinators on it.
struct Shared {
    database: TestDatabase,
    folder: TempDir,
    clock: TestClock,
}

impl Shared {
    async fn new() -> Self {
        Self {
            database: TestDatabase::migrated().await,
            folder: tempfile::tempdir().unwrap(),
            clock: TestClock::new(),
        }
    }

    fn store(&self) -> StoreSetting {
        StoreSetting::Postgres(StoreUrl::parse(&self.database.service.to_string()).unwrap())
    }

    fn place(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Gives a coordinator the key of another one.
    fn copy_key(&self, from: &str, to: &str) {
        let (from, to) = [from, to].map(|name| signing_key_path(&self.place(name))).into();
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(from, to).unwrap();
    }

    async fn start(&self, name: &str) -> Result<RunningCoordinator, StartError> {
        let settings = Settings {
            store: self.store(),
            ..settings()
        };
        let (place, clock) = (self.place(name), self.clock.clock());
        Coordinator::start_with_clock(settings, &place, CancellationToken::new(), clock).await
    }

    async fn downtime_ms(&self) -> u64 {
        let ledger = open_ledger(&self.store(), Path::new("/nowhere")).await.unwrap();
        ledger.head().await.unwrap().downtime_ms
    }

    /// When a process last said that it lives.
    async fn alive_ms(&self) -> u64 {
        let client = TestDatabase::client(&self.database.owner).await;
        let row = client
            .query_one("SELECT CAST(alive_ms AS TEXT) FROM gristmill.liveness", &[])
            .await
            .unwrap();
        row.get::<_, String>(0).parse().unwrap()
    }

    /// Lets time pass in steps in which somebody who lives says so.
    async fn pass(&self, steps: u64) {
        for _ in 0..steps {
            self.clock.advance(4_000);
            while self.alive_ms().await < self.clock.now_ms() {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        }
    }
}

async fn view(running: &RunningCoordinator, account: AccountId, place: &Path) -> serde_json::Value {
    let key = key_file::load(&signing_key_path(place)).unwrap().unwrap();
    let path = format!("/v1/account?account={account}");
    let call = gristmill_protocol::tokens::Call {
        method: "GET",
        path: &path,
        body: &[],
    };
    let token = call.sign(
        &key,
        key.account(),
        crate::harness::random(),
        crate::harness::BEGIN_MS,
    );
    let answer = reqwest::Client::new()
        .get(format!("{}{path}", running.http_url()))
        .bearer_auth(token)
        .send()
        .await
        .unwrap();
    serde_json::from_str(&answer.text().await.unwrap()).unwrap()
}

#[tokio::test]
async fn coordinators_on_one_database_share_ledger_and_key_and_refuse_another() {
    let shared = Shared::new().await;
    let first = shared.start("first").await.unwrap();
    assert!(first.ledger_place().starts_with("postgres://gristmill_service@"));
    shared.copy_key("first", "second");
    let second = shared.start("second").await.unwrap();
    assert_eq!(first.account(), second.account());

    let account = crate::harness::Account::new().id();
    let grant = crate::harness::grant(account, crate::harness::credits(3));
    let key = key_file::load(&signing_key_path(&shared.place("first")))
        .unwrap()
        .unwrap();
    let body = serde_json::to_vec(&grant).unwrap();
    let call = gristmill_protocol::tokens::Call {
        method: "POST",
        path: "/v1/grants",
        body: &body,
    };
    let token = call.sign(
        &key,
        key.account(),
        crate::harness::random(),
        shared.clock.now_ms(),
    );
    let answer = reqwest::Client::new()
        .post(format!("{}/v1/grants", first.http_url()))
        .bearer_auth(token)
        .body(body)
        .send()
        .await
        .unwrap();
    assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
    let seen = view(&second, account, &shared.place("second")).await;
    assert_eq!(seen["available"], 3_000_000);

    // Once the log has a checkpoint, no other key and no new one is taken.
    let ledger = open_ledger(&shared.store(), Path::new("/nowhere")).await.unwrap();
    while ledger.store().published_checkpoint().await.unwrap().is_none() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let error = shared.start("third").await.unwrap_err();
    assert!(matches!(error, StartError::NoKey { .. }), "{error:?}");
    key_file::load_or_create(&signing_key_path(&shared.place("third"))).unwrap();
    let error = shared.start("third").await.unwrap_err();
    assert!(matches!(error, StartError::Signers(_)), "{error:?}");
    assert!(error.to_string().contains("signing.key"), "{error}");

    let own = Some(key.account());
    let report = store_verification::verify_store(&ledger, own).await.unwrap();
    assert!(report.clean, "{report:?}");
    assert_eq!(
        (report.records, report.published, report.signer),
        (1, Some(1), own)
    );
    assert!(report.tiles >= 1);
    for running in [first, second] {
        running.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn downtime_is_only_what_no_process_was_alive_and_counts_once() {
    let shared = Shared::new().await;
    let first = shared.start("first").await.unwrap();
    shared.copy_key("first", "second");
    let second = shared.start("second").await.unwrap();
    second.shutdown().await.unwrap();
    // A minute in which one of them runs.
    shared.pass(15).await;
    let second = shared.start("second").await.unwrap();
    assert_eq!(shared.downtime_ms().await, 0);
    first.shutdown().await.unwrap();
    shared.pass(2).await;
    second.shutdown().await.unwrap();
    let down_since = shared.alive_ms().await;

    shared.clock.advance(60_000);
    let (first, second) = tokio::join!(shared.start("first"), shared.start("second"));
    let (first, second) = (first.unwrap(), second.unwrap());
    let expected = shared.clock.now_ms() - down_since;
    assert_eq!(shared.downtime_ms().await, expected);
    shared.pass(2).await;
    assert_eq!(shared.downtime_ms().await, expected, "counted once");
    for running in [first, second] {
        running.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn one_process_at_a_time_is_told_of_a_gap_and_another_one_if_it_dies() {
    let shared = Shared::new().await;
    let [one, other] = [(), ()].map(|()| shared.database.store());
    let (one, other) = (one.await, other.await);
    let unnoticed = 5_000;
    assert_eq!(one.beat(100_000, unnoticed).await, Ok(Beat::Counted));
    assert_eq!(other.beat(105_000, unnoticed).await, Ok(Beat::Counted));
    // A clock that is behind moves nothing back.
    assert_eq!(one.beat(101_000, unnoticed).await, Ok(Beat::Counted));
    let gap = Ok(Beat::Gap { alive_ms: 105_000 });
    assert_eq!(one.beat(150_000, unnoticed).await, gap);
    for waiting_ms in [150_000, 150_001, 160_000] {
        assert_eq!(other.beat(waiting_ms, unnoticed).await, Ok(Beat::Waiting));
    }
    assert_eq!(
        other.beat(160_001, unnoticed).await,
        gap,
        "the first one died over it"
    );
    other.end_gap(160_001).await.unwrap();
    for store in [&one, &other] {
        assert_eq!(store.beat(161_000, unnoticed).await, Ok(Beat::Counted));
    }
    for store in [one, other] {
        store.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn a_process_with_the_retired_key_stops_and_says_why() {
    let shared = Shared::new().await;
    let running = shared.start("first").await.unwrap();
    shared.copy_key("first", "second");
    let ledger = open_ledger(&shared.store(), Path::new("/nowhere")).await.unwrap();
    let files = KeyFiles::of(&signing_key_path(&shared.place("second")));
    let rotation = files.rotate(&ledger, shared.clock.now_ms()).await.unwrap();
    let stopped = running.wait().await.unwrap_err().to_string();
    assert!(stopped.contains(&rotation.new.to_string()), "{stopped}");
    let error = shared.start("first").await.unwrap_err();
    assert!(matches!(error, StartError::Signers(_)), "{error:?}");
    let second = shared.start("second").await.unwrap();
    assert_eq!(second.account(), rotation.new);
    second.shutdown().await.unwrap();
}

#[derive(clap::Parser)]
struct Program {
    #[command(subcommand)]
    command: cli::Command,
}

#[tokio::test]
async fn tables_are_made_and_checked_from_the_command_line() {
    let database = TestDatabase::empty().await;
    let folder = tempfile::tempdir().unwrap();
    let run = |line: Vec<String>| {
        let line = ["coordinator".to_owned()].into_iter().chain(line);
        let command = Program::parse_from(line).command;
        cli::run(command, FileSection::default(), folder.path(), true)
    };
    let (owner, service) = (database.owner.to_string(), database.service.to_string());
    let words = |text: &[&str]| text.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let error = run(words(&["verify", "--store", &service])).await.unwrap_err();
    assert!(format!("{error:#}").contains("coordinator migrate"), "{error:#}");
    run(words(&["migrate", "--store", &owner, "--dry-run"]))
        .await
        .unwrap();
    assert!(
        run(words(&["verify", "--store", &service])).await.is_err(),
        "nothing was made"
    );
    for _ in 0..2 {
        run(words(&["migrate", "--store", &owner])).await.unwrap();
    }
    let code = run(words(&["verify", "--store", &service])).await.unwrap();
    assert_eq!(
        format!("{code:?}"),
        format!("{:?}", std::process::ExitCode::SUCCESS)
    );
    let error = run(words(&["migrate"])).await.unwrap_err();
    assert!(error.to_string().contains("--store"), "{error}");
    let error = run(words(&["rotate-key", "--store", &service]))
        .await
        .unwrap_err();
    assert!(format!("{error:#}").contains("signing.key"), "{error:#}");
}
