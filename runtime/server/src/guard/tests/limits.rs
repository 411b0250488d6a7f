use unskew_core::component::{Description, Kind};
use unskew_core::plan::Step;
use unskew_core::view::OnError;
use unskew_online::OnlineStore;

use super::*;
use crate::served::Service;

fn slow(server: &Running) -> u64 {
    server.counts().slow.load(Ordering::Relaxed)
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_headers_and_too_long_ones_are_431() {
    let server = start(Settings::default()).await;
    let names: Vec<String> = (0..10_000).map(|it| format!("x-{it}: 1")).collect();
    let headers: Vec<&str> = names.iter().map(String::as_str).collect();
    assert_status(&server.online(&headers).await, 431);
    assert_status(&server.online(&headers[..101]).await, 431);
    assert_status(&server.online(&headers[..90]).await, 200);
    let long = format!("x: {}", "y".repeat(Settings::default().header_bytes));
    assert_status(&server.online(&[&long]).await, 431);
    let long = format!("/online?{}", "y".repeat(Settings::default().header_bytes));
    assert_status(&server.ask("POST", &long, &[], "").await, 431);
    // A head that is refused before it ends.
    let mut stream = server.connect().await;
    let endless = format!("GET /health HTTP/1.1\r\nx: {}", "y".repeat(1 << 20));
    let _ = stream.write_all(endless.as_bytes()).await;
    let answer = to_end(&mut stream).await;
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 431"),
        "{answer}"
    );
    assert_status(&server.online(&[]).await, 200);

    let settings = Settings {
        headers: 10_100,
        header_bytes: 1 << 20,
        ..Settings::default()
    };
    let server = start(settings).await;
    assert_status(&server.online(&headers).await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_does_not_arrive_costs_the_connection() {
    let settings = Settings {
        header_timeout: SHORT,
        ..Settings::default()
    };
    let server = start(settings).await;
    // Nothing at all, and half a head.
    for text in ["", "POST /online HTTP/1.1\r\nhost: x\r\nx-half"] {
        let before = slow(&server);
        let mut stream = server.connect().await;
        stream.write_all(text.as_bytes()).await.unwrap();
        assert_eq!(to_end(&mut stream).await, "");
        until(|| slow(&server) == before + 1).await;
    }
    // A byte now and then does not help.
    let mut stream = server.connect().await;
    let _ = stream.write_all(b"GET /health HTTP/1.1\r\n").await;
    let drip = async {
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(SHORT / 10).await;
        }
    };
    tokio::time::timeout(PATIENCE, drip).await.unwrap();
    until(|| slow(&server) == 3).await;
    // Half a head after a whole request.
    let mut stream = server.connect().await;
    let whole = request("GET", "/health", &[], "", "");
    stream.write_all(whole.as_bytes()).await.unwrap();
    assert_status(&head(&mut stream).await, 200);
    stream.write_all(b"GET /health HTTP/1.1\r\n").await.unwrap();
    to_end(&mut stream).await;
    until(|| slow(&server) == 4).await;
    assert_status(&server.online(&[]).await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_requests_is_not_kept_for_ever() {
    let settings = Settings {
        idle_timeout: SHORT,
        ..Settings::default()
    };
    let server = start(settings).await;
    let mut stream = server.connect().await;
    for _ in 0..3 {
        let whole = request("GET", "/health", &[], "", "");
        stream.write_all(whole.as_bytes()).await.unwrap();
        assert_status(&head(&mut stream).await, 200);
        let mut body = [0; br#"{"status":"up"}"#.len()];
        stream.read_exact(&mut body).await.unwrap();
    }
    assert_eq!(to_end(&mut stream).await, "");
    until(|| slow(&server) == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_kept_while_its_request_is_answered() {
    let settings = Settings {
        idle_timeout: SHORT,
        header_timeout: SHORT,
        ..Settings::default()
    };
    let (server, held) = start_held(settings).await;
    let asked = server.spawn_online(features());
    held.begun().await;
    tokio::time::sleep(SHORT * 4).await;
    held.release(1);
    assert_status(&asked.await.unwrap(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_its_answer_is_not_waited_for() {
    let settings = Settings {
        timeout: SHORT,
        ..Settings::default()
    };
    let gate = Arc::new(Gate::open(&settings, PROJECT).unwrap());
    let large = || async { vec![0_u8; 64 << 20] };
    let router = axum::Router::new().route("/", axum::routing::get(large));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (closing, closed) = tokio::sync::watch::channel(false);
    let serving = tokio::spawn(serve(
        Arc::clone(&gate),
        Arc::new(Workers::start().unwrap()),
        listener,
        router,
        Wire::Http,
        closed,
    ));
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    until(|| gate.counts().slow.load(Ordering::Relaxed) == 1).await;
    // Nor when it reads a little.
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let sip = async {
        let mut bytes = vec![0; 100 << 10];
        while gate.counts().slow.load(Ordering::Relaxed) < 2 {
            let _ = stream.read(&mut bytes).await;
            tokio::time::sleep(SHORT / 10).await;
        }
    };
    tokio::time::timeout(PATIENCE, sip).await.unwrap();
    closing.send(true).unwrap();
    serving.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn more_connections_than_there_may_be_wait_for_one_to_end() {
    let settings = Settings {
        connections: 1,
        ..Settings::default()
    };
    let server = start(settings).await;
    let mut first = server.connect().await;
    let whole = request("GET", "/health", &[], "", "");
    first.write_all(whole.as_bytes()).await.unwrap();
    assert_status(&head(&mut first).await, 200);

    let second = server.spawn_online(features());
    tokio::time::sleep(SHORT).await;
    assert!(!second.is_finished());
    assert_eq!(server.counts().connections.load(Ordering::Relaxed), 1);
    drop(first);
    assert_status(&second.await.unwrap(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_queue_requests_are_refused_at_once_and_told_when_to_come_back() {
    let settings = Settings {
        concurrency: 1,
        queue: 1,
        queue_timeout: PATIENCE,
        ..Settings::default()
    };
    let (server, held) = start_held(settings).await;
    let first = server.spawn_online(features());
    held.begun().await;
    // One of two waits for its turn, and the other hears at once that it need not.
    let (mut one, mut other) = (
        server.spawn_online(features()),
        server.spawn_online(features()),
    );
    let (refused, waits) = tokio::select! {
        refused = &mut one => (refused.unwrap(), other),
        refused = &mut other => (refused.unwrap(), one),
    };
    assert_refused(&refused, 503, "overloaded");
    assert!(refused.contains("retry-after: 1"), "{refused}");
    assert_status(&server.ask("GET", "/health", &[], "").await, 200);
    held.release(2);
    assert_status(&first.await.unwrap(), 200);
    assert_status(&waits.await.unwrap(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_gets_no_turn_in_time_is_told_to_come_back() {
    let settings = Settings {
        concurrency: 1,
        queue_timeout: SHORT,
        ..Settings::default()
    };
    let (server, held) = start_held(settings).await;
    let first = server.spawn_online(features());
    held.begun().await;
    let refused = server.online(&[]).await;
    assert_refused(&refused, 503, "overloaded");
    held.release(1);
    assert_status(&first.await.unwrap(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_late_is_504() {
    let settings = Settings {
        timeout: SHORT,
        ..Settings::default()
    };
    let (server, held) = start_held(settings).await;
    assert_refused(&server.online(&[]).await, 504, "late");
    assert_status(&server.ask("GET", "/health", &[], "").await, 200);
    held.release(1);
}

/// A service called `name` whose component takes as long as it likes.
fn with_component(name: &str, online: &Arc<dyn OnlineStore>) -> (Arc<Held>, Service) {
    let mut plan = testing::plan(Vec::new());
    let real = ByHand::new(&plan, online);
    plan.service = Some(name.to_owned());
    plan.steps.push(Step {
        name: "slow".to_owned(),
        component: Digest::of(b""),
        description: Description {
            component: "slow".to_owned(),
            version: "0.1.0".to_owned(),
            function: "slow".to_owned(),
            documentation: String::new(),
            kind: Kind::OnDemand,
            inputs: Vec::new(),
            outputs: Vec::new(),
        },
        inputs: Vec::new(),
        on_error: OnError::Fail,
    });
    let held = Held::new(real, plan);
    (Arc::clone(&held), Service::Ready(Arc::new(held)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_that_takes_long_leaves_other_services_their_share() {
    let store = Store::new();
    let (slow, slow_service) = with_component("slow", &store.online);
    let (quick, quick_service) = with_component("quick", &store.online);
    let (slow, quick) = (Holding(slow), Holding(quick));
    let services = [
        ("slow".to_owned(), slow_service),
        ("quick".to_owned(), quick_service),
    ];
    let settings = Settings {
        concurrency: 4,
        component_share: 2,
        queue: 2,
        queue_timeout: PATIENCE,
        ..Settings::default()
    };
    let state = testing::of_services(settings, services.into(), &store.online);
    let server = run(state, store).await;
    let ask = |service: &str| server.spawn_online(features().replace(SERVICE, service));

    let held = [ask("slow"), ask("slow")];
    slow.begun().await;
    slow.begun().await;
    let waiting = [ask("slow"), ask("slow"), ask("slow"), ask("slow")];
    let mut refused = 0;
    until(|| waiting.iter().filter(|it| it.is_finished()).count() == 2).await;
    // All that the slow one takes are its two places, and whoever waits for one takes none.
    quick.release(3);
    for _ in 0..3 {
        assert_status(&ask("quick").await.unwrap(), 200);
    }
    assert_eq!(slow.begun.available_permits(), 0);
    slow.release(4);
    for asked in held {
        assert_status(&asked.await.unwrap(), 200);
    }
    for asked in waiting {
        let answer = asked.await.unwrap();
        if answer.starts_with("HTTP/1.1 503") {
            assert_refused(&answer, 503, "overloaded");
            assert!(answer.contains("feature service `slow`"), "{answer}");
            refused += 1;
        }
    }
    assert_eq!(refused, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_that_takes_long_is_tried_once_on_the_thread_that_has_the_request() {
    let store = Store::new();
    let (slow, service) = with_component(SERVICE, &store.online);
    let slow = Holding(slow);
    let services = [(SERVICE.to_owned(), service)].into();
    let state = testing::of_services(Settings::default(), services, &store.online);
    let server = run(state, store).await;
    slow.release(60);
    for _ in 0..60 {
        assert_status(&server.online(&[]).await, 200);
    }
    assert_eq!(slow.tried.load(Ordering::Relaxed), 1);
}

/// What answers, whose plan is not to be had at once.
struct Planning {
    real: ByHand,
    begun: Semaphore,
    /// Whether whoever asks has to wait until the sender is gone.
    holds: AtomicBool,
    wait: std::sync::Mutex<std::sync::mpsc::Receiver<()>>,
}

#[async_trait]
impl Answers for Arc<Planning> {
    fn plan(&self) -> &FeaturePlan {
        if self.holds.swap(false, Ordering::Relaxed) {
            let wait = self.wait.lock().unwrap();
            self.begun.add_permits(1);
            let _ = wait.recv_timeout(PATIENCE);
        }
        self.real.plan()
    }

    fn digest(&self) -> Digest {
        self.real.digest()
    }

    async fn answer(&self, rows: &RequestRows) -> Result<Evaluated, StoreError> {
        self.real.answer(rows).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_has_its_turn_until_its_body_is_read() {
    let store = Store::new();
    let plan = testing::plan(Vec::new());
    store.fill(&plan, &nothing()).await;
    let (go_on, wait) = std::sync::mpsc::channel();
    let planning = Arc::new(Planning {
        real: ByHand::new(&plan, &store.online),
        begun: Semaphore::new(0),
        holds: AtomicBool::new(false),
        wait: std::sync::Mutex::new(wait),
    });
    let settings = Settings {
        concurrency: 1,
        queue_timeout: SHORT,
        ..Settings::default()
    };
    let answers = Arc::new(Arc::clone(&planning));
    let server = start_with(settings, store, answers).await;
    planning.holds.store(true, Ordering::Relaxed);
    // Read on another thread, since it is large.
    let large = format!("{}{}", " ".repeat(100 << 10), features());
    let asked = server.spawn_online(large);
    let begun = tokio::time::timeout(PATIENCE, planning.begun.acquire());
    begun.await.unwrap().unwrap().forget();
    asked.abort();
    assert!(asked.await.unwrap_err().is_cancelled());
    until(|| server.counts().connections.load(Ordering::Relaxed) == 0).await;

    assert_refused(&server.online(&[]).await, 503, "overloaded");
    drop(go_on);
    let mut answer = String::new();
    while !answer.starts_with("HTTP/1.1 200 ") {
        answer = server.online(&[]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_have_no_memory_together_are_503() {
    let settings = Settings {
        bodies_bytes: 1 << 20,
        ..Settings::default()
    };
    let (server, held) = start_held(settings).await;
    let large = format!("{}{}", " ".repeat(900 << 10), features());
    let first = server.spawn_online(large.clone());
    held.begun().await;
    let refused = server.spawn_online(large.clone()).await.unwrap();
    assert_refused(&refused, 503, "overloaded");
    assert!(refused.contains("memory for large bodies"), "{refused}");
    // Small ones need none of it.
    held.release(1);
    let small = server.spawn_online(features());
    assert_status(&first.await.unwrap(), 200);
    held.release(2);
    assert_status(&small.await.unwrap(), 200);
    assert_status(&server.spawn_online(large).await.unwrap(), 200);
}
