"""No move larger than a share of the price in force."""

import jax
import jax.numpy as jnp

from kernels.bounds import Bounds, intersect, share_down
from kernels.columns import Integers
from kernels.limits import PRICE_MINOR_MAX


def narrow(columns: Integers, price_minor: jax.Array, bounds: Bounds) -> Bounds:
    """Keep the price within in force * (1 -+ step); a first price has nothing to be measured by."""
    in_force = columns.in_force_minor
    step = share_down(in_force, columns.step_max_bp)
    priced = in_force > 0
    least = jnp.where(priced, jnp.maximum(in_force - step, 1), 1)
    # A step of the whole price would leave int32 where the price is the largest there is.
    upward = jnp.minimum(step, PRICE_MINOR_MAX - in_force)
    most = jnp.where(priced, in_force + upward, PRICE_MINOR_MAX)
    return intersect(bounds, least, most)
