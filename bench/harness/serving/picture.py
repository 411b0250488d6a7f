"""Draws the distribution of latencies, as an SVG without scripts or fonts."""

import math
import statistics
from pathlib import Path

from harness.growth import GRID, INK, line_from, text
from harness.serving.load import BARE, FEAST, TITLES, UNSKEW
from harness.serving.rounds import Line

WIDTH, HEIGHT = 860, 340
LEFT, TOP, PANEL, DEPTH = 72, 56, 740, 216
COLORS = {UNSKEW: "#0b6e4f", BARE: "#2f6fb7", FEAST: "#c98a00"}
# Requests that are slower than the point: 1 of 10, of 100, …
DECADES = 4


def draw(path: Path, lines: list[Line]) -> None:
    """Writes the drawing of the lines, all of which ran at the same number of connections."""
    done = [line for line in lines if line.done]
    if not done:
        return
    curves = {line.title: curve(line) for line in done}
    every = [micros for points in curves.values() for _, micros in points]
    low = math.floor(math.log10(min(every)))
    high = math.ceil(math.log10(max(every)))

    def x(share: float) -> float:
        return LEFT + PANEL * -math.log10(max(1 - share, 10**-DECADES)) / DECADES

    def y(micros: float) -> float:
        return TOP + DEPTH * (high - math.log10(micros)) / max(high - low, 1)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'font-family="sans-serif" font-size="12" fill="{INK}">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        text(LEFT, TOP - 12, "latency, µs", "start"),
    ]
    for power in range(low, high + 1):
        at = y(10.0**power)
        parts.append(line_from(LEFT, at, LEFT + PANEL, at, GRID))
        parts.append(text(LEFT - 8, at + 4, f"{10**power:,}", "end"))
    for decade in range(DECADES + 1):
        at = LEFT + PANEL * decade / DECADES
        percent = 100 * (1 - 10.0**-decade)
        parts.append(line_from(at, TOP + DEPTH, at, TOP + DEPTH + 4, INK))
        parts.append(text(at, TOP + DEPTH + 18, f"{percent:.{max(decade - 2, 0)}f} %", "middle"))
    parts.append(text(LEFT + PANEL / 2, TOP + DEPTH + 38, "of requests, within", "middle"))
    for index, line in enumerate(done):
        points = " ".join(f"{x(share):.1f},{y(micros):.1f}" for share, micros in curves[line.title])
        color = COLORS[line.kind]
        parts.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="2"/>')
        at = LEFT + index * 260
        parts.append(f'<rect x="{at}" y="12" width="12" height="12" fill="{color}"/>')
        words = f"{TITLES[line.kind]}, at {line.rate:,.0f}/s"
        parts.append(text(at + 18, 22, words, "start"))
    path.write_text("\n".join([*parts, "</svg>"]) + "\n")


def curve(line: Line) -> list[tuple[float, float]]:
    """The points of all rounds, the median of each."""
    rounds = zip(*(outcome["points"] for outcome in line.open), strict=True)
    return [(points[0][0], statistics.median(micros for _, micros in points)) for points in rounds]
