"""The point-in-time join by Polars' lazy `join_asof`, streamed into Parquet."""

import os

from job import THREADS, read, timed

# Read once, when Polars is imported.
os.environ["POLARS_MAX_THREADS"] = str(THREADS)
import polars as pl  # noqa: E402


def main() -> None:
    """Sorts, joins each history, and writes."""
    job = read()
    joined = pl.scan_parquet(job.spine).sort("event_timestamp")
    for history in job.histories:
        rows = pl.scan_parquet(history.path)
        rows = rows.select("entity_id", "event_timestamp", *history.features)
        joined = joined.join_asof(
            rows.sort("event_timestamp"),
            on="event_timestamp",
            by="entity_id",
            strategy="backward",
            tolerance=job.ttl,
            check_sortedness=False,
        )
    joined.sink_parquet(job.out, compression="zstd")


if __name__ == "__main__":
    with timed():
        main()
