//! A Redis server that speaks TLS alone.

use std::path::PathBuf;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
};
use tempfile::TempDir;

use crate::RedisServer;

/// A server with a certificate for `localhost`, and a certificate for its client, both issued by
/// an authority that nobody else knows.
#[derive(Debug)]
pub struct RedisTls {
    /// The server. `command` and `url` of it do not work: they speak no TLS.
    pub server: RedisServer,
    folder: TempDir,
}

impl RedisTls {
    /// Starts a server that wants a certificate of its clients if it is `mutual`.
    ///
    /// # Panics
    /// It does not start, or was built without TLS.
    pub fn start(mutual: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let write =
            |name: &str, text: String| std::fs::write(folder.path().join(name), text).unwrap();
        let mut authority = CertificateParams::new(vec![]).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        authority
            .distinguished_name
            .push(DnType::CommonName, "authority");
        let authority =
            CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        write("ca.pem", authority.pem());
        for name in ["localhost", "client"] {
            let key = KeyPair::generate().unwrap();
            let issued = CertificateParams::new(vec![name.to_owned()]).unwrap();
            let issued = issued.signed_by(&key, &authority).unwrap();
            write(&format!("{name}.pem"), issued.pem());
            write(&format!("{name}.key"), key.serialize_pem());
        }
        let file = |name: &str| folder.path().join(name).display().to_string();
        let server = RedisServer::start_by(|port| {
            [
                ("--port", "0".to_owned()),
                ("--tls-port", port.to_string()),
                ("--tls-ca-cert-file", file("ca.pem")),
                ("--tls-cert-file", file("localhost.pem")),
                ("--tls-key-file", file("localhost.key")),
                (
                    "--tls-auth-clients",
                    if mutual { "yes" } else { "no" }.to_owned(),
                ),
            ]
            .into_iter()
            .flat_map(|(name, value)| [name.to_owned(), value])
            .collect()
        });
        Self { server, folder }
    }

    /// The file of a certificate or a key: `ca.pem`, `client.pem`, `client.key`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The URL of the server, which trusts its authority.
    pub fn url(&self) -> String {
        let authority = self.file("ca.pem");
        let port = self.server.port();
        format!(
            "rediss://localhost:{port}?ssl_ca_certs={}",
            authority.display()
        )
    }
}
