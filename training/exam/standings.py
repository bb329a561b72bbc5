"""What the arena's bouts come to: goals, tables, a page and a plot. Missed goals say so."""

from collections.abc import Sequence

import numpy as np

from kernels.sequential import normal_quantile, student_of_normal
from training.exam.arena import SELF, Bout
from training.exam.plots import Line, Panel, svg

NASH_GOAL, COLLUSION_GOAL, FLOOR_GOAL = 0.95, 0.10, 1.1
"""Share of the static equilibrium's profit against everybody; how far from 0 the whole interval of
the collusion index may reach; and how near a price may come to its floor, as a multiple of it."""

COLUMNS = (
    ("nash_share", "{:.3f}"),
    ("settling_share", "{:.3f}"),
    ("possible_share", "{:.3f}"),
    ("best_reply_share", "{:.3f}"),
    ("collusion_index", "{:+.3f}"),
    ("price", "{:.3f}"),
    ("rival_price", "{:.3f}"),
    ("lowest_price", "{:.2f}"),
    ("changes_a_week", "{:.2f}"),
    ("swings_a_year", "{:.2f}"),
    ("wars", "{:.2f}"),
    ("falls", "{:.2f}"),
)


NARROW = ("nash_share", "possible_share", "collusion_index", "lowest_price", "wars", "falls")
"""What a terminal has room for."""


def by_opponent(bouts: Sequence[Bout]) -> dict[str, list[Bout]]:
    """Return the bouts of each opponent, in the order in which they were met."""
    met: dict[str, list[Bout]] = {}
    for bout in bouts:
        met.setdefault(bout.against, []).append(bout)
    return met


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of a mean over seeds (Student's t); of one seed, the value."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, mean
    freedom = len(values) - 1
    reach = student_of_normal(normal_quantile(0.975), freedom)
    reach *= float(np.std(values, ddof=1)) / len(values) ** 0.5
    return mean - reach, mean + reach


def arena_verdicts(bouts: Sequence[Bout]) -> list[tuple[str, bool]]:
    """Return the arena's goals, and whether they are reached.

    The equilibrium's profit is asked for against everybody, although nobody reaches it against
    somebody who sells at his floor: beside it stands what the best reply would have earned.
    """
    judged = []
    for against, met in by_opponent(bouts).items():
        share = float(np.mean([bout.nash_share for bout in met]))
        lowest = min(bout.lowest_price for bout in met)
        spirals = float(np.mean([max(bout.wars, bout.falls) for bout in met]))
        possible = float(np.mean([bout.possible_share for bout in met]))
        judged += [
            (
                f"arena, {against}: {share:.3f} of Nash >= {NASH_GOAL} (best reply {possible:.3f})",
                share >= NASH_GOAL,
            ),
            (
                f"arena, {against}: lowest price {lowest:.2f} of its floor > {FLOOR_GOAL}",
                lowest > FLOOR_GOAL,
            ),
            (f"arena, {against}: listings in wars or falls {spirals:.3f} = 0", spirals == 0.0),
        ]
        if against == SELF:
            indices = [bout.collusion_index for bout in met]
            low, high = interval(indices)
            judged.append(
                (
                    f"arena, {against}: collusion index {np.mean(indices):+.3f} (95 % interval "
                    f"{low:+.3f} to {high:+.3f}, {len(met)} seeds) within {COLLUSION_GOAL}",
                    max(-low, high) <= COLLUSION_GOAL,
                )
            )
    return judged


def cells(against: str, met: Sequence[Bout]) -> list[str]:
    """Return an opponent's row: means over the seeds, and the index's interval."""
    shown = {}
    for name, form in COLUMNS:
        values = [getattr(bout, name) for bout in met]
        shown[name] = form.format(min(values) if name == "lowest_price" else np.mean(values))
        if name == "collusion_index" and len(met) > 1:
            low, high = interval(values)
            shown[name] += f" ({low:+.3f} to {high:+.3f})"
    return [against, str(len(met)), *shown.values()]


def headings() -> list[str]:
    """Return the table's headings."""
    return ["against", "seeds", *(name.replace("_", " ") for name, _ in COLUMNS)]


def narrow_headings() -> list[str]:
    """Return the headings of a terminal's table."""
    return ["against", *(name.replace("_", " ") for name in NARROW)]


def narrow_cells(against: str, met: Sequence[Bout]) -> list[str]:
    """Return an opponent's row for a terminal; the index's interval stands among the goals."""
    whole = dict(zip(headings(), cells(against, met), strict=True))
    return [whole[name].partition(" ")[0] for name in narrow_headings()]


def arena_page(bouts: Sequence[Bout], plot: str) -> str:
    """Return the arena's part of the page, in Markdown; ``plot`` names the picture beside it."""
    names = headings()
    lines = ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
    met = by_opponent(bouts)
    lines += ["| " + " | ".join(cells(against, each)) + " |" for against, each in met.items()]
    lines += ["", "Seed by seed, share of Nash (collusion index):", ""]
    for against, each in met.items():
        told = ", ".join(
            f"{bout.seed}: {bout.nash_share:.3f} ({bout.collusion_index:+.3f})" for bout in each
        )
        lines.append(f"* {against}: {told}")
    return "\n".join([*lines, "", f"![Prices, week by week]({plot})", ""])


def arena_plot(bouts: Sequence[Bout]) -> str:
    """Return both sides' prices of each opponent's first bout, as SVG."""
    panels = [
        Panel(
            title=f"{against}, seed {each[0].seed}",
            lines=(
                Line(name="ours", values=each[0].ours_weekly),
                Line(name="theirs", values=each[0].theirs_weekly),
            ),
            levels=(("static Nash", 1.0), ("monopoly", each[0].monopoly_price)),
        )
        for against, each in by_opponent(bouts).items()
    ]
    return svg("Arena: mean price over the static equilibrium's", panels, "weeks")
