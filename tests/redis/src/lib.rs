//! A Redis server for a test: started on a free port, gone with the test.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot start its server has failed"
)]

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, ChildStdout, Command, Stdio};

/// How often another port is tried, when somebody else was faster to take a free one.
const PORTS: usize = 20;

/// A running Redis server without persistence, killed when it is dropped.
#[derive(Debug)]
pub struct RedisServer {
    port: u16,
    arguments: Vec<String>,
    server: Option<Child>,
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
        let arguments: Vec<String> = arguments.iter().map(|&a| a.to_owned()).collect();
        for _ in 0..PORTS {
            let port = free_port();
            if let Some(server) = run(port, &arguments) {
                return Self {
                    port,
                    arguments,
                    server: Some(server),
                };
            }
        }
        panic!("redis-server did not start on any of {PORTS} free ports");
    }

    /// The port on which it listens.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The URL of its database 0.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// Kills the server. What it held is lost.
    pub fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            // It may have ended by itself.
            let _ = server.kill();
            let _ = server.wait();
        }
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

    /// Starts the server again after [`RedisServer::stop`], on the same port and empty.
    ///
    /// # Panics
    /// It does not start.
    pub fn start_again(&mut self) {
        self.stop();
        let server = run(self.port, &self.arguments);
        self.server = Some(server.expect("redis-server did not start again on its port"));
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.stop();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("no free port");
    listener
        .local_addr()
        .expect("a bound socket has an address")
        .port()
}

/// Starts a server and waits until it says that it is ready; `None` if it ends before.
fn run(port: u16, arguments: &[String]) -> Option<Child> {
    let mut server = Command::new("redis-server")
        .args(["--port", &port.to_string()])
        .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .args(["--dir", &std::env::temp_dir().to_string_lossy()])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| {
            panic!("redis-server cannot be run ({error}); `cargo xtask setup` installs it")
        });
    let mut lines = BufReader::new(server.stdout.take().expect("its output is a pipe"));
    if ready(&mut lines) {
        // Its log is read to the end, or a full pipe would stop it.
        std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        return Some(server);
    }
    let _ = server.wait();
    None
}

fn ready(lines: &mut BufReader<ChildStdout>) -> bool {
    let mut line = String::new();
    loop {
        line.clear();
        match lines.read_line(&mut line) {
            Ok(0) | Err(_) => return false,
            Ok(_) if line.contains("Ready to accept connections") => return true,
            Ok(_) => {}
        }
    }
}
