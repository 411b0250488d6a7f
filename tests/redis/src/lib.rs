//! Redis servers for a test: started on free ports, gone with the test.
//!
//! [`RedisServer`] is one; [`RedisCluster`] and [`RedisSentinels`] are several that know each other;
//! [`RedisTls`] speaks TLS alone, with certificates made for it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot start its server has failed"
)]

mod cluster;
mod port;
mod sentinel;
mod tls;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

pub use cluster::RedisCluster;
pub use sentinel::RedisSentinels;
pub use tls::RedisTls;

use port::Port;
use tempfile::TempDir;

/// How often another port is tried, when somebody else was faster to take a free one.
const PORTS: usize = 20;

/// A running Redis server without persistence, killed when it is dropped.
#[derive(Debug)]
pub struct RedisServer {
    port: Port,
    arguments: Vec<String>,
    server: Option<Child>,
    /// Its own: a replica saves what it gets from its master, and another server that began in the
    /// same folder would take that for its own.
    folder: TempDir,
}

impl RedisServer {
    /// Starts a server on a free port of this machine.
    ///
    /// # Panics
    /// There is no `redis-server`, or it does not start.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a server with additional arguments, such as `["--requirepass", "secret"]`.
    ///
    /// # Panics
    /// There is no `redis-server`, or it does not start.
    pub fn start_with(arguments: &[&str]) -> Self {
        Self::start_by(|_| arguments.iter().map(|&a| a.to_owned()).collect())
    }

    /// Starts a server with the additional arguments that its port asks for.
    fn start_by(arguments: impl Fn(u16) -> Vec<String>) -> Self {
        let folder = tempfile::tempdir().expect("the temporary folder can be written to");
        for _ in 0..PORTS {
            let port = Port::free();
            let arguments = arguments(port.number());
            if let Some(server) = run(port.number(), folder.path(), &arguments) {
                return Self {
                    port,
                    arguments,
                    server: Some(server),
                    folder,
                };
            }
        }
        panic!("redis-server did not start on any of {PORTS} free ports");
    }

    /// The port on which it listens.
    pub const fn port(&self) -> u16 {
        self.port.number()
    }

    /// The URL of its database 0.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port())
    }

    /// What the server answers to a command, as `redis-cli` prints it.
    ///
    /// # Panics
    /// There is no `redis-cli`.
    pub fn command(&self, words: &[&str]) -> String {
        command(self.port(), words)
    }

    /// Kills the server. What it held is lost.
    pub fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            // It may have ended by itself.
            let _ = server.kill();
            let _ = server.wait();
        }
    }

    /// Ends the server in good order, as who runs it does. What it held is lost unless its arguments
    /// have it write an append-only file.
    ///
    /// # Panics
    /// It does not run, or does not end well.
    pub fn shut_down(&mut self) {
        let mut server = self.server.take().expect("the server was stopped");
        self.command(&["shutdown"]);
        assert!(server.wait().expect("it is ours").success());
    }

    /// Stops the server from doing anything, connections and all, until [`RedisServer::thaw`].
    ///
    /// # Panics
    /// It does not run, or there is no `kill`.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Lets the server go on after [`RedisServer::freeze`].
    ///
    /// # Panics
    /// It does not run, or there is no `kill`.
    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let server = self.server.as_ref().expect("the server was stopped");
        let status = Command::new("kill")
            .args([signal, &server.id().to_string()])
            .status();
        assert!(status.expect("`kill` cannot be run").success());
    }

    /// Waits until this replica has heard of all that `master` has written by now.
    ///
    /// # Panics
    /// That takes too long.
    pub fn wait_until_heard(&self, master: &Self) {
        let offset = |server: &Self| {
            let replication = server.command(&["info", "replication"]);
            let mut lines = replication.lines();
            let offset = lines.find_map(|line| line.strip_prefix("master_repl_offset:"));
            offset.and_then(|offset| offset.trim().parse::<u64>().ok())
        };
        let written = offset(master);
        wait_until("a replica has heard of all", || offset(self) >= written);
    }

    /// Sees to it that replicas hear of nothing any more.
    pub fn cut_off_replicas(&self) {
        self.command(&["acl", "setuser", "default", "-psync", "-sync"]);
        self.command(&["client", "kill", "type", "replica"]);
    }

    /// Starts the server again after [`RedisServer::stop`] or [`RedisServer::shut_down`], on the same
    /// port, and empty unless its arguments have it write an append-only file.
    ///
    /// # Panics
    /// It does not start.
    pub fn start_again(&mut self) {
        self.stop();
        let dump = self.folder.path().join("dump.rdb");
        let _ = std::fs::remove_file(dump);
        let server = run(self.port(), self.folder.path(), &self.arguments);
        self.server = Some(server.expect("redis-server did not start again on its port"));
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What the server on a port answers to a command; nothing if it is not there.
fn command(port: u16, words: &[&str]) -> String {
    let output = Command::new("redis-cli")
        .args(["-p", &port.to_string()])
        .args(words)
        .stdin(Stdio::null())
        .output()
        .expect("`redis-cli` cannot be run; `cargo xtask setup` installs it");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// How long servers may take until they know each other.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until something is so.
fn wait_until(what: &str, mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(
            begun.elapsed() < PATIENCE,
            "{what}: not within {PATIENCE:?}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Starts a server and waits until it says that it is ready; `None` if it ends before.
fn run(port: u16, folder: &Path, arguments: &[String]) -> Option<Child> {
    let mut command = Command::new("redis-server");
    command
        .args(["--port", &port.to_string()])
        .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .args(["--dir", &folder.to_string_lossy()])
        .args(arguments);
    spawn(command, "Ready to accept connections")
}

/// Runs a server until it prints `line`; `None` if it ends before.
fn spawn(mut command: Command, line: &str) -> Option<Child> {
    let mut server = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| {
            panic!("redis-server cannot be run ({error}); `cargo xtask setup` installs it")
        });
    let mut lines = BufReader::new(server.stdout.take().expect("its output is a pipe"));
    if printed(&mut lines, line) {
        // Its log is read to the end, or a full pipe would stop it.
        std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        return Some(server);
    }
    let _ = server.wait();
    None
}

fn printed(lines: &mut BufReader<ChildStdout>, wanted: &str) -> bool {
    let mut line = String::new();
    loop {
        line.clear();
        match lines.read_line(&mut line) {
            Ok(0) | Err(_) => return false,
            Ok(_) if line.contains(wanted) => return true,
            Ok(_) => {}
        }
    }
}
