"""The interval of allowed prices, and how a rule narrows it.

Precedence is the order of calls: a rule that would empty the interval yields to those before it,
and the interval becomes its end nearest to what the rule wanted. All of it in int32, so that no
rounding breaks a bound.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from kernels.limits import PRICE_MINOR_MAX

BASIS_POINTS = 10_000


class Bounds(NamedTuple):
    """int32[rows] each, 1 <= low <= high <= PRICE_MINOR_MAX, and whether any rule has yielded."""

    low: jax.Array
    high: jax.Array
    overridden: jax.Array  # bool[rows]


def all_prices(like: jax.Array) -> Bounds:
    """Return the interval before any rule, for as many rows as ``like`` has."""
    return Bounds(
        jnp.full_like(like, 1),
        jnp.full_like(like, PRICE_MINOR_MAX),
        jnp.zeros_like(like, dtype=bool),
    )


def intersect(bounds: Bounds, low: jax.Array, high: jax.Array) -> Bounds:
    """Narrow ``bounds`` to ``[low, high]``, or to its end nearest to it where nothing is left.

    Expects low <= high. Where they miss the interval, they lie wholly above or wholly below it.
    """
    above, below = low > bounds.high, high < bounds.low
    return Bounds(
        jnp.where(above, bounds.high, jnp.where(below, bounds.low, jnp.maximum(bounds.low, low))),
        jnp.where(below, bounds.low, jnp.where(above, bounds.high, jnp.minimum(bounds.high, high))),
        bounds.overridden | above | below,
    )


def choose(condition: jax.Array, chosen: Bounds, other: Bounds) -> Bounds:
    """Return ``chosen`` where the condition holds, row by row."""
    return Bounds(*(jnp.where(condition, a, b) for a, b in zip(chosen, other, strict=True)))


def share_down(amount_minor: jax.Array, ratio_bp: jax.Array) -> jax.Array:
    """Return floor(amount * ratio), exactly, for 0 <= ratio <= 1.

    The product does not fit into int32, so the amount is split at 10,000 first.
    """
    whole, rest = amount_minor // BASIS_POINTS, amount_minor % BASIS_POINTS
    return whole * ratio_bp + rest * ratio_bp // BASIS_POINTS
