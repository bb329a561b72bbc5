"""See by how much each horizon would have been missed, in the rows that are known.

One level suits no horizon alike: what is sold in the next period looks like the last ones, what is
sold in eight looks like the long run. So, once slopes are known, all rows are passed over again,
and every level, fast and slow, foresees each row from one to ``HORIZONS`` periods before it. The
level that misses least is the one to forecast that horizon from, and its misses say how wide the
forecast is: a level that returns, a shock that lasts and a promotion that nobody told of are in
them, and in no formula.
"""

from collections.abc import Sequence

import numpy as np
from msgspec import Struct

from engine.levels import followed
from engine.slopes import by_group
from engine.slow_sellers import Period
from kernels.hyperparameters import GAINS, HORIZON_ROWS, SALES_LOG_MAX, SKEWS

HORIZONS = 8
"""Periods ahead that are looked at; further on a level wanders from there."""

ROWS_MIN = 2
"""Rows of an item before a miss counts: its first level is one row's noise."""


class Hindsight(Struct, frozen=True, eq=False):
    """How each group's horizons are foreseen best."""

    gain: np.ndarray  # int64[HORIZONS, groups], which of ``GAINS`` misses least
    variance: np.ndarray  # float64[HORIZONS, groups], of its misses
    skew: np.ndarray  # float64[HORIZONS, groups]: so many half variances is the mean above

    def level(self, group: np.ndarray, ahead: np.ndarray) -> np.ndarray:
        """Return int64[n], which level rows are foreseen from."""
        return np.asarray(self.gain[np.minimum(ahead, HORIZONS) - 1, group])

    def above(self, group: np.ndarray, ahead: np.ndarray) -> np.ndarray:
        """Return float64[n], by how many half variances means lie above medians, in logs."""
        return np.asarray(self.skew[np.minimum(ahead, HORIZONS) - 1, group])

    def spread(self, group: np.ndarray, ahead: np.ndarray) -> np.ndarray:
        """Return float64[n], the variance of what such rows are missed by."""
        beyond = np.maximum(ahead - HORIZONS, 0)
        wander = np.square(np.array(GAINS))[self.level(group, ahead)] * beyond
        nearest = self.variance[np.minimum(ahead, HORIZONS) - 1, group]
        return np.asarray(nearest + self.variance[0, group] * wander)


def unripe(gain: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return how much more a level misses by that so few rows made, as a ratio of variances.

    The mean of n rows is off by an nth of their variance; one that forgets, by half its gain.
    """
    lasting = gain / 2.0
    return np.asarray((1.0 + np.maximum(1.0 / np.maximum(rows, 1.0), lasting)) / (1.0 + lasting))


def look_back(
    periods: Sequence[Period],
    logs: Sequence[np.ndarray],
    usual: np.ndarray,
    slopes: np.ndarray,
    kept: np.ndarray,
    group: np.ndarray,
    noise: np.ndarray,
    slopes_gain: np.ndarray,
) -> Hindsight:
    """Return how well each horizon would have been foreseen at these slopes.

    Args:
        periods: all rows, in order.
        logs: the logarithm of what each period's rows sold, float64[n] each.
        usual: float64[items], the logarithm of what they sell on average.
        slopes: float64[items, width].
        kept: bool[items], the items that are looked at; others are counted.
        group: int64[items].
        noise: float64[groups], variance of what the next period is missed by.
        slopes_gain: int64[groups], the gain at which slopes and noise were found.
    """
    count, gains = len(slopes), np.array(GAINS)
    level = np.zeros((len(gains), count))
    seen, last = np.zeros(count), np.zeros(count, dtype=np.int64)
    past = np.zeros((HORIZONS, len(gains), count))  # levels after each of the last periods
    known = np.full((HORIZONS, count), -1, dtype=np.int64)  # the period they are of
    young = np.ones((HORIZONS, len(gains), count))
    missed = np.zeros((HORIZONS, len(gains), count))
    told = np.zeros((HORIZONS, count))
    foreseen = np.zeros((HORIZONS, len(gains), count))
    sold = np.zeros((HORIZONS, len(gains), count))
    for period, sales in zip(periods, logs, strict=True):
        rows = np.flatnonzero(kept[period.at])
        at = period.at[rows]
        left = sales[rows] - (period.regressors[rows] * slopes[at]).sum(axis=1)
        ahead = np.arange(1, HORIZONS + 1)
        place = (period.number - ahead) % HORIZONS
        fresh = known[place[:, None], at] == (period.number - ahead)[:, None]
        then = (place[:, None, None], np.arange(len(gains))[:, None], at)  # [HORIZONS, gains, n]
        off = left - past[then]
        missed[:, :, at] += np.where(fresh[:, None], np.square(off) / young[then], 0.0)
        told[:, at] += fresh
        median = np.exp(np.minimum(sales[rows] - usual[at] - off, SALES_LOG_MAX))
        share = np.where(fresh[:, None], 1.0 / (1.0 + median), 0.0)
        foreseen[:, :, at] += share * median
        sold[:, :, at] += share * np.exp(sales[rows] - usual[at])
        gap = np.where(seen[at] > 0, period.number - last[at], 1)
        level[:, at] += followed(gains[:, None], seen[at], gap) * (left - level[:, at])
        seen[at] += 1.0
        last[at] = period.number
        here = period.number % HORIZONS
        past[here][:, at] = level[:, at]
        young[here][:, at] = unripe(gains[:, None], seen[at])
        known[here, at] = np.where(seen[at] >= ROWS_MIN, period.number, -1)
    return _judged(missed, told, foreseen, sold, group, noise, slopes_gain)


def _judged(
    missed: np.ndarray,
    told: np.ndarray,
    foreseen: np.ndarray,
    sold: np.ndarray,
    group: np.ndarray,
    noise: np.ndarray,
    slopes_gain: np.ndarray,
) -> Hindsight:
    groups, gains = len(noise), np.array(GAINS)
    of = by_group(missed.transpose(2, 0, 1), group, groups).transpose(1, 2, 0)
    rows = by_group(told.T, group, groups).T  # [HORIZONS, groups]
    at = np.arange(groups)
    own = of[0, slopes_gain, at]
    # Slopes were fitted to these very rows; ``noise`` allows for it, and so should the others.
    fair = np.where(own > 0, noise * rows[0] / np.where(own > 0, own, 1.0), 1.0)
    next_one = (fair * of[0] + HORIZON_ROWS * noise) / (rows[0] + HORIZON_ROWS)
    ahead = np.arange(HORIZONS)
    before = next_one * (1.0 + np.square(gains)[None, :, None] * ahead[:, None, None])
    variance = (fair * of + HORIZON_ROWS * before) / (rows + HORIZON_ROWS)[:, None]
    gain = np.argmin(variance, axis=1)
    best = np.take_along_axis(variance, gain[:, None], axis=1)[:, 0]
    # How far means lie above medians is what they did, whatever the distribution. What was foreseen
    # far above an item's usual sales is counted for as much as those: one such row would be all.
    chosen = gain[:, group][:, None]
    shares = [
        by_group(np.take_along_axis(column, chosen, axis=1)[:, 0].T, group, groups).T
        for column in (sold, foreseen)
    ]
    log = np.log(np.maximum(shares[0], 1e-9) / np.maximum(shares[1], 1e-9))
    skew = np.where(rows > 0, 2.0 * log / best, 1.0)
    skew = (rows * skew + HORIZON_ROWS) / (rows + HORIZON_ROWS)
    return Hindsight(gain, np.maximum.accumulate(best, axis=0), np.clip(skew, *SKEWS))
