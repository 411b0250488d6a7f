//! A Redis Cluster.

use tempfile::TempDir;

use crate::{Port, RedisServer, wait_until};

/// How many hash slots a cluster has.
const SLOTS: usize = 16384;

/// A cluster whose masters share the slots evenly.
#[derive(Debug)]
pub struct RedisCluster {
    /// The masters in the order of their slots, then a replica of each, if there are any.
    pub servers: Vec<RedisServer>,
    masters: usize,
    buses: Vec<Port>,
    /// How long a server may be silent, in milliseconds.
    timeout: u32,
    folder: TempDir,
}

impl RedisCluster {
    /// Starts three masters.
    ///
    /// # Panics
    /// They do not start, or do not find each other.
    pub fn start() -> Self {
        Self::start_with(3, false)
    }

    /// Starts so many masters, each with a replica if they are to be replicated. A master that is
    /// gone for a second is replaced by its replica.
    ///
    /// # Panics
    /// They do not start, or do not find each other.
    pub fn start_with(masters: usize, replicated: bool) -> Self {
        let mut cluster = Self {
            servers: Vec::new(),
            masters,
            buses: Vec::new(),
            // Without replicas nobody is to be replaced, however busy the machine is.
            timeout: if replicated { 1000 } else { 10_000 },
            folder: tempfile::tempdir().unwrap(),
        };
        for _ in 0..if replicated { 2 * masters } else { masters } {
            cluster.start_another();
        }
        cluster.form();
        cluster
    }

    /// Starts a server that knows nobody yet.
    fn start_another(&mut self) {
        let (index, bus) = (self.servers.len(), Port::free());
        let server = RedisServer::start_by(|port| {
            let file = format!("nodes-{index}-{port}.conf");
            let file = self.folder.path().join(file);
            [
                "--cluster-enabled yes --repl-diskless-sync-delay 0",
                &format!("--cluster-node-timeout {}", self.timeout),
                "--cluster-replica-validity-factor 0 --repl-ping-replica-period 1",
                "--cluster-require-full-coverage no",
                &format!("--cluster-config-file {}", file.display()),
                &format!("--cluster-port {}", bus.number()),
            ]
            .iter()
            .flat_map(|arguments| arguments.split(' ').map(str::to_owned))
            .collect()
        });
        server.command(&["cluster", "set-config-epoch", &(index + 1).to_string()]);
        self.servers.push(server);
        self.buses.push(bus);
    }

    /// Has another server join, a master without slots, and says which it is.
    ///
    /// # Panics
    /// It does not start, the others do not find it, or the cluster has replicas.
    pub fn join(&mut self) -> usize {
        assert_eq!(self.masters, self.servers.len(), "replicas stand behind");
        self.start_another();
        self.masters += 1;
        self.wait_until_known();
        self.masters - 1
    }

    fn form(&self) {
        for (index, server) in self.servers[..self.masters].iter().enumerate() {
            let first = index * SLOTS / self.masters;
            let last = (index + 1) * SLOTS / self.masters - 1;
            let (first, last) = (first.to_string(), last.to_string());
            server.command(&["cluster", "addslotsrange", &first, &last]);
        }
        self.wait_until_known();
        for (index, server) in self.servers[self.masters..].iter().enumerate() {
            let master = self.id(index);
            server.command(&["cluster", "replicate", &master]);
        }
        let size = format!("cluster_size:{}", self.masters);
        wait_until("all slots have a master", || {
            self.all_say(&["cluster_state:ok", &size])
        });
        for replica in &self.servers[self.masters..] {
            wait_until("a replica has all of its master", || {
                let replication = replica.command(&["info", "replication"]);
                replication.contains("master_link_status:up")
            });
        }
    }

    fn wait_until_known(&self) {
        let everybody = format!("cluster_known_nodes:{}", self.servers.len());
        let mut tries = 0;
        // On a busy machine a server forgets another that was too slow to answer.
        wait_until("the servers of the cluster know each other", || {
            if tries % 50 == 0 {
                self.meet();
            }
            tries += 1;
            self.all_say(&[&everybody])
        });
    }

    /// Tells each server of each other.
    fn meet(&self) {
        for (index, server) in self.servers.iter().enumerate() {
            for (other, bus) in self.servers[..index].iter().zip(&self.buses) {
                let (port, bus) = (other.port().to_string(), bus.number().to_string());
                server.command(&["cluster", "meet", "127.0.0.1", &port, &bus]);
            }
        }
    }

    /// Whether all servers say so of their cluster.
    fn all_say(&self, lines: &[&str]) -> bool {
        self.servers.iter().all(|server| {
            let said = server.command(&["cluster", "info"]);
            lines.iter().all(|line| said.contains(line))
        })
    }

    /// The name of a server within the cluster.
    pub fn id(&self, server: usize) -> String {
        let id = self.servers[server].command(&["cluster", "myid"]);
        id.trim().to_owned()
    }

    /// Waits until a replica has become a master, for everybody who is there.
    ///
    /// # Panics
    /// That takes too long.
    pub fn wait_until_master(&self, server: usize) {
        wait_until("a replica has become a master", || {
            let role = self.servers[server].command(&["role"]);
            role.starts_with("master")
        });
    }

    /// Waits until a server is a replica again and has all of its master.
    ///
    /// # Panics
    /// That takes too long.
    pub fn wait_until_replica(&self, server: usize) {
        wait_until("a server has become a replica", || {
            let replication = self.servers[server].command(&["info", "replication"]);
            replication.contains("master_link_status:up")
        });
    }

    /// Waits until a replica has heard of all that its master has written by now.
    ///
    /// # Panics
    /// That takes too long.
    pub fn wait_until_heard(&self, replica: usize, master: usize) {
        self.servers[replica].wait_until_heard(&self.servers[master]);
    }

    /// Has a replica take its master's place, though the master is well.
    ///
    /// # Panics
    /// That takes too long.
    pub fn fail_over_to(&self, server: usize) {
        let mut tries = 0;
        // A server gives up by itself if the others were too slow to agree.
        wait_until("a replica has become a master", || {
            if tries % 100 == 0 {
                self.servers[server].command(&["cluster", "failover"]);
            }
            tries += 1;
            self.servers[server]
                .command(&["role"])
                .starts_with("master")
        });
    }

    /// The slot of the keys of an entity, by its encoded key.
    pub fn slot_of(&self, entity: &[u8]) -> u16 {
        let hex: String = entity.iter().map(|byte| format!("{byte:02x}")).collect();
        let slot = self.servers[0].command(&["cluster", "keyslot", &hex]);
        slot.trim().parse().unwrap()
    }

    /// Which of the masters has a slot.
    ///
    /// # Panics
    /// None has.
    pub fn owner_of(&self, slot: u16) -> usize {
        let owns = |server: &RedisServer| {
            let count = server.command(&["cluster", "countkeysinslot", &slot.to_string()]);
            count.trim() != "0"
        };
        let masters = &self.servers[..self.masters];
        masters
            .iter()
            .position(owns)
            .expect("a slot with keys has a master")
    }

    /// Gives a slot and all its keys from one master to another, key by key, as an operator does.
    ///
    /// # Panics
    /// They are the same.
    pub fn migrate(&self, slot: u16, from: usize, to: usize) {
        self.begin_migration(slot, from, to);
        loop {
            if self.migrate_keys(slot, from, to, 10) == 0 {
                break;
            }
        }
        self.end_migration(slot, to);
    }

    /// Makes one master take, and the other give, a slot.
    ///
    /// # Panics
    /// They are the same.
    pub fn begin_migration(&self, slot: u16, from: usize, to: usize) {
        assert_ne!(from, to);
        let slot = slot.to_string();
        let (source, target) = (self.id(from), self.id(to));
        let takes = ["cluster", "setslot", &slot, "importing", &source];
        self.servers[to].command(&takes);
        let gives = ["cluster", "setslot", &slot, "migrating", &target];
        self.servers[from].command(&gives);
    }

    /// Moves at most so many keys of a slot, and says how many there were.
    pub fn migrate_keys(&self, slot: u16, from: usize, to: usize, most: usize) -> usize {
        let (slot, most) = (slot.to_string(), most.to_string());
        let source = &self.servers[from];
        let keys = source.command(&["cluster", "getkeysinslot", &slot, &most]);
        let keys: Vec<&str> = keys.lines().filter(|key| !key.is_empty()).collect();
        let port = self.servers[to].port().to_string();
        for key in &keys {
            source.command(&["migrate", "127.0.0.1", &port, key, "0", "5000"]);
        }
        keys.len()
    }

    /// Tells all masters who has the slot now.
    pub fn end_migration(&self, slot: u16, to: usize) {
        // The new owner first, so that the slot is never nobody's.
        self.set_owner(to, slot, to);
        for server in 0..self.masters {
            self.set_owner(server, slot, to);
        }
    }

    /// Tells a server who has a slot now.
    pub fn set_owner(&self, server: usize, slot: u16, owner: usize) {
        let (slot, owner) = (slot.to_string(), self.id(owner));
        self.servers[server].command(&["cluster", "setslot", &slot, "node", &owner]);
    }

    /// The URL of the cluster, by its masters.
    pub fn url(&self) -> String {
        let masters = self.servers[..self.masters].iter();
        let masters: Vec<_> = masters
            .map(|server| format!("127.0.0.1:{}", server.port()))
            .collect();
        format!("redis+cluster://{}", masters.join(","))
    }
}
