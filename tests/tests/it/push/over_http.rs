//! Pushes over HTTP: what is counted of them, and how many rows one may have.

use serde_json::Value;
use unskew_server::Settings;
use unskew_tests::Server;

use super::*;

/// A view without a component.
const PLAIN: &str = "
entities:
  - {name: thing, join_keys: [{name: thing_id, type: int64}]}
sources:
  - {name: history, path: data, timestamp_field: at}
feature_views:
  - {name: things, entities: [thing], source: history, features: [{name: value}, {name: text}]}
feature_services:
  - {name: model, features: [things]}
";

/// A repository of [`PLAIN`] with a row of thing 0, materialized, and a server of it.
async fn plain(settings: Settings) -> (Repository, Server) {
    let repository = Repository::new(Online::Embedded, PLAIN);
    repository.write("data/first.parquet", &rows(&[(0, now() - 10 * DAY, 0.5)]));
    let store = repository.store();
    store.apply(&()).await.unwrap();
    materialize(&store, now()).await;
    let server = Server::start_with(&store, settings).await;
    (repository, server)
}

/// The body of a push of so many rows: `name` says where to, and `more` what else.
fn body_of(rows: i64, name: &str, more: &str) -> String {
    let things: Vec<i64> = (1..=rows).collect();
    let at = vec!["2020-01-01T00:00:00Z"; things.len()];
    let texts = vec!["text"; things.len()];
    format!(
        r#"{{{name}, "df": {{"thing_id": {things:?}, "at": {at:?}, "value": {things:?}, "text": {texts:?}}}{more}}}"#
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_pushed_are_counted_by_source_and_by_whether_they_went_online_only() {
    let (_repository, server) = plain(Settings::default()).await;
    let source = r#""push_source_name": "history""#;
    let view = r#""feature_view_name": "things""#;
    let (push, write) = ("/push", "/write-to-online-store");
    let (mut all, mut online_only) = (0.0, 0.0);
    for (path, name, more, rows, online) in [
        (push, source, r#", "to": "online""#, 2, true),
        (push, source, "", 3, false),
        (push, source, r#", "to": "online_and_offline""#, 1, false),
        (push, source, r#", "to": "offline""#, 4, false),
        (write, view, "", 5, true),
    ] {
        let (status, body) = server.post(path, body_of(rows, name, more)).await;
        assert_eq!(status, 200, "{path}{more}: {body}");
        all += rows as f64;
        online_only += if online { rows as f64 } else { 0.0 };
        let counted = |what: &str| format!(r#"unskew_{what}_total{{source="history"}}"#);
        assert_eq!(
            server.metric(&counted("pushed_rows")).await,
            all,
            "{path}{more}"
        );
        assert_eq!(
            server.metric(&counted("pushed_online_only_rows")).await,
            online_only,
            "{path}{more}"
        );
    }
    // What is refused is not counted.
    let (status, body) = server
        .post(push, body_of(1, source, r#", "to": "nowhere""#))
        .await;
    assert_eq!(status, 422, "{body}");
    assert_eq!(
        server
            .metric(r#"unskew_pushed_rows_total{source="history"}"#)
            .await,
        all
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_rows_than_a_request_may_have_are_refused_on_every_path_and_nothing_is_done() {
    let settings = Settings {
        rows: 2,
        ..Settings::default()
    };
    let (repository, server) = plain(settings).await;
    let ask = async |path: &str, features: &str, things: &str| {
        let body = format!(r#"{{{features}, "entities": {{"thing_id": {things}}}}}"#);
        server.post(path, body).await
    };
    let model = r#""feature_service": "model""#;
    let values = async || {
        let mut values = Vec::new();
        for things in ["[0, 1]", "[2, 3]"] {
            let (status, answer) = ask("/online", model, things).await;
            assert_eq!(status, 200, "{answer}");
            let answer: Value = serde_json::from_str(&answer).unwrap();
            let given = answer["features"]["value"].as_array().unwrap();
            values.extend(given.iter().map(Value::as_f64));
        }
        values
    };
    let refused = |answer: (u16, String), expected: u16| {
        assert_eq!(answer.0, expected, "{}", answer.1);
        assert!(answer.1.contains("too_many_rows"), "{}", answer.1);
    };

    let source = r#""push_source_name": "history""#;
    let view = r#""feature_view_name": "things""#;
    let (push, write) = ("/push", "/write-to-online-store");
    for more in ["", r#", "to": "online""#, r#", "to": "offline""#] {
        refused(server.post(push, body_of(3, source, more)).await, 422);
    }
    refused(server.post(write, body_of(3, view, "")).await, 422);
    assert_eq!(files(&repository).len(), 1);
    assert_eq!(values().await, [Some(0.5), None, None, None]);
    for (path, name) in [(push, source), (write, view)] {
        let (status, answer) = server.post(path, body_of(2, name, "")).await;
        assert_eq!(status, 200, "{path}: {answer}");
    }
    assert_eq!(files(&repository).len(), 2);
    let all = [Some(0.5), Some(1.0), Some(2.0), None];
    assert_eq!(values().await, all);

    let list = r#""features": ["things:value"]"#;
    for (path, features, expected) in [
        ("/online", model, 400),
        ("/get-online-features", model, 422),
        ("/get-online-features", list, 422),
    ] {
        refused(ask(path, features, "[1, 2, 3]").await, expected);
        let (status, answer) = ask(path, features, "[1, 2]").await;
        assert_eq!(status, 200, "{path}: {answer}");
    }

    let delete = |things: &str| {
        let body = format!(r#"{{"view": "things", "entities": {{"thing_id": {things}}}}}"#);
        server.delete("/online", body)
    };
    refused(delete("[0, 1, 2]").await, 400);
    assert_eq!(values().await, all);
    let (status, answer) = delete("[0, 1]").await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(values().await, [None, None, Some(2.0), None]);
    server.stop().await;
}
