//! Databases for tests: each its own, in one server for all.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use tokio_postgres::NoTls;

use super::server::{Durability, PostgresServer, URL_VARIABLE};
use super::{KeptLedger, StoreKind};
use crate::Store;
use crate::store::postgres::{DatabaseAddress, SERVICE_ROLE, migrate};
use crate::store::{PostgresOptions, PostgresStore};

/// A new database, with its tables unless said otherwise. It stays until its server ends.
#[derive(Clone, Debug)]
pub struct TestDatabase {
    /// As the role that owns the tables.
    pub owner: DatabaseAddress,
    /// As the role that coordinators use.
    pub service: DatabaseAddress,
}

/// The address of a server: the one that `cargo xtask test` has started, or one that this process starts and that
/// ends with it.
#[must_use]
pub fn server() -> DatabaseAddress {
    static SERVER: OnceLock<PostgresServer> = OnceLock::new();
    let url = std::env::var(URL_VARIABLE).unwrap_or_else(|_| {
        let start = || PostgresServer::start(Durability::Unsynced).unwrap_or_else(|error| panic!("{error}"));
        SERVER.get_or_init(start).url("postgres")
    });
    url.parse()
        .unwrap_or_else(|error| panic!("{URL_VARIABLE}: {error}"))
}

impl TestDatabase {
    /// A database without tables.
    pub async fn empty() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("gristmill_test_{}_{number}", std::process::id());
        let server = server();
        let (client, connection) = server
            .config
            .connect(NoTls)
            .await
            .unwrap_or_else(|error| panic!("{server} can't be reached: {error}; see {URL_VARIABLE}"));
        let connection = tokio::spawn(connection);
        client
            .batch_execute(&format!("CREATE DATABASE {name}"))
            .await
            .unwrap();
        drop(client);
        connection.await.unwrap().unwrap();
        let owner = server.with_database(&name);
        Self {
            service: owner.as_role(SERVICE_ROLE),
            owner,
        }
    }

    /// A database with the tables of a ledger.
    pub async fn migrated() -> Self {
        let database = Self::empty().await;
        migrate(&database.owner, SERVICE_ROLE).await.unwrap();
        database
    }

    /// A connection of its own, for what a store does not do.
    pub async fn client(address: &DatabaseAddress) -> tokio_postgres::Client {
        let (client, connection) = address.config.connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// The ledger in it, as a coordinator sees it.
    pub async fn store(&self) -> PostgresStore {
        PostgresStore::connect(&PostgresOptions::new(self.service.clone()))
            .await
            .unwrap()
    }
}

/// Ledgers in databases of their own.
#[derive(Clone, Copy, Debug, Default)]
pub struct PostgresKind;

#[async_trait]
impl StoreKind for PostgresKind {
    async fn begin(&self) -> Box<dyn KeptLedger> {
        Box::new(TestDatabase::migrated().await)
    }
}

#[async_trait]
impl KeptLedger for TestDatabase {
    async fn open(&self) -> Arc<dyn Store> {
        Arc::new(self.store().await)
    }
}
