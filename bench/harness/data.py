"""The workloads, made once and kept: a file that is there is whole and is what its name says."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from harness.job import History, Job

SCRIPT = Path(__file__).parent.parent / "workload.py"
# To be raised when `workload.py` comes to draw other tables.
VERSION = "v1"
SEED = 42
SMALL_ROW_GROUP = 100_000
SMALL_PAGE = 64 * 1024


@dataclass(frozen=True)
class Data:
    """The folder of the workloads."""

    folder: Path

    def history(
        self, rows: int, entities: int, width: int = 5, view: int = 0, prefix: str = "f"
    ) -> History:
        """A history with `width` features; each `view` is drawn by another seed."""
        seed = SEED + view
        path = self._path(f"history-{rows}-{entities}-{width}-{seed}-{prefix}")
        sizes = ["--rows", str(rows), "--entities", str(entities), "--width", str(width)]
        self._make(path, ["history", *sizes, "--seed", str(seed), "--prefix", prefix])
        return History(f"view{view}", path, [f"{prefix}{i}" for i in range(width)])

    def spine(self, history: History, rows: int, last_days: int = 90, width: int = 0) -> Path:
        """Entity rows of the last days of a history, with so many floats of their own."""
        wide = f"-and-{width}" if width else ""
        path = self._path(f"spine-{rows}-{last_days}{wide}-of-{history.path.stem}")
        of = ["--history", str(history.path), "--rows", str(rows)]
        more = ["--last-days", str(last_days), "--width", str(width)]
        self._make(path, ["spine", *of, *more])
        return path

    def indexed(self, history: History, small: bool) -> History:
        """A history written again with a page index, in row groups as they are or in small ones."""
        path = self._path(f"{history.path.stem}-indexed{'-small' if small else ''}")
        sizes = ["--row-group", str(SMALL_ROW_GROUP), "--page-bytes", str(SMALL_PAGE)]
        of = ["--history", str(history.path)]
        self._make(path, ["rewrite", *of, *(sizes if small else [])])
        return History(history.name, path, history.features)

    def job(self, rows: int, spine: int, entities: int, width: int = 5, ttl_days: int = 7) -> Job:
        """The usual case: one history, entity rows over all of its time."""
        history = self.history(rows, entities, width)
        return Job(self.spine(history, spine), [history], ttl_days)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}-{VERSION}.parquet"

    def _make(self, path: Path, arguments: list[str]) -> None:
        if path.exists():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        print(f"  making {path.name}", flush=True)
        kind, *more = arguments
        subprocess.run([sys.executable, str(SCRIPT), kind, str(path), *more], check=True)
