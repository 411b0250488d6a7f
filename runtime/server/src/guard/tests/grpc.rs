use axum::body::Body;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::*;
use crate::serve::Listeners;

const FEATURES: &str = "/feast.serving.ServingService/GetFeastServingInfo";
const HEALTH: &str = "/grpc.health.v1.Health/Check";

/// The `grpc-status` of a call without a message's fields.
async fn call(client: &mut SendRequest<Body>, path: &str, token: Option<&str>) -> String {
    let mut request = hyper::Request::post(format!("http://localhost{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    if let Some(token) = token {
        let (name, value) = token.split_once(": ").unwrap();
        request = request.header(name, value);
    }
    let request = request.body(Body::from(vec![0; 5])).unwrap();
    let answer = client.send_request(request).await.unwrap();
    assert_eq!(answer.status(), 200);
    let (parts, body) = answer.into_parts();
    let body = http_body(body).await;
    let status = parts
        .headers
        .get("grpc-status")
        .or_else(|| body.get("grpc-status"));
    status.unwrap().to_str().unwrap().to_owned()
}

/// The trailers of a body.
async fn http_body(body: hyper::body::Incoming) -> HeaderMap {
    use hyper::body::Body as _;
    let mut body = std::pin::pin!(body);
    let mut trailers = HeaderMap::new();
    while let Some(frame) = std::future::poll_fn(|it| body.as_mut().poll_frame(it)).await {
        if let Ok(found) = frame.unwrap().into_trailers() {
            trailers = found;
        }
    }
    trailers
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_asks_for_the_same_tokens_and_ends_in_good_order() {
    let mut file = TokenFile::new();
    let reader = file.add("reader", &[Right::Read], |_| {});
    let writer = file.add("writer", &[Right::Write], |_| {});
    let store = Store::new();
    let plan = testing::plan(Vec::new());
    let answers = Arc::new(ByHand::new(&plan, &store.online));
    let state = testing::state(file.settings(), answers, &store.online);
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
    let serving = tokio::spawn(serve_state(state, listeners, signals));

    let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let (mut client, connection) = http2::handshake(TokioExecutor::new(), stream)
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    assert_eq!(call(&mut client, FEATURES, Some(&reader)).await, "0");
    assert_eq!(call(&mut client, FEATURES, None).await, "16");
    assert_eq!(
        call(&mut client, FEATURES, Some("authorization: Bearer x")).await,
        "16"
    );
    assert_eq!(call(&mut client, FEATURES, Some(&writer)).await, "7");
    assert_eq!(call(&mut client, HEALTH, None).await, "0");
    shutdown.send(()).unwrap();
    tokio::time::timeout(PATIENCE, serving)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    tokio::time::timeout(PATIENCE, connection)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}
