"""The price that clears a stock by a season's end: fluid, re-solved, and slow to cut.

Over the days left, demand at a constant price sells the stock exactly at the run-out price; below
the price that salvage would justify no cut pays. A cut cannot be taken back and waiting has value,
so the level is taken optimistically: by 1.5 standard deviations of it.
"""

import numpy as np

OPTIMISM_SD = 1.5
CUT_MIN_LOG = 0.06
"""Smaller cuts are not worth a label, and there are few of them to spend."""


def clearing_log(
    level: np.ndarray,
    filtered: np.ndarray,
    variance: np.ndarray,
    stock: np.ndarray,
    days_left: np.ndarray,
    elasticity: np.ndarray,
    salvage: np.ndarray,
) -> np.ndarray:
    """Return float64[rows], the log price over the reference to ask until the season ends.

    Args:
        level: log units a day at the log price ``filtered``.
        variance: of the level.
        salvage: what a unit left over is worth, as a share of the reference price.
    """
    optimistic = level + OPTIMISM_SD * np.sqrt(variance)
    expected = np.exp(np.clip(optimistic, -12.0, 16.0)) * np.maximum(days_left, 0.5)
    run_out = filtered + np.log(np.maximum(stock, 0.5) / expected) / elasticity
    worth = np.maximum(salvage, 1e-4) * elasticity / (1.0 + elasticity)
    return np.asarray(np.maximum(run_out, np.log(worth)))


def days_to_next(days_seen: np.ndarray, days_left: np.ndarray) -> np.ndarray:
    """Return int64[rows], when to look again: soon while a level is young, later rarely."""
    passed = days_seen / np.maximum(days_seen + days_left, 1.0)
    gap = np.rint((0.07 + 0.45 * passed) * days_left)
    return np.asarray(np.maximum(gap, 3.0).astype(np.int64))
