"""`cargo xtask bench transform`: what a component costs in the build of a training set."""

import shutil
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from harness import order, repository, results
from harness.data import Data
from harness.engines import Place, Prepared, peer_command, training_set
from harness.goals import Goal
from harness.job import THREADS, Job
from harness.machine import machine, versions
from harness.measure import Run, run, two_cores
from harness.place import BENCH, parser, place, typed
from harness.rounds import TIMEOUT, read_once

INPUTS = [f"f{index}" for index in range(10)]
FURTHER = [f"f{index}" for index in range(10, 15)]
COMPONENT = "ten_to_five"
# The services, by what they write.
READS, WRITES, COLUMNS, TRANSFORMS = "reads", "writes_more", "reads_more", "transforms"
SERVICES = (READS, WRITES, COLUMNS, TRANSFORMS)
SCAN = "scan"
TITLES = {
    READS: "ten features",
    WRITES: "ten features and five more columns of the entity rows",
    COLUMNS: "ten features and five further ones",
    TRANSFORMS: "ten features and five outputs of a component",
    SCAN: "DuckDB reads the keys, times and ten features, and nothing else",
}
LIMIT = 1.08
SIZES = {"small": (1_000_000, 100_000, 10_000), "medium": (10_000_000, 1_000_000, 100_000)}


@dataclass
class Entry:
    """One of the programs that are timed turn by turn."""

    prepared: Prepared
    runs: list[Run]

    @property
    def seconds(self) -> list[float]:
        """The wall time of each round."""
        return [run.seconds for run in self.runs]


def main() -> None:
    """Measures one size."""
    arguments = parser("transform", __doc__).parse_args()
    two_cores()
    where = place(arguments)
    small = arguments.size == "small"
    rows, spine, entities = SIZES["small" if small else "medium"]
    title = order.TRANSFORM_SIZES[0 if small else 1]
    about = (
        f"{rows:,} history rows of {entities:,} entities, 15 features, ttl 7 days; {spine:,} "
        f"entity rows; a component with 10 inputs and 5 outputs, built by `unskew apply`."
    )
    print(f"\n── {title}: {about}", flush=True)
    data = Data(where.work / "data")
    job = data.job(rows, spine, entities, width=15)
    # Five columns more to write, and none more of the history to read.
    (history,) = job.histories
    wide = Job(data.spine(history, spine, width=len(FURTHER)), job.histories, job.ttl_days)
    folder = make(where, job)
    entries = measure(where, job, wide, folder, arguments.runs)
    native = run_native(folder, entries[READS].prepared.out, arguments.runs)
    for service in SERVICES:
        entries[service].prepared.out.unlink(missing_ok=True)
    tables = [table(entries, native), results.goal_table([goal(entries)])]
    company = results.company([run for entry in entries.values() for run in entry.runs])
    print("\n" + "\n".join([*tables, company]))
    notes = [machine(), versions(where.unskew), company]
    text = results.section(about, tables, typed("transform", arguments), notes)
    results.put(arguments.results, order.transform(title), text, order.ORDER)


def make(where: Place, job: Job) -> Path:
    """The feature repository, with the transformation compiled, and the native program."""
    folder = where.work / f"repo-transform-{job.histories[0].path.stem}"
    for part in ("transforms", "native"):
        shutil.copytree(BENCH / part, folder / part, dirs_exist_ok=True)
    for file in ("Cargo.toml", "Cargo.lock"):
        shutil.copy2(BENCH / file, folder / file)
    print("  compiling the transformation, as a component and natively", flush=True)
    repository.make(folder, job, where.unskew, definitions())
    build = ["cargo", "build", "--release", "--quiet", "--locked", "--package", "native"]
    subprocess.run([*build, "--target-dir", "target"], cwd=folder, check=True)
    return folder


def definitions() -> dict[str, list[dict]]:
    """The transformation and the services."""
    features = {
        READS: [f"view0:{name}" for name in INPUTS],
        WRITES: [f"view0:{name}" for name in INPUTS],
        COLUMNS: [f"view0:{name}" for name in INPUTS + FURTHER],
        TRANSFORMS: [*(f"view0:{name}" for name in INPUTS), COMPONENT],
    }
    return {
        "transformations": [
            {
                "name": COMPONENT,
                "kind": "on_demand",
                "component": f"transforms/{COMPONENT}",
                "inputs": {name: f"view0:{name}" for name in INPUTS},
            }
        ],
        "feature_services": [
            {"name": name, "features": features[name]} for name in SERVICES
        ],
    }


def measure(where: Place, job: Job, wide: Job, folder: Path, rounds: int) -> dict[str, Entry]:
    """Runs all, turn by turn; `wide` has the entity rows with columns more."""
    entries = {
        service: Entry(training_set(where, wide if service == WRITES else job, folder, service), [])
        for service in SERVICES
    }
    entries[SCAN] = Entry(scan(job, folder), [])
    for file in [*job.files(), wide.spine]:
        read_once(file)
    for number in range(1, rounds + 1):
        for name, entry in entries.items():
            entry.prepared.out.unlink(missing_ok=True)
            log = where.work / "last.log"
            done = run(entry.prepared.command, entry.prepared.cwd, log, TIMEOUT)
            if done.error is not None:
                raise SystemExit(f"error: {TITLES[name]}: {done.error}")
            entry.runs.append(done)
            words = f"{TITLES[name]:<66} {done.seconds:8.2f} s {done.peak_mib:8.0f} MiB"
            print(f"  round {number}/{rounds}  {words}", flush=True)
    return entries


def scan(job: Job, folder: Path) -> Prepared:
    """DuckDB, reading the ten inputs."""
    (history,) = job.histories
    inputs = type(history)(history.name, history.path, INPUTS)
    job = Job(job.spine, [inputs], job.ttl_days)
    folder = folder / "scan"
    return Prepared(peer_command("duckdb_scan", job, folder), folder, folder / "out.parquet")


def run_native(folder: Path, training: Path, rounds: int) -> float:
    """The median seconds of the native program over the ten inputs of a training set."""
    columns = folder / "columns.f64"
    script = [sys.executable, BENCH / "columns.py", training, columns, *INPUTS]
    subprocess.run(script, check=True)
    native = [folder / "target/release/native", columns, str(THREADS), str(rounds)]
    done = subprocess.run(native, check=True, capture_output=True, text=True)
    columns.unlink()
    return statistics.median(map(float, done.stdout.split()))


def table(entries: dict[str, Entry], native: float) -> str:
    """What each program takes, and as a share of the build that has the component."""
    whole = entries[TRANSFORMS].seconds
    rows = [
        [
            TITLES[name],
            f"{statistics.median(entry.seconds):.3f}",
            f"{min(entry.seconds):.3f}–{max(entry.seconds):.3f}",
            f"{max(run.peak_mib for run in entry.runs):,.0f}",
            share(entry.seconds, whole),
        ]
        for name, entry in entries.items()
    ]
    added = [all_ - less for all_, less in zip(whole, entries[READS].seconds, strict=True)]
    rows.append(extra("the component with its five columns (a difference)", added, whole))
    title = f"the same function, native, {THREADS} threads, within a process"
    rows.append(extra(title, [native] * len(whole), whole))
    rounds = len(whole)
    head = ["build", f"seconds (median of {rounds})", "min–max", "peak MiB", "share of the build"]
    return results.markdown(head, rows)


def extra(title: str, seconds: list[float], whole: list[float]) -> list[str]:
    """A row without a process of its own."""
    return [title, f"{statistics.median(seconds):.3f}", "", "", share(seconds, whole)]


def share(part: list[float], whole: list[float]) -> str:
    """Round by round, the median."""
    shares = [some / all_ for some, all_ in zip(part, whole, strict=True)]
    return f"{statistics.median(shares):.1%}"


def goal(entries: dict[str, Entry]) -> Goal:
    """The component against as many plain columns more to write, and none more to read."""
    pairs = zip(entries[TRANSFORMS].seconds, entries[WRITES].seconds, strict=True)
    ratios = [mine / plain for mine, plain in pairs]
    ratio = statistics.median(ratios)
    text = f"the component adds ≤ {LIMIT - 1:.0%} to the build that writes five columns more"
    measured = f"{ratio - 1:+.1%} (rounds: {min(ratios) - 1:+.1%} to {max(ratios) - 1:+.1%})"
    return Goal(text, measured, ratio <= LIMIT)


if __name__ == "__main__":
    main()
