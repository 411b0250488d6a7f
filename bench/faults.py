"""`cargo xtask bench faults`: how long service takes to be back after faults of Redis."""

import argparse
import json
import re
import shutil
import statistics
import subprocess
import time
from contextlib import ExitStack
from dataclasses import dataclass, field

from harness import order, results
from harness.engines import Place
from harness.goals import Goal
from harness.machine import machine, versions
from harness.measure import two_cores
from harness.place import parser, place, program, typed
from harness.serving import repository, servers
from harness.serving.deployments import Cluster, Sentinel, Standalone
from harness.serving.load import UNSKEW, Drive, Request, Target
from harness.serving.processes import Others, Running, end_on_sigterm, ended
from harness.serving.repository import PLAIN

CONNECTIONS = 16
BEFORE = 2.0
AFTER = 8.0
BIN_MS = 10
TIMEOUT = 10.0
LIMIT_MS = 1_000.0
ABOUT = (
    "`POST /online`, one entity × 10 features, {rate:,.0f} requests/s in an open loop over "
    f"{CONNECTIONS} connections, every answer checked by value. Redis is down for {{down:.0f}} s "
    "(a restart, a failover: for as long as it takes). Service is back when from then on every "
    "request is answered right, counted from when Redis answers a PING again (in a failover: from "
    "when the replica is the master, and Sentinel, which asks it once a second, names it), to "
    f"{BIN_MS} ms. An error is an answer other than 200, or no answer."
)


@dataclass(frozen=True)
class Size:
    """How much."""

    entities: int
    rate: float
    down: float


SIZES = {"full": Size(10_000, 1_000.0, 5.0), "small": Size(1_000, 300.0, 2.0)}


@dataclass(frozen=True)
class Fault:
    """What befalls which deployment."""

    title: str
    deployment: type
    strike: str


FAULTS = {
    "kill": Fault("killed, started again later", Standalone, "kill"),
    "pause": Fault("paused (SIGSTOP), continued later", Standalone, "pause"),
    "restart": Fault("ended in good order, started again at once", Standalone, "restart"),
    "sentinel": Fault("master killed, Sentinel fails over", Sentinel, "failover"),
    "cluster": Fault("master of a cluster killed, its replica takes over", Cluster, "failover"),
}


@dataclass
class Measured:
    """What was seen of a fault, round by round."""

    back_ms: list[float] = field(default_factory=list)
    outcomes: list[dict] = field(default_factory=list)
    failed: str | None = None

    def sum(self, what: str) -> int:
        """Wrong answers, or right ones, of all rounds."""
        return sum(outcome[what] for outcome in self.outcomes)

    @property
    def errors(self) -> int:
        """Of all rounds."""
        return sum(sum(outcome["errors"].values()) for outcome in self.outcomes)


def main() -> None:
    """Strikes, turn by turn."""
    arguments = parse()
    two_cores()
    end_on_sigterm()
    where = place(arguments)
    size = SIZES[arguments.size]
    names = [arguments.only] if arguments.only else list(FAULTS)
    about = ABOUT.format(rate=size.rate, down=size.down)
    print(f"\n── {about}", flush=True)
    others = Others([])
    found = {name: Measured() for name in names}
    for number in range(1, arguments.runs + 1):
        for name in names:
            if found[name].failed is None:
                print(f"  round {number}/{arguments.runs}  {FAULTS[name].title}", flush=True)
                strike(FAULTS[name], found[name], arguments, where, size, others)
    every = [table(found), results.goal_table(goals(found))]
    company = results.cores(others.cores)
    print("\n" + "\n".join([*every, company]))
    notes = [machine(), f"{versions(where.unskew)}, {servers.redis_version()}", company]
    text = results.section(about, every, typed("faults", arguments), notes)
    results.put(arguments.results, order.FAULTS, text, order.ORDER)


def parse() -> argparse.Namespace:
    """The arguments."""
    parsed = parser("faults", __doc__, list(SIZES))
    parsed.add_argument("--load", type=program, required=True, help="the load generator")
    parsed.add_argument("--only", choices=list(FAULTS), metavar="FAULT", help=", ".join(FAULTS))
    return parsed.parse_args()


def strike(
    fault: Fault,
    measured: Measured,
    arguments: argparse.Namespace,
    where: Place,
    size: Size,
    others: Others,
) -> None:
    """Starts everything, strikes once, and ends everything."""
    logs = where.work / "faults-logs"
    shutil.rmtree(logs, ignore_errors=True)
    logs.mkdir(parents=True)
    with ExitStack() as stack:
        deployment = fault.deployment(stack, logs)
        folder = where.work / "repo-faults"
        table = repository.table(where.work, size.entities)
        repository.make(folder, {"type": "redis", "url": deployment.url}, repository.ten(table))
        try:
            repository.command(where.unskew, folder, "apply")
            repository.materialize(where.unskew, folder)
        except SystemExit as reason:
            # Ports differ from run to run.
            words = re.sub(r":\d{4,5}\b", "", last_message(str(reason)))
            measured.failed = f"left out: {words}"
            print(f"    {measured.failed}", flush=True)
            return
        server = servers.unskew(where.unskew, folder, logs)
        stack.enter_context(ended(server.running))
        load = Drive(
            Target(UNSKEW, server),
            Request(PLAIN, 1, size.entities),
            CONNECTIONS,
            seconds=BEFORE + size.down + AFTER,
            rate=size.rate,
            more=["--check-every", "1", "--timeline-ms", str(BIN_MS), "--timeout", str(TIMEOUT)],
        )
        generator = Running("load", load.command(arguments.load), logs, logs)
        stack.enter_context(ended(generator))
        time.sleep(BEFORE)
        others.ours = [server.running, generator]
        with others.watched():
            getattr(deployment, fault.strike)(size.down)
        back = time.monotonic_ns()
        try:
            # Requests that wait for an answer end before this.
            generator.process.wait(load.seconds + 2 * TIMEOUT)
        except subprocess.TimeoutExpired:
            measured.failed = "the load did not end"
            return
        if generator.process.returncode != 0:
            measured.failed = generator.last_words()
            print(f"    {measured.failed}", flush=True)
            return
        outcome = json.loads(generator.out.read_text())
        measured.outcomes.append(outcome)
        measured.back_ms.append(back_after(outcome["timeline"], back))
        words = f"{outcome['right']:,} right, {outcome['errors']} errors, {outcome['wrong']} wrong"
        print(f"    back after {measured.back_ms[-1]:,.0f} ms; {words}", flush=True)


def last_message(text: str) -> str:
    """What a command that failed said, in one line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    try:
        error = json.loads(lines[-1])["error"]
        problems = [problem["message"] for problem in error.get("problems", [])]
        return ": ".join([error["message"], *problems[:1]])
    except (ValueError, KeyError, IndexError, TypeError):
        return lines[-1] if lines else "without a word"


def back_after(timeline: dict, back: int) -> float:
    """The milliseconds from `back` on until every request is answered right."""
    start, length, bins = timeline["start_ns"], timeline["bin_ns"], timeline["bins"]
    bad = [index for index, one in enumerate(bins) if one["errors"] or one["wrong"]]
    first = max(bad[-1] + 1 if bad else 0, (back - start) // length)
    good = next((index for index in range(first, len(bins)) if bins[index]["right"]), None)
    if good is None:
        return float("inf")
    return max(0.0, (start + (good + 1) * length - back) / 1e6)


def table(found: dict[str, Measured]) -> str:
    """What was seen."""
    rounds = max(len(measured.outcomes) for measured in found.values())
    head = ["Redis is", f"back after, ms (median of {rounds})", "at most", "right", "errors"]
    head += ["wrong", "an error takes, p50 µs", "p99 µs"]
    rows = []
    for name, measured in found.items():
        title = FAULTS[name].title
        if measured.failed or not measured.outcomes:
            rows.append([title, measured.failed or "not run", *[""] * (len(head) - 2)])
            continue
        rows.append(
            [
                title,
                f"{statistics.median(measured.back_ms):,.0f}",
                f"{max(measured.back_ms):,.0f}",
                f"{measured.sum('right'):,}",
                f"{measured.errors:,}",
                f"{measured.sum('wrong'):,}",
                errors_take(measured, "p50"),
                errors_take(measured, "p99"),
            ]
        )
    return results.markdown(head, rows)


def errors_take(measured: Measured, quantile: str) -> str:
    """How long a client waits for an error: the median of the rounds that had any."""
    latencies = [outcome["error_latency"] for outcome in measured.outcomes]
    values = [latency[quantile] for latency in latencies if latency["count"]]
    return f"{statistics.median(values):,.0f}" if values else ""


def goals(found: dict[str, Measured]) -> list[Goal]:
    """Back within a second, and nothing wrong ever."""
    made = []
    for name, measured in found.items():
        text = f"{FAULTS[name].title}: back ≤ {LIMIT_MS:,.0f} ms after Redis, no wrong answer"
        if measured.failed or not measured.back_ms:
            made.append(Goal(text, measured.failed or "not measured", None))
            continue
        back, wrong = statistics.median(measured.back_ms), measured.sum("wrong")
        met = back <= LIMIT_MS and wrong == 0
        made.append(Goal(text, f"{back:,.0f} ms, {wrong} wrong", met))
    return made


if __name__ == "__main__":
    main()
