//! TLS towards providers: the system's roots, or a private authority.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};

use setting_values::regular_file;

/// The largest file of certificates that is read.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The operator's: the file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The operator's: the file holds no certificate.
    #[error("{path} holds no certificate in PEM form")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The operator's: a certificate that is none.
    #[error("{path} holds a certificate that cannot be used: {source}")]
    Certificate {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// The library's: no protocol version in common with itself.
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] rustls::Error),
}

/// Trusts the system's roots, and `ca_file`'s certificates too where there is one.
pub(super) fn client_config(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    for error in &system.errors {
        tracing::warn!("a certificate of the system cannot be used: {error}");
    }
    roots.add_parsable_certificates(system.certs);
    if let Some(path) = ca_file {
        add(&mut roots, path)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn add(roots: &mut RootCertStore, path: &Path) -> Result<(), TlsError> {
    let pem = regular_file::read(path, MAX_FILE_BYTES)
        .map_err(|source| TlsError::Read { path: path.to_owned(), source })?;
    let before = roots.len();
    for certificate in CertificateDer::pem_slice_iter(&pem).flatten() {
        roots.add(certificate).map_err(|source| TlsError::Certificate { path: path.to_owned(), source })?;
    }
    if roots.len() == before { Err(TlsError::Empty { path: path.to_owned() }) } else { Ok(()) }
}
