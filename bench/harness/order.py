"""The order of the sections of `RESULTS.md`, whichever command wrote them."""

from harness.cases import CASES

PIT = "Point-in-time join: {}"
TRANSFORM = "Transformation: {}"
SERVE = "Serving: {}"
TRANSFORM_SIZES = ["1M x 100k", "10M x 1M"]
SERVE_CASES = ["1 entity", "100 entities", "python", "views", "call", "memory", "reload"]
MATERIALIZE = "Materialize"
FAULTS = "Faults of Redis"


def pit(case: str) -> str:
    """The title of a case of `bench pit`."""
    return PIT.format(case)


def transform(case: str) -> str:
    """The title of a case of `bench transform`."""
    return TRANSFORM.format(case)


def serve(case: str) -> str:
    """The title of a case of `bench serve`."""
    return SERVE.format(case)


ORDER = [
    *(pit(case.name) for case in CASES),
    *(transform(name) for name in TRANSFORM_SIZES),
    *(serve(case) for case in SERVE_CASES),
    MATERIALIZE,
    FAULTS,
]
