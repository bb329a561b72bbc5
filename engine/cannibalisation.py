"""What a retailer's other listings gain when one is dearer: units that it loses are not all lost.

In a nested choice buyers who leave a listing for its price go in part to others of its group, by
their shares; prices that are best for the whole group then add to a listing's cost what those
others earn on whom it sends them (equal adjusted markups: Anderson and de Palma 1992; Li and Huh
2011). The group is the listing's category, over all channels of one shard; how many stay in it is
the retailer's word (policy field ``cannibalised_share``). What the others earn is their margin,
weighted by what they sell, as of the close of the day.
"""

from typing import NamedTuple

import numpy as np

from engine.evidence import categories_of, effective_cost_ratio
from engine.learnt import RetailerLearning
from engine.memory import Memory
from kernels.hyperparameters import CATEGORY_SLOPE_MAX


class _Earned(NamedTuple):
    """What rows sell and earn a day, float64[rows] each."""

    units: np.ndarray
    margin: np.ndarray  # of a unit, over its reference price


def earned_by_category(memory: Memory, held: RetailerLearning, mine: np.ndarray) -> np.ndarray:
    """Return float64[2, categories]: units a day, and what they earn over reference prices.

    Zeros where no policy of the retailer says that anything is cannibalised: nobody needs them.
    """
    groups = np.unique(memory.listings.listings["group"][mine])
    if not memory.groups.policy["cannibalised_share"][groups].any():
        return np.zeros((2, 0))
    listings = memory.listings.listings.take(mine)
    category = categories_of(memory, held, listings)
    units, margin = _earned(listings, memory.learnt.rows.take(mine), memory)
    count = len(held.categories)
    weighed = np.bincount(category, weights=units * margin, minlength=count)
    return np.stack([np.bincount(category, weights=units, minlength=count), weighed])


def gained_elsewhere(
    memory: Memory,
    held: RetailerLearning,
    listings: np.ndarray,
    learnt: np.ndarray,
    category: np.ndarray,
    share: np.ndarray,
    elasticity: np.ndarray,
) -> np.ndarray:
    """Return float64[rows], what each unit lost earns on others, over the row's reference price.

    Args:
        listings: LISTING_DTYPE[rows].
        learnt: LEARNT_DTYPE[rows].
        category: int64[rows].
        share: float64[rows], of lost units that the others gain.
        elasticity: float64[rows], of the row's demand where the others' prices stay.
    """
    if not held.earned.shape[1] or not share.any():
        return np.zeros(len(listings))
    known = category < held.earned.shape[1]
    units, earned = held.earned[:, np.where(known, category, 0)]
    own = _earned(listings, learnt, memory)
    # The others', not its own: who is alone in a category sends nobody anywhere.
    left = units - own.units
    others = known & (left > 1e-3 * units)
    margin = np.maximum(earned - own.units * own.margin, 0.0) / np.where(others, left, 1.0)
    most = np.clip(1.0 - CATEGORY_SLOPE_MAX / np.minimum(elasticity, CATEGORY_SLOPE_MAX), 0.0, 1.0)
    return np.asarray(np.where(others, np.minimum(share, most) * margin, 0.0))


def _earned(listings: np.ndarray, learnt: np.ndarray, memory: Memory) -> _Earned:
    sells = (learnt["days"] > 0) & (listings["in_force_minor"] > 0)
    units = np.exp(np.clip(learnt["level"].astype(np.float64), -12.0, 16.0))
    reference = np.maximum(listings["status_quo_minor"], 1).astype(np.float64)
    margin = listings["in_force_minor"] / reference - effective_cost_ratio(memory, listings)
    sells &= listings["cost_minor"] >= 0
    return _Earned(np.where(sells, units, 0.0), np.where(sells, np.maximum(margin, 0.0), 0.0))
