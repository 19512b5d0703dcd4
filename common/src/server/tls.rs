//! Certificates of a server: PEM files into a `rustls` configuration.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where a server's certificate lies, and whom it trusts.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// Certificate chain, PEM.
    pub cert_file: PathBuf,
    /// Private key, PEM.
    pub key_file: PathBuf,
    /// Authorities whose client certificates are required; absent asks for none.
    pub client_ca_file: Option<PathBuf>,
}

/// Why a server's certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or holds no PEM of its kind.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// Key and certificate do not fit each other, or one of them is of a kind that is not supported.
    #[error("{}: {source}", path.display())]
    Rejected {
        /// The certificate's file.
        path: PathBuf,
        /// What `rustls` says.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let fault = |source| TlsError::File { path: path.to_owned(), source };
    CertificateDer::pem_file_iter(path).map_err(fault)?.collect::<Result<_, _>>().map_err(fault)
}

/// Builds a server configuration that offers HTTP/2 and HTTP/1.1.
///
/// # Errors
/// If a file cannot be used; the message names it.
pub fn load_tls(files: &TlsFiles) -> Result<Arc<rustls::ServerConfig>, TlsError> {
    let rejected = |path: &Path, source: Box<dyn std::error::Error + Send + Sync>| TlsError::Rejected {
        path: path.to_owned(),
        source,
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| rejected(&files.cert_file, error.into()))?;
    let builder = match &files.client_ca_file {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = rustls::RootCertStore::empty();
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|error| rejected(path, error.into()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|error| rejected(path, error.into()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let key = PrivateKeyDer::from_pem_file(&files.key_file)
        .map_err(|source| TlsError::File { path: files.key_file.clone(), source })?;
    let mut config = builder
        .with_single_cert(certificates(&files.cert_file)?, key)
        .map_err(|error| rejected(&files.cert_file, error.into()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
