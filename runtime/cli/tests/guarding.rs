//! `unskew serve` and `unskew token`: who may ask, and how a server ends.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use common::Repository;

/// A repository that can be served; it has no feature services.
fn applied() -> Repository {
    let repository = Repository::empty("project: shop\n");
    repository.write(
        "features/shop.yaml",
        "entities: [{name: customer, join_keys: [{name: id, type: int64}]}]\n",
    );
    repository.run(&["apply"]).done();
    repository
}

/// A server that is ended with the test.
struct Server {
    child: Child,
    url: String,
    _stdout: BufReader<ChildStdout>,
}

impl Server {
    fn start(repository: &Repository, more: &[&str]) -> Self {
        let arguments = [&["serve", "--port", "0"], more].concat();
        let mut child = repository
            .command(&arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let url = line.trim().rsplit(' ').next().unwrap().to_owned();
        Self {
            child,
            url: url.replace("0.0.0.0", "127.0.0.1"),
            _stdout: stdout,
        }
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([name, &pid]).status().unwrap();
        assert!(sent.success());
    }

    /// The status of a request.
    fn ask(&self, method: &str, path: &str, token: Option<&str>) -> u16 {
        let mut request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url));
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let config = ureq::Agent::config_builder().http_status_as_error(false);
        let answer = config.build().new_agent().run(request.body("{}").unwrap());
        answer.unwrap().status().as_u16()
    }

    /// Asks until the status is another than `status`, and gives that.
    fn ask_until_not(&self, status: u16, path: &str, token: Option<&str>) -> u16 {
        for _ in 0..3_000 {
            let now = self.ask(if token.is_some() { "POST" } else { "GET" }, path, token);
            if now != status {
                return now;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        status
    }

    fn exit_code(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn new_token(repository: &Repository, name: &str, more: &[&str]) -> String {
    let arguments = [
        &["token", "new", name, "--tokens", "tokens.json", "--json"],
        more,
    ]
    .concat();
    let made = repository.run(&arguments).done().json();
    made["token"].as_str().unwrap().to_owned()
}

#[test]
fn tokens_are_made_shown_once_and_removed() {
    let repository = Repository::empty("project: shop\n");
    let made = repository
        .run(&["token", "new", "alone", "-r", "read"])
        .done();
    let token = made.stdout.lines().next().unwrap();
    assert!(token.starts_with("unskew_"), "{token}");
    assert!(
        made.stdout.contains("\"hash\": \"sha256:"),
        "{}",
        made.stdout
    );

    let token = new_token(&repository, "ranker", &["-r", "read", "--project", "shop"]);
    let more = ["-r", "write", "-r", "admin", "--expires", "2001-03-01"];
    new_token(&repository, "old", &more);
    let file = repository.read("tokens.json");
    assert!(!file.contains(&token) && file.contains("ranker"), "{file}");

    let in_file = ["--tokens", "tokens.json"];
    let list = repository
        .run(&[&["token", "list"][..], &in_file].concat())
        .done();
    let lines: Vec<&str> = list.stdout.lines().collect();
    assert_eq!(lines.len(), 3, "{}", list.stdout);
    assert!(
        lines[1].contains("read") && lines[1].contains("shop"),
        "{}",
        list.stdout
    );
    assert!(
        lines[2].contains("write, admin") && lines[2].contains("2001-03-01T00:00:00Z, over"),
        "{}",
        list.stdout
    );

    let again = [&["token", "new", "ranker", "-r", "read"][..], &in_file].concat();
    let ran = repository.run(&again);
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr.contains("there is a token `ranker` already"),
        "{}",
        ran.stderr
    );
    let remove = [&["token", "remove", "ranker"][..], &in_file].concat();
    repository.run(&remove).done();
    let ran = repository.run(&remove);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("there are: old"), "{}", ran.stderr);

    for wrong in [
        &["token", "new", "a"][..],
        &["token", "new", "a", "-r", "raed"],
        &["token", "new", "a", "-r", "read", "--expires", "soon"],
        &["token", "list"],
    ] {
        assert_eq!(repository.run(wrong).code, 2, "{wrong:?}");
    }
}

#[test]
fn other_machines_are_served_with_tokens_or_on_demand() {
    let repository = applied();
    let ran = repository.run(&["serve", "--host", "0.0.0.0", "--port", "0"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
    for part in ["`--tokens FILE`", "`--insecure-no-auth`"] {
        assert!(ran.stderr.contains(part), "{}", ran.stderr);
    }
    let open = Server::start(&repository, &["--host", "0.0.0.0", "--insecure-no-auth"]);
    assert_eq!(open.ask("GET", "/ready", None), 200);

    for (more, part) in [
        (["--tokens", "absent.json"], "absent.json"),
        (
            ["--tokens", "unskew.yaml"],
            "unskew.yaml` is not as it must be",
        ),
        (["--cors-origin", "*"], "`*` is no origin"),
    ] {
        let ran = repository.run(&[&["serve", "--port", "0"], &more[..]].concat());
        assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
        assert!(ran.stderr.contains(part), "{}", ran.stderr);
    }
}

#[test]
fn a_server_asks_for_tokens_and_reads_them_again_on_a_signal() {
    let repository = applied();
    let admin = new_token(&repository, "admin", &["-r", "admin"]);
    let more = ["--tokens", "tokens.json", "--poll", "1h"];
    let server = Server::start(&repository, &more);
    assert_eq!(server.ask("GET", "/health", None), 200);
    assert_eq!(server.ask("POST", "/online", None), 401);
    assert_eq!(server.ask("POST", "/online", Some(&admin)), 403);
    assert_eq!(server.ask("POST", "/admin/reload", Some(&admin)), 200);

    let reader = new_token(&repository, "reader", &["-r", "read", "--expires", "1h"]);
    assert_eq!(server.ask("POST", "/online", Some(&reader)), 401);
    server.signal("-HUP");
    // It may ask, though not so.
    assert_eq!(server.ask_until_not(401, "/online", Some(&reader)), 400);
    server.signal("-TERM");
    assert_eq!(server.exit_code(), Some(0));
}

#[test]
fn told_to_end_a_server_drains_and_told_again_it_ends_at_once() {
    let repository = applied();
    let server = Server::start(&repository, &["--drain", "1h"]);
    assert_eq!(server.ask("GET", "/ready", None), 200);
    server.signal("-TERM");
    assert_eq!(server.ask_until_not(200, "/ready", None), 503);
    assert_eq!(server.ask("GET", "/health", None), 200);
    server.signal("-TERM");
    assert_eq!(server.exit_code(), Some(143));
}

#[test]
fn a_token_for_parity_is_a_line_of_a_file_and_authorities_are_pem() {
    let repository = applied();
    repository.write("empty", "\n");
    let ask = [
        "parity",
        "-s",
        "a",
        "--url",
        "http://127.0.0.1:1",
        "--token-file",
    ];
    for (file, code, part) in [
        ("absent", 1, "cannot read the token in `absent`"),
        ("empty", 2, "holds no token"),
    ] {
        let ran = repository.run(&[&ask[..], &[file]].concat());
        assert_eq!(ran.code, code, "{}", ran.stderr);
        assert!(ran.stderr.contains(part), "{}", ran.stderr);
    }
    let ran = repository.run(&[&ask[..5], &["--tls-ca", "empty"]].concat());
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr.contains("authorities in `empty`"),
        "{}",
        ran.stderr
    );
}
