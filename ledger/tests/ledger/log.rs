//! The Merkle log over real stores: what is signed is what was acknowledged, whatever happens in between.

#[path = "log/cosigning.rs"]
mod cosigning;
#[path = "log/crashes.rs"]
mod crashes;
#[path = "log/damage.rs"]
mod damage;
#[path = "log/growth.rs"]
mod growth;
#[path = "log/processes.rs"]
mod processes;
#[path = "log/spy.rs"]
pub(crate) mod spy;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use gristmill_ledger::conformance::world::{BOB, account, checked, grant, keypair};
use gristmill_ledger::conformance::{KeptLedger, StoreKind};
use gristmill_ledger::log::{Integration, Log, LogError, LogSigner};
use gristmill_ledger::store::{EmbeddedOptions, EmbeddedStore, PostError, Store};
use gristmill_protocol::log::frontier::Frontier;
use gristmill_protocol::log::hash::LogHash;
use tempfile::TempDir;

/// Whose key signs for the logs here.
pub(crate) const COORDINATOR: u8 = 50;

pub(crate) fn signer() -> LogSigner {
    LogSigner::new(keypair(COORDINATOR), account(COORDINATOR), Vec::new()).unwrap()
}

pub(crate) async fn open_log(store: &Arc<dyn Store>) -> Log {
    Log::open(Arc::clone(store), signer()).await.unwrap()
}

/// Ledgers in folders of their own.
pub(crate) struct EmbeddedKind;

struct Folder(TempDir);

#[async_trait]
impl StoreKind for EmbeddedKind {
    async fn begin(&self) -> Box<dyn KeptLedger> {
        Box::new(Folder(tempfile::tempdir().unwrap()))
    }
}

#[async_trait]
impl KeptLedger for Folder {
    async fn open(&self) -> Arc<dyn Store> {
        embedded(self.0.path())
    }
}

pub(crate) fn embedded(directory: &Path) -> Arc<dyn Store> {
    Arc::new(EmbeddedStore::open(directory, &EmbeddedOptions::default()).unwrap())
}

/// Posts grants of these numbers at once, and gives the hashes that were acknowledged, by sequence.
pub(crate) async fn post(store: &Arc<dyn Store>, ids: Range<u64>) -> Vec<(u64, LogHash)> {
    let mut acknowledged = Vec::new();
    let mut waiting: Vec<u64> = ids.collect();
    while !waiting.is_empty() {
        let some = waiting.split_off(waiting.len().saturating_sub(250));
        let posts = some
            .iter()
            .map(|id| store.post(checked(grant(*id, BOB, 1)), 1_000 + id));
        for (id, posted) in some.iter().zip(futures::future::join_all(posts).await) {
            match posted {
                Ok(posted) => acknowledged.push((posted.sequence, posted.record_hash)),
                Err(PostError::Overloaded { .. }) => waiting.push(*id),
                Err(error) => panic!("{error}"),
            }
        }
    }
    acknowledged.sort_unstable_by_key(|(sequence, _)| *sequence);
    acknowledged
}

/// One step; a store that can't be read for a moment is asked again, as the log's keeper does.
pub(crate) async fn integrate(log: &Log) -> Integration {
    loop {
        match log.integrate().await {
            Ok(integration) => return integration,
            Err(LogError::Read(_)) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Integrates until nothing is left, and gives the size.
pub(crate) async fn integrate_all(log: &Log) -> u64 {
    loop {
        let integration = integrate(log).await;
        if !integration.more {
            return integration.size;
        }
    }
}

/// The root of each size of the tree of a store's records, computed without tiles.
pub(crate) async fn true_roots(store: &dyn Store) -> Vec<LogHash> {
    let mut frontier = Frontier::new();
    let mut roots = vec![frontier.root()];
    loop {
        let records = store.records(frontier.size() + 1, 1_000).await.unwrap();
        if records.is_empty() {
            return roots;
        }
        for record in records {
            frontier.push(record.hash());
            roots.push(frontier.root());
        }
    }
}
