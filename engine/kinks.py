"""Which of a retailer's customers hold a price against the usual one, as his sales tell.

One kink a retailer, as curvature and rivals' pull are: a category alone would need years to tell.
It is found by the prices that the engine asked and, where history is trusted, by history's.
"""

import numpy as np

from engine.forms import HISTORY, OWN, curvature_of
from engine.learnt import RetailerLearning
from kernels.forms import Shown, exponential
from kernels.hyperparameters import CURVATURE_MAX, SUMS_MEMORY_DAYS
from kernels.kinks import believed, judged, products


def try_kink(held: RetailerLearning, own: np.ndarray, shown: Shown, distance: np.ndarray) -> None:
    """Count what a day says of a kink.

    Args:
        own: bool[rows], which prices were the engine's.
        distance: float64[rows], of :func:`kernels.kinks.distances`.
    """
    told = products(shown, distance)
    for part, rows in ((OWN, own), (HISTORY, ~own)):
        held.kink_sums[part] += np.where(rows, told, 0.0).sum(axis=1)


def forget_kink(held: RetailerLearning) -> None:
    """Let a period pass: evidence fades as that on elasticities does."""
    held.kink_sums = held.kink_sums * np.exp(-held.period_days / SUMS_MEMORY_DAYS)


def choose_kink(held: RetailerLearning) -> None:
    """Take the kink that sales tell of by now, and the curvature beside it."""
    told = judged(_sums(held))
    held.kink = believed(told, held.kink)
    held.kink_curvature, held.kink_bend = told.curvature, told.bend


def priced_curvature(held: RetailerLearning, learnt: np.ndarray) -> np.ndarray:
    """Return float64[rows], how much demand bends where a price is chosen.

    The pooled curvature is found without a kink, so it stands for one, too. That serves what is
    foreseen; of a price it would count the same loss twice.
    """
    if held.kink == 0.0:
        return curvature_of(held, learnt)
    bend = held.kink_bend * exponential(learnt["elasticity"].astype(np.float64))
    return np.clip(held.kink_curvature + bend, 0.0, CURVATURE_MAX)


def told_kink(held: RetailerLearning) -> dict[str, float]:
    """Return the kink that is priced by, how large it would be, and how likely there is one."""
    told = judged(_sums(held))
    return {"believed": held.kink, "likeliest": told.kink, "likely": told.likely}


def _sums(held: RetailerLearning) -> np.ndarray:
    own: np.ndarray = held.kink_sums[OWN]
    return own + held.kink_sums[HISTORY] if held.history_trusted else own
