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

    Its remainders take most of the kernel's time, so a block in which no row asks for an ending
    skips them.
    """
    asked = jnp.stack(columns.endings).any()
    narrowed: Bounds = jax.lax.cond(asked, _narrowed, _kept, columns, price_minor, bounds)
    return narrowed


def _narrowed(columns: Integers, price_minor: jax.Array, bounds: Bounds) -> Bounds:
    low, high = bounds.low, bounds.high
    codes = jnp.stack(columns.endings)  # int32[endings, rows], as everything here with an axis more
    given = codes > 0
    asked = given.any(axis=0)
    value, modulus = _decoded(codes)

    below = _at_most(price_minor, value, modulus)
    candidates = jnp.concatenate((below, below + modulus))
    inside = jnp.concatenate((given, given)) & (candidates >= low) & (candidates <= high)
    # Twice the distance, and one more for the higher of two equally near.
    distances = 2 * jnp.abs(candidates - price_minor) + (candidates > price_minor)
    distance = jnp.where(inside, distances, FAR).min(axis=0)
    found = distance < FAR
    nearest = price_minor + jnp.where(distance % 2 == 1, distance // 2, -(distance // 2))

    lower = _at_most(low, value, modulus)
    under = jnp.where(given & (lower >= 1), low - lower, FAR).min(axis=0)
    higher = _at_most(high, value, modulus) + modulus
    over = jnp.where(given & (higher <= PRICE_MINOR_MAX), higher - high, FAR).min(axis=0)
    point = jnp.where(found, nearest, jnp.where(under <= over, low, high))
    return Bounds(
        jnp.where(asked, point, low),
        jnp.where(asked, point, high),
        bounds.overridden | (asked & ~found),
    )


def _kept(columns: Integers, price_minor: jax.Array, bounds: Bounds) -> Bounds:
    return bounds


def _decoded(code: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return an ending's value and modulus; code 0 gives 0 and 10, and is masked by the caller."""
    digits, value = code // CODE_DIGIT, code % CODE_DIGIT
    modulus = jnp.where(digits <= 1, 10, jnp.where(digits == 2, 100, 1000))
    return value, jnp.where(digits >= 4, 10_000, modulus)


def _at_most(price_minor: jax.Array, value: jax.Array, modulus: jax.Array) -> jax.Array:
    """Return the greatest number <= the price that ends in ``value``; it may be <= 0."""
    return price_minor - (price_minor - value) % modulus
