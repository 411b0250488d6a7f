//! TLS by rustls, with certificates that can change while the server runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

/// The files of TLS, all PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate of the server, and those between it and its authority.
    pub certificates: PathBuf,
    /// The private key of the first certificate.
    pub key: PathBuf,
    /// The authorities of clients. With them only clients with a certificate of one of them get a
    /// connection; `None`: clients need none.
    pub client_authorities: Option<PathBuf>,
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file.
    #[error("cannot read `{}`: {source}", file.display())]
    File {
        /// Which.
        file: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// What a file holds.
    #[error("`{}` has no {wanted}: {reason}", file.display())]
    Pem {
        /// Which.
        file: PathBuf,
        /// What it must hold.
        wanted: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// Files that are no TLS together.
    #[error("`{}` cannot be used with the key in `{}`: {reason}", certificates.display(), key.display())]
    Config {
        /// The certificates.
        certificates: PathBuf,
        /// The key.
        key: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// What the files hold, so that a change of it is seen.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct TlsBytes {
    certificates: Vec<u8>,
    key: Vec<u8>,
    client_authorities: Option<Vec<u8>>,
}

impl TlsBytes {
    pub(crate) fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        let read = |file: &Path| {
            std::fs::read(file).map_err(|source| TlsError::File {
                file: file.to_owned(),
                source,
            })
        };
        Ok(Self {
            certificates: read(&files.certificates)?,
            key: read(&files.key)?,
            client_authorities: files.client_authorities.as_deref().map(read).transpose()?,
        })
    }

    /// What the server says and asks of clients in a handshake; the protocols are those of HTTP.
    pub(crate) fn config(&self, files: &TlsFiles) -> Result<ServerConfig, TlsError> {
        let certificates = certificates(&files.certificates, &self.certificates)?;
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|error| TlsError::Pem {
            file: files.key.clone(),
            wanted: "private key",
            reason: reason(&error),
        })?;
        let wrong = |error: rustls::Error| TlsError::Config {
            certificates: files.certificates.clone(),
            key: files.key.clone(),
            reason: error.to_string(),
        };
        // Named, since another crate of the build may bring a second one.
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(wrong)?;
        let builder = match (&files.client_authorities, &self.client_authorities) {
            (Some(file), Some(bytes)) => {
                let no_authority = |reason: String| TlsError::Pem {
                    file: file.clone(),
                    wanted: "authority of clients",
                    reason,
                };
                let mut roots = RootCertStore::empty();
                for authority in self::certificates(file, bytes)? {
                    roots
                        .add(authority)
                        .map_err(|error| no_authority(error.to_string()))?;
                }
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                        .build()
                        .map_err(|error| no_authority(error.to_string()))?;
                builder.with_client_cert_verifier(verifier)
            }
            _ => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(certificates, key).map_err(wrong)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

fn certificates(file: &Path, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let none = |reason: String| TlsError::Pem {
        file: file.to_owned(),
        wanted: "certificate",
        reason,
    };
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(bytes)
        .collect::<Result<_, _>>()
        .map_err(|error| none(reason(&error)))?;
    if certificates.is_empty() {
        return Err(none("it holds none in PEM".to_owned()));
    }
    Ok(certificates)
}

/// What is wrong with a PEM file, without what is in it: it may be a key.
fn reason(error: &pem::Error) -> String {
    match error {
        pem::Error::NoItemsFound => "it holds none in PEM".to_owned(),
        pem::Error::MissingSectionEnd { .. } => "a section of it does not end".to_owned(),
        pem::Error::IllegalSectionStart { .. } => "a section of it begins wrongly".to_owned(),
        _ => "it is no valid PEM".to_owned(),
    }
}
