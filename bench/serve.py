"""`cargo xtask bench serve`: requests, beside a bare handler and beside Feast."""

import argparse
import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from harness import order, results
from harness.engines import Place
from harness.goals import Goal
from harness.machine import machine, versions
from harness.measure import two_cores
from harness.place import parser, place, program, typed
from harness.serving import calls, memory, picture, reload, repository, servers, tables
from harness.serving.load import BARE, FEAST, UNSKEW, Request, Target
from harness.serving.processes import Others, end_on_sigterm, ended
from harness.serving.repository import (
    ONE_VIEW,
    PLAIN,
    TWENTY_VIEWS,
    WITH_COMPONENT,
    WITH_PYTHON,
)
from harness.serving.rounds import Bench, Line, measure

CONNECTIONS = (1, 8, 64)
PICTURED = 8
# What the bare handler can be asked for: whether with request fields, and how many entities.
BARE_ANSWERS = {PLAIN: (False, (1, 100)), WITH_COMPONENT: (True, (1, 100))}
LATENCY = (
    "Requests/s are of a closed loop, where each connection sends as soon as it is answered. "
    "Latencies are of an open loop at one rate for all that are compared, half of what the slowest "
    "of them does at most (Feast at half of its own): requests are due at even intervals, and each "
    "latency counts from when its request was due, so that a server that stalls is charged with "
    "all requests that waited. Load, server and Redis share two cores. Answers are checked by "
    "value, every 101st and the first of each connection."
)


@dataclass(frozen=True)
class Size:
    """How much."""

    entities: int
    seconds: float
    requests: int


SIZES = {"full": Size(100_000, 3.0, 10_000_000), "small": Size(10_000, 1.0, 200_000)}


def main() -> None:
    """Starts the servers, and runs the cases that were asked for."""
    arguments = parse()
    two_cores()
    end_on_sigterm()
    where = place(arguments)
    size = SIZES[arguments.size]
    cases = [arguments.only] if arguments.only else list(CASES)
    logs = where.work / "serve-logs"
    shutil.rmtree(logs, ignore_errors=True)
    logs.mkdir(parents=True)
    with ExitStack() as stack:
        table = repository.table(where.work, size.entities, repository.VIEWS)
        redis = servers.redis(logs)
        stack.enter_context(ended(redis.running))
        folder, definitions = prepare(where, redis, table, WITH_PYTHON in wanted_services(cases))
        targets = {UNSKEW: Target(UNSKEW, servers.unskew(where.unskew, folder, logs))}
        stack.enter_context(ended(targets[UNSKEW].server.running))
        if {"1 entity", "100 entities"} & set(cases):
            serving = targets[UNSKEW].server
            bare = servers.bare(arguments.load, redis, serving, BARE_ANSWERS, logs)
            stack.enter_context(ended(bare.running))
            targets[BARE] = Target(BARE, bare)
        if {"1 entity", "100 entities", "python"} & set(cases):
            print("  applying and materializing Feast's repository", flush=True)
            feast = servers.Feast(where.work, redis, repository.table(where.work, size.entities))
            feast.materialize()
            server = feast.serve(logs)
            stack.enter_context(ended(server.running))
            targets[FEAST] = Target(FEAST, server)
        ours = [redis.running, *(target.server.running for target in targets.values())]
        bench = Bench(arguments.load, targets, Others(ours), arguments.runs, size.seconds)
        for number, name in enumerate(cases, 1):
            print(f"\n── {name} ({number} of {len(cases)}): {CASES[name].about}", flush=True)
            run(name, Context(arguments, where, bench, size, folder, definitions))
    print(f"\nall of it is in {arguments.results}")


def parse() -> argparse.Namespace:
    """The arguments."""
    parsed = parser("serve", __doc__, list(SIZES))
    parsed.add_argument("--load", type=program, required=True, help="the load generator")
    parsed.add_argument("--only", choices=list(CASES), metavar="CASE", help=", ".join(CASES))
    return parsed.parse_args()


def prepare(where: Place, redis: servers.Server, table: Path, python: bool) -> tuple[Path, dict]:
    """The repository, applied and materialized, and its definitions."""
    folder = where.work / "repo-serve"
    folder.mkdir(parents=True, exist_ok=True)
    repository.rust_component(folder)
    component = repository.python_component(where.work, folder) if python else None
    definitions = repository.all_services(table, component)
    store = {"type": "redis", "url": f"redis://{redis.address}/0"}
    repository.make(folder, store, definitions)
    print("  applying and materializing", flush=True)
    repository.command(where.unskew, folder, "apply")
    repository.materialize(where.unskew, folder)
    return folder, definitions


def wanted_services(cases: list[str]) -> set[str]:
    """The services that the cases ask for."""
    return {service for name in cases for service in CASES[name].services}


@dataclass(frozen=True)
class Context:
    """What a case is run with."""

    arguments: argparse.Namespace
    where: Place
    bench: Bench
    size: Size
    folder: Path
    definitions: dict


@dataclass(frozen=True)
class Case:
    """A section of the results: `lines` are measured turn by turn, or `special` does it all."""

    about: str
    services: tuple[str, ...]
    lines: list[tuple[str, str, int]]
    rows: int = 1
    goals: object = None
    special: object = None


def usual_lines() -> list[tuple[str, str, int]]:
    """Both services, at each number of connections, and Feast where it is compared."""
    return [
        (kind, service, connections)
        for connections in CONNECTIONS
        for service in (PLAIN, WITH_COMPONENT)
        for kind in ((UNSKEW, BARE, FEAST) if connections == PICTURED else (UNSKEW, BARE))
    ]


def run(name: str, context: Context) -> None:
    """Runs a case, prints its tables and writes its section."""
    case = CASES[name]
    if case.special is not None:
        made = case.special(context)
        if made is None:
            return
        shown, goals, notes = made
    else:
        lines = [
            Line(kind, Request(service, case.rows, context.size.entities), connections)
            for kind, service, connections in case.lines
        ]
        measure(context.bench, lines)
        shown, goals, notes = [tables.table(lines)], case.goals(lines), [LATENCY, generator(lines)]
        if name == "1 entity":
            pictured = [line for line in lines if line.connections == PICTURED]
            pictured = [line for line in pictured if line.request.service == WITH_COMPONENT]
            picture.draw(context.arguments.results.with_name("latency.svg"), pictured)
    report(name, shown, goals, notes, context)


def generator(lines: list[Line]) -> str:
    """What the load generator adds to latencies: how late it sent what it could have sent."""
    late = [outcome["late"]["p99"] for line in lines for outcome in line.open]
    if not late:
        return "no open loop was run"
    worst = f"{max(late):,.0f} µs"
    return f"in the worst run, 1 % of requests were sent more than {worst} later than they could be"


def report(
    name: str, shown: list[str], goals: list[Goal], notes: list[str], context: Context
) -> None:
    """Prints and writes what was measured."""
    arguments, others = context.arguments, context.bench.others
    company = results.cores(others.cores)
    others.cores.clear()
    every = [*shown, results.goal_table(goals)]
    print("\n" + "\n".join([*every, company]), flush=True)
    about = f"{context.size.entities:,} entities. {CASES[name].about}"
    found = f"{versions(context.where.unskew)}, {servers.redis_version()}"
    notes = [*notes, machine(), found, company]
    text = results.section(about, every, typed("serve", arguments), notes)
    results.put(arguments.results, order.serve(name), text, order.ORDER)


CASES = {
    "1 entity": Case(
        "One entity in a request, 10 features (8 float64, 2 int64), with and without a component "
        "in Rust of 3 inputs, one of which comes with the request, and 2 outputs. The bare handler "
        "(axum, redis) parses the request, sends one MGET of the same keys and answers a fixed "
        "JSON of the same length. Feast: two workers, the component as an on-demand view in "
        "Python, the same Redis.",
        (PLAIN, WITH_COMPONENT),
        usual_lines(),
        goals=tables.one_entity,
    ),
    "100 entities": Case(
        "The same with 100 entities in a request.",
        (PLAIN, WITH_COMPONENT),
        usual_lines(),
        rows=100,
        goals=tables.hundred_entities,
    ),
    "python": Case(
        "One entity in a request, 10 features, the component in Python (componentize-py) against "
        "Feast's on-demand view in Python and against the component in Rust.",
        (WITH_COMPONENT, WITH_PYTHON),
        [(UNSKEW, WITH_PYTHON, 8), (UNSKEW, WITH_COMPONENT, 8), (FEAST, WITH_COMPONENT, 8)],
        goals=tables.python,
    ),
    "views": Case(
        "One entity in a request, 20 float64 features: of 20 views with one each, and of one view.",
        (ONE_VIEW, TWENTY_VIEWS),
        [
            (UNSKEW, service, connections)
            for connections in (1, 8)
            for service in (TWENTY_VIEWS, ONE_VIEW)
        ],
        goals=tables.views,
    ),
    "call": Case(
        "An isolated call of a component in Rust of 3 inputs and 2 outputs, in a fresh instance "
        "each time, without server and store; and `evaluate`, of which it is a part, on a joined "
        "batch of a view with 10 features. With two threads each calls on its own core.",
        (),
        [],
        special=calls.run,
    ),
    "memory": Case(
        "Resident memory of the server under a closed loop of 64 connections, one entity in a "
        "request, with the component in Rust.",
        (WITH_COMPONENT,),
        [],
        special=memory.run,
    ),
    "reload": Case(
        "Latency while the server takes up new states of the registry, each with a new component: "
        "8 connections, one entity in a request, with the component in Rust.",
        (WITH_COMPONENT,),
        [],
        special=reload.run,
    ),
}


if __name__ == "__main__":
    main()
