"""So many large moves a day as the breaker lets pass: the others decide on the days after.

The breaker guards against an engine at fault, and cannot tell its first decisions from one: where
legal prices lie far apart, or many stocks are cleared at once, a sound day's moves would halt the
retailer. So learning keeps to what he allows within one window, and leaves half of it to others.
"""

import numpy as np

from engine.learnt import RetailerLearning
from engine.memory import Memory
from kernels.hyperparameters import EXPLAINED_SLACK_LOG, LARGE_MOVES_SHARE


def put_off(
    memory: Memory, held: RetailerLearning, number: int, move: np.ndarray, caused: np.ndarray
) -> np.ndarray:
    """Return bool[rows], whose moves wait for another day, and count those that do not.

    Args:
        number: the retailer's.
        move: float64[rows], logs.
        caused: float64[rows], how far costs have moved, which the breaker accepts as a cause.
    """
    retailer = memory.retailers.table[number]
    allowed = float(retailer["breaker_moved_share"]) * int(retailer["listings"])
    allowed = int(LARGE_MOVES_SHARE * max(allowed, float(retailer["breaker_listings_min"])))
    large = np.abs(np.expm1(move)) > float(retailer["breaker_move"])
    large &= np.abs(move) > caused + EXPLAINED_SLACK_LOG
    rank = held.large_moves + np.cumsum(large)
    late = large & (rank > allowed)
    held.large_moves += int((large & ~late).sum())
    return np.asarray(late)
