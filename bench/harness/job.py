"""What every engine of a case is to do: the same tables, the same ttl, the same columns."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

DAY_SECONDS = 86_400
THREADS = 2


@dataclass(frozen=True)
class History:
    """A feature view: its name, its Parquet file and its features."""

    name: str
    path: Path
    features: list[str]


@dataclass(frozen=True)
class Job:
    """A point-in-time join of entity rows with histories."""

    spine: Path
    histories: list[History]
    ttl_days: int

    def write(self, path: Path) -> None:
        """Writes it for the engines to read."""
        job = {
            "spine": str(self.spine),
            "histories": [asdict(h) | {"path": str(h.path)} for h in self.histories],
            "ttl_seconds": self.ttl_days * DAY_SECONDS,
        }
        path.write_text(json.dumps(job, indent=2))

    def files(self) -> list[Path]:
        """All that an engine reads."""
        return [self.spine, *(history.path for history in self.histories)]
