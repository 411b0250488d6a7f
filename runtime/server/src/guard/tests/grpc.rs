use arrow::array::Int64Array;
use axum::body::{Body, Bytes};
use futures::StreamExt;
use hyper::body::{Body as HttpBody, Incoming};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tonic_health::pb::HealthCheckResponse;
use tonic_health::pb::health_check_response::ServingStatus;
use unskew_feast_proto::serving::GetOnlineFeaturesRequest;
use unskew_feast_proto::serving::get_online_features_request::Kind;
use unskew_feast_proto::types::value::Val;
use unskew_feast_proto::types::{RepeatedValue, Value};
use unskew_online::{StoredRow, ViewKey, Wanted};

use super::*;
use crate::serve::Listeners;
use crate::testing::Random;
use crate::watch;

pub(super) const FEATURES: &str = "/feast.serving.ServingService/GetFeastServingInfo";
const ONLINE: &str = "/feast.serving.ServingService/GetOnlineFeatures";
pub(super) const HEALTH: &str = "/grpc.health.v1.Health/Check";
const WATCH: &str = "/grpc.health.v1.Health/Watch";

/// A server of both ports, which it is told to end.
pub(super) struct Server {
    pub(super) grpc: SocketAddr,
    state: State,
    shutdown: oneshot::Sender<()>,
    done: JoinHandle<Result<(), ServeError>>,
    _store: Store,
}

impl Server {
    pub(super) async fn start(settings: Settings) -> Self {
        let store = Store::new();
        store.fill(&testing::plan(Vec::new()), &nothing()).await;
        Self::start_over(settings, store).await
    }

    /// A server of what a store holds.
    async fn start_over(settings: Settings, store: Store) -> Self {
        let answers = ByHand::new(&testing::plan(Vec::new()), &store.online);
        let state = testing::state(settings, Arc::new(answers), &store.online);
        let listen = || TcpListener::bind("127.0.0.1:0");
        let (http, grpc) = (listen().await.unwrap(), listen().await.unwrap());
        let address = grpc.local_addr().unwrap();
        let listeners = Listeners {
            http,
            grpc: Some(grpc),
        };
        let (shutdown, down) = oneshot::channel::<()>();
        let signals = Signals::new(async {
            let _ = down.await;
        });
        Self {
            grpc: address,
            state: state.clone(),
            shutdown,
            done: tokio::spawn(serve_state(state, listeners, signals)),
            _store: store,
        }
    }

    async fn connect(&self) -> (SendRequest<Body>, JoinHandle<hyper::Result<()>>) {
        client(TcpStream::connect(self.grpc).await.unwrap()).await
    }

    /// Ends it, and waits until it has ended.
    pub(super) async fn end(self) {
        self.shutdown.send(()).unwrap();
        let done = tokio::time::timeout(PATIENCE, self.done).await;
        done.unwrap().unwrap().unwrap();
    }
}

/// A client over a connection.
pub(super) async fn client<S>(stream: S) -> (SendRequest<Body>, JoinHandle<hyper::Result<()>>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (client, connection) = handshake.await.unwrap();
    (client, tokio::spawn(connection))
}

/// A message of zeros, so many bytes of them.
fn message(bytes: usize) -> Body {
    let length = u32::try_from(bytes).unwrap().to_be_bytes();
    Body::from([&[0][..], &length, &vec![0; bytes]].concat())
}

/// A message that asks for the features of these keys.
fn asking(ids: impl IntoIterator<Item = i64>) -> Body {
    let id = |id| Value {
        val: Some(Val::Int64Val(id)),
    };
    let ids = RepeatedValue {
        val: ids.into_iter().map(id).collect(),
    };
    let request = GetOnlineFeaturesRequest {
        kind: Some(Kind::FeatureService(SERVICE.to_owned())),
        entities: [("id".to_owned(), ids)].into(),
        ..GetOnlineFeaturesRequest::default()
    };
    let request = request.encode_to_vec();
    let length = u32::try_from(request.len()).unwrap().to_be_bytes();
    Body::from([&[0][..], &length, &request].concat())
}

async fn send(
    client: &mut SendRequest<Body>,
    path: &str,
    token: Option<&str>,
    body: Body,
) -> hyper::Response<Incoming> {
    let mut request = hyper::Request::post(format!("http://localhost{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    if let Some(token) = token {
        let (name, value) = token.split_once(": ").unwrap();
        request = request.header(name, value);
    }
    let answer = client.send_request(request.body(body).unwrap());
    let answer = tokio::time::timeout(PATIENCE, answer).await;
    let answer = answer.unwrap().unwrap();
    assert_eq!(answer.status(), 200);
    answer
}

/// The `grpc-status` of an answer.
async fn status(answer: hyper::Response<Incoming>) -> String {
    let (parts, body) = answer.into_parts();
    let body = trailers(body).await;
    let status = parts
        .headers
        .get("grpc-status")
        .or_else(|| body.get("grpc-status"));
    status.unwrap().to_str().unwrap().to_owned()
}

/// The `grpc-status` of a call without a message's fields.
pub(super) async fn call(
    client: &mut SendRequest<Body>,
    path: &str,
    token: Option<&str>,
) -> String {
    status(send(client, path, token, message(0)).await).await
}

/// The data of a body that comes next; `None` at its end.
async fn data(body: &mut Incoming) -> Option<Bytes> {
    loop {
        let frame = std::future::poll_fn(|it| Pin::new(&mut *body).poll_frame(it));
        let frame = tokio::time::timeout(PATIENCE, frame).await.unwrap()?;
        if let Ok(data) = frame.unwrap().into_data() {
            return Some(data);
        }
    }
}

/// The trailers of a body.
async fn trailers(mut body: Incoming) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    while let Some(frame) = std::future::poll_fn(|it| Pin::new(&mut body).poll_frame(it)).await {
        if let Ok(found) = frame.unwrap().into_trailers() {
            trailers = found;
        }
    }
    trailers
}

/// What a message of `Watch` says.
async fn watched(body: &mut Incoming) -> Option<ServingStatus> {
    let message = data(body).await?;
    let answer = HealthCheckResponse::decode(&message[5..]).unwrap();
    Some(answer.status())
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_asks_for_the_same_tokens_and_ends_in_good_order() {
    let mut file = TokenFile::new();
    let reader = file.add("reader", &[Right::Read], |_| {});
    let writer = file.add("writer", &[Right::Write], |_| {});
    let server = Server::start(file.settings()).await;
    let (mut client, connection) = server.connect().await;
    assert_eq!(call(&mut client, FEATURES, Some(&reader)).await, "0");
    assert_eq!(call(&mut client, FEATURES, None).await, "16");
    assert_eq!(
        call(&mut client, FEATURES, Some("authorization: Bearer x")).await,
        "16"
    );
    assert_eq!(call(&mut client, FEATURES, Some(&writer)).await, "7");
    assert_eq!(call(&mut client, HEALTH, None).await, "0");
    server.end().await;
    let ended = tokio::time::timeout(PATIENCE, connection).await;
    ended.unwrap().unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_does_not_arrive_is_not_waited_for() {
    let settings = Settings {
        timeout: SHORT,
        ..Settings::default()
    };
    let server = Server::start(settings).await;
    let (mut client, _connection) = server.connect().await;
    for path in [HEALTH, WATCH, ONLINE] {
        let nothing = futures::stream::pending::<Result<Bytes, std::convert::Infallible>>();
        let answer = send(&mut client, path, None, Body::from_stream(nothing)).await;
        // DEADLINE_EXCEEDED
        assert_eq!(status(answer).await, "4", "{path}");
    }
    assert_eq!(call(&mut client, FEATURES, None).await, "0");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_too_large_or_has_no_memory_has_the_code_of_that() {
    let settings = Settings {
        body_bytes: 1 << 20,
        bodies_bytes: 1 << 20,
        ..Settings::default()
    };
    let server = Server::start(settings).await;
    let (mut client, _connection) = server.connect().await;
    // Zeros are no message, which is INTERNAL; one that is too large is RESOURCE_EXHAUSTED.
    for (bytes, expected) in [(1 << 10, "13"), (600 << 10, "13"), (2 << 20, "8")] {
        let answer = send(&mut client, ONLINE, None, message(bytes)).await;
        assert_eq!(status(answer).await, expected, "{bytes}");
    }
    // One that has nearly all the memory, and does not end.
    let length = u32::to_be_bytes(1 << 20);
    let begun = Bytes::from([&[0][..], &length, &[0; 900 << 10]].concat());
    let begun = futures::stream::iter([Ok::<_, std::convert::Infallible>(begun)]);
    let begun = Body::from_stream(begun.chain(futures::stream::pending()));
    let mut other = client.clone();
    let first = tokio::spawn(async move { send(&mut other, ONLINE, None, begun).await });
    let mut found = String::new();
    for _ in 0..1_000 {
        let answer = send(&mut client, ONLINE, None, message(600 << 10)).await;
        found = status(answer).await;
        if found != "13" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // UNAVAILABLE: another time there is memory for it.
    assert_eq!(found, "14");
    first.abort();
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_watches_is_told_of_the_end_and_does_not_hold_it_up() {
    let settings = Settings {
        idle_timeout: SHORT,
        poll: Duration::from_secs(3_600),
        grace: Duration::from_secs(3_600),
        ..Settings::default()
    };
    let server = Server::start(settings).await;
    let (mut client, connection) = server.connect().await;
    let answer = send(&mut client, WATCH, None, message(0)).await;
    let mut body = answer.into_body();
    assert_eq!(watched(&mut body).await, Some(ServingStatus::Serving));
    // A connection on which somebody watches is none without requests.
    tokio::time::sleep(SHORT * 5).await;
    assert!(!connection.is_finished());
    let slow = &server.state.gate().counts().slow;
    assert_eq!(slow.load(Ordering::Relaxed), 0);

    let gate = Arc::clone(server.state.gate());
    let ended = tokio::spawn(server.end());
    assert_eq!(watched(&mut body).await, Some(ServingStatus::NotServing));
    assert_eq!(watched(&mut body).await, None);
    ended.await.unwrap();
    assert!(gate.is_closing());
}

#[tokio::test(flavor = "multi_thread")]
async fn about_to_end_a_server_says_over_grpc_that_it_is_not_serving() {
    let server = Server::start(Settings::default()).await;
    let (mut client, _connection) = server.connect().await;
    for expected in [ServingStatus::Serving, ServingStatus::NotServing] {
        for path in [HEALTH, WATCH] {
            let answer = send(&mut client, path, None, message(0)).await;
            let mut body = answer.into_body();
            assert_eq!(watched(&mut body).await, Some(expected), "{path}");
        }
        server.state.gate().close();
    }
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_rows_than_a_request_may_have_are_refused_over_grpc() {
    let settings = Settings {
        rows: 2,
        ..Settings::default()
    };
    let server = Server::start(settings).await;
    let (mut client, _connection) = server.connect().await;
    // INVALID_ARGUMENT
    for (rows, expected) in [(2, "0"), (3, "3"), (2_000, "3"), (1, "0")] {
        let answer = send(&mut client, ONLINE, None, asking(0..rows)).await;
        assert_eq!(status(answer).await, expected, "{rows}");
    }
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_value_that_is_damaged_is_an_error_over_grpc_and_counted() {
    let (store, plan) = (Store::new(), testing::plan(Vec::new()));
    let mut random = Random(5);
    let columns = testing::types().into_iter();
    let columns: Vec<ArrayRef> = columns
        .map(|(_, data_type)| random.column(data_type, 2))
        .collect();
    store.fill(&plan, &columns).await;
    let view = ViewKey::of(PROJECT, &plan.lookups[0].view);
    let ids: [ArrayRef; 1] = [Arc::new(Int64Array::from(vec![0]))];
    let mut entity_key = Vec::new();
    assert!(unskew_core::row::encode_key(&ids, 0, &mut entity_key));
    let wanted = Wanted {
        view: Arc::new(view.clone()),
        entities: vec![entity_key.clone()],
    };
    let held = store.online.get(vec![wanted]).await.unwrap();
    let mut value = held[0].rows[0].as_deref().unwrap().to_vec();
    // One bit, and a later event, or the store would keep what it has.
    *value.last_mut().unwrap() ^= 1;
    value[6] += 1;
    let damaged = StoredRow {
        entity_key,
        value,
        expires_at: None,
    };
    let put = store.online.put(&view, vec![damaged]).await;
    assert_eq!(put.unwrap().written, 1);

    let server = Server::start_over(Settings::default(), store).await;
    let (mut client, _connection) = server.connect().await;
    // INTERNAL, without a message; what does not need the row is answered.
    for (ids, expected) in [(vec![0], "13"), (vec![1], "0"), (vec![1, 0], "13")] {
        let answer = send(&mut client, ONLINE, None, asking(ids.clone())).await;
        let (parts, mut body) = answer.into_parts();
        let sent = data(&mut body).await;
        assert_eq!(sent.is_some(), expected == "0", "{ids:?}: {sent:?}");
        let answer = hyper::Response::from_parts(parts, body);
        assert_eq!(status(answer).await, expected, "{ids:?}");
    }
    let metrics = watch::scrape(&server.state).await.unwrap();
    let counted = "unskew_damaged_values_total{view=\"things\"} 2\n";
    assert!(metrics.contains(counted), "{metrics}");
    server.end().await;
}
