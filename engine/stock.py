"""Units on hand: the last count less what was sold since."""

import numpy as np


def stock_of(listings: np.ndarray) -> np.ndarray:
    """Return int32[rows], units on hand of LISTING_DTYPE[rows]; -1: never counted."""
    return _left(listings["counted"], listings["sold_since"])


def on_hand(listings: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return :func:`stock_of` of some rows of a table, of which only two columns are read."""
    return _left(listings["counted"][rows], listings["sold_since"][rows])


def _left(counted: np.ndarray, sold_since: np.ndarray) -> np.ndarray:
    left = np.maximum(counted.astype(np.int64) - sold_since, 0)
    left[counted < 0] = -1
    return np.asarray(left.astype(np.int32))
