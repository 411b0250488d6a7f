//! A master, its replica, and sentinels that watch over them.

use std::path::Path;
use std::process::{Child, Command};

use tempfile::TempDir;

use crate::{PORTS, Port, RedisServer, command, spawn, wait_until};

/// A master and its replica under sentinels, which call them `main` and replace a master that is
/// gone for a third of a second.
#[derive(Debug)]
pub struct RedisSentinels {
    /// The first master and the first replica.
    pub servers: [RedisServer; 2],
    sentinels: Vec<Sentinel>,
    _folder: TempDir,
}

#[derive(Debug)]
struct Sentinel {
    port: Port,
    process: Child,
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl RedisSentinels {
    /// Starts a master, a replica, and so many sentinels, of which most have to agree.
    ///
    /// # Panics
    /// They do not start, or do not find each other.
    pub fn start(sentinels: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let fast = [
            "--repl-diskless-sync-delay",
            "0",
            "--repl-ping-replica-period",
            "1",
        ];
        let master = RedisServer::start_with(&fast);
        let port = master.port().to_string();
        let of_master = ["--replicaof", "127.0.0.1", &port];
        let replica = RedisServer::start_with(&[&fast[..], &of_master].concat());
        wait_until("the replica has all of its master", || {
            let replication = replica.command(&["info", "replication"]);
            replication.contains("master_link_status:up")
        });
        let quorum = sentinels / 2 + 1;
        let started = (0..sentinels).map(|_| Sentinel::start(folder.path(), master.port(), quorum));
        let started = Self {
            sentinels: started.collect(),
            servers: [master, replica],
            _folder: folder,
        };
        for sentinel in &started.sentinels {
            wait_until("the sentinels know the replica and each other", || {
                let known = command(sentinel.port.number(), &["sentinel", "master", "main"]);
                let lines: Vec<&str> = known.lines().collect();
                let of = |name| {
                    lines
                        .windows(2)
                        .find(|two| two[0] == name)
                        .map(|two| two[1])
                };
                of("num-slaves") == Some("1")
                    && of("num-other-sentinels") == Some(&(sentinels - 1).to_string())
            });
        }
        started
    }

    /// The port of the server that is the master for the sentinels now.
    pub fn master(&self) -> u16 {
        let asked = ["sentinel", "get-master-addr-by-name", "main"];
        let named = command(self.sentinels[0].port.number(), &asked);
        named
            .lines()
            .last()
            .unwrap_or_default()
            .parse()
            .unwrap_or(0)
    }

    /// Waits until a server has become the master, for itself and for the sentinels.
    ///
    /// # Panics
    /// That takes too long.
    pub fn wait_until_master(&self, server: usize) {
        let server = &self.servers[server];
        wait_until("the replica has become the master", || {
            self.master() == server.port() && server.command(&["role"]).starts_with("master")
        });
    }

    /// Waits until a server is a replica and has all of its master.
    ///
    /// # Panics
    /// That takes too long.
    pub fn wait_until_replica(&self, server: usize) {
        wait_until("a server has become a replica", || {
            let replication = self.servers[server].command(&["info", "replication"]);
            replication.contains("master_link_status:up")
        });
    }

    /// Has the sentinels put the replica in the master's place, though the master is well.
    pub fn fail_over(&self) {
        wait_until("the sentinels agree to a failover", || {
            let said = command(
                self.sentinels[0].port.number(),
                &["sentinel", "failover", "main"],
            );
            said.starts_with("OK")
        });
    }

    /// The URL of what the sentinels watch over.
    pub fn url(&self) -> String {
        let sentinels = self.sentinels.iter();
        let sentinels: Vec<_> = sentinels
            .map(|sentinel| format!("127.0.0.1:{}", sentinel.port.number()))
            .collect();
        format!("redis+sentinel://{}/main", sentinels.join(","))
    }
}

impl Sentinel {
    fn start(folder: &Path, master: u16, quorum: usize) -> Self {
        for _ in 0..PORTS {
            let port = Port::free();
            let number = port.number();
            let file = folder.join(format!("sentinel-{number}.conf"));
            let settings = format!(
                "port {number}\nbind 127.0.0.1\ndir {}\n\
                 sentinel monitor main 127.0.0.1 {master} {quorum}\n\
                 sentinel down-after-milliseconds main 300\n\
                 sentinel failover-timeout main 2000\n",
                folder.display()
            );
            std::fs::write(&file, settings).unwrap();
            let mut command = Command::new("redis-server");
            command.arg(&file).arg("--sentinel");
            if let Some(process) = spawn(command, "+monitor master main") {
                return Self { port, process };
            }
        }
        panic!("a sentinel did not start on any of {PORTS} free ports");
    }
}
