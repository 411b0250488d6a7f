use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;

/// An authority, and the files of a server that it vouches for.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self {
            issuer: CertifiedIssuer::self_signed(params, key).unwrap(),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// A certificate and its key, in PEM.
    fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// The files of a server called `name`, in the place of those before.
    fn files(&self, name: &str) -> TlsFiles {
        let (certificate, key) = self.issue(name);
        let files = TlsFiles {
            certificates: self.folder.path().join("cert.pem"),
            key: self.folder.path().join("key.pem"),
            client_authorities: None,
        };
        std::fs::write(&files.certificates, certificate).unwrap();
        std::fs::write(&files.key, key).unwrap();
        files
    }

    /// What a client trusts and speaks, and what it shows.
    fn client(&self, protocols: &[&[u8]], shows: Option<(String, String)>) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match shows {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                builder
                    .with_client_auth_cert(vec![certificate], key)
                    .unwrap()
            }
        };
        config.alpn_protocols = protocols.iter().map(|it| it.to_vec()).collect();
        config
    }
}

fn settings(tls: TlsFiles) -> Settings {
    Settings {
        tls: Some(tls),
        poll: Duration::from_millis(10),
        ..Settings::default()
    }
}

async fn connect(
    server: &Running,
    config: ClientConfig,
    name: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    connector.connect(name, server.connect().await).await
}

/// The answer to one request for features over TLS and HTTP/1.1.
async fn online(server: &Running, config: ClientConfig, name: &str) -> std::io::Result<String> {
    let mut stream = connect(server, config, name).await?;
    let asked = request("POST", "/online", &[], &features(), "connection: close\r\n");
    stream.write_all(asked.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_is_spoken_over_tls_whether_a_client_says_so_or_not() {
    let authority = Authority::new();
    let server = grpc::Server::start(settings(authority.files("localhost"))).await;
    for protocols in [&[&b"h2"[..]][..], &[]] {
        let config = authority.client(protocols, None);
        let connector = TlsConnector::from(Arc::new(config));
        let stream = TcpStream::connect(server.grpc).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = connector.connect(name, stream).await.unwrap();
        let (mut client, _connection) = grpc::client(stream).await;
        assert_eq!(grpc::call(&mut client, grpc::HEALTH, None).await, "0");
        assert_eq!(grpc::call(&mut client, grpc::FEATURES, None).await, "0");
    }
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_versions_of_http_are_spoken_over_tls() {
    let authority = Authority::new();
    let server = start(settings(authority.files("localhost"))).await;
    let config = authority.client(&[b"http/1.1"], None);
    assert_status(&online(&server, config, "localhost").await.unwrap(), 200);
    // A client that does not say what it speaks.
    let config = authority.client(&[], None);
    assert_status(&online(&server, config, "localhost").await.unwrap(), 200);

    let config = authority.client(&[b"h2", b"http/1.1"], None);
    let stream = connect(&server, config, "localhost").await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let handshake =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut client, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    let ask = |headers: usize| {
        let mut request = hyper::Request::post("https://localhost/online");
        for header in 0..headers {
            request = request.header(format!("x-{header}"), "1");
        }
        request.body(axum::body::Body::from(features())).unwrap()
    };
    let answers = [client.send_request(ask(0)), client.send_request(ask(1))];
    for answer in futures::future::join_all(answers).await {
        assert_eq!(answer.unwrap().status(), 200);
    }
    // Many short headers are below the limit of bytes.
    let refused = client.send_request(ask(150)).await.unwrap();
    assert_eq!(refused.status(), 431);
    let body = axum::body::to_bytes(axum::body::Body::new(refused.into_body()), 1 << 20).await;
    assert!(String::from_utf8_lossy(&body.unwrap()).contains("too_many_headers"));
    let long = hyper::Request::get("https://localhost/health")
        .header("x", "y".repeat(40 << 10))
        .body(axum::body::Body::empty())
        .unwrap();
    assert_eq!(client.send_request(long).await.unwrap().status(), 431);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_trusts_the_authorities_that_it_is_given() {
    use crate::client::HttpPath;
    use unskew_store::RequestPath;
    let (authority, stranger) = (Authority::new(), Authority::new());
    let server = start(settings(authority.files("localhost"))).await;
    let client = HttpPath::new(
        format!("https://localhost:{}", server.address.port()),
        SERVICE,
    );
    let (plan, rows) = (testing::plan(Vec::new()), testing::rows_of([0]));
    let trusting = |pem: String| client.clone().with_authorities(pem.as_bytes());
    let answer = trusting(authority.issuer.pem())
        .unwrap()
        .answer(&plan, &rows)
        .await;
    assert_eq!(answer.unwrap().num_rows(), 1);
    let strange = trusting(stranger.issuer.pem()).unwrap();
    for client in [&client, &strange] {
        assert!(client.answer(&plan, &rows).await.is_err());
    }
    assert!(trusting(String::new()).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_speaks_no_tls_gets_no_connection() {
    let authority = Authority::new();
    let server = start(settings(authority.files("localhost"))).await;
    let answer = server.online(&[]).await;
    assert!(!answer.contains("HTTP/1.1"), "{answer}");
    let handshakes = || server.counts().handshakes.load(Ordering::Relaxed);
    until(|| handshakes() == 1).await;
    let quick = Settings {
        header_timeout: SHORT,
        ..settings(authority.files("localhost"))
    };
    let server = start(quick).await;
    let mut silent = server.connect().await;
    assert_eq!(to_end(&mut silent).await, "");
    until(|| server.counts().slow.load(Ordering::Relaxed) == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_show_a_certificate_where_one_is_asked_for() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let mut files = authority.files("localhost");
    let clients = authority.folder.path().join("clients.pem");
    std::fs::write(&clients, authority.issuer.pem()).unwrap();
    files.client_authorities = Some(clients);
    let server = start(settings(files)).await;
    let with = |shows| online(&server, authority.client(&[], shows), "localhost");
    let known = with(Some(authority.issue("a-client"))).await.unwrap();
    assert_status(&known, 200);
    assert!(with(None).await.is_err());
    assert!(with(Some(stranger.issue("a-client"))).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_is_used_while_requests_run_and_a_bad_one_is_not() {
    let authority = Authority::new();
    let files = authority.files("before");
    let server = Arc::new(start(settings(files.clone())).await);
    let names = |name| {
        let (server, config) = (Arc::clone(&server), authority.client(&[], None));
        async move { online(&server, config, name).await.is_ok() }
    };
    assert!(names("before").await && !names("after").await);

    // A connection that is there goes on, whatever happens.
    let config = authority.client(&[], None);
    let mut kept = connect(&server, config, "before").await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let asking = tokio::spawn({
        let stop = Arc::clone(&stop);
        async move {
            let mut asked = 0;
            while !stop.load(Ordering::Relaxed) {
                let whole = request("GET", "/health", &[], "", "");
                kept.write_all(whole.as_bytes()).await.unwrap();
                let mut answer = Vec::new();
                while !answer.ends_with(br#"{"status":"up"}"#) {
                    answer.push(kept.read_u8().await.unwrap());
                }
                asked += 1;
            }
            asked
        }
    });
    authority.files("after");
    while !names("after").await {}
    assert!(!names("before").await);

    // At once: a file that is being written has been empty for a moment, and is refused for that.
    let put = |text: &str| {
        let part = files.certificates.with_extension("part");
        std::fs::write(&part, text).unwrap();
        std::fs::rename(&part, &files.certificates).unwrap();
    };
    let refused = || server.counts().refused_files.load(Ordering::Relaxed);
    for (text, more) in [("no PEM", 1), ("", 2)] {
        let before = refused();
        put(text);
        until(|| refused() > before).await;
        assert!(names("after").await, "{more}");
    }
    // A certificate of another key.
    let before = refused();
    put(&authority.issue("other").0);
    until(|| refused() > before).await;
    assert!(names("after").await);
    stop.store(true, Ordering::Relaxed);
    assert!(asking.await.unwrap() > 0);
}

#[test]
fn files_that_are_no_tls_are_named_and_a_key_is_not_shown() {
    let authority = Authority::new();
    let files = authority.files("localhost");
    let open = |files: &TlsFiles| {
        let opened = Gate::open(&settings(files.clone()), PROJECT);
        opened.err().map(|error| error.to_string())
    };
    assert_eq!(open(&files), None);
    let absent = TlsFiles {
        key: PathBuf::from("/nowhere/key.pem"),
        ..files.clone()
    };
    assert!(open(&absent).unwrap().contains("/nowhere/key.pem"));
    let swapped = TlsFiles {
        certificates: files.key.clone(),
        key: files.certificates.clone(),
        client_authorities: None,
    };
    let error = open(&swapped).unwrap();
    assert!(
        error.contains("key.pem") && error.contains("has no certificate"),
        "{error}"
    );
    let no_authority = TlsFiles {
        client_authorities: Some(files.key.clone()),
        ..files.clone()
    };
    assert!(open(&no_authority).unwrap().contains("has no certificate"));
    std::fs::write(&files.key, "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n").unwrap();
    let error = open(&files).unwrap();
    assert!(
        error.contains("has no private key") && !error.contains("c2VjcmV0"),
        "{error}"
    );
    std::fs::write(&files.key, authority.issue("localhost").1).unwrap();
    let error = open(&files).unwrap();
    assert!(error.contains("cannot be used with the key in"), "{error}");
}
