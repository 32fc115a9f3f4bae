//! Where the ledger is kept, and where the password of a database comes from: never from a place that others see.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use clap::Args;
use gristmill_ledger::store::postgres::{AddressError, DatabaseAddress};
use thiserror::Error;

/// The variable that says where the ledger is kept.
const STORE_VARIABLE: &str = "GRISTMILL_COORDINATOR_STORE";
/// The variable with a database's password.
const PASSWORD_VARIABLE: &str = "PGPASSWORD";
/// The variable that names a file of passwords.
const PASSFILE_VARIABLE: &str = "PGPASSFILE";
/// Most bytes that are read of a file of passwords.
const PASSFILE_MAX_BYTES: u64 = 1 << 20;

/// Where the ledger is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum StoreSetting {
    /// In a folder of the data directory, by this process alone.
    #[default]
    Embedded,
    /// In a database, together with any number of other processes.
    Postgres(StoreUrl),
}

/// The URL of a database. What is shown of it never holds a password.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreUrl {
    url: String,
    shown: String,
}

/// The flag that says where the ledger is kept.
#[derive(Clone, Default, PartialEq, Args)]
pub struct StoreArguments {
    /// Where the ledger is kept: postgres://USER@HOST/DATABASE, whose password is taken from PGPASSWORD, from
    /// PGPASSFILE or ~/.pgpass, or from this setting's variable [default: a folder in the data directory]
    #[arg(
        long,
        env = STORE_VARIABLE,
        hide_env_values = true,
        value_name = "URL"
    )]
    pub store: Option<String>,
}

/// Why there is no such store.
#[derive(Debug, Error)]
pub enum StoreSettingError {
    /// The URL is none.
    #[error("store: {0}")]
    Address(#[from] AddressError),
    /// A password where others can read it.
    #[error(
        "the URL of the store has a password in it, which {place}. Leave it out of the URL and put it into the \
         variable PGPASSWORD, or into a file with mode 0600 that PGPASSFILE names (default ~/.pgpass) as a line \
         host:port:database:user:password"
    )]
    PasswordVisible {
        /// Who can read it there.
        place: &'static str,
    },
    /// The file of passwords is open to others.
    #[error("{path} can be read by others (mode {mode:04o}); run: chmod 600 '{path}'", path = path.display())]
    PassfileOpen {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file of passwords can't be read.
    #[error("cannot read the file of passwords {path}: {source}", path = path.display())]
    Passfile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl PartialEq for StoreSettingError {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}
impl Eq for StoreSettingError {}

impl fmt::Debug for StoreArguments {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.store.as_deref().map(|url| StoreUrl::parse(url).ok());
        formatter
            .debug_struct("StoreArguments")
            .field("store", &shown)
            .finish()
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.shown)
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "StoreUrl({self})")
    }
}

impl StoreArguments {
    /// What the variable says, for commands without the flag.
    #[must_use]
    pub fn from_environment() -> Self {
        Self {
            store: std::env::var(STORE_VARIABLE).ok().filter(|url| !url.is_empty()),
        }
    }

    /// Puts the flag, its variable and the file's setting together.
    ///
    /// # Errors
    /// [`StoreSettingError`] where the URL is none, or shows a password.
    pub fn resolve(self, file: Option<String>) -> Result<StoreSetting, StoreSettingError> {
        self.resolve_among(file, std::env::args_os())
    }

    /// [`StoreArguments::resolve`] of a program with these arguments, which every user of the machine can see.
    fn resolve_among(
        self,
        file: Option<String>,
        mut arguments: impl Iterator<Item = OsString>,
    ) -> Result<StoreSetting, StoreSettingError> {
        let from_file = self.store.is_none();
        let Some(url) = self.store.or(file) else {
            return Ok(StoreSetting::Embedded);
        };
        let store = StoreUrl::parse(&url)?;
        if has_password(&url) {
            let is_argument = |argument: OsString| argument.to_string_lossy().contains(&url);
            let place = if from_file {
                Some("everybody can read who reads the configuration file")
            } else if arguments.any(is_argument) {
                Some("every user of this machine sees in the list of processes")
            } else {
                None
            };
            if let Some(place) = place {
                return Err(StoreSettingError::PasswordVisible { place });
            }
        }
        Ok(StoreSetting::Postgres(store))
    }
}

impl StoreUrl {
    /// Reads a URL.
    ///
    /// # Errors
    /// [`AddressError`], which does not repeat the URL.
    pub fn parse(url: &str) -> Result<Self, AddressError> {
        let shown = url.parse::<DatabaseAddress>()?.to_string();
        Ok(Self {
            url: url.to_owned(),
            shown,
        })
    }

    /// The address with its password, where one is known: that of the URL, else of `PGPASSWORD`, else of the file of
    /// passwords.
    ///
    /// # Errors
    /// [`StoreSettingError`] where the file of passwords can't be used.
    pub fn address(&self) -> Result<DatabaseAddress, StoreSettingError> {
        let password = if has_password(&self.url) {
            None
        } else {
            match std::env::var(PASSWORD_VARIABLE)
                .ok()
                .filter(|text| !text.is_empty())
            {
                Some(password) => Some(password),
                None => self.password_of_file()?,
            }
        };
        Ok(match password {
            Some(password) => with_password(&self.url, &password).parse()?,
            None => self.url.parse()?,
        })
    }

    fn password_of_file(&self) -> Result<Option<String>, StoreSettingError> {
        let named = std::env::var_os(PASSFILE_VARIABLE).map(PathBuf::from);
        let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".pgpass"));
        let Some(path) = named.or_else(home) else {
            return Ok(None);
        };
        let text = read_passfile(&path)?;
        let user = std::env::var("USER").unwrap_or_default();
        Ok(text.and_then(|text| password_for(&text, &self.shown, &user)))
    }
}

/// Whether a URL names a password, in its place or as a parameter.
fn has_password(url: &str) -> bool {
    let after_scheme = url.split_once("://").map_or("", |(_, rest)| rest);
    let (base, parameters) = after_scheme.split_once('?').unwrap_or((after_scheme, ""));
    let authority = base.split('/').next().unwrap_or_default();
    let in_place = authority
        .rsplit_once('@')
        .is_some_and(|(who, _)| who.contains(':'));
    in_place
        || parameters
            .split('&')
            .any(|parameter| parameter.starts_with("password="))
}

fn with_password(url: &str, password: &str) -> String {
    let separator = if url.contains('?') { '&' } else { '?' };
    let mut text = format!("{url}{separator}password=");
    for byte in password.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

fn read_passfile(path: &Path) -> Result<Option<String>, StoreSettingError> {
    let failed = |source| StoreSettingError::Passfile {
        path: path.to_owned(),
        source,
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        let mode = file.metadata().map_err(failed)?.mode() & 0o7777;
        if mode & 0o077 != 0 {
            let path = path.to_owned();
            return Err(StoreSettingError::PassfileOpen { path, mode });
        }
    }
    let mut text = String::new();
    file.take(PASSFILE_MAX_BYTES)
        .read_to_string(&mut text)
        .map_err(failed)?;
    Ok(Some(text))
}

/// The password for a database in a file of passwords.
///
/// Source: PostgreSQL's documentation, "The Password File".
fn password_for(passfile: &str, shown: &str, user: &str) -> Option<String> {
    let (place, database) = shown.strip_prefix("postgres://")?.rsplit_once('/')?;
    let (named_user, hosts) = match place.rsplit_once('@') {
        Some((user, hosts)) => (user, hosts),
        None => (user, place),
    };
    let first = hosts.split(',').next().unwrap_or_default();
    let (host, port) = match first.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (host, port),
        _ => (first, "5432"),
    };
    // A socket's folder stands for the machine.
    let host = if host.starts_with('/') { "localhost" } else { host };
    let database = if database.is_empty() { named_user } else { database };
    passfile.lines().find_map(|line| {
        let fields = passfile_fields(line);
        let [line_host, line_port, line_database, line_user, password] = fields.as_slice() else {
            return None;
        };
        let fits = [
            (line_host, host),
            (line_port, port),
            (line_database, database),
            (line_user, named_user),
        ]
        .iter()
        .all(|(pattern, value)| pattern.as_str() == "*" || pattern == value);
        fits.then(|| password.clone())
    })
}

/// The fields of a line; a backslash makes a colon or a backslash part of a field.
fn passfile_fields(line: &str) -> Vec<String> {
    if line.starts_with('#') {
        return Vec::new();
    }
    let (mut fields, mut field) = (Vec::new(), String::new());
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match character {
            ':' if fields.len() < 4 => fields.push(std::mem::take(&mut field)),
            '\\' => field.extend(characters.next()),
            other => field.push(other),
        }
    }
    fields.push(field);
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(
        flag: Option<&str>,
        file: Option<&str>,
        seen: &[&str],
    ) -> Result<StoreSetting, StoreSettingError> {
        let arguments = StoreArguments {
            store: flag.map(str::to_owned),
        };
        arguments.resolve_among(file.map(str::to_owned), seen.iter().map(OsString::from))
    }

    #[test]
    fn the_flag_wins_over_the_file_and_nothing_is_a_folder() {
        assert_eq!(resolve(None, None, &[]), Ok(StoreSetting::Embedded));
        let shown = |store| match store {
            Ok(StoreSetting::Postgres(url)) => url.to_string(),
            other => panic!("{other:?}"),
        };
        let (flag, file) = ("postgres://a@h1:5432/b", "postgres://c@h2:5432/d");
        assert_eq!(shown(resolve(Some(flag), Some(file), &[])), flag);
        assert_eq!(shown(resolve(None, Some(file), &[])), file);
    }

    #[test]
    fn a_password_that_others_see_is_refused_and_not_repeated() {
        for url in [
            "postgres://clerk:s3cret@db.example/books",
            "postgres://clerk@db.example/books?password=s3cret",
        ] {
            let flag = format!("--store={url}");
            let refused = resolve(Some(url), None, &["gristmill", &flag]).unwrap_err();
            assert!(matches!(refused, StoreSettingError::PasswordVisible { .. }));
            assert!(!format!("{refused} {refused:?}").contains("s3cret"), "{refused}");
            assert!(refused.to_string().contains("PGPASSFILE"));
            assert!(resolve(None, Some(url), &[]).is_err());
            // Out of the variable only this process sees it.
            let store = resolve(Some(url), None, &["gristmill"]).unwrap();
            assert!(!format!("{store:?} {store:#?}").contains("s3cret"), "{store:?}");
            let arguments = StoreArguments {
                store: Some(url.to_owned()),
            };
            assert!(!format!("{arguments:?}").contains("s3cret"), "{arguments:?}");
        }
    }

    #[test]
    fn a_password_reaches_the_address_whatever_is_in_it() {
        for (url, expected) in [
            (
                "postgres://a@h/b",
                "postgres://a@h/b?password=p%40%3A%2F%3F%25%20x",
            ),
            (
                "postgres://a@h/b?sslmode=disable",
                "postgres://a@h/b?sslmode=disable&password=p%40%3A%2F%3F%25%20x",
            ),
        ] {
            let text = with_password(url, "p@:/?% x");
            assert_eq!(text, expected);
            assert!(has_password(&text) && !has_password(url));
            assert_eq!(
                text.parse::<DatabaseAddress>().unwrap().to_string(),
                "postgres://a@h:5432/b"
            );
        }
    }

    #[test]
    fn lines_of_a_passfile_are_read_as_postgresql_reads_them() {
        let file = "# comment:*:*:*:no\n\
            other:5432:books:clerk:wrong\n\
            db.example:6543:books:clerk:s3:c\\:ret\\\\\n\
            *:*:*:guest:every\\where\n\
            localhost:*:*:*:near\n";
        for (shown, expected) in [
            ("postgres://clerk@db.example:6543/books", Some("s3:c:ret\\")),
            ("postgres://clerk@db.example/books", None),
            ("postgres://guest@anywhere:1/x", Some("everywhere")),
            ("postgres://clerk@/run/postgresql/books", Some("near")),
            ("postgres://localhost/", Some("near")),
        ] {
            assert_eq!(password_for(file, shown, "me").as_deref(), expected, "{shown}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_passfile_that_others_read_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pgpass");
        assert!(read_passfile(&path).unwrap().is_none());
        std::fs::write(&path, "*:*:*:*:s3cret\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let refused = read_passfile(&path).unwrap_err().to_string();
        assert!(
            refused.contains("chmod 600") && !refused.contains("s3cret"),
            "{refused}"
        );
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert!(read_passfile(&path).unwrap().is_some());
    }
}
