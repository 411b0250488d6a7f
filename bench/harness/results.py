"""`RESULTS.md`: a section for each case, of which only those that were run are written anew."""

import re
import statistics
from datetime import UTC, datetime
from pathlib import Path

from harness.engines import UNSKEW
from harness.goals import Goal
from harness.measure import Run
from harness.rounds import Line, ratios, reference

HEAD = """\
# Measured

Written by `cargo xtask bench`; each section says by which command, when, and on what. Every
engine is a process of its own, Parquet in, Parquet out (zstd), two threads on the same two cores,
files in the page cache. One round runs every engine once; seconds are wall time of the whole
process, the median of all rounds; memory is the greatest peak of resident memory, mapped files
included; the ratio is that of unskew to the engine in the same round, the median of all rounds.
Rows that differ are counted against unskew's, by value, in all features; where rows tie in key
and event, unskew takes the one that was created last, and the others any. Feature definitions are
applied before, untimed. Without start-up is what a Python script says of itself after its imports;
ratios and goals are of whole processes. A time beside which other processes used much of the cores
is too long. What is said here of engines is of the sections before those on serving, which say
themselves what was measured.
"""
SECTION = re.compile(r"<!-- begin: (.+?) -->\n(.*?)<!-- end: \1 -->\n", re.DOTALL)
# Cores that other processes may use before times are no longer to be relied upon.
BUSY = 0.1
COLUMNS = ["min–max", "without start-up", "peak MiB", "unskew / engine", "rows that differ"]


def table(lines: list[Line]) -> str:
    """The lines of a case, as Markdown."""
    rounds = max((len(line.runs) for line in lines), default=0)
    head = ["engine", f"seconds (median of {rounds})", *COLUMNS]
    return markdown(head, [row(line, lines) for line in lines])


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """A table whose columns are aligned in the text too."""
    rows = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]

    def text(cells: list[str]) -> str:
        padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        return f"| {' | '.join(padded)} |"

    rule = ["-" * width for width in widths]
    return "\n".join(map(text, [head, rule, *rows])) + "\n"


def row(line: Line, lines: list[Line]) -> list[str]:
    """One line's cells; a line that failed says why."""
    if not line.done:
        return [line.title, line.error or "not run", "", "", "", "", ""]
    seconds = line.seconds
    base = reference(lines, line.variant)
    compared = base is not None and base is not line and base.engine == UNSKEW
    ratio = f"{statistics.median(ratios(base, line)):.2f}" if compared else ""
    return [
        line.title,
        f"{line.median:.2f}",
        f"{min(seconds):.2f}–{max(seconds):.2f}",
        "" if line.work is None else f"{line.work:.2f}",
        f"{line.peak_mib:,.0f}",
        ratio,
        line.differs,
    ]


def goal_table(goals: list[Goal]) -> str:
    """The goals, what was measured, and whether they are met."""
    said = {True: "yes", False: "no", None: "?"}
    rows = [[goal.text, goal.measured, said[goal.met]] for goal in goals]
    return markdown(["goal", "measured", "met"], rows) if rows else ""


def company(runs: list[Run]) -> str:
    """How busy the machine was with other work while runs were timed."""
    return cores([run.others for run in runs])


def cores(others: list[float]) -> str:
    """The same, of the cores that other processes used in each run."""
    if not others:
        return "nothing was timed"
    typical = statistics.median(others)
    warning = "**the machine was too busy for these times to be relied upon**: "
    return (
        f"{warning if typical > BUSY else ''}other processes used {typical:.2f} cores while runs "
        f"were timed (median; at most {max(others):.2f})"
    )


def section(about: str, tables: list[str], command: str, notes: list[str]) -> str:
    """A section's text: what it is, its tables, and how it came about."""
    date = datetime.now(UTC).date().isoformat()
    how = [f"{date}, `{command}`", *notes]
    return "\n".join([about, "", *filter(None, tables), *(f"- {note}" for note in how), ""])


def put(path: Path, title: str, text: str, order: list[str]) -> None:
    """Puts a section into the file; the others stay as they are."""
    there = path.read_text() if path.exists() else ""
    sections = dict(SECTION.findall(there))
    sections[title] = f"## {title}\n\n{text}"
    titles = sorted(sections, key=lambda known: order.index(known) if known in order else 99)
    parts = [f"<!-- begin: {name} -->\n{sections[name]}<!-- end: {name} -->\n" for name in titles]
    part = path.with_name(path.name + ".part")
    part.write_text("\n".join([HEAD, *parts]))
    part.replace(path)
