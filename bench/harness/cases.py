"""The cases of `bench pit`: which tables, which engines, which goals."""

from collections.abc import Callable
from dataclasses import dataclass

from harness import goals
from harness.data import Data
from harness.engines import UNSKEW
from harness.goals import Goal
from harness.job import Job
from harness.rounds import Line

SIZES = ["small", "medium", "large"]
MILLION = 1_000_000
LIMIT = "2GiB"
LIMITED = f"--memory-limit {LIMIT}"
VIEW_COUNTS = [1, 5, 20]


@dataclass(frozen=True)
class Case:
    """A table of the results.

    `lines` is given the workloads and the size that was asked for; `rounds` stands above what was
    asked for, where a case takes too long to be repeated.
    """

    name: str
    size: str
    about: str
    lines: Callable[[Data, str], list[Line]]
    goals: Callable[[list[Line]], list[Goal]]
    rounds: int | None = None


def engines(job: Job, *names: str) -> list[Line]:
    """A line for each engine, all on one job."""
    return [Line(name, job) for name in names]


def million(data: Data, _: str) -> list[Line]:
    """The one case that Feast can finish."""
    job = data.job(MILLION, 100_000, 10_000)
    peers = ["duckdb", "polars", "pandas", "feast-duckdb", "feast-dask"]
    return engines(job, UNSKEW, *peers)


def ten_million(data: Data, _: str) -> list[Line]:
    """The usual size."""
    return engines(big(data, 10 * MILLION), UNSKEW, "duckdb", "polars", "pandas")


def fifty_million(data: Data, _: str) -> list[Line]:
    """A history that is larger than what peers like to hold."""
    return engines(big(data, 50 * MILLION), UNSKEW, "duckdb", "polars")


def big(data: Data, rows: int) -> Job:
    """A million entity rows, 100,000 entities."""
    return data.job(rows, MILLION, 100_000)


def recent_job(data: Data) -> Job:
    """Entity rows of the last 3 of 90 days."""
    history = data.history(50 * MILLION, 100_000)
    return Job(data.spine(history, MILLION, last_days=3), [history], ttl_days=1)


def recent(data: Data, _: str) -> list[Line]:
    """What most of the history cannot matter to."""
    return engines(recent_job(data), UNSKEW, "duckdb", "polars", "duckdb-filter")


def page_index(data: Data, _: str) -> list[Line]:
    """The recent case on the same history, written in three ways."""
    job = recent_job(data)
    (history,) = job.histories
    variants = {
        "no page index": history,
        "page index, row groups of 1,000,000": data.indexed(history, small=False),
        "page index, row groups of 100,000, pages of 64 KiB": data.indexed(history, small=True),
    }
    return [
        Line(engine, Job(job.spine, [history], job.ttl_days), variant)
        for variant, history in variants.items()
        for engine in (UNSKEW, "duckdb-filter")
    ]


def spill(data: Data, _: str) -> list[Line]:
    """More entity rows than the limit lets into memory; without a limit, to compare."""
    job = data.job(50 * MILLION, 20 * MILLION, 100_000)
    return [
        Line(UNSKEW, job, ordered=True),
        Line(UNSKEW, job, options=tuple(LIMITED.split()), ordered=True),
    ]


def spill_goals(lines: list[Line]) -> list[Goal]:
    """Those of the line with the limit."""
    limited = [line for line in lines if line.options]
    return [goals.same_result(limited, ""), goals.leaner(limited, 2_560)]


def wide(data: Data, _: str) -> list[Line]:
    """A thousand features in one view."""
    return engines(data.job(17_000, 17_000, 1_000, 1_000), UNSKEW, "duckdb", "polars", "pandas")


def wide_goals(lines: list[Line]) -> list[Goal]:
    """Against DuckDB alone."""
    return [goals.faster(lines, 0.5, "duckdb"), goals.leaner(lines, 600)]


def many_views(data: Data, _: str) -> list[Line]:
    """Views over sources of their own, one after the other in one service."""
    spine = data.job(MILLION, 100_000, 10_000).spine
    histories = [
        data.history(MILLION, 10_000, view=view, prefix=f"v{view}_f")
        for view in range(max(VIEW_COUNTS))
    ]
    return [
        Line(engine, Job(spine, histories[:count], ttl_days=7), goals.views(count))
        for count in VIEW_COUNTS
        for engine in (UNSKEW, "duckdb")
    ]


def growth_sizes(size: str) -> list[int]:
    """How long the histories are."""
    sizes = [MILLION, 5 * MILLION, 10 * MILLION]
    return [*sizes, 50 * MILLION] if size == "large" else sizes


def growing(data: Data, size: str) -> list[Line]:
    """The same number of entity rows on ever longer histories."""
    return [
        Line(engine, data.job(rows, 100_000, 100_000), goals.millions(rows))
        for rows in growth_sizes(size)
        for engine in (UNSKEW, "duckdb", "polars")
    ]


def growth_goals(lines: list[Line]) -> list[Goal]:
    """Over the sizes that were measured."""
    longest = max(int(line.variant.partition("M")[0]) for line in lines) * MILLION
    return goals.growth(lines, growth_sizes("large" if longest == 50 * MILLION else "medium"))


CASES = [
    Case(
        "1M x 100k",
        "small",
        "1,000,000 history rows of 10,000 entities, 5 features, ttl 7 days; 100,000 entity rows.",
        million,
        goals.usual(0.5, 100),
    ),
    Case(
        "10M x 1M",
        "medium",
        "10,000,000 history rows of 100,000 entities, 5 features, ttl 7 days; 1,000,000 entity "
        "rows.",
        ten_million,
        goals.usual(0.4, 350),
    ),
    Case(
        "50M x 1M",
        "large",
        "50,000,000 history rows of 100,000 entities, 5 features, ttl 7 days; 1,000,000 entity "
        "rows.",
        fifty_million,
        goals.usual(0.33, 400),
    ),
    Case(
        "recent",
        "large",
        "The history of 50M x 1M, in order of time; 1,000,000 entity rows of the last 3 of its 90 "
        "days, ttl 1 day.",
        recent,
        goals.usual(0.1, 300),
    ),
    Case(
        "page index",
        "large",
        "The case `recent` on files with and without a page index, in row groups and pages of two "
        "sizes.",
        page_index,
        lambda lines: [],
    ),
    Case(
        "spill",
        "large",
        f"The history of 50M x 1M; 20,000,000 entity rows; without a limit and with {LIMITED}.",
        spill,
        spill_goals,
        rounds=1,
    ),
    Case(
        "wide",
        "medium",
        "17,000 history rows of 1,000 entities, 1,000 features in one view, ttl 7 days; 17,000 "
        "entity rows.",
        wide,
        wide_goals,
    ),
    Case(
        "views",
        "small",
        "1, 5 and 20 views of 5 features, each over 1,000,000 history rows of its own; 100,000 "
        "entity rows.",
        many_views,
        lambda lines: goals.cost_per_view(lines, VIEW_COUNTS),
    ),
    Case(
        "growth",
        "medium",
        "100,000 entity rows on ever longer histories of 100,000 entities; drawn in "
        "[growth.svg](growth.svg).",
        growing,
        growth_goals,
    ),
]
