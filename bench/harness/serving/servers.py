"""The servers: Redis, unskew, the bare handler, Feast."""

import http.client
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from harness.place import BENCH
from harness.serving.processes import Running, free_port

HOST = "127.0.0.1"
URL = re.compile(rf"http://{re.escape(HOST)}:(\d+)")
# Its eight bytes in hexadecimal digits are found again in a key.
KNOWN_ENTITY = 0x1234
ASKED = 41
FEAST_WORKERS = 2


@dataclass
class Server:
    """A server that listens."""

    running: Running
    port: int

    @property
    def address(self) -> str:
        """Where."""
        return f"{HOST}:{self.port}"


def redis(logs: Path, *options: str, port: int | None = None, name: str = "redis") -> Server:
    """A Redis server; without options it writes nothing to disk."""
    port = port or free_port()
    folder = logs / f"{name}-data"
    folder.mkdir(exist_ok=True)
    bound = ["--bind", HOST, "--port", port, "--dir", folder, "--daemonize", "no"]
    command = [redis_binary("redis-server"), *bound, "--save", "", *options]
    server = Server(Running(name, command, folder, logs), port)
    server.running.until(lambda: True if redis_cli(server, "ping") == "PONG" else None)
    return server


def redis_binary(name: str) -> str:
    """A program of Redis."""
    found = shutil.which(name)
    if found is None:
        raise SystemExit(f"error: there is no {name}; `cargo xtask setup` installs Redis")
    return found


def redis_cli(server: Server, *words: str) -> str:
    """What Redis answers to a command."""
    command = [redis_binary("redis-cli"), "-h", HOST, "-p", str(server.port), *words]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def redis_version() -> str:
    """The version of the Redis server."""
    command = [redis_binary("redis-server"), "--version"]
    said = subprocess.run(command, capture_output=True, text=True).stdout
    found = re.search(r"v=(\S+)", said)
    return f"Redis {found[1]}" if found else "Redis"


def unskew(binary: Path, folder: Path, logs: Path) -> Server:
    """`unskew serve` of an applied repository."""
    running = Running("unskew", [binary, "serve", "--host", HOST, "--port", "0"], folder, logs)
    return Server(running, running.until(lambda: printed_port(running)))


def bare(load: Path, redis_server: Server, beside: Server, services: dict, logs: Path) -> Server:
    """The bare handler, which reads the keys that unskew reads, and answers as much.

    `services` has for each service how many rows are asked for, and whether with amounts.
    """
    row_key, more = keys(redis_server, beside, next(iter(services)))
    command = [load, "bare", "--redis", f"redis://{redis_server.address}/0", "--row-key", row_key]
    for key in more:
        command += ["--more-key", key]
    for service, (amounts, row_counts) in services.items():
        for rows in row_counts:
            answer = answer_bytes(beside, service, rows, amounts)
            command += ["--answer", f"{service}:{rows}:{answer}"]
    running = Running("bare", command, logs, logs)
    return Server(running, running.until(lambda: printed_port(running)))


def printed_port(running: Running) -> int | None:
    """The port that a server says to listen on."""
    found = URL.search(running.out.read_text(errors="replace"))
    return int(found[1]) if found else None


def keys(redis_server: Server, server: Server, service: str) -> tuple[str, list[str]]:
    """The keys that a server reads for an entity: that of its row, with `{}` for the entity, and
    those that are read with it.

    Redis itself is asked, so that nothing is assumed of how the server names them.
    """
    cli = [redis_binary("redis-cli"), "-h", HOST, "-p", str(redis_server.port), "monitor"]
    entity = KNOWN_ENTITY.to_bytes(8, "little").hex()
    with subprocess.Popen(cli, stdout=subprocess.PIPE, text=True) as monitor:
        try:
            monitor.stdout.readline()
            ask(server, service, [KNOWN_ENTITY], amounts=False)
            # What ends the reading below, whatever was read.
            redis_cli(redis_server, "echo", "the end")
            lines = []
            for line in monitor.stdout:
                if "the end" in line:
                    break
                lines.append(line)
        finally:
            monitor.terminate()
    read = next((line for line in lines if entity in line), None)
    if read is None or '"MGET"' not in read:
        raise SystemExit(f"error: unskew read no key with {entity} by MGET; Redis saw {lines}")
    words = re.findall(r'"([^"]*)"', read)[1:]
    row = next(word for word in words if entity in word)
    return row.replace(entity, "{}"), [word for word in words if word != row]


def answer_bytes(server: Server, service: str, rows: int, amounts: bool) -> int:
    """The median length of a server's answers."""
    starts = range(0, ASKED * rows, rows)
    lengths = [
        len(ask(server, service, list(range(start, start + rows)), amounts)) for start in starts
    ]
    return int(statistics.median(lengths))


def ask(server: Server, service: str, entities: list[int], amounts: bool) -> bytes:
    """The answer of unskew to a request."""
    body = {"feature_service": service, "entities": {"customer_id": entities}}
    if amounts:
        body["request"] = {"amount": [entity % 1_000 / 4 for entity in entities]}
    status, answer = post(server, "/online", json.dumps(body))
    if status != 200:
        raise SystemExit(f"error: {service} is answered with {status}: {answer.decode()[:300]}")
    return answer


def post(server: Server, path: str, body: str = "") -> tuple[int, bytes]:
    """The status and the answer of a POST."""
    return exchange(server, "POST", path, body)


def exchange(server: Server, method: str, path: str, body: str = "") -> tuple[int, bytes]:
    """The status and the answer of a request."""
    connection = http.client.HTTPConnection(HOST, server.port, timeout=30)
    try:
        connection.request(method, path, body, {"content-type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


class Feast:
    """Feast's repository, beside the same Redis, in a database of its own."""

    def __init__(self, work: Path, redis_server: Server, table: Path) -> None:
        """Writes and applies it."""
        self.folder = work / "feast"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.env = {"BENCH_TABLE": str(table), "FEAST_USAGE": "False", "PYTHONWARNINGS": "ignore"}
        shutil.copy2(BENCH / "serving/feast/definitions.py", self.folder / "definitions.py")
        (self.folder / "registry.db").unlink(missing_ok=True)
        (self.folder / "feature_store.yaml").write_text(
            "project: bench\n"
            "registry: {path: registry.db, cache_ttl_seconds: 3600}\n"
            "provider: local\n"
            "online_store:\n"
            "  type: redis\n"
            f'  connection_string: "{redis_server.address},db=1"\n'
            "offline_store: {type: file}\n"
            "entity_key_serialization_version: 3\n"
        )
        self.run("apply")

    def run(self, *words: str) -> float:
        """Runs one of its commands to the end; the seconds that it took."""
        began = time.perf_counter()
        done = subprocess.run(
            [*self.command(), *words],
            cwd=self.folder,
            env=os.environ | self.env,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise SystemExit(f"error: `feast {' '.join(words)}` failed:\n{done.stderr[-2000:]}")
        return time.perf_counter() - began

    def materialize(self) -> float:
        """Materializes all; the seconds that it took."""
        return self.run(
            "materialize-incremental", time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
        )

    def serve(self, logs: Path) -> Server:
        """Its server: two workers, no access log, and no end of a worker after 1,000 requests."""
        port = free_port()
        words = ["serve", "-h", HOST, "-p", str(port), "--workers", str(FEAST_WORKERS)]
        words += ["--no-access-log", "--max-requests", "0", "--max-requests-jitter", "0"]
        words += ["--registry_ttl_sec", "3600"]
        running = Running("feast", [*self.command(), *words], self.folder, logs, self.env)
        server = Server(running, port)

        def healthy() -> bool | None:
            try:
                return True if exchange(server, "GET", "/health")[0] == 200 else None
            except OSError:
                return None

        running.until(healthy)
        return server

    @staticmethod
    def command() -> list[str]:
        """The command of the environment in which this runs."""
        return [str(Path(sys.executable).with_name("feast"))]
