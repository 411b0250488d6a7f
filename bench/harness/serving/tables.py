"""The tables and goals of the serving cases."""

import statistics
from collections.abc import Callable

from harness import results
from harness.goals import Goal
from harness.serving.load import BARE, FEAST, UNSKEW
from harness.serving.repository import ONE_VIEW, PLAIN, TWENTY_VIEWS, WITH_COMPONENT, WITH_PYTHON
from harness.serving.rounds import QUANTILES, Line, bare_of, line_of, ratios

HEAD = ["server, service", "connections", "requests/s", "/ bare"]
HEAD_OPEN = ["at requests/s", "p50 µs", "p90", "p99", "p99.9", "p50 / bare", "p99 / bare"]


def table(lines: list[Line]) -> str:
    """What was measured, the medians of all rounds."""
    return results.markdown([*HEAD, *HEAD_OPEN], [row(line, lines) for line in lines])


def row(line: Line, lines: list[Line]) -> list[str]:
    """One line's cells; one that failed says why."""
    if not line.done:
        failed = line.error or "not run"
        return [line.title, str(line.connections), failed, *[""] * (len(HEAD + HEAD_OPEN) - 3)]
    bare = bare_of(lines, line) if line.kind != BARE else None
    return [
        line.title,
        str(line.connections),
        f"{statistics.median(line.per_second()):,.0f}",
        shown(ratios(line, bare, Line.per_second)),
        f"{line.rate:,.0f}",
        *(f"{statistics.median(line.micros(quantile)):,.0f}" for quantile in QUANTILES),
        shown([] if line.kind == FEAST else ratios(line, bare, p50)),
        shown([] if line.kind == FEAST else ratios(line, bare, p99)),
    ]


def shown(rounds: list[float]) -> str:
    """The median of what there is, if anything."""
    return f"{statistics.median(rounds):.2f}" if rounds else ""


def p50(line: Line) -> list[float]:
    """The median latency, round by round."""
    return line.micros("p50")


def p99(line: Line) -> list[float]:
    """The latency that 1 % of requests exceed."""
    return line.micros("p99")


def goal(text: str, rounds: list[float], met: Callable[[float], bool], digits: int = 2) -> Goal:
    """A goal of the median of ratios."""
    if not rounds:
        return Goal(text, "not measured", None)
    ratio = statistics.median(rounds)
    span = f"{min(rounds):.{digits}f}–{max(rounds):.{digits}f}"
    return Goal(text, f"{ratio:.{digits}f} (rounds: {span})", met(ratio))


def at_least(limit: float) -> Callable[[float], bool]:
    """Not below."""
    return lambda ratio: ratio >= limit


def at_most(limit: float) -> Callable[[float], bool]:
    """Not above."""
    return lambda ratio: ratio <= limit


def one_entity(lines: list[Line]) -> list[Goal]:
    """Against the bare handler, and against Feast."""

    def pair(kind: str, service: str, connections: int, measured=Line.per_second) -> list[float]:
        mine = line_of(lines, UNSKEW, service, connections)
        return ratios(mine, line_of(lines, kind, service, connections), measured)

    goals = []
    for service, words, limit in (
        (PLAIN, "no component", 0.75),
        (WITH_COMPONENT, "with the component", 0.60),
    ):
        for connections in (8, 64):
            text = f"requests/s at {connections} connections, {words}, / bare handler ≥ {limit:.2f}"
            goals.append(goal(text, pair(BARE, service, connections), at_least(limit)))
    text = "requests/s at 8 connections, with the component, / Feast ≥ 40"
    goals.append(goal(text, pair(FEAST, WITH_COMPONENT, 8), at_least(40), 0))
    for quantile, limit in ((p50, 1.4), (p99, 1.5)):
        name = quantile.__name__
        text = f"{name} at 1 connection, with the component, / bare handler ≤ {limit}"
        goals.append(goal(text, pair(BARE, WITH_COMPONENT, 1, quantile), at_most(limit)))
    return goals


def hundred_entities(lines: list[Line]) -> list[Goal]:
    """Values per second: both servers answer as many values in a request."""
    goals = []
    for connections in (8, 64):
        mine = line_of(lines, UNSKEW, WITH_COMPONENT, connections)
        bare = line_of(lines, BARE, WITH_COMPONENT, connections)
        text = f"values/s at {connections} connections, with the component, / bare handler ≥ 0.50"
        goals.append(goal(text, ratios(mine, bare, Line.per_second), at_least(0.5)))
    return goals


def python(lines: list[Line]) -> list[Goal]:
    """A component in Python against Feast's function in Python."""
    mine = line_of(lines, UNSKEW, WITH_PYTHON, 8)
    theirs = line_of(lines, FEAST, WITH_COMPONENT, 8)
    text = "requests/s at 8 connections, component in Python, / Feast ≥ 3"
    return [goal(text, ratios(mine, theirs, Line.per_second), at_least(3), 1)]


def views(lines: list[Line]) -> list[Goal]:
    """Many views of one entity against one."""
    goals = []
    for connections in (1, 8):
        many = line_of(lines, UNSKEW, TWENTY_VIEWS, connections)
        one = line_of(lines, UNSKEW, ONE_VIEW, connections)
        text = f"p50 at {connections} connections, 20 views / 1 view ≤ 2"
        goals.append(goal(text, ratios(many, one, p50), at_most(2)))
        text = f"time of a request at {connections} connections (1 / requests/s), 20 views / 1 ≤ 2"
        goals.append(goal(text, ratios(one, many, Line.per_second), at_most(2)))
    return goals
