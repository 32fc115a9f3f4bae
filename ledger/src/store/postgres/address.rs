//! Where a database is: a URL of which nothing but the password is a secret, and how the way there is encrypted.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

/// How long a connection may take to be made.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// After how long an acknowledgement that the network owes a connection counts as lost.
const ACKNOWLEDGED_MAX: Duration = Duration::from_secs(10);
/// After how long of silence a connection is probed.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// The address of a database with what is needed to be let in.
///
/// `postgres://user:password@host:port/database`, with the parameters that PostgreSQL's own clients know.
/// What is shown of it never holds the password.
///
/// Unlike those clients, this one never encrypts without checking whom it talks to: `sslmode` may be `disable` or
/// one of `require`, `verify-ca` and `verify-full`, which all check the certificate and the name, against the
/// certificates of `sslrootcert` if given and of the system if not. Without `sslmode` everything beyond this machine
/// is encrypted.
#[derive(Clone)]
pub struct DatabaseAddress {
    pub(crate) config: Config,
    pub(super) encryption: Encryption,
}

/// How the way to the database is encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Encryption {
    /// It is not.
    Off,
    /// TLS, the server's certificate checked against those of the system.
    SystemRoots,
    /// TLS, the server's certificate checked against those of this PEM file.
    RootsOf(PathBuf),
}

/// Why a text is no address. Never repeats the text, which may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AddressError {
    /// It does not begin as one.
    #[error("the address of a database begins with postgres:// or postgresql://")]
    Scheme,
    /// It is malformed.
    #[error(
        "the address of the database is malformed; it has the form postgres://user:password@host:port/database, \
         special characters of the password written as in URLs (%40 for @)"
    )]
    Malformed,
    /// A parameter that can't be.
    #[error("the address of the database: {0}")]
    Parameter(String),
}

impl DatabaseAddress {
    /// Another database of the same server.
    #[must_use]
    pub fn with_database(&self, name: &str) -> Self {
        let mut other = self.clone();
        other.config.dbname(name);
        other
    }

    /// The same database as another role, with the same password if one is given.
    #[must_use]
    pub fn as_role(&self, role: &str) -> Self {
        let mut other = self.clone();
        other.config.user(role);
        other
    }
}

impl FromStr for DatabaseAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
            return Err(AddressError::Scheme);
        }
        let (base, parameters) = text.split_once('?').unwrap_or((text, ""));
        let mut mode = None;
        let mut roots = None;
        let mut others = Vec::new();
        for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
            match parameter.split_once('=') {
                Some(("sslmode", value)) => mode = Some(value),
                Some(("sslrootcert", value)) => roots = Some(PathBuf::from(percent_decoded(value)?)),
                _ => others.push(parameter),
            }
        }
        let mut config: Config = if others.is_empty() {
            base.parse()
        } else {
            format!("{base}?{}", others.join("&")).parse()
        }
        .map_err(|_| AddressError::Malformed)?;
        if config.get_hosts().is_empty() {
            return Err(AddressError::Parameter("it names no host".into()));
        }
        let encryption = encryption(mode, roots, &config)?;
        config
            .ssl_mode(match encryption {
                Encryption::Off => SslMode::Disable,
                Encryption::SystemRoots | Encryption::RootsOf(_) => SslMode::Require,
            })
            .connect_timeout(CONNECT_MAX)
            .tcp_user_timeout(ACKNOWLEDGED_MAX)
            .keepalives_idle(SILENCE_MAX)
            .application_name("gristmill");
        Ok(Self { config, encryption })
    }
}

fn encryption(
    mode: Option<&str>,
    roots: Option<PathBuf>,
    config: &Config,
) -> Result<Encryption, AddressError> {
    let on = |roots: Option<PathBuf>| roots.map_or(Encryption::SystemRoots, Encryption::RootsOf);
    match mode {
        Some("disable") => Ok(Encryption::Off),
        Some("require" | "verify-ca" | "verify-full") => Ok(on(roots)),
        None if config.get_hosts().iter().all(is_this_machine) => Ok(Encryption::Off),
        None => Ok(on(roots)),
        Some(_) => Err(AddressError::Parameter(
            "sslmode is 'disable', 'require', 'verify-ca' or 'verify-full'; others encrypt only by chance"
                .into(),
        )),
    }
}

fn is_this_machine(host: &Host) -> bool {
    match host {
        Host::Tcp(name) => {
            name == "localhost"
                || name
                    .trim_matches(['[', ']'])
                    .parse::<std::net::IpAddr>()
                    .is_ok_and(|address| address.is_loopback())
        }
        #[cfg(unix)]
        Host::Unix(_) => true,
    }
}

fn percent_decoded(text: &str) -> Result<String, AddressError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
        let (Some(high), Some(low)) = (digit(rest.next()), digit(rest.next())) else {
            return Err(AddressError::Malformed);
        };
        bytes.push(u8::try_from(high * 16 + low).map_err(|_| AddressError::Malformed)?);
    }
    String::from_utf8(bytes).map_err(|_| AddressError::Malformed)
}

impl fmt::Display for DatabaseAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("postgres://")?;
        if let Some(user) = self.config.get_user() {
            write!(formatter, "{user}@")?;
        }
        let ports = self.config.get_ports();
        for (position, host) in self.config.get_hosts().iter().enumerate() {
            if position > 0 {
                formatter.write_str(",")?;
            }
            match host {
                Host::Tcp(name) => formatter.write_str(name)?,
                #[cfg(unix)]
                Host::Unix(path) => write!(formatter, "{}", path.display())?,
            }
            if let Some(port) = ports.get(position).or_else(|| ports.first()) {
                write!(formatter, ":{port}")?;
            }
        }
        write!(formatter, "/{}", self.config.get_dbname().unwrap_or_default())
    }
}

impl fmt::Debug for DatabaseAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "DatabaseAddress({self}, {:?})", self.encryption)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> DatabaseAddress {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_beyond_this_machine_is_encrypted_unless_told_otherwise() {
        let file = || Encryption::RootsOf("/etc/own ca.pem".into());
        for (address, expected) in [
            ("postgres://a@localhost/b", Encryption::Off),
            ("postgres://a@127.0.0.1:5433/b", Encryption::Off),
            ("postgres://a@[::1]/b", Encryption::Off),
            ("postgres://a@%2Frun%2Fpostgresql/b", Encryption::Off),
            ("postgres://a@db.example/b", Encryption::SystemRoots),
            ("postgres://a@localhost,db.example/b", Encryption::SystemRoots),
            ("postgres://a@db.example/b?sslmode=disable", Encryption::Off),
            (
                "postgres://a@localhost/b?sslmode=require",
                Encryption::SystemRoots,
            ),
            (
                "postgres://a@db.example/b?sslmode=verify-full&sslrootcert=/etc/own%20ca.pem",
                file(),
            ),
            (
                "postgres://a@db.example/b?sslrootcert=%2Fetc%2Fown%20ca.pem",
                file(),
            ),
        ] {
            assert_eq!(parsed(address).encryption, expected, "{address}");
        }
        for mode in ["prefer", "allow", "on", ""] {
            let refused = format!("postgres://a@h/b?sslmode={mode}").parse::<DatabaseAddress>();
            assert!(
                matches!(refused, Err(AddressError::Parameter(_))),
                "{mode}: {refused:?}"
            );
        }
    }

    #[test]
    fn nothing_shows_a_password() {
        let address = parsed("postgres://clerk:s3cret%40x@db.example:6543/books?connect_timeout=3");
        assert_eq!(address.config.get_password(), Some(&b"s3cret@x"[..]));
        assert_eq!(address.to_string(), "postgres://clerk@db.example:6543/books");
        for shown in [format!("{address:?}"), format!("{address:#?}")] {
            assert!(!shown.contains("s3cret"), "{shown}");
        }
        for wrong in [
            "postgres://clerk:s3cret@h:port/b",
            "postgres://clerk:s3cret@h/b?nonsense=s3cret",
            "mysql://clerk:s3cret@h/b",
            "postgres://clerk:s3cret@h/b?sslmode=s3cret",
            "postgres://clerk:s3cret@/b",
            "postgres://clerk:s3cret@h/b?sslrootcert=%s3cret",
        ] {
            let error = wrong.parse::<DatabaseAddress>().unwrap_err();
            assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
        }
    }
}
