use super::*;

/// A request on a connection that is kept, and the head of its answer.
async fn kept(stream: &mut TcpStream, path: &str) -> String {
    let whole = request("GET", path, &[], "", "");
    stream.write_all(whole.as_bytes()).await.unwrap();
    let answer = head(stream).await;
    let length = answer
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.unwrap().parse().unwrap()];
    stream.read_exact(&mut body).await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn told_to_end_a_server_is_not_ready_but_answers_until_balancers_have_noticed() {
    let settings = Settings {
        drain: Duration::from_secs(2),
        ..Settings::default()
    };
    let mut server = start(settings).await;
    let mut before = server.connect().await;
    assert_status(&kept(&mut before, "/ready").await, 200);
    server.shut_down();
    until(|| server.state.gate().is_closing()).await;

    let answer = server.ask("GET", "/ready", &[], "").await;
    assert_refused(&answer, 503, "not_ready");
    assert!(answer.contains("about to end"), "{answer}");
    assert_status(&server.ask("GET", "/health", &[], "").await, 200);
    assert_status(&server.online(&[]).await, 200);
    // A connection that was kept is given up with its next answer.
    let answer = kept(&mut before, "/health").await;
    assert_status(&answer, 200);
    assert!(answer.contains("connection: close"), "{answer}");
    assert_eq!(to_end(&mut before).await, "");
    (&mut server.done).await.unwrap().unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_without_requests_end_at_once_and_others_with_their_answer() {
    let (mut server, held) = start_held(Settings::default()).await;
    let mut idle = server.connect().await;
    assert_status(&kept(&mut idle, "/health").await, 200);
    let mut busy = server.connect().await;
    let asked = request("POST", "/online", &[], &features(), "");
    busy.write_all(asked.as_bytes()).await.unwrap();
    held.begun().await;
    server.shut_down();
    assert_eq!(to_end(&mut idle).await, "");
    assert!(!server.done.is_finished());
    held.release(1);
    let answer = to_end(&mut busy).await;
    assert_status(&answer, 200);
    assert!(answer.contains("connection: close"), "{answer}");
    (&mut server.done).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_does_not_end_is_cut_off() {
    let settings = Settings {
        grace: SHORT,
        ..Settings::default()
    };
    let (mut server, held) = start_held(settings).await;
    let asked = server.spawn_online(features());
    held.begun().await;
    server.shut_down();
    let done = tokio::time::timeout(PATIENCE, &mut server.done);
    done.await.unwrap().unwrap().unwrap();
    assert_eq!(asked.await.unwrap(), "");
    held.release(1);
}
