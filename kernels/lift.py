"""How much more the treated earn: a ratio of ratios, with the variance of what was randomised.

A *unit* is what was drawn: a listing, or a block of time. Of each unit there are the outcome and
the exposure in either arm; exposure is what the unit was expected to earn in that time, or just
the time. ``lift = (sum yT / sum bT) / (sum yC / sum bC) - 1``. Its variance (delta method) adds up
squares over units, whatever happens within one: a listing's days resemble each other, and counted
one by one they would seem to know more than they do.
"""

from typing import NamedTuple

import numpy as np

from kernels.sequential import normal_of_student

SUMS = 4
"""Of each unit: outcome and exposure treated, outcome and exposure in control."""


class Lift(NamedTuple):
    """What an experiment says so far."""

    lift: float  # 0.03: the treated earn 3 % more
    variance: float
    units: int  # that were exposed at all
    freedom: float  # how well the variance is known: as by so many units of equal size

    @property
    def normal(self) -> float:
        """The lift in standard deviations, made smaller where few units know the variance."""
        t = np.array(self.lift / np.sqrt(self.variance))
        return float(normal_of_student(t, self.freedom))

    @property
    def sure_variance(self) -> float:
        """The variance that makes the lift stand out as little as it does."""
        return self.variance if self.lift == 0.0 else (self.lift / self.normal) ** 2


class Totals(NamedTuple):
    """Enough to estimate from: a sum, a sum of squares and products, a count."""

    sums: np.ndarray  # float64[4]
    products: np.ndarray  # float64[4, 4]
    units: int


def no_totals() -> Totals:
    """Return totals of no unit."""
    return Totals(np.zeros(SUMS), np.zeros((SUMS, SUMS)), 0)


def totals(of_units: np.ndarray) -> Totals:
    """Return the totals of float64[units, 4]; a unit without exposure counts for nothing."""
    exposed = of_units[(of_units[:, 1] > 0.0) | (of_units[:, 3] > 0.0)]
    # No matrix product: BLAS may add up in another order where there are more cores.
    products = [[(exposed[:, i] * exposed[:, j]).sum() for j in range(SUMS)] for i in range(SUMS)]
    return Totals(exposed.sum(axis=0), np.array(products), len(exposed))


def joined(first: Totals, second: Totals) -> Totals:
    """Return the totals of both."""
    return Totals(
        first.sums + second.sums, first.products + second.products, first.units + second.units
    )


def lift_of(totals: Totals) -> Lift | None:
    """Return the lift and its variance; ``None`` where an arm has nothing to compare with."""
    treated, exposed, control, beside = (float(value) for value in totals.sums)
    if totals.units < 4 or min(exposed, control, beside) <= 0.0:
        return None
    there, here = treated / exposed, control / beside
    slope = np.array(
        [
            1.0 / (exposed * here),
            -there / (exposed * here),
            -there / (beside * here * here),
            there / (beside * here),
        ]
    )
    variance = float((slope[:, None] * totals.products * slope[None, :]).sum())
    variance *= totals.units / (totals.units - 2.0)
    if variance <= 0.0:
        return None
    return Lift(there / here - 1.0, variance, totals.units, _freedom(totals))


def _freedom(totals: Totals) -> float:
    """Return how many units of equal size would know the variance as well, less what is fitted.

    A few large units among many small ones decide the variance alone (Kish's effective number).
    """
    squares = np.maximum(np.diagonal(totals.products), 1e-300)
    treated, _, control, _ = np.square(totals.sums) / squares
    paired = totals.products[1, 3] > 0.0
    known = min(treated, control) - 1.0 if paired else treated + control - 2.0
    return float(max(known, 1.0))
