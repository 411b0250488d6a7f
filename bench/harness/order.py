"""The order of the sections of `RESULTS.md`, whichever command wrote them."""

from harness.cases import CASES

PIT = "Point-in-time join: {}"
TRANSFORM = "Transformation: {}"
TRANSFORM_SIZES = ["1M x 100k", "10M x 1M"]


def pit(case: str) -> str:
    """The title of a case of `bench pit`."""
    return PIT.format(case)


def transform(case: str) -> str:
    """The title of a case of `bench transform`."""
    return TRANSFORM.format(case)


ORDER = [*(pit(case.name) for case in CASES), *(transform(name) for name in TRANSFORM_SIZES)]
