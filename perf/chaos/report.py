"""The report for people: one HTML file with its plots inside, nothing to fetch."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, Final

from msgspec import to_builtins

from perf.chaos.injuries import BREATHER, TOGETHER_MAX, Struck
from perf.chaos.plan import KINDS
from perf.chaos.rules import RULES
from perf.chaos.run import Told
from perf.chaos.summary import in_words

WIDTH, LEFT, RIGHT = 1120, 130, 20
PLOT_HEIGHT, LANE_HEIGHT, GAP = 130, 16, 46

COLOURS: Final = {
    "kill": "#c0392b",
    "pause": "#e67e22",
    "cut": "#2980b9",
    "disk": "#8e44ad",
    "clock": "#16a085",
    "ray": "#7f8c8d",
}
LINES: Final = ("#1f4e79", "#b8860b", "#2e7d32", "#6a1b9a", "#00838f", "#ad1457")

STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1160px; color: #222; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; margin: .5rem 0; } td, th { padding: .15rem .8rem .15rem 0;
text-align: left; vertical-align: top; border-bottom: 1px solid #ddd; }
.holds { color: #2e7d32; } .broken { color: #c0392b; }
code { background: #f4f4f4; padding: 0 .3em; }
svg text { font: 11px system-ui, sans-serif; fill: #444; }
"""

COMPONENTS: Final = {
    "shard": "shard (its owner)",
    "gcs": "Ray's head (GCS)",
    "postmaster": "postmaster",
    "postgres": "Postgres",
    "questdb": "QuestDB",
    "redis": "Redis",
    "folder": "the engine's folder",
}
"""What was hit, as people call it; the others are called as they are."""

Points = Sequence[tuple[float, float]]


class Plot:
    """Plots one below the other over the same seconds, as parts of an SVG."""

    def __init__(self, seconds: float) -> None:
        self.parts: list[str] = []
        self.height = 10.0
        self._seconds = max(seconds, 1.0)

    def x(self, second: float) -> float:
        """Return where a second stands."""
        return LEFT + (WIDTH - LEFT - RIGHT) * second / self._seconds

    def lines(self, title: str, unit: str, series: Mapping[str, Points]) -> None:
        """Add a plot of lines; its scale is that of its largest value."""
        top = self.height + 26
        bottom = top + PLOT_HEIGHT
        largest = max((y for points in series.values() for _, y in points), default=0.0) or 1.0
        self._text(4, self.height + 10, title, weight="bold")
        for share in (0.0, 0.5, 1.0):
            y = bottom - share * PLOT_HEIGHT
            self.parts.append(
                f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#eee"/>'
            )
            self._text(LEFT - 6, y + 4, f"{_number(largest * share)} {unit}", anchor="end")
        for (name, points), colour in zip(series.items(), LINES, strict=False):
            path = " ".join(
                f"{self.x(x):.1f},{bottom - y / largest * PLOT_HEIGHT:.1f}" for x, y in points
            )
            self.parts.append(
                f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.2">'
                f"<title>{escape(name)}</title></polyline>"
            )
        legend = LEFT
        for name, colour in zip(series, LINES, strict=False):
            self._text(legend, self.height + 10, name, colour=colour)
            legend += 9 * len(name) + 20
        self.height = bottom + GAP - 26

    def lanes(self, title: str, struck: Sequence[Struck], from_ms: int) -> None:
        """Add a lane a component, with a bar for every fault that hit it."""
        self._text(4, self.height + 10, title, weight="bold")
        legend = LEFT
        for kind, colour in COLOURS.items():
            self._text(legend, self.height + 10, kind, colour=colour)
            legend += 60
        names = sorted({each.fault.target for each in struck})
        top = self.height + 20
        for number, name in enumerate(names):
            y = top + number * LANE_HEIGHT
            self._text(LEFT - 6, y + 11, name, anchor="end")
            self.parts.append(
                f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y + 14}" y2="{y + 14}" '
                'stroke="#f2f2f2"/>'
            )
        for each in struck:
            begin = self.x((each.fired_ms - from_ms) / 1000)
            end = self.x((max(each.over_ms, each.fired_ms) - from_ms) / 1000)
            y = top + names.index(each.fault.target) * LANE_HEIGHT
            told = f"{each.fault.number}: {each.fault.name}, {each.fault.seconds} s. {each.note}"
            self.parts.append(
                f'<rect x="{begin:.1f}" y="{y}" width="{max(end - begin, 2):.1f}" height="12" '
                f'fill="{COLOURS[each.fault.kind]}" fill-opacity="0.75">'
                f"<title>{escape(told)}</title></rect>"
            )
        self.height = top + len(names) * LANE_HEIGHT + GAP - 18

    def moments(self, seconds: Iterable[float], colour: str) -> None:
        """Draw a line through everything at these moments."""
        for second in seconds:
            x = self.x(second)
            self.parts.append(
                f'<line x1="{x:.1f}" x2="{x:.1f}" y1="10" y2="{self.height:.0f}" '
                f'stroke="{colour}" stroke-width="1" stroke-opacity="0.6"/>'
            )

    def axis(self) -> None:
        """Add the time below everything."""
        step = next(each for each in (5, 15, 30, 60, 120, 300, 600) if self._seconds / each <= 20)
        second = 0.0
        while second <= self._seconds:
            label = f"{second:.0f} s" if step < 60 else f"{second / 60:.0f} min"
            self._text(self.x(second), self.height + 4, label, anchor="middle")
            second += step
        self.height += 14

    def svg(self) -> str:
        """Return the whole."""
        return (
            f'<svg viewBox="0 0 {WIDTH} {self.height:.0f}" width="100%" role="img">'
            + "".join(self.parts)
            + "</svg>"
        )

    def _text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        anchor: str = "start",
        weight: str = "normal",
        colour: str = "#444",
    ) -> None:
        self.parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}" '
            f'style="fill:{colour}">{escape(text)}</text>'
        )


def files_of(path: Path) -> tuple[Path, Path]:
    """Return the files of a report: for people and, beside it, for programs."""
    page = path.with_suffix(".html") if path.suffix == ".json" else path
    return page, page.with_suffix(".json")


def write_report(path: Path, told: Told, found: Mapping[str, Any]) -> None:
    """Write the report for people, and all of it as JSON beside it."""
    page, plain = files_of(path)
    page.write_text(report(told, found))
    document = dict(found) | {
        "rules": RULES,
        "violations": [to_builtins(each) for each in told.checker.violations],
        "timeline": [to_builtins(each) for each in told.struck],
    }
    plain.write_text(json.dumps(document, indent=1) + "\n")


def report(told: Told, found: Mapping[str, Any]) -> str:
    """Return the report as HTML."""
    holds = found["verdict"] == "holds"
    body = [
        "<h1>repricer chaos: the verdict "
        f'<span class="{"holds" if holds else "broken"}">{found["verdict"]}</span></h1>',
        f"<p>{found['faults']} faults hit in {found['seconds'] / 60:.1f} minutes, "
        f"{sum(found['decisions']):,} decisions, {found['deltas_acknowledged']:,} deltas "
        f"acknowledged, {found['judged'].get('reads', 0):,} reads and "
        f"{found['judged'].get('commands', 0):,} answers to commands judged. "
        f"{escape(in_words(found))}. "
        f"The same faults on the same targets again: <code>{escape(found['again'])}</code></p>",
        *([f"<p>The run ended early: {escape(found['ended'])}.</p>"] if "ended" in found else []),
        plots(told),
        f"<p>At most {TOGETHER_MAX} faults at a time and one a component; every {BREATHER} faults "
        "the run waits until everything lives again. A bar ends when what was hit works again. "
        "Red lines are violations, grey ones midnights of the market.</p>",
        "<h2>Faults that hit</h2>",
        _faults(found),
        "<h2>Rules</h2>",
        _rules(found),
    ]
    if found["violations"]:
        lines = "".join(f"<li><code>{escape(each)}</code></li>" for each in found["violations"])
        body.append(f"<h2>Violations</h2><ul>{lines}</ul>")
    body += ["<h2>Figures</h2>", _figures(found)]
    body += ["<h2>Machine</h2>", _machine(found["stamp"])]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"<title>repricer chaos, seed {found['seed']}</title><style>{STYLE}</style></head><body>"
        + "\n".join(body)
        + "</body></html>\n"
    )


def plots(told: Told) -> str:
    """Return the timeline: marks, latency, staleness and faults over the same seconds."""
    from_ms, to_ms = told.began_ms, max(told.ended_ms, told.began_ms + 1000)
    seconds = (to_ms - from_ms) / 1000
    plot = Plot(seconds)
    heard = told.following.heard
    span = range(from_ms // 1000, to_ms // 1000)
    plot.lines(
        "marks",
        "/s",
        {
            f"shard {shard}": [(x - span.start, float(counts.get(x, 0))) for x in span]
            for shard, counts in enumerate(heard.decisions)
        },
    )
    waits = [(x - span.start, heard.waits.get(x, 0) / 1000) for x in span]
    plot.lines("delta to decision", "s", {"longest wait, by the log's times": waits})
    latency = _by_second(told.gateway.latencies_ms, from_ms)
    plot.lines(
        "price reads",
        "ms",
        {
            "median": [(x, sorted(each)[len(each) // 2]) for x, each in latency],
            "slowest": [(x, max(each)) for x, each in latency],
        },
    )
    ages = _by_second(told.gateway.stale, from_ms)
    plot.lines(
        "age of answers", "s", {"oldest answer": [(x, max(each) / 1000) for x, each in ages]}
    )
    plot.lanes("faults", [each for each in told.struck if each.fired], from_ms)
    broken = [(each.at_ms - from_ms) / 1000 for each in told.checker.violations]
    if told.wish.learning:
        midnights = told.calendar.midnights(to_ms)
        plot.moments([(each - from_ms) / 1000 for each in midnights], "#9e9e9e")
    plot.moments([second for second in broken if 0 <= second <= seconds], "#c0392b")
    plot.axis()
    return plot.svg()


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _by_second(
    samples: Iterable[tuple[int, float]], from_ms: int
) -> list[tuple[float, list[float]]]:
    found: defaultdict[int, list[float]] = defaultdict(list)
    for at_ms, value in samples:
        found[(at_ms - from_ms) // 1000].append(value)
    return [(float(second), found[second]) for second in sorted(found) if second >= 0]


def _faults(found: Mapping[str, Any]) -> str:
    """Return what hit, by component and kind, then what each kind is."""
    counted = found["hits"]
    names = sorted({name for each in counted.values() for name in each})
    rows = []
    for name in names:
        counts = [counted.get(kind, {}).get(name, 0) for kind in KINDS]
        rows.append((COMPONENTS.get(name, name), *map(_count, counts), str(sum(counts))))
    totals = [sum(counted.get(kind, {}).values()) for kind in KINDS]
    rows.append(("all", *map(_count, totals), str(sum(totals))))
    kinds = []
    for kind, what in KINDS.items():
        why = found["left_out"].get(kind)
        kinds.append((kind, what, f"left out: {why}" if why else ""))
    if found["missed"]:
        kinds.append(("missed", "the target was not there in time", str(found["missed"])))
    return _table(("what was hit", *KINDS, "all"), rows) + _table(("kind", "what it is", ""), kinds)


def _count(count: int) -> str:
    return str(count) if count else ""


def _machine(stamp: Mapping[str, Any]) -> str:
    """Return what the run must be read with."""
    rows = []
    for name, value in stamp.items():
        if isinstance(value, Mapping):
            shown = ", ".join(f"{each} {version}" for each, version in value.items())
        else:
            shown = str(value) if value != [] else "nobody"
        rows.append((name.replace("_", " "), shown))
    return _table(("", ""), rows)


def _rules(found: Mapping[str, Any]) -> str:
    rows = [
        (rule, words, str(found["broken"].get(rule, 0) or "holds")) for rule, words in RULES.items()
    ]
    return _table(("rule", "in words", "broken"), rows)


def _figures(found: Mapping[str, Any]) -> str:
    left_out = {"violations", "broken", "fired_by_target", "fired", "hits", "left_out", "stamp"}
    rows = [
        (name.replace("_", " "), str(value))
        for name, value in found.items()
        if name not in left_out
    ]
    return _table(("", ""), rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["<tr>" + "".join(f"<th>{escape(each)}</th>" for each in head) + "</tr>"]
    for row in rows:
        lines.append("<tr>" + "".join(f"<td>{escape(each)}</td>" for each in row) + "</tr>")
    return "<table>" + "".join(lines) + "</table>"
