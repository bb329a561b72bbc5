"""A key value item (KVI) may not be dearer than a ratio of its reference rival."""

import jax
import jax.numpy as jnp

from kernels.bounds import BASIS_POINTS, Bounds, intersect, share_down
from kernels.columns import Integers
from kernels.limits import PRICE_MINOR_MAX


def narrow(columns: Integers, price_minor: jax.Array, bounds: Bounds) -> Bounds:
    """Keep a KVI at or below ratio * rival, where a comparable rival is known."""
    rival, ratio = columns.rival_minor, columns.kvi_rival_ratio_bp
    # A ratio above one is the whole rival and a share of it; min keeps the sum inside int32.
    below = share_down(rival, jnp.minimum(ratio, BASIS_POINTS))
    beyond = share_down(rival, jnp.maximum(ratio - BASIS_POINTS, 0))
    limit = below + jnp.minimum(beyond, PRICE_MINOR_MAX - below)
    bound = (columns.kvi > 0) & (rival > 0)
    most = jnp.where(bound, jnp.maximum(limit, 1), PRICE_MINOR_MAX)
    return intersect(bounds, jnp.ones_like(most), most)
