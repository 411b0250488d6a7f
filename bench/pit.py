"""`cargo xtask bench pit`: the point-in-time join against DuckDB, Polars, pandas and Feast."""

import argparse

from harness import growth, order, results
from harness.cases import CASES, SIZES, Case
from harness.data import Data
from harness.engines import ENGINES, Place
from harness.machine import machine, versions
from harness.measure import two_cores
from harness.place import parser, place, typed
from harness.rounds import Line, measure


def main() -> None:
    """Runs the cases that were asked for, one after the other."""
    arguments = parse()
    two_cores()
    where = place(arguments)
    cases = wanted(arguments)
    for number, case in enumerate(cases, 1):
        print(f"\n── {case.name} ({number} of {len(cases)}): {case.about}", flush=True)
        run(case, arguments, where)
    print(f"\nall of it is in {arguments.results}")


def parse() -> argparse.Namespace:
    """The arguments."""
    parsed = parser("pit", __doc__)
    parsed.add_argument("--only", choices=[case.name for case in CASES], metavar="CASE")
    parsed.add_argument("--engines", type=known_engines, help=", ".join(ENGINES))
    return parsed.parse_args()


def known_engines(text: str) -> list[str]:
    """Names of engines, separated by commas."""
    names = text.split(",")
    unknown = [name for name in names if name not in ENGINES]
    if unknown:
        raise argparse.ArgumentTypeError(f"found {unknown[0]}, wanted some of {', '.join(ENGINES)}")
    return names


def wanted(arguments: argparse.Namespace) -> list[Case]:
    """The cases of a size, or the one that was named, whatever its size."""
    if arguments.only:
        return [case for case in CASES if case.name == arguments.only]
    limit = SIZES.index(arguments.size)
    return [case for case in CASES if SIZES.index(case.size) <= limit]


def run(case: Case, arguments: argparse.Namespace, where: Place) -> None:
    """Measures one case, prints its tables and writes its section."""
    lines = case.lines(Data(where.work / "data"), arguments.size)
    if arguments.engines:
        lines = [line for line in lines if line.engine in arguments.engines]
    if not lines:
        print("  none of these engines takes part")
        return
    measure(case.name, lines, case.rounds or arguments.runs, where)
    report(case, lines, arguments, where)


def report(case: Case, lines: list[Line], arguments: argparse.Namespace, where: Place) -> None:
    """Prints and writes what was measured."""
    tables = [results.table(lines), results.goal_table(case.goals(lines))]
    company = results.company([run for line in lines for run in line.runs])
    print("\n" + "\n".join([*tables, company]), flush=True)
    notes = [machine(), versions(where.unskew), company]
    command = typed("pit", arguments)
    text = results.section(case.about, tables, command, notes)
    results.put(arguments.results, order.pit(case.name), text, order.ORDER)
    if case.name == "growth":
        growth.draw(arguments.results.with_name("growth.svg"), lines)


if __name__ == "__main__":
    main()
