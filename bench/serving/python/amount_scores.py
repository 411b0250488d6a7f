"""The transformation of `transforms/amount_scores`, as a component in Python (componentize-py)."""

from wit_world import exports
from wit_world.exports.transformation import (
    Batch,
    Column,
    Column_Flat,
    DataType_Scalar,
    Description,
    Field,
    Flat,
    Kind,
    Output,
    ScalarType,
    Values_Float64s,
)


class Transformation(exports.Transformation):
    """What the runtime calls."""

    def describe(self) -> Description:
        """Its inputs and outputs."""
        return Description(
            component="amount-scores-python",
            version="0.1.0",
            function="amount_scores",
            documentation="Two scores of two features and a request field.",
            kind=Kind.ON_DEMAND,
            inputs=[
                field("f0", ScalarType.FLOAT64, True),
                field("i0", ScalarType.INT64, True),
                field("amount", ScalarType.FLOAT64, False),
            ],
            outputs=[
                field("ratio", ScalarType.FLOAT64, True),
                field("score", ScalarType.FLOAT64, False),
            ],
        )

    def run(self, input: Batch) -> Output:
        """The scores of each row."""
        f0s, i0s, amounts = (values(column, input.rows) for column in input.columns)
        rows = list(zip(f0s, i0s, amounts, strict=True))
        ratios = [None if f0 is None else amount / (f0 + 1.0) for f0, _, amount in rows]
        scores = [float(i0 or 0) * 0.5 + amount * 0.25 for _, i0, amount in rows]
        return Output(rows=input.rows, columns=[column(ratios), column(scores)], source_row=[])


def field(name: str, scalar: ScalarType, nullable: bool) -> Field:
    """A column without a description."""
    return Field(name, DataType_Scalar(scalar), nullable, "")


def values(column: Column, rows: int) -> list:
    """The values of a column, `None` where they are null."""
    flat = column.value
    numbers = flat.values.value
    if not flat.validity:
        return numbers
    valid = flat.validity
    return [numbers[row] if valid[row // 8] >> row % 8 & 1 else None for row in range(rows)]


def column(numbers: list[float | None]) -> Column:
    """A column of float64."""
    valid = bytearray((len(numbers) + 7) // 8)
    for row, number in enumerate(numbers):
        if number is not None:
            valid[row // 8] |= 1 << row % 8
    floats = [number if number is not None else 0.0 for number in numbers]
    return Column_Flat(Flat(len(numbers), bytes(valid), Values_Float64s(floats)))
