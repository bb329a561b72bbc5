"""No price below the floor: the least margin, or the retailer's own figure if that is higher."""

import jax
import jax.numpy as jnp

from kernels.bounds import Bounds, intersect
from kernels.columns import Integers
from kernels.limits import PRICE_MINOR_MAX


def narrow(columns: Integers, price_minor: jax.Array, bounds: Bounds) -> Bounds:
    """Keep the price at or above the floor.

    An unreachable floor lies above every price; the row is then infeasible, and the bounds that
    are returned for it are used by nobody.
    """
    least = jnp.maximum(columns.floor_minor, 1)
    return intersect(bounds, least, jnp.maximum(least, PRICE_MINOR_MAX))
