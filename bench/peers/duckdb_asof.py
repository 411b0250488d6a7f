"""The point-in-time join by DuckDB's ASOF join.

`--filter` adds what a careful user would write by hand: a bound on the history's time.
"""

import sys

import duckdb
from job import THREADS, History, Job, read, timed


def main() -> None:
    """Joins and writes, in one statement."""
    job = read()
    connection = duckdb.connect()
    connection.execute(f"SET threads = {THREADS}")
    # The entity rows need not keep their order, which saves DuckDB time and memory.
    connection.execute("SET preserve_insertion_order = false")
    connection.execute("SET TimeZone = 'UTC'")
    bounds = time_bounds(connection, job) if "--filter" in sys.argv else ""
    columns, joins = [], []
    for index, history in enumerate(job.histories):
        table = f"h{index}"
        columns += [feature(table, name, job) for name in history.features]
        joins.append(asof(table, history, bounds))
    connection.execute(
        f"COPY (SELECT s.*, {', '.join(columns)} FROM read_parquet('{job.spine}') s "
        f"{' '.join(joins)}) TO '{job.out}' (FORMAT parquet, COMPRESSION zstd)"
    )


def feature(table: str, name: str, job: Job) -> str:
    """A feature, null where the row that counts is too old."""
    ttl = f"INTERVAL {int(job.ttl.total_seconds())} SECONDS"
    young = f"s.event_timestamp - {table}.event_timestamp <= {ttl}"
    return f"CASE WHEN {young} THEN {table}.{name} END AS {name}"


def asof(table: str, history: History, bounds: str) -> str:
    """The join with one history."""
    return (
        f"ASOF LEFT JOIN (SELECT * FROM read_parquet('{history.path}') {bounds}) {table} "
        f"ON s.entity_id = {table}.entity_id AND s.event_timestamp >= {table}.event_timestamp"
    )


def time_bounds(connection: duckdb.DuckDBPyConnection, job: Job) -> str:
    """The condition on a history's time that the entity rows' times allow."""
    rows = connection.execute(
        "SELECT min(event_timestamp)::VARCHAR, max(event_timestamp)::VARCHAR "
        f"FROM read_parquet('{job.spine}')"
    )
    earliest, latest = rows.fetchone()
    ttl = f"INTERVAL {int(job.ttl.total_seconds())} SECONDS"
    return (
        f"WHERE event_timestamp >= TIMESTAMPTZ '{earliest}' - {ttl} "
        f"AND event_timestamp <= TIMESTAMPTZ '{latest}'"
    )


if __name__ == "__main__":
    with timed():
        main()
