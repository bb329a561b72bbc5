"""Judge two sellers' price paths: wars, falls and swings, whoever is to blame for them.

This looks at what happened and knows neither engine nor bot. A listing is *in a spiral* once one of
two things happened to it within four weeks: the sellers cut in turns, again and again, and neither
regained what its last cut lost (a war); or both prices fell far below the static equilibrium (a
fall).
"""

import numpy as np

WINDOW = 28
"""Periods within which cuts count together."""

ROUNDS = 4
"""So many rounds of our cut and theirs are a war."""

CUT_LOG = 0.005
"""Smaller moves are rounding."""

FALL_LOG, BELOW_LOG = 0.1, 0.1
"""Both fell by so much within the window, to so much below the equilibrium's price: a fall."""

SWING_LOG = 0.1
"""Moves up and down from turning point to turning point count as swings from here on."""


def wars(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Return boolean[periods, listings], whether a war was on in each period.

    A price may rise a little between two cuts, and does where both sides answer at once: what ends
    a war is a price that is back where its last cut began.

    Args:
        ours, theirs: float64[periods, listings], prices in force.
    """
    logs = np.log(np.stack([ours, theirs]))
    _, periods, listings = logs.shape
    rounds, begun = np.zeros((2, listings), dtype=np.int64)
    before = np.full((2, listings), np.inf)  # of each side, where its last cut began
    waiting = np.zeros(listings, dtype=bool)  # we cut, and they have not answered yet
    found = np.zeros((periods, listings), dtype=bool)
    for period in range(1, periods):
        now, last = logs[:, period], logs[:, period - 1]
        over = (now > before - CUT_LOG).any(axis=0) | (period - begun > WINDOW)
        rounds[over], before[:, over], waiting[over] = 0, np.inf, False
        cut = now < last - CUT_LOG
        begun = np.where(cut[0] & (rounds == 0) & ~waiting, period, begun)
        before = np.where(cut, last, before)
        waiting |= cut[0]
        answered = waiting & cut[1]
        rounds += answered
        waiting &= ~answered
        found[period] = rounds >= ROUNDS
    return found


def falls(ours: np.ndarray, theirs: np.ndarray, nash: np.ndarray) -> np.ndarray:
    """Return boolean[periods, listings], whether both prices had just fallen far together.

    Args:
        nash: float64[listings], the static equilibrium's price.
    """
    found = np.zeros(ours.shape, dtype=bool)
    low = nash * np.exp(-BELOW_LOG)
    for period in range(1, len(ours)):
        before = slice(max(period - WINDOW, 0), period)
        fell = [
            np.log(path[before].max(axis=0) / path[period]) > FALL_LOG for path in (ours, theirs)
        ]
        found[period] = fell[0] & fell[1] & (ours[period] < low) & (theirs[period] < low)
    return found


def swings(ours: np.ndarray) -> np.ndarray:
    """Return int64[listings], how often a price turned after a move of ``SWING_LOG`` or more."""
    logs = np.log(ours)
    high, low = logs[0].copy(), logs[0].copy()
    way = np.zeros(ours.shape[1], dtype=np.int64)  # 1: last seen rising, -1: falling
    turns = np.zeros(ours.shape[1], dtype=np.int64)
    for now in logs[1:]:
        high, low = np.maximum(high, now), np.minimum(low, now)
        down, up = (high - now >= SWING_LOG) & (way >= 0), (now - low >= SWING_LOG) & (way <= 0)
        turns += (down & (way == 1)) | (up & (way == -1))
        way = np.where(down, -1, np.where(up, 1, way))
        turned = down | up
        high, low = np.where(turned, now, high), np.where(turned, now, low)
    return turns
