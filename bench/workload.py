"""Makes the tables of the benchmarks: feature histories and entity rows, as Parquet.

The same arguments give the same tables, always: every draw comes from one seeded generator, whose
state after a history is kept beside the file, so that entity rows go on from there. A file is
written beside its place and renamed, so a file that is there is whole.
"""

import argparse
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

START = 1_700_000_000_000_000  # microseconds since the epoch
DAY = 86_400 * 1_000_000
SPAN_DAYS = 90
HOUR = 3_600 * 1_000_000
TIMESTAMP = pa.timestamp("us", tz="UTC")
ROW_GROUP = 1_000_000


def main() -> None:
    """Makes the one file that the arguments describe."""
    arguments = parse()
    out = arguments.out
    part = out.with_name(out.name + ".part")
    if arguments.kind == "history":
        write_history(part, arguments)
    elif arguments.kind == "spine":
        write_spine(part, arguments)
    else:
        rewrite(part, arguments)
    os.replace(part, out)


def parse() -> argparse.Namespace:
    """The arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True)
    history = kinds.add_parser("history", help="a feature history, in order of time")
    history.add_argument("out", type=Path)
    history.add_argument("--rows", type=int, required=True)
    history.add_argument("--entities", type=int, required=True)
    history.add_argument("--width", type=int, default=5)
    history.add_argument("--seed", type=int, default=42)
    history.add_argument("--prefix", default="f", help="features are PREFIX0, PREFIX1, …")
    spine = kinds.add_parser("spine", help="entity rows that go with a history")
    spine.add_argument("out", type=Path)
    spine.add_argument("--history", type=Path, required=True)
    spine.add_argument("--rows", type=int, required=True)
    spine.add_argument("--last-days", type=int, default=SPAN_DAYS)
    spine.add_argument("--width", type=int, default=0, help="as many floats beside: own0, own1, …")
    rewritten = kinds.add_parser("rewrite", help="a history again, with a page index")
    rewritten.add_argument("out", type=Path)
    rewritten.add_argument("--history", type=Path, required=True)
    rewritten.add_argument("--row-group", type=int, default=ROW_GROUP)
    rewritten.add_argument("--page-bytes", type=int, default=None)
    return parser.parse_args()


def state_of(history: Path) -> Path:
    """Where the generator's state after a history is kept."""
    return history.with_name(history.name + ".state.json")


def write_history(path: Path, arguments: argparse.Namespace) -> None:
    """A history arrives in order of time, as an event log does."""
    rng = np.random.default_rng(arguments.seed)
    rows = arguments.rows
    time = np.sort(rng.integers(0, SPAN_DAYS * DAY, rows)) + START
    columns = {
        "entity_id": pa.array(rng.integers(0, arguments.entities, rows)),
        "event_timestamp": pa.array(time).cast(TIMESTAMP),
        "created_timestamp": pa.array(time + rng.integers(0, HOUR, rows)).cast(TIMESTAMP),
    }
    for index in range(arguments.width):
        columns[f"{arguments.prefix}{index}"] = pa.array(rng.normal(size=rows))
    state = {"entities": arguments.entities, "generator": rng.bit_generator.state}
    state_of(arguments.out).write_text(json.dumps(state))
    write(path, columns)


def write_spine(path: Path, arguments: argparse.Namespace) -> None:
    """Entity rows lie in the last days of the history, in no order."""
    state = json.loads(state_of(arguments.history).read_text())
    rng = np.random.default_rng()
    rng.bit_generator.state = state["generator"]
    rows = arguments.rows
    first = (SPAN_DAYS - arguments.last_days) * DAY
    columns = {
        "entity_id": pa.array(rng.integers(0, state["entities"], rows)),
        "event_timestamp": pa.array(rng.integers(first, SPAN_DAYS * DAY, rows) + START).cast(
            TIMESTAMP
        ),
        "label": pa.array(rng.integers(0, 2, rows).astype("int8")),
    }
    for index in range(arguments.width):
        columns[f"own{index}"] = pa.array(rng.normal(size=rows))
    write(path, columns)


def write(path: Path, columns: dict[str, pa.Array]) -> None:
    """Writes a table the way a user's tool would by default."""
    pq.write_table(pa.table(columns), path, row_group_size=ROW_GROUP, compression="zstd")


def rewrite(path: Path, arguments: argparse.Namespace) -> None:
    """Writes a history again, with a page index, in row groups and pages of another size."""
    source = pq.ParquetFile(arguments.history)
    with pq.ParquetWriter(
        path,
        source.schema_arrow,
        compression="zstd",
        write_page_index=True,
        data_page_size=arguments.page_bytes,
    ) as writer:
        for index in range(source.num_row_groups):
            writer.write_table(source.read_row_group(index), row_group_size=arguments.row_group)


if __name__ == "__main__":
    main()
