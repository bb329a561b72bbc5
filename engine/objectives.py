"""What a retailer asks of a learnt price: profit, revenue, units, or a stock sold by a date.

All but the last differ in nothing but what a sale is worth, which is its price less a cost: the
whole cost where profit is asked for, none of it where revenue is. Where units are, every sale is
worth the same, as it is with a subsidy so high that no price matters beside it. The last asks for
the price that a stock and a date leave (``engine.seasons``).
"""

import numpy as np

from kernels.hyperparameters import SUBSIDY

OBJECTIVES = ("profit", "revenue", "units", "sell_through")
"""The policy's names, in the order of the codes."""

PROFIT, REVENUE, UNITS, SELL_THROUGH = range(len(OBJECTIVES))


def counted_cost(cost: np.ndarray, gained: np.ndarray, objective: np.ndarray) -> np.ndarray:
    """Return float64[rows], what an objective counts as a sale's cost.

    Args:
        cost: float64[rows], effective cost over the reference price (``engine.evidence``).
        gained: float64[rows], what the retailer's other listings would earn on a sale that is not
            made here (``engine.cannibalisation``). Only profit counts it.
        objective: uint8[rows], indices into :data:`OBJECTIVES`.
    """
    counted = np.where(objective == REVENUE, 0.0, cost + gained)
    return np.asarray(np.where(objective == UNITS, -SUBSIDY, counted))
