//! The command as its user meets it: what it prints, and with which code it ends.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use common::{Repository, unskew};
use serde_json::Value;

#[test]
fn the_version_is_printed() {
    let folder = tempfile::tempdir().unwrap();
    let version = env!("CARGO_PKG_VERSION");
    let ran = unskew(folder.path(), &["version"]).done();
    assert_eq!(ran.stdout, format!("unskew {version}\n"));
    let ran = unskew(folder.path(), &["version", "--json"]).done();
    assert_eq!(ran.json()["version"], version);
    unskew(folder.path(), &["--version"]).done();
    unskew(folder.path(), &["--help"]).done();
}

#[test]
fn the_schema_is_one_that_takes_definitions_and_refuses_others() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in [&["schema"][..], &["schema", "--json"]] {
        let schema: Value = unskew(folder.path(), arguments).done().json();
        assert!(jsonschema::meta::is_valid(&schema));
        let validator = jsonschema::validator_for(&schema).unwrap();
        assert!(validator.is_valid(&serde_json::json!({"project": "a"})));
        assert!(validator.is_valid(&serde_json::json!({
            "entities": [{"name": "a", "join_keys": [{"name": "b", "type": "string"}]}],
        })));
        assert!(!validator.is_valid(&serde_json::json!({"projekt": "a"})));
    }
}

#[test]
fn wrong_usage_ends_with_2_and_says_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let cases: [(&[&str], &str); 15] = [
        (&[], "Usage"),
        (&["frobnicate"], "frobnicate"),
        (&["init"], "<NAME>"),
        (
            &["training-set", "--entities", "e", "--out", "o"],
            "--service <SERVICE>",
        ),
        (
            &[
                "training-set",
                "-s",
                "a",
                "-f",
                "b:c",
                "--entities",
                "e",
                "--out",
                "o",
            ],
            "cannot be used with",
        ),
        (&["materialize", "2001-01-01"], "<END>"),
        (
            &["materialize-incremental", "tomorrow"],
            "2001-03-01T12:00:00Z",
        ),
        (&["get-online", "-s", "a", "-e", "driver_id"], "NAME=VALUE"),
        (&["parity", "-s", "a", "--rows", "0"], "0"),
        (
            &["parity", "-s", "a", "--rows", "5", "--entities", "e"],
            "cannot be used with",
        ),
        (&["serve", "--port", "70000"], "70000"),
        (&["list", "views"], "feature-views"),
        (
            &["parity", "-s", "a", "--url", "localhost:6566"],
            "`localhost:6566` is no URL; write http://localhost:6566",
        ),
        (
            &["materialize", "2025-01-02", "2025-01-01"],
            "END 2025-01-01T00:00:00Z lies before START",
        ),
        (&["-C", "nowhere", "list"], "nowhere"),
    ];
    for (arguments, message) in cases {
        let ran = unskew(folder.path(), arguments);
        assert_eq!(ran.code, 2, "{arguments:?}: {}", ran.stderr);
        assert!(
            ran.stderr.contains(message),
            "{arguments:?}: {}",
            ran.stderr
        );
        assert_eq!(ran.stdout, "", "{arguments:?}");
    }
}

#[test]
fn wrong_usage_is_json_where_json_is_wanted() {
    let folder = tempfile::tempdir().unwrap();
    let ran = unskew(folder.path(), &["--json", "materialize", "2001-01-01"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (2, ""));
    let error = ran.json_error();
    assert!(
        error["error"]["message"]
            .as_str()
            .unwrap()
            .contains("<END>"),
        "{error}"
    );
    assert_eq!(error["error"]["problems"], Value::Array(Vec::new()));
}

#[test]
fn outside_of_a_repository_every_command_says_how_to_get_into_one() {
    let folder = tempfile::tempdir().unwrap();
    let commands: [&[&str]; 10] = [
        &["plan"],
        &["apply"],
        &["training-set", "-s", "a", "--entities", "e", "--out", "o"],
        &["materialize-incremental", "2001-01-01"],
        &["get-online", "-s", "a"],
        &["parity", "-s", "a"],
        &["serve", "--port", "0"],
        &["list"],
        &["describe", "source", "a"],
        &["teardown", "--yes"],
    ];
    for arguments in commands {
        let ran = unskew(folder.path(), arguments);
        assert_eq!(ran.code, 1, "{arguments:?}");
        for part in ["error: ", "unskew.yaml", "unskew init", "-C"] {
            assert!(ran.stderr.contains(part), "{arguments:?}: {}", ran.stderr);
        }
    }
}

#[test]
fn init_makes_a_repository_once() {
    let folder = tempfile::tempdir().unwrap();
    let ran = unskew(folder.path(), &["init", "my-drivers", "--json"]).done();
    assert_eq!(ran.json()["project"], "my_drivers");
    let root = folder.path().join("my-drivers");
    for file in ran.json()["files"].as_array().unwrap() {
        assert!(root.join(file.as_str().unwrap()).is_file(), "{file}");
    }
    for file in [
        "data/rides.parquet",
        ".gitignore",
        ".unskew/sdk/sdk/rust/Cargo.toml",
    ] {
        assert!(root.join(file).is_file(), "{file}");
    }
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    assert!(
        readme.starts_with("# my_drivers\n") && !readme.contains("{{"),
        "{readme}"
    );

    let ran = unskew(folder.path(), &["init", "my-drivers"]);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("is not empty"), "{}", ran.stderr);
    assert_eq!(
        std::fs::read_to_string(root.join("README.md")).unwrap(),
        readme
    );

    std::fs::create_dir(folder.path().join("empty")).unwrap();
    unskew(&folder.path().join("empty"), &["init", "."]).done();
    assert!(folder.path().join("empty/unskew.yaml").is_file());
    let ran = unskew(folder.path(), &["init", "größe café"]).done();
    assert!(
        ran.stdout.contains("\n  cd 'größe café'\n"),
        "{}",
        ran.stdout
    );
    std::fs::write(folder.path().join("file"), "").unwrap();
    assert_eq!(unskew(folder.path(), &["init", "file"]).code, 1);
}

#[test]
fn problems_of_definitions_are_shown_all_with_file_and_line() {
    let repository = Repository::empty("project: shop\n");
    repository.write(
        "features/shop.yaml",
        "entities:\n  - name: customer\n    join_key: id\nsauces: []\n",
    );
    repository.write("features/zoo.yaml", "entities: 7\n");
    for command in ["plan", "apply"] {
        let ran = repository.run(&[command]);
        assert_eq!(ran.code, 1);
        let lines: Vec<&str> = ran.stderr.lines().collect();
        let places: Vec<&str> = lines
            .iter()
            .map(|line| line.split(": ").next().unwrap())
            .collect();
        assert_eq!(places.last(), Some(&"error"), "{}", ran.stderr);
        for place in [
            "features/shop.yaml:3",
            "features/shop.yaml:4",
            "features/zoo.yaml:1",
        ] {
            assert!(places.contains(&place), "{}", ran.stderr);
        }
        let error = repository.run(&["--json", command]).json_error();
        let problems = error["error"]["problems"].as_array().unwrap();
        assert_eq!(problems.len(), lines.len() - 1, "{error}");
        assert!(
            problems
                .iter()
                .any(|it| it["file"] == "features/zoo.yaml" && it["line"] == 1)
        );
    }
}

#[test]
fn a_wrong_project_file_is_a_problem_with_its_line() {
    let repository = Repository::empty("project: shop\nregistri: x\n");
    let ran = repository.run(&["list"]);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.starts_with("unskew.yaml:2: "), "{}", ran.stderr);
}

#[test]
fn before_the_first_apply_commands_say_so() {
    let repository = Repository::empty("project: shop\n");
    for arguments in [
        &["list"][..],
        &["describe", "source", "a"],
        &["serve", "--port", "0"],
        &["materialize-incremental", "2001-01-01"],
    ] {
        let ran = repository.run(arguments);
        assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{arguments:?}");
        assert!(ran.stderr.contains("unskew apply"), "{}", ran.stderr);
    }
}

#[test]
fn a_repository_without_definitions_can_be_applied() {
    let repository = Repository::empty("project: shop\n");
    repository.run(&["apply"]).done();
    let below = repository.path("features");
    std::fs::create_dir(&below).unwrap();
    let ran = unskew(&below, &["list", "--json"]);
    // Nothing was registered, since nothing changed.
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    repository.write(
        "features/shop.yaml",
        "entities: [{name: customer, join_keys: [{name: id, type: int64}]}]\n",
    );
    repository.run(&["apply"]).done();
    // The repository is found from a folder below it.
    let list = unskew(&below, &["list", "--json"]).done().json();
    assert_eq!(list["entities"][0]["name"], "customer");
    let keys = serde_json::json!([{"name": "id", "type": "int64"}]);
    assert_eq!(list["entities"][0]["join_keys"], keys);
    let list = repository.run(&["list", "entities"]).done();
    assert!(list.stdout.contains("id int64"), "{}", list.stdout);
    // What changes is named.
    repository.write(
        "features/shop.yaml",
        "entities: [{name: customer, join_keys: [{name: id, type: string}], owner: me}]\n",
    );
    let plan = repository.run(&["plan"]).done();
    let line = "updated  entity  customer  owner: none → me; join_keys.id.type: int64 → string\n";
    assert!(plan.stdout.contains(line), "{}", plan.stdout);
    let plan = repository.run(&["plan", "--json"]).done().json();
    assert_eq!(plan["warnings"], Value::Array(Vec::new()));
    assert_eq!(plan["objects"][0]["details"][0], "owner: none → me");
}

#[test]
fn a_server_may_listen_on_a_host_by_its_name() {
    let repository = Repository::empty("project: shop\n");
    repository.write(
        "features/shop.yaml",
        "entities: [{name: customer, join_keys: [{name: id, type: int64}]}]\n",
    );
    repository.run(&["apply"]).done();
    let mut server = repository
        .command(&["serve", "--host", "localhost", "--port", "0"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut stdout = BufReader::new(server.stdout.take().unwrap());
    stdout.read_line(&mut line).unwrap();
    server.kill().unwrap();
    server.wait().unwrap();
    assert!(
        line.contains("on http://127.0.0.1:") || line.contains("on http://[::1]:"),
        "{line}"
    );
    let ran = repository.run(&["serve", "--host", "no host", "--port", "0"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
    assert!(
        ran.stderr.contains("`no host` is no address"),
        "{}",
        ran.stderr
    );
}

#[test]
fn teardown_asks_and_without_a_terminal_wants_to_be_told() {
    let repository = Repository::empty("project: shop\n");
    let ran = repository.run(&["teardown"]);
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    assert!(ran.stderr.contains("--yes"), "{}", ran.stderr);
    let ran = repository.run(&["teardown", "--yes", "--json"]).done();
    assert_eq!(ran.json()["rows"], 0);
}

#[test]
fn what_is_no_component_is_inspected_with_an_error_that_says_so() {
    let repository = Repository::empty("project: shop\n");
    repository.write("text.wasm", "not wasm");
    for (file, message) in [
        ("text.wasm", "no WebAssembly"),
        ("absent.wasm", "cannot read"),
    ] {
        let ran = repository.run(&["transform", "inspect", file]);
        assert_eq!(ran.code, 1);
        assert!(
            ran.stderr.contains(message) && ran.stderr.contains(file),
            "{}",
            ran.stderr
        );
    }
    let ran = repository.run(&["transform", "build", "nowhere"]);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("nowhere"), "{}", ran.stderr);
}

#[test]
fn a_reader_who_has_left_is_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    for argument in ["schema", "--help"] {
        let mut child = common::command(folder.path(), &[argument])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        assert!(child.wait().unwrap().success(), "{argument}");
    }
}
