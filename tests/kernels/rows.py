"""Rows for tests of kernels: neutral columns, of which a test sets what it is about."""

import jax.numpy as jnp
import numpy as np

from kernels.bounds import Bounds
from kernels.columns import Integers
from kernels.limits import PRICE_MINOR_MAX

NEUTRAL = {
    "status_quo_cost_minor": -1,
    "max_discount_bp": 10_000,
    "step_max_bp": 2_000,
    "changes_per_hour_max": 10,
    "kvi_rival_ratio_bp": 10_000,
}


def one_row(**values: int) -> Integers:
    """Return the columns of one row on which no rule has anything to say but as given."""
    assert set(values) <= set(Integers._fields)
    given = {**dict.fromkeys(Integers._fields, 0), **NEUTRAL, **values}
    return Integers(**{name: jnp.array([value], jnp.int32) for name, value in given.items()})


def interval(low: int = 1, high: int = PRICE_MINOR_MAX) -> Bounds:
    """Return the bounds of one row."""
    return Bounds(jnp.array([low], jnp.int32), jnp.array([high], jnp.int32), jnp.array([False]))


def plain(bounds: Bounds) -> tuple[int, int, bool]:
    """Return (low, high, overridden) of one row."""
    low, high, overridden = (np.asarray(part)[0] for part in bounds)
    return int(low), int(high), bool(overridden)


ANY_PRICE = jnp.array([500], jnp.int32)
"""Where the price stands, for rules that do not look at it."""
