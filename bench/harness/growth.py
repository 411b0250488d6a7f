"""Draws time and memory over the length of the history, as an SVG without scripts or fonts."""

from html import escape
from pathlib import Path

from harness.engines import TITLES
from harness.rounds import Line

WIDTH, HEIGHT = 860, 320
LEFT, TOP, PANEL, DEPTH, APART = 64, 48, 320, 208, 420
COLORS = {"unskew": "#0b6e4f", "duckdb": "#c98a00", "polars": "#2f6fb7"}
INK, GRID = "#333333", "#e2e2e2"
STEPS = 5


def draw(path: Path, lines: list[Line]) -> None:
    """Writes the drawing of all lines that finished."""
    done = [line for line in lines if line.done]
    if not done:
        return
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'font-family="sans-serif" font-size="12" fill="{INK}">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        *panel(done, 0, "seconds", lambda line: line.median),
        *panel(done, APART, "peak memory, MiB", lambda line: line.peak_mib),
        *legend(done),
        "</svg>",
    ]
    path.write_text("\n".join(parts) + "\n")


def panel(lines: list[Line], shift: int, title: str, value) -> list[str]:
    """One pair of axes: history rows in millions across, the value up."""
    left = LEFT + shift
    longest = max(map(rows, lines))
    top = ceiling(max(map(value, lines)))

    def x(millions: float) -> float:
        return left + PANEL * millions / longest

    def y(amount: float) -> float:
        return TOP + DEPTH * (1 - amount / top)

    parts = [text(left, TOP - 12, title, "start")]
    for step in range(STEPS + 1):
        amount = top * step / STEPS
        parts.append(line_from(left, y(amount), left + PANEL, y(amount), GRID))
        parts.append(
            text(left - 8, y(amount) + 4, f"{amount:,.0f}" if top >= 10 else f"{amount:.2g}", "end")
        )
    for millions in sorted(set(map(rows, lines))):
        parts.append(line_from(x(millions), y(0), x(millions), y(0) + 4, INK))
        parts.append(text(x(millions), y(0) + 18, f"{millions}", "middle"))
    parts.append(text(left + PANEL / 2, y(0) + 38, "history rows, millions", "middle"))
    for engine in engines(lines):
        points = sorted((rows(line), value(line)) for line in lines if line.engine == engine)
        path = " ".join(f"{x(millions):.1f},{y(amount):.1f}" for millions, amount in points)
        color = COLORS[engine]
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>')
        parts += [
            f'<circle cx="{x(millions):.1f}" cy="{y(amount):.1f}" r="3" fill="{color}"/>'
            for millions, amount in points
        ]
    return parts


def legend(lines: list[Line]) -> list[str]:
    """Which color is which engine."""
    parts = []
    for index, engine in enumerate(engines(lines)):
        at = LEFT + index * 160
        parts.append(f'<rect x="{at}" y="10" width="12" height="12" fill="{COLORS[engine]}"/>')
        parts.append(text(at + 18, 20, TITLES.get(engine, engine), "start"))
    return parts


def engines(lines: list[Line]) -> list[str]:
    """The engines, in the order of their lines."""
    return list(dict.fromkeys(line.engine for line in lines))


def rows(line: Line) -> int:
    """The length of a line's history, in millions of rows."""
    return int(line.variant.partition("M")[0])


def ceiling(value: float) -> float:
    """The least round number that is not below a value."""
    power = 1.0
    while power * 10 <= value:
        power *= 10
    while power > value:
        power /= 10
    return next(power * step for step in (1, 2, 2.5, 5, 10) if power * step >= value)


def line_from(x1: float, y1: float, x2: float, y2: float, color: str) -> str:
    """A straight line."""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{color}"/>'


def text(x: float, y: float, words: str, anchor: str) -> str:
    """Words at a point."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'
