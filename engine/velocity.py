"""How fast a listing sells. Imports nothing of the project, so that gateways may read it."""

import numpy as np

MINUTE_MS, DAY_MS = 60_000, 86_400_000


def velocity_of(listings: np.ndarray, now_ms: int) -> np.ndarray:
    """Return float64[rows], units a day over the sales remembered, to now, over a minute at least.

    Args:
        listings: LISTING_DTYPE[rows]; of one that remembers none it is 0.
    """
    at, units = listings["sale_ms"], listings["sale_units"]
    oldest = np.where(at >= 0, at, now_ms).min(axis=1)
    days = np.maximum(now_ms - oldest, MINUTE_MS) / DAY_MS
    return np.asarray(np.where(at >= 0, units, 0).sum(axis=1) / days)
