"""Runs the lines of a case turn by turn, and compares what came out."""

import json
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from harness.engines import ENGINES, TITLES, UNSKEW, Place, Prepared, Unsupported
from harness.job import Job
from harness.measure import Run, run

COMPARE = Path(__file__).parent.parent / "compare.py"
TIMEOUT = 1_800.0


@dataclass
class Line:
    """One line of a case's table: an engine on a job, and what was measured.

    Lines of one `variant` do the same and are compared with each other.
    """

    engine: str
    job: Job
    variant: str = ""
    options: tuple[str, ...] = ()
    # Compares row by row in the order of the files, which takes less memory than sorting.
    ordered: bool = False
    runs: list[Run] = field(default_factory=list)
    error: str | None = None
    differs: str = ""
    # Whether all rows are those of the reference, but for ties; `None` if nothing was compared.
    equal: bool | None = None
    prepared: Prepared | None = None

    @property
    def title(self) -> str:
        """What the table calls it."""
        engine = TITLES.get(self.engine, self.engine)
        words = [engine, *self.options]
        return " ".join(words) + (f", {self.variant}" if self.variant else "")

    @property
    def seconds(self) -> list[float]:
        """The wall time of each round."""
        return [run.seconds for run in self.runs]

    @property
    def median(self) -> float:
        """The median wall time."""
        return statistics.median(self.seconds)

    @property
    def peak_mib(self) -> float:
        """The greatest peak memory of any round."""
        return max(run.peak_mib for run in self.runs)

    @property
    def work(self) -> float | None:
        """The median time without start-up, where the engine says it."""
        said = [run.work for run in self.runs if run.work is not None]
        return statistics.median(said) if said else None

    @property
    def done(self) -> bool:
        """Whether every round succeeded."""
        return self.error is None and bool(self.runs)


def measure(name: str, lines: list[Line], rounds: int, place: Place) -> None:
    """Runs every line once, then again, as many rounds as asked for; then compares the results."""
    for line in lines:
        prepare(name, line, place)
    for file in {file for line in lines for file in line.job.files()}:
        read_once(file)
    for number in range(1, rounds + 1):
        for line in lines:
            if line.error is None:
                one_run(line, number, rounds, place)
    compare(lines, place)
    for line in lines:
        if line.prepared is not None:
            line.prepared.out.unlink(missing_ok=True)


def prepare(name: str, line: Line, place: Place) -> None:
    """Makes a line's engine ready; an engine that cannot do it is left out with its reason."""
    words = [name, line.engine, line.variant, *line.options]
    slug = "-".join(word for word in words if word)
    slug = "".join(c if c.isalnum() or c == "-" else "_" for c in slug)
    try:
        folder = place.work / f"repo-{slug}"
        line.prepared = ENGINES[line.engine](place, line.job, folder, line.options)
    except Unsupported as reason:
        line.error = shown(str(reason), place)
        print(f"  {line.title:<44} {line.error}", flush=True)


def read_once(file: Path) -> None:
    """Reads a file, so that no engine is the one to bring it into memory."""
    with file.open("rb", buffering=0) as opened:
        while opened.read(1 << 20):
            pass


def one_run(line: Line, number: int, rounds: int, place: Place) -> None:
    """Runs a line once and says so."""
    prepared = line.prepared
    prepared.out.unlink(missing_ok=True)
    done = run(prepared.command, prepared.cwd, place.work / "last.log", TIMEOUT)
    head = f"  round {number}/{rounds}  {line.title:<44}"
    error = done.error if prepared.out.exists() else done.error or "it wrote no result"
    if error is not None:
        line.error = f"failed in round {number}: {shown(error, place)}"
        print(f"{head} {line.error}", flush=True)
        return
    line.runs.append(done)
    print(f"{head} {done.seconds:8.2f} s {done.peak_mib:8.0f} MiB", flush=True)


def reference(lines: list[Line], variant: str) -> Line | None:
    """The line with which a variant's others are compared: unskew's, or else the first."""
    done = [line for line in lines if line.variant == variant and line.done]
    return next((line for line in done if line.engine == UNSKEW), done[0] if done else None)


def shown(reason: str, place: Place) -> str:
    """A reason without what only says where things are on this machine."""
    return reason.replace(f"{place.work}/", "")


def compare(lines: list[Line], place: Place) -> None:
    """Compares the last result of each line with that of its variant's reference.

    What cannot be compared has not done the work, however soon it ended.
    """
    for line in lines:
        expected = reference(lines, line.variant)
        if not line.done or expected is None or expected is line:
            continue
        print(f"  comparing {line.title}", flush=True)
        try:
            line.differs, line.equal = difference(expected, line)
        except Incomparable as reason:
            line.error = f"no usable result: {shown(str(reason), place)}"
            print(f"  {line.title:<44} {line.error}", flush=True)


class Incomparable(Exception):
    """A result is not there, or is none; the message says why."""


def difference(expected: Line, line: Line) -> tuple[str, bool]:
    """What differs, in words, and whether that is nothing but ties."""
    command = [sys.executable, str(COMPARE), str(expected.prepared.out), str(line.prepared.out)]
    for history in line.job.histories:
        command += ["--history", str(history.path)]
    if line.ordered:
        command.append("--ordered")
    compared = subprocess.run(command, capture_output=True, text=True)
    if compared.returncode != 0:
        raise Incomparable(compared.stderr.strip().splitlines()[-1])
    found = json.loads(compared.stdout)
    words = f"{found['differing']:,}"
    if found["tied"]:
        words += f", of which {found['tied']:,} tied"
    for what in ("missing", "extra"):
        if found[what]:
            words += f"; {found[what]:,} rows {what}"
    equal = found["differing"] == found["tied"] and not (found["missing"] or found["extra"])
    return words, equal


def ratios(line: Line, *others: Line) -> list[float]:
    """A line's time against the best of others, round by round."""
    rounds = zip(line.seconds, *(other.seconds for other in others), strict=False)
    return [mine / min(theirs) for mine, *theirs in rounds]
