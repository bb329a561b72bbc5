"""Prices that end in certain digits only, such as 99 or 95."""

import jax
import jax.numpy as jnp

from kernels.bounds import Bounds
from kernels.columns import Integers
from kernels.limits import PRICE_MINOR_MAX

FAR = 2**31 - 1
"""Further away than any price."""

CODE_DIGIT = 10_000
"""An ending's code is its number of digits times this, plus its value."""


def narrow(columns: Integers, price_minor: jax.Array, bounds: Bounds) -> Bounds:
    """Narrow to the legal ending nearest to the price; of two equally near, the lower.

    Where no legal ending lies within the bounds the rule yields: the interval becomes its end
    nearest to a legal ending; of two equally near ends, the lower.
    """
    low, high = bounds.low, bounds.high
    nearest, distance = jnp.zeros_like(low), jnp.full_like(low, FAR)
    under, over = jnp.full_like(low, FAR), jnp.full_like(low, FAR)
    asked = jnp.zeros_like(bounds.overridden)
    for code in columns.endings:
        given = code > 0
        asked = asked | given
        value, modulus = _decoded(code)
        below = _at_most(price_minor, value, modulus)
        for candidate in (below, below + modulus):
            inside = given & (candidate >= low) & (candidate <= high)
            away = jnp.abs(candidate - price_minor)
            nearer = (away < distance) | ((away == distance) & (candidate < nearest))
            nearest = jnp.where(inside & nearer, candidate, nearest)
            distance = jnp.where(inside & nearer, away, distance)
        lower = _at_most(low, value, modulus)
        higher = _at_most(high, value, modulus) + modulus
        under = jnp.where(given & (lower >= 1), jnp.minimum(under, low - lower), under)
        reachable = given & (higher <= PRICE_MINOR_MAX)
        over = jnp.where(reachable, jnp.minimum(over, higher - high), over)
    found = distance < FAR
    yields = asked & ~found
    end = jnp.where(under <= over, low, high)
    point = jnp.where(found, nearest, end)
    return Bounds(
        jnp.where(asked, point, low),
        jnp.where(asked, point, high),
        bounds.overridden | yields,
    )


def _decoded(code: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return an ending's value and modulus; code 0 gives 0 and 10, and is masked by the caller."""
    digits, value = code // CODE_DIGIT, code % CODE_DIGIT
    modulus = jnp.where(digits <= 1, 10, jnp.where(digits == 2, 100, 1000))
    return value, jnp.where(digits >= 4, 10_000, modulus)


def _at_most(price_minor: jax.Array, value: jax.Array, modulus: jax.Array) -> jax.Array:
    """Return the greatest number <= the price that ends in ``value``; it may be <= 0."""
    return price_minor - (price_minor - value) % modulus
