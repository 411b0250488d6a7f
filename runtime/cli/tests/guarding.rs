//! `unskew serve` and `unskew token`: who may ask, and how a server ends.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
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
        Self::of(&mut repository.command(&arguments))
    }

    /// A server that may open so many files.
    fn start_with_files(files: u64, repository: &Repository, more: &[&str]) -> Self {
        let arguments = [&["serve", "--port", "0"], more].concat();
        let command = repository.command(&arguments);
        let mut limited = Command::new("sh");
        limited
            .args(["-c", &format!("ulimit -n {files}; exec \"$0\" \"$@\"")])
            .arg(command.get_program())
            .args(command.get_args())
            .current_dir(command.get_current_dir().unwrap())
            .stdin(Stdio::null());
        Self::of(&mut limited)
    }

    fn of(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
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

    /// The state of the registry that is served.
    fn state(&self) -> u64 {
        let answer = ureq::get(format!("{}/ready", self.url)).call();
        let body = answer.unwrap().body_mut().read_to_string().unwrap();
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        body["state"].as_u64().unwrap()
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
fn a_server_looks_for_a_new_state_of_the_registry_on_a_signal() {
    let repository = applied();
    let server = Server::start(&repository, &["--poll", "1h"]);
    assert_eq!(server.state(), 1);
    repository.write(
        "features/more.yaml",
        "entities: [{name: product, join_keys: [{name: product_id, type: int64}]}]\n",
    );
    repository.run(&["apply"]).done();
    assert_eq!(server.state(), 1);
    server.signal("-HUP");
    for _ in 0..3_000 {
        if server.state() == 2 {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(server.state(), 2);
}

/// The status of a request on a connection that is kept.
fn ask_on(connection: &mut BufReader<TcpStream>, request: &str) -> u16 {
    let request = format!("{request}\r\nhost: x\r\ncontent-length: 0\r\n\r\n");
    connection.get_mut().write_all(request.as_bytes()).unwrap();
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        connection.read_line(&mut line).unwrap();
        if line.trim().is_empty() {
            break;
        }
        head.push(line.to_lowercase());
    }
    let length = head
        .iter()
        .find_map(|it| it.strip_prefix("content-length: "));
    let length = length.unwrap().trim().parse().unwrap();
    connection.read_exact(&mut vec![0; length]).unwrap();
    head[0].split(' ').nth(1).unwrap().parse().unwrap()
}

#[test]
fn connections_leave_files_for_everything_else() {
    let repository = applied();
    new_token(&repository, "first", &["-r", "read"]);
    let more = [
        "--tokens",
        "tokens.json",
        "--poll",
        "1h",
        "--header-timeout",
        "1h",
    ];
    let server = Server::start_with_files(300, &repository, &more);
    let address = server.url.trim_start_matches("http://").parse().unwrap();
    let connect = || TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok();
    let mut first = BufReader::new(connect().unwrap());
    assert_eq!(ask_on(&mut first, "GET /health HTTP/1.1"), 200);
    // Until the system lets no more of them wait.
    let idle: Vec<_> = (0..400).map_while(|_| connect()).collect();

    assert_eq!(ask_on(&mut first, "GET /ready HTTP/1.1"), 200);
    let token = new_token(&repository, "second", &["-r", "read"]);
    let online = format!("POST /online HTTP/1.1\r\nauthorization: Bearer {token}");
    assert_eq!(ask_on(&mut first, &online), 401);
    server.signal("-HUP");
    let read = (0..1_000).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        ask_on(&mut first, &online) == 400
    });
    assert!(read, "the tokens were not read again");
    drop(idle);
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
