//! Metrics move with what they count, and answers carry the ids of their requests.

use super::*;

/// By how much a sample grew.
fn grown(before: &Scraped, after: &Scraped, sample: &str) -> f64 {
    after.value(sample) - before.samples.get(sample).unwrap_or(&0.0)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_metric_moves_with_what_it_counts() {
    let store = Store::new();
    let settings = Settings {
        rows: 20,
        ..Settings::default()
    };
    let (state, plan, columns) = filled(&store, settings).await;
    let server = Server::start(state).await;
    let before = server.metrics().await;
    let all = "[0,1,2,3,4,5,6,7,8,9,99]";
    assert_eq!(server.online(all).await.status, 200);
    let many = format!("{:?}", vec![1; 21]);
    assert_eq!(server.online(&many).await.status, 400);
    let unknown = Some(r#"{"feature_service": "none"}"#.to_owned());
    assert_eq!(server.ask("/online", &[], unknown).await.status, 404);
    assert_eq!(server.get("/made/up/by/a/client").await.status, 404);
    assert_eq!(server.get("/online").await.status, 405);
    let after = server.metrics().await;
    let grown = |sample: &str| grown(&before, &after, sample);

    let requests = |route, status| {
        grown(&format!(
            r#"unskew_http_requests_total{{route="{route}",status="{status}"}}"#
        ))
    };
    assert_eq!(requests("/online", 200), 1.0);
    assert_eq!(requests("/online", 400), 1.0);
    assert_eq!(requests("/online", 404), 1.0);
    assert_eq!(requests("/online", 405), 1.0);
    assert_eq!(requests("other", 404), 1.0);
    assert_eq!(
        grown(r#"unskew_http_request_duration_seconds_count{route="/online"}"#),
        4.0
    );
    assert!(grown(r#"unskew_http_request_duration_seconds_sum{route="/online"}"#) > 0.0);
    // The one that asks.
    assert_eq!(after.value("unskew_http_requests_in_flight"), 1.0);
    for code in ["too_many_rows", "unknown_feature_service", "unknown_path"] {
        assert_eq!(
            grown(&format!(r#"unskew_problems_total{{code="{code}"}}"#)),
            1.0,
            "{code}"
        );
    }
    for stage in ["turn", "store", "decode", "evaluate", "encode"] {
        let of = |part| {
            format!(
                r#"unskew_stage_duration_seconds_{part}{{service="{SERVICE}",stage="{stage}"}}"#
            )
        };
        assert_eq!(grown(&of("count")), 1.0, "{stage}");
        assert_eq!(before.value(&of("count")), 0.0, "{stage}");
    }
    assert_eq!(
        grown(&format!(
            r#"unskew_request_rows_sum{{service="{SERVICE}"}}"#
        )),
        11.0
    );

    let values = |status| {
        grown(&format!(
            r#"unskew_feature_values_total{{view="things",status="{status}"}}"#
        ))
    };
    let nulls: usize = columns.iter().map(|column| column.null_count()).sum();
    assert_eq!(values("null_value"), nulls as f64);
    assert_eq!(values("not_found"), columns.len() as f64);
    assert_eq!(values("present"), (10 * columns.len() - nulls) as f64);
    assert_eq!(
        values("outside_max_age") + values("in_future") + values("not_materialized"),
        0.0
    );

    // The view is materialized up to the year 1970.
    assert_eq!(
        after.value(r#"unskew_view_watermark_timestamp_seconds{view="things"}"#),
        0.0
    );
    assert!(after.value(r#"unskew_view_age_seconds{view="things"}"#) > 1e9);
    let digest = plan.digest();
    let of_plan = format!(r#"unskew_plan_info{{service="{SERVICE}",plan="{digest}"}}"#);
    assert_eq!(after.value(&of_plan), 1.0);
    for service in [SERVICE, "@features"] {
        assert_eq!(
            after.value(&format!(r#"unskew_waiting_views{{service="{service}"}}"#)),
            0.0
        );
    }
    assert_eq!(
        after.value(r#"unskew_online_store_circuit{state="closed"}"#),
        1.0
    );
    assert_eq!(
        after.value(r#"unskew_online_store_circuit{state="open"}"#),
        0.0
    );
    let build = format!(
        r#"unskew_build_info{{version="{}",semantics="{}"}}"#,
        env!("CARGO_PKG_VERSION"),
        unskew_core::plan::SEMANTICS
    );
    assert_eq!(after.value(&build), 1.0);
    assert!(grown("process_cpu_seconds_total") > 0.0);
    assert!(after.value("process_resident_memory_bytes") > 1e6);
    assert_eq!(after.types["unskew_feature_log_rows"], "counter");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reloads_are_counted_by_how_they_ended() {
    let store = Store::new();
    let (state, ..) = filled(&store, Settings::default()).await;
    state.watch().reloaded(true, true);
    state.watch().reloaded(false, false);
    state.watch().reloaded(false, false);
    let server = Server::start(state).await;
    let scraped = server.metrics().await;
    assert_eq!(
        scraped.value(r#"unskew_reloads_total{result="success"}"#),
        1.0
    );
    assert_eq!(
        scraped.value(r#"unskew_reloads_total{result="failure"}"#),
        2.0
    );
    assert_eq!(scraped.value("unskew_reload_changes_total"), 1.0);
    assert!(scraped.value("unskew_reload_last_success_timestamp_seconds") > 1e9);
    assert_eq!(scraped.value("unskew_reload_failing"), 0.0);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_carries_the_id_of_its_request() {
    let store = Store::new();
    let (state, ..) = filled(&store, Settings::default()).await;
    let server = Server::start(state).await;
    let given = server
        .ask("/health", &[("x-request-id", "of-the.client:7")], None)
        .await;
    assert_eq!(given.headers["x-request-id"], "of-the.client:7");
    let refused = server
        .ask("/none", &[("x-request-id", "of-the-client")], None)
        .await;
    assert_eq!(
        (
            refused.status,
            &refused.headers["x-request-id"] == "of-the-client"
        ),
        (404, true)
    );
    let invalid = server
        .ask("/health", &[("x-request-id", "a b")], None)
        .await;
    assert_eq!(invalid.headers["x-request-id"].len(), 32);
    let (one, other) = (server.get("/health").await, server.get("/health").await);
    assert_ne!(one.headers["x-request-id"], other.headers["x-request-id"]);
    server.end().await;
}
