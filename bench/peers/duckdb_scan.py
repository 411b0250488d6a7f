"""Reads what a point-in-time join has to read, each column once, and does nothing with it."""

import duckdb
from job import THREADS, read, timed


def main() -> None:
    """Sums every column, which is as little as can be done with it."""
    job = read()
    connection = duckdb.connect()
    connection.execute(f"SET threads = {THREADS}")
    for history in job.histories:
        features = ", ".join(f"sum({name})" for name in history.features)
        connection.execute(
            f"SELECT sum(entity_id), max(event_timestamp), {features} "
            f"FROM read_parquet('{history.path}')"
        ).fetchall()


if __name__ == "__main__":
    with timed():
        main()
