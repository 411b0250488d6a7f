//! An S3 server for a test: started on a free port, gone with the test.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot start its server has failed"
)]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// The bucket that every server has.
pub const BUCKET: &str = "history";

/// What starts the server.
const SERVER: &str = include_str!("server.py");

/// What need not be escaped in the path of a URL.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// A running S3 server with one bucket, [`BUCKET`], in memory; killed when it is dropped.
///
/// It takes any credentials until [`S3Server::require_credentials`].
#[derive(Debug)]
pub struct S3Server {
    endpoint: String,
    server: Option<Child>,
    agent: ureq::Agent,
}

/// Who puts objects. The server does not check the signature, but lets only their owner replace
/// them.
const SIGNED: &str = "AWS4-HMAC-SHA256 Credential=test/20010301/us-east-1/s3/aws4_request, \
                      SignedHeaders=host, Signature=0";

impl S3Server {
    /// Starts a server on a free port of this machine.
    ///
    /// # Panics
    /// The server was not set up, or it does not start.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a server that takes no notice of the condition of a put, as old ones do.
    ///
    /// # Panics
    /// As [`S3Server::start`].
    pub fn start_without_conditions() -> Self {
        Self::start_with(&[("IGNORES_CONDITIONS", "1")])
    }

    fn start_with(environment: &[(&str, &str)]) -> Self {
        let (program, installed) = program();
        assert!(
            installed.is_file(),
            "there is no S3 server, since there is no {}; `cargo xtask setup` installs it",
            installed.display()
        );
        let mut server = Command::new(&program)
            .args(["-c", SERVER, "--host", "127.0.0.1", "--port", "0"])
            // So many requests are free; see `require_credentials`.
            .env("INITIAL_NO_AUTH_ACTION_COUNT", "1000000000")
            .envs(environment.iter().copied())
            .env("PYTHONUNBUFFERED", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{} cannot be run: {error}", program.display()));
        let mut lines = BufReader::new(server.stderr.take().expect("its log is a pipe"));
        let Some(endpoint) = ready(&mut lines) else {
            let status = server.wait();
            panic!("the S3 server did not start: {status:?}");
        };
        // Its log is read to the end, or a full pipe would stop it.
        std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        let server = Self {
            endpoint,
            server: Some(server),
            agent: ureq::Agent::config_builder().proxy(None).build().into(),
        };
        server.request(BUCKET, &[]);
        server
    }

    /// Its address: `http://127.0.0.1:PORT`.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The URL of a key, as definitions write it: `s3://BUCKET/KEY`.
    pub fn url(&self, key: &str) -> String {
        format!("s3://{BUCKET}/{key}")
    }

    /// Stores an object, or replaces it.
    ///
    /// # Panics
    /// The server does not take it.
    pub fn put(&self, key: &str, bytes: &[u8]) {
        self.request(&format!("{BUCKET}/{key}"), bytes);
    }

    /// What a client needs to know, as variables of the environment.
    pub fn environment(&self) -> Vec<(String, String)> {
        [
            ("AWS_ENDPOINT_URL", self.endpoint.as_str()),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }

    /// From now on nobody is known: whatever credentials a request has, it is refused.
    ///
    /// # Panics
    /// The server does not do it.
    pub fn require_credentials(&self) {
        let url = format!("{}/moto-api/reset-auth", self.endpoint);
        self.agent.post(&url).send("0").expect("it is refused");
    }

    /// Kills the server. What it held is lost, and nobody answers at its address.
    pub fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            // It may have ended by itself.
            let _ = server.kill();
            let _ = server.wait();
        }
    }

    /// Puts `bytes` at a path of a bucket and a key, or of a bucket alone.
    fn request(&self, path: &str, bytes: &[u8]) {
        let path = utf8_percent_encode(path, ESCAPED);
        let url = format!("{}/{path}", self.endpoint);
        let request = self.agent.put(&url).header("Authorization", SIGNED);
        let answer = request.send(bytes);
        answer.unwrap_or_else(|error| panic!("PUT {url}: {error}"));
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The Python in whose environment `cargo xtask setup` installs the server, and the file that says
/// that it is there.
fn program() -> (PathBuf, PathBuf) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    // A relative one is relative to where cargo is called: the workspace.
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    let folder = root.join(target).join("venv/s3");
    let python = match cfg!(windows) {
        true => folder.join("Scripts/python.exe"),
        false => folder.join("bin/python"),
    };
    (python, folder.join("installed"))
}

/// Waits until the server says where it listens; `None` if it ends before.
fn ready(lines: &mut BufReader<ChildStderr>) -> Option<String> {
    let mut line = String::new();
    loop {
        line.clear();
        match lines.read_line(&mut line) {
            Ok(0) | Err(_) => return None,
            Ok(_) => {
                if let Some((_, endpoint)) = line.split_once("Running on ") {
                    return Some(endpoint.trim().to_owned());
                }
            }
        }
    }
}
