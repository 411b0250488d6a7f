//! Rows that are pushed: served at once, and trained on, by the same bits; deletions; small files
//! that become large ones meanwhile.

mod over_http;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::Float64Type;
use fastrand::Rng;
use unskew_core::time::{self, DAY, SECOND};
use unskew_core::types::UTC;
use unskew_offline::{Progress, PushedRows};
use unskew_online::{Begun, ViewKey};
use unskew_store::{
    Compaction, Delete, FeatureStore, Features, Materialize, MaterializeSpan, Parity, ParityReport,
    Push, PushTarget, PushTo, Pushed, Pusher, RequestRows, StoreError,
};
use unskew_test_redis::RedisServer;
use unskew_tests::{
    Online, Repository, component, materialize, now, read_parquet, training_set, with_both_stores,
};

/// One view has the rows of the source, the other those that a component makes of them.
const DEFINITIONS: &str = "
entities:
  - {name: thing, join_keys: [{name: thing_id, type: int64}]}
  - {name: made, join_keys: [{name: out_of_int64, type: int64}]}
sources:
  - {name: history, path: data, timestamp_field: at EXTRA}
feature_views:
  - {name: things, entities: [thing], source: history, features: [{name: value}, {name: text}]}
  - name: rows
    entities: [made]
    source: history
    transformation: every
    features: [{name: out_of_float64}, {name: out_of_string}]
transformations:
  - name: every
    kind: batch
    component: every_row.wasm
    inputs:
      copies: {value: 1}
      of_int64: thing_id
      of_float64: value
      of_string: text
      of_timestamp: {value: null}
      of_bool: {value: null}
      of_int32: {value: null}
      of_float32: {value: null}
      of_bytes: {value: null}
      of_bool_list: {value: null}
      of_int64_list: {value: null}
      of_float32_list: {value: null}
      of_string_list: {value: null}
      of_bytes_list: {value: null}
      of_timestamp_list: {value: null}
feature_services:
  - {name: model, features: [things, rows]}
";

fn times(values: Vec<i64>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from(values).with_timezone(UTC))
}

/// (thing, event, value).
fn rows(rows: &[(i64, i64, f64)]) -> RecordBatch {
    let texts = rows.iter().map(|row| format!("{} {}", row.0, row.2));
    let columns: [(&str, ArrayRef); 4] = [
        (
            "thing_id",
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0))),
        ),
        ("at", times(rows.iter().map(|row| row.1).collect())),
        (
            "value",
            Arc::new(Float64Array::from_iter_values(rows.iter().map(|row| row.2))),
        ),
        ("text", Arc::new(StringArray::from_iter_values(texts))),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

/// The same, with created timestamps.
fn rows_created(of: &[(i64, i64, f64)], created: i64) -> RecordBatch {
    let batch = rows(of);
    let mut columns: Vec<(String, ArrayRef)> = Vec::new();
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        columns.push((field.name().clone(), Arc::clone(column)));
    }
    columns.push(("created".to_owned(), times(vec![created; of.len()])));
    RecordBatch::try_from_iter(columns).unwrap()
}

/// A repository with a row of thing 0 of ten days ago, applied.
async fn repository(online: Online<'_>, extra: &str) -> (Repository, FeatureStore) {
    let repository = Repository::new(online, &DEFINITIONS.replace(" EXTRA", extra));
    std::fs::copy(component("every_row"), repository.path("every_row.wasm")).unwrap();
    let first = [(0, now() - 10 * DAY, 0.0)];
    let first = match extra.contains("created") {
        true => rows_created(&first, now() - 10 * DAY),
        false => rows(&first),
    };
    repository.write("data/first.parquet", &first);
    let store = repository.store();
    store.apply(&()).await.unwrap();
    (repository, store)
}

fn push_of(rows: RecordBatch, to: PushTo) -> Push {
    Push {
        target: PushTarget::Source("history".to_owned()),
        rows: PushedRows::Typed(rows),
        to,
        now: now(),
    }
}

async fn push(store: &FeatureStore, of: &[(i64, i64, f64)], to: PushTo) -> Pushed {
    store.push(push_of(rows(of), to)).await.unwrap()
}

fn key(thing: i64) -> ArrayRef {
    Arc::new(Int64Array::from(vec![thing]))
}

/// The values of a thing in both views now.
async fn served(store: &FeatureStore, thing: i64) -> (Option<f64>, Option<f64>) {
    let model = Features::Service("model".to_owned());
    let responder = store.responder(&model).await.unwrap();
    let request = RequestRows {
        as_of: TimestampMicrosecondArray::from(vec![now()]).with_timezone(UTC),
        keys: vec![key(thing); 2],
        request: Vec::new(),
    };
    let batch = responder.answer(&request).await.unwrap().batch;
    let value = |column: &str| {
        let column = batch.column_by_name(column).unwrap();
        let values = column.as_primitive::<Float64Type>();
        values.is_valid(0).then(|| values.value(0))
    };
    (value("value"), value("out_of_float64"))
}

fn both(value: f64) -> (Option<f64>, Option<f64>) {
    (Some(value), Some(value))
}

async fn compared(store: &FeatureStore) -> ParityReport {
    let request = Parity {
        service: "model".to_owned(),
        as_of: None,
        rows: 300,
        entities: None,
    };
    store.parity(request, None).await.unwrap()
}

/// The keys of both views.
async fn view_keys(store: &FeatureStore) -> Vec<ViewKey> {
    let applied = store.applied().await.unwrap();
    let project = applied.project();
    let views = project.views.values();
    let keys = views.map(|view| ViewKey::of(&project.name, &view.value.view));
    keys.collect()
}

fn files(repository: &Repository) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(repository.path("data")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "parquet")
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_pushed_is_served_at_once_and_trained_on_by_the_same_bits() {
    with_both_stores(async |online| {
        let (repository, store) = repository(online, "").await;
        // Before anything is materialized nothing is served, which whoever pushes is told.
        let at = now() - 5 * DAY;
        let pushed = push(&store, &[(1, at, 1.0)], PushTo::default()).await;
        assert_eq!(pushed.warnings.len(), 2, "{pushed:?}");
        assert!(
            pushed.warnings[0].contains("NOT_MATERIALIZED"),
            "{pushed:?}"
        );
        assert_eq!(served(&store, 1).await, (None, None));
        materialize(&store, now() - 4 * DAY).await;
        assert_eq!(served(&store, 1).await, both(1.0));
        assert_eq!(compared(&store).await.differences, 0);

        // After the watermark, and before it; a value without a number of few digits.
        let third = 1.0 / 3.0;
        let newer = [(1, now() - DAY, third), (2, now() - 6 * DAY, -0.0)];
        let pushed = push(&store, &newer, PushTo::default()).await;
        assert_eq!(
            (pushed.rows, pushed.files.len(), pushed.online_only),
            (2, 1, 0)
        );
        let written: Vec<_> = pushed
            .views
            .iter()
            .map(|view| (view.rows, view.written))
            .collect();
        assert_eq!(written, [(2, 2), (2, 2)]);
        assert_eq!(pushed.warnings, [""; 0]);
        assert_eq!(served(&store, 1).await, both(third));
        let report = compared(&store).await;
        assert_eq!(report.differences, 0, "{report:?}");
        assert!(report.ahead > 0 && report.present > 0, "{report:?}");

        let entities = RecordBatch::try_from_iter([
            (
                "thing_id",
                Arc::new(Int64Array::from(vec![1, 2])) as ArrayRef,
            ),
            ("out_of_int64", Arc::new(Int64Array::from(vec![1, 2]))),
            ("event_timestamp", times(vec![now(); 2])),
        ]);
        let entities = repository.write("entities.parquet", &entities.unwrap());
        let trained = training_set(&store, "model", &entities).await;
        for column in ["value", "out_of_float64"] {
            let column = trained.column_by_name(column).unwrap();
            let bits = column.as_primitive::<Float64Type>().values().iter();
            let bits: Vec<u64> = bits.map(|value| value.to_bits()).collect();
            assert_eq!(bits, [third.to_bits(), (-0.0_f64).to_bits()]);
        }

        // A materialization of the same rows has nothing to write.
        let done = materialize(&store, now()).await;
        assert!(done.iter().all(|view| view.rows_written == 0), "{done:?}");
        let report = compared(&store).await;
        assert_eq!((report.differences, report.ahead), (0, 0));

        // A push that is repeated changes nothing, and an older row neither.
        let again = push(&store, &[newer[0], (1, at, 9.0)], PushTo::default()).await;
        assert!(
            again
                .views
                .iter()
                .all(|view| (view.written, view.kept) == (0, 1))
        );
        assert_eq!(served(&store, 1).await, both(third));
        assert_eq!(compared(&store).await.differences, 0);
        store.teardown().await.unwrap();
    })
    .await;
}

/// With created timestamps: a correction of an instant that was materialized.
#[tokio::test(flavor = "multi_thread")]
async fn late_corrections_are_known_from_when_they_are_pushed() {
    with_both_stores(async |online| {
        for mode in ["event", "known"] {
            let extra = format!(", created_timestamp_column: created, point_in_time: {mode}");
            let (_repository, store) = repository(online, &extra).await;
            let at = now() - 10 * DAY;
            materialize(&store, now() - DAY).await;
            push(&store, &[(0, at, 7.0)], PushTo::default()).await;
            assert_eq!(served(&store, 0).await, both(7.0), "{mode}");
            let report = compared(&store).await;
            assert_eq!(report.differences, 0, "{mode}: {report:?}");
            materialize(&store, now()).await;
            assert_eq!(served(&store, 0).await, both(7.0), "{mode}");
            assert_eq!(compared(&store).await.differences, 0, "{mode}");
            store.teardown().await.unwrap();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_went_online_only_are_named_and_no_difference() {
    with_both_stores(async |online| {
        let (repository, store) = repository(online, "").await;
        materialize(&store, now() - 2 * DAY).await;
        let at = now() - DAY;
        let pushed = push(&store, &[(0, at, 5.0), (1, at, 6.0)], PushTo::Online).await;
        assert_eq!((pushed.online_only, pushed.files.len()), (2, 0));
        assert_eq!(files(&repository).len(), 1);
        assert_eq!(served(&store, 1).await, both(6.0));
        let report = compared(&store).await;
        assert_eq!(report.differences, 0, "{report:?}");
        let named = &report.online_only["things"];
        assert_eq!((named.entities, named.first.len()), (2, 2));
        assert!(named.first.contains(&"thing_id: 1".to_owned()), "{named:?}");
        assert_eq!(report.online_only["rows"].entities, 2);
        // The same rows of the source take their place, and the mark is gone.
        push(&store, &[(0, at, 5.0), (1, at, 6.0)], PushTo::Offline).await;
        materialize(&store, now()).await;
        let report = compared(&store).await;
        assert_eq!(
            (report.differences, report.online_only.len()),
            (0, 0),
            "{report:?}"
        );

        // One view alone needs no columns but its own, and leaves the other as it is.
        let target = PushTarget::View("things".to_owned());
        let alone = Push {
            target: target.clone(),
            ..push_of(rows(&[(2, at, 8.0)]), PushTo::Online)
        };
        let pushed = store.push(alone).await.unwrap();
        assert_eq!(pushed.views.len(), 1);
        assert_eq!(served(&store, 2).await, (Some(8.0), None));
        // As rows of the source they are those of all its views.
        let shared = Push {
            target,
            ..push_of(rows(&[(2, at + 1, 9.0)]), PushTo::OnlineAndOffline)
        };
        assert_eq!(store.push(shared).await.unwrap().views.len(), 2);
        assert_eq!(served(&store, 2).await, both(9.0));
        store.teardown().await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_went_offline_only_come_with_a_materialization() {
    let (_repository, store) = repository(Online::Embedded, "").await;
    materialize(&store, now() - 2 * DAY).await;
    let of = [(0, now() - DAY, 5.0), (0, now() - 3 * DAY, 4.0)];
    let pushed = push(&store, &of, PushTo::Offline).await;
    assert!(pushed.views.is_empty());
    // The second is older than the watermark, and no increment would take it.
    assert_eq!(pushed.warnings.len(), 2, "{pushed:?}");
    assert!(pushed.warnings[0].contains("1 rows of view"), "{pushed:?}");
    assert!(
        pushed.warnings[0].contains("unskew materialize "),
        "{pushed:?}"
    );
    assert_eq!(served(&store, 0).await, both(0.0));
    materialize(&store, now() - 600 * SECOND).await;
    assert_eq!(served(&store, 0).await, both(5.0));
    // What the store does not hold yet is a lag and no difference, beside what was pushed online.
    push(
        &store,
        &[(0, now() - 2 * SECOND, 6.0)],
        PushTo::OnlineAndOffline,
    )
    .await;
    push(
        &store,
        &[(0, now() - 3 * SECOND, 5.5), (1, now() - SECOND, 7.0)],
        PushTo::Offline,
    )
    .await;
    let report = compared(&store).await;
    assert_eq!(report.differences, 0, "{report:?}");
    assert!(report.ahead > 0 && report.lag["things"] > 0, "{report:?}");
    assert_eq!(served(&store, 0).await, both(6.0));
    // A newer row beside what was pushed: there is nothing to compare it with.
    push(&store, &[(0, now() - SECOND, 8.0)], PushTo::Offline).await;
    let report = compared(&store).await;
    assert_eq!(report.differences, 0, "{report:?}");
    materialize(&store, now()).await;
    assert_eq!(served(&store, 0).await, both(8.0));
    assert_eq!(compared(&store).await.differences, 0);
}

/// A materialization that runs may have listed the files of the source before new ones were there.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_a_materialization_may_have_missed_are_warned_of() {
    let (_repository, store) = repository(Online::Embedded, "").await;
    materialize(&store, now() - 2 * DAY).await;
    let (late, newer) = ((0, now() - DAY, 5.0), (0, now() - SECOND, 6.0));
    let pushed = push(&store, &[late], PushTo::Offline).await;
    assert_eq!(pushed.warnings, [""; 0]);
    let online = store.online().unwrap();
    for key in view_keys(&store).await {
        let before = online.state(&key).await.unwrap();
        let mut running = before.clone().unwrap();
        running.begun.push(Begun {
            id: "a run".to_owned(),
            end: now() - 60 * SECOND,
        });
        let updated = online.update_state(&key, before.as_ref(), &running);
        assert!(updated.await.unwrap());
    }
    let pushed = push(&store, &[newer, late], PushTo::Offline).await;
    assert_eq!(pushed.warnings.len(), 2, "{pushed:?}");
    let again = format!("unskew materialize {} ", time::format(late.1));
    for part in ["1 rows of view", "a materialization that has begun", &again] {
        assert!(pushed.warnings[0].contains(part), "{pushed:?}");
    }
    let pushed = push(&store, &[newer], PushTo::Offline).await;
    assert_eq!(pushed.warnings, [""; 0]);
}

/// A push that is repeated until the store is there again must not add a file each time.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_down_is_found_out_before_anything_is_written() {
    let mut redis = RedisServer::start();
    let (repository, store) = repository(Online::Redis(&redis), "").await;
    materialize(&store, now() - 2 * DAY).await;
    redis.stop();
    let of = [(1, now() - DAY, 1.0)];
    for to in [PushTo::Online, PushTo::OnlineAndOffline] {
        let error = store.push(push_of(rows(&of), to)).await.unwrap_err();
        assert!(matches!(error, StoreError::Online(_)), "{error}");
        assert_eq!(files(&repository).len(), 1);
    }
    // Rows that do not go online do not need it.
    let pushed = push(&store, &of, PushTo::Offline).await;
    assert_eq!(files(&repository).len(), 2);
    assert_eq!(pushed.warnings.len(), 1, "{pushed:?}");
    assert!(pushed.warnings[0].contains("is not known"), "{pushed:?}");
}

/// The store takes no rows after they went to their source: they are there, and a push that is
/// repeated brings them online.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_went_offline_alone_are_said_to_and_may_be_pushed_again() {
    let redis = RedisServer::start();
    let (repository, store) = repository(Online::Redis(&redis), "").await;
    materialize(&store, now() - 2 * DAY).await;
    let of = [(1, now() - DAY, 1.0), (2, now() - DAY, 2.0)];
    let rights = |rights: &str| {
        let done = redis.command(&["ACL", "SETUSER", "default", rights]);
        assert_eq!(done.trim(), "OK");
    };
    rights("-@scripting");
    let push_of = || push_of(rows(&of), PushTo::default());
    let error = store.push(push_of()).await.unwrap_err();
    let StoreError::OfflineAlone { files: written, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(written.len(), 1);
    assert!(error.to_string().contains("push them again"), "{error}");
    assert_eq!(read_parquet(written[0].as_ref()).num_rows(), 2);
    assert_eq!(files(&repository).len(), 2);
    assert_eq!(served(&store, 1).await, (None, None));

    rights("+@all");
    store.push(push_of()).await.unwrap();
    assert_eq!(served(&store, 1).await, both(1.0));
    assert_eq!(served(&store, 2).await, both(2.0));
    assert_eq!(compared(&store).await.differences, 0);
    materialize(&store, now()).await;
    let report = compared(&store).await;
    assert_eq!((report.differences, report.ahead), (0, 0), "{report:?}");
    let entities = RecordBatch::try_from_iter([
        (
            "thing_id",
            Arc::new(Int64Array::from(vec![1, 2])) as ArrayRef,
        ),
        ("out_of_int64", Arc::new(Int64Array::from(vec![1, 2]))),
        ("event_timestamp", times(vec![now(); 2])),
    ]);
    let entities = repository.write("entities.parquet", &entities.unwrap());
    let trained = training_set(&store, "model", &entities).await;
    let values = trained.column_by_name("value").unwrap();
    let values = values.as_primitive::<Float64Type>();
    assert_eq!(values.values(), &[1.0, 2.0]);
}

/// What is removed of a former definition is what was pushed under it, too, whether or not it was
/// materialized.
#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_view_that_was_never_materialized_are_removed() {
    with_both_stores(async |online| {
        let (repository, store) = repository(online, "").await;
        let of = [(1, now() - DAY, 1.0), (2, now() - DAY, 2.0)];
        push(&store, &of, PushTo::default()).await;
        let features = "[{name: value}, {name: text}]";
        let changed = DEFINITIONS
            .replace(" EXTRA", "")
            .replace(features, "[{name: value}]");
        repository.define(&changed);
        store.apply(&()).await.unwrap();
        let former = store.former_views().await.unwrap();
        assert_eq!(former.len(), 1);
        let removed = store.remove_former(&former[0]).await.unwrap();
        assert_eq!(removed, Some(2));
        let held = store.online().unwrap();
        assert!(held.state(&former[0]).await.unwrap().is_none());
        let left = held.sample_keys(&former[0], 10, 0).await.unwrap();
        assert!(left.is_empty());
        store.teardown().await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_is_written_nowhere() {
    let (repository, store) = repository(Online::Embedded, "").await;
    materialize(&store, now() - 2 * DAY).await;
    let refused = async |of: RecordBatch, to: PushTo| {
        let error = store.push(push_of(of, to)).await.unwrap_err().to_string();
        assert_eq!(files(&repository).len(), 1, "{error}");
        error
    };
    for to in [PushTo::Online, PushTo::Offline, PushTo::OnlineAndOffline] {
        let later = rows(&[(0, now() - DAY, 1.0), (0, now() + 3_600 * SECOND, 2.0)]);
        let error = refused(later, to).await;
        assert!(error.contains("row 1, column `at`"), "{error}");
        assert!(error.contains("lies after now"), "{error}");
        let narrow = rows(&[(0, 1, 1.0)]).project(&[0, 1, 2]).unwrap();
        assert!(refused(narrow, to).await.contains("no column `text`"));
    }
    assert_eq!(served(&store, 0).await, both(0.0));
    for (target, expected) in [
        (
            PushTarget::Source("other".to_owned()),
            "no source `other`; there are: history",
        ),
        (
            PushTarget::View("other".to_owned()),
            "no feature view `other`; there are: rows, things",
        ),
    ] {
        let push = Push {
            target,
            ..push_of(rows(&[]), PushTo::default())
        };
        let error = store.push(push).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

/// A row that a component refuses would spoil the source.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_a_component_refuses_is_named() {
    let (repository, store) = repository(Online::Embedded, "").await;
    // Values that a component of the view refuses: none it was given is out of its types, so the
    // event timestamp that it makes lies before the row's own.
    let definitions = DEFINITIONS
        .replace(" EXTRA", "")
        .replace("timestamp_field: at", "timestamp_field: out_of_timestamp")
        .replace("of_timestamp: {value: null}", "of_timestamp: at");
    repository.define(&definitions);
    let history = |at: i64, made: i64| {
        let batch = rows(&[(0, at, 1.0), (1, at, 2.0)]);
        let mut columns: Vec<(String, ArrayRef)> = Vec::new();
        for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
            columns.push((field.name().clone(), Arc::clone(column)));
        }
        columns.push(("out_of_timestamp".to_owned(), times(vec![at, made])));
        RecordBatch::try_from_iter(columns).unwrap()
    };
    let at = now() - 3 * DAY;
    repository.write("data/first.parquet", &history(at, at));
    store.apply(&()).await.unwrap();
    materialize(&store, now() - 2 * DAY).await;
    let later = now() - DAY;
    let error = store
        .push(push_of(history(later, later + 1), PushTo::default()))
        .await
        .unwrap_err();
    let message = error.to_string();
    assert!(message.contains("row 1: feature view `rows`"), "{message}");
    assert_eq!(files(&repository).len(), 1);
    store
        .push(push_of(history(later, later), PushTo::default()))
        .await
        .unwrap();
    assert_eq!(served(&store, 0).await, both(1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_comes_back_with_newer_rows_alone() {
    with_both_stores(async |online| {
        let (repository, store) = repository(online, "").await;
        repository.write("data/second.parquet", &rows(&[(0, now() - 9 * DAY, 1.0)]));
        repository.write("data/third.parquet", &rows(&[(5, now() - 9 * DAY, 2.0)]));
        materialize(&store, now() - DAY).await;
        assert_eq!(served(&store, 0).await, both(1.0));
        let delete = |view: &str, thing| Delete {
            view: view.to_owned(),
            keys: vec![key(thing)],
            history: true,
            now: now(),
        };
        let deleted = store
            .delete(&delete("things", 0), Arc::new(()))
            .await
            .unwrap();
        assert_eq!(deleted.had_values, 1);
        let history = deleted.history.unwrap();
        let named: Vec<(bool, u64)> = history
            .files
            .iter()
            .zip(["first.parquet", "second.parquet"])
            .map(|(file, name)| (file.file.ends_with(name), file.rows))
            .collect();
        assert_eq!(named, [(true, 1), (true, 1)]);
        // The footer of the third tells that it holds none.
        assert_eq!((history.files_read, history.files_in_all), (2, 3));
        assert_eq!(served(&store, 0).await, (None, Some(1.0)));

        // A join key that a component makes is in no file's statistics: all are read.
        let deleted = store
            .delete(&delete("rows", 0), Arc::new(()))
            .await
            .unwrap();
        let history = deleted.history.unwrap();
        assert_eq!((history.files.len(), history.files_read), (2, 3));
        assert_eq!(served(&store, 0).await, (None, None));
        let again = store
            .delete(&delete("rows", 0), Arc::new(()))
            .await
            .unwrap();
        assert_eq!(again.had_values, 0);

        let report = compared(&store).await;
        assert_eq!(report.differences, 0, "{report:?}");
        assert_eq!(report.deleted["things"].first, ["thing_id: 0"]);
        assert_eq!(report.deleted["rows"].entities, 1);

        // Older rows that are written, and written again, do not bring it back.
        let all = Materialize {
            views: Vec::new(),
            span: MaterializeSpan::Range {
                start: 0,
                end: now(),
            },
            now: now(),
        };
        store.materialize(all, Arc::new(())).await.unwrap();
        push(&store, &[(0, now() - DAY, 3.0)], PushTo::default()).await;
        push(&store, &[(0, now() - DAY, 4.0)], PushTo::Online).await;
        assert_eq!(served(&store, 0).await, (None, None));
        push(&store, &[(0, now(), 5.0)], PushTo::default()).await;
        assert_eq!(served(&store, 0).await, both(5.0));
        let report = compared(&store).await;
        assert_eq!(
            (report.differences, report.deleted.len()),
            (0, 0),
            "{report:?}"
        );
        assert_eq!(served(&store, 5).await, both(2.0));

        let wrong = Delete {
            keys: vec![Arc::new(StringArray::from(vec!["0"]))],
            ..delete("things", 0)
        };
        let error = store.delete(&wrong, Arc::new(())).await.unwrap_err();
        assert!(matches!(error, StoreError::Keys { .. }), "{error}");
        store.teardown().await.unwrap();
    })
    .await;
}

/// Takes the lock of a source when a compaction begins to wait.
struct Another {
    lock: PathBuf,
    held: Mutex<Option<File>>,
}

impl Progress for Another {
    fn begin(&self, stage: &str, _rows: u64) {
        if stage.starts_with("waiting") {
            let lock = File::options().append(true).open(&self.lock).unwrap();
            lock.lock().unwrap();
            *self.held.lock().unwrap() = Some(lock);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compaction_that_finds_another_at_work_leaves_its_files_to_a_later_one() {
    let (repository, store) = repository(Online::Embedded, "").await;
    repository.write("data/second.parquet", &rows(&[(0, now() - 9 * DAY, 1.0)]));
    let compaction = |now| Compaction {
        source: "history".to_owned(),
        target_bytes: 1 << 20,
        grace: Duration::ZERO,
        now,
    };
    let another = Arc::new(Another {
        lock: repository.path("data/.unskew-compact.lock"),
        held: Mutex::default(),
    });
    let progress = Arc::clone(&another) as Arc<dyn Progress>;
    let done = store.compact(&compaction(now()), progress).await.unwrap();
    assert_eq!((done.merged.len(), done.kept), (1, 2), "{done:?}");
    drop(another.held.lock().unwrap().take());
    let done = store.compact(&compaction(now()), Arc::new(())).await;
    assert_eq!(done.unwrap().removed.len(), 2);
    assert_eq!(files(&repository).len(), 1);
}

/// Of each thing the row that counts: event and value, as they are stored, so that their order is
/// that of rows.
type Newest = BTreeMap<i64, (i64, [u8; 8])>;

/// Many push at once, rows come late and twice, materializations and compactions run between: at the
/// end each thing has its newest row, online and in training sets.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn pushes_at_once_with_materializations_and_compactions_between() {
    with_both_stores(async |online| {
        const THINGS: i64 = 12;
        const PUSHERS: u64 = 4;
        let (repository, store) = repository(online, "").await;
        let start = now() - 3_600 * SECOND;
        let applied = store.applied().await.unwrap();
        let pusher = Arc::new(Pusher::new(&store, &applied).unwrap());
        let mut tasks = Vec::new();
        for seed in 0..PUSHERS {
            let pusher = Arc::clone(&pusher);
            tasks.push(tokio::spawn(async move {
                let mut random = Rng::with_seed(seed);
                let mut newest = Newest::new();
                for _ in 0..25 {
                    let of: Vec<(i64, i64, f64)> = (0..random.usize(1..6))
                        .map(|_| {
                            let thing = random.i64(0..THINGS);
                            // Often of the same instant, so that the row itself decides.
                            let event = start + random.i64(0..600) * 5 * SECOND;
                            (thing, event, f64::from(random.u32(0..1_000)))
                        })
                        .collect();
                    for (thing, event, value) in &of {
                        let row = (*event, value.to_le_bytes());
                        let held = newest.entry(*thing).or_insert(row);
                        *held = row.max(*held);
                    }
                    pusher
                        .push(push_of(rows(&of), PushTo::default()))
                        .await
                        .unwrap();
                }
                newest
            }));
        }
        let mut random = Rng::with_seed(99);
        while tasks.iter().any(|task| !task.is_finished()) {
            let end = start + random.i64(0..3_600) * SECOND;
            materialize(&store, end).await;
            let compaction = Compaction {
                source: "history".to_owned(),
                target_bytes: 1 << 20,
                // Long for the readers of this test.
                grace: Duration::from_millis(200),
                now: now(),
            };
            let done = store.compact(&compaction, Arc::new(())).await.unwrap();
            assert_eq!(done.kept, 0);
        }
        let mut newest = Newest::new();
        for task in tasks {
            for (thing, row) in task.await.unwrap() {
                let held = newest.entry(thing).or_insert(row);
                *held = row.max(*held);
            }
        }
        let report = compared(&store).await;
        assert_eq!(report.differences, 0, "{report:?}");
        materialize(&store, now()).await;
        let report = compared(&store).await;
        assert_eq!((report.differences, report.ahead), (0, 0), "{report:?}");
        for (thing, (event, value)) in &newest {
            let value = f64::from_le_bytes(*value);
            assert_eq!(
                served(&store, *thing).await,
                both(value),
                "{thing} at {event}"
            );
        }
        let compaction = Compaction {
            source: "history".to_owned(),
            target_bytes: 1 << 20,
            grace: Duration::ZERO,
            now: now(),
        };
        store.compact(&compaction, Arc::new(())).await.unwrap();
        assert_eq!(files(&repository).len(), 1);
        assert_eq!(compared(&store).await.differences, 0);
        store.teardown().await.unwrap();
    })
    .await;
}
