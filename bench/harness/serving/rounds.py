"""Runs the servers of a case turn by turn: A, B, A, B, so that a drift hits all alike."""

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from harness.serving.load import BARE, FEAST, TITLES, Drive, Failed, Request, Target, drive, wrong
from harness.serving.processes import Others

# Of what the slower of the compared servers does at most: an open loop beyond what a server can do
# measures nothing but the length of the run.
SHARE = 0.5
QUANTILES = ["p50", "p90", "p99", "p999"]


@dataclass
class Line:
    """A server under one load, and what was measured of it, round by round."""

    kind: str
    request: Request
    connections: int
    rate: float | None = None
    closed: list[dict] = field(default_factory=list)
    open: list[dict] = field(default_factory=list)
    error: str | None = None

    @property
    def title(self) -> str:
        """What the tables call it."""
        return f"{TITLES[self.kind]}, {self.request.service}"

    @property
    def done(self) -> bool:
        """Whether every run succeeded."""
        return self.error is None and bool(self.closed) and bool(self.open)

    def per_second(self) -> list[float]:
        """The requests per second of the closed loop."""
        return [outcome["per_second"] for outcome in self.closed]

    def micros(self, quantile: str) -> list[float]:
        """A quantile of the latency in the open loop."""
        return [outcome["latency"][quantile] for outcome in self.open]


@dataclass(frozen=True)
class Bench:
    """What every run needs."""

    load: Path
    targets: dict[str, Target]
    others: Others
    rounds: int
    seconds: float


def measure(bench: Bench, lines: list[Line]) -> None:
    """First what each server does at most; then how long it takes at a rate that all can bear."""
    for line in lines:
        attempt(bench, line, line.closed, "warm-up", None)
        line.closed.clear()
    for number in range(1, bench.rounds + 1):
        for line in lines:
            attempt(bench, line, line.closed, f"round {number}/{bench.rounds} closed", None)
    set_rates(lines)
    for number in range(1, bench.rounds + 1):
        for line in lines:
            attempt(bench, line, line.open, f"round {number}/{bench.rounds} open", line.rate)


def set_rates(lines: list[Line]) -> None:
    """One rate for all lines that are compared; Feast, which could not bear it, has its own."""
    for line in lines:
        alike = (
            [line] if line.kind == FEAST else [other for other in lines if same_load(line, other)]
        )
        most = [statistics.median(other.per_second()) for other in alike if other.closed]
        if most:
            line.rate = two_digits(SHARE * min(most))


def same_load(line: Line, other: Line) -> bool:
    """Whether two lines are to be compared by their latency."""
    if FEAST in (line.kind, other.kind) or line.connections != other.connections:
        return False
    return line.request.rows == other.request.rows


def attempt(bench: Bench, line: Line, into: list[dict], what: str, rate: float | None) -> None:
    """Runs a line once and says so; one that has failed is left out."""
    if line.error is not None:
        return
    run = Drive(
        bench.targets[line.kind],
        line.request,
        line.connections,
        seconds=bench.seconds,
        rate=rate,
        warm_up=bench.seconds / 4,
    )
    head = f"  {what:<20} {line.title:<30} ×{line.connections:<3}"
    try:
        with bench.others.watched():
            outcome = drive(bench.load, run)
        line.error = wrong(outcome)
    except Failed as reason:
        line.error = str(reason)
    if line.error is not None:
        print(f"{head} {line.error}", flush=True)
        return
    into.append(outcome)
    latency = outcome["latency"]
    words = f"{outcome['per_second']:>9,.0f}/s  p50 {latency['p50']:,.0f} p99 {latency['p99']:,.0f}"
    print(f"{head} {words} µs", flush=True)


def two_digits(value: float) -> float:
    """A value rounded down to two digits, for people."""
    unit = 10.0 ** (math.floor(math.log10(max(value, 1.0))) - 1)
    return max(math.floor(value / unit) * unit, 1.0)


def line_of(lines: list[Line], kind: str, service: str, connections: int) -> Line | None:
    """The finished line of a server."""
    found = (
        line
        for line in lines
        if (line.kind, line.request.service, line.connections) == (kind, service, connections)
    )
    return next((line for line in found if line.done), None)


def bare_of(lines: list[Line], line: Line) -> Line | None:
    """The bare handler under the same load."""
    return line_of(lines, BARE, line.request.service, line.connections)


def ratios(
    mine: Line | None, other: Line | None, measured: Callable[[Line], list[float]]
) -> list[float]:
    """One line's figure by another's, round by round."""
    if mine is None or other is None:
        return []
    pairs = zip(measured(mine), measured(other), strict=False)
    return [one / two for one, two in pairs if two]
