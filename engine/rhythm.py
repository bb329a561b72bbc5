"""Find whether a table's sales repeat every seven periods, as those of days do, and tell them so.

A level that knows no weekday runs after Saturdays on Sunday. Each group has an effect a weekday,
and each item its own near to it, as covariates have (``engine.slopes``); what is here makes the
columns, and decides whether they are needed. Longer rhythms, as a year's, are slow: levels follow.
"""

from numbers import Integral

import numpy as np

from engine.errors import RejectedInput
from engine.slopes import by_group
from kernels.hyperparameters import RHYTHM_RATIO, RHYTHM_WEEKS

WEEK = 7

CELLS_A_ROW = 100
"""Groups are looked at apart where their periods are no more than so many a row of the table: an
item a group and few rows would be looked for in gigabytes of nothing."""

SEASON_MAX = 31
"""Longest rhythm that may be told: each of its periods is a slope of every item."""


def season_told(season: object) -> int:
    """Return the rhythm that a caller tells, 1 for none.

    Raises:
        RejectedInput: it is no whole number from 1 to ``SEASON_MAX``.
    """
    if (
        isinstance(season, bool)
        or not isinstance(season, Integral)
        or not 1 <= int(season) <= SEASON_MAX
    ):
        raise RejectedInput(
            "/season",
            f"{season!r} is no number of periods from 1 to {SEASON_MAX}",
            "give 7 for days, 1 for no rhythm; tell longer ones by covariates",
        )
    return int(season)


def columns_of(periods: np.ndarray, season: int) -> np.ndarray:
    """Return float64[n, season - 1]: one where a period is the column's, -1 in each for the last.

    Args:
        periods: int64[n], numbered one by one.
    """
    phase = periods % season
    told = (phase[:, None] == np.arange(season - 1)).astype(np.float64)
    return np.asarray(np.where((phase == season - 1)[:, None], -1.0, told))


def season_of(
    at: np.ndarray, periods: np.ndarray, units: np.ndarray, group: np.ndarray, groups: int
) -> int:
    """Return 7 where sales repeat every seven periods, clearly, or else 1.

    Compared are weekdays' means with what scatters around them, after the mean of the seven periods
    around each has been taken off: of all items together, and of each group for itself.

    Args:
        at: int64[rows], the item.
        periods: int64[rows], numbered one by one from 0.
        units: float64[rows].
        group: int64[items].
    """
    count = int(periods.max()) + 1
    if count < RHYTHM_WEEKS * WEEK or count > 100 * len(np.unique(periods)):
        return 1
    rows = np.maximum(np.bincount(at, minlength=len(group)), 1)
    size = np.bincount(at, weights=units, minlength=len(group)) / rows
    size = np.where(size > 0, size, 1.0)
    relative = np.log(units / size[at] + 0.5)
    relative -= (np.bincount(at, weights=relative, minlength=len(group)) / rows)[at]
    whole = _ratio(np.zeros(len(at), dtype=np.int64), 1, periods, count, relative)
    apart = 0.0
    if groups * count <= CELLS_A_ROW * len(at):
        apart = _ratio(group[at], groups, periods, count, relative)
    return WEEK if max(whole, apart) > RHYTHM_RATIO else 1


def _ratio(
    part: np.ndarray, parts: int, periods: np.ndarray, count: int, relative: np.ndarray
) -> float:
    """Return weekdays' variance over that around them, both a degree of freedom."""
    cell = part * count + periods
    told = np.bincount(cell, minlength=parts * count).reshape(parts, count)
    total = np.bincount(cell, weights=relative, minlength=parts * count).reshape(parts, count)
    mean = np.where(told > 0, total / np.maximum(told, 1), np.nan)
    around = np.lib.stride_tricks.sliding_window_view(mean, WEEK, axis=1).mean(axis=2)
    off = mean[:, WEEK // 2 : WEEK // 2 + around.shape[1]] - around
    of_part, of_period = np.nonzero(np.isfinite(off))
    key = of_part * WEEK + of_period % WEEK
    values = off[of_part, of_period]
    cells = by_group(np.stack([np.ones_like(values), values], axis=1), key, parts * WEEK)
    days = cells[:, 1] / np.maximum(cells[:, 0], 1.0)
    between = float((cells[:, 0] * np.square(days)).sum())
    left = float(np.square(values - days[key]).sum())
    known = int((cells[:, 0].reshape(parts, WEEK) >= 2).all(axis=1).sum())
    freedom = len(values) - known * WEEK
    if known == 0 or freedom < WEEK:
        return 0.0
    return (between / (known * (WEEK - 1))) / max(left / freedom, 1e-12)
