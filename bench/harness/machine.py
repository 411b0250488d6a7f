"""What was measured, on what: a figure means nothing without."""

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

LIBRARIES = ["duckdb", "polars", "pandas", "feast", "pyarrow", "numpy"]
# Files that the benchmarks themselves write.
RESULTS = ["bench/RESULTS.md", "bench/growth.svg", "bench/latency.svg"]


def machine() -> str:
    """Cores, processor, memory, system."""
    used, there = len(os.sched_getaffinity(0)), os.cpu_count()
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return (
        f"{used} of {there} cores of {processor()}, {memory:.0f} GiB, "
        f"{system()}, Linux {platform.release()}"
    )


def processor() -> str:
    """The processor's model."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def system() -> str:
    """The distribution and its version."""
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return "an unnamed distribution"


def versions(unskew: Path) -> str:
    """The versions of all that takes part."""
    parts = [f"unskew {unskew_version(unskew)}", said("rustc", "--version") or "no rustc"]
    parts += [f"{name} {metadata.version(name)}" for name in LIBRARIES]
    return ", ".join([*parts, f"Python {platform.python_version()}"])


def unskew_version(unskew: Path) -> str:
    """The version of the binary, and the commit of the checkout."""
    version = said(str(unskew), "version").removeprefix("unskew ")
    commit = said("git", "rev-parse", "--short", "HEAD")
    if not commit:
        return version
    ignored = [f":(exclude){name}" for name in RESULTS]
    changed = said("git", "status", "--porcelain", "--", ":/", *ignored)
    return f"{version} ({commit}{' and changes' if changed else ''})"


def said(*command: str) -> str:
    """The first line that a command prints; nothing if there is no such command."""
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return ""
    return (done.stdout.splitlines() or [""])[0].strip() if done.returncode == 0 else ""
