"""`cargo xtask bench materialize`: bulk writes into the online stores, beside bare ones."""

import argparse
import json
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from harness import order, results
from harness.goals import Goal
from harness.machine import machine, versions
from harness.measure import two_cores
from harness.place import ROOT, parser, place, program, typed
from harness.serving import repository, servers, tables
from harness.serving.processes import Others, end_on_sigterm, ended

SCRIPT = ROOT / "runtime/online/src/redis/put.lua"
PIPELINE = 32
UNSKEW_REDIS = "unskew materialize into Redis"
BARE_REDIS = "the conditional script alone, the same keys and values"
REDIS_BENCHMARK = f"redis-benchmark -P {PIPELINE}: SET with an expiry"
UNSKEW_EMBEDDED = "unskew materialize into the embedded store"
BARE_EMBEDDED = "LMDB alone, the same sorted pairs"
FEAST = "feast materialize-incremental into Redis"
ABOUT = (
    "A table of {rows:,} rows of as many entities with 10 features, Parquet, into an empty store. "
    "Of unskew and Feast the seconds are of the whole process. The script alone: the keys and "
    "values that unskew wrote, in the order of the keys, as unskew writes them, from a file in "
    "memory, 128 rows in a call, 8 calls on their way at once. redis-benchmark: a SET for each "
    "row, 50 connections, keys and values as long as unskew's, without a condition. LMDB alone: "
    "the pairs that unskew wrote, put in order, a transaction for every 20,000, each of which "
    "waits for the disk. Feast: {feast:,} rows."
)


@dataclass(frozen=True)
class Size:
    """How many rows."""

    rows: int
    feast: int


SIZES = {"full": Size(1_000_000, 100_000), "small": Size(100_000, 10_000)}


@dataclass
class Entry:
    """One way to write, and its rows per second, round by round."""

    title: str
    rows: int
    write: Callable[[], float]
    per_second: list[float] = field(default_factory=list)


def main() -> None:
    """Runs all ways turn by turn."""
    arguments = parse()
    two_cores()
    end_on_sigterm()
    where = place(arguments)
    size = SIZES[arguments.size]
    logs = where.work / "materialize-logs"
    shutil.rmtree(logs, ignore_errors=True)
    logs.mkdir(parents=True)
    about = ABOUT.format(rows=size.rows, feast=size.feast)
    print(f"\n── {about}", flush=True)
    with ExitStack() as stack:
        redis = servers.redis(logs)
        stack.enter_context(ended(redis.running))
        others = Others([redis.running])
        stack.callback(shutil.rmtree, logs / "pairs", ignore_errors=True)
        (logs / "pairs").mkdir()
        entries = Ways(arguments, where, size, redis, logs).entries()
        for number in range(1, arguments.runs + 1):
            for entry in entries:
                with others.watched():
                    seconds = entry.write()
                entry.per_second.append(entry.rows / seconds)
                words = f"{entry.title:<56} {seconds:8.2f} s {entry.rows / seconds:12,.0f} rows/s"
                print(f"  round {number}/{arguments.runs}  {words}", flush=True)
    every = [table(entries), results.goal_table(goals(entries))]
    company = results.cores(others.cores)
    print("\n" + "\n".join([*every, company]))
    found = f"{versions(where.unskew)}, {servers.redis_version()}"
    text = results.section(
        about, every, typed("materialize", arguments), [machine(), found, company]
    )
    results.put(arguments.results, order.MATERIALIZE, text, order.ORDER)


def parse() -> argparse.Namespace:
    """The arguments."""
    parsed = parser("materialize", __doc__, list(SIZES))
    parsed.add_argument("--load", type=program, required=True, help="the bare programs")
    return parsed.parse_args()


class Ways:
    """The ways to write, each into an empty store."""

    def __init__(self, arguments, where, size: Size, redis: servers.Server, logs: Path) -> None:
        """Makes the table and the repositories, and what the bare ones write: what unskew wrote."""
        self.load, self.unskew, self.size = arguments.load, where.unskew, size
        self.redis, self.logs = redis, logs
        self.url = f"redis://{redis.address}/0"
        table = repository.table(where.work, size.rows)
        self.online = where.work / "repo-materialize-redis"
        self.embedded = where.work / "repo-materialize-embedded"
        stores = {
            self.online: {"type": "redis", "url": self.url},
            self.embedded: {"type": "embedded", "path": ".unskew/online"},
        }
        for folder, store in stores.items():
            repository.make(folder, store, repository.ten(table))
            repository.command(self.unskew, folder, "apply")
        self.rows_file, self.pairs_file = logs / "pairs/redis", logs / "pairs/lmdb"
        print("  writing once, for what the bare ones write", flush=True)
        self.into_redis()
        self.stored = self.count_rows()
        pattern = ["--pattern", "unskew:{*"]
        self.bare("dump-redis", "--redis", self.url, *pattern, str(self.rows_file))
        self.into_embedded()
        online = self.embedded / ".unskew/online"
        self.bare("dump-lmdb", str(online), str(self.pairs_file))
        print("  applying Feast's repository", flush=True)
        self.feast = servers.Feast(where.work, redis, repository.table(where.work, size.feast))

    def entries(self) -> list[Entry]:
        """The ways, those that are compared one after the other."""
        rows = self.size.rows
        return [
            Entry(UNSKEW_REDIS, rows, self.into_redis),
            Entry(BARE_REDIS, rows, self.bare_redis),
            Entry(REDIS_BENCHMARK, rows, self.redis_benchmark),
            Entry(UNSKEW_EMBEDDED, rows, self.into_embedded),
            Entry(BARE_EMBEDDED, rows, self.bare_embedded),
            Entry(FEAST, self.size.feast, self.with_feast),
        ]

    def into_redis(self) -> float:
        """unskew, Redis."""
        self.flush()
        seconds = repository.materialize(self.unskew, self.online)
        if self.count_rows() < self.size.rows:
            raise SystemExit(f"error: Redis holds {self.count_rows()} keys")
        return seconds

    def bare_redis(self) -> float:
        """The script."""
        self.flush()
        words = ["--script", str(SCRIPT), str(self.rows_file)]
        done = self.bare("put-redis", "--redis", self.url, *words)
        # The state of the view is written by unskew alone.
        if done["written"] != self.size.rows or self.count_rows() != self.size.rows:
            raise SystemExit(f"error: the script wrote {done['written']} rows")
        return done["seconds"]

    def redis_benchmark(self) -> float:
        """The fastest that Redis is usually seen."""
        self.flush()
        key, value = self.lengths()
        prefix = "k" * max(key - len("000000000000"), 1)
        rows = str(self.size.rows)
        command = [servers.redis_binary("redis-benchmark"), "-h", servers.HOST]
        command += ["-p", str(self.redis.port), "-n", rows, "-r", rows, "-P", str(PIPELINE), "-q"]
        command += ["SET", f"{prefix}__rand_int__", "v" * value, "PX", "315360000000"]
        began = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        return time.perf_counter() - began

    def into_embedded(self) -> float:
        """unskew, LMDB."""
        shutil.rmtree(self.embedded / ".unskew/online", ignore_errors=True)
        return repository.materialize(self.unskew, self.embedded)

    def bare_embedded(self) -> float:
        """LMDB."""
        folder = self.logs / "pairs/environment"
        shutil.rmtree(folder, ignore_errors=True)
        done = self.bare("put-lmdb", str(self.pairs_file), str(folder))
        if done["rows"] < self.size.rows:
            raise SystemExit(f"error: LMDB was given {done['rows']} pairs")
        return done["seconds"]

    def with_feast(self) -> float:
        """Feast, Redis."""
        self.flush()
        # A registry that says that nothing is materialized yet.
        (self.feast.folder / "registry.db").unlink(missing_ok=True)
        self.feast.run("apply")
        seconds = self.feast.materialize()
        held = int(servers.redis_cli(self.redis, "-n", "1", "dbsize"))
        if held < self.size.feast:
            raise SystemExit(f"error: Feast wrote {held} keys")
        return seconds

    def bare(self, *words: str) -> dict:
        """What a bare program reports."""
        done = subprocess.run([str(self.load), *words], capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"error: {words[0]} failed: {done.stderr.strip()}")
        return json.loads(done.stdout)

    def flush(self) -> None:
        """Empties Redis."""
        servers.redis_cli(self.redis, "flushall", "sync")

    def count_rows(self) -> int:
        """How many keys Redis holds."""
        return int(servers.redis_cli(self.redis, "dbsize"))

    def lengths(self) -> tuple[int, int]:
        """How long the key and the value of the first row are."""
        with self.rows_file.open("rb") as file:
            head = file.read(8)
        return int.from_bytes(head[:4], "little"), int.from_bytes(head[4:], "little")


def table(entries: list[Entry]) -> str:
    """The rows per second."""
    rows = [
        [
            entry.title,
            f"{entry.rows:,}",
            f"{entry.rows / statistics.median(entry.per_second):.2f}",
            f"{statistics.median(entry.per_second):,.0f}",
            f"{min(entry.per_second):,.0f}–{max(entry.per_second):,.0f}",
        ]
        for entry in entries
    ]
    rounds = len(entries[0].per_second)
    head = ["way", "rows", "seconds", f"rows/s (median of {rounds})", "min–max"]
    return results.markdown(head, rows)


def goals(entries: list[Entry]) -> list[Goal]:
    """Against each bare way, round by round."""
    found = {entry.title: entry.per_second for entry in entries}

    def goal(mine: str, other: str, limit: float) -> Goal:
        pairs = zip(found[mine], found[other], strict=True)
        text = f"rows/s: {mine} / {other} ≥ {limit}"
        return tables.goal(text, [one / two for one, two in pairs], tables.at_least(limit))

    return [
        goal(UNSKEW_REDIS, BARE_REDIS, 0.8),
        goal(UNSKEW_REDIS, REDIS_BENCHMARK, 0.35),
        goal(UNSKEW_EMBEDDED, BARE_EMBEDDED, 0.5),
    ]


if __name__ == "__main__":
    main()
