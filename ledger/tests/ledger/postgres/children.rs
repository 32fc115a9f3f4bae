//! Several processes on one database, of which some are killed. The test binary runs itself again as the children.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use gristmill_ledger::conformance::assert_consistent;
use gristmill_ledger::conformance::database::TestDatabase;
use gristmill_ledger::conformance::world::{BOB, account, checked, grant, keypair};
use gristmill_ledger::log::{Log, LogSigner};
use gristmill_ledger::store::postgres::{PostgresOptions, PostgresStore};
use gristmill_ledger::store::{PostError, Store};
use gristmill_protocol::credits::Credits;
use gristmill_protocol::log::frontier::Frontier;

const ADDRESS: &str = "GRISTMILL_LEDGER_TEST_ADDRESS";
const FIRST: &str = "GRISTMILL_LEDGER_TEST_FIRST";
const ACKNOWLEDGED: &str = "acknowledged ";
const SIGNED: &str = "signed ";
const COORDINATOR: u8 = 90;
/// Grants of one child are within this many of its first one.
const RANGE: u64 = 1_000_000;

/// The part of a child: does nothing when the tests are run as usual.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let (Ok(address), Ok(first)) = (std::env::var(ADDRESS), std::env::var(FIRST)) else {
        return;
    };
    let first: u64 = first.parse().unwrap();
    let store = PostgresStore::connect(&PostgresOptions::new(address.parse().unwrap()))
        .await
        .unwrap();
    let log = Log::open(Arc::new(store.clone()), signer()).await.unwrap();
    let integrating = tokio::spawn(async move {
        loop {
            log.integrate().await.unwrap();
            if let Some(newest) = log.newest() {
                say(&format!("{SIGNED}{} {}", newest.size(), newest.root()));
            }
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    });
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                for id in (first + writer..first + RANGE).step_by(8) {
                    loop {
                        match store.post(checked(grant(id, BOB, 1)), id).await {
                            Ok(posted) => {
                                say(&format!(
                                    "{ACKNOWLEDGED}{} {}",
                                    posted.sequence, posted.record_hash
                                ));
                                break;
                            }
                            Err(PostError::Unavailable { .. }) => {
                                tokio::time::sleep(Duration::from_millis(5)).await;
                            }
                            Err(other) => panic!("{other}"),
                        }
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    integrating.abort();
}

fn signer() -> LogSigner {
    LogSigner::new(keypair(COORDINATOR), account(COORDINATOR), vec![]).unwrap()
}

/// One line in one write, so that a kill never leaves half a line that looks whole.
fn say(line: &str) {
    std::io::stdout()
        .write_all(format!("\n{line}\n").as_bytes())
        .unwrap();
}

fn spawn(database: &TestDatabase, number: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([
            "postgres::children::child",
            "--exact",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(ADDRESS, database.service.to_string())
        .env(FIRST, (number * RANGE).to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// What children said before they were killed.
#[derive(Default)]
struct Said {
    /// Sequences and record hashes of acknowledged entries.
    acknowledged: BTreeMap<u64, String>,
    /// Sizes and roots of signed checkpoints.
    signed: BTreeMap<u64, String>,
}

impl Said {
    fn hear(&mut self, line: &str) {
        let pair = |rest: &str| {
            let (number, hash) = rest.split_once(' ')?;
            // The last line may have been cut by the kill.
            (hash.len() == 64).then(|| (number.parse().unwrap(), hash.to_owned()))
        };
        if let Some((sequence, hash)) = line.strip_prefix(ACKNOWLEDGED).and_then(pair) {
            assert_eq!(self.acknowledged.insert(sequence, hash), None, "{sequence} twice");
        }
        if let Some((size, root)) = line.strip_prefix(SIGNED).and_then(pair) {
            self.sign(size, root);
        }
    }

    fn sign(&mut self, size: u64, root: String) {
        let first = self.signed.entry(size).or_insert_with(|| root.clone());
        assert_eq!(*first, root, "size {size} has two roots");
    }

    /// Two processes never had the same place of the log, nor two roots for one size of it.
    fn add(&mut self, other: Self) {
        for (sequence, hash) in other.acknowledged {
            assert_eq!(self.acknowledged.insert(sequence, hash), None, "{sequence} twice");
        }
        for (size, root) in other.signed {
            self.sign(size, root);
        }
    }
}

/// Hears a child until it has acknowledged `enough`, and kills it.
fn listen_and_kill(mut child: Child, enough: usize) -> Said {
    let mut said = Said::default();
    let mut lines = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok);
    let mut killed = false;
    for line in lines.by_ref() {
        said.hear(&line);
        if said.acknowledged.len() >= enough && !killed {
            // SIGKILL; what it had said before is read to the end.
            child.kill().unwrap();
            killed = true;
        }
    }
    assert!(killed, "it ended after {}", said.acknowledged.len());
    child.wait().unwrap();
    said
}

/// Every root that was signed is that of the records there are.
async fn assert_one_log(store: &PostgresStore, signed: &BTreeMap<u64, String>) {
    let mut tree = Frontier::new();
    loop {
        if let Some(root) = signed.get(&tree.size()) {
            assert_eq!(tree.root().to_string(), *root, "size {}", tree.size());
        }
        let Some(record) = store.records(tree.size() + 1, 1).await.unwrap().pop() else {
            break;
        };
        tree.push(record.hash());
    }
    let log = Log::open(Arc::new(store.clone()), signer()).await.unwrap();
    assert_eq!(log.halted(), None);
    while log.integrate().await.unwrap().more {}
    let newest = log.newest().unwrap();
    assert_eq!((newest.size(), *newest.root()), (tree.size(), tree.root()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_are_killed_leave_one_log_without_gap_or_fork() {
    if std::env::var_os(ADDRESS).is_some() {
        return;
    }
    let database = TestDatabase::migrated().await;
    let mut all = Said::default();
    let mut number = 0;
    for enough in [[60, 10, 100], [5, 150, 80], [1, 40, 200], [90, 3, 30]] {
        let children: Vec<_> = enough
            .into_iter()
            .map(|enough| {
                number += 1;
                let child = spawn(&database, number);
                tokio::task::spawn_blocking(move || listen_and_kill(child, enough))
            })
            .collect();
        for child in children {
            all.add(child.await.unwrap());
        }
        // What a killed process left behind is finished or gone by the time the lock of the head is given.
        let store = database.store().await;
        store
            .post(checked(grant(number * RANGE - 1, BOB, 1)), 1)
            .await
            .unwrap();
        for (sequence, hash) in &all.acknowledged {
            let posted = store.posted(*sequence).await.unwrap();
            let posted = posted.unwrap_or_else(|| panic!("acknowledged entry {sequence} is lost"));
            assert_eq!(posted.record_hash.to_string(), *hash, "entry {sequence}");
        }
        let book = assert_consistent(&store).await;
        assert_eq!(
            store.balance(&account(BOB)).await.unwrap().granted,
            Credits::micro(book.sequence() as u32),
            "each grant once"
        );
        assert_one_log(&store, &all.signed).await;
        store.shutdown().await.unwrap();
    }
    assert!(all.acknowledged.len() >= 769, "{}", all.acknowledged.len());
    assert!(all.signed.len() > 12, "{}", all.signed.len());
    eprintln!(
        "{} processes killed, {} entries acknowledged, {} checkpoints signed",
        number,
        all.acknowledged.len(),
        all.signed.len()
    );
}
