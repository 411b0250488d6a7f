//! What `unskew init` makes, from `apply` to `teardown`.
//!
//! One test, since each repository builds its component anew.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, ChildStdout, Command, Stdio};

use common::Repository;
use serde_json::Value;

#[test]
fn a_new_repository_goes_all_the_way() {
    let repository = Repository::init("drivers");
    follow_the_readme(&repository);
    nothing_changes_the_second_time(&repository);
    training_sets(&repository);
    requests(&repository);
    gaps_are_named(&repository);
    serving(&repository);
    listing(&repository);
    components(&repository);
    a_changed_transformation(&repository);
    the_online_store_may_be_down(&repository);
    removal(&repository);
}

/// Each command that README.md names does what it says.
fn follow_the_readme(repository: &Repository) {
    let readme = repository.read("README.md");
    let is_command = |line: &&str| line.starts_with("unskew ") && *line != "unskew serve";
    let commands: Vec<&str> = readme.lines().filter(is_command).collect();
    assert!(commands.len() >= 7, "{commands:?}");
    for line in commands {
        let arguments: Vec<&str> = line.split_whitespace().skip(1).collect();
        let ran = repository.run(&arguments).done();
        match arguments[0] {
            "apply" => {
                for part in [
                    "created  feature view     driver_hourly",
                    "applied as state 1",
                ] {
                    assert!(ran.stdout.contains(part), "{}", ran.stdout);
                }
                assert!(ran.stderr.contains("building `pickup`"), "{}", ran.stderr);
            }
            "parity" => assert!(ran.stdout.ends_with(", 0 differences\n"), "{}", ran.stdout),
            _ => assert!(!ran.stdout.is_empty(), "{line}"),
        }
    }
    assert!(repository.path("training.parquet").is_file());
}

fn nothing_changes_the_second_time(repository: &Repository) {
    for command in ["plan", "apply"] {
        let changes = repository.run(&[command, "--json"]).done().json();
        assert_eq!(changes["state"], 1);
        assert_eq!(changes["materialize"], Value::Array(Vec::new()));
        let objects = changes["objects"].as_array().unwrap();
        assert!(
            objects.iter().all(|object| object["change"] == "unchanged"),
            "{changes}"
        );
    }
}

fn training_sets(repository: &Repository) {
    let entities = ["--entities", "data/rides.parquet", "--json"];
    let service = ["training-set", "-s", "dispatch", "--out", "service.parquet"];
    let report = repository
        .run(&[&service[..], &entities].concat())
        .done()
        .json();
    assert_eq!(report["rows"], 1_000);
    let outputs = report["outputs"].as_array().unwrap();
    let names: Vec<_> = outputs
        .iter()
        .map(|output| output["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "acceptance_rate",
            "mean_speed",
            "rides_today",
            "minutes",
            "score"
        ]
    );
    for output in outputs {
        let statuses = output["statuses"].as_object().unwrap();
        let rows: u64 = statuses.values().filter_map(Value::as_u64).sum();
        assert_eq!(rows, 1_000, "{output}");
        assert!(statuses.contains_key("PRESENT"), "{output}");
    }

    // From a folder below, paths are that folder's.
    let below = repository.path("data");
    let named = [
        "training-set",
        "-f",
        "pickup:score",
        "-f",
        "driver_hourly",
        "--full-feature-names",
    ];
    let files = [
        "--entities",
        "rides.parquet",
        "--out",
        "named.parquet",
        "--json",
    ];
    let report = common::unskew(&below, &[&named[..], &files].concat())
        .done()
        .json();
    assert_eq!(report["outputs"][0]["name"], "pickup__score");
    assert!(below.join("named.parquet").is_file());

    let unknown = [
        "training-set",
        "-s",
        "dispatsch",
        "--out",
        "unknown.parquet",
    ];
    let ran = repository.run(&[&unknown[..], &entities].concat());
    assert_eq!(ran.code, 1);
    let message = ran.json_error()["error"]["message"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        message.contains("`dispatsch`") && message.contains("dispatch"),
        "{message}"
    );
    assert!(!repository.path("unknown.parquet").exists());
}

fn requests(repository: &Repository) {
    let get = [
        "get-online",
        "-s",
        "dispatch",
        "-e",
        "driver_id=1001",
        "-r",
        "distance=2.5",
    ];
    let answer = repository
        .run(&[&get[..], &["--json"]].concat())
        .done()
        .json();
    assert!(
        answer["plan"].as_str().unwrap().starts_with("sha256:"),
        "{answer}"
    );
    assert_eq!(answer["statuses"]["rides_today"][0], "PRESENT");
    assert!(answer["features"]["minutes"][0].is_f64(), "{answer}");

    let as_of = ["--as-of", "2025-01-01", "--json"];
    let answer = repository.run(&[&get[..], &as_of].concat()).done().json();
    assert_eq!(answer["as_of"][0], "2025-01-01T00:00:00Z");
    assert_eq!(answer["statuses"]["rides_today"][0], "IN_FUTURE");

    for (arguments, message) in [
        (
            &["-e", "driver_id=1001"][..],
            "`-r distance=VALUE` (float64)",
        ),
        (&["-e", "driver_id=x", "-r", "distance=1"], "no int64"),
        (&["-e", "driver_id=1", "-e", "distance=1"], "-r distance="),
        (&["-e", "driver=1", "-r", "distance=1"], "driver_id (int64)"),
    ] {
        let ran = repository.run(&[&get[..3], arguments].concat());
        assert_eq!(ran.code, 2, "{arguments:?}");
        assert!(
            ran.stderr.contains(message),
            "{arguments:?}: {}",
            ran.stderr
        );
    }
}

/// A range beyond a gap does not move the watermark; what comes out says so.
fn gaps_are_named(repository: &Repository) {
    for (arguments, message) in [
        (&["materialize-incremental", "9999-01-01"][..], "after now"),
        (
            &["materialize-incremental", "2025-01-08", "-v", "drivers"],
            "driver_hourly",
        ),
    ] {
        let ran = repository.run(arguments);
        assert_eq!(ran.code, 1, "{arguments:?}");
        assert!(
            ran.stderr.contains(message),
            "{arguments:?}: {}",
            ran.stderr
        );
    }
    repository.run(&["teardown", "--yes"]).done();
    let range = [
        "materialize",
        "2025-01-05",
        "2025-01-08",
        "-v",
        "driver_hourly",
    ];
    let report = repository
        .run(&[&range[..], &["--json"]].concat())
        .done()
        .json();
    assert_eq!(report["views"][0]["watermark"], Value::Null);
    assert_eq!(report["views"][0]["gap"]["before"], "2025-01-05T00:00:00Z");
    let list = repository
        .run(&["list", "feature-views", "--json"])
        .done()
        .json();
    assert_eq!(
        list["feature_views"][0]["gaps"][0]["before"],
        "2025-01-05T00:00:00Z"
    );
    assert_eq!(repository.run(&["parity", "-s", "dispatch"]).code, 1);

    let ran = repository.run(&range).done();
    let (_, hint) = ran.stdout.split_once("before `unskew ").unwrap();
    let (hint, _) = hint.split_once('`').unwrap();
    repository
        .run(&hint.split_whitespace().collect::<Vec<_>>())
        .done();
    let list = repository
        .run(&["list", "feature-views", "--json"])
        .done()
        .json();
    assert_eq!(list["feature_views"][0]["gaps"], Value::Array(Vec::new()));
    assert_eq!(
        list["feature_views"][0]["watermark"],
        "2025-01-08T00:00:00Z"
    );
}

/// A server that is ended with the test, however that ends.
struct Server {
    child: Child,
    url: String,
    _stdout: BufReader<ChildStdout>,
}

impl Server {
    fn start(repository: &Repository) -> Self {
        let mut child = repository
            .command(&["serve", "--port", "0"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let url = line.trim().rsplit(' ').next().unwrap().to_owned();
        assert!(
            url.starts_with("http://127.0.0.1:") && !url.ends_with(":0"),
            "{line}"
        );
        Self {
            child,
            url,
            _stdout: stdout,
        }
    }

    /// Sends SIGTERM, and says whether the server ended well.
    fn terminate(mut self) -> bool {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &pid])
                .status()
                .unwrap()
                .success()
        );
        self.child.wait().unwrap().success()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn serving(repository: &Repository) {
    let server = Server::start(repository);
    let url = server.url.clone();
    let parity = [
        "parity", "-s", "dispatch", "--url", &url, "--rows", "700", "--json",
    ];
    let report = repository.run(&parity).done().json();
    assert_eq!(
        (&report["rows"], &report["differences"]),
        (&700.into(), &0.into()),
        "{report}"
    );
    assert_eq!(report["as_of"], "2025-01-08T00:00:00Z");

    // The body is README.md's.
    let readme = repository.read("README.md");
    let (_, body) = readme.split_once("-d '").unwrap();
    let (body, _) = body.split_once('\'').unwrap();
    let mut answer = ureq::post(format!("{url}/online"))
        .header("content-type", "application/json")
        .send(body)
        .unwrap();
    let answer: Value = serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap();
    assert_eq!(
        answer["features"]["score"].as_array().unwrap().len(),
        2,
        "{answer}"
    );

    let (_, port) = url.rsplit_once(':').unwrap();
    let ran = repository.run(&["serve", "--port", port]);
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
    assert!(
        ran.stderr.contains("cannot listen on 127.0.0.1:"),
        "{}",
        ran.stderr
    );

    assert!(server.terminate());
    let ran = repository.run(&parity);
    assert_eq!(ran.code, 1, "{}", ran.stderr);

    let rides = [
        "parity",
        "-s",
        "dispatch",
        "--entities",
        "data/rides.parquet",
        "--json",
    ];
    let report = repository.run(&rides).done().json();
    assert_eq!(
        (&report["rows"], &report["differences"]),
        (&1_000.into(), &0.into()),
        "{report}"
    );
}

fn listing(repository: &Repository) {
    let list = repository.run(&["list", "--json"]).done().json();
    for kind in [
        "entities",
        "sources",
        "feature_views",
        "transformations",
        "feature_services",
    ] {
        assert_eq!(list[kind].as_array().unwrap().len(), 1, "{kind}: {list}");
    }
    let only = repository.run(&["list", "sources", "--json"]).done().json();
    assert_eq!(only.as_object().unwrap().len(), 1, "{only}");

    for (kind, name, parts) in [
        (
            "entity",
            "driver",
            &["driver_id  int64", "driver_hourly"][..],
        ),
        (
            "source",
            "driver_hours",
            &["data/driver_hours.parquet", "created_timestamp"],
        ),
        (
            "feature-view",
            "driver_hourly",
            &["2025-01-08T00:00:00Z", "rides_today", "dispatch"],
        ),
        (
            "transformation",
            "pickup",
            &["request:distance", "25.0", "in km/h", "dispatch"],
        ),
        (
            "feature-service",
            "dispatch",
            &["plan", "pickup:score", "distance", "driver_id"],
        ),
    ] {
        let ran = repository.run(&["describe", kind, name]).done();
        for part in parts {
            assert!(ran.stdout.contains(part), "{part}: {}", ran.stdout);
        }
        let json = repository
            .run(&["describe", kind, name, "--json"])
            .done()
            .json();
        assert_eq!(json["name"], name);
        let ran = repository.run(&["describe", kind, "nobody"]);
        assert_eq!(ran.code, 1);
        assert!(ran.stderr.contains(name), "{}", ran.stderr);
    }
}

fn components(repository: &Repository) {
    let built = repository
        .run(&["transform", "build", "transforms/pickup", "--json"])
        .done()
        .json();
    let file = built["component"].as_str().unwrap();
    let inspected = repository
        .run(&["transform", "inspect", file, "--json"])
        .done()
        .json();
    assert_eq!(inspected["digest"], built["digest"]);
    assert_eq!(inspected["size"], built["size"]);
    assert_eq!(inspected["imports"], Value::Array(Vec::new()));
    assert_eq!(
        (&inspected["name"], &inspected["kind"]),
        (&"pickup".into(), &"on_demand".into())
    );
    assert_eq!(inspected["inputs"][1]["name"], "mean_speed");
    assert_eq!(inspected["outputs"][1]["nullable"], true);
    let ran = repository.run(&["transform", "inspect", file]).done();
    assert!(ran.stdout.contains("imports nothing"), "{}", ran.stdout);
}

/// The plan changes, and the views need not be materialized anew.
fn a_changed_transformation(repository: &Repository) {
    let source = repository.read("transforms/pickup/src/lib.rs");
    repository.write(
        "transforms/pickup/src/lib.rs",
        &source.replace("/ 10.0", "/ 20.0"),
    );
    let changes = repository.run(&["plan"]).done().stdout;
    assert!(
        changes.contains("updated  transformation  pickup  component "),
        "{changes}"
    );
    assert!(!changes.contains("materialized anew"), "{changes}");
    let changes = repository.run(&["apply", "--json"]).done().json();
    assert_eq!(changes["state"], 2);
    repository.run(&["parity", "-s", "dispatch"]).done();

    repository.write(
        "transforms/pickup/src/lib.rs",
        &source.replace("offer.distance", "offer.way"),
    );
    let ran = repository.run(&["apply"]);
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr.contains("features/drivers.yaml:"),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("no field `way`"), "{}", ran.stderr);
    always_failing(repository, &source);
    repository.write("transforms/pickup/src/lib.rs", &source);
}

/// A component that reads a clock is no error, since it does not import one; but it says so.
fn always_failing(repository: &Repository, source: &str) {
    let clock = source.replace(
        "-> Pickup {\n",
        "-> Pickup {\n    let _ = std::time::SystemTime::now();\n",
    );
    repository.write("transforms/pickup/src/lib.rs", &clock);
    let warnings = |ran: &common::Ran| -> Vec<String> {
        let lines = ran.stderr.lines();
        lines
            .filter_map(|line| line.strip_prefix("warning: "))
            .map(str::to_owned)
            .collect()
    };
    let ran = repository.run(&["plan"]).done();
    let [warning] = &warnings(&ran)[..] else {
        panic!("{}", ran.stderr);
    };
    for part in ["`pickup` failed on all 256 generated rows", "no clock"] {
        assert!(warning.contains(part), "{warning}");
    }
    let ran = repository.run(&["plan", "--json"]).done();
    assert_eq!(ran.stderr, "");
    let warning_of_json = &ran.json()["warnings"][0];
    assert_eq!(warning_of_json["transformation"], "pickup");
    assert_eq!(warning_of_json["message"], warning.as_str());
}

fn the_online_store_may_be_down(repository: &Repository) {
    // A port on which nobody listens.
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let project = repository.read("unskew.yaml");
    let redis = format!(
        "project: drivers\nonline_store: {{type: redis, url: \"redis://127.0.0.1:{port}\"}}\n"
    );
    repository.write("unskew.yaml", &redis);
    let list = repository.run(&["list", "--json"]).done().json();
    assert!(
        list["online_store"]
            .as_str()
            .unwrap()
            .contains("unavailable"),
        "{list}"
    );
    assert_eq!(list["feature_views"][0]["name"], "driver_hourly");
    repository
        .run(&["describe", "feature-view", "driver_hourly"])
        .done();
    let ran = repository.run(&["parity", "-s", "dispatch"]);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("unavailable"), "{}", ran.stderr);
    repository.write("unskew.yaml", &project);
}

fn removal(repository: &Repository) {
    let removed = repository
        .run(&["teardown", "--yes", "--json"])
        .done()
        .json();
    assert!(removed["rows"].as_u64().unwrap() >= 50, "{removed}");
    let list = repository
        .run(&["list", "feature-views", "--json"])
        .done()
        .json();
    assert_eq!(list["feature_views"][0]["watermark"], Value::Null);
    let get = [
        "get-online",
        "-s",
        "dispatch",
        "-e",
        "driver_id=1001",
        "-r",
        "distance=1",
        "--json",
    ];
    let answer = repository.run(&get).done().json();
    assert_eq!(answer["statuses"]["rides_today"][0], "NOT_MATERIALIZED");
}
