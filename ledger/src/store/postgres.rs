//! A database that speaks PostgreSQL's protocol, and any number of processes on it.
//!
//! Each process has one task that writes. It takes what is waiting and makes one transaction of it: lock the one head
//! row, load what the batch concerns, let the pure [`Book`](crate::book::Book) decide, write entries and changed rows,
//! commit. Answers go out after the commit. The lock makes batches of all processes take turns, so the log has
//! one order, without gap or fork, and processes can come, go and be killed at any time.
//!
//! The tables are in a schema of their own, `gristmill`, made by [`migrate`] as their owner. Coordinators use a role
//! that may add entries, hashes and checkpoints but not change or remove any.

mod address;
mod batch;
mod connection;
mod encryption;
mod failure;
mod liveness;
mod log;
mod number;
mod reading;
mod rows;
mod schema;
mod tables;
mod verification;
mod writer;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::ids::ChannelId;
use gristmill_protocol::log::hash::LogHash;
use gristmill_protocol::log::tile::Tile;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::{Beat, LogWriteError, PostError, ReadError, ShutdownError, Store, StoredCheckpoint, VerifyError};
use crate::book::{Balance, ChannelState, Head};
use crate::digest::Digest;
use crate::entry::CheckedEntry;
use crate::index::Selection;
use crate::outcome::Posted;
use crate::record::Record;
use connection::{Connection, Connector, Pool};
use failure::Failure;
use reading::Reader;
use writer::{Command, Post, Writer, WriterState};

pub use address::{AddressError, DatabaseAddress};
pub use encryption::EncryptionError;
pub use schema::{
    MIGRATIONS, MigrateError, Migration, MigrationReport, SCHEMA_VERSION, SERVICE_ROLE, migrate,
};

/// How a ledger in a database is used.
#[derive(Clone, Debug)]
pub struct PostgresOptions {
    /// Where it is.
    pub address: DatabaseAddress,
    /// How many posts may wait for the writer; one more is [`PostError::Overloaded`].
    pub queue_entries: usize,
    /// How many entries are one transaction at most.
    pub batch_entries: usize,
    /// How many connections readers share; the writer has one of its own.
    pub read_connections: usize,
    /// How long posts wait for a database that has just gone away, before they are [`PostError::Unavailable`].
    pub patience: Duration,
}

impl PostgresOptions {
    /// The defaults for this database.
    #[must_use]
    pub const fn new(address: DatabaseAddress) -> Self {
        Self {
            address,
            queue_entries: 4_096,
            batch_entries: 1_000,
            read_connections: 4,
            patience: Duration::from_secs(10),
        }
    }
}

/// Why a ledger in a database can't be used.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The way to it can't be encrypted.
    #[error(transparent)]
    Encryption(#[from] EncryptionError),
    /// It can't be reached, or refuses.
    #[error("the ledger's database {address} can't be used: {reason}")]
    Database {
        /// The database.
        address: String,
        /// What was said.
        reason: String,
    },
    /// There are no tables in it, or others.
    #[error(
        "the ledger's database {address} has {found}, this program needs version {SCHEMA_VERSION}: run 'gristmill \
         coordinator migrate' as the owner of the tables"
    )]
    Schema {
        /// The database.
        address: String,
        /// What was found.
        found: String,
    },
}

/// A ledger in a database. Clones are the same ledger.
#[derive(Clone)]
pub struct PostgresStore {
    address: Arc<DatabaseAddress>,
    queue: mpsc::Sender<Command>,
    reader: Arc<Reader>,
    state: watch::Receiver<WriterState>,
    writer: Arc<WriterTask>,
}

/// The writer as long as a handle exists. It ends by itself when the last one is gone.
struct WriterTask(tokio::sync::Mutex<Option<JoinHandle<()>>>);

impl PostgresStore {
    /// Connects to a ledger whose tables [`migrate`] has made.
    ///
    /// # Errors
    /// [`ConnectError`]
    pub async fn connect(options: &PostgresOptions) -> Result<Self, ConnectError> {
        let address = &options.address;
        let connector = Connector::new(address.clone())?;
        let database = |failure: Failure| ConnectError::Database {
            address: address.to_string(),
            reason: failure.reason(),
        };
        let connection = connector.connect().await.map_err(database)?;
        check_schema(&connection, address).await?;
        warn_of_rights(&connection, address).await.map_err(database)?;
        drop(connection);
        let connection = writer::connect(&connector).await.map_err(database)?;
        let (queue, commands) = mpsc::channel(options.queue_entries.max(1));
        let (state, watched) = watch::channel(WriterState::Running);
        let writer = Writer {
            connector: connector.clone(),
            commands,
            batch_entries: options.batch_entries.max(1),
            patience: options.patience,
            state,
            connection: Some(connection),
        };
        Ok(Self {
            address: Arc::new(address.clone()),
            queue,
            reader: Arc::new(Reader::new(Pool::new(connector, options.read_connections))),
            state: watched,
            writer: Arc::new(WriterTask(tokio::sync::Mutex::new(Some(tokio::spawn(
                writer.run(),
            ))))),
        })
    }

    /// The database, without what must stay secret.
    #[must_use]
    pub fn address(&self) -> &DatabaseAddress {
        &self.address
    }

    fn stopped(&self) -> PostError {
        if *self.state.borrow() != WriterState::Ended && self.state.has_changed().is_err() {
            return PostError::ReadOnly {
                reason: "the ledger's writer panicked".into(),
            };
        }
        PostError::Stopped
    }
}

async fn check_schema(connection: &Connection, address: &DatabaseAddress) -> Result<(), ConnectError> {
    let other = |found: String| ConnectError::Schema {
        address: address.to_string(),
        found,
    };
    let version = connection
        .query_opt("SELECT schema_version FROM gristmill.head WHERE id = 1", &[])
        .await;
    match version {
        Ok(Some(row)) => match rows::value::<i32>(&row, "schema_version") {
            Ok(SCHEMA_VERSION) => Ok(()),
            Ok(version) => Err(other(format!("tables of version {version}"))),
            Err(failure) => Err(other(failure.reason())),
        },
        Ok(None) => Err(other("an empty table of the head".into())),
        Err(Failure::Refused(reason)) if reason.contains("42P01") || reason.contains("3F000") => {
            Err(other("no tables of a ledger".into()))
        }
        Err(failure) => Err(ConnectError::Database {
            address: address.to_string(),
            reason: failure.reason(),
        }),
    }
}

/// A role that may change entries is one more thing that could go wrong.
async fn warn_of_rights(connection: &Connection, address: &DatabaseAddress) -> Result<(), Failure> {
    let row = connection
        .query_one(
            "SELECT has_table_privilege('gristmill.entries', 'UPDATE') OR \
             has_table_privilege('gristmill.entries', 'DELETE') AS may_change",
            &[],
        )
        .await?;
    if rows::value::<bool>(&row, "may_change")? {
        tracing::warn!(
            database = %address,
            "this role may change entries of the ledger; use the one that 'gristmill coordinator migrate' names"
        );
    }
    Ok(())
}

#[async_trait]
impl Store for PostgresStore {
    async fn post(&self, entry: CheckedEntry, now_ms: u64) -> Result<Posted, PostError> {
        let (answer, answered) = oneshot::channel();
        let waiting = self.queue.max_capacity();
        let post = Command::Post(Box::new(Post {
            entry,
            time_ms: now_ms,
            answer,
        }));
        self.queue.try_send(post).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => PostError::Overloaded { waiting },
            mpsc::error::TrySendError::Closed(_) => self.stopped(),
        })?;
        answered.await.map_err(|_| self.stopped())?
    }

    async fn head(&self) -> Result<Head, ReadError> {
        self.reader.head().await
    }

    async fn balance(&self, account: &AccountId) -> Result<Balance, ReadError> {
        self.reader.balance(account).await
    }

    async fn channel(&self, channel: &ChannelId) -> Result<Option<ChannelState>, ReadError> {
        self.reader.channel(channel).await
    }

    async fn expired_channels(&self, now_ms: u64, limit: usize) -> Result<Vec<ChannelId>, ReadError> {
        self.reader.expired_channels(now_ms, limit).await
    }

    async fn posted(&self, sequence: u64) -> Result<Option<Posted>, ReadError> {
        self.reader.posted(sequence).await
    }

    async fn history(
        &self,
        account: &AccountId,
        selection: Selection,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Posted>, ReadError> {
        self.reader.history(account, selection, before, limit).await
    }

    async fn records(&self, first: u64, limit: usize) -> Result<Vec<Record>, ReadError> {
        self.reader.records(first, limit).await
    }

    async fn state_digest(&self) -> Result<Digest, ReadError> {
        self.reader.state_digest().await
    }

    async fn verify(&self) -> Result<(), VerifyError> {
        self.reader.verify().await
    }

    async fn read_tile(&self, tile: Tile) -> Result<Option<Vec<u8>>, ReadError> {
        self.reader.read_tile(tile).await
    }

    async fn write_tiles(&self, tiles: Vec<(Tile, Vec<u8>)>) -> Result<(), LogWriteError> {
        self.reader.write_tiles(&tiles).await
    }

    async fn newest_checkpoint(&self) -> Result<Option<StoredCheckpoint>, ReadError> {
        self.reader.newest_checkpoint().await
    }

    async fn published_checkpoint(&self) -> Result<Option<StoredCheckpoint>, ReadError> {
        self.reader.published_checkpoint().await
    }

    async fn reserve_checkpoint(&self, size: u64, root: LogHash) -> Result<(), LogWriteError> {
        self.reader.reserve_checkpoint(size, root).await
    }

    async fn publish_checkpoint(&self, size: u64, note: &str) -> Result<(), LogWriteError> {
        self.reader.publish_checkpoint(size, note).await
    }

    async fn beat(&self, now_ms: u64, unnoticed_ms: u64) -> Result<Beat, ReadError> {
        self.reader.beat(now_ms, unnoticed_ms).await
    }

    async fn end_gap(&self, now_ms: u64) -> Result<(), ReadError> {
        self.reader.end_gap(now_ms).await
    }

    fn read_only_reason(&self) -> Option<String> {
        match &*self.state.borrow() {
            WriterState::Failing(reason) => Some(reason.clone()),
            WriterState::Running | WriterState::Ended => None,
        }
    }

    async fn shutdown(&self) -> Result<(), ShutdownError> {
        // An error means that the writer has ended already.
        let _ = self.queue.send(Command::Stop).await;
        let mut state = self.state.clone();
        // An error means that it ended without saying so.
        let ended = state.wait_for(|state| *state == WriterState::Ended).await.is_ok();
        self.reader.pool().close().await;
        if let Some(task) = self.writer.0.lock().await.take() {
            let _ = task.await;
        }
        if ended {
            Ok(())
        } else {
            Err(ShutdownError::Panicked)
        }
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "PostgresStore({})", self.address)
    }
}
