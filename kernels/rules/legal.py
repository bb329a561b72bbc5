"""No price below the minimum advertised price (MAP)."""

import jax
import jax.numpy as jnp

from kernels.bounds import Bounds, intersect
from kernels.columns import Integers
from kernels.limits import PRICE_MINOR_MAX


def narrow(columns: Integers, price_minor: jax.Array, bounds: Bounds) -> Bounds:
    """Keep the price at or above MAP, where there is one."""
    least = jnp.maximum(columns.map_minor, 1)
    return intersect(bounds, least, jnp.full_like(least, PRICE_MINOR_MAX))
