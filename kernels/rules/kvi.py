"""A key value item (KVI) may not be dearer than a ratio of its reference rival.

Where a brake is on, because the rival answers every cut, it may be as dear as that lets it.
"""

import jax
import jax.numpy as jnp

from kernels.bounds import BASIS_POINTS, Bounds, intersect, share_down
from kernels.columns import Integers
from kernels.limits import PRICE_MINOR_MAX


def narrow(columns: Integers, price_minor: jax.Array, bounds: Bounds) -> Bounds:
    """Keep a KVI at or below ratio * rival, where a comparable rival is known."""
    asked = limit(columns)
    most = jnp.maximum(asked, columns.braked_minor)
    narrowed = intersect(bounds, jnp.ones_like(most), most)
    given_up = jnp.minimum(price_minor, most) > asked
    return narrowed._replace(overridden=narrowed.overridden | given_up)


def limit(columns: Integers) -> jax.Array:
    """Return what the rule asks for without a brake, int32[rows]; it binds nobody but a KVI."""
    rival, ratio = columns.rival_minor, columns.kvi_rival_ratio_bp
    # A ratio above one is the whole rival and a share of it; min keeps the sum inside int32.
    below = share_down(rival, jnp.minimum(ratio, BASIS_POINTS))
    beyond = share_down(rival, jnp.maximum(ratio - BASIS_POINTS, 0))
    most = below + jnp.minimum(beyond, PRICE_MINOR_MAX - below)
    bound = (columns.kvi > 0) & (rival > 0)
    return jnp.where(bound, jnp.maximum(most, 1), PRICE_MINOR_MAX)
