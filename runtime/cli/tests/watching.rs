//! What a server says about itself: its log, spans to a collector, and its log of features.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use common::Repository;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use prost::Message;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio_rustls::TlsConnector;
use unskew_feast_proto::serving::get_online_features_request::Kind;
use unskew_feast_proto::serving::serving_service_client::ServingServiceClient;
use unskew_feast_proto::serving::{
    FieldStatus, GetOnlineFeaturesRequest, GetOnlineFeaturesResponse,
};
use unskew_feast_proto::types;
use unskew_feast_proto::types::value::Val;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

const DEFINITIONS: &str = "
entities:
  - {name: driver, join_keys: [{name: driver_id}]}
sources:
  - {name: trips, path: trips.parquet, timestamp_field: ended_at}
feature_views:
  - name: last_trip
    entities: [driver]
    source: trips
    features: [{name: miles}]
feature_services:
  - {name: model, features: [last_trip]}
";
const ASK: &str = r#"{"feature_service": "model", "entities": {"driver_id": [7, 8]}}"#;
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// A repository that can be served.
fn repository() -> Repository {
    let repository = Repository::empty("project: taxis\n");
    repository.write("features/trips.yaml", DEFINITIONS);
    let instants = TimestampMicrosecondArray::from(vec![1]).with_timezone("UTC");
    let columns: [(&str, ArrayRef); 3] = [
        ("driver_id", Arc::new(Int64Array::from(vec![7]))),
        ("ended_at", Arc::new(instants)),
        ("miles", Arc::new(Int64Array::from(vec![10]))),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let file = std::fs::File::create(repository.path("trips.parquet")).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    repository.run(&["apply"]).done();
    repository
        .run(&["materialize-incremental", "1970-01-02"])
        .done();
    repository
}

/// A server that is ended with the test, however that ends.
struct Server {
    child: Child,
    url: String,
    stderr: ChildStderr,
    stdout: BufReader<ChildStdout>,
}

impl Server {
    fn start(repository: &Repository, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = repository.command(&[&["serve", "--port", "0"], arguments].concat());
        for (name, _) in std::env::vars() {
            if name.starts_with("OTEL_") || name.starts_with("UNSKEW_") {
                command.env_remove(name);
            }
        }
        let mut child = command
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = child.stderr.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut server = Self {
            child,
            url: String::new(),
            stderr,
            stdout,
        };
        server.url = server.next_url();
        server
    }

    /// The URL at the end of the next line on standard output.
    fn next_url(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line.trim().rsplit(' ').next().unwrap().to_owned()
    }

    /// Asks for features within a trace, and says the status.
    fn ask(&self, id: &str, body: &str) -> u16 {
        let config = ureq::Agent::config_builder().http_status_as_error(false);
        let answered = config
            .build()
            .new_agent()
            .post(format!("{}/online", self.url))
            .header("x-request-id", id)
            .header("traceparent", format!("00-{TRACE}-{PARENT}-01"))
            .send(body)
            .unwrap();
        assert_eq!(answered.headers()["x-request-id"], id);
        answered.status().as_u16()
    }

    fn get(&self, path: &str) -> String {
        let answer = ureq::get(format!("{}{path}", self.url)).call();
        answer.unwrap().body_mut().read_to_string().unwrap()
    }

    /// Waits until `/ready` is as `is` wants it.
    fn wait_until_ready(&self, is: impl Fn(&Value) -> bool) {
        while !is(&serde_json::from_str(&self.get("/ready")).unwrap()) {
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until the registry was looked into a few times more, with this result.
    fn wait_for_polls(&self, result: &str) {
        let sample = format!("unskew_reloads_total{{result=\"{result}\"}} ");
        let polls = || -> u64 {
            let metrics = self.get("/metrics");
            let found = metrics.lines().find_map(|line| line.strip_prefix(&sample));
            found.expect(&metrics).parse().unwrap()
        };
        let before = polls();
        while polls() < before + 3 {
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends the server in good order; what it wrote on standard error.
    fn end(mut self) -> String {
        let pid = self.child.id().to_string();
        let told = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(told.unwrap().success());
        let mut said = String::new();
        self.stderr.read_to_string(&mut said).unwrap();
        assert!(self.child.wait().unwrap().success(), "{said}");
        said
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The lines of a log about something.
fn about(log: &str, what: &str) -> Vec<Value> {
    let lines = log
        .lines()
        .map(|line| serde_json::from_str(line).expect(line));
    lines
        .filter(|line: &Value| line["message"].as_str().unwrap().contains(what))
        .collect()
}

#[test]
fn each_request_is_a_line_of_the_log_at_the_level_that_is_asked_for() {
    let repository = repository();
    let json = ["--log-format", "json", "--request-log-level", "info"];
    let server = Server::start(&repository, &json, &[]);
    assert_eq!(server.ask("first", ASK), 200);
    assert_eq!(server.ask("second", "no JSON"), 400);
    let log = server.end();
    let lines = about(&log, "answered");
    assert_eq!(lines.len(), 2, "{log}");
    for (name, expected) in [
        ("request_id", "first"),
        ("trace_id", TRACE),
        ("method", "POST"),
        ("route", "/online"),
        ("service", "model"),
        ("level", "INFO"),
    ] {
        assert_eq!(lines[0][name], expected, "{log}");
    }
    assert_eq!(
        (&lines[0]["status"], &lines[0]["rows"]),
        (&200.into(), &2.into())
    );
    assert!(lines[0]["micros"].as_u64().unwrap() > 0);
    assert_eq!(lines[0].get("code"), None);
    assert_eq!(
        (&lines[1]["request_id"], &lines[1]["code"]),
        (&"second".into(), &"invalid_json".into())
    );

    // Requests are logged at DEBUG, and that is not logged, if nothing else is said.
    let server = Server::start(&repository, &[], &[]);
    assert_eq!(server.ask("first", ASK), 200);
    let log = server.end();
    assert!(!log.contains("answered"), "{log}");

    let text = [("UNSKEW_LOG", "warn,unskew_server::request=debug")];
    let server = Server::start(&repository, &[], &text);
    assert_eq!(server.ask("third", ASK), 200);
    let log = server.end();
    assert!(
        log.contains("answered") && log.contains("request_id=\"third\""),
        "{log}"
    );
}

#[test]
fn the_log_says_once_what_is_refused_and_what_is_waited_for() {
    const REFUSED: &str = "cannot serve the newest state of the registry";
    const SERVING: &str = "serving a new state of the registry";
    let repository = repository();
    let polling = ["--log-format", "json", "--poll", "20ms"];
    let server = Server::start(&repository, &polling, &[]);
    // It listens before it has loaded what it serves.
    assert_eq!(server.ask("first", ASK), 200);
    let state_2 = repository.path(".unskew/registry/states/00000000000000000002.json");
    repository.write("later.json", r#"{"format": 9}"#);
    std::fs::rename(repository.path("later.json"), &state_2).unwrap();
    server.wait_until_ready(|ready| ready["reload_failure"].is_string());
    server.wait_for_polls("failure");
    assert_eq!(server.ask("refused", ASK), 200);
    std::fs::remove_file(&state_2).unwrap();
    server.wait_until_ready(|ready| ready["reload_failure"].is_null());

    // Another meaning of the view, and with it a plan that is not materialized.
    let changed = DEFINITIONS.replace("ended_at}", "ended_at, columns: {miles: driver_id}}");
    assert_ne!(changed, DEFINITIONS);
    repository.write("features/trips.yaml", &changed);
    repository.run(&["apply"]).done();
    server.wait_until_ready(|ready| ready["waiting"].is_object());
    server.wait_for_polls("success");
    assert_eq!(server.ask("waiting", ASK), 200);
    repository
        .run(&["materialize-incremental", "1970-01-02"])
        .done();
    server.wait_until_ready(|ready| ready["state"] == 2 && ready["waiting"].is_null());
    server.wait_for_polls("success");
    let log = server.end();

    let refused = about(&log, REFUSED);
    assert_eq!(refused.len(), 1, "{log}");
    assert_eq!(refused[0]["level"], "ERROR", "{log}");
    let error = refused[0]["error"].as_str().unwrap();
    assert!(error.contains("form 9"), "{error}");
    assert_eq!(about(&log, "reloading works again").len(), 1, "{log}");
    // First with what is waited for, then with nothing.
    let serving = about(&log, SERVING);
    assert_eq!(serving.len(), 2, "{log}");
    for (line, waiting) in serving.iter().zip([r#"{"model": ["last_trip"]}"#, "{}"]) {
        assert_eq!(line["level"], "INFO", "{log}");
        assert_eq!(line["state"], 2, "{log}");
        assert_eq!(line["waiting"], waiting, "{log}");
    }
}

/// A collector: what is posted to it, decoded.
struct Collector {
    url: String,
    requests: Receiver<ExportTraceServiceRequest>,
}

impl Collector {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (sender, requests) = mpsc::channel();
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let mut connection = BufReader::new(connection.unwrap());
                while let Some(request) = receive(&mut connection) {
                    let _ = sender.send(request);
                }
            }
        });
        Self { url, requests }
    }
}

/// Reads an export as the specification of OTLP over HTTP says, and acknowledges it.
fn receive(connection: &mut BufReader<TcpStream>) -> Option<ExportTraceServiceRequest> {
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if connection.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line.trim().is_empty() {
            break;
        }
        head.push(line.trim().to_ascii_lowercase());
    }
    assert_eq!(head[0], "post /v1/traces http/1.1");
    assert!(
        head.contains(&"content-type: application/x-protobuf".to_owned()),
        "{head:?}"
    );
    let length = head
        .iter()
        .find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.unwrap().parse().unwrap()];
    connection.read_exact(&mut body).unwrap();
    let answer = ExportTraceServiceResponse::default().encode_to_vec();
    let connection = connection.get_mut();
    write!(
        connection,
        "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: {}\r\n\r\n",
        answer.len()
    )
    .unwrap();
    connection.write_all(&answer).unwrap();
    Some(ExportTraceServiceRequest::decode(&body[..]).unwrap())
}

/// An attribute as text.
fn attribute(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    Some(match found.value.as_ref()?.value.as_ref()? {
        any_value::Value::StringValue(text) => text.clone(),
        any_value::Value::IntValue(number) => number.to_string(),
        other => format!("{other:?}"),
    })
}

#[test]
fn spans_of_requests_reach_a_collector_as_children_of_their_callers() {
    let repository = repository();
    let collector = Collector::start();
    let environment = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.as_str()),
        ("OTEL_SERVICE_NAME", "taxis"),
    ];
    // Whatever the level of the log.
    let server = Server::start(&repository, &["--log-level", "error"], &environment);
    assert_eq!(server.ask("first", ASK), 200);
    assert_eq!(server.ask("second", "no JSON"), 400);
    // The end of the server sends what was not sent yet.
    let log = server.end();
    let mut spans: Vec<Span> = Vec::new();
    while let Ok(request) = collector.requests.try_recv() {
        for of_resource in request.resource_spans {
            let resource = of_resource.resource.unwrap().attributes;
            assert_eq!(
                attribute(&resource, "service.name").as_deref(),
                Some("taxis")
            );
            let of_scopes = of_resource.scope_spans.into_iter();
            spans.extend(of_scopes.flat_map(|of_scope| of_scope.spans));
        }
    }
    assert_eq!(spans.len(), 2, "{log}");
    spans.sort_by_key(|span| span.start_time_unix_nano);
    for span in &spans {
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        assert_eq!(
            (
                hex(&span.trace_id).as_str(),
                hex(&span.parent_span_id).as_str()
            ),
            (TRACE, PARENT)
        );
        assert_eq!(span.name, "POST /online");
        assert_eq!(span.kind, SpanKind::Server as i32);
        assert!(span.end_time_unix_nano > span.start_time_unix_nano);
        assert_eq!(
            attribute(&span.attributes, "http.route").as_deref(),
            Some("/online")
        );
    }
    let of = |span: usize, key: &str| attribute(&spans[span].attributes, key);
    assert_eq!(of(0, "request_id").as_deref(), Some("first"));
    assert_eq!(of(0, "http.response.status_code").as_deref(), Some("200"));
    assert_eq!(of(0, "unskew.service").as_deref(), Some("model"));
    assert_eq!(of(0, "unskew.rows").as_deref(), Some("2"));
    assert_eq!(of(1, "http.response.status_code").as_deref(), Some("400"));
    assert_eq!(of(1, "error.type").as_deref(), Some("invalid_json"));
}

#[test]
fn an_export_that_there_is_not_is_refused() {
    let repository = Repository::empty("project: taxis\n");
    let mut command = repository.command(&["serve"]);
    command
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317")
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
    let ran = common::Ran::of(command.output().unwrap());
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    assert!(ran.stderr.contains("http/protobuf"), "{}", ran.stderr);
}

/// Asks over gRPC and TLS for the features of two drivers, trusting this certificate alone.
fn ask_grpc(url: &str, trusted: &CertificateDer<'static>, id: &str) -> GetOnlineFeaturesResponse {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = TlsConnector::from(Arc::new(config));
    let drivers = [7, 8].map(|driver| types::Value {
        val: Some(Val::Int64Val(driver)),
    });
    let drivers = types::RepeatedValue {
        val: drivers.to_vec(),
    };
    let mut request = tonic::Request::new(GetOnlineFeaturesRequest {
        kind: Some(Kind::FeatureService("model".to_owned())),
        entities: [("driver_id".to_owned(), drivers)].into(),
        ..GetOnlineFeaturesRequest::default()
    });
    let metadata = request.metadata_mut();
    metadata.insert("x-request-id", id.parse().unwrap());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let origin: hyper::Uri = url.parse().unwrap();
        let address = origin.authority().unwrap().as_str();
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let stream = TokioIo::new(connector.connect(name, stream).await.unwrap());
        let connected = http2::handshake(TokioExecutor::new(), stream).await;
        let (mut sender, connection) = connected.unwrap();
        tokio::spawn(connection);
        let send = move |request: hyper::Request<tonic::body::Body>| sender.send_request(request);
        let mut client = ServingServiceClient::with_origin(tower::service_fn(send), origin);
        let answer = client.get_online_features(request).await;
        answer.unwrap().into_inner()
    })
}

/// The only entry of a folder.
fn only(folder: &Path) -> PathBuf {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut entries: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    assert_eq!(entries.len(), 1, "{entries:?}");
    entries.remove(0)
}

#[test]
fn both_ports_answer_over_tls_and_what_they_served_is_in_the_log_of_features() {
    let repository = repository();
    let own = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    repository.write("cert.pem", &own.cert.pem());
    repository.write("key.pem", &own.signing_key.serialize_pem());
    let arguments = "--grpc-port 0 --tls-cert cert.pem --tls-key key.pem \
        --log-features served --log-features-sample 1 \
        --log-format json --log-level info,unskew_server=debug";
    let arguments: Vec<&str> = arguments.split_whitespace().collect();
    let mut server = Server::start(&repository, &arguments, &[]);
    let grpc = server.next_url();
    assert!(server.url.starts_with("https://127.0.0.1:"));
    assert!(grpc.starts_with("https://127.0.0.1:") && grpc != server.url);

    let ask = |url: &str, trusted: RootCerts| {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .tls_config(TlsConfig::builder().root_certs(trusted).build())
            .build()
            .new_agent();
        let request = agent.post(format!("{url}/online"));
        request.header("x-request-id", "over-https").send(ASK)
    };
    let trusted = || RootCerts::new_with_certs(&[Certificate::from_der(own.cert.der()).to_owned()]);
    let mut answer = ask(&server.url, trusted()).unwrap();
    assert_eq!(answer.status(), 200);
    let answer = answer.body_mut().read_to_string().unwrap();
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["features"], json!({"miles": [10, null]}));
    assert_eq!(
        answer["statuses"],
        json!({"miles": ["PRESENT", "NOT_FOUND"]})
    );
    // Without TLS, and with the authorities of others.
    let plain = server.url.replace("https:", "http:");
    for (url, trusted) in [(&plain, trusted()), (&server.url, RootCerts::WebPki)] {
        let refused = ask(url, trusted);
        assert!(refused.is_err(), "{refused:?}");
    }

    let found = ask_grpc(&grpc, own.cert.der(), "over-grpc");
    let names = found.metadata.unwrap().feature_names.unwrap().val;
    assert_eq!(names, ["driver_id", "miles"]);
    let miles = &found.results[1];
    let values: Vec<Option<Val>> = miles.values.iter().map(|value| value.val.clone()).collect();
    assert_eq!(values, [Some(Val::Int64Val(10)), None]);
    let statuses: Vec<FieldStatus> = miles.statuses().collect();
    assert_eq!(statuses, [FieldStatus::Present, FieldStatus::NotFound]);

    let log = server.end();
    assert_eq!(about(&log, "a TLS handshake failed").len(), 2, "{log}");
    // Its name is that of a complete file, and nothing is left beside it.
    let file = only(&only(&repository.path("served/model")));
    assert!(!file.file_name().unwrap().to_str().unwrap().starts_with('.'));
    let file = std::fs::File::open(file).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    let rows = reader.build().unwrap().next().unwrap().unwrap();
    let texts = |texts: [&str; 4]| Arc::new(StringArray::from(texts.to_vec())) as ArrayRef;
    let miles = vec![Some(10), None, Some(10), None];
    for (column, expected) in [
        (
            "driver_id",
            Arc::new(Int64Array::from(vec![7, 8, 7, 8])) as ArrayRef,
        ),
        ("served:miles", Arc::new(Int64Array::from(miles))),
        (
            "status:miles",
            texts(["PRESENT", "NOT_FOUND", "PRESENT", "NOT_FOUND"]),
        ),
        (
            "@request_id",
            texts(["over-https", "over-https", "over-grpc", "over-grpc"]),
        ),
        ("@plan", texts([answer["plan"].as_str().unwrap(); 4])),
    ] {
        assert_eq!(&rows[column], &expected, "{column}");
    }
}
