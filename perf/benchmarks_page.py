"""``docs/benchmarks.md`` and its plots, made from the lines that the commands ended with.

Plots are SVG written here: three kinds of marks need no library. matplotlib would add thirty
megabytes to the extra and its files are ten times as big, because it draws letters as outlines.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from perf.measuring import figure_at, figures_in, judged

WIDTH, ROW, LEFT, RIGHT = 760, 24, 400, 120
INK, GRID, GOOD, BAD = "#5f6b7a", "#c9d1da", "#2f7d4f", "#b3422f"
WORDS = {True: "reached", False: "**not reached**", None: "not measured"}


def page(lines: Mapping[str, Any], words: Mapping[str, str], drawn: Sequence[str]) -> str:
    """Return the whole page."""
    parts = [
        "# Benchmarks",
        "",
        "Written by `make bench`; do not edit. Only ratios of one run on one machine count: an",
        "absolute figure is there to be compared with its neighbour in the same table. Sides are",
        "measured in turns; a figure is the median of the pairs, with the least and the greatest",
        "beside it. The bounds stand in [perf/budgets.toml](../perf/budgets.toml). A run that",
        "another process disturbed says so. What a command measures, and against whom, its first",
        "lines say: `python -m perf.NAME --help`.",
        "",
        "## Bounds",
        "",
        "| Row | Claim | Bound | Measured | | Command |",
        "|---|---|---|---|---|---|",
    ]
    ran = {name: str(lines.get(name, {}).get("words", each)) for name, each in words.items()}
    for name in words:
        for gate in judged(name, figures_in(lines.get(name, {}))):
            measured = "-" if gate["measured"] is None else plain(gate["measured"])
            parts.append(
                f"| {gate['row']} | {gate['claim']} | {gate['bound']} | {measured}"
                f" | {WORDS[gate['reached']]} | `{ran[name]}` |"
            )
    parts += ["", *(f"![{name}](benchmarks/{name})" for name in drawn)]
    for name, command in ran.items():
        if name in lines:
            parts += ["", *section(name, command, lines[name])]
    return "\n".join(parts) + "\n"


def section(name: str, command: str, line: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of one command's part."""
    yield f"## {name}"
    yield ""
    yield f"`{command}`"
    yield ""
    if "failure" in line:
        yield f"Failed: {line['failure']}."
        return
    yield from _stamp(line)
    yield ""
    yield "| Figure | Median | Least | Greatest |"
    yield "|---|---|---|---|"
    for label, value in flat(figures_in(line)):
        if isinstance(value, Mapping):
            cells = " | ".join(plain(value[each]) for each in ("median", "least", "most"))
            yield f"| {label} | {cells} |"
        else:
            yield f"| {label} | {plain(value)} | | |"


def _stamp(line: Mapping[str, Any]) -> Iterator[str]:
    stamp = line.get("stamp", {})
    told = [f"{line.get('on', '')}, {line.get('took_s', '?')} s"]
    if stamp:
        versions = ", ".join(f"{name} {each}" for name, each in stamp["versions"].items())
        told += [
            f"{stamp['cpu']}, {stamp['cores']} cores, {stamp['memory_gib']} GiB",
            f"Linux {stamp['linux']}, Python {stamp['python']}, {versions}",
            f"governor {stamp['governor']}, load {stamp['load_average'][0]} before",
        ]
    yield "; ".join(told) + "."
    if stamp.get("disturbed_by"):
        others = ", ".join(
            f"{each['name']} ({each['share']:.0%})" for each in stamp["disturbed_by"][:6]
        )
        yield ""
        yield f"**Disturbed** by other processes (shares of a core): {others}."


LEFT_OUT = {
    *("stamp", "gates", "command", "words", "arguments"),
    *("took_s", "on", "exit_code", "environment"),
}


def flat(figures: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every figure with its whole name; lists of plain values stay as they are."""
    for name, value in figures.items():
        if not before and name in LEFT_OUT:
            continue
        label = f"{before}{name}"
        if isinstance(value, Mapping) and "median" not in value:
            yield from flat(value, f"{label}.")
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            for number, each in enumerate(value):
                yield from flat(each, f"{label}.{each.get('name', number)}.")
        else:
            yield label, value


def plain(value: Any) -> str:
    """Return a value as it stands in a table."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        return text.replace("|", "/").replace("\n", " ")[:200] or "none"
    if isinstance(value, int) or value.is_integer():
        return f"{int(value):,}"
    return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"


# --- plots ----------------------------------------------------------------------------------------


def plots(lines: Mapping[str, Any]) -> dict[str, str]:
    """Return the plots for which there are figures, by file name."""
    found = {}
    bars = [
        (gate["claim"], gate["measured"], gate["bound"], gate["reached"])
        for name in lines
        for gate in judged(name, figures_in(lines[name]))
        if gate["measured"]
    ]
    if bars:
        found["bounds.svg"] = bounds_plot(bars)
    reads = figures_in(lines.get("reads", {}))
    rates = [
        (label, value)
        for label, path in (
            ("gateway, in batches of 1,000", "batched_listings_per_s"),
            ("gateway", "reads_per_s"),
            ("constant bytes", "constant_per_s"),
            ("aiohttp + Redis", "redis_reads_per_s"),
            ("aiohttp + Ray actor", "ray_reads_per_s"),
        )
        if (value := figure_at(reads, path)) is not None
    ]
    if rates:
        found["reads.svg"] = bar_plot("Price reads a second, one core (logarithmic)", rates)
    sizes = figures_in(lines.get("scaling", {})).get("by_size", {})
    if sizes:
        found["scaling.svg"] = line_plot(
            "From the smallest table to the largest (smallest = 1)",
            {
                label: [(float(each["listings"]), float(each[key])) for each in sizes.values()]
                for label, key in (
                    ("nanoseconds an event", "event_ns"),
                    ("nanoseconds a listing repriced", "scan_ns_a_listing"),
                    ("bytes a listing", "bytes_a_listing"),
                )
            },
        )
    return found


def bounds_plot(bars: Sequence[tuple[str, float, str, bool | None]]) -> str:
    """Return how far every measured figure is from its bound, to the right of the line: reached."""
    rows = []
    for claim, measured, bound, reached in bars:
        sign, _, limit = bound.partition(" ")
        margin = measured / float(limit) if sign == ">=" else float(limit) / measured
        # Of what may not be at all, a little is as far off as can be drawn.
        far = math.log2(margin) if margin > 0 else -math.inf
        rows.append((f"{claim} ({bound})", far, plain(measured), reached))
    widest = max([1.0, *(abs(each[1]) for each in rows if math.isfinite(each[1]))])
    middle = LEFT + (WIDTH - LEFT - RIGHT) / 2
    scale = (WIDTH - LEFT - RIGHT) / 2 / widest
    body = [line(middle, 34, middle, 40 + ROW * len(rows), INK)]
    for number, (label, margin, measured_text, reached) in enumerate(rows):
        y = 40 + ROW * number
        begin, end = sorted((middle, middle + max(margin, -widest) * scale))
        body += [
            text(LEFT - 8, y + 13, label[:66], "end"),
            rectangle(begin, y + 3, max(end - begin, 1.0), ROW - 9, GOOD if reached else BAD),
            text(WIDTH - RIGHT + 12, y + 13, measured_text),
        ]
    return svg("Measured against the bound (right of the line: reached)", body, len(rows))


def bar_plot(title: str, bars: Sequence[tuple[str, float]]) -> str:
    """Return horizontal bars on a logarithmic scale."""
    least = min(value for _, value in bars) / 2
    scale = (WIDTH - LEFT - RIGHT) / math.log(max(value for _, value in bars) / least)
    body = []
    for number, (label, value) in enumerate(bars):
        y = 40 + ROW * number
        wide = math.log(value / least) * scale
        body += [
            text(LEFT - 8, y + 13, label, "end"),
            rectangle(LEFT, y + 3, wide, ROW - 9, INK),
            text(LEFT + wide + 8, y + 13, f"{value:,.0f}"),
        ]
    return svg(title, body, len(bars))


def line_plot(title: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Return growth over size on a logarithmic axis, every line from one."""
    points = {
        label: [(math.log10(x), y / pairs[0][1]) for x, y in pairs]
        for label, pairs in series.items()
    }
    xs = [x for pairs in points.values() for x, _ in pairs]
    top = max(2.0, *(y for pairs in points.values() for _, y in pairs)) * 1.05
    height, left, right = 200, 60, 250
    wide = (WIDTH - left - right) / max(max(xs) - min(xs), 1e-9)

    def at(x: float, y: float) -> tuple[float, float]:
        return left + (x - min(xs)) * wide, 40 + height * (1 - y / top)

    body = []
    for mark in (0.0, 1.0, 2.0):
        _, y = at(min(xs), mark)
        body += [line(left, y, WIDTH - right, y, GRID), text(left - 8, y + 4, f"{mark:g}", "end")]
    for x in sorted(set(xs)):
        body.append(text(at(x, 0)[0], 40 + height + 18, f"{round(10**x):,}", "middle"))
    for number, (label, pairs) in enumerate(points.items()):
        color = (INK, BAD, GOOD)[number % 3]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*pair) for pair in pairs))
        body += [
            f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>',
            rectangle(WIDTH - right + 20, 44 + 20 * number, 12, 12, color),
            text(WIDTH - right + 40, 54 + 20 * number, label),
        ]
    return svg(title, body, math.ceil((height + 30) / ROW))


def svg(title: str, body: Sequence[str], rows: int) -> str:
    """Return a whole drawing."""
    height = 52 + ROW * rows
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"'
        f' font-family="sans-serif" font-size="12">'
    )
    back = f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>'
    return "\n".join([head, back, text(12, 22, title, size=14), *body, "</svg>"]) + "\n"


def text(x: float, y: float, words: str, anchor: str = "start", size: int = 12) -> str:
    """Return words at a place."""
    safe = words.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}"'
        f' fill="#22303c">{safe}</text>'
    )


def rectangle(x: float, y: float, wide: float, high: float, color: str) -> str:
    """Return a filled rectangle."""
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{high}" fill="{color}"/>'


def line(x1: float, y1: float, x2: float, y2: float, color: str) -> str:
    """Return a thin line."""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{color}"/>'
