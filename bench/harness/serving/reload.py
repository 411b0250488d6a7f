"""Latency while the server takes up new states of the registry."""

import json
import shutil
import statistics
import subprocess
import threading
import time
from pathlib import Path

from harness import results
from harness.goals import Goal
from harness.serving import repository
from harness.serving.load import UNSKEW, Drive, Failed, Request, drive, wrong
from harness.serving.repository import WITH_COMPONENT
from harness.serving.servers import Server, ask, post

CONNECTIONS = 8
ROUTE = "/admin/reload"
PERIOD = 0.5
LIMIT_MS = 5.0
SHARE = 0.5
COMPONENT = "amount_scores.wasm"
QUANTILES = ["p50", "p90", "p99", "p999", "max"]


def run(context) -> tuple[list[str], list[Goal], list[str]] | None:
    """The same load three times in each round: alone, beside `unskew apply`, and with reloads.

    Each reload has a new state with a new component to compile. To make a state takes a processor
    too, so what a reload costs is the difference from applying the same to another repository.
    """
    bench, server = context.bench, context.bench.targets[UNSKEW].server
    status, answer = post(server, ROUTE)
    if status == 404:
        print(f"  left out: this build of unskew has no POST {ROUTE}", flush=True)
        return None
    if status >= 300:
        words = answer.decode(errors="replace")[:200]
        print(f"  left out: POST {ROUTE} answers {status}: {words}", flush=True)
        return None
    elsewhere = context.folder.with_name("repo-serve-elsewhere")
    shutil.rmtree(elsewhere, ignore_errors=True)
    shutil.copytree(context.folder, elsewhere, symlinks=True)
    ways = {
        "alone": None,
        "beside `unskew apply` of another repository": Applying(context, elsewhere, None),
        "with reloads": Applying(context, context.folder, server),
    }
    found: dict[str, list[dict]] = {name: [] for name in ways}
    errors: dict[str, str] = {}
    request = Request(WITH_COMPONENT, 1, context.size.entities)
    target, seconds = bench.targets[UNSKEW], max(bench.seconds * 3, 4.0)
    most = drive(bench.load, Drive(target, request, CONNECTIONS, seconds=1.0))
    rate = most["per_second"] * SHARE
    for number in range(1, bench.rounds + 1):
        for name, applying in ways.items():
            load = Drive(target, request, CONNECTIONS, seconds, rate, warm_up=0.5)
            try:
                with bench.others.watched():
                    outcome = during(applying, lambda load=load: drive(bench.load, load))
                error = wrong(outcome)
            except Failed as reason:
                error = str(reason)
            if error is not None:
                errors[name] = error
                print(f"  round {number}/{bench.rounds}  {name}: {error}", flush=True)
                continue
            found[name].append(outcome)
            latency = outcome["latency"]
            words = f"p50 {latency['p50']:,.0f} p99.9 {latency['p999']:,.0f} µs"
            print(f"  round {number}/{bench.rounds}  {name:<44} {words}", flush=True)
    shutil.rmtree(elsewhere, ignore_errors=True)
    reloads = ways["with reloads"].done
    rows = [
        [name, *(middle(outcomes, quantile) for quantile in QUANTILES)]
        for name, outcomes in found.items()
    ]
    head = ["8 connections", "p50 µs", "p90", "p99", "p99.9", "longest"]
    notes = [
        f"an open loop at {rate:,.0f} requests/s; {reloads} reloads, each of a new state with a "
        "component that has to be compiled"
    ]
    return [results.markdown(head, rows)], [goal(found, errors, reloads)], notes


def middle(outcomes: list[dict], quantile: str) -> str:
    """The median of all rounds."""
    values = [outcome["latency"][quantile] for outcome in outcomes]
    return f"{statistics.median(values):,.0f}" if values else "failed"


def goal(found: dict[str, list[dict]], errors: dict[str, str], reloads: int) -> Goal:
    """Against the same without reloads."""
    text = f"p99.9 with reloads ≤ {LIMIT_MS:.0f} ms above that without; no failed request"
    if errors:
        return Goal(text, "; ".join(f"{name}: {error}" for name, error in errors.items()), False)
    _, beside, reloading = found.values()
    if not reloads or not reloading:
        return Goal(text, "not measured", None)
    pairs = zip(reloading, beside, strict=True)
    added = [(one["latency"]["p999"] - two["latency"]["p999"]) / 1e3 for one, two in pairs]
    measured = f"{statistics.median(added):+.2f} ms (rounds: {min(added):+.2f}–{max(added):+.2f})"
    return Goal(text, measured, statistics.median(added) <= LIMIT_MS)


class Applying:
    """Applies new states to a repository, one after the other, and has a server take them up."""

    def __init__(self, context, folder: Path, server: Server | None) -> None:
        """Nothing is applied yet."""
        self.context, self.folder, self.server = context, folder, server
        self.built = (folder / ".unskew/components/amount_scores.wasm").read_bytes()
        definitions = dict(context.definitions)
        definitions["transformations"] = [
            one | {"component": COMPONENT} if one["name"] == "amount_scores" else one
            for one in definitions["transformations"]
        ]
        repository.write(folder, definitions)
        self.plan = self.served_plan() if server is not None else ""
        self.done = 0
        self.error: str | None = None
        self.ending = threading.Event()

    def loop(self) -> None:
        """Until the end is asked for."""
        while not self.ending.wait(PERIOD):
            (self.folder / COMPONENT).write_bytes(
                self.built + custom_section(b"state", str(time.monotonic_ns()).encode())
            )
            command = [str(self.context.where.unskew), "apply"]
            applied = subprocess.run(command, cwd=self.folder, capture_output=True, text=True)
            if applied.returncode != 0:
                self.error = applied.stderr.strip()
                return
            if self.server is not None:
                status, answer = post(self.server, ROUTE)
                if status >= 300:
                    self.error = f"{ROUTE} answers {status}: {answer.decode()[:200]}"
                    return
                plan = self.served_plan()
                if plan == self.plan:
                    self.error = f"{ROUTE} answers {status}, and plan {plan} is served still"
                    return
                self.plan = plan
            self.done += 1

    def served_plan(self) -> str:
        """The plan by which the server answers."""
        return json.loads(ask(self.server, WITH_COMPONENT, [1], amounts=True))["plan"]


def custom_section(name: bytes, content: bytes) -> bytes:
    """What gives a component another digest, and changes nothing of what it does."""
    # Lengths below 128 are one byte of LEB128.
    payload = bytes([len(name)]) + name + content
    return bytes([0, len(payload)]) + payload


def during(applying: Applying | None, load) -> dict:
    """What a load measures while states are applied."""
    if applying is None:
        return load()
    applying.ending.clear()
    thread = threading.Thread(target=applying.loop, daemon=True)
    thread.start()
    try:
        outcome = load()
    finally:
        applying.ending.set()
        thread.join()
    if applying.error is not None:
        raise Failed(applying.error)
    return outcome
