"""Redis as it is run, and what befalls it: killed, paused, restarted, failed over."""

import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from harness.serving import servers
from harness.serving.processes import READY, Running, ended, free_port
from harness.serving.servers import HOST, Server, redis_binary, redis_cli

# What was written is there again after a start: what is measured is how service comes back, and
# not how a store is filled.
KEPT = ["--appendonly", "yes", "--appendfsync", "no"]
MASTER_NAME = "bench"
DOWN_AFTER_MS = 1_000
MASTERS = 3
PAUSE = 0.002


class Standalone:
    """One Redis server, which keeps what was written."""

    def __init__(self, stack: ExitStack, logs: Path) -> None:
        """Starts it."""
        self.stack, self.logs = stack, logs
        self.server = servers.redis(logs, *KEPT)
        stack.callback(lambda: self.server.running.stop())

    @property
    def url(self) -> str:
        """Where unskew finds it."""
        return f"redis://{self.server.address}/0"

    def kill(self, seconds: float) -> None:
        """Killed, and started again some time later."""
        self.server.running.process.kill()
        self.server.running.process.wait()
        time.sleep(seconds)
        self._start()

    def restart(self, _: float) -> None:
        """Ended in good order, and started again at once."""
        self.server.running.stop()
        self._start()

    def pause(self, seconds: float) -> None:
        """Stopped for some time: connections stay open, and nobody answers."""
        self.server.running.signal(signal.SIGSTOP)
        time.sleep(seconds)
        self.server.running.signal(signal.SIGCONT)
        answering(self.server)

    def _start(self) -> None:
        # It is ready when it answers, and not before it has read what it kept.
        self.server = servers.redis(self.logs, *KEPT, port=self.server.port)


class Sentinel:
    """A master, a replica and a Sentinel."""

    def __init__(self, stack: ExitStack, logs: Path) -> None:
        """Starts them, and waits until the replica follows."""
        self.members = [servers.redis(logs, *KEPT, name="master")]
        stack.enter_context(ended(self.members[0].running))
        master = str(self.members[0].port)
        following = [*KEPT, "--replicaof", HOST, master]
        self.members.append(servers.redis(logs, *following, name="replica"))
        stack.enter_context(ended(self.members[1].running))
        port = free_port()
        configuration = logs / "sentinel.conf"
        configuration.write_text(
            f"port {port}\nbind {HOST}\n"
            f"sentinel monitor {MASTER_NAME} {HOST} {master} 1\n"
            f"sentinel down-after-milliseconds {MASTER_NAME} {DOWN_AFTER_MS}\n"
            f"sentinel failover-timeout {MASTER_NAME} 5000\n"
        )
        command = [redis_binary("redis-server"), configuration, "--sentinel"]
        self.sentinel = Server(Running("sentinel", command, logs, logs), port)
        stack.enter_context(ended(self.sentinel.running))
        answering(self.sentinel)
        until(lambda: "slaves=1" in redis_cli(self.sentinel, "info", "sentinel"))
        replica = self.members[1]
        until(lambda: "master_link_status:up" in redis_cli(replica, "info", "replication"))

    @property
    def url(self) -> str:
        """Where unskew finds it."""
        return f"redis+sentinel://{self.sentinel.address}/{MASTER_NAME}/0"

    @property
    def server(self) -> Server:
        """The first master, which has to be alive."""
        return self.members[0]

    def failover(self, _: float) -> None:
        """The master is killed, and the Sentinel makes the replica the master and names it."""
        master, replica = self.members
        master.running.process.kill()
        until(lambda: "role:master" in redis_cli(replica, "info", "replication"))
        ask = ["sentinel", "get-master-addr-by-name", MASTER_NAME]
        until(lambda: str(replica.port) in redis_cli(self.sentinel, *ask).split())


class Cluster:
    """Three masters with a replica each."""

    def __init__(self, stack: ExitStack, logs: Path) -> None:
        """Starts them, and waits until they are a cluster."""
        options = [*KEPT, "--cluster-enabled", "yes", "--cluster-node-timeout", str(DOWN_AFTER_MS)]
        self.members = []
        for index in range(2 * MASTERS):
            # Of its own accord a node takes a port that there may not be: its own plus 10,000.
            bus = ["--cluster-port", str(free_port())]
            member = servers.redis(logs, *options, *bus, name=f"node{index}")
            stack.enter_context(ended(member.running))
            self.members.append(member)
        addresses = [member.address for member in self.members]
        create = ["--cluster", "create", *addresses, "--cluster-replicas", "1", "--cluster-yes"]
        redis_cli(self.members[0], *create)
        until(lambda: all(map(sound, self.members)))
        until(lambda: self._replica_of_first() is not None)

    @property
    def url(self) -> str:
        """Where unskew finds it."""
        masters = ",".join(member.address for member in self.members[:MASTERS])
        return f"redis+cluster://{masters}/"

    def failover(self, _: float) -> None:
        """A master is killed, and its replica takes over."""
        replica = self._replica_of_first()
        self.members[0].running.process.kill()
        until(lambda: "role:master" in redis_cli(replica, "info", "replication"))
        until(lambda: all(map(sound, self.members[1:])))

    def _replica_of_first(self) -> Server | None:
        follows = f"master_port:{self.members[0].port}\n"
        found = (
            member
            for member in self.members[MASTERS:]
            if follows in redis_cli(member, "info", "replication")
            and "master_link_status:up" in redis_cli(member, "info", "replication")
        )
        return next(found, None)


def sound(member: Server) -> bool:
    """Whether a node sees the cluster as able to answer."""
    return "cluster_state:ok" in redis_cli(member, "cluster", "info")


def answering(server: Server) -> None:
    """Waits until a server answers."""
    until(lambda: redis_cli(server, "ping") == "PONG")


def until(ready: Callable[[], bool]) -> None:
    """Waits, but not for ever."""
    end = time.monotonic() + READY
    while not ready():
        if time.monotonic() > end:
            raise SystemExit(f"error: Redis is not there after {READY:.0f} s")
        time.sleep(PAUSE)
