"""Makes the table of the serving benchmarks: a row for each customer, as Parquet.

Each value follows from the customer and the column, so that the load generator knows it without
the table (`load/src/table.rs` has the same formulas). A file is written beside its place and
renamed, so a file that is there is whole.
"""

import argparse
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

START = 1_700_000_000_000_000  # microseconds since the epoch
SPAN = 90 * 86_400 * 1_000_000
PRIME = 1_000_003


def main() -> None:
    """Makes the one file that the arguments describe."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--entities", type=int, required=True)
    parser.add_argument("--further", type=int, default=0, help="so many columns t0, t1, … more")
    arguments = parser.parse_args()
    part = arguments.out.with_name(arguments.out.name + ".part")
    table = pa.table(columns(arguments.entities, arguments.further))
    pq.write_table(table, part, compression="zstd")
    os.replace(part, arguments.out)


def columns(entities: int, further: int) -> dict[str, pa.Array]:
    """The columns of all customers."""
    customer = np.arange(entities, dtype=np.int64)
    # In no order of time, and no two of the same: a prime that divides no such span.
    time = START + customer * 2_654_435_761 % SPAN
    named = {
        "customer_id": pa.array(customer),
        "event_timestamp": pa.array(time).cast(pa.timestamp("us", tz="UTC")),
    }
    for index in range(8):
        base = ((customer * 31 + index * 7_919) % PRIME).astype(np.float64)
        named[f"f{index}"] = pa.array(base / (7.0 if index % 2 == 0 else 8.0))
    for index in range(2):
        named[f"i{index}"] = pa.array((customer * 13 + index * 101) % 100_000)
    for index in range(further):
        base = ((customer * 17 + index * 104_729) % PRIME).astype(np.float64)
        named[f"t{index}"] = pa.array(base / 7.0)
    return named


if __name__ == "__main__":
    main()
