"""Stock that must go by a date: cleared by few cuts, or sold through at whatever price does it.

Both ask what a season has told so far: how fast a listing sold at its prices, and what is left of
its stock and of its days (``kernels.clearing``).
"""

import numpy as np

from engine.learnt import DAY_MS, RetailerLearning
from engine.objectives import SELL_THROUGH
from engine.stock import stock_of
from kernels.choice import Place
from kernels.clearing import clearing_log, least_cut_log, run_out_log, season_level
from kernels.hyperparameters import LOOK_DAYS, SEASON_SLOPE_MAX, WATCHED_DAYS


def clear(
    now_ms: int,
    held: RetailerLearning,
    listings: np.ndarray,
    policy: np.ndarray,
    place: Place,
    now_log: np.ndarray,
    learnt: np.ndarray,
    told: np.ndarray,
    clears: np.ndarray,
) -> None:
    """Let rows with a season's end ask what clears their stock: few cuts, and never a rise.

    A season's record counts cuts where others count decisions. The first decision waits: in its
    first days a listing has told nothing of how fast it sells.
    """
    at = np.flatnonzero(clears)
    of, rows, terms = told.take(at), listings.take(at), policy.take(at)
    days_left = (terms["season_end_ms"] - now_ms) / DAY_MS
    stock, days = stock_of(rows), of["season_days"].astype(np.float64)
    cuts = of["turns"] - 1
    left = terms["markdowns_max"] - cuts
    wanted = planned_log(now_ms, rows, terms, of, of["elasticity"].astype(np.float64), left)
    wanted = np.clip(wanted, place.low[at], place.high[at])
    least = least_cut_log(left, days_left / np.maximum(days + days_left, 1.0))
    cut = (now_log[at] - wanted > least) & (days >= WATCHED_DAYS) & (stock > 0) & (left > 0)
    learnt["anchor"][at] = np.where(cut, wanted, now_log[at])
    learnt["dither"][at] = 0.0
    learnt["turns"][at] = cuts + cut
    learnt["due_day"][at] = held.day + _look_again(days)


def planned_log(
    now_ms: int,
    listings: np.ndarray,
    policy: np.ndarray,
    learnt: np.ndarray,
    elasticity: np.ndarray,
    cuts_left: np.ndarray,
) -> np.ndarray:
    """Return float64[rows], the log price at which the fluid plan would leave a season's rows now.

    Args:
        learnt: LEARNT_DTYPE[rows], of which the season's sums count.
        elasticity: float64[rows], as believed.
    """
    level, variance = season_told(learnt)
    return clearing_log(
        level,
        variance,
        stock_of(listings).astype(np.float64),
        (policy["season_end_ms"] - now_ms) / DAY_MS,
        np.minimum(elasticity, SEASON_SLOPE_MAX),
        policy["salvage_share"].astype(np.float64),
        cuts_left,
    )


def season_told(learnt: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return float64[rows] twice: log units a day at the price found at import, its variance."""
    return season_level(
        learnt["season_units"].astype(np.float64), learnt["season_demand"].astype(np.float64)
    )


def sells_through(now_ms: int, policy: np.ndarray) -> np.ndarray:
    """Return bool[rows]: whose stock shall be sold by a date that is still to come."""
    ends = policy["season_end_ms"] > now_ms
    return np.asarray(ends & (policy["objective"] == SELL_THROUGH))


def sold_through_log(
    now_ms: int,
    listings: np.ndarray,
    policy: np.ndarray,
    learnt: np.ndarray,
    anchor: np.ndarray,
    elasticity: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the log price that sells the stock exactly by the date, and in how many days to look.

    Dearer, a part is left over; cheaper, it is gone before. So the price rises, too, where it sells
    too fast. Nothing moves while a listing has told nothing, or has nothing to sell.

    Args:
        anchor: float64[rows], the log price that a decision starts from.
        elasticity: float64[rows], as believed.

    Returns:
        float64[rows] and int64[rows].
    """
    stock, days = stock_of(listings), learnt["season_days"].astype(np.float64)
    level, _ = season_told(learnt)
    days_left = (policy["season_end_ms"] - now_ms) / DAY_MS
    wanted = run_out_log(
        level, stock.astype(np.float64), days_left, np.minimum(elasticity, SEASON_SLOPE_MAX)
    )
    told = (stock > 0) & (days >= WATCHED_DAYS)
    return np.where(told, wanted, anchor), _look_again(days)


def _look_again(days: np.ndarray) -> np.ndarray:
    """Return int64[rows], when a row is looked at again whose season has lasted ``days``."""
    watched = np.ceil(np.maximum(WATCHED_DAYS - days, 0.0)).astype(np.int64)
    return np.where(watched > 0, watched, LOOK_DAYS)
