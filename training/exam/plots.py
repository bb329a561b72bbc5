"""Lines over time as one SVG, panel below panel: the exam's plots, with nothing to fetch.

SVG is written here because a few lines and letters need no library.
"""

from collections.abc import Sequence
from html import escape

from msgspec import Struct

WIDTH, HEIGHT, LEFT, RIGHT, TOP, GAP = 760, 110, 60, 150, 44, 34
INK, GRID = "#5f6b7a", "#c9d1da"
COLOURS = ("#1f6fb2", "#b3422f", "#2f7d4f", "#8a5fb0")


class Line(Struct, frozen=True, kw_only=True):
    """Values at equal steps."""

    name: str
    values: tuple[float, ...]


class Panel(Struct, frozen=True, kw_only=True):
    """Lines on one scale, and levels to compare them with."""

    title: str
    lines: tuple[Line, ...]
    levels: tuple[tuple[str, float], ...] = ()


def svg(title: str, panels: Sequence[Panel], step: str) -> str:
    """Return a picture of the panels; ``step`` names what lies between two values."""
    height = TOP + len(panels) * (HEIGHT + GAP) + GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        f'viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="11" fill="{INK}">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="20" font-size="14">{escape(title)}</text>',
    ]
    for place, panel in enumerate(panels):
        parts += _drawn(panel, TOP + place * (HEIGHT + GAP))
    parts.append(f'<text x="{LEFT}" y="{height - 10}">{escape(step)}</text>')
    parts.append("</svg>")
    return "\n".join(parts) + "\n"


def _drawn(panel: Panel, top: int) -> list[str]:
    known = [value for line in panel.lines for value in line.values]
    known += [level for _, level in panel.levels]
    low, high = min(known), max(known)
    room = 0.05 * (high - low) or 0.01
    low, high = low - room, high + room
    right = WIDTH - RIGHT

    def down(value: float) -> float:
        return top + HEIGHT * (high - value) / (high - low)

    parts = [
        f'<text x="{LEFT}" y="{top - 5}" font-weight="bold">{escape(panel.title)}</text>',
        f'<rect x="{LEFT}" y="{top}" width="{right - LEFT}" height="{HEIGHT}" fill="none" '
        f'stroke="{GRID}"/>',
        f'<text x="{LEFT - 6}" y="{top + 10}" text-anchor="end">{high:.2f}</text>',
        f'<text x="{LEFT - 6}" y="{top + HEIGHT}" text-anchor="end">{low:.2f}</text>',
    ]
    for name, level in panel.levels:
        y = down(level)
        parts.append(
            f'<line x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke="{GRID}" '
            f'stroke-dasharray="4 3"/><text x="{right + 6}" y="{y + 4:.1f}">{escape(name)}</text>'
        )
    for place, line in enumerate(panel.lines):
        colour = COLOURS[place % len(COLOURS)]
        last = max(len(line.values) - 1, 1)
        points = " ".join(
            f"{LEFT + (right - LEFT) * at / last:.1f},{down(value):.1f}"
            for at, value in enumerate(line.values)
        )
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.4"/>'
            f'<text x="{right - 90 * (len(panel.lines) - place)}" y="{top - 5}" '
            f'fill="{colour}">{escape(line.name)}</text>'
        )
    return parts
