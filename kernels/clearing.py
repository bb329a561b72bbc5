"""The price that clears a stock by a season's end: fluid, re-solved, and slow to cut.

Over the days left, demand at a constant price sells the stock exactly at the run-out price; below
the price that salvage would justify no cut pays. A cut cannot be taken back and waiting has value,
so the level is taken optimistically, but not for the last cut: nothing corrects what it leaves.
Cuts are few, so the fewer are left and the longer the season, the more one must be worth.
"""

import numpy as np

from kernels.hyperparameters import (
    AHEAD_SHARE,
    CUT_MIN_LOG,
    OPTIMISM_SD,
    PRIOR_DAYS,
    PRIOR_UNITS,
)


def clearing_log(
    level: np.ndarray,
    variance: np.ndarray,
    stock: np.ndarray,
    days_left: np.ndarray,
    elasticity: np.ndarray,
    salvage: np.ndarray,
    cuts_left: np.ndarray,
) -> np.ndarray:
    """Return float64[rows], the log price over the reference to ask until the season ends.

    Args:
        level: log units a day at the reference price.
        variance: of the level.
        salvage: what a unit left over is worth, as a share of the reference price.
        cuts_left: int[rows], how often the price may still fall.
    """
    optimistic = level + _by_cuts(OPTIMISM_SD, cuts_left) * np.sqrt(variance)
    run_out = run_out_log(optimistic, stock, days_left, elasticity)
    worth = np.maximum(salvage, 1e-4) * elasticity / (1.0 + elasticity)
    return np.asarray(np.maximum(run_out, np.log(worth)))


def run_out_log(
    level: np.ndarray, stock: np.ndarray, days_left: np.ndarray, elasticity: np.ndarray
) -> np.ndarray:
    """Return float64[rows], the log price over the reference at which the stock just lasts.

    Args:
        level: log units a day at the reference price.
        elasticity: negative.
    """
    expected = np.exp(np.clip(level, -12.0, 16.0)) * np.maximum(days_left, 0.5)
    return np.asarray(np.log(np.maximum(stock, 0.5) / expected) / elasticity)


def lasting_log(
    level: np.ndarray,
    stock: np.ndarray,
    units: np.ndarray,
    full: np.ndarray,
    passed: np.ndarray,
    between: np.ndarray,
    elasticity: np.ndarray,
) -> np.ndarray:
    """Return float64[rows], the log price over the reference at which deliveries just suffice.

    What is left over at a delivery is there after it, and what comes later cannot be sold before.
    So of two rates the lower counts: what is here until the next delivery, and what is here and
    comes then until the one after it. Shortly before a delivery there is hardly a choice left, and
    the second counts alone.

    Args:
        level: log units a day at the reference price.
        stock: on hand.
        units: of a delivery.
        passed: days since the last one.
        between: days that surely lie between two; 0: nothing is sure, and no price is scarce.
        elasticity: negative.
    """
    ahead = np.maximum(between - passed, 0.0)
    chosen = (ahead >= AHEAD_SHARE * between) & (stock > 0)
    now = np.minimum(stock / np.maximum(ahead, 1e-6), (stock + units) / (ahead + between + 1e-6))
    rate = np.where(chosen, now, full / np.maximum(between, 1e-6))
    rate = np.log(np.maximum(rate, 1e-6))
    return np.asarray(np.where(between > 0.0, (rate - level) / elasticity, -np.inf))


def season_level(units: np.ndarray, days: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return float64[rows] twice: log units a day at the reference price, and its variance.

    Gamma and Poisson: all of a season's days count alike, where a filter that expects a level to
    wander forgets the first of them.

    Args:
        units: sold in the season.
        days: of the season, each times what its price was expected to do to demand.
    """
    counted = PRIOR_UNITS + units
    return np.log(counted / (PRIOR_DAYS + days)), 1.0 / counted


def least_cut_log(cuts_left: np.ndarray, share_left: np.ndarray) -> np.ndarray:
    """Return float64[rows], how deep a cut must be to be worth one of those left.

    Args:
        share_left: of the season, from 1 down to 0.
    """
    return _by_cuts(CUT_MIN_LOG, cuts_left) * (1.0 + 2.0 * share_left)


def _by_cuts(figures: np.ndarray, cuts_left: np.ndarray) -> np.ndarray:
    return np.asarray(figures[np.clip(cuts_left - 1, 0, len(figures) - 1)])
