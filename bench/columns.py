"""Writes the first columns of a training set as plain float64, one column after the other.

usage: columns.py TRAINING_SET OUT COLUMN…; a null becomes a NaN.
"""

import sys

import pyarrow.compute as pc
import pyarrow.parquet as pq


def main() -> None:
    """Reads the columns and writes them."""
    source, out, *names = sys.argv[1:]
    table = pq.read_table(source, columns=names)
    with open(out, "wb") as file:
        for name in names:
            column = pc.fill_null(table[name], float("nan"))
            file.write(column.to_numpy().astype("<f8").tobytes())


if __name__ == "__main__":
    main()
