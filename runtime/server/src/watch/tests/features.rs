//! The log of features has what was served.

use std::path::{Path, PathBuf};
use std::time::Duration;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::{concat_batches, sort_to_indices, take_record_batch};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tempfile::TempDir;

use super::*;
use crate::served::{Answers, Service};
use crate::watch::{FeatureLogSettings, Sample};

/// All complete files below `folder`.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(folder) else {
        return found;
    };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// What `ask` gives as soon as it gives something.
async fn until<T>(ask: impl AsyncFn() -> Option<T>) -> T {
    for _ in 0..3_000 {
        if let Some(found) = ask().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it did not happen");
}

fn read(files: &[PathBuf]) -> RecordBatch {
    let batches: Vec<RecordBatch> = files
        .iter()
        .flat_map(|path| {
            let file = std::fs::File::open(path).unwrap();
            let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
            reader.build().unwrap().map(Result::unwrap)
        })
        .collect();
    concat_batches(&batches[0].schema(), &batches).unwrap()
}

fn logging(folder: &TempDir) -> FeatureLogSettings {
    FeatureLogSettings::all(folder.path())
}

fn logged_by(log: FeatureLogSettings) -> Settings {
    Settings {
        feature_log: Some(log),
        ..Settings::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_the_log_are_what_was_served_bit_for_bit() {
    let (store, folder) = (Store::new(), tempfile::tempdir().unwrap());
    let (state, plan, columns) = filled(&store, logged_by(logging(&folder))).await;
    let server = Server::start(state).await;
    for id in 0..9 {
        let ids = format!("[{id}]");
        let header = [("x-request-id", format!("request-{id}"))];
        let header = header.each_ref().map(|(name, id)| (*name, id.as_str()));
        let body = format!(
            r#"{{"feature_service": "{SERVICE}", "entities": {{"id": {ids}}},
                "as_of": "2001-03-01T12:00:0{id}Z"}}"#
        );
        assert_eq!(server.ask("/online", &header, Some(body)).await.status, 200);
    }
    assert_eq!(server.online("[9, 99]").await.status, 200);
    // What is no answer is not logged.
    assert_eq!(server.online(r#"["x"]"#).await.status, 400);
    server.end().await;

    let files = files(folder.path());
    let at = folder.path().join(SERVICE).join(plan.digest().short());
    assert!(files.len() == 1 && files[0].starts_with(&at), "{files:?}");
    let logged = read(&files);
    let order = sort_to_indices(&logged["id"], None, None).unwrap();
    let logged = take_record_batch(&logged, &order).unwrap();
    assert_eq!(logged.num_rows(), 11);
    for (field, expected) in plan.outputs.iter().zip(&columns) {
        let served = &logged[format!("served:{}", field.name).as_str()];
        // Arrow compares floats by their bits.
        assert_eq!(&served.slice(0, 10), expected, "{}", field.name);
        assert!(served.is_null(10));
        let statuses = logged[format!("status:{}", field.name).as_str()].as_string::<i32>();
        for row in 0..10 {
            let expected = if expected.is_null(row) {
                "NULL_VALUE"
            } else {
                "PRESENT"
            };
            assert_eq!(statuses.value(row), expected);
        }
        assert_eq!(statuses.value(10), "NOT_FOUND");
    }
    let ids = logged["@request_id"].as_string::<i32>();
    let instants = logged["event_timestamp"].as_primitive::<TimestampMicrosecondType>();
    for row in 0..9 {
        assert_eq!(ids.value(row), format!("request-{row}"));
        assert_eq!(
            instants.value(row),
            983_448_000_000_000 + row as i64 * 1_000_000
        );
    }
    assert_eq!(ids.value(9), ids.value(10));
    let plans = logged["@plan"].as_string::<i32>();
    assert!(
        plans
            .iter()
            .all(|plan_digest| plan_digest == Some(&plan.digest().to_string()))
    );
    let reader = std::fs::File::open(&files[0]).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(reader).unwrap();
    let metadata = reader
        .metadata()
        .file_metadata()
        .key_value_metadata()
        .unwrap();
    let of = |key: &str| {
        metadata
            .iter()
            .find(|pair| pair.key == key)
            .unwrap()
            .value
            .clone()
    };
    assert_eq!(of("unskew.plan_digest"), Some(plan.digest().to_string()));
    let written: FeaturePlan = serde_json::from_str(&of("unskew.plan").unwrap()).unwrap();
    assert_eq!(written, plan);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_complete_after_its_rows_and_is_hidden_before() {
    let (store, folder) = (Store::new(), tempfile::tempdir().unwrap());
    let log = FeatureLogSettings {
        rows_per_file: 5,
        ..logging(&folder)
    };
    let (state, ..) = filled(&store, logged_by(log)).await;
    let server = Server::start(state).await;
    assert_eq!(server.online("[0,1,2]").await.status, 200);
    let hidden = until(async || files(folder.path()).pop()).await;
    let name = hidden.file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with('.') && name.ends_with(".tmp"), "{name}");
    assert_eq!(server.online("[3,4,5]").await.status, 200);
    let written = r#"unskew_feature_log_rows_total{result="written"}"#;
    until(async || (server.metrics().await.value(written) >= 6.0).then_some(())).await;
    let complete = files(folder.path());
    assert!(complete.len() == 1 && complete[0].extension().unwrap() == "parquet");
    assert_eq!(read(&complete).num_rows(), 6);
    assert_eq!(
        server
            .metrics()
            .await
            .value("unskew_feature_log_files_total"),
        1.0
    );
    server.end().await;
    assert_eq!(files(folder.path()), complete);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_plans_the_files_that_have_been_open_longest_are_completed() {
    let (store, folder) = (Store::new(), tempfile::tempdir().unwrap());
    let (_, plan, _) = filled(&store, Settings::default()).await;
    let services = (0..100).map(|index| {
        let name = format!("service-{index}");
        let mut plan = plan.clone();
        plan.service = Some(name.clone());
        let answers: Arc<dyn Answers> = Arc::new(ByHand::new(&plan, &store.online));
        (name, Service::Ready(answers))
    });
    let services = services.collect();
    let state = testing::of_services(logged_by(logging(&folder)), services, &store.online);
    let server = Server::start(state).await;
    for index in 0..100 {
        let body = format!(r#"{{"feature_service": "service-{index}", "entities": {{"id": 0}}}}"#);
        assert_eq!(server.ask("/online", &[], Some(body)).await.status, 200);
    }
    let all = until(async || {
        let all = files(folder.path());
        (all.len() == 100).then_some(all)
    })
    .await;
    let is_open = |file: &&PathBuf| file.extension().is_some_and(|it| it == "tmp");
    let open = all.iter().filter(is_open).count();
    assert!(open <= 64, "{open}");
    server.end().await;
    let all = files(folder.path());
    assert_eq!((all.len(), all.iter().filter(is_open).count()), (100, 0));
    assert!(
        all.iter()
            .all(|file| read(std::slice::from_ref(file)).num_rows() == 1)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_queue_does_not_take_is_dropped_and_counted() {
    let (store, folder) = (Store::new(), tempfile::tempdir().unwrap());
    let log = FeatureLogSettings {
        queue_bytes: 1,
        ..logging(&folder)
    };
    let (state, ..) = filled(&store, logged_by(log)).await;
    let server = Server::start(state).await;
    assert_eq!(server.online("[0,1,2]").await.status, 200);
    let scraped = server.metrics().await;
    assert_eq!(
        scraped.value(r#"unskew_feature_log_rows_total{result="dropped"}"#),
        3.0
    );
    server.end().await;
    assert!(files(folder.path()).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_written_is_counted_and_no_request_fails() {
    let (store, folder) = (Store::new(), tempfile::tempdir().unwrap());
    // Where the folder of the service would be, there is a file.
    std::fs::write(folder.path().join(SERVICE), "").unwrap();
    let (state, ..) = filled(&store, logged_by(logging(&folder))).await;
    let server = Server::start(state).await;
    assert_eq!(server.online("[0,1,2]").await.status, 200);
    let failed = r#"unskew_feature_log_rows_total{result="failed"}"#;
    until(async || (server.metrics().await.value(failed) >= 3.0).then_some(())).await;
    assert_eq!(server.online("[0,1,2]").await.status, 200);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_of_the_requests_is_logged_each_whole_or_not_at_all() {
    let (store, folder) = (Store::new(), tempfile::tempdir().unwrap());
    let log = FeatureLogSettings {
        sample: Sample::new(0.25).unwrap(),
        ..logging(&folder)
    };
    let (state, ..) = filled(&store, logged_by(log)).await;
    let server = Server::start(state).await;
    for _ in 0..1_000 {
        assert_eq!(server.online("[1,2]").await.status, 200);
    }
    server.end().await;
    let logged = read(&files(folder.path()));
    let ids = logged["id"].as_primitive::<Int64Type>();
    let count = |id| ids.values().iter().filter(|&&found| found == id).count();
    // 250 with a standard deviation of 14: once in 10^12 runs it lies beyond.
    assert!((150..350).contains(&count(1)), "{}", count(1));
    assert_eq!(count(1), count(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_logged_of_requests_that_are_not_sampled() {
    let (store, folder) = (Store::new(), tempfile::tempdir().unwrap());
    let log = FeatureLogSettings {
        sample: Sample::new(0.0).unwrap(),
        ..logging(&folder)
    };
    let (state, ..) = filled(&store, logged_by(log)).await;
    let server = Server::start(state).await;
    assert_eq!(server.online("[0]").await.status, 200);
    server.end().await;
    assert!(files(folder.path()).is_empty());
    assert_eq!(Sample::new(1.5), None);
    assert_eq!(Sample::new(f64::NAN), None);
}
