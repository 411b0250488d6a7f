"""The arguments that all benchmarks have in common."""

import argparse
from pathlib import Path

from harness.cases import SIZES
from harness.engines import Place

BENCH = Path(__file__).parent.parent
ROOT = BENCH.parent
RESULTS = BENCH / "RESULTS.md"


def parser(name: str, description: str, sizes: list[str] = SIZES) -> argparse.ArgumentParser:
    """Arguments of `cargo xtask bench NAME`; the first of the sizes is the default."""
    parser = argparse.ArgumentParser(prog=f"cargo xtask bench {name}", description=description)
    help = f"how much (default: {sizes[0]})"
    parser.add_argument("--size", choices=sizes, default=sizes[0], help=help)
    parser.add_argument("--runs", type=rounds, default=5, help="rounds (default: 5)")
    parser.add_argument("--unskew", type=Path, default=ROOT / "target/release/unskew")
    call = ROOT / "target/release/unskew-bench-call"
    parser.add_argument("--call", type=Path, default=call, help="what calls a component in a loop")
    parser.add_argument("--work", type=Path, default=ROOT / "target/bench")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the file that is written")
    return parser


def rounds(text: str) -> int:
    """A number of rounds, of which there must be one."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"found {number}, wanted 1 or more")
    return number


def program(text: str) -> Path:
    """A program that is there."""
    path = Path(text).resolve()
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"there is no {text}")
    return path


def place(arguments: argparse.Namespace) -> Place:
    """Where the binary is, and where all goes that is made."""
    unskew = arguments.unskew.resolve()
    if not unskew.is_file():
        raise SystemExit(
            f"error: there is no {arguments.unskew}; `cargo build --release -p unskew`"
        )
    arguments.work.mkdir(parents=True, exist_ok=True)
    return Place(unskew, arguments.work.resolve())


def typed(name: str, arguments: argparse.Namespace) -> str:
    """The command as one would type it, without what only says where things are."""
    words = ["cargo xtask bench", name, "--size", arguments.size]
    if getattr(arguments, "only", None):
        words += ["--only", f"'{arguments.only}'"]
    if getattr(arguments, "engines", None):
        words += ["--engines", ",".join(arguments.engines)]
    return " ".join([*words, "--runs", str(arguments.runs)])
