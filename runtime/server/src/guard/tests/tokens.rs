use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_that_is_known_nothing_is_answered_but_whether_it_is_there() {
    let mut file = TokenFile::new();
    let good = file.add("reader", &[Right::Read], |_| {});
    let brief = file.add("brief", &[Right::Read], |entry| entry.expires = Some(1));
    let server = start(file.settings()).await;
    assert_status(&server.online(&[&good]).await, 200);
    assert_status(
        &server.online(&[&good.replace("Bearer", "bearer")]).await,
        200,
    );

    let unknown = format!("authorization: Bearer unskew_{}", "0".repeat(64));
    for (headers, part) in [
        (vec![], "shows no token"),
        (vec![unknown.as_str()], "shows no known token"),
        (vec!["authorization: Bearer "], "shows"),
        (vec!["authorization: Basic dXNlcjpwYXNz"], "no bearer token"),
        (
            vec![brief.as_str()],
            "expired at 1970-01-01T00:00:00.000001Z",
        ),
        (vec![good.as_str(), good.as_str()], "more than one"),
    ] {
        let answer = server.online(&headers).await;
        assert_refused(&answer, 401, "unauthorized");
        assert!(answer.contains("www-authenticate: Bearer"), "{answer}");
        assert!(answer.contains(part), "{headers:?} {answer}");
    }
    for path in ["/health", "/ready"] {
        assert_status(&server.ask("GET", path, &[], "").await, 200);
    }
    assert_refused(
        &server.ask("GET", "/nowhere", &[], "").await,
        404,
        "unknown_path",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_good_for_its_rights_and_its_project() {
    let mut file = TokenFile::new();
    let reader = file.add("reader", &[Right::Read], |_| {});
    let admin = file.add("admin", &[Right::Admin], |_| {});
    let other = file.add("other", &[Right::Read], |entry| {
        entry.project = Some("elsewhere".to_owned());
    });
    let here = file.add("here", &[Right::Read], |entry| {
        entry.project = Some(PROJECT.to_owned());
    });
    let server = start(file.settings()).await;
    assert_status(&server.online(&[&here]).await, 200);

    let refused = server.online(&[&other]).await;
    assert_refused(&refused, 403, "forbidden");
    assert!(
        refused.contains("`elsewhere`") && refused.contains(PROJECT),
        "{refused}"
    );
    // None of the rights includes another.
    let refused = server.online(&[&admin]).await;
    assert_refused(&refused, 403, "forbidden");
    assert!(
        refused.contains("the right `read`, and token `admin` has: admin"),
        "{refused}"
    );
    let refused = server.ask("POST", "/admin/reload", &[&reader], "").await;
    assert_refused(&refused, 403, "forbidden");
    let refused = server.ask("POST", "/push", &[&reader], "{}").await;
    assert_refused(&refused, 403, "forbidden");
    assert!(refused.contains("the right `write`"), "{refused}");
    // It passes, and there is no registry.
    let passed = server.ask("POST", "/admin/reload", &[&admin], "").await;
    assert_refused(&passed, 500, "internal");
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_for_readers_unless_a_setting_gives_them_to_anybody() {
    let mut file = TokenFile::new();
    let reader = file.add("reader", &[Right::Read], |_| {});
    let server = start(file.settings()).await;
    let refused = server.ask("GET", "/metrics", &[], "").await;
    assert_refused(&refused, 401, "unauthorized");
    assert_status(&server.ask("GET", "/metrics", &[&reader], "").await, 200);
    let settings = Settings {
        open_metrics: true,
        ..file.settings()
    };
    let server = start(settings).await;
    assert_status(&server.ask("GET", "/metrics", &[], "").await, 200);
    assert_refused(&server.online(&[]).await, 401, "unauthorized");
}

#[tokio::test(flavor = "multi_thread")]
async fn new_tokens_count_while_requests_run_and_a_broken_file_changes_nothing() {
    let mut file = TokenFile::new();
    let first = file.add("first", &[Right::Read], |_| {});
    let server = Arc::new(start(file.settings()).await);

    let stop = Arc::new(AtomicBool::new(false));
    let asking = tokio::spawn({
        let (server, first, stop) = (Arc::clone(&server), first.clone(), Arc::clone(&stop));
        async move {
            let mut asked = 0;
            while !stop.load(Ordering::Relaxed) {
                assert_status(&server.online(&[&first]).await, 200);
                asked += 1;
            }
            asked
        }
    });
    let second = file.add("second", &[Right::Read], |_| {});
    while !server.online(&[&second]).await.starts_with("HTTP/1.1 200") {}

    std::fs::write(&file.file, "{").unwrap();
    let refused = || server.counts().refused_files.load(Ordering::Relaxed);
    until(|| refused() == 1).await;
    assert_status(&server.online(&[&second]).await, 200);
    std::fs::remove_file(&file.file).unwrap();
    until(|| refused() == 2).await;
    assert_status(&server.online(&[&second]).await, 200);
    stop.store(true, Ordering::Relaxed);
    assert!(asking.await.unwrap() > 0);

    file.tokens.remove("first").unwrap();
    file.write();
    while server.online(&[&first]).await.starts_with("HTTP/1.1 200") {}
    assert_status(&server.online(&[&second]).await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_brings_new_tokens_at_once() {
    let mut file = TokenFile::new();
    let settings = Settings {
        poll: Duration::from_secs(3600),
        ..file.settings()
    };
    let server = start(settings).await;
    let late = file.add("late", &[Right::Read], |_| {});
    assert_refused(&server.online(&[&late]).await, 401, "unauthorized");
    server.reload.notify_one();
    let answered = async { while !server.online(&[&late]).await.starts_with("HTTP/1.1 200") {} };
    tokio::time::timeout(PATIENCE, answered).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_shows_its_token() {
    use crate::client::HttpPath;
    use unskew_store::RequestPath;
    let mut file = TokenFile::new();
    let good = file.add("reader", &[Right::Read], |_| {});
    let token = good.trim_start_matches("authorization: Bearer ");
    let server = start(file.settings()).await;
    let client = HttpPath::new(format!("http://{}", server.address), SERVICE);
    let (plan, rows) = (testing::plan(Vec::new()), testing::rows_of([0]));
    let refused = client.answer(&plan, &rows).await.unwrap_err().to_string();
    assert!(refused.contains("401, unauthorized"), "{refused}");
    let answer = client.with_token(token).answer(&plan, &rows).await;
    assert_eq!(answer.unwrap().num_rows(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_named_origins_may_ask_and_others_may_not() {
    let mut file = TokenFile::new();
    let good = file.add("reader", &[Right::Read], |_| {});
    let settings = Settings {
        cors_origins: vec!["https://app.example".to_owned()],
        ..file.settings()
    };
    let server = start(settings).await;
    let preflight = |origin: &'static str| {
        let server = &server;
        async move {
            let headers = [
                origin,
                "access-control-request-method: POST",
                "access-control-request-headers: authorization,content-type",
            ];
            server.ask("OPTIONS", "/online", &headers, "").await
        }
    };
    let (allowed, origin) = (
        "access-control-allow-origin: https://app.example",
        "origin: https://app.example",
    );
    let answer = preflight(origin).await;
    assert_status(&answer, 200);
    assert!(answer.contains(allowed), "{answer}");
    // A page can read why it was refused.
    let answer = server.online(&[origin]).await;
    assert_refused(&answer, 401, "unauthorized");
    assert!(answer.contains(allowed), "{answer}");
    assert!(server.online(&[origin, &good]).await.contains(allowed));
    assert!(
        !preflight("origin: https://other.example")
            .await
            .contains("allow-origin")
    );

    let server = start(file.settings()).await;
    let answer = server.online(&[origin, &good]).await;
    assert_status(&answer, 200);
    assert!(!answer.contains("access-control"), "{answer}");
}

#[tokio::test]
async fn other_machines_need_a_token_or_somebody_who_says_that_they_need_none() {
    use crate::serve::Server;
    let listen = |host: &'static str| async move { TcpListener::bind((host, 0)).await.unwrap() };
    let open = |settings: Settings, listener| Server::new(PROJECT, settings, listener).map(|_| ());
    assert!(open(Settings::default(), listen("127.0.0.1").await).is_ok());
    let error = open(Settings::default(), listen("0.0.0.0").await).unwrap_err();
    for part in [
        "0.0.0.0:",
        "--tokens FILE",
        "--insecure-no-auth",
        "127.0.0.1",
    ] {
        assert!(error.to_string().contains(part), "{error}");
    }
    let insecure = Settings {
        insecure_no_auth: true,
        ..Settings::default()
    };
    assert!(open(insecure, listen("0.0.0.0").await).is_ok());
    let file = TokenFile::new();
    assert!(open(file.settings(), listen("0.0.0.0").await).is_ok());
    std::fs::remove_file(&file.file).unwrap();
    let error = open(file.settings(), listen("127.0.0.1").await).unwrap_err();
    assert!(error.to_string().contains("tokens.json"), "{error}");
}
