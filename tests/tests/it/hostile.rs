//! Components that fail in every way in which one can: the error says where and why, and the
//! process lives on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrow::array::{
    ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use unskew_core::plan::FeaturePlan;
use unskew_core::types::{ScalarType, UTC};
use unskew_offline::{EntitySource, Output, Target};
use unskew_store::{
    Features, Parity, RequestError, RequestPath, RequestRows, StoreError, TrainingSet,
};
use unskew_tests::{Online, Repository, Server, component, read_parquet, training_set};

const DEFINITIONS: &str = "
transformations:
  - name: risky
    kind: on_demand
    component: failing.wasm
    on_error: ON_ERROR
    inputs: {mode: request:mode, value: request:value}
feature_services:
  - {name: model, features: ['risky:value'], full_feature_names: true}
";

fn entities(modes: &[&str]) -> RecordBatch {
    let fields = vec![
        Field::new("event_timestamp", ScalarType::Timestamp.arrow(), false),
        Field::new("mode", DataType::Utf8, true),
        Field::new("value", DataType::Int64, true),
    ];
    let instants = TimestampMicrosecondArray::from(vec![0; modes.len()]).with_timezone(UTC);
    let values: Int64Array = (1..=modes.len() as i64).collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(instants),
        Arc::new(StringArray::from(modes.to_vec())),
        Arc::new(values),
    ];
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

async fn repository(on_error: &str) -> Repository {
    let repository = Repository::new(Online::Embedded, &DEFINITIONS.replace("ON_ERROR", on_error));
    std::fs::copy(component("failing"), repository.path("failing.wasm")).unwrap();
    repository.store().apply(&()).await.unwrap();
    repository
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_names_component_version_function_row_and_the_guests_own_message() {
    let repository = repository("fail").await;
    let store = repository.store();
    let cases = [
        ("err", "the value 3 is refused"),
        ("panic", "the value 3 was not expected"),
        ("overflow", "overflow"),
        ("divide", "divi"),
        ("stack", "deep"),
        ("allocate", "memory"),
        ("loop", "10 s"),
    ];
    for (mode, message) in cases {
        let rows = entities(&["ok", "ok", mode, "ok"]);
        let request = TrainingSet {
            features: Features::Service("model".to_owned()),
            entities: EntitySource::Files(repository.write("entities.parquet", &rows)),
            out: Output::to(Target::Parquet(repository.path("out.parquet"))),
            memory_limit: None,
            progress: Arc::new(()),
        };
        let error = store.training_set(request).await.unwrap_err().to_string();
        for part in ["failing 0.1.0", "`failing`", "row 2", message] {
            assert!(error.contains(part), "{mode}: no `{part}` in: {error}");
        }
        assert!(!repository.path("out.parquet").exists(), "{mode}");
    }
    let rows = repository.write("entities.parquet", &entities(&["ok", "ok"]));
    let training = training_set(&store, "model", &rows).await;
    assert_eq!(
        training.column_by_name("risky__value").unwrap().as_ref(),
        &Int64Array::from(vec![1, 2]) as &dyn arrow::array::Array
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn with_on_error_null_only_the_rows_that_fail_are_null() {
    let repository = repository("null").await;
    let store = repository.store();
    let rows = entities(&[
        "ok", "err", "ok", "panic", "divide", "overflow", "stack", "ok",
    ]);
    let rows = repository.write("entities.parquet", &rows);
    let training = training_set(&store, "model", &rows).await;
    let expected = Int64Array::from(vec![
        Some(1),
        None,
        Some(3),
        None,
        None,
        None,
        None,
        Some(8),
    ]);
    assert_eq!(
        training.column_by_name("risky__value").unwrap().as_ref(),
        &expected as &dyn arrow::array::Array
    );
    assert_eq!(
        read_parquet(&repository.path("training.parquet")).num_rows(),
        8
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_gets_the_failure_and_the_server_goes_on() {
    let repository = repository("fail").await;
    let server = Server::start(&repository.store()).await;
    let ask = |mode: &str| {
        format!(
            r#"{{"feature_service": "model", "entities": {{}}, "request": {{"mode": "{mode}", "value": 4}}}}"#
        )
    };
    for mode in ["panic", "stack", "allocate", "loop"] {
        let (status, body) = server.post("/online", ask(mode)).await;
        assert!((400..500).contains(&status), "{mode}: {status} {body}");
        assert!(
            body.contains("transformation_failed") && body.contains("failing 0.1.0"),
            "{body}"
        );
        let (status, body) = server.post("/online", ask("ok")).await;
        assert_eq!(status, 200, "{body}");
        assert!(body.contains(r#""risky__value":[4]"#), "{body}");
    }
    // What a moment was not enough for is done again, and counts once.
    let (_, metrics) = server.get("/metrics").await;
    let counted = metrics.lines().filter_map(|line| {
        let count = line.strip_prefix("unskew_transform_duration_seconds_count{")?;
        count.rsplit(' ').next()
    });
    assert_eq!(counted.collect::<Vec<_>>(), ["8"], "{metrics}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_share_calls_each_get_their_own_answer() {
    let repository = repository("fail").await;
    let settings = unskew_server::Settings {
        component_share: 1,
        ..unskew_server::Settings::default()
    };
    let server = Arc::new(Server::start_with(&repository.store(), settings).await);
    let ask = |mode: &str, value: usize| {
        let server = Arc::clone(&server);
        let body = format!(
            r#"{{"feature_service": "model", "entities": {{}}, "request": {{"mode": "{mode}", "value": {value}}}}}"#
        );
        tokio::spawn(async move { server.post("/online", body).await })
    };
    // From these the server learns that calls take long.
    for value in 0..20 {
        assert_eq!(ask("slow", value).await.unwrap().0, 200);
    }
    let modes = ["slow", "slow", "ok", "slow"];
    for bad in [None, Some("err"), Some("panic")] {
        for round in 0..8 {
            let asked: Vec<_> = (0..32)
                .map(|at| {
                    let mode = modes[at % 4];
                    let mode = bad.filter(|_| at == 7).unwrap_or(mode);
                    (mode, 1_000 * round + at)
                })
                .map(|(mode, value)| (mode, value, ask(mode, value)))
                .collect();
            for (mode, value, asked) in asked {
                let (status, body) = asked.await.unwrap();
                if modes.contains(&mode) {
                    assert_eq!(status, 200, "{body}");
                    let own = format!(r#""risky__value":[{value}]"#);
                    assert!(body.contains(&own), "{value}: {body}");
                } else {
                    assert_eq!(status, 422, "{body}");
                    let own = format!("the value {value} ");
                    assert!(body.contains(&own), "{value}: {body}");
                }
            }
        }
    }
    // One that never ends holds up the others for a moment, and not for its 10 seconds, though it
    // has the only place for those that are evaluated alone.
    let endless = ask("loop", 1);
    for round in 0..2 {
        let asked: Vec<_> = (0..8)
            .map(|at| if at == 3 { "err" } else { "slow" })
            .map(|mode| (mode, ask(mode, round)))
            .collect();
        for (mode, asked) in asked {
            let (mut status, mut body) = asked.await.unwrap();
            // On a machine that is busy 20 ms may pass before a call has run.
            while mode == "slow" && status == 503 {
                (status, body) = ask(mode, round).await.unwrap();
            }
            match mode {
                "slow" => assert_eq!(status, 200, "{body}"),
                _ => assert!(matches!(status, 422 | 503), "{body}"),
            }
        }
    }
    assert!(!endless.is_finished());
    endless.abort();
    assert!(endless.await.unwrap_err().is_cancelled());
    let together = |what| format!(r#"unskew_requests_together_{what}{{service="model"}}"#);
    let requests = server.metric(&together("sum")).await;
    let calls = server.metric(&together("count")).await;
    assert!(requests > calls, "{requests} requests, {calls} calls");
    Arc::into_inner(server).unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_that_loops_leaves_other_services_their_share() {
    let definitions = "
transformations:
  - name: risky
    kind: on_demand
    component: failing.wasm
    inputs: {mode: request:mode, value: request:value}
feature_services:
  - {name: looping, features: ['risky:value'], full_feature_names: true}
  - {name: steady, features: ['risky:value'], full_feature_names: true}
";
    let repository = Repository::new(Online::Embedded, definitions);
    std::fs::copy(component("failing"), repository.path("failing.wasm")).unwrap();
    let store = repository.store();
    store.apply(&()).await.unwrap();
    let settings = unskew_server::Settings {
        component_share: 2,
        queue_timeout: Duration::from_millis(100),
        ..unskew_server::Settings::default()
    };
    let server = Arc::new(Server::start_with(&store, settings).await);
    let ask = |service: &str, mode: &str| {
        format!(
            r#"{{"feature_service": "{service}", "entities": {{}}, "request": {{"mode": "{mode}", "value": 4}}}}"#
        )
    };
    let over = Arc::new(AtomicBool::new(false));
    let loops = (0..12).map(|_| {
        let (server, over) = (Arc::clone(&server), Arc::clone(&over));
        let body = ask("looping", "loop");
        tokio::spawn(async move {
            let mut statuses = Vec::new();
            while !over.load(Ordering::Relaxed) {
                statuses.push(server.post("/online", body.clone()).await.0);
            }
            statuses
        })
    });
    let loops: Vec<_> = loops.collect();
    for _ in 0..200 {
        let (status, body) = server.post("/online", ask("steady", "ok")).await;
        assert_eq!(status, 200, "{body}");
        assert_eq!(server.get("/health").await.0, 200);
    }
    over.store(true, Ordering::Relaxed);
    let mut answered = 0;
    for statuses in loops {
        let statuses = statuses.await.unwrap();
        assert!(
            statuses.iter().all(|it| matches!(it, 422 | 503)),
            "{statuses:?}"
        );
        answered += statuses.len();
    }
    assert!(answered >= 12);
    Arc::into_inner(server).unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn components_whose_rows_depend_on_each_other_are_refused_at_apply() {
    for name in ["counter", "last_row"] {
        let definitions = format!(
            "transformations:\n  - name: impure\n    kind: on_demand\n    component: {name}.wasm\n    inputs: {{value: request:value}}\n"
        );
        let repository = Repository::new(Online::Embedded, &definitions);
        std::fs::copy(component(name), repository.path(format!("{name}.wasm"))).unwrap();
        let error = repository.store().apply(&()).await.unwrap_err();
        assert!(matches!(error, StoreError::Definitions(_)), "{error}");
        let error = error.to_string();
        assert!(
            error.starts_with("features/test.yaml:4: ") && error.contains("row"),
            "{error}"
        );
        assert!(matches!(
            repository.store().applied().await,
            Err(StoreError::NothingApplied)
        ));
    }
}

/// The request path of a server that refuses every row whose value is 2.
struct Refusing(unskew_store::Responder);

#[async_trait::async_trait]
impl RequestPath for Refusing {
    async fn answer(
        &self,
        plan: &FeaturePlan,
        rows: &RequestRows,
    ) -> Result<RecordBatch, RequestError> {
        let at = plan
            .request_fields
            .iter()
            .position(|f| f.name == "value")
            .unwrap();
        let values = rows.request[at].as_primitive::<Int64Type>();
        if values.values().contains(&2) {
            let message = "2 is refused".to_owned();
            return Err(RequestError::Transformation { message });
        }
        RequestPath::answer(&self.0, plan, rows).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parity_names_the_row_on_which_one_path_alone_fails() {
    let repository = repository("fail").await;
    let store = repository.store();
    let rows = repository.write("entities.parquet", &entities(&["ok", "ok", "err", "ok"]));
    let request = Parity {
        service: "model".to_owned(),
        as_of: None,
        rows: 0,
        entities: Some(rows),
    };
    let alike = store.parity(request.clone(), None).await.unwrap();
    assert!(alike.is_equal(), "{alike:#?}");
    assert_eq!((alike.rows, alike.present, alike.failed_alike), (3, 3, 1));
    assert!(
        alike
            .first_failure
            .unwrap()
            .contains("the value 3 is refused")
    );

    let service = Features::Service("model".to_owned());
    let refusing = Refusing(store.responder(&service).await.unwrap());
    let request = Parity {
        entities: Some(repository.write("e.parquet", &entities(&["ok"; 4]))),
        ..request
    };
    let report = store.parity(request, Some(&refusing)).await.unwrap();
    assert!(!report.is_equal());
    assert_eq!((report.rows, report.differences), (4, 1));
    assert_eq!(
        (report.first[0].row, report.first[0].request.as_str()),
        (1, "2 is refused")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn parity_is_not_told_by_rows_that_all_fail() {
    let repository = repository("fail").await;
    let request = Parity {
        service: "model".to_owned(),
        as_of: None,
        rows: 30,
        entities: None,
    };
    // Made-up texts are no mode, and a row with a null has no value.
    let report = repository.store().parity(request, None).await.unwrap();
    assert_eq!((report.present, report.differences), (0, 0));
    assert!(report.failed_alike > 0 && !report.is_equal());
}
