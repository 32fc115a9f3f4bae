//! PostgreSQL for the tests of the ledger's store: the machine's own, or Debian's package where there is none.

// One file for both: the tests start a server by the same means where nobody has started one for them.
#[path = "../../../ledger/src/conformance/server.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "the ledger's tests use more of it than this program does"
)]
mod server;

use anyhow::Context;

use self::server::Durability;
pub(super) use self::server::{PostgresServer, URL_VARIABLE};
use super::debian;
use super::environment::Workplace;

const INSTEAD: &str = "put the folder with 'initdb' and 'postgres' on the PATH";

/// Starts a server in a temporary folder. It ends when it is dropped.
pub(super) fn start(workplace: &Workplace) -> anyhow::Result<PostgresServer> {
    if !server::is_installed() {
        debian::install(workplace, &["postgresql"], INSTEAD)
            .context("the tests of the ledger need PostgreSQL")?;
    }
    Ok(PostgresServer::start(Durability::Unsynced)?)
}
