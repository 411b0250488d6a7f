"""The point-in-time join by pandas' `merge_asof`."""

import pandas as pd
from job import read, timed


def main() -> None:
    """Reads all, sorts, joins each history, and writes."""
    job = read()
    joined = pd.read_parquet(job.spine).sort_values("event_timestamp")
    for history in job.histories:
        columns = ["entity_id", "event_timestamp", *history.features]
        rows = pd.read_parquet(history.path, columns=columns).sort_values("event_timestamp")
        joined = pd.merge_asof(
            joined, rows, on="event_timestamp", by="entity_id", tolerance=pd.Timedelta(job.ttl)
        )
    joined.to_parquet(job.out, compression="zstd", index=False)


if __name__ == "__main__":
    with timed():
        main()
