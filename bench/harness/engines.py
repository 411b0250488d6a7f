"""The engines: how each is made ready for a job, and the command that is timed."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from harness import repository
from harness.job import Job

PEERS = Path(__file__).parent.parent / "peers"
UNSKEW = "unskew"


@dataclass(frozen=True)
class Place:
    """Where things are: the binary that is measured, and the folder for all that is made."""

    unskew: Path
    work: Path


@dataclass(frozen=True)
class Prepared:
    """An engine made ready: the command that is timed, its folder, and where its result goes."""

    command: list[str]
    cwd: Path
    out: Path


Prepare = Callable[[Place, Job, Path, tuple[str, ...]], Prepared]


def unskew(place: Place, job: Job, folder: Path, options: tuple[str, ...]) -> Prepared:
    """`unskew training-set`, in a feature repository of the job's own."""
    repository.make(folder, job, place.unskew)
    return training_set(place, job, folder, repository.SERVICE, options)


def training_set(
    place: Place, job: Job, folder: Path, service: str, options: tuple[str, ...] = ()
) -> Prepared:
    """`unskew training-set` of a service of an applied feature repository."""
    out = folder / f"{service}.parquet"
    known = known_options(place.unskew)
    absent = [word for word in options if word.startswith("--") and word not in known]
    if absent:
        raise Unsupported(f"this build of unskew has no {', '.join(absent)}")
    words = ["training-set", "--service", service, "--entities", str(job.spine), "--out", str(out)]
    return Prepared([str(place.unskew), *words, *options], folder, out)


class Unsupported(Exception):
    """The engine cannot do what the case asks; the message says what."""


@cache
def known_options(binary: Path) -> str:
    """The help of `training-set`, which names the options that this build has."""
    command = [binary, "training-set", "--help"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def peer(script: str, *arguments: str) -> Prepare:
    """A script of `peers/`, which is given the job, the result's place and these arguments."""

    def prepare(_: Place, job: Job, folder: Path, options: tuple[str, ...]) -> Prepared:
        command = peer_command(script, job, folder)
        return Prepared([*command, *arguments, *options], folder, folder / "out.parquet")

    return prepare


def peer_command(script: str, job: Job, folder: Path) -> list[str]:
    """A script of `peers/`, its job and where its result goes."""
    folder.mkdir(parents=True, exist_ok=True)
    job.write(folder / "job.json")
    words = [PEERS / f"{script}.py", folder / "job.json", folder / "out.parquet"]
    return [sys.executable, *map(str, words)]


def feast(offline_store: str) -> Prepare:
    """Feast with one of its offline stores; its repository is applied here, untimed."""

    def prepare(_: Place, job: Job, folder: Path, options: tuple[str, ...]) -> Prepared:
        command = [*peer_command("feast_asof", job, folder), str(folder / "repo"), offline_store]
        applied = subprocess.run([*command, "--apply"], cwd=folder, capture_output=True, text=True)
        if applied.returncode != 0:
            raise Unsupported(f"it cannot apply: {applied.stderr.strip().splitlines()[-1]}")
        return Prepared([*command, *options], folder, folder / "out.parquet")

    return prepare


ENGINES: dict[str, Prepare] = {
    UNSKEW: unskew,
    "duckdb": peer("duckdb_asof"),
    "polars": peer("polars_asof"),
    "pandas": peer("pandas_asof"),
    "feast-dask": feast("dask"),
    "feast-duckdb": feast("duckdb"),
    "duckdb-filter": peer("duckdb_asof", "--filter"),
}
TITLES = {
    "duckdb": "DuckDB ASOF",
    "polars": "Polars join_asof",
    "pandas": "pandas merge_asof",
    "feast-dask": "Feast, file (dask)",
    "feast-duckdb": "Feast, duckdb",
    "duckdb-filter": "DuckDB ASOF, with a hand-written filter",
}
