"""No more changes in an hour than allowed: one that has had them keeps its price."""

import jax
import jax.numpy as jnp

from kernels.bounds import Bounds, intersect
from kernels.columns import Integers
from kernels.limits import PRICE_MINOR_MAX


def narrow(columns: Integers, price_minor: jax.Array, bounds: Bounds) -> Bounds:
    """Keep the price in force where this hour's changes are used up."""
    in_force = columns.in_force_minor
    spent = (columns.changes_last_hour >= columns.changes_per_hour_max) & (in_force > 0)
    least = jnp.where(spent, in_force, 1)
    most = jnp.where(spent, in_force, PRICE_MINOR_MAX)
    return intersect(bounds, least, most)
