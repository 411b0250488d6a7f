"""Runs a program as a process of its own, and says how long it took and how much memory.

It also says how much of the machine others took meanwhile: a time that was measured beside other
work is longer than it need be, and nothing else would show it.
"""

import os
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

KIB_PER_MIB = 1024
TICKS = os.sysconf("SC_CLK_TCK")
WORK = "seconds of work: "


@dataclass(frozen=True)
class Run:
    """One run of a process.

    `seconds` is the wall time of all of it, `work` what it says of itself without its start-up,
    `peak_mib` its peak resident memory, `others` the cores that other processes used meanwhile.
    """

    seconds: float
    peak_mib: float
    others: float
    work: float | None = None
    error: str | None = None


def run(command: list[str], cwd: Path, log: Path, timeout: float) -> Run:
    """Runs a command to its end; one that takes longer than `timeout` seconds is killed."""
    with log.open("wb") as output:
        busy = busy_seconds()
        started = time.perf_counter()
        process = subprocess.Popen(command, cwd=cwd, stdout=output, stderr=subprocess.STDOUT)
        late = threading.Event()
        timer = threading.Timer(timeout, lambda: (late.set(), process.kill()))
        timer.daemon = True
        timer.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except KeyboardInterrupt:
            process.kill()
            raise
        seconds = time.perf_counter() - started
        timer.cancel()
        busy = busy_seconds() - busy
    process.returncode = os.waitstatus_to_exitcode(status)
    error = None
    if late.is_set():
        error = f"not done after {timeout:.0f} s"
    elif process.returncode != 0:
        error = why(process.returncode, log)
    others = max(0.0, busy - usage.ru_utime - usage.ru_stime) / seconds
    return Run(seconds, usage.ru_maxrss / KIB_PER_MIB, others, work(log), error)


def busy_seconds() -> float:
    """The seconds that all cores together have worked since the machine was started."""
    with open("/proc/stat", encoding="ascii") as file:
        user, nice, system, _, _, irq, softirq, *_ = map(int, file.readline().split()[1:])
    return (user + nice + system + irq + softirq) / TICKS


def work(log: Path) -> float | None:
    """How long a program says that it worked, if it says so."""
    lines = log.read_text(errors="replace").splitlines()
    said = next((line for line in reversed(lines) if line.startswith(WORK)), None)
    return float(said.removeprefix(WORK)) if said else None


def why(code: int, log: Path) -> str:
    """Why a process failed, in one line: its signal or exit code, and its last words."""
    how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines()]
    last = next((line for line in reversed(lines) if line), "")
    return f"{how}: {last[:160]}" if last else how


def two_cores() -> None:
    """Keeps this process and all that it starts on two cores, so that every engine has the same."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[:2])
