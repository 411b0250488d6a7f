//! Sources and registries in an object store, reached as the environment says.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use common::{Ran, Repository};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;
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

/// The project file of `project`, its registry in the object store.
fn shared(project: &str) -> String {
    format!("project: {project}\nregistry: s3://${{BUCKET}}/registries/drivers\n")
}

/// The command where the server and the registry's bucket are known.
fn command_shared(repository: &Repository, server: &S3Server, arguments: &[&str]) -> Command {
    let bucket = ("BUCKET".to_owned(), "history".to_owned());
    let environment = [server.environment(), vec![bucket]].concat();
    with(repository.command(arguments), &environment)
}

/// Runs it.
fn run_shared(repository: &Repository, server: &S3Server, arguments: &[&str]) -> Ran {
    let output = command_shared(repository, server, arguments).output();
    Ran::of(output.unwrap())
}

/// `unskew serve`, ended with the test.
struct Serving {
    child: Child,
    url: String,
    _stdout: BufReader<ChildStdout>,
}

impl Serving {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        Self {
            child,
            url: line.trim().rsplit(' ').next().unwrap().to_owned(),
            _stdout: stdout,
        }
    }

    fn get(&self, path: &str) -> String {
        let answer = ureq::get(format!("{}{path}", self.url)).call();
        answer.unwrap().body_mut().read_to_string().unwrap()
    }

    /// Waits until `/ready` is as `is` wants it.
    fn wait_until_ready(&self, is: impl Fn(&Value) -> bool) {
        while !is(&serde_json::from_str(&self.get("/ready")).unwrap()) {
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The miles of driver 7, by a service.
    fn miles(&self, service: &str) -> Value {
        let ask = format!(r#"{{"feature_service": "{service}", "entities": {{"driver_id": 7}}}}"#);
        let answer = ureq::post(format!("{}/online", self.url)).send(ask);
        let body = answer.unwrap().body_mut().read_to_string().unwrap();
        let body: Value = serde_json::from_str(&body).unwrap();
        body["features"]["miles"][0].clone()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_registry_in_an_object_store_is_shared_by_checkouts() {
    let server = S3Server::start();
    let author = Repository::init("drivers");
    author.write("unskew.yaml", &shared("drivers"));
    let applied = run_shared(&author, &server, &["apply"]).done();
    assert!(applied.stdout.contains("applied as state 1"), "{applied:?}");

    // Another machine has the data, and neither definitions nor transformations.
    let trainer = Repository::empty(&shared("drivers"));
    for file in ["driver_hours.parquet", "rides.parquet"] {
        std::fs::create_dir_all(trainer.path("data")).unwrap();
        let (from, to) = (author.path("data"), trainer.path("data"));
        std::fs::copy(from.join(file), to.join(file)).unwrap();
    }
    let train = [
        "training-set",
        "--service",
        "dispatch",
        "--entities",
        "data/rides.parquet",
        "--out",
        "out.parquet",
    ];
    for repository in [&author, &trainer] {
        run_shared(repository, &server, &train).done();
        assert!(!repository.path(".unskew/registry").exists());
    }
    assert_eq!(rows(&trainer, "out.parquet"), rows(&author, "out.parquet"));

    // What one applies, the other has.
    let definitions = author.read("features/drivers.yaml");
    let definitions = definitions.replace("name: dispatch", "name: dispatch_2");
    author.write("features/drivers.yaml", &definitions);
    let applied = run_shared(&author, &server, &["apply"]).done();
    assert!(applied.stdout.contains("applied as state 2"), "{applied:?}");
    let list = run_shared(&trainer, &server, &["list", "--json"]).done();
    let services = &list.json()["feature_services"];
    assert_eq!(services[0]["name"], "dispatch_2", "{services}");
    let ran = run_shared(&trainer, &server, &train);
    assert!(ran.stderr.contains("`dispatch`"), "{}", ran.stderr);

    let other = Repository::empty(&shared("taxis"));
    let ran = run_shared(&other, &server, &["list"]);
    assert!(ran.stderr.contains("project `drivers`"), "{}", ran.stderr);
}

#[test]
fn a_server_sees_what_another_checkout_applies_and_outlives_the_registrys_store() {
    let mut server = S3Server::start();
    server.put("trips/dt=1970-01-02/city=Bern/1.parquet", &trips(0, 10));
    let author = Repository::empty(&shared("taxis"));
    author.write("features/trips.yaml", DEFINITIONS);
    run_shared(&author, &server, &["apply"]).done();
    // Where it is served there are no definitions.
    let machine = Repository::empty(&shared("taxis"));
    run_shared(
        &machine,
        &server,
        &["materialize-incremental", "1970-01-05"],
    )
    .done();
    let serve = ["serve", "--port", "0", "--poll", "50ms"];
    let serving = Serving::start(command_shared(&machine, &server, &serve));
    assert_eq!(serving.miles("model"), 10);
    let failing = "\nunskew_reload_failing ";
    assert!(serving.get("/metrics").contains(&format!("{failing}0\n")));

    let more = format!("{DEFINITIONS}  - {{name: model_2, features: ['last_trip:miles']}}\n");
    author.write("features/trips.yaml", &more);
    run_shared(&author, &server, &["apply"]).done();
    serving.wait_until_ready(|ready| ready["state"] == 2);
    assert_eq!(serving.miles("model_2"), 10);

    server.stop();
    serving.wait_until_ready(|ready| ready["reload_failure"].is_string());
    assert!(serving.get("/metrics").contains(&format!("{failing}1\n")));
    for service in ["model", "model_2"] {
        assert_eq!(serving.miles(service), 10);
    }
    serving.wait_until_ready(|ready| ready["status"] == "ready" && ready["state"] == 2);
}

#[test]
fn of_applies_at_once_in_many_checkouts_none_is_lost() {
    let server = S3Server::start();
    server.put("trips/dt=1970-01-02/city=Bern/1.parquet", &trips(0, 10));
    let checkouts: Vec<Repository> = (0..4)
        .map(|checkout| {
            let repository = Repository::empty(&shared("taxis"));
            let service = format!("name: model_{checkout}");
            let definitions = DEFINITIONS.replace("name: model", &service);
            repository.write("features/trips.yaml", &definitions);
            repository
        })
        .collect();
    let mut states: Vec<u64> = std::thread::scope(|scope| {
        let applied = checkouts.iter().map(|checkout| {
            let apply = || run_shared(checkout, &server, &["apply", "--json"]);
            scope.spawn(apply)
        });
        let applied: Vec<_> = applied.collect();
        let state = |ran: Ran| ran.done().json()["state"].as_u64().unwrap();
        applied
            .into_iter()
            .map(|ran| state(ran.join().unwrap()))
            .collect()
    });
    states.sort_unstable();
    assert_eq!(states, [1, 2, 3, 4]);
}

#[test]
fn what_a_registry_wants_is_told() {
    let mut server = S3Server::start();
    let repository = Repository::empty(&shared("taxis"));
    let ran = run_shared(&repository, &server, &["list"]);
    assert!(ran.stderr.contains("nothing is applied yet"), "{ran:?}");
    server.stop();
    let ran = run_shared(&repository, &server, &["list", "--json"]);
    assert_eq!(ran.code, 1);
    let error = ran.json_error()["error"]["message"].to_string();
    for part in [
        "s3://history/registries/drivers",
        server.endpoint(),
        "AWS_ENDPOINT_URL",
    ] {
        assert!(error.contains(part), "{error}");
    }
    repository.write("unskew.yaml", "project: a\nregistry: hdfs://a/b\n");
    let ran = run_shared(&repository, &server, &["list"]);
    assert!(
        ran.stderr.contains("unskew.yaml:2") && ran.stderr.contains("s3://"),
        "{ran:?}"
    );
}
