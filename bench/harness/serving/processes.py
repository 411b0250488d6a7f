"""Processes that are started, watched and ended, each by its own pid."""

import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from harness.measure import TICKS, busy_seconds

READY = 60.0
GRACE = 10.0
PAUSE = 0.02
MIB = 2**20
T = TypeVar("T")


class Running:
    """A process in a session of its own, with what it starts itself."""

    def __init__(
        self, name: str, command: list, cwd: Path, logs: Path, env: dict | None = None
    ) -> None:
        """Starts it; what it prints goes to files that bear its name."""
        self.name = name
        self.out = logs / f"{name}.out"
        self.log = logs / f"{name}.log"
        with self.out.open("wb") as out, self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [str(word) for word in command],
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=log,
                env=os.environ | (env or {}),
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The pid of the process itself."""
        return self.process.pid

    def until(self, ready: Callable[[], T | None]) -> T:
        """Waits until it is ready; `ready` says by what is not `None`."""
        end = time.monotonic() + READY
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise SystemExit(f"error: {self.name} ended: {self.last_words()}")
            found = ready()
            if found is not None:
                return found
            time.sleep(PAUSE)
        raise SystemExit(f"error: {self.name} is not ready after {READY:.0f} s")

    def last_words(self) -> str:
        """The last line that it printed."""
        for file in (self.log, self.out):
            lines = [line for line in file.read_text(errors="replace").splitlines() if line.strip()]
            if lines:
                return lines[-1].strip()[:300]
        return "without a word"

    def pids(self) -> list[int]:
        """It and its descendants."""
        found, children = [], [self.pid]
        while children:
            pid = children.pop()
            found.append(pid)
            children += children_of(pid)
        return found

    def cpu_seconds(self) -> float:
        """What it and its descendants have worked."""
        return sum(map(cpu_seconds, self.pids()))

    def resident_mib(self) -> float:
        """Its resident memory."""
        with open(f"/proc/{self.pid}/statm", encoding="ascii") as file:
            pages = int(file.read().split()[1])
        return pages * resource.getpagesize() / MIB

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the process itself."""
        os.kill(self.pid, number)

    def stop(self) -> None:
        """Ends it, and what it started."""
        session = self.pids() if self.process.poll() is None else []
        if session:
            # One that is stopped hears nothing.
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGTERM)
            try:
                self.process.wait(GRACE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for pid in session[1:]:
            # Its session is this one's still, or else the pid is by now another's.
            with suppress(ProcessLookupError):
                if os.getsid(pid) == self.pid:
                    os.kill(pid, signal.SIGKILL)


@contextmanager
def ended(running: Running) -> Iterator[Running]:
    """The process, which ends with the block."""
    try:
        yield running
    finally:
        running.stop()


def children_of(pid: int) -> list[int]:
    """The processes that a process has started."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            return [int(word) for word in file.read().split()]
    except FileNotFoundError:
        return []


def cpu_seconds(pid: int) -> float:
    """What a process has worked; nothing if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            fields = file.read().rpartition(")")[2].split()
    except FileNotFoundError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS


class Others:
    """How many cores processes other than ours use."""

    def __init__(self, ours: list[Running]) -> None:
        """Nothing is measured yet."""
        self.ours = ours
        self.cores: list[float] = []

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Measures what goes on in the block."""
        began, busy, own = time.monotonic(), busy_seconds(), self._own()
        yield
        seconds = max(time.monotonic() - began, 1e-9)
        others = busy_seconds() - busy - (self._own() - own)
        self.cores.append(max(0.0, others) / seconds)

    def _own(self) -> float:
        ended_ones = resource.getrusage(resource.RUSAGE_CHILDREN)
        this = resource.getrusage(resource.RUSAGE_SELF)
        mine = sum(usage.ru_utime + usage.ru_stime for usage in (ended_ones, this))
        return mine + sum(running.cpu_seconds() for running in self.ours)


def end_on_sigterm() -> None:
    """Makes SIGTERM unwind like Ctrl-C, so that all that was started is ended."""

    def stop(*_) -> None:
        raise SystemExit(143)

    signal.signal(signal.SIGTERM, stop)


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return opened.getsockname()[1]
