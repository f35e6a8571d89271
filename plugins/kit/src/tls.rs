//! TLS to a backend: the system's roots, an optional private CA, an optional client certificate.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use plugin_api::InitError;
use rustls::{
    ClientConfig, ConfigBuilder, DigitallySignedStruct, RootCertStore, SignatureScheme, WantsVerifier,
    client::{
        WantsClientCert,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::settings::read_file;

/// How the backend is trusted, and how this side proves who it is. The system's certificates are always trusted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// A PEM file with certificates of a private CA, trusted beside the system's.
    pub ca_file: Option<PathBuf>,
    /// A PEM file with this side's certificate and its chain, for backends that ask for one.
    pub client_cert_file: Option<PathBuf>,
    /// A PEM file with the private key of `client_cert_file`.
    pub client_key_file: Option<PathBuf>,
    /// True accepts any certificate: whoever is between gateway and backend can read everything. For tests only.
    pub insecure_skip_verify: bool,
}

impl Tls {
    /// The client side of TLS 1.2 and 1.3 with these settings.
    ///
    /// # Errors
    /// When a file cannot be read or holds no certificate or key; the error names the setting.
    pub fn client_config(&self) -> Result<ClientConfig, InitError> {
        if self.insecure_skip_verify {
            warn!("tls.insecure_skip_verify is set: the backend's certificate is not checked");
            return self.unchecked_client_config();
        }
        let roots = self.roots()?;
        self.build(|builder, _| builder.with_root_certificates(roots))
    }

    /// The same without a check of the backend's certificate, for protocols that may be encrypted and unchecked by
    /// their own rules, as PostgreSQL with `sslmode=require`.
    ///
    /// # Errors
    /// As [`client_config`](Self::client_config).
    pub fn unchecked_client_config(&self) -> Result<ClientConfig, InitError> {
        self.build(|builder, provider| {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        })
    }

    fn build(
        &self,
        verify: impl FnOnce(
            ConfigBuilder<ClientConfig, WantsVerifier>,
            Arc<CryptoProvider>,
        ) -> ConfigBuilder<ClientConfig, WantsClientCert>,
    ) -> Result<ClientConfig, InitError> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| InitError::failed(format!("TLS: {error}")))?;
        let builder = verify(builder, provider);
        match (&self.client_cert_file, &self.client_key_file) {
            (None, None) => Ok(builder.with_no_client_auth()),
            (Some(chain), Some(key)) => {
                let chain = certificates("tls.client_cert_file", chain)?;
                let key_bad = |error: &dyn std::fmt::Display| bad_file("tls.client_key_file", key, error);
                let pem = read_file(key).map_err(|error| key_bad(&error))?;
                let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|error| key_bad(&error))?;
                builder.with_client_auth_cert(chain, key).map_err(|error| {
                    InitError::invalid_config(format!(
                        "tls.client_cert_file and tls.client_key_file: {error}"
                    ))
                })
            }
            (Some(_), None) => {
                Err(InitError::invalid_config("tls.client_cert_file needs tls.client_key_file"))
            }
            (None, Some(_)) => {
                Err(InitError::invalid_config("tls.client_key_file needs tls.client_cert_file"))
            }
        }
    }

    fn roots(&self) -> Result<RootCertStore, InitError> {
        let mut roots = RootCertStore::empty();
        // A machine without certificates may still talk to a private CA, or without TLS.
        roots.add_parsable_certificates(system_certificates());
        if let Some(file) = &self.ca_file {
            for certificate in certificates("tls.ca_file", file)? {
                roots.add(certificate).map_err(|error| bad_file("tls.ca_file", file, &error))?;
            }
        }
        Ok(roots)
    }
}

/// What the system trusts: `SSL_CERT_FILE` and `SSL_CERT_DIR`, else its bundle. Where there is a bundle, the folder beside
/// it holds the same certificates once more in hundreds of files, and reading those is most of a plugin's start.
fn system_certificates() -> Vec<CertificateDer<'static>> {
    let bundle = if openssl_probe::has_ssl_cert_env_vars() { None } else { openssl_probe::probe().cert_file };
    let found = bundle.map(|file| rustls_native_certs::load_certs_from_paths(Some(&file), None).certs);
    found.filter(|found| !found.is_empty()).unwrap_or_else(|| rustls_native_certs::load_native_certs().certs)
}

fn certificates(key: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>, InitError> {
    let pem = read_file(file).map_err(|error| bad_file(key, file, &error))?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let read = read.map_err(|error| bad_file(key, file, &error))?;
    if read.is_empty() {
        return Err(bad_file(key, file, &"it holds no certificate"));
    }
    Ok(read)
}

fn bad_file(key: &str, file: &Path, error: &dyn std::fmt::Display) -> InitError {
    InitError::invalid_config(format!("{key}: cannot use {} (PEM is expected): {error}", file.display()))
}

/// Accepts every certificate, and still checks that the handshake was signed with it.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn error(tls: &Tls) -> String {
        tls.client_config().unwrap_err().to_string()
    }

    #[test]
    fn files_are_read_and_bad_ones_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            Some(path)
        };
        let (cert, key) =
            (write("c.pem", &made.cert.pem()), write("k.pem", &made.signing_key.serialize_pem()));
        let (empty, missing) = (write("empty.pem", ""), Some(folder.path().join("none.pem")));
        let all = Tls {
            ca_file: cert.clone(),
            client_cert_file: cert.clone(),
            client_key_file: key.clone(),
            insecure_skip_verify: false,
        };
        assert!(all.client_config().is_ok());
        assert!(Tls::default().client_config().is_ok());
        assert!(Tls { insecure_skip_verify: true, ..Tls::default() }.client_config().is_ok());
        for (tls, expected) in [
            (Tls { ca_file: empty.clone(), ..Tls::default() }, "it holds no certificate"),
            (Tls { ca_file: missing.clone(), ..Tls::default() }, "tls.ca_file: cannot use"),
            (Tls { client_key_file: None, ..all.clone() }, "tls.client_cert_file needs tls.client_key_file"),
            (Tls { client_cert_file: None, ..all.clone() }, "tls.client_key_file needs tls.client_cert_file"),
            (Tls { client_key_file: cert, ..all.clone() }, "tls.client_key_file: cannot use"),
        ] {
            let said = error(&tls);
            assert!(said.contains(expected), "{tls:?}: {said}");
        }
    }
}
