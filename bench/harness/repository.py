"""The feature repositories on which unskew is measured."""

import json
import subprocess
from pathlib import Path

from harness.job import Job

SERVICE = "bench"
PROJECT = """\
project: bench
registry: .unskew/registry
online_store: {type: embedded, path: .unskew/online}
"""


def make(folder: Path, job: Job, unskew: Path, more: dict[str, list[dict]] | None = None) -> None:
    """Writes a feature repository for a job and applies it.

    `more` has definitions beside the views: of transformations, and of services other than the one
    of all features.
    """
    (folder / "features").mkdir(parents=True, exist_ok=True)
    (folder / "unskew.yaml").write_text(PROJECT)
    # JSON is YAML.
    text = json.dumps(definitions(job) | (more or {}), indent=2)
    (folder / "features" / "bench.yaml").write_text(text)
    applied = subprocess.run([unskew, "apply"], cwd=folder, capture_output=True, text=True)
    if applied.returncode != 0:
        raise SystemExit(f"`unskew apply` failed in {folder}:\n{applied.stderr}")


def definitions(job: Job) -> dict[str, list[dict]]:
    """The entity, a source and a view for each history, and a service of all features."""
    return {
        "entities": [
            {"name": "entity", "join_keys": [{"name": "entity_id", "type": "int64"}]},
        ],
        "sources": [
            {
                "name": f"{history.name}_source",
                "path": str(history.path),
                "timestamp_field": "event_timestamp",
                "created_timestamp_column": "created_timestamp",
            }
            for history in job.histories
        ],
        "feature_views": [
            {
                "name": history.name,
                "entities": ["entity"],
                "source": f"{history.name}_source",
                "ttl": f"{job.ttl_days}d",
                "online": False,
                "features": [{"name": name} for name in history.features],
            }
            for history in job.histories
        ],
        "feature_services": [
            {"name": SERVICE, "features": [history.name for history in job.histories]},
        ],
    }
