"""What an engine is to do, read from the file that the harness wrote."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

# As many as the cores on which the harness keeps every engine.
THREADS = 2


@dataclass(frozen=True)
class History:
    """A feature view: its Parquet file and its features."""

    name: str
    path: str
    features: list[str]


@dataclass(frozen=True)
class Job:
    """A point-in-time join: entity rows, histories, how old a row may be, where the result goes."""

    spine: str
    histories: list[History]
    ttl: timedelta
    out: str


def read() -> Job:
    """The job that the first argument names; the second says where the result goes."""
    with open(sys.argv[1], encoding="utf-8") as file:
        job = json.load(file)
    return Job(
        spine=job["spine"],
        histories=[History(**history) for history in job["histories"]],
        ttl=timedelta(seconds=job["ttl_seconds"]),
        out=sys.argv[2],
    )


@contextmanager
def timed() -> Iterator[None]:
    """Prints how long the work took, without starting Python and importing libraries."""
    started = time.perf_counter()
    yield
    print(f"seconds of work: {time.perf_counter() - started:.6f}")
