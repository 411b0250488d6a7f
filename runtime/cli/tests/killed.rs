//! Materializations that are killed, run at once and are pushed into leave what one that nobody
//! disturbed leaves.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use common::Repository;
use parquet::arrow::ArrowWriter;
use unskew_online::{ViewKey, ViewState, Wanted};
use unskew_store::FeatureStore;
use unskew_test_redis::RedisServer;

const DEFINITIONS: &str = "
entities:
  - {name: driver, join_keys: [{name: driver_id}]}
sources:
  - {name: trips, path: data, timestamp_field: ended_at}
feature_views:
  - {name: last_trip, entities: [driver], source: trips, features: [{name: miles}]}
feature_services:
  - {name: model, features: [last_trip]}
";

const DRIVERS: i64 = 20_000;
const HOUR: i64 = 3_600_000_000;

/// A trip of each driver in each of these hours of 1970, in a file.
fn trips(file: &Path, drivers: std::ops::Range<i64>, hours: std::ops::Range<i64>) {
    let rows: Vec<(i64, i64)> = hours
        .flat_map(|hour| drivers.clone().map(move |driver| (driver, hour)))
        .collect();
    let instants = rows.iter().map(|(_, hour)| hour * HOUR);
    let instants = TimestampMicrosecondArray::from_iter_values(instants).with_timezone("UTC");
    let miles = rows
        .iter()
        .map(|(driver, hour)| (driver * 1000 + hour) as f64);
    let columns: [(&str, ArrayRef); 3] = [
        (
            "driver_id",
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0))),
        ),
        ("ended_at", Arc::new(instants)),
        ("miles", Arc::new(Float64Array::from_iter_values(miles))),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    let mut writer =
        ArrowWriter::try_new(std::fs::File::create(file).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn materialize(repository: &Repository) -> Child {
    let mut command = repository.command(&["materialize-incremental", "1970-01-02"]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

/// All rows that the online store holds of the view, and how far it is materialized.
fn held(repository: &Repository) -> (BTreeMap<Vec<u8>, Vec<u8>>, Option<ViewState>) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = FeatureStore::open(&repository.path("")).unwrap();
        let applied = store.applied().await.unwrap();
        let project = applied.project();
        let view = ViewKey::of(&project.name, &project.views["last_trip"].value.view);
        let online = store.online().unwrap();
        let entities = online.sample_keys(&view, usize::MAX, 0).await.unwrap();
        let wanted = Wanted {
            view: Arc::new(view),
            entities: entities.clone(),
        };
        let held = online.get(vec![wanted]).await.unwrap().remove(0);
        let rows = held.rows.into_iter().map(|row| row.unwrap().to_vec());
        (entities.into_iter().zip(rows).collect(), held.state)
    })
}

fn survives(online_store: &str) {
    let project = format!("project: taxis\nonline_store: {online_store}\n");
    let repository = Repository::empty(&project);
    repository.write("features/trips.yaml", DEFINITIONS);
    trips(&repository.path("data/history.parquet"), 0..DRIVERS, 0..3);
    repository.run(&["apply"]).done();

    let mut killed = 0;
    for round in 0..10_i64 {
        // Two at once, and rows that are newer than theirs, or older, pushed in between.
        let mut runs = [materialize(&repository), materialize(&repository)];
        let file = repository.path("pushed.parquet");
        let first = round * 100;
        let hour = if round % 2 == 0 { 5 } else { -1 };
        trips(&file, first..first + 150, hour..hour + 1);
        repository
            .run(&["push", "trips", file.to_str().unwrap()])
            .done();
        std::thread::sleep(Duration::from_millis(fastrand::u64(0..300)));
        for run in &mut runs {
            // One that has ended by then is a round that shows less.
            killed += u32::from(run.try_wait().unwrap().is_none());
            run.kill().unwrap();
            run.wait().unwrap();
        }
    }
    assert!(killed > 0, "none was killed");
    repository
        .run(&["materialize-incremental", "1970-01-02"])
        .done();
    let (rows, state) = held(&repository);
    assert_eq!(state.unwrap().watermark, Some(24 * HOUR));

    // The same history into a store of its own, undisturbed.
    let reference = Repository::empty("project: taxis\n");
    reference.write("features/trips.yaml", DEFINITIONS);
    std::fs::create_dir(reference.path("data")).unwrap();
    for entry in std::fs::read_dir(repository.path("data")).unwrap() {
        let file = entry.unwrap();
        std::fs::copy(file.path(), reference.path("data").join(file.file_name())).unwrap();
    }
    reference.run(&["apply"]).done();
    reference
        .run(&["materialize-incremental", "1970-01-02"])
        .done();
    let (expected, _) = held(&reference);
    assert_eq!(expected.len(), DRIVERS as usize);
    assert!(rows == expected, "the stores differ");
}

#[test]
fn killed_materializations_leave_the_same_embedded_store() {
    survives("{type: embedded, path: .unskew/online}");
}

#[test]
fn killed_materializations_leave_the_same_redis() {
    let redis = RedisServer::start();
    survives(&format!("{{type: redis, url: '{}'}}", redis.url()));
}
