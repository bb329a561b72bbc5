"""What a retailer's policy says of his demand before it is learnt, as the learner takes it.

``prior_elasticity`` and its sd are the root of a category: what is thought of its mean, and how
alike its listings are. A listing whose own policy says something else than its category's says it
of itself, which is evidence on that one listing. ``status_quo_sigma`` is a listing's: how far its
price at import is trusted. Its default lets it be found.
"""

from typing import NamedTuple

import numpy as np

from engine.memory import Memory
from engine.policy import Policy
from kernels.elasticities import Roots
from kernels.hyperparameters import STATED_STEEPEST

DECIMALS = 4
"""Of what is kept in float32: a default must be the very number that it is."""


class Stated(NamedTuple):
    """What is said of some listings, float64[rows] each."""

    mean: np.ndarray
    sd: np.ndarray
    error: np.ndarray  # 0: to be found


def stated_of(policy: np.ndarray) -> Stated:
    """Return what POLICY_DTYPE[rows] says."""
    mean, sd, error = (
        np.round(policy[name].astype(np.float64), DECIMALS)
        for name in ("prior_elasticity", "prior_elasticity_sd", "status_quo_sigma")
    )
    found = error == Policy().status_quo_sigma
    return Stated(np.maximum(mean, STATED_STEEPEST), sd, np.where(found, 0.0, error))


def roots_of(
    memory: Memory,
    groups: np.ndarray,
    sizes: np.ndarray,
    category: np.ndarray,
    categories: int,
) -> Roots:
    """Return what is said of each category: of its listings' words the middle one.

    Listings of one group say the same, so groups are looked at and not a million listings.

    Args:
        groups: int[groups], of which each has some listings.
        sizes: int64[groups], how many.
        category: int64[groups].
    """
    said = stated_of(memory.groups.policy.take(groups))
    alike = np.ones(categories)
    policy = Policy()
    roots = [policy.prior_elasticity * alike, policy.prior_elasticity_sd * alike, 0.0 * alike]
    if all((of == base[0]).all() for of, base in zip(said, roots, strict=True)):
        return Roots(*roots)
    before = np.append(0, np.cumsum(np.bincount(category, sizes, categories))).astype(np.int64)
    some = np.flatnonzero(before[1:] > before[:-1])
    middle = (before[some] + before[some + 1] - 1) // 2
    for column, root in zip(said, roots, strict=True):
        order = np.lexsort((column, category))
        root[some] = column[order[np.searchsorted(np.cumsum(sizes[order]), middle, side="right")]]
    return Roots(*roots)


def own_word(said: Stated, roots: Roots, category: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return slope and moment, float64[rows], of what listings say that their category does not."""
    other = (said.mean != roots.mean[category]) | (said.sd != roots.sd[category])
    slope = np.where(other, 1.0 / np.square(said.sd), 0.0)
    return slope, slope * said.mean
