//! Passwords and keys: what is encrypted, and what is never shown.

use gristmill_ledger::conformance::database::TestDatabase;
use gristmill_ledger::conformance::server::{Durability, PostgresServer};
use gristmill_ledger::store::Store;
use gristmill_ledger::store::postgres::{
    ConnectError, DatabaseAddress, MigrateError, PostgresOptions, PostgresStore, migrate,
};

const PASSWORD: &str = "c0rrect-h0rse";

fn with_password(address: &DatabaseAddress, host: &str, more: &str) -> DatabaseAddress {
    let text = address.to_string();
    let (_, place) = text.split_once('@').unwrap();
    let (old_host, rest) = place.split_once(':').unwrap();
    assert_eq!(old_host, "127.0.0.1");
    format!("postgres://gristmill_service:{PASSWORD}@{host}:{rest}{more}")
        .parse()
        .unwrap()
}

#[tokio::test]
async fn no_error_shows_the_password() {
    let database = TestDatabase::migrated().await;
    let mut shown = Vec::new();
    for address in [
        // Nobody listens there; no such database; no such host; a server that knows no TLS.
        with_password(&database.service, "127.0.0.1", "_missing"),
        with_password(&database.service, "127.0.0.9", ""),
        with_password(&database.service, "nowhere.invalid", "?sslmode=disable"),
        with_password(&database.service, "127.0.0.1", "?sslmode=require"),
        with_password(
            &database.service,
            "127.0.0.1",
            "?sslmode=require&sslrootcert=/none.pem",
        ),
    ] {
        let options = PostgresOptions::new(address.clone());
        shown.push(format!("{options:?}"));
        let error = PostgresStore::connect(&options).await.unwrap_err();
        shown.push(format!("{error} {error:?}"));
        assert!(
            matches!(error, ConnectError::Database { .. } | ConnectError::Encryption(_)),
            "{error}"
        );
        let error = migrate(&address, "gristmill_service").await.unwrap_err();
        assert!(
            matches!(error, MigrateError::Database { .. } | MigrateError::Encryption(_)),
            "{error}"
        );
        shown.push(format!("{error} {error:?}"));
    }
    for text in shown {
        assert!(!text.contains(PASSWORD), "{text}");
    }
    let with_password = with_password(&database.service, "127.0.0.1", "");
    let store = PostgresStore::connect(&PostgresOptions::new(with_password))
        .await
        .unwrap();
    assert!(!format!("{store:?} {}", store.address()).contains(PASSWORD));
    store.shutdown().await.unwrap();
}

/// A server of its own that takes only TLS, with a password.
struct TlsServer {
    server: PostgresServer,
    /// What signed its certificate.
    roots: std::path::PathBuf,
    /// What did not.
    other_roots: std::path::PathBuf,
    _folder: tempfile::TempDir,
}

impl TlsServer {
    async fn start(name: &str) -> Self {
        let server = PostgresServer::start(Durability::Unsynced).unwrap();
        let own = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let other = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (roots, other_roots) = (folder.path().join("own.pem"), folder.path().join("other.pem"));
        std::fs::write(&roots, own.cert.pem()).unwrap();
        std::fs::write(&other_roots, other.cert.pem()).unwrap();
        let owner: DatabaseAddress = server.url("postgres").parse().unwrap();
        let client = TestDatabase::client(&owner).await;
        let data = server.folder().join("data");
        let access = "local all all trust\nhostssl all gristmill_service 127.0.0.1/32 scram-sha-256\n\
                      host all gristmill 127.0.0.1/32 trust\n";
        for (file, content) in [
            ("server.crt", own.cert.pem()),
            ("server.key", own.key_pair.serialize_pem()),
            ("pg_hba.conf", access.to_owned()),
        ] {
            // The server writes its own files, whoever runs it.
            let path = data.join(file).display().to_string();
            let write = format!(
                "COPY (SELECT regexp_split_to_table('{}', '\n')) TO PROGRAM 'umask 077; cat > {path}'",
                content.trim_end()
            );
            client.batch_execute(&write).await.unwrap();
        }
        migrate(&owner, "gristmill_service").await.unwrap();
        client
            .batch_execute(&format!("ALTER ROLE gristmill_service PASSWORD '{PASSWORD}'"))
            .await
            .unwrap();
        client.batch_execute("ALTER SYSTEM SET ssl = on").await.unwrap();
        client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
        Self {
            server,
            roots,
            other_roots,
            _folder: folder,
        }
    }

    fn address(&self, password: &str, more: &str) -> DatabaseAddress {
        let port = self.server.port();
        format!("postgres://gristmill_service:{password}@127.0.0.1:{port}/postgres?{more}")
            .parse()
            .unwrap()
    }

    /// Until the server has read its new settings, it has no TLS.
    async fn connect(&self, address: &DatabaseAddress) -> Result<PostgresStore, ConnectError> {
        loop {
            match PostgresStore::connect(&PostgresOptions::new(address.clone())).await {
                Err(error) if error.to_string().contains("does not support TLS") => {
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                }
                other => return other,
            }
        }
    }
}

#[tokio::test]
async fn the_way_is_encrypted_and_the_server_is_who_it_should_be() {
    let tls = TlsServer::start("127.0.0.1").await;
    let (roots, other_roots) = (tls.roots.display(), tls.other_roots.display());
    let store = tls
        .connect(&tls.address(PASSWORD, &format!("sslmode=require&sslrootcert={roots}")))
        .await
        .unwrap();
    assert_eq!(store.head().await.unwrap().sequence, 0);
    store.shutdown().await.unwrap();
    for (password, more, said) in [
        (
            PASSWORD,
            format!("sslmode=verify-full&sslrootcert={other_roots}"),
            "certificate",
        ),
        (PASSWORD, "sslmode=require".to_owned(), "certificate"),
        (PASSWORD, "sslmode=disable".to_owned(), "no encryption"),
        (
            "wr0ng",
            format!("sslmode=require&sslrootcert={roots}"),
            "password authentication failed",
        ),
    ] {
        let error = tls.connect(&tls.address(password, &more)).await.unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(shown.contains(said), "{more}: {shown}");
        assert!(!shown.contains(password), "{shown}");
    }

    let other_name = TlsServer::start("somebody.else").await;
    let roots = other_name.roots.display();
    let address = other_name.address(PASSWORD, &format!("sslmode=require&sslrootcert={roots}"));
    let error = other_name.connect(&address).await.unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
}
