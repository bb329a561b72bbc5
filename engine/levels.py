"""Let items' levels follow what they sell, and gather what their surprises say of slopes.

Sales enter as ``log(units + grain / 2)``. A grain is one unit; what is not sold in whole units
(kilograms, tons) and little of them has a smaller one, for half a unit beside .03 tons would drown
every answer to a price. Prices and covariates are filtered with the level's own gain, so that
slopes rest on surprises alone.
"""

from collections.abc import Sequence

import numpy as np

from engine.slopes import Regressions
from engine.slow_sellers import Period
from kernels.hyperparameters import GAINS, GRAINS

NEVER = np.iinfo(np.int32).min
"""Stands for the last period of an item that was never seen."""


def followed(steady: float | np.ndarray, seen: np.ndarray, gap: np.ndarray) -> np.ndarray:
    """Return float64[..., n], the share of a surprise that a level takes over.

    Args:
        steady: its gain once it has seen many periods; [gains, 1] for several levels.
        seen: float64[n], how many it has seen.
        gap: [n], periods since the last one, 1 for the first.
    """
    keep = (1.0 - steady) ** np.minimum(gap, 400.0)
    return np.asarray(np.maximum(1.0 - keep, 1.0 / (seen + 1.0)))


class Levels:
    """Levels of items at each of ``GAINS``, and the sums of their surprises.

    Args:
        count: how many items there are.
        width: how many slopes an item has.
    """

    def __init__(self, count: int, width: int) -> None:
        gains = len(GAINS)
        self.level = np.zeros((gains, count))
        self.filtered = np.zeros((gains, count, width))
        self.last = np.full(count, NEVER, dtype=np.int64)
        """In periods, counted from the first time observed."""
        self.grain = np.ones(count)
        self.sold, self.rows = np.zeros(count), np.zeros(count)
        self.whole = np.ones(count, dtype=bool)
        self._seen = np.zeros(count)
        self._gram = np.zeros((gains, count, width, width))
        self._moment = np.zeros((gains, count, width))
        self._square = np.zeros((gains, count))

    def logs(self, at: np.ndarray, units: np.ndarray) -> np.ndarray:
        """Return float64[n], sales as levels have them."""
        return np.asarray(np.log(units + 0.5 * self.grain[at]))

    def usual(self) -> np.ndarray:
        """Return float64[items], the logarithm of what an item sells on average."""
        return np.asarray(np.log(self.sold / np.maximum(self.rows, 1.0) + 0.5 * self.grain))

    def take(self, period: Period) -> None:
        """Learn from one period, the next of its items."""
        at = period.at
        self.sold[at] += period.units
        self.whole[at] &= period.units == np.floor(period.units)
        self.rows[at] += 1.0
        self._filter(at, period.number, period.regressors, period.units)

    def weigh(self, periods: Sequence[Period]) -> None:
        """Take what is not whole in grains that it sells at least ``GRAINS`` of, anew if need be.

        Grains are powers of two, so that few new rows change one. Whatever was asked in between,
        they and the levels follow from the rows alone.

        Args:
            periods: all that were taken.
        """
        size = np.maximum(self.sold, 1e-300) / np.maximum(self.rows, 1.0) / GRAINS
        fine = ~self.whole & (self.sold > 0.0) & (size < 1.0)
        grain = np.where(fine, np.exp2(np.floor(np.log2(size))), 1.0)
        anew = grain != self.grain
        if not anew.any():
            return
        self.grain = grain
        for column in (self.level, self.filtered, self._gram, self._moment, self._square):
            column[:, anew] = 0.0
        self._seen[anew] = 0.0
        for period in periods:
            some = np.flatnonzero(anew[period.at])
            if len(some):
                self._filter(
                    period.at[some], period.number, period.regressors[some], period.units[some]
                )

    def sums(self, gain: np.ndarray, kept: np.ndarray) -> Regressions:
        """Return items' regressions at their gain; those that are not kept have empty ones.

        Args:
            gain: int64[items], which of ``GAINS``.
            kept: bool[items].
        """
        at, share = np.arange(len(gain)), kept.astype(np.float64)
        return Regressions(
            gram=self._gram[gain, at] * share[:, None, None],
            moment=self._moment[gain, at] * share[:, None],
            square=self._square[gain, at] * share,
            told=np.maximum(self._seen - 1.0, 0.0) * share,
            known=~kept,
        )

    def _filter(
        self, at: np.ndarray, number: int, regressors: np.ndarray, units: np.ndarray
    ) -> None:
        sales = self.logs(at, units)
        gap = np.where(self._seen[at] > 0, number - self.last[at], 1).astype(np.float64)
        for index, steady in enumerate(GAINS):
            gain = followed(steady, self._seen[at], gap)
            moved = regressors - self.filtered[index, at]
            surprise = sales - self.level[index, at]
            self.level[index, at] += gain * surprise
            self.filtered[index, at] += gain[:, None] * moved
            # The first periods have no level yet; long gaps and young levels weigh less.
            weight = np.where(self._seen[at] >= 1, (1.0 - gain) / (1.0 - steady), 0.0)
            self._gram[index, at] += weight[:, None, None] * moved[:, :, None] * moved[:, None, :]
            self._moment[index, at] += (weight * surprise)[:, None] * moved
            self._square[index, at] += weight * np.square(surprise)
        self._seen[at] += 1.0
        self.last[at] = number
