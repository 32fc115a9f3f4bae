//! TLS on the way to the database, by rustls. The server's certificate and name are always checked.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt as _;
use thiserror::Error;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::address::Encryption;

/// Why the way to the database can't be encrypted.
#[derive(Debug, Error)]
pub enum EncryptionError {
    /// The certificates to check against can't be read.
    #[error("the certificates in {file} can't be read: {reason}; it has to be a PEM file")]
    Roots {
        /// The file.
        file: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The system has no certificates to check against.
    #[error("the system's certificates can't be used: {0}; name a PEM file with sslrootcert=")]
    System(#[from] rustls::Error),
}

/// What connections are encrypted with; `None` where they are not.
pub(super) fn connector(encryption: &Encryption) -> Result<Option<MakeRustlsConnect>, EncryptionError> {
    let builder = || ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let config = match encryption {
        Encryption::Off => return Ok(None),
        Encryption::SystemRoots => builder()?.with_platform_verifier()?.with_no_client_auth(),
        Encryption::RootsOf(file) => {
            let failed = |reason: String| EncryptionError::Roots {
                file: file.clone(),
                reason,
            };
            let mut roots = RootCertStore::empty();
            for certificate in
                CertificateDer::pem_file_iter(file).map_err(|error| failed(error.to_string()))?
            {
                let certificate = certificate.map_err(|error| failed(error.to_string()))?;
                roots
                    .add(certificate)
                    .map_err(|error| failed(error.to_string()))?;
            }
            if roots.is_empty() {
                return Err(failed("it holds no certificate".into()));
            }
            builder()?.with_root_certificates(roots).with_no_client_auth()
        }
    };
    Ok(Some(MakeRustlsConnect::new(config)))
}

/// The one that the rest of the product uses, whatever else is compiled in.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
