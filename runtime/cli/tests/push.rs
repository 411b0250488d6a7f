//! `push`, `delete` and `compact`, from the command line: a source in a folder and one in an object
//! store.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;

use std::process::Command;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use common::{Ran, Repository};
use parquet::arrow::ArrowWriter;
use serde_json::Value;
use unskew_test_s3::S3Server;

const DEFINITIONS: &str = "
entities:
  - {name: driver, join_keys: [{name: driver_id}]}
sources:
  - {name: trips, path: PATH, timestamp_field: ended_at}
feature_views:
  - {name: last_trip, entities: [driver], source: trips, features: [{name: miles}]}
feature_services:
  - {name: model, features: [last_trip]}
";

/// A file of one trip.
fn trip(miles: f64) -> Vec<u8> {
    let instants = TimestampMicrosecondArray::from(vec![0]).with_timezone("UTC");
    let columns: [(&str, ArrayRef); 3] = [
        ("driver_id", Arc::new(Int64Array::from(vec![7]))),
        ("ended_at", Arc::new(instants)),
        ("miles", Arc::new(Float64Array::from(vec![miles]))),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    bytes
}

/// A repository, and what its commands know of their environment.
struct Trips {
    repository: Repository,
    environment: Vec<(String, String)>,
}

impl Trips {
    fn new(path: &str, environment: Vec<(String, String)>) -> Self {
        let repository = Repository::empty("project: taxis\n");
        repository.write("features/trips.yaml", &DEFINITIONS.replace("PATH", path));
        Self {
            repository,
            environment,
        }
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        let mut command: Command = self.repository.command(arguments);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("AWS_") {
                command.env_remove(name);
            }
        }
        let environment = self.environment.iter();
        command.envs(environment.map(|(name, value)| (name, value)));
        let output = command.output().unwrap();
        Ran {
            code: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let arguments = [arguments, &["--json"]].concat();
        self.run(&arguments).done().json()
    }

    /// What is served for driver 7.
    fn served(&self) -> Value {
        let answer = self.json(&["get-online", "-s", "model", "-e", "driver_id=7"]);
        answer["features"]["miles"][0].clone()
    }
}

/// All of it, whichever place the source has; there is one file at first.
fn goes_all_the_way(trips: &Trips) {
    trips.run(&["apply"]).done();
    trips.run(&["materialize-incremental", "2001-01-01"]).done();
    assert_eq!(trips.served(), 1.5);
    trips.repository.write(
        "new.csv",
        "driver_id,ended_at,miles\n7,2002-01-01T00:00:00Z,20.5\n8,2002-01-01,3\n",
    );
    let pushed = trips.json(&["push", "trips", "new.csv"]);
    assert_eq!(
        (&pushed["rows"], &pushed["online_only"]),
        (&2.into(), &0.into())
    );
    assert_eq!(pushed["files"].as_array().unwrap().len(), 1);
    assert_eq!(pushed["views"][0]["written"], 2);
    assert_eq!(trips.served(), 20.5);
    let compared = trips.json(&["parity", "-s", "model"]);
    assert_eq!(compared["differences"], 0);
    assert!(compared["ahead"].as_u64().unwrap() > 0, "{compared}");

    let text = "driver_id,ended_at,miles\n7,2003-01-01,far\n7,9000-01-01,1\n";
    trips.repository.write("wrong.csv", text);
    let refused = trips.run(&["push", "trips", "wrong.csv"]);
    assert_eq!(refused.code, 1);
    for part in [
        "row 0, column `miles`: `far`",
        "row 1, column `ended_at`: 9000-01-01",
    ] {
        assert!(refused.stderr.contains(part), "{}", refused.stderr);
    }

    let only = "driver_id,ended_at,miles\n7,2004-01-01,40\n";
    trips.repository.write("only.csv", only);
    let arguments = ["push", "--view", "last_trip", "only.csv", "--to", "online"];
    let said = trips.run(&arguments).done().stdout;
    assert!(said.contains("online only"), "{said}");
    assert_eq!(trips.served(), 40.0);
    let said = trips.run(&["parity", "-s", "model"]).done().stdout;
    let expected = "`last_trip`: 1 entities were pushed online only, so no source has them, and are \
                    not compared: driver_id: 7\n";
    assert!(said.contains(expected), "{said}");

    let deleted = trips.json(&["delete", "-v", "last_trip", "-e", "driver_id=7"]);
    assert_eq!(deleted["had_value"], true);
    assert_eq!(deleted["history"].as_array().unwrap().len(), 2);
    assert_eq!(trips.served(), Value::Null);
    let said = trips.run(&["delete", "-v", "last_trip", "-e", "driver_id=x"]);
    assert_eq!(said.code, 2);
    assert!(said.stderr.contains("`x` is no int64"), "{}", said.stderr);

    let compacted = trips.json(&["compact", "trips", "--grace", "0s"]);
    assert_eq!(
        (&compacted["files_before"], &compacted["files_after"]),
        (&2.into(), &1.into())
    );
    assert_eq!(compacted["removed"].as_array().unwrap().len(), 2);
    trips.run(&["materialize-incremental", "2020-01-01"]).done();
    assert_eq!(trips.served(), Value::Null);
    let compared = trips.json(&["parity", "-s", "model"]);
    assert_eq!(
        (&compared["differences"], &compared["ahead"]),
        (&0.into(), &0.into())
    );
    assert_eq!(compared["deleted"]["last_trip"]["entities"], 1);
    let said = trips
        .run(&["compact", "trips", "--grace", "0s"])
        .done()
        .stdout;
    assert!(said.contains("there is nothing to merge"), "{said}");
}

#[test]
fn a_source_in_a_folder() {
    let trips = Trips::new("data/trips", Vec::new());
    let folder = trips.repository.path("data/trips");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("1.parquet"), trip(1.5)).unwrap();
    goes_all_the_way(&trips);
    // Nothing but the one file and the lock is left.
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), 2);
}

#[test]
fn a_source_in_an_object_store() {
    let server = S3Server::start();
    server.put("trips/1.parquet", &trip(1.5));
    goes_all_the_way(&Trips::new("s3://history/trips", server.environment()));
}

/// A process may have so many files open at once: of as many folders as rows go into, all files are
/// written before the first gets its name.
#[cfg(unix)]
#[test]
fn rows_of_many_folders_need_few_handles() {
    const DAYS: usize = 200;
    let path = "data/**, partition: {column: dt, of: ended_at}";
    let trips = Trips::new(path, Vec::new());
    let folder = trips.repository.path("data");
    std::fs::create_dir_all(folder.join("dt=1970-01-01")).unwrap();
    std::fs::write(folder.join("dt=1970-01-01/1.parquet"), trip(1.5)).unwrap();
    trips.run(&["apply"]).done();
    let mut text = "driver_id,ended_at,miles\n".to_owned();
    for day in 0..DAYS {
        let (month, day) = (day / 28 + 1, day % 28 + 1);
        text += &format!("7,2001-{month:02}-{day:02},1\n");
    }
    trips.repository.write("new.csv", &text);
    let script = "ulimit -n 100; exec \"$0\" \"$@\"";
    let output = Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_unskew")])
        .args(["push", "trips", "new.csv", "--to", "offline", "--json"])
        .current_dir(trips.repository.path(""))
        .output()
        .unwrap();
    let pushed = Ran::of(output).done().json();
    assert_eq!(pushed["files"].as_array().unwrap().len(), DAYS);
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), DAYS + 1);
}

#[test]
fn a_source_that_is_a_file_takes_rows_online_alone() {
    let trips = Trips::new("data/trips.parquet", Vec::new());
    std::fs::create_dir(trips.repository.path("data")).unwrap();
    std::fs::write(trips.repository.path("data/trips.parquet"), trip(1.5)).unwrap();
    trips.run(&["apply"]).done();
    trips
        .repository
        .write("new.csv", "driver_id,ended_at,miles\n7,2002-01-01,20\n");
    let refused = trips.run(&["push", "trips", "new.csv", "--json"]);
    let message = refused.json_error()["error"]["message"].to_string();
    assert!(
        message.contains("write `data` as its path, or push with --to online"),
        "{message}"
    );
    let pushed = trips.json(&["push", "trips", "new.csv", "--to", "online"]);
    assert_eq!(pushed["online_only"], 1);
    // Nothing is materialized, so nothing is served yet.
    let warning = pushed["warnings"][0].as_str().unwrap();
    assert!(
        warning.contains("unskew materialize-incremental now"),
        "{warning}"
    );
    let refused = trips.run(&["push", "new.csv"]);
    assert_eq!(refused.code, 2);
}
