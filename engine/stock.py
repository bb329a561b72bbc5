"""Units on hand: the last count less what was sold since."""

import numpy as np


def stock_of(listings: np.ndarray) -> np.ndarray:
    """Return int32[rows], units on hand of LISTING_DTYPE[rows]; -1: never counted."""
    left = np.maximum(left_of(listings), 0)
    left[listings["counted"] < 0] = -1
    return np.asarray(left.astype(np.int32))


def left_of(listings: np.ndarray) -> np.ndarray:
    """Return int64[rows], below 0 where more was sold than was counted: something else came."""
    return np.asarray(listings["counted"].astype(np.int64) - listings["sold_since"])
