"""Compares two training sets by value, entity row by entity row, and prints what differs as JSON.

Engines that give rows in another order are compared after sorting. A row differs if one of its
features does. A NaN of the second is a null, since pandas knows no other; one of the first is not.
Where the order counts, both come from one engine, and types and NaN count too. A differing row is
tied if its key has several history rows at the event that counts: engines that know no created
timestamp take any of these.
"""

import argparse
import json
from pathlib import Path

import polars as pl

KEYS = ["entity_id", "event_timestamp", "label"]
OCCURRENCE = "occurrence"
TIME = pl.Datetime("us", "UTC")
# Beyond that many differing rows an engine is wrong, and ties explain nothing.
MOST_TIED = 10_000


def main() -> None:
    """Compares, and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("expected", type=Path)
    parser.add_argument("actual", type=Path)
    parser.add_argument("--history", type=Path, action="append", default=[])
    parser.add_argument("--ordered", action="store_true", help="the order of rows counts too")
    arguments = parser.parse_args()
    print(json.dumps(compare(arguments)))


def compare(arguments: argparse.Namespace) -> dict[str, int]:
    """Rows that only one of both has, rows that differ, and how many of these are tied."""
    expected = read(arguments.expected)
    actual = read(arguments.actual)
    features = [name for name in expected.columns if name not in KEYS]
    missing_columns = [name for name in features if name not in actual.columns]
    if missing_columns:
        raise SystemExit(f"{arguments.actual.name} has no column {', '.join(missing_columns)}")
    if arguments.ordered:
        if expected.schema != actual.schema:
            raise SystemExit("the columns differ, or their types do")
    else:
        expected = expected.sort(KEYS)
        actual = actual.with_columns(pl.col(features).fill_nan(None)).sort(KEYS)
    missing = extra = 0
    if not expected.select(KEYS).equals(actual.select(KEYS)):
        if arguments.ordered:
            raise SystemExit("the entity rows differ, or their order does")
        all_expected, all_actual = expected.height, actual.height
        expected, actual = aligned_by_occurrence(expected, actual)
        missing, extra = all_expected - expected.height, all_actual - expected.height
    differs = pl.lit(False)
    for name in features:
        differs = differs | pl.Series(name, expected[name].ne_missing(actual[name]))
    rows = expected.select(KEYS).filter(expected.select(differs.alias("d"))["d"])
    return {
        "missing": missing,
        "extra": extra,
        "differing": rows.height,
        "tied": tied(rows, arguments.history),
    }


def read(path: Path) -> pl.DataFrame:
    """A training set with keys of one type."""
    table = pl.read_parquet(path)
    return table.with_columns(
        pl.col("entity_id").cast(pl.Int64),
        utc(table.schema["event_timestamp"]),
        pl.col("label").cast(pl.Int8),
    )


def utc(data_type: pl.DataType) -> pl.Expr:
    """The event timestamps in UTC; without a zone they are so already."""
    column = pl.col("event_timestamp")
    if getattr(data_type, "time_zone", None) is None:
        column = column.dt.replace_time_zone("UTC")
    return column.cast(TIME)


def aligned_by_occurrence(
    expected: pl.DataFrame, actual: pl.DataFrame
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The rows that both have, side by side."""
    occurrence = pl.int_range(pl.len()).over(KEYS).alias(OCCURRENCE)
    expected = expected.with_columns(occurrence)
    actual = actual.with_columns(occurrence)
    on = [*KEYS, OCCURRENCE]
    common = expected.join(actual.select(on), on=on, how="semi").sort(on)
    actual = actual.join(common.select(on), on=on, how="semi").sort(on)
    return common, actual


def tied(rows: pl.DataFrame, histories: list[Path]) -> int:
    """How many rows have several history rows at the event that counts, in any of the histories."""
    if rows.is_empty() or rows.height > MOST_TIED:
        return 0
    rows = rows.with_row_index("row").rename({"event_timestamp": "instant"})
    found: set[int] = set()
    for history in histories:
        candidates = (
            pl.scan_parquet(history)
            .select("entity_id", pl.col("event_timestamp").alias("event"))
            .join(rows.lazy(), on="entity_id", how="inner")
            .filter(pl.col("event") <= pl.col("instant"))
            .filter(pl.col("event") == pl.col("event").max().over("row"))
            .group_by("row")
            .len()
            .filter(pl.col("len") > 1)
            .collect(engine="streaming")
        )
        found.update(candidates["row"].to_list())
    return len(found)


if __name__ == "__main__":
    main()
