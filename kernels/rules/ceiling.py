"""No price above the retailer's ceiling."""

import jax
import jax.numpy as jnp

from kernels.bounds import Bounds, intersect
from kernels.columns import Integers
from kernels.limits import PRICE_MINOR_MAX


def narrow(columns: Integers, price_minor: jax.Array, bounds: Bounds) -> Bounds:
    """Keep the price at or below the ceiling, where there is one."""
    ceiling = columns.ceiling_minor
    most = jnp.where(ceiling > 0, ceiling, PRICE_MINOR_MAX)
    return intersect(bounds, jnp.ones_like(most), most)
