"""The load generator, called for one run."""

import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from harness.serving import repository
from harness.serving.servers import Server

UNSKEW, BARE, FEAST = "unskew", "bare", "feast"
TITLES = {UNSKEW: "unskew", BARE: "bare handler", FEAST: "Feast"}


@dataclass(frozen=True)
class Request:
    """What is asked for in each request of a run."""

    service: str
    rows: int
    entities: int

    @property
    def values(self) -> int:
        """How many values an answer has."""
        return self.rows * len(repository.SERVICES[self.service])


@dataclass
class Target:
    """A server under its kind, which says how it is spoken to."""

    kind: str
    server: Server


@dataclass
class Drive:
    """One run of the load generator, as the command has it."""

    target: Target
    request: Request
    connections: int
    seconds: float = 1.0
    rate: float | None = None
    requests: int | None = None
    warm_up: float = 0.0
    more: list[str] = field(default_factory=list)

    def command(self, load: Path) -> list[str]:
        """The command."""
        service = self.request.service
        # Feast has one component, under the service of that name.
        if self.target.kind == FEAST and service == repository.WITH_PYTHON:
            service = repository.WITH_COMPONENT
        words = {
            "address": self.target.server.address,
            "dialect": self.target.kind,
            "service": service,
            "features": ",".join(repository.SERVICES[service]),
            "rows": self.request.rows,
            "entities": self.request.entities,
            "connections": self.connections,
            "seconds": self.seconds,
            "warm-up": self.warm_up,
            "rate": self.rate,
            "requests": self.requests,
        }
        command = [str(load), "drive"]
        for name, value in words.items():
            if value is not None:
                command += [f"--{name}", str(value)]
        if service in repository.WITH_AMOUNTS:
            command.append("--amounts")
        return command + self.more


def drive(load: Path, run: Drive) -> dict:
    """Runs it to the end; what it measured."""
    done = subprocess.run(run.command(load), capture_output=True, text=True)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["without a word"])[-1]
        raise Failed(f"the load generator failed: {last}")
    return json.loads(done.stdout)


class Failed(Exception):
    """A run measured nothing; the message says why."""


def wrong(outcome: dict) -> str | None:
    """What is wrong with the answers of a run: a server that answers errors is fast at nothing."""
    if outcome["wrong"]:
        return f"{outcome['wrong']} wrong answers, such as: {outcome['first_wrong']}"
    if outcome["errors"]:
        errors = ", ".join(f"{count} × {error}" for error, count in outcome["errors"].items())
        return f"errors: {errors}"
    if not outcome["right"]:
        return "no answer"
    if not outcome["checked"]:
        return "no answer was checked"
    return None
