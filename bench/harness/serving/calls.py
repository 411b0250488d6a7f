"""What an isolated call of a component costs, on one core and on both."""

import shutil
import statistics
import subprocess

from harness import results
from harness.goals import Goal
from harness.place import BENCH
from harness.serving import repository, tables

COMPONENT = "three_to_two"
ONE, BOTH = "call, 1 rows, 1 thread", "call, 1 rows, 2 threads"
QUANTILES = ["min", "p50", "p90", "p99"]
# Of each case of the program, in seconds.
SECONDS = 1.0
NANOSECONDS_PER_MICRO = 1_000


def run(context) -> tuple[list[str], list[Goal], list[str]]:
    """Runs the program once in each round."""
    component = built(context)
    rounds: dict[str, list[dict[str, float]]] = {}
    for number in range(1, context.bench.rounds + 1):
        command = [str(context.arguments.call), str(component), str(SECONDS)]
        with context.bench.others.watched():
            done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"error: {' '.join(command)} failed:\n{done.stderr[-2000:]}")
        for name, micros in read(done.stdout):
            rounds.setdefault(name, []).append(micros)
        print(f"  round {number}: {ONE} p50 {rounds[ONE][-1]['p50']:.2f} µs", flush=True)
    rows = [[name, *cells(measured)] for name, measured in rounds.items()]
    head = ["case", *(f"{quantile} µs" for quantile in QUANTILES)]
    return [results.markdown(head, rows)], goals(rounds[ONE], rounds[BOTH]), []


def built(context):
    """The component, built in a repository of its own."""
    folder = context.where.work / "repo-call"
    repository.make(folder, {"type": "embedded", "path": ".unskew/online"}, {})
    for part in ("transforms", "native"):
        shutil.copytree(BENCH / part, folder / part, dirs_exist_ok=True)
    for file in ("Cargo.toml", "Cargo.lock"):
        shutil.copy(BENCH / file, folder / file)
    source = f"transforms/{COMPONENT}"
    made = repository.command(context.where.unskew, folder, "transform", "build", source)
    return made["component"]


def read(printed: str) -> list[tuple[str, dict[str, float]]]:
    """The cases that the program printed, in microseconds."""
    found = []
    for line in printed.splitlines()[1:]:
        name, _calls, *nanoseconds = line.rsplit(maxsplit=1 + len(QUANTILES))
        micros = (int(value) / NANOSECONDS_PER_MICRO for value in nanoseconds)
        found.append((name.strip(), dict(zip(QUANTILES, micros, strict=True))))
    return found


def cells(rounds: list[dict[str, float]]) -> list[str]:
    """The median of all rounds of each quantile."""
    return [f"{statistics.median(one[name] for one in rounds):.2f}" for name in QUANTILES]


def goals(one: list[dict[str, float]], both: list[dict[str, float]]) -> list[Goal]:
    """On one core in microseconds; on both against that."""
    micros = [measured["p50"] for measured in one]
    pairs = zip(both, one, strict=True)
    ratios = [two["p50"] / alone["p50"] for two, alone in pairs]
    return [
        tables.goal("p50 of a call of one row ≤ 5 µs", micros, tables.at_most(5)),
        tables.goal("p50 with both cores calling / on one core ≤ 1.5", ratios, tables.at_most(1.5)),
    ]
