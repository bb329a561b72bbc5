"""Whether what the shard believes comes true in the simulated worlds: coverage and confidence.

Once a week the shard's documented features are read, and the week's sales are foreseen from them
before they happen: the level at the filtered price, moved by elasticity, curvature and the rival's
last known price, given the prices that are then asked. Noise is what its model says: counting, the
retailer's dispersion, what a level is unsure of and how far it moves in a day. What is common to
all of a shop's listings is not foreseen by the shard, which takes it out of each day afterwards; so
coverage given the shop's week stands beside, all forecasts multiplied by sold over foreseen.

The same reading holds an elasticity with its standard deviation, against the world's true one, and
the confidence of the quote: the expected share of the attainable profit. What came of it is the
expected profit at the price in force, as a share of the clairvoyant's on that day.
"""

from collections.abc import Sequence

import numpy as np
from msgspec import Struct

from engine.slow_sellers import NORMAL_90
from kernels.hyperparameters import LEVEL_SD, PSEUDO_UNITS
from training.exam.driving import RETAILER, Driven
from training.exam.plots import Line, Panel, svg
from training.worlds.priced import Day

WEEK_DAYS = 7
LEVEL_WALK = float(np.square(np.cumsum(np.ones(WEEK_DAYS))).sum() / WEEK_DAYS**2)
"""A level that moves by a variance of 1 a day is off by so much in the mean over a week's days."""

COVERED, COVERED_PART = (0.88, 0.92), (0.85, 0.95)
"""What 90 % intervals shall cover, of all and of each tercile of volume."""

CONFIDENCE_GOAL = 0.02
"""How far confidence may be off the share that came, in the mean over ten bins."""

BINS, TERCILES = 10, 3
COUNTED_MAX = 200.0
"""Above this mean a count's distribution is taken as a gamma's."""

ROWS_AT_ONCE = 256


class Bin(Struct, frozen=True, kw_only=True):
    """A tenth of the quotes, by the confidence that they bear."""

    count: int
    low: float  # least confidence in it
    high: float
    stated: float  # mean confidence
    came: float  # mean share of the attainable profit that the price in force earns
    better: float  # share of the quotes whose price earns more than never having moved it


class Calibration(Struct, frozen=True, kw_only=True):
    """How well a world's beliefs were calibrated, over all seeds and weeks."""

    forecasts: int  # listings times weeks
    demand: float  # share of the next week's units inside of 90 % intervals; see ``inside``
    demand_by_volume: tuple[float, ...]  # by tercile of what was foreseen
    demand_whole: float  # the same where an interval is whole numbers, ends included
    demand_given_shop: float  # as ``demand``, given what the whole shop sold in the week
    demand_given_shop_by_volume: tuple[float, ...]
    demand_bias: float  # units foreseen over units sold, less 1
    elasticity: float  # share of the true elasticities inside of mean +- 1.645 sd
    elasticity_by_volume: tuple[float, ...]
    elasticity_scatter: float  # rms of (true - mean) / sd: 1 where sd is right
    confidence_error: float  # mean over the bins of |stated - came|
    bins: tuple[Bin, ...]


class Beliefs(Struct, frozen=True, eq=False):
    """What is read of the shard as a week begins, float64[listings] each."""

    level: np.ndarray  # units a day at the filtered price
    level_sd: np.ndarray
    price_log: np.ndarray  # filtered, against the price found at import
    rival_log: np.ndarray
    elasticity: np.ndarray
    elasticity_sd: np.ndarray
    confidence: np.ndarray
    curvature: np.ndarray
    rival_pull: float
    dispersion: float


class Watch:
    """Reads beliefs and notes what comes true. ``before`` and ``after`` each day of each seed."""

    def __init__(self) -> None:
        self._weeks: list[np.ndarray] = []  # float64[4, n]: mean, relative variance, units, shop
        self._elasticities: list[np.ndarray] = []  # float64[4, n]: true, mean, sd, volume
        self._quotes: list[np.ndarray] = []  # float64[3, n]: stated, came, better
        self._beliefs: Beliefs | None = None

    def before(self, driven: Driven) -> None:
        """Read the shard as a week begins; foresee the day that is about to happen."""
        world = driven.world
        if world.day % WEEK_DAYS == 0:
            self._beliefs = beliefs_of(driven)
            self._mean = np.zeros(world.listings)
            self._moved = np.zeros(world.listings)
            self._units = np.zeros(world.listings)
            self._to_be_had = np.ones(world.listings, dtype=bool)
            self._note_beliefs(driven, self._beliefs)
        if self._beliefs is not None:
            moved, day = foreseen_day(self._beliefs, driven)
            self._mean += day
            self._moved += day * moved

    def after(self, driven: Driven, day: Day) -> None:
        """Note what a day sold; a week in which a shelf was empty says nothing of demand."""
        if self._beliefs is None:
            return
        self._units += day.units
        self._to_be_had &= day.in_stock
        if driven.world.day % WEEK_DAYS == 0:
            self._close(self._beliefs)
            self._beliefs = None

    def _close(self, beliefs: Beliefs) -> None:
        moved = self._moved / np.maximum(self._mean, 1e-9)
        variance = np.square(beliefs.level_sd) + LEVEL_WALK * LEVEL_SD**2
        variance += np.square(beliefs.elasticity_sd * moved) + beliefs.dispersion / WEEK_DAYS
        known = self._to_be_had & np.isfinite(self._mean) & np.isfinite(variance)
        sold, foreseen = self._units[known].sum(), self._mean[known].sum()
        shop = np.full(len(known), (sold + PSEUDO_UNITS) / (foreseen + PSEUDO_UNITS))
        self._weeks.append(np.stack([self._mean, variance, self._units, shop])[:, known])

    def _note_beliefs(self, driven: Driven, beliefs: Beliefs) -> None:
        world, price = driven.world, driven.price.astype(np.float64)
        of = (world.elasticities(), beliefs.elasticity, beliefs.elasticity_sd, beliefs.level)
        known = np.isfinite(np.stack(of)).all(axis=0)
        self._elasticities.append(np.stack(of)[:, known])
        best, still = world.profit(world.best_price()), world.profit(world.today)
        mine = world.profit(price)
        quoted = np.isfinite(beliefs.confidence) & (best > 0.0)
        share = mine / np.where(best > 0.0, best, 1.0)
        self._quotes.append(np.stack([beliefs.confidence, share, mine > still])[:, quoted])

    def calibration(self) -> Calibration | None:
        """Return how it went, ``None`` before a whole week has passed."""
        if not self._weeks or not sum(of.shape[1] for of in self._weeks):
            return None
        mean, variance, units, shop = np.concatenate(self._weeks, axis=1)
        exact, whole = inside(mean, variance, units)
        given, _ = inside(mean * shop, variance, units)
        true, believed, sd, volume = np.concatenate(self._elasticities, axis=1)
        off = (true - believed) / sd
        held = (np.abs(off) <= NORMAL_90).astype(np.float64)
        bins = reliability(*np.concatenate(self._quotes, axis=1))
        weight = np.array([of.count for of in bins], dtype=np.float64)
        errors = np.array([abs(of.stated - of.came) for of in bins])
        return Calibration(
            forecasts=len(mean),
            demand=float(exact.mean()),
            demand_by_volume=by_tercile(mean, exact),
            demand_whole=float(whole.mean()),
            demand_given_shop=float(given.mean()),
            demand_given_shop_by_volume=by_tercile(mean, given),
            demand_bias=float(mean.sum() / max(units.sum(), 1.0) - 1.0),
            elasticity=float(held.mean()),
            elasticity_by_volume=by_tercile(volume, held),
            elasticity_scatter=float(np.sqrt(np.square(off).mean())),
            confidence_error=float((errors * weight).sum() / weight.sum()),
            bins=bins,
        )


def beliefs_of(driven: Driven) -> Beliefs:
    """Return what the shard says of its listings now, by its documented reads alone."""
    told = driven.shard.features(driven.keys)

    def read(name: str) -> np.ndarray:
        values = [None if of is None else of[name] for of in told]
        return np.array([np.nan if value is None else value for value in values])

    elasticity = read("elasticity")
    bend, pull, dispersion = np.full(driven.world.listings, np.nan), np.nan, np.nan
    shared = driven.shard.learning(RETAILER, fit=False)
    if shared is not None:
        pull, dispersion = shared["rival_pull"], shared["dispersion"]
        forms = {name: of["form"] for name, of in shared["forms"].items()}
        form = np.array([forms.get(name, "pooled") for name in driven.categories])
        bend = np.where(form == "constant", 0.0, shared["curvature"])
        bend = np.where(form == "exponential", -0.5 * elasticity, bend)
    return Beliefs(
        level=read("demand_level"),
        level_sd=read("demand_level_sd"),
        price_log=read("price_filtered"),
        rival_log=read("rival_filtered"),
        elasticity=elasticity,
        elasticity_sd=read("elasticity_sd"),
        confidence=read("confidence"),
        curvature=bend,
        rival_pull=pull,
        dispersion=dispersion,
    )


def foreseen_day(beliefs: Beliefs, driven: Driven) -> tuple[np.ndarray, np.ndarray]:
    """Return by how much the log price moved off the filtered one, and the units foreseen."""
    x = np.log(driven.price / driven.world.today)
    moved = x - beliefs.price_log
    rival = np.log(driven.rival / driven.world.today) - beliefs.rival_log
    rival = np.where(np.isfinite(rival), rival, 0.0)
    log = beliefs.elasticity * moved + beliefs.rival_pull * rival
    log = log - beliefs.curvature * (np.square(x) - np.square(beliefs.price_log))
    return moved, np.asarray(beliefs.level * np.exp(np.clip(log, -6.0, 6.0)))


# ----- what intervals cover ----------------------------------------------------------------------


def inside(
    mean: np.ndarray, variance: np.ndarray, units: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return how far each count lies inside its central 90 %, in [0, 1], and whether it does whole.

    A count at the end of an interval lies inside with the part of its probability that does, which
    is what a randomised interval covers (Czado, Gneiting and Held 2009): intervals of whole numbers
    cover more than they say where few are sold, and that is no merit.

    Args:
        mean: float64[n], positive.
        variance: float64[n], of the rate, relative to its square: negative binomial.
        units: float64[n], what sold.
    """
    exact, whole = np.zeros(len(mean)), np.zeros(len(mean))
    few = mean <= COUNTED_MAX
    for first in range(0, int(few.sum()), ROWS_AT_ONCE):
        at = np.flatnonzero(few)[first : first + ROWS_AT_ONCE]
        before, upto = _below(mean[at], variance[at], units[at])
        overlap = np.minimum(upto, 0.95) - np.maximum(before, 0.05)
        exact[at] = np.clip(overlap / np.maximum(upto - before, 1e-300), 0.0, 1.0)
        whole[at] = (upto >= 0.05) & (before < 0.95)
    many = np.flatnonzero(~few)
    # A gamma distribution's cube root is nearly normal (Wilson and Hilferty 1931).
    ninth = (variance[many] + 1.0 / mean[many]) / 9.0
    off = (np.cbrt(units[many] / mean[many]) - (1.0 - ninth)) / np.sqrt(ninth)
    exact[many] = whole[many] = np.abs(off) <= NORMAL_90
    return exact, whole


def _below(
    mean: np.ndarray, variance: np.ndarray, units: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the chance of fewer units than sold, and that of no more."""
    size = 1.0 / np.maximum(variance, 1e-9)
    number = np.arange(1, int(units.max()) + 1)
    ratio = (number - 1.0 + size[:, None]) / number * (mean / (mean + size))[:, None]
    none = -size * np.log1p(mean / size)
    logs = np.concatenate([np.zeros((len(mean), 1)), np.cumsum(np.log(ratio), axis=1)], axis=1)
    below = np.cumsum(np.exp(logs + none[:, None]), axis=1)
    at, rows = units.astype(np.int64), np.arange(len(mean))
    upto = np.minimum(below[rows, at], 1.0)
    return np.where(at > 0, np.minimum(below[rows, np.maximum(at - 1, 0)], 1.0), 0.0), upto


def by_tercile(volume: np.ndarray, held: np.ndarray) -> tuple[float, ...]:
    """Return the mean of ``held`` in each third of the rows by volume, the slowest first."""
    return tuple(float(part.mean()) for part in _parts(volume, held, TERCILES))


def reliability(stated: np.ndarray, came: np.ndarray, better: np.ndarray) -> tuple[Bin, ...]:
    """Return ten bins of as many quotes each, the least confident first."""
    order = np.argsort(stated, kind="stable")
    return tuple(
        Bin(
            count=len(at),
            low=float(stated[at[0]]),
            high=float(stated[at[-1]]),
            stated=float(stated[at].mean()),
            came=float(came[at].mean()),
            better=float(better[at].mean()),
        )
        for at in np.array_split(order, BINS)
        if len(at)
    )


def _parts(by: np.ndarray, column: np.ndarray, parts: int) -> list[np.ndarray]:
    """Return the column in parts of as many rows each, in the order of ``by``."""
    split = np.array_split(column[np.argsort(by, kind="stable")], parts)
    return [part for part in split if len(part)]


# ----- goals and tables --------------------------------------------------------------------------


def calibration_verdicts(found: Sequence[tuple[str, Calibration]]) -> list[tuple[str, bool]]:
    """Return each world's goals, and whether they are reached."""
    judged = []
    for world, of in found:
        for name, covered, parts in (
            ("next week's units", of.demand, of.demand_by_volume),
            ("elasticities", of.elasticity, of.elasticity_by_volume),
        ):
            reached = COVERED[0] <= covered <= COVERED[1]
            reached &= COVERED_PART[0] <= min(parts) and max(parts) <= COVERED_PART[1]
            judged.append(
                (
                    f"{world}: 90 % intervals of {name} cover {covered:.3f}, .88 to .92; by volume "
                    f"{min(parts):.3f} to {max(parts):.3f}, .85 to .95",
                    reached,
                )
            )
        judged.append(
            (
                f"{world}: confidence is off by {of.confidence_error:.3f} <= {CONFIDENCE_GOAL}",
                of.confidence_error <= CONFIDENCE_GOAL,
            )
        )
    return judged


COLUMNS = (
    "world",
    "units covered",
    "by volume",
    "whole",
    "bias",
    "given the shop's week",
    "by volume ",
    "elasticities covered",
    "by volume  ",
    "scatter",
    "confidence off by",
)


def cells(world: str, of: Calibration) -> list[str]:
    """Return a world's row; what misses its goal bears a ``!``."""

    def marked(value: float, bounds: tuple[float, float]) -> str:
        return f"{value:.3f}" + ("" if bounds[0] <= value <= bounds[1] else "!")

    def parts(values: tuple[float, ...]) -> str:
        return " ".join(marked(value, COVERED_PART) for value in values)

    return [
        world,
        marked(of.demand, COVERED),
        parts(of.demand_by_volume),
        f"{of.demand_whole:.3f}",
        f"{of.demand_bias:+.3f}",
        marked(of.demand_given_shop, COVERED),
        parts(of.demand_given_shop_by_volume),
        marked(of.elasticity, COVERED),
        parts(of.elasticity_by_volume),
        f"{of.elasticity_scatter:.2f}",
        marked(of.confidence_error, (0.0, CONFIDENCE_GOAL)),
    ]


NARROW = ("world", "units covered", "given the shop's week", "elasticities covered")
"""What a terminal has room for, beside the last column."""


def narrow_cells(world: str, of: Calibration) -> list[str]:
    """Return a world's row for a terminal."""
    whole = cells(world, of)
    return [*(whole[COLUMNS.index(name)] for name in NARROW), whole[-1]]


def calibration_page(found: Sequence[tuple[str, Calibration]], plot: str) -> str:
    """Return the part of the page on beliefs, in Markdown; ``plot`` names the picture beside it."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
    lines += ["| " + " | ".join(cells(world, of)) + " |" for world, of in found]
    lines += ["", "A figure outside of its bounds bears a `!`. Confidence, in ten bins:", ""]
    names = ("world", "quotes", "confidence", "stated", "came", "better than never moved")
    lines += ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
    lines += [
        f"| {world} | {each.count} | {each.low:.3f} to {each.high:.3f} | {each.stated:.3f} "
        f"| {each.came:.3f} | {each.better:.3f} |"
        for world, of in found
        for each in of.bins
    ]
    return "\n".join([*lines, "", f"![Confidence, stated and come true]({plot})", ""])


def calibration_plot(found: Sequence[tuple[str, Calibration]]) -> str:
    """Return stated confidence and what came of it, bin by bin, as SVG."""
    panels = [
        Panel(
            title=world,
            lines=(
                Line(name="stated", values=tuple(each.stated for each in of.bins)),
                Line(name="came", values=tuple(each.came for each in of.bins)),
            ),
        )
        for world, of in found
    ]
    return svg("Confidence: share of the attainable profit", panels, "tenths, least sure first")
