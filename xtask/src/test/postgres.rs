//! PostgreSQL for the tests of the ledger's store: the machine's own, or Debian's package where there is none.

// One file for both: the tests start a server by the same means where nobody has started one for them.
#[path = "../../../ledger/src/conformance/server.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "the ledger's tests use more of it than this program does"
)]
mod server;

use anyhow::bail;

use self::server::Durability;
pub(super) use self::server::{PostgresServer, URL_VARIABLE};
use super::environment::{Workplace, output, succeed};

/// Starts a server in a temporary folder. It ends when it is dropped.
pub(super) fn start(workplace: &Workplace) -> anyhow::Result<PostgresServer> {
    if !server::is_installed() {
        install(workplace)?;
    }
    Ok(PostgresServer::start(Durability::Unsynced)?)
}

fn install(workplace: &Workplace) -> anyhow::Result<()> {
    let root = output(workplace.command("id").arg("-u")).is_ok_and(|user| user.trim() == "0");
    let debian = std::path::Path::new("/usr/bin/apt-get").exists();
    if !(root && debian) {
        bail!(
            "the tests of the ledger need PostgreSQL: install Debian's package 'postgresql' (sudo apt-get install \
             postgresql), or put the folder with 'initdb' and 'postgres' on the PATH"
        );
    }
    let apt_get = |arguments: &[&str]| {
        let mut command = workplace.command("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        succeed(command.args(arguments))
    };
    apt_get(&["update", "--quiet", "--quiet"])?;
    apt_get(&[
        "install",
        "--quiet",
        "--quiet",
        "--yes",
        "--no-install-recommends",
        "postgresql",
    ])
}
