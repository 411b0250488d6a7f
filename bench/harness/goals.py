"""What the engine is to reach, beside what it does."""

import statistics
from dataclasses import dataclass

from harness.engines import TITLES, UNSKEW
from harness.rounds import Line, ratios

# Times of one run scatter by about that much.
NOISE = 1.1


@dataclass(frozen=True)
class Goal:
    """A goal, the figure beside it, and whether it is met; `None` where nothing can be said."""

    text: str
    measured: str
    met: bool | None


def line_of(lines: list[Line], engine: str, variant: str = "") -> Line | None:
    """The finished line of an engine."""
    found = (line for line in lines if (line.engine, line.variant) == (engine, variant))
    return next((line for line in found if line.done), None)


def faster(lines: list[Line], limit: float, *peers: str) -> Goal:
    """Wall time against the better of the peers, pairwise in each round."""
    names = " and ".join(TITLES[peer] for peer in peers)
    better = f"the better of {names}" if len(peers) > 1 else names
    text = f"time ≤ {limit:.2f} of {better}"
    mine = line_of(lines, UNSKEW)
    theirs = [line for peer in peers if (line := line_of(lines, peer))]
    if mine is None or not theirs:
        return Goal(text, "not measured", None)
    rounds = ratios(mine, *theirs)
    ratio = statistics.median(rounds)
    measured = f"{ratio:.2f} (rounds: {min(rounds):.2f}–{max(rounds):.2f})"
    if not all(line.equal for line in theirs):
        return Goal(text, f"{measured}, but the results differ", False)
    return Goal(text, measured, ratio <= limit)


def leaner(lines: list[Line], limit: float, variant: str = "") -> Goal:
    """Peak memory, the greatest of all rounds."""
    text = f"peak memory ≤ {limit:,.0f} MiB"
    mine = line_of(lines, UNSKEW, variant)
    if mine is None:
        return Goal(text, "not measured", None)
    return Goal(text, f"{mine.peak_mib:,.0f} MiB", mine.peak_mib <= limit)


def usual(limit: float, mib: float):
    """The goals of most cases: time against the better of DuckDB and Polars, and memory."""
    return lambda lines: [faster(lines, limit, "duckdb", "polars"), leaner(lines, mib)]


def same_result(lines: list[Line], variant: str) -> Goal:
    """A line's rows are those of its reference."""
    text = "finishes; same result, order of rows included"
    line = next((line for line in lines if (line.engine, line.variant) == (UNSKEW, variant)), None)
    if line is None or not line.done:
        return Goal(text, (line and line.error) or "not measured", False if line else None)
    if line.equal is None:
        return Goal(text, "finished; there was nothing to compare with", None)
    return Goal(text, f"finished; rows that differ: {line.differs}", line.equal)


def cost_per_view(lines: list[Line], counts: list[int]) -> list[Goal]:
    """What each further view adds, from few to some and from some to many."""
    text = "a further view costs no more among many than among few (within 10 %)"
    found = [line_of(lines, UNSKEW, views(count)) for count in counts]
    if any(line is None for line in found):
        return [Goal(text, "not measured", None)]
    few, some, many = (line.median for line in found)
    early = (some - few) / (counts[1] - counts[0])
    late = (many - some) / (counts[2] - counts[1])
    measured = (
        f"{early * 1000:.0f} ms each up to {counts[1]} views, {late * 1000:.0f} ms each beyond; "
        f"{many / counts[2] * 1000:.0f} ms for each of {counts[2]}, {few * 1000:.0f} ms for one"
    )
    return [Goal(text, measured, late <= early * NOISE)]


def views(count: int) -> str:
    """The variant of so many views."""
    return f"{count} view{'s' if count > 1 else ''}"


def growth(lines: list[Line], sizes: list[int]) -> list[Goal]:
    """How time and memory grow from the smallest to the greatest history."""
    first, last = (line_of(lines, UNSKEW, millions(size)) for size in (sizes[0], sizes[-1]))
    before = line_of(lines, UNSKEW, millions(sizes[-2]))
    time, memory = "linear in time (within 10 %)", "flat in memory (within 10 %)"
    if first is None or last is None or before is None:
        return [Goal(text, "not measured", None) for text in (time, memory)]
    slope = (before.median - first.median) / (sizes[-2] - sizes[0])
    last_slope = (last.median - before.median) / (sizes[-1] - sizes[-2])
    per_million = f"{slope * 1e9:.0f} ms, then {last_slope * 1e9:.0f} ms for each further million"
    peaks = f"{first.peak_mib:,.0f} MiB, then {last.peak_mib:,.0f} MiB"
    return [
        Goal(time, per_million, last_slope <= slope * NOISE),
        Goal(memory, peaks, last.peak_mib <= first.peak_mib * NOISE),
    ]


def millions(rows: int) -> str:
    """A number of history rows, as the tables call it."""
    return f"{rows // 1_000_000}M history rows"
