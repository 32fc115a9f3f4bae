//! A real PostgreSQL in a temporary folder, for tests and benchmarks that need one.
//!
//! The standard library is all it takes: `cargo xtask` compiles this very file to start one server for a whole run
//! of tests, without building the rest of the crate first.
//!
//! The server ends with who started it, however that ends: a small shell waits for its standard input to be closed,
//! which the system does even when a process is killed, then stops the server by its id and removes the folder.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The variable with the URL of a server that runs already; its role may create databases and roles.
pub const URL_VARIABLE: &str = "GRISTMILL_TEST_POSTGRES";
/// The role that owns the databases.
pub const OWNER: &str = "gristmill";
/// What to do where there is no PostgreSQL.
const INSTALL: &str = "install Debian's package 'postgresql' (apt-get install postgresql), or put the folder with \
                       'initdb' and 'postgres' on the PATH";
/// How long a server may take to answer after its start.
const START_MAX: Duration = Duration::from_secs(60);
/// How often a start is tried: another program may take the port in between.
const START_ATTEMPTS: u32 = 3;

/// The server's part of the work: stops it once nobody needs it any more.
const KEEPER: &str = r#"
folder=$1
shift
"$@" >>"$folder/server.log" 2>&1 &
server=$!
cat >/dev/null
kill -INT "$server" 2>/dev/null
wait "$server"
rm -rf "$folder"
"#;

/// Whether what was committed has to survive a crash of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The server syncs, as one in use does. What is measured is measured with this.
    Synced,
    /// It does not sync, which is faster and survives every crash but the machine's.
    Unsynced,
}

/// A running server. Dropping it stops it.
#[derive(Debug)]
pub struct PostgresServer {
    folder: PathBuf,
    port: u16,
    keeper: Child,
}

/// Why there is no server.
#[derive(Debug)]
pub struct ServerError(String);

impl fmt::Display for ServerError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "no PostgreSQL could be started: {}", self.0)
    }
}

impl std::error::Error for ServerError {}

/// Who runs the server: PostgreSQL refuses to run as root.
#[derive(Clone, Copy, Debug)]
struct User {
    id: u32,
    group: u32,
}

impl PostgresServer {
    /// Starts a server on a free port of the loopback interface.
    ///
    /// # Errors
    /// [`ServerError`] with what to install, or what the server said.
    pub fn start(durability: Durability) -> Result<Self, ServerError> {
        let programs = programs().ok_or_else(|| ServerError(format!("there is none here; {INSTALL}")))?;
        let user = other_user()?;
        let mut attempt = 1;
        loop {
            let folder = new_folder(user).map_err(|error| failed("make a folder", &error))?;
            let started = initialise(&programs, &folder, user)
                .and_then(|()| Self::run(&programs, &folder, user, durability));
            match started {
                Err(_) if attempt < START_ATTEMPTS => attempt += 1,
                other => {
                    if other.is_err() {
                        let _ = fs::remove_dir_all(&folder);
                    }
                    return other;
                }
            }
            let _ = fs::remove_dir_all(&folder);
        }
    }

    /// The address of a database of this server, for the role that owns all of them.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{OWNER}@127.0.0.1:{}/{database}", self.port)
    }

    /// The port on the loopback interface.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The folder: the database in `data`, the Unix socket in `socket`, and what the server says in `server.log`.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn run(
        programs: &Path,
        folder: &Path,
        user: Option<User>,
        durability: Durability,
    ) -> Result<Self, ServerError> {
        let port = free_port().map_err(|error| failed("find a free port", &error))?;
        let mut keeper = Command::new("sh");
        keeper
            .args(["-c", KEEPER, "sh"])
            .arg(folder)
            .arg(programs.join("postgres"));
        keeper
            .arg("-D")
            .arg(folder.join("data"))
            .arg("-k")
            .arg(folder.join("socket"));
        keeper.args(["-h", "127.0.0.1", "-p", &port.to_string()]);
        if durability == Durability::Unsynced {
            keeper.args(["-c", "fsync=off", "-c", "full_page_writes=off"]);
        }
        keeper.args(["-c", "max_connections=200", "-c", "max_prepared_transactions=0"]);
        keeper.current_dir(folder).stdin(Stdio::piped());
        keeper.stdout(Stdio::null()).stderr(Stdio::null());
        become_user(&mut keeper, user);
        // What a terminal sends to the whole group would reach the server before its clients are done.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut keeper, 0);
        let keeper = keeper
            .spawn()
            .map_err(|error| failed("start the server", &error))?;
        let server = Self {
            folder: folder.to_owned(),
            port,
            keeper,
        };
        server.wait_until_ready()?;
        Ok(server)
    }

    fn wait_until_ready(&self) -> Result<(), ServerError> {
        let state = self.folder.join("data/postmaster.pid");
        let deadline = Instant::now() + START_MAX;
        while Instant::now() < deadline {
            // The last line of this file is what `pg_ctl --wait` looks at too.
            let ready = fs::read_to_string(&state)
                .is_ok_and(|lines| lines.lines().nth(7).is_some_and(|line| line.trim() == "ready"));
            if ready {
                return Ok(());
            }
            let log = fs::read_to_string(self.folder.join("server.log")).unwrap_or_default();
            if log.contains("FATAL") {
                return Err(ServerError(log));
            }
            thread::sleep(Duration::from_millis(10));
        }
        Err(ServerError(format!(
            "it was not ready after {} s",
            START_MAX.as_secs()
        )))
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

fn failed(what: &str, error: &io::Error) -> ServerError {
    ServerError(format!("cannot {what}: {error}"))
}

/// Whether PostgreSQL is installed.
#[must_use]
pub fn is_installed() -> bool {
    programs().is_some()
}

/// The folder with `initdb` and `postgres`: of the PATH, or where Debian puts the newest version.
fn programs() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .filter_map(|entry| {
            Some((
                entry.file_name().to_str()?.parse().ok()?,
                entry.path().join("bin"),
            ))
        })
        .collect();
    versions.sort_unstable();
    let debian = versions.into_iter().rev().map(|(_, folder)| folder);
    env::split_paths(&path)
        .chain(debian)
        .filter(|folder| folder.join("initdb").is_file() && folder.join("postgres").is_file())
        // A link on the PATH is not where the server's own files are found.
        .find_map(|folder| {
            Some(
                fs::canonicalize(folder.join("postgres"))
                    .ok()?
                    .parent()?
                    .to_owned(),
            )
        })
}

/// Whom to become: nobody else unless this is root.
fn other_user() -> Result<Option<User>, ServerError> {
    let own = Command::new("id")
        .arg("-u")
        .output()
        .map_err(|error| failed("run 'id'", &error))?;
    if String::from_utf8_lossy(&own.stdout).trim() != "0" {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd")
        .map_err(|error| failed("read the users of this machine", &error))?;
    let user = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        let (id, group) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(User { id, group })
    };
    let none = || {
        ServerError(
            "PostgreSQL does not run as root, and this machine has neither a user 'postgres' nor 'nobody'"
                .into(),
        )
    };
    user("postgres")
        .or_else(|| user("nobody"))
        .map(Some)
        .ok_or_else(none)
}

fn become_user(command: &mut Command, user: Option<User>) {
    #[cfg(unix)]
    if let Some(user) = user {
        use std::os::unix::process::CommandExt as _;
        command.uid(user.id).gid(user.group);
    }
    #[cfg(not(unix))]
    let _ = (command, user);
}

/// A folder of its own, below the one for temporary files, which another user can reach too.
fn new_folder(user: Option<User>) -> io::Result<PathBuf> {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("gristmill-postgres-{}-{number}", std::process::id());
        let folder = env::temp_dir().join(name);
        match fs::create_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            other => other?,
        }
        fs::create_dir(folder.join("socket"))?;
        #[cfg(unix)]
        if let Some(user) = user {
            for path in [folder.join("socket"), folder.clone()] {
                std::os::unix::fs::chown(path, Some(user.id), Some(user.group))?;
            }
        }
        return Ok(folder);
    }
}

fn initialise(programs: &Path, folder: &Path, user: Option<User>) -> Result<(), ServerError> {
    let mut initialise = Command::new(programs.join("initdb"));
    initialise.arg("-D").arg(folder.join("data"));
    initialise.args([
        "-U",
        OWNER,
        "-A",
        "trust",
        "-E",
        "UTF8",
        "--no-locale",
        "--no-sync",
    ]);
    initialise.current_dir(folder).env("HOME", OsString::from(folder));
    become_user(&mut initialise, user);
    let output = initialise
        .output()
        .map_err(|error| failed("run 'initdb'", &error))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(ServerError(String::from_utf8_lossy(&output.stderr).into_owned()))
    }
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
