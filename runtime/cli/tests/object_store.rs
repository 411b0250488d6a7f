//! A source in an object store, reached as the environment says.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;

use std::process::Command;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use common::Repository;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use unskew_test_s3::S3Server;

const DEFINITIONS: &str = "
entities:
  - {name: driver, join_keys: [{name: driver_id}]}
sources:
  - name: trips
    path: s3://history/trips
    timestamp_field: ended_at
    partition: {column: dt, of: ended_at, slack: 1d}
feature_views:
  - name: last_trip
    entities: [driver]
    source: trips
    features: [{name: miles}, {name: city}]
feature_services:
  - {name: model, features: [last_trip]}
";

/// The command with this environment, and nothing else that a store would look at.
fn with(mut command: Command, environment: &[(String, String)]) -> Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("AWS_") {
            command.env_remove(name);
        }
    }
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    command
}

/// Runs the command where the server is known: whether it was done, and what it said.
fn run(repository: &Repository, server: &S3Server, arguments: &[&str]) -> (bool, String) {
    let output = with(repository.command(arguments), &server.environment()).output();
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.success(), said)
}

/// The rows of a small training set.
fn rows(repository: &Repository, out: &str) -> RecordBatch {
    let file = std::fs::File::open(repository.path(out)).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    reader.build().unwrap().next().unwrap().unwrap()
}

fn trips(ended_at: i64, miles: i64) -> Vec<u8> {
    let instants = TimestampMicrosecondArray::from(vec![ended_at]).with_timezone("UTC");
    let columns: [(&str, ArrayRef); 3] = [
        ("driver_id", Arc::new(Int64Array::from(vec![7]))),
        ("ended_at", Arc::new(instants)),
        ("miles", Arc::new(Int64Array::from(vec![miles]))),
    ];
    parquet_of(&RecordBatch::try_from_iter(columns).unwrap())
}

fn parquet_of(batch: &RecordBatch) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
    bytes
}

#[test]
fn a_source_in_an_object_store_goes_all_the_way() {
    let server = S3Server::start();
    const DAY: i64 = 86_400_000_000;
    server.put("trips/dt=1970-01-02/city=Bern/1.parquet", &trips(DAY, 10));
    server.put(
        "trips/dt=1970-01-03/city=Chur/2.parquet",
        &trips(2 * DAY, 20),
    );
    let repository = Repository::empty("project: taxis\n");
    repository.write("features/trips.yaml", DEFINITIONS);
    let run = |arguments: &[&str]| {
        let (done, said) = run(&repository, &server, arguments);
        assert!(done, "{said}");
    };
    run(&["apply"]);
    repository.write(
        "entities.csv",
        "driver_id,event_timestamp\n7,1970-01-02T12:00:00Z\n7,1970-01-04T00:00:00Z\n7,1970-01-01\n",
    );
    run(&[
        "training-set",
        "--service",
        "model",
        "--entities",
        "entities.csv",
        "--out",
        "out.parquet",
    ]);
    let batch = rows(&repository, "out.parquet");
    let column = |name: &str| batch.column_by_name(name).unwrap().to_data();
    let miles = Int64Array::from(column("miles"));
    assert_eq!(miles, Int64Array::from(vec![Some(10), Some(20), None]));
    let cities = StringArray::from(column("city"));
    assert_eq!(
        cities,
        StringArray::from(vec![Some("Bern"), Some("Chur"), None])
    );
}

#[test]
fn entity_rows_of_an_object_store() {
    let server = S3Server::start();
    const DAY: i64 = 86_400_000_000;
    server.put("trips/dt=1970-01-02/city=Bern/1.parquet", &trips(DAY, 10));
    let labels = |instants: &[i64]| {
        let drivers = Int64Array::from(vec![7; instants.len()]);
        let instants = TimestampMicrosecondArray::from(instants.to_vec()).with_timezone("UTC");
        let columns: [(&str, ArrayRef); 2] = [
            ("driver_id", Arc::new(drivers)),
            ("event_timestamp", Arc::new(instants)),
        ];
        parquet_of(&RecordBatch::try_from_iter(columns).unwrap())
    };
    server.put("labels/1.parquet", &labels(&[0, DAY]));
    server.put("labels/2.parquet", &labels(&[5 * DAY]));
    let repository = Repository::empty("project: taxis\n");
    repository.write("features/trips.yaml", DEFINITIONS);
    let run = |arguments: &[&str]| run(&repository, &server, arguments);
    assert!(run(&["apply"]).0);
    let train = |entities: &str, out: &str| {
        run(&[
            "training-set",
            "--service",
            "model",
            "--entities",
            entities,
            "--out",
            out,
        ])
    };
    for (entities, expected) in [
        ("s3://history/labels", vec![None, Some(10), Some(10)]),
        ("s3://history/labels/2.parquet", vec![Some(10)]),
        ("s3://history/labels/[1]*", vec![None, Some(10)]),
    ] {
        let out = format!("{}.parquet", expected.len());
        let (done, said) = train(entities, &out);
        assert!(done, "{entities}: {said}");
        let miles = rows(&repository, &out)
            .column_by_name("miles")
            .unwrap()
            .to_data();
        assert_eq!(Int64Array::from(miles), Int64Array::from(expected));
    }
    let (done, said) = train("s3://history/nothing", "none.parquet");
    assert!(!done && said.contains("s3://history/nothing"), "{said}");
    assert!(!repository.path("none.parquet").exists());
}

#[test]
fn what_a_store_wants_is_told() {
    let mut server = S3Server::start();
    let endpoint = server.endpoint().to_owned();
    // Nobody answers there any more.
    server.stop();
    let repository = Repository::empty("project: taxis\n");
    repository.write("features/trips.yaml", DEFINITIONS);
    let plan = |environment: &[(&str, &str)]| {
        let environment: Vec<_> = environment
            .iter()
            .map(|&(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let output = with(repository.command(&["plan"]), &environment).output();
        let output = output.unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    // Instead of the one that machines in a cloud have.
    let error = plan(&[("AWS_METADATA_ENDPOINT", &endpoint)]);
    assert!(
        error.contains("trips.yaml:6: `s3://history/trips`"),
        "{error}"
    );
    assert!(error.contains("no credentials"), "{error}");
    assert!(
        error.contains("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
        "{error}"
    );
    let error = plan(&[("AWS_ACCESS_KEY_ID", "half of it")]);
    assert!(
        error.contains("trips.yaml:6: `s3://history/trips`"),
        "{error}"
    );
    assert!(error.contains("cannot be set up"), "{error}");
    let keys = [
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_ENDPOINT_URL", &*endpoint),
    ];
    let error = plan(&keys);
    assert!(error.contains("AWS_ALLOW_HTTP=true"), "{error}");
    let keys = [&keys[..], &[("AWS_ALLOW_HTTP", "true")]].concat();
    let error = plan(&keys);
    assert!(
        error.contains("trips.yaml:6: `s3://history/trips`"),
        "{error}"
    );
    assert!(error.contains("onnection refused"), "{error}");
}
