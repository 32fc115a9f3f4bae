//! The tables, as numbered steps that are taken in order and never change afterwards, and who may do what with them.
//!
//! All of it happens in one transaction under the lock of one row, and under that of the head row once there is one,
//! so that several may migrate at once and no batch is in between. A process that runs sees at its next batch that
//! the head row tells of a newer schema, and stops.

use std::time::Duration;

use thiserror::Error;

use super::address::DatabaseAddress;
use super::connection::{Connection, Connector};
use super::encryption::EncryptionError;
use super::failure::Failure;
use crate::digest::Digest;

/// The version of the schema that this program writes, and the only one that it works with.
pub const SCHEMA_VERSION: i32 = 1;
/// The role that coordinators use, unless another one is named.
pub const SERVICE_ROLE: &str = "gristmill_service";
/// How often all of it is tried when somebody else does the same.
const ATTEMPTS: u32 = 20;

/// One step.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// Its number; the first is 1.
    pub version: i32,
    /// What it is called.
    pub name: &'static str,
    /// What it does.
    pub sql: &'static str,
    /// Whether it is for PostgreSQL itself, and left out on engines that only speak its language.
    pub only_postgresql: bool,
}

/// Every step, in order.
pub const MIGRATIONS: &[Migration] = &[
    Migration {
        version: 1,
        name: "ledger",
        sql: include_str!("migrations/0001_ledger.sql"),
        only_postgresql: false,
    },
    Migration {
        version: 2,
        name: "append_only",
        sql: include_str!("migrations/0002_append_only.sql"),
        only_postgresql: true,
    },
];

const FIRST: &str = "
    CREATE SCHEMA IF NOT EXISTS gristmill;
    CREATE TABLE IF NOT EXISTS gristmill.migrations (
        version    INT4 PRIMARY KEY,
        name       TEXT NOT NULL,
        digest     TEXT NOT NULL,
        applied_at TIMESTAMPTZ NOT NULL DEFAULT now()
    );
    INSERT INTO gristmill.migrations (version, name, digest) VALUES (0, 'lock', '')
        ON CONFLICT (version) DO NOTHING";

/// What a migration did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MigrationReport {
    /// What the engine calls itself.
    pub engine: String,
    /// Steps that were taken now.
    pub applied: Vec<String>,
    /// Steps that had been taken before.
    pub present: Vec<String>,
    /// Steps that this engine can't take.
    pub left_out: Vec<String>,
    /// The role that coordinators use.
    pub service_role: String,
    /// Whether that role was made now; it has no password then.
    pub role_created: bool,
    /// Whether the service's role is the owner's, so that nothing but triggers guards the entries.
    pub role_is_owner: bool,
}

/// Why the schema is not as this program needs it.
#[derive(Debug, Error)]
pub enum MigrateError {
    /// The way to the database can't be encrypted.
    #[error(transparent)]
    Encryption(#[from] EncryptionError),
    /// The name can't be one of a role.
    #[error(
        "'{0}' can't be a role here: use small letters, digits and '_', a letter first, at most 63 characters"
    )]
    RoleName(String),
    /// A step was changed after it was taken.
    #[error(
        "step {version} of the schema in {address} was taken with other content than this program has: use the \
         program that took it, or one made from the same sources"
    )]
    Changed {
        /// The step.
        version: i32,
        /// The database.
        address: String,
    },
    /// A newer program was here.
    #[error(
        "the schema in {address} has step {found}, this program knows {known}: use a program at least as new as the \
         one that took it"
    )]
    Newer {
        /// The newest step found.
        found: i32,
        /// The newest step that this program knows.
        known: i32,
        /// The database.
        address: String,
    },
    /// The database can't be reached or refuses.
    #[error("the schema in {address} can't be brought up to date: {reason}")]
    Database {
        /// The database.
        address: String,
        /// What was said.
        reason: String,
    },
}

/// Brings the schema up to date, and gives the service's role its rights: everything but changing what is only ever
/// added to. Connects as whoever `address` names, who then owns the tables. May be run at any time, any number of
/// times, by several at once.
///
/// # Errors
/// [`MigrateError`]; nothing is changed then.
pub async fn migrate(address: &DatabaseAddress, service_role: &str) -> Result<MigrationReport, MigrateError> {
    migrate_with(MIGRATIONS, address, service_role).await
}

/// [`migrate`] with these steps.
pub(super) async fn migrate_with(
    migrations: &[Migration],
    address: &DatabaseAddress,
    service_role: &str,
) -> Result<MigrationReport, MigrateError> {
    check_role_name(service_role)?;
    let connector = Connector::new(address.clone())?;
    let database = |failure: Failure| MigrateError::Database {
        address: address.to_string(),
        reason: failure.reason(),
    };
    let mut attempt = 1;
    loop {
        let connection = connector.connect_unbounded().await.map_err(database)?;
        // Dropping the connection takes back what was begun.
        match take_steps(&connection, migrations, address, service_role).await {
            Err(StepError::Failed(Failure::Conflict(_))) if attempt < ATTEMPTS => attempt += 1,
            Err(StepError::Failed(failure)) => return Err(database(failure)),
            Err(StepError::Schema(error)) => return Err(error),
            Ok(report) => return Ok(report),
        }
        drop(connection);
        tokio::time::sleep(Duration::from_millis(50 * u64::from(attempt))).await;
    }
}

enum StepError {
    Failed(Failure),
    Schema(MigrateError),
}

impl From<Failure> for StepError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

async fn take_steps(
    connection: &Connection,
    migrations: &[Migration],
    address: &DatabaseAddress,
    service_role: &str,
) -> Result<MigrationReport, StepError> {
    let engine: String = text(connection, "SELECT version()").await?;
    let owner: String = text(connection, "SELECT CAST(current_user AS TEXT)").await?;
    let is_postgresql = engine.starts_with("PostgreSQL ") && !engine.contains("-YB-");
    command(connection, "BEGIN").await?;
    command(connection, FIRST).await?;
    connection
        .query_one(
            "SELECT version FROM gristmill.migrations WHERE version = 0 FOR UPDATE",
            &[],
        )
        .await?;
    let taken = taken(connection).await?;
    check(&taken, migrations, address).map_err(StepError::Schema)?;
    if taken.iter().any(|(version, _)| *version == 1) {
        connection
            .query_one("SELECT sequence FROM gristmill.head WHERE id = 1 FOR UPDATE", &[])
            .await?;
    }
    let mut report = MigrationReport {
        engine,
        applied: Vec::new(),
        present: Vec::new(),
        left_out: Vec::new(),
        service_role: service_role.to_owned(),
        role_created: false,
        role_is_owner: service_role == owner,
    };
    for migration in migrations {
        let name = format!("{:04}_{}", migration.version, migration.name);
        if taken.iter().any(|(version, _)| *version == migration.version) {
            report.present.push(name);
        } else if migration.only_postgresql && !is_postgresql {
            report.left_out.push(name);
        } else {
            command(connection, migration.sql).await?;
            connection
                .execute(
                    "INSERT INTO gristmill.migrations (version, name, digest) VALUES ($1, $2, $3)",
                    &[
                        &migration.version,
                        &migration.name,
                        &digest(migration).to_string(),
                    ],
                )
                .await?;
            report.applied.push(name);
        }
    }
    report.role_created = grant(connection, service_role, report.role_is_owner).await?;
    command(connection, "COMMIT").await?;
    Ok(report)
}

/// Statements that may meet the same statements of somebody else, which shows as errors of several kinds.
async fn command(connection: &Connection, sql: &str) -> Result<(), Failure> {
    let Err(error) = connection.client().batch_execute(sql).await else {
        return Ok(());
    };
    let met = error.code().is_some_and(|code| {
        // Schema, table, object or role that is there by now; a catalogue row that somebody else has just changed.
        matches!(code.code(), "42P06" | "42P07" | "42710" | "XX000")
    });
    Err(match Failure::from(error) {
        failure if met => Failure::Conflict(failure.reason()),
        failure => failure,
    })
}

async fn text(connection: &Connection, sql: &'static str) -> Result<String, Failure> {
    Ok(connection.query_one(sql, &[]).await?.try_get(0)?)
}

async fn taken(connection: &Connection) -> Result<Vec<(i32, String)>, Failure> {
    let rows = connection
        .query(
            "SELECT version, digest FROM gristmill.migrations WHERE version > 0 ORDER BY version",
            &[],
        )
        .await?;
    rows.iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
        .collect()
}

/// The digest that is kept of a step.
fn digest(migration: &Migration) -> Digest {
    Digest::of(migration.sql.as_bytes())
}

fn check(
    taken: &[(i32, String)],
    migrations: &[Migration],
    address: &DatabaseAddress,
) -> Result<(), MigrateError> {
    let known = migrations
        .iter()
        .map(|migration| migration.version)
        .max()
        .unwrap_or(0);
    for (version, found) in taken {
        match migrations.iter().find(|migration| migration.version == *version) {
            None => {
                return Err(MigrateError::Newer {
                    found: *version,
                    known,
                    address: address.to_string(),
                });
            }
            Some(migration) if digest(migration).to_string() != *found => {
                return Err(MigrateError::Changed {
                    version: *version,
                    address: address.to_string(),
                });
            }
            Some(_) => {}
        }
    }
    Ok(())
}

fn check_role_name(name: &str) -> Result<(), MigrateError> {
    let fits = name.len() <= 63
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name
            .chars()
            .all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_');
    if fits {
        Ok(())
    } else {
        Err(MigrateError::RoleName(name.chars().take(80).collect()))
    }
}

/// Makes the role where it is missing and gives it what a coordinator needs; says whether it was missing.
async fn grant(connection: &Connection, role: &str, is_owner: bool) -> Result<bool, Failure> {
    if is_owner {
        return Ok(false);
    }
    let exists = connection
        .query_opt("SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = $1", &[&role])
        .await?
        .is_some();
    if !exists {
        command(connection, &format!("CREATE ROLE \"{role}\" LOGIN")).await?;
    }
    // The name was checked to need no quoting.
    let rights = format!(
        "REVOKE ALL ON ALL TABLES IN SCHEMA gristmill FROM \"{role}\";
         GRANT USAGE ON SCHEMA gristmill TO \"{role}\";
         GRANT SELECT ON ALL TABLES IN SCHEMA gristmill TO \"{role}\";
         GRANT UPDATE ON gristmill.head, gristmill.liveness TO \"{role}\";
         GRANT INSERT, UPDATE ON gristmill.accounts, gristmill.channels, gristmill.checkpoint_notes TO \"{role}\";
         GRANT INSERT ON gristmill.entries, gristmill.account_entries, gristmill.named_entries,
             gristmill.tile_hashes, gristmill.checkpoints TO \"{role}\""
    );
    command(connection, &rights).await?;
    Ok(!exists)
}
