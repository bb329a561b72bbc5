"""Which arm a listing is in: a hash of the experiment and the listing, never of a visitor.

Two visitors who see two prices for one thing at one time learn that they are being tested; so a
price differs between listings, or between times, and everybody sees the same. An arm depends on
nothing but the listing's key, the experiment's salt and the time block: it does not change when
listings come or go, and whoever replays finds the same.
"""

import numpy as np

PRODUCT, CROSSOVER, SWITCHBACK = "product", "crossover", "switchback"

CONTROL, TREATED = 1, 2

_STEP = np.uint64(0x9E3779B97F4A7C15)


def mixed(keys: np.ndarray, salt: int, turn: np.ndarray | int = 0) -> np.ndarray:
    """Return uint64 that look independent of each other: splitmix64's finish, twice."""
    with np.errstate(over="ignore"):
        state = keys ^ np.uint64(salt)
        for word in (np.uint64(0), np.asarray(turn).astype(np.uint64)):
            state = state + (word + np.uint64(1)) * _STEP
            state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state = state ^ (state >> np.uint64(31))
    return np.asarray(state)


def drawn(keys: np.ndarray, salt: int, turn: np.ndarray | int = 0) -> np.ndarray:
    """Return float64 in [0, 1), one a key."""
    return np.asarray((mixed(keys, salt, turn) >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def arms(design: str, keys: np.ndarray, salt: int, share: float, block: int) -> np.ndarray:
    """Return uint8[keys], CONTROL or TREATED.

    Args:
        design: ``product``: for good, by listing. ``crossover``: each listing is in both arms in
            every pair of blocks, in an order drawn anew a pair. ``switchback``: all listings of an
            experiment together, drawn a pair of blocks.
        share: of the listings that are treated; half of the blocks where blocks decide.
        block: which time block it is, from 0.
    """
    if design == PRODUCT:
        treated = drawn(keys, salt) < share
    else:
        units = keys if design == CROSSOVER else np.zeros(len(keys), dtype=np.uint64)
        first = mixed(units, salt, block // 2) >> np.uint64(63) == 1
        treated = first ^ (block % 2 == 1)
    return np.where(treated, TREATED, CONTROL).astype(np.uint8)
