"""The highest price at which a listing is known to sell, and its way back from one at which not.

Elasticity is learnt from surprises, and a level drifts. A listing of few sales whose price has
risen for weeks, and which then sells nothing, has a level that fell: no day's surprise is large,
and demand of any one elasticity does not end at a price. Real demand does, where a rival's price
stands or a budget ends. So each listing remembers what it sold at prices that were proven. Above
them it counts what came of what was hoped for; where most of it stays out, prices above the proven
one are barred for a season, and its own price goes back there.
"""

import numpy as np

from kernels.hyperparameters import (
    BARRED_DAYS,
    DEVIANCE,
    DOUBT,
    HOPED_DAYS,
    HOPED_UNITS,
    LOST_SHARE,
    PROVEN_MEMORY_DAYS,
    PROVEN_NEAR_LOG,
    SELLS_SHARE,
)


def prove(
    learnt: np.ndarray,
    price_log: np.ndarray,
    units: np.ndarray,
    common: np.ndarray,
    counted: np.ndarray,
    days: float,
    day: int,
) -> None:
    """Count a period that closes into LEARNT_DTYPE[rows], copies.

    Args:
        price_log: float64[rows], at which the period's units were sold.
        common: float64[rows], by how much all sold more than usual, in logs.
        counted: bool[rows], that could be bought all along.
        day: of learning.
    """
    slope = np.minimum(learnt["elasticity"].astype(np.float64), -1.0)
    sold, lain = learnt["proven_units"].astype(np.float64), learnt["proven_days"].astype(np.float64)
    proven = np.where(lain > 0.0, learnt["proven"], price_log).astype(np.float64)
    off = np.exp(slope * (price_log - proven))
    above = price_log > proven + PROVEN_NEAR_LOG
    lift = days * np.exp(common) * off
    fade = np.where(counted, np.exp(-days / PROVEN_MEMORY_DAYS), 1.0)
    here = counted & ~above
    rate = sold / np.maximum(lain, 1e-9)
    barred = learnt["barred_day"] > day
    looked = counted & above & ~barred
    hoped = learnt["hoped"] * fade + np.where(looked, rate * lift, 0.0)
    came = learnt["came"] * fade + np.where(looked, units, 0.0)
    sold = sold * fade + np.where(here, units, 0.0)
    lain = lain * fade + np.where(here, lift, 0.0)

    said = looked & (hoped >= np.maximum(HOPED_UNITS, HOPED_DAYS * rate * off))
    sells = said & (came >= SELLS_SHARE * hoped)
    unsure = DOUBT + 1.0 / np.maximum(sold, 0.5)
    lost = said & (came < LOST_SHARE * hoped) & (_deviance(came, hoped, unsure) > DEVIANCE)
    learnt["proven"] = np.where(sells, price_log, proven)
    learnt["proven_units"] = np.where(sells, came, sold)
    learnt["proven_days"] = np.where(sells, hoped / np.maximum(rate * off, 1e-9), lain)
    learnt["hoped"] = np.where(sells | lost, 0.0, hoped)
    learnt["came"] = np.where(sells | lost, 0.0, came)
    learnt["barred_day"][lost] = min(day + BARRED_DAYS, 2**15 - 1)


def _deviance(came: np.ndarray, hoped: np.ndarray, unsure: np.ndarray) -> np.ndarray:
    """Return float64[rows], how far counts are off a negative binomial of mean ``hoped``.

    Args:
        unsure: float64[rows], the variance of the mean's logarithm.
    """
    hoped = np.maximum(hoped, 1e-9)
    told = came * np.log(np.maximum(came, 1e-9) / hoped)
    spread = (came + 1.0 / unsure) * np.log((1.0 + unsure * came) / (1.0 + unsure * hoped))
    return np.asarray(2.0 * (told - spread))


def barred_above(learnt: np.ndarray, day: int) -> np.ndarray:
    """Return float64[rows], the log price above which nothing may be asked; infinite: nothing."""
    return np.asarray(
        np.where(learnt["barred_day"] > day, learnt["proven"].astype(np.float64), np.inf)
    )
