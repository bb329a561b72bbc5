"""Count what sells slowly: a level and slopes by the likelihood of counts, where logs mislead.

``log(units + 0.5)`` of mostly zeros answers a price far too little. Here the next count is negative
binomial around ``level * exp(slopes . regressors)``; the level is a ratio of two sums that forget
alike, units sold over exposure (Harvey and Fernandes, 1989), so it needs no log of a zero. Given
slopes, one pass tells how well each count was foreseen and, to second order, which slopes would
have foreseen it better; a few passes settle (iteratively reweighted least squares). What a pass
returns has the form that ``engine.slopes`` takes, so slow and fast sellers share a group's mean.
"""

from collections.abc import Sequence

import numpy as np
from msgspec import Struct

from engine.slopes import Regressions, Slopes, by_group, fit_slopes
from kernels.hyperparameters import (
    ANCHOR_UNITS,
    COUNTED_MAX,
    EXPONENT_MAX,
    SLOW_DISPERSION,
    SLOW_DISPERSION_MAX,
    SLOW_DISPERSION_WEIGHT,
    SLOW_PASSES,
)

ROWS_AT_ONCE = 256
NORMAL_90 = 1.6448536
"""Half of a 90 % interval of a normal, in standard deviations."""


class Period(Struct, frozen=True, eq=False):
    """What one period sold, a row an item."""

    number: int
    at: np.ndarray  # int64[n], the item
    regressors: np.ndarray  # float64[n, width]
    units: np.ndarray  # float64[n]


class Pass(Struct, eq=False):
    """What one pass over the periods leaves, an element an item."""

    sold: np.ndarray  # units, older ones forgotten
    exposure: np.ndarray
    tilted: np.ndarray  # float64[n, width]: exposure times regressors
    gram: np.ndarray
    moment: np.ndarray
    missed: np.ndarray  # how badly counts were foreseen: lower is better
    excess: np.ndarray  # of squared misses over Poisson's, and the weight of that
    excess_weight: np.ndarray


class Counts:
    """The rows of slow sellers, ready to be passed over again and again."""

    def __init__(self, periods: Sequence[Period], slow: np.ndarray, width: int) -> None:
        """Take the rows of the items that ``slow`` (bool[items]) marks."""
        number = np.cumsum(slow) - 1
        self.count = int(slow.sum())
        self._periods: list[Period] = []
        for period in periods:
            rows = np.flatnonzero(slow[period.at])
            if len(rows):
                at = number[period.at[rows]]
                self._periods.append(
                    Period(period.number, at, period.regressors[rows], period.units[rows])
                )
        rows_of, total = np.zeros(self.count), np.zeros((self.count, width))
        self.sold = np.zeros(self.count)
        for period in self._periods:
            rows_of[period.at] += 1.0
            total[period.at] += period.regressors
            self.sold[period.at] += period.units
        self.centre = total / np.maximum(rows_of, 1.0)[:, None]
        """Regressors are taken from here, so that no exponent is large."""

    def lift(self, at: np.ndarray, regressors: np.ndarray, slopes: np.ndarray) -> np.ndarray:
        """Return float64[n], the exposure of rows: 1 at an item's usual price."""
        exponent = ((regressors - self.centre[at]) * slopes[at]).sum(axis=1)
        return np.asarray(np.exp(np.clip(exponent, -EXPONENT_MAX, EXPONENT_MAX)))

    def anchor(self, slopes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the exposure in which ``ANCHOR_UNITS`` sell at the lasting rate, and its tilt."""
        exposure, tilted = np.zeros(self.count), np.zeros_like(self.centre)
        for period in self._periods:
            lift = self.lift(period.at, period.regressors, slopes)
            exposure[period.at] += lift
            tilted[period.at] += lift[:, None] * (period.regressors - self.centre[period.at])
        share = ANCHOR_UNITS / (self.sold + ANCHOR_UNITS)
        return exposure * share, tilted * share[:, None]

    def passed(self, slopes: np.ndarray, gain: np.ndarray, dispersion: np.ndarray) -> Pass:
        """Foresee every count from those before it, at these slopes.

        Args:
            slopes: float64[n, width].
            gain: float64[n], what a level forgets a period.
            dispersion: float64[n].
        """
        count, width = slopes.shape
        found = Pass(
            sold=np.zeros(count),
            exposure=np.zeros(count),
            tilted=np.zeros((count, width)),
            gram=np.zeros((count, width, width)),
            moment=np.zeros((count, width)),
            missed=np.zeros(count),
            excess=np.zeros(count),
            excess_weight=np.zeros(count),
        )
        anchor, anchor_tilted = self.anchor(slopes)
        last = np.zeros(count, dtype=np.int64)
        for period in self._periods:
            at, units = period.at, period.units
            lift = self.lift(at, period.regressors, slopes)
            place = period.regressors - self.centre[at]
            # Before the first row there is nothing to forget.
            keep = (1.0 - gain[at]) ** np.clip(period.number - last[at], 0, 400)
            sold, exposure = keep * found.sold[at], keep * found.exposure[at]
            tilted = keep[:, None] * found.tilted[at]
            behind = exposure + anchor[at]
            mean = (sold + ANCHOR_UNITS) / behind * lift
            moved = place - (tilted + anchor_tilted[at]) / behind[:, None]
            # A young level is itself uncertain, by as much as the row adds to what is behind it.
            young = 1.0 + lift / behind
            spread = mean * (1.0 + dispersion[at] * mean)
            weight = np.square(mean) / (spread * young)
            miss = units - mean
            aim = (moved * slopes[at]).sum(axis=1) + miss / mean
            found.gram[at] += weight[:, None, None] * moved[:, :, None] * moved[:, None, :]
            found.moment[at] += (weight * aim)[:, None] * moved
            found.missed[at] += np.square(miss) / (spread * young) + np.log(spread * young)
            told = np.square(mean / spread)
            found.excess[at] += told * (np.square(miss) / young - mean)
            found.excess_weight[at] += told * np.square(mean)
            found.sold[at], found.exposure[at] = sold + units, exposure + lift
            found.tilted[at] = tilted + lift[:, None] * place
            last[at] = period.number
        return found


class Counted(Struct, frozen=True, eq=False):
    """Slow sellers as they were learnt, an element an item."""

    counts: Counts
    last: Pass
    slopes: np.ndarray
    gain: np.ndarray
    dispersion: np.ndarray

    def foresee(
        self, at: np.ndarray, ahead: np.ndarray, regressors: np.ndarray, covariance: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean and the variance of counts to come, float64[n] each.

        Args:
            at: int64[n], the row's number among slow sellers.
            ahead: int64[n], periods after the item's last one.
            regressors: float64[n, width].
            covariance: float64[n, width, width], of the rows' slopes.
        """
        keep = (1.0 - self.gain[at]) ** np.minimum(ahead, 400)
        anchor, anchor_tilted = self.counts.anchor(self.slopes)
        behind = keep * self.last.exposure[at] + anchor[at]
        tilted = keep[:, None] * self.last.tilted[at] + anchor_tilted[at]
        lift = self.counts.lift(at, regressors, self.slopes)
        mean = (keep * self.last.sold[at] + ANCHOR_UNITS) / behind * lift
        moved = regressors - self.counts.centre[at] - tilted / behind[:, None]
        unsure = np.einsum("ni,nij,nj->n", moved, covariance, moved)
        variance = mean * (1.0 + self.dispersion[at] * mean) * (1.0 + lift / behind)
        return mean, variance + np.square(mean) * unsure


def fit_counts(
    counts: Counts,
    sums: Regressions,
    slopes: np.ndarray,
    gains: Sequence[float],
    group: np.ndarray,
    groups: int,
) -> tuple[Slopes, Counted]:
    """Return all items' slopes and slow sellers' levels.

    How fast their levels move is chosen a group, by how well counts were foreseen.

    Args:
        sums: of all items; those of slow sellers (``known``) are filled in here.
        slopes: float64[slow items, width], where to begin.
        gains: to choose from.
        group: int64[items].
    """
    slow = sums.known
    of = group[slow]
    dispersion = np.full(counts.count, SLOW_DISPERSION)
    missed = []
    for gain in gains:
        found = counts.passed(slopes, np.full(counts.count, gain), dispersion)
        missed.append(by_group(found.missed, of, groups))
    chosen = np.array(gains)[np.argmin(missed, axis=0)][of]
    for _ in range(SLOW_PASSES):
        found = counts.passed(slopes, chosen, dispersion)
        excess = by_group(found.excess, of, groups) + SLOW_DISPERSION * SLOW_DISPERSION_WEIGHT
        excess = excess / (by_group(found.excess_weight, of, groups) + SLOW_DISPERSION_WEIGHT)
        dispersion = np.clip(excess, 0.0, SLOW_DISPERSION_MAX)[of]
        sums.gram[slow], sums.moment[slow] = found.gram, found.moment
        fitted = fit_slopes(sums, group, groups)
        slopes = fitted.items[slow]
    found = counts.passed(slopes, chosen, dispersion)
    return fitted, Counted(counts, found, slopes, chosen, dispersion)


def quantiles(mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Return float64[4, n]: median, point of least relative error, and a 90 % interval of counts.

    The relative error of a zero is taken against one unit. The interval holds as near to 90 % as
    whole units allow: with each end's 5 % a count of .3 a day would be held 96 times in a hundred.

    Args:
        mean: float64[n], positive.
        variance: float64[n], above the mean: negative binomial.
    """
    found = np.zeros((4, len(mean)))
    for first in range(0, len(mean), ROWS_AT_ONCE):
        rows = np.arange(first, min(first + ROWS_AT_ONCE, len(mean)))
        few = rows[mean[rows] <= COUNTED_MAX]
        if len(few):
            found[:, few] = _counted(mean[few], variance[few])
        many = rows[mean[rows] > COUNTED_MAX]
        square = np.log1p(variance[many] / np.square(mean[many]))
        centre = np.log(mean[many]) - 0.5 * square
        wide = NORMAL_90 * np.sqrt(square)
        found[:, many] = np.exp([centre, centre - square, centre - wide, centre + wide])
    return found


def _counted(mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    size = np.square(mean) / np.maximum(variance - mean, 1e-9 * mean)
    last = int(np.max(mean + 12.0 * np.sqrt(variance))) + 20
    number = np.arange(1, last + 1)
    ratio = (number - 1.0 + size[:, None]) / number * (mean / (mean + size))[:, None]
    logs = np.cumsum(np.log(ratio), axis=1) - (size * np.log1p(mean / size))[:, None]
    none = np.exp(-size * np.log1p(mean / size))
    chance = np.concatenate([none[:, None], np.exp(logs)], axis=1)
    below = np.cumsum(chance, axis=1)
    relative = np.cumsum(chance / np.maximum(np.arange(last + 1), 1), axis=1)
    low = (below < 0.05).sum(axis=1)
    # What is never missed below may be missed above: a count of mostly zeros has one end only.
    under = np.where(low > 0, below[np.arange(len(mean)), low - 1], 0.0)
    off = np.abs(below - under[:, None] - 0.9)
    return np.stack(
        [
            (below < 0.5).sum(axis=1),
            (relative < 0.5 * relative[:, -1:]).sum(axis=1),
            low,
            np.argmin(off, axis=1),
        ]
    ).astype(np.float64)
