//! Connections to the database: one for the writer, a few that readers share. One that broke is replaced by the next
//! who needs it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls, Row, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::address::DatabaseAddress;
use super::encryption::{self, EncryptionError};
use super::failure::Failure;

/// How long everything that is needed before a connection can be used may take.
const CONNECT_MAX: Duration = Duration::from_secs(8);

/// Bounds for what a statement may take and for how long a transaction may do nothing: whoever holds the head row and
/// is gone without a word must not stop the others for long.
const BOUNDS: &str = "SET statement_timeout = '30s'; SET idle_in_transaction_session_timeout = '10s'";

/// Makes connections.
#[derive(Clone)]
pub(super) struct Connector {
    address: DatabaseAddress,
    encryption: Option<MakeRustlsConnect>,
}

/// How long an answer may take, which is longer than the database lets a statement take: who waits that long talks to
/// nobody.
const ANSWER_MAX: Duration = Duration::from_secs(40);

/// A connection with its prepared statements. Dropping it ends it, and with it a transaction that is not committed.
pub(super) struct Connection {
    client: Client,
    statements: Mutex<HashMap<&'static str, Statement>>,
    /// Whether answers have to come within [`ANSWER_MAX`].
    bounded: bool,
    /// Whether one did not.
    silent: AtomicBool,
    driver: JoinHandle<()>,
}

impl Connector {
    pub(super) fn new(address: DatabaseAddress) -> Result<Self, EncryptionError> {
        let encryption = encryption::connector(&address.encryption)?;
        Ok(Self { address, encryption })
    }

    /// A new connection on which statements are bounded and a commit waits for the disk.
    pub(super) async fn connect(&self) -> Result<Connection, Failure> {
        let prepared = async {
            let mut connection = self.connect_unbounded().await?;
            connection.bounded = true;
            connection.client.batch_execute(BOUNDS).await?;
            connection.wait_for_the_disk().await?;
            Ok(connection)
        };
        let late = || Failure::Unreachable(format!("no answer within {} s", CONNECT_MAX.as_secs()));
        tokio::time::timeout(CONNECT_MAX, prepared)
            .await
            .unwrap_or_else(|_| Err(late()))
    }

    /// A new connection as the database gives it, for what may take long.
    pub(super) async fn connect_unbounded(&self) -> Result<Connection, Failure> {
        let config = &self.address.config;
        let (client, driver) = match &self.encryption {
            None => {
                let (client, connection) = config.connect(NoTls).await?;
                (client, tokio::spawn(drive(connection)))
            }
            Some(encryption) => {
                let (client, connection) = config.connect(encryption.clone()).await?;
                (client, tokio::spawn(drive(connection)))
            }
        };
        Ok(Connection {
            client,
            statements: Mutex::default(),
            bounded: false,
            silent: AtomicBool::new(false),
            driver,
        })
    }
}

async fn drive<T: Future<Output = Result<(), tokio_postgres::Error>>>(connection: T) {
    if let Err(error) = connection.await {
        let failure = Failure::from(error);
        tracing::debug!(
            reason = failure.reason(),
            "a connection to the ledger's database ended"
        );
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    pub(super) const fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed() || self.silent.load(Ordering::Acquire)
    }

    async fn answered<T>(
        &self,
        asked: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, Failure> {
        if !self.bounded {
            return Ok(asked.await?);
        }
        let silent = || Failure::Unreachable(format!("no answer within {} s", ANSWER_MAX.as_secs()));
        if self.silent.load(Ordering::Acquire) {
            return Err(silent());
        }
        match tokio::time::timeout(ANSWER_MAX, asked).await {
            Ok(answer) => Ok(answer?),
            Err(_) => {
                self.silent.store(true, Ordering::Release);
                Err(silent())
            }
        }
    }

    /// A commit counts once it is on the disk. Where somebody asks for more than that, it stays.
    async fn wait_for_the_disk(&self) -> Result<(), Failure> {
        let set: String = self
            .client
            .query_one("SHOW synchronous_commit", &[])
            .await?
            .try_get(0)?;
        if matches!(set.as_str(), "off" | "local") {
            self.client.batch_execute("SET synchronous_commit = on").await?;
        }
        Ok(())
    }

    async fn prepared(&self, sql: &'static str) -> Result<Statement, Failure> {
        let lock = || self.statements.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(statement) = lock().get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.answered(self.client.prepare(sql)).await?;
        lock().insert(sql, statement.clone());
        Ok(statement)
    }

    pub(super) async fn query(
        &self,
        sql: &'static str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Failure> {
        let statement = self.prepared(sql).await?;
        self.answered(self.client.query(&statement, parameters)).await
    }

    pub(super) async fn query_one(
        &self,
        sql: &'static str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Row, Failure> {
        let statement = self.prepared(sql).await?;
        self.answered(self.client.query_one(&statement, parameters)).await
    }

    pub(super) async fn query_opt(
        &self,
        sql: &'static str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Option<Row>, Failure> {
        let statement = self.prepared(sql).await?;
        self.answered(self.client.query_opt(&statement, parameters)).await
    }

    pub(super) async fn execute(
        &self,
        sql: &'static str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<u64, Failure> {
        let statement = self.prepared(sql).await?;
        self.answered(self.client.execute(&statement, parameters)).await
    }

    /// Prepares statements ahead, so that those of one transaction can travel together.
    pub(super) async fn prepare(&self, statements: &[&'static str]) -> Result<(), Failure> {
        futures::future::try_join_all(statements.iter().map(|sql| self.prepared(sql))).await?;
        Ok(())
    }

    /// Statements without parameters and answers.
    pub(super) async fn command(&self, sql: &str) -> Result<(), Failure> {
        self.answered(self.client.batch_execute(sql)).await
    }
}

/// A few connections that readers share: the driver lets many queries travel on one.
pub(super) struct Pool {
    connector: Connector,
    places: Vec<tokio::sync::Mutex<Option<Arc<Connection>>>>,
    next: AtomicUsize,
    closed: AtomicBool,
}

impl Pool {
    pub(super) fn new(connector: Connector, connections: usize) -> Self {
        let places = (0..connections.max(1)).map(|_| tokio::sync::Mutex::default());
        Self {
            connector,
            places: places.collect(),
            next: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
        }
    }

    /// A connection that was alive a moment ago; `None` once the pool is closed.
    pub(super) async fn get(&self) -> Result<Option<Arc<Connection>>, Failure> {
        if self.closed.load(Ordering::Acquire) {
            return Ok(None);
        }
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.places.len();
        let Some(place) = self.places.get(turn) else {
            return Ok(None);
        };
        let mut place = place.lock().await;
        if let Some(connection) = place.as_ref().filter(|connection| !connection.is_closed()) {
            return Ok(Some(Arc::clone(connection)));
        }
        let connection = Arc::new(self.connector.connect().await?);
        if self.closed.load(Ordering::Acquire) {
            return Ok(None);
        }
        *place = Some(Arc::clone(&connection));
        Ok(Some(connection))
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(super) const fn connector(&self) -> &Connector {
        &self.connector
    }

    /// Gives the connections free as soon as nobody reads on them any more.
    pub(super) async fn close(&self) {
        self.closed.store(true, Ordering::Release);
        for place in &self.places {
            place.lock().await.take();
        }
    }
}
