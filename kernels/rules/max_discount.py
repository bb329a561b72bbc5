"""No price further below the recommended retail price (RRP) than the largest discount."""

import jax
import jax.numpy as jnp

from kernels.bounds import Bounds, intersect, share_down
from kernels.columns import Integers
from kernels.limits import PRICE_MINOR_MAX


def narrow(columns: Integers, price_minor: jax.Array, bounds: Bounds) -> Bounds:
    """Keep the price at or above RRP * (1 - discount), where there is an RRP."""
    rrp = columns.rrp_minor
    least = jnp.maximum(rrp - share_down(rrp, columns.max_discount_bp), 1)
    return intersect(bounds, least, jnp.full_like(least, PRICE_MINOR_MAX))
