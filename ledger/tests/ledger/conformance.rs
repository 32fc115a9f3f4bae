//! Every store keeps what every store promises.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gristmill_ledger::conformance::database::PostgresKind;
use gristmill_ledger::conformance::{KeptLedger, StoreKind};
use gristmill_ledger::store::{EmbeddedOptions, EmbeddedStore, Store};
use tempfile::TempDir;

/// Ledgers in folders of their own.
struct EmbeddedKind;

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
        let options = EmbeddedOptions {
            // A thousand posts at once are no overload here, however slow the machine is.
            answer_within: Duration::from_secs(60),
            ..EmbeddedOptions::default()
        };
        Arc::new(EmbeddedStore::open(self.0.path(), &options).unwrap())
    }
}

gristmill_ledger::conformance_tests!(embedded, EmbeddedKind);
gristmill_ledger::conformance_tests!(postgresql, PostgresKind);
