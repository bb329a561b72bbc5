"""The simulated half of the exam: every scenario and every world of our own, seed by seed."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from msgspec import Struct, to_builtins
from msgspec.structs import asdict

from training.exam.calibration import Calibration, Watch, calibration_verdicts
from training.exam.driving import Result, sit
from training.exam.published_rules import PUBLISHED, shares, told_share
from training.worlds.priced import PricedWorld
from training.worlds.settings import PERTURBED, SCENARIOS

GOALS: dict[str, float] = {
    "S1": 0.978,
    "S2": 0.985,
    "S3": 0.975,
    "S4": 0.966,
    "S5": 0.985,
    "S6": 0.962,
}
"""Share of the clairvoyant's profit that each scenario shall reach."""

GAP_SCENARIOS, GAP_GOAL = ("S1", "S3", "S4", "S6"), 0.5
"""Mean gap closed over these shall be at least this; in no world may it be negative."""


class Row(Struct, frozen=True, kw_only=True):
    """A world's results over its seeds."""

    world: str
    seeds: tuple[int, ...]
    results: tuple[Result, ...]
    calibration: Calibration | None  # over all seeds; None: not a whole week was priced
    published: tuple[dict[str, float], ...]  # shares of published rules, a seed each

    def mean(self, name: str) -> float:
        """Return the mean of one score over the seeds."""
        return float(np.mean([getattr(result, name) for result in self.results]))

    def spread(self, name: str) -> float:
        """Return its standard deviation over the seeds."""
        return float(np.std([getattr(result, name) for result in self.results]))

    def rival(self, name: str) -> float:
        """Return the mean share of a published rule."""
        return float(np.mean([each[name] for each in self.published]))

    @property
    def lowest_gap(self) -> float:
        """Return the gap closed on the worst seed."""
        return min(result.gap_closed for result in self.results)


def worlds_named(names: Sequence[str]) -> tuple[str, ...]:
    """Return the worlds that ``names`` mean: ``scenarios``, ``perturbed``, ``all``, or a name.

    Raises:
        KeyError: no world has that name.
    """
    groups = {
        "scenarios": tuple(SCENARIOS),
        "perturbed": tuple(PERTURBED),
        "all": (*SCENARIOS, *PERTURBED),
    }
    found: list[str] = []
    for name in names:
        if name not in groups and name not in SCENARIOS and name not in PERTURBED:
            raise KeyError(name)
        found += groups.get(name, (name,))
    return tuple(dict.fromkeys(found))


def examine(
    worlds: Sequence[str],
    seeds: Sequence[int],
    listings: int,
    days: int,
    policy: dict[str, object] | None = None,
    told: Callable[[], None] = lambda: None,
) -> Iterator[Row]:
    """Give the row of each world, in order; ``told`` is called after each day of each seed."""
    for name in worlds:
        setting = SCENARIOS.get(name) or PERTURBED[name]
        watch, results, published = Watch(), [], []
        for seed in seeds:
            make = partial(PricedWorld, setting, seed, listings, days)
            results.append(sit(make(), policy, told=lambda day: told(), watch=watch))
            published.append(shares(make))
        yield Row(
            world=name,
            seeds=tuple(seeds),
            results=tuple(results),
            calibration=watch.calibration(),
            published=tuple(published),
        )


def verdicts(rows: Sequence[Row]) -> list[tuple[str, bool]]:
    """Return every goal that these rows can judge, and whether it is reached."""
    by_name = {row.world: row for row in rows}
    judged = [
        (
            f"{name}: share {by_name[name].mean('share'):.4f} >= {goal}",
            by_name[name].mean("share") >= goal,
        )
        for name, goal in GOALS.items()
        if name in by_name
    ]
    if all(name in by_name for name in GAP_SCENARIOS):
        gap = float(np.mean([by_name[name].mean("gap_closed") for name in GAP_SCENARIOS]))
        judged.append(
            (f"mean gap closed of S1, S3, S4, S6 {gap:+.3f} >= +{GAP_GOAL}", gap >= GAP_GOAL)
        )
    judged += [
        (
            f"{row.world}: gap closed {row.mean('gap_closed'):+.3f} is not negative",
            row.mean("gap_closed") >= 0.0,
        )
        for row in rows
    ]
    violations = sum(result.violations for row in rows for result in row.results)
    trips = sum(result.trips for row in rows for result in row.results)
    judged.append((f"guardrail violations {violations} = 0", violations == 0))
    judged.append((f"trips of the breaker {trips} = 0", trips == 0))
    for row in rows:
        best = max(PUBLISHED, key=row.rival)
        share = row.mean("share")
        told = f"{row.world}: share {share:.4f} >= {row.rival(best):.4f} of the best rule, {best}"
        judged.append((told, share >= row.rival(best)))
    return judged + calibration_verdicts(calibrations(rows))


def calibrations(rows: Sequence[Row]) -> list[tuple[str, Calibration]]:
    """Return the worlds in which beliefs could be held against what came."""
    return [(row.world, row.calibration) for row in rows if row.calibration is not None]


def rival_headings() -> list[str]:
    """Return the headings of the table of who earns what."""
    return ["world", "fixed", *(name.replace("_", " ") for name in PUBLISHED), "repricer"]


def rival_cells(row: Row) -> list[str]:
    """Return who earns what of the clairvoyant's profit, and in brackets the gap closed."""
    fixed = row.mean("fixed")
    told = [told_share(row.rival(name), fixed) for name in PUBLISHED]
    return [row.world, f"{fixed:.4f}", *told, told_share(row.mean("share"), fixed)]


def published_page(rows: Sequence[Row]) -> str:
    """Return the table of who earns what, in Markdown."""
    names = rival_headings()
    lines = ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
    lines += ["| " + " | ".join(rival_cells(row)) + " |" for row in rows]
    return "\n".join([*lines, ""])


COLUMNS = (
    ("share", "{:.4f}"),
    ("fixed", "{:.4f}"),
    ("gap_closed", "{:+.3f}"),
    ("worst_listings", "{:+.3f}"),
    ("changes_a_week", "{:.2f}"),
    ("exploration_cost", "{:.4f}"),
    ("violations", "{:.0f}"),
    ("trips", "{:.0f}"),
)


def cells(row: Row) -> list[str]:
    """Return a row of the table: means over seeds, and the gap's spread and lowest seed."""
    shown = [form.format(row.mean(name)) for name, form in COLUMNS]
    shown[2] += f" ({row.lowest_gap:+.2f} lowest, sd {row.spread('gap_closed'):.2f})"
    return [row.world, *shown]


def page(
    rows: Sequence[Row],
    parts: dict[str, Any],
    judged: Sequence[tuple[str, bool]],
    heading: str,
) -> str:
    """Return everything as a page, failures as loud as passes."""
    names = ["world", *(name.replace("_", " ") for name, _ in COLUMNS)]
    lines = [f"# {heading}", "", "| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
    lines += ["| " + " | ".join(cells(row)) + " |" for row in rows]
    lines += ["", "Seed by seed, gap closed:", ""]
    for row in rows:
        pairs = zip(row.seeds, row.results, strict=True)
        told = ", ".join(f"{seed}: {result.gap_closed:+.3f}" for seed, result in pairs)
        lines.append(f"* {row.world}: {told}")
    for name, part in parts.items():
        lines += ["", f"## {name.replace('_', ' ')}", ""]
        if isinstance(part, str):  # a page of its own making
            lines.append(part)
            continue
        for each in part if isinstance(part, list) else [part]:
            lines += [f"* {key.replace('_', ' ')}: {value}" for key, value in each.items()]
            lines.append("")
    lines += ["", "| goal | reached |", "|---|---|"]
    lines += [f"| {goal} | {'yes' if reached else '**NO**'} |" for goal, reached in judged]
    return "\n".join(lines) + "\n"


def plain(rows: Sequence[Row]) -> dict[str, Any]:
    """Return the worlds' results as plain values, for JSON."""
    return {
        "worlds": [
            {
                "world": row.world,
                "seeds": list(row.seeds),
                "results": [asdict(result) for result in row.results],
                "calibration": to_builtins(row.calibration),
                "published": list(row.published),
            }
            for row in rows
        ]
    }
