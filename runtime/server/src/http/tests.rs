use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Float64Array};
use async_trait::async_trait;
use tokio::net::TcpListener;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use unskew_core::digest::Digest;
use unskew_core::plan::FeaturePlan;
use unskew_engine::{CallErrorKind, EvaluateError, Evaluated, Failure};
use unskew_online::{OnlineSettings, OnlineStore};
use unskew_store::{RequestError, RequestPath, RequestRows, StoreError};

use super::*;
use crate::client::HttpPath;
use crate::clock;
use crate::serve::{ServeError, Signals, serve_state};
use crate::served::{Answers, Service};
use crate::settings::Settings;
use crate::testing::{self, ByHand, Random, SERVICE, Store, ids, rows_of};
use crate::work::INLINE_ROWS;

/// A server that runs until it is dropped.
struct Server {
    address: SocketAddr,
    shutdown: oneshot::Sender<()>,
    done: JoinHandle<Result<(), ServeError>>,
}

/// What a server answered.
#[derive(Debug)]
struct Answered {
    status: u16,
    headers: ureq::http::HeaderMap,
    body: String,
}

impl Server {
    async fn start(state: State) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (shutdown, down) = oneshot::channel::<()>();
        let ended = async {
            let _ = down.await;
        };
        Self {
            address,
            shutdown,
            done: tokio::spawn(serve_state(state, listener, Signals::new(ended))),
        }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn client(&self) -> HttpPath {
        HttpPath::new(self.url(), SERVICE)
    }

    async fn send(&self, method: &str, path: &str, body: impl Into<Vec<u8>>) -> Answered {
        send(method, &format!("{}{path}", self.url()), body.into()).await
    }

    async fn online(&self, body: impl Into<Vec<u8>>) -> Answered {
        self.send("POST", "/online", body).await
    }
}

async fn send(method: &str, url: &str, body: Vec<u8>) -> Answered {
    let request = ureq::http::Request::builder()
        .method(method)
        .uri(url)
        .header("content-type", "text/plain")
        .body(body)
        .unwrap();
    let answered = tokio::task::spawn_blocking(move || {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .allow_non_standard_methods(true)
            .build();
        let mut response = config.new_agent().run(request).unwrap();
        Answered {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            body: response.body_mut().read_to_string().unwrap(),
        }
    });
    answered.await.unwrap()
}

impl Answered {
    /// The code of an error, whose form is checked.
    fn code(&self) -> String {
        assert_eq!(self.headers["content-type"], "application/json", "{self:?}");
        let body: BTreeMap<String, BTreeMap<String, String>> =
            serde_json::from_str(&self.body).unwrap();
        assert!(!body["error"]["message"].is_empty());
        body["error"]["code"].clone()
    }
}

/// Answers that go wrong in a chosen way for some rows, and are those of `real` for others.
struct Faulty<F> {
    real: ByHand,
    fault: F,
}

#[async_trait]
impl<F: Fn(&RequestRows) -> Option<StoreError> + Send + Sync> Answers for Faulty<F> {
    fn plan(&self) -> &FeaturePlan {
        self.real.plan()
    }

    fn digest(&self) -> Digest {
        self.real.digest()
    }

    async fn answer(&self, rows: &RequestRows) -> Result<Evaluated, StoreError> {
        match (self.fault)(rows) {
            Some(error) => Err(error),
            None => self.real.answer(rows).await,
        }
    }
}

/// Answers that are not given before they are released.
struct Held {
    real: ByHand,
    begun: Notify,
    released: Notify,
}

#[async_trait]
impl Answers for Arc<Held> {
    fn plan(&self) -> &FeaturePlan {
        self.real.plan()
    }

    fn digest(&self) -> Digest {
        self.real.digest()
    }

    async fn answer(&self, rows: &RequestRows) -> Result<Evaluated, StoreError> {
        self.begun.notify_one();
        self.released.notified().await;
        self.real.answer(rows).await
    }
}

/// The features of 1,300 keys, and a state that serves them.
async fn filled(store: &Store, settings: Settings) -> (State, FeaturePlan, Vec<ArrayRef>) {
    let plan = testing::plan(Vec::new());
    let mut random = Random(7);
    let columns: Vec<ArrayRef> = testing::types()
        .into_iter()
        .map(|(_, data_type)| random.column(data_type, 1300))
        .collect();
    store.fill(&plan, &columns).await;
    let answers = Arc::new(ByHand::new(&plan, &store.online));
    (
        testing::state(settings, answers, &store.online),
        plan,
        columns,
    )
}

fn one_id(id: &str) -> String {
    format!(r#"{{"feature_service": "{SERVICE}", "entities": {{"id": {id}}}}}"#)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_store_holds_is_what_the_client_decodes_bit_for_bit() {
    let store = Store::new();
    let (state, plan, columns) = filled(&store, Settings::default()).await;
    let server = Server::start(state).await;
    let answer = server
        .client()
        .answer(&plan, &rows_of(0..1300))
        .await
        .unwrap();
    assert_eq!(answer.schema(), plan.output_schema());
    for (column, expected) in answer.columns().iter().zip(&columns) {
        // Arrow compares floats by their bits.
        assert_eq!(column, expected);
    }
    let none = server.client().answer(&plan, &rows_of([])).await.unwrap();
    assert_eq!((none.num_rows(), none.schema()), (0, plan.output_schema()));
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_too_large_for_the_server_are_asked_for_in_halves() {
    let store = Store::new();
    let small = Settings {
        rows: 3,
        ..Settings::default()
    };
    let (state, plan, columns) = filled(&store, small).await;
    let server = Server::start(state).await;
    let answer = server
        .client()
        .answer(&plan, &rows_of(0..10))
        .await
        .unwrap();
    assert_eq!(answer.num_rows(), 10);
    assert_eq!(answer.column(0), &columns[0].slice(0, 10));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_has_the_documented_form() {
    let store = Store::new();
    let mut plan = testing::plan(Vec::new());
    plan.outputs.retain(|output| output.name == "float64");
    let nothing =
        |data_type: &arrow::datatypes::DataType| arrow::array::new_null_array(data_type, 2);
    let mut columns: Vec<ArrayRef> = testing::types()
        .iter()
        .map(|(_, t)| nothing(&t.arrow()))
        .collect();
    columns[8] = Arc::new(Float64Array::from(vec![Some(f64::NEG_INFINITY), None]));
    store.fill(&plan, &columns).await;
    let answers = Arc::new(ByHand::new(&plan, &store.online));
    let state = testing::state(Settings::default(), answers, &store.online);
    let server = Server::start(state).await;
    let body = format!(
        r#"{{"feature_service": "{SERVICE}", "entities": {{"id": [0, 1, 2, null]}},
            "as_of": "2001-03-01T13:00:00.5+01:00", "plan": "{}"}}"#,
        plan.digest()
    );
    let answered = server.online(body).await;
    let instant = r#""2001-03-01T12:00:00.500000Z""#;
    let expected = format!(
        r#"{{"plan":"{}","as_of":[{instant},{instant},{instant},{instant}],"features":{{"float64":["-Infinity",null,null,null]}},"statuses":{{"float64":["PRESENT","NULL_VALUE","NOT_FOUND","NOT_FOUND"]}}}}"#,
        plan.digest()
    );
    assert_eq!(
        (answered.status, answered.body.as_str()),
        (200, expected.as_str())
    );
    assert_eq!(answered.headers["content-type"], "application/json");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_instant_the_clock_is_asked() {
    let store = Store::new();
    let (state, ..) = filled(&store, Settings::default()).await;
    let server = Server::start(state).await;
    let answered = server.online(one_id("[]")).await;
    assert_eq!(answered.status, 200, "{answered:?}");
    let before = clock::now();
    let answered = server.online(one_id("0")).await;
    let after = clock::now();
    let body: serde_json::Value = serde_json::from_str(&answered.body).unwrap();
    let as_of = unskew_core::time::parse(body["as_of"][0].as_str().unwrap()).unwrap();
    assert!((before..=after).contains(&as_of), "{answered:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_are_refused_as_json() {
    let store = Store::new();
    let settings = Settings {
        body_bytes: 2000,
        rows: 10,
        ..Settings::default()
    };
    let (state, ..) = filled(&store, settings).await;
    let server = Server::start(state).await;
    let other_plan = format!("sha256:{}", "0".repeat(64));
    let cases: Vec<(&str, &str, String, u16, &str)> = vec![
        ("POST", "/online", String::new(), 400, "invalid_json"),
        ("POST", "/online", "id=1".to_owned(), 400, "invalid_json"),
        (
            "POST",
            "/online",
            one_id("[1, 2").replace(']', ""),
            400,
            "invalid_json",
        ),
        ("POST", "/online", one_id("true"), 400, "invalid_value"),
        (
            "POST",
            "/online",
            one_id("9223372036854775808"),
            400,
            "invalid_value",
        ),
        (
            "POST",
            "/online",
            one_id("1").replace("entities", "entites"),
            400,
            "unknown_field",
        ),
        (
            "POST",
            "/online",
            one_id("1").replace("\"id\"", "\"ID\""),
            400,
            "unknown_field",
        ),
        (
            "POST",
            "/online",
            one_id("1").replace(SERVICE, "nothing"),
            404,
            "unknown_feature_service",
        ),
        (
            "POST",
            "/online",
            one_id("1").replace(SERVICE, "past"),
            400,
            "view_not_online",
        ),
        (
            "POST",
            "/online",
            one_id(&format!(r#"1}}, "plan": "{other_plan}", "request": {{"#)),
            409,
            "plan_mismatch",
        ),
        (
            "POST",
            "/online",
            one_id("[1,2,3,4,5,6,7,8,9,10,11]"),
            400,
            "too_many_rows",
        ),
        (
            "POST",
            "/online",
            one_id(&format!("[{}1]", "1,".repeat(1000))),
            413,
            "body_too_large",
        ),
        ("PUT", "/online", one_id("1"), 405, "method_not_allowed"),
        ("DELETE", "/online", String::new(), 400, "invalid_json"),
        (
            "DELETE",
            "/health",
            String::new(),
            405,
            "method_not_allowed",
        ),
        ("POST", "/health", String::new(), 405, "method_not_allowed"),
        ("GET", "/", String::new(), 404, "unknown_path"),
        ("POST", "/online/", one_id("1"), 404, "unknown_path"),
    ];
    for (method, path, body, status, code) in cases {
        let answered = server.send(method, path, body.clone()).await;
        assert_eq!(
            (answered.status, answered.code()),
            (status, code.to_owned()),
            "{method} {path} {body}"
        );
    }
    let refused = server.send("GET", "/online", "").await;
    assert_eq!(refused.headers["allow"], "POST,DELETE");
    assert_eq!(server.online(one_id("1")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_bytes_make_the_server_fail() {
    let store = Store::new();
    let (state, ..) = filled(&store, Settings::default()).await;
    let server = Server::start(state).await;
    let good = format!(
        r#"{{"feature_service":"{SERVICE}","entities":{{"id":[1,-2,3e0]}},"as_of":"2001-03-01","request":{{}}}}"#
    );
    let mut random = Random(3);
    for _ in 0..300 {
        let mut body = good.clone().into_bytes();
        for _ in 0..=random.below(4) {
            let at = random.below(body.len());
            match random.below(3) {
                0 => body[at] = random.next() as u8,
                1 => drop(body.drain(at..)),
                _ => body.insert(at, b"{}[]\",:0e-\\nt"[random.below(13)]),
            }
            if body.is_empty() {
                break;
            }
        }
        let answered = server.online(body.clone()).await;
        assert!(
            answered.status == 200 || (400..500).contains(&answered.status),
            "{} {answered:?}",
            String::from_utf8_lossy(&body)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_too_large_gets_its_answer_however_it_is_sent() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let store = Store::new();
    let (state, ..) = filled(&store, Settings::default()).await;
    let server = Server::start(state).await;
    let large = vec![b' '; Settings::default().body_bytes + 1];
    let answered = server.online(large.clone()).await;
    assert_eq!(
        (answered.status, answered.code().as_str()),
        (413, "body_too_large")
    );

    // Announced and not sent, since the client asks first.
    let mut stream = tokio::net::TcpStream::connect(server.address)
        .await
        .unwrap();
    let head = format!(
        "POST /online HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        large.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");

    // In chunks, whose sum nobody announces.
    let mut stream = tokio::net::TcpStream::connect(server.address)
        .await
        .unwrap();
    let head = "POST /online HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    for chunk in large.chunks(1 << 20) {
        stream
            .write_all(format!("{:x}\r\n", chunk.len()).as_bytes())
            .await
            .unwrap();
        stream.write_all(chunk).await.unwrap();
        stream.write_all(b"\r\n").await.unwrap();
    }
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_arrive_is_not_waited_for_without_end() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let store = Store::new();
    let settings = Settings {
        timeout: Duration::from_millis(50),
        ..Settings::default()
    };
    let (state, ..) = filled(&store, settings).await;
    let server = Server::start(state).await;
    let mut stream = tokio::net::TcpStream::connect(server.address)
        .await
        .unwrap();
    let head =
        "POST /online HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\nconnection: close\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 408") && answer.contains("body_late"),
        "{answer}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_down_is_503_and_the_server_stays_up() {
    let settings = OnlineSettings::Redis {
        url: "redis://127.0.0.1:1/0".to_owned(),
    };
    let online: Arc<dyn OnlineStore> = unskew_online::connect(&settings).unwrap();
    let plan = testing::plan(Vec::new());
    let answers = Arc::new(ByHand::new(&plan, &online));
    let server = Server::start(testing::state(Settings::default(), answers, &online)).await;
    let answered = server.online(one_id("1")).await;
    assert_eq!(
        (answered.status, answered.code().as_str()),
        (503, "store_unavailable")
    );
    assert_eq!(server.send("GET", "/health", "").await.status, 200);
    let ready = server.send("GET", "/ready", "").await;
    assert_eq!((ready.status, ready.code().as_str()), (503, "not_ready"));
    assert!(ready.body.contains("127.0.0.1:1"), "{ready:?}");
    let error = server
        .client()
        .answer(&plan, &rows_of([1]))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("store_unavailable"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ready_waits_for_every_view_to_be_materialized() {
    let store = Store::new();
    let plan = testing::plan(Vec::new());
    let answers = Arc::new(ByHand::new(&plan, &store.online));
    let state = testing::state(Settings::default(), answers, &store.online);
    let server = Server::start(state).await;
    let ready = server.send("GET", "/ready", "").await;
    assert_eq!((ready.status, ready.code().as_str()), (503, "not_ready"));
    assert!(ready.body.contains("`things`"), "{ready:?}");
    assert!(
        server
            .online(one_id("1"))
            .await
            .body
            .contains("NOT_MATERIALIZED")
    );
    let nothing = testing::types()
        .into_iter()
        .map(|(_, t)| arrow::array::new_null_array(&t.arrow(), 1));
    store.fill(&plan, &nothing.collect::<Vec<_>>()).await;
    assert_eq!(server.send("GET", "/ready", "").await.status, 200);
    assert_eq!(server.send("HEAD", "/ready", "").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_costs_one_request() {
    let store = Store::new();
    let plan = testing::plan(Vec::new());
    let fault = |rows: &RequestRows| {
        assert!(!ids(rows).contains(&13), "unlucky");
        None
    };
    let real = ByHand::new(&plan, &store.online);
    let answers = Arc::new(Faulty { real, fault });
    let server = Server::start(testing::state(Settings::default(), answers, &store.online)).await;
    // On the thread that received it, and off it.
    for body in [
        one_id("13"),
        one_id(&format!("[{}13]", "1,".repeat(INLINE_ROWS))),
    ] {
        let answered = server.online(body).await;
        assert_eq!(
            (answered.status, answered.code().as_str()),
            (500, "internal")
        );
        assert!(!answered.body.contains("unlucky"), "{answered:?}");
        assert_eq!(server.online(one_id("1")).await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_transformation_is_422_and_the_client_knows_it() {
    let store = Store::new();
    let plan = testing::plan(Vec::new());
    let fault = |rows: &RequestRows| {
        let failure = Failure {
            transformation: Some("route".to_owned()),
            component: "route".to_owned(),
            version: "0.1.0".to_owned(),
            function: "route".to_owned(),
            row: Some(ids(rows).iter().position(|id| *id == 777)?),
            kind: CallErrorKind::Failed,
            message: "no such airport".to_owned(),
        };
        Some(StoreError::Evaluate(EvaluateError::Failure(Box::new(
            failure,
        ))))
    };
    let real = ByHand::new(&plan, &store.online);
    let answers = Arc::new(Faulty { real, fault });
    let server = Server::start(testing::state(Settings::default(), answers, &store.online)).await;
    let answered = server.online(one_id("[1, 777]")).await;
    assert_eq!(
        (answered.status, answered.code().as_str()),
        (422, "transformation_failed")
    );
    assert!(
        answered.body.contains("route 0.1.0") && answered.body.contains("row 1"),
        "{answered:?}"
    );

    let error = server
        .client()
        .answer(&plan, &rows_of([777]))
        .await
        .unwrap_err();
    let RequestError::Transformation { message } = error else {
        panic!("{error}");
    };
    assert!(
        message.contains("row 0: no such airport") && !message.contains("rows"),
        "{message}"
    );
    let error = server
        .client()
        .answer(&plan, &rows_of(0..1000))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("rows 500 to 999"), "{error}");
    assert!(error.to_string().contains("row 277"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_another_plan_is_refused() {
    let store = Store::new();
    let (state, plan, _) = filled(&store, Settings::default()).await;
    let server = Server::start(state).await;
    let mut other = plan.clone();
    other.outputs.pop();
    let error = server
        .client()
        .answer(&other, &rows_of([1]))
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("plan_mismatch")
            && error.to_string().contains(&plan.digest().to_string()),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_says_when_there_is_no_server_or_another_one() {
    let plan = testing::plan(Vec::new());
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = format!("http://user:secret@{}/", free.local_addr().unwrap());
    drop(free);
    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stranger = format!("http://{}", other.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(other, Router::new()).await });
    for (url, part) in [
        (nobody.as_str(), "no answer from http://127.0.0.1"),
        (stranger.as_str(), "status 404 and not as an Unskew server"),
        ("localhost", "no answer from localhost"),
    ] {
        let error = HttpPath::new(url, SERVICE)
            .answer(&plan, &rows_of([1]))
            .await
            .unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_waits_for_requests_that_have_begun() {
    let store = Store::new();
    let plan = testing::plan(Vec::new());
    let held = Arc::new(Held {
        real: ByHand::new(&plan, &store.online),
        begun: Notify::new(),
        released: Notify::new(),
    });
    let state = testing::state(
        Settings::default(),
        Arc::new(Arc::clone(&held)),
        &store.online,
    );
    let server = Server::start(state).await;
    let url = format!("{}/online", server.url());
    let asked = tokio::spawn(async move { send("POST", &url, one_id("1").into_bytes()).await });
    held.begun.notified().await;
    server.shutdown.send(()).unwrap();
    held.released.notify_one();
    assert_eq!(asked.await.unwrap().status, 200);
    server.done.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_are_all_answered_by_few_permits() {
    let store = Store::new();
    let settings = Settings {
        concurrency: 2,
        ..Settings::default()
    };
    let (state, plan, columns) = filled(&store, settings).await;
    let server = Server::start(state).await;
    let asked = (0..32_i64).map(|id| {
        let (client, plan) = (server.client(), plan.clone());
        tokio::spawn(async move { client.answer(&plan, &rows_of(id..id + 100)).await })
    });
    for (id, answer) in asked.collect::<Vec<_>>().into_iter().enumerate() {
        let answer = answer.await.unwrap().unwrap();
        assert_eq!(answer.columns().len(), columns.len());
        for (column, expected) in answer.columns().iter().zip(&columns) {
            assert_eq!(column, &expected.slice(id, 100));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_services_is_up_and_ready() {
    let store = Store::new();
    let services: BTreeMap<String, Service> = BTreeMap::new();
    let state = testing::of_services(Settings::default(), services, &store.online);
    let server = Server::start(state).await;
    assert_eq!(server.send("GET", "/ready", "").await.status, 200);
    let answered = server.online(one_id("1")).await;
    assert_eq!(
        (answered.status, answered.code().as_str()),
        (404, "unknown_feature_service")
    );
}
