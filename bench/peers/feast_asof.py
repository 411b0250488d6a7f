"""The point-in-time join by Feast, over its file (dask) or its DuckDB offline store.

With `--apply` the feature repository is made and applied, which is not part of what is timed; the
folder of the repository is the third argument, the kind of offline store the fourth.
"""

import sys
from datetime import timedelta
from pathlib import Path

import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Float64
from job import Job, read, timed


def main() -> None:
    """Applies the definitions, or builds the training set."""
    job = read()
    store = FeatureStore(config=config(Path(sys.argv[3]), sys.argv[4]))
    if "--apply" in sys.argv:
        store.apply(definitions(job))
        return
    with timed():
        features = [f"{view.name}:{name}" for view in job.histories for name in view.features]
        rows = store.get_historical_features(pd.read_parquet(job.spine), features).to_df()
        rows.to_parquet(job.out, compression="zstd", index=False)


def config(folder: Path, offline_store: str) -> RepoConfig:
    """A repository of its own in a folder; nothing is ever served from it."""
    folder.mkdir(parents=True, exist_ok=True)
    return RepoConfig(
        project="bench",
        provider="local",
        registry=str(folder / "registry.db"),
        online_store={"type": "sqlite", "path": str(folder / "online.db")},
        offline_store={"type": offline_store},
        entity_key_serialization_version=3,
    )


def definitions(job: Job) -> list[Entity | FeatureView]:
    """The entity, and a view for each history."""
    entity = Entity(name="entity", join_keys=["entity_id"], value_type=ValueType.INT64)
    views: list[Entity | FeatureView] = [entity]
    for history in job.histories:
        source = FileSource(
            name=f"{history.name}_source",
            path=history.path,
            timestamp_field="event_timestamp",
            created_timestamp_column="created_timestamp",
        )
        views.append(
            FeatureView(
                name=history.name,
                entities=[entity],
                ttl=timedelta(seconds=job.ttl.total_seconds()),
                schema=[Field(name=name, dtype=Float64) for name in history.features],
                source=source,
                online=False,
            )
        )
    return views


if __name__ == "__main__":
    main()
