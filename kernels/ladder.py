"""Rows in pieces of a few fixed sizes, so that a kernel is compiled for those and for no others.

What lies across the rows of a padded piece is never reduced: a row's result depends neither on its
neighbours nor on the padding.
"""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

LADDER = (64, 512, 2048)
"""Padded sizes of what is done a row and elasticity; what is longer goes in pieces of the last."""


def pieces(rows: int) -> Iterator[tuple[slice, int]]:
    """Return where each piece lies, and the size to which it is padded."""
    for start in range(0, rows, LADDER[-1]):
        stop = min(start + LADDER[-1], rows)
        yield slice(start, stop), next(size for size in LADDER if size >= stop - start)


def padded(columns: np.ndarray, size: int) -> np.ndarray:
    """Return columns with their rows, as float32 or bool, followed by rows of nothing."""
    kind = np.bool_ if columns.dtype == np.bool_ else np.float32
    longer: np.ndarray = np.zeros((size, *columns.shape[1:]), dtype=kind)
    longer[: len(columns)] = columns
    return longer


def compiled(*kernels: Any) -> int:
    """Return how many shapes of these jitted functions are compiled."""
    return sum(int(kernel._cache_size()) for kernel in kernels)


def product(left: jax.Array, right: jax.Array) -> jax.Array:
    """Return the matrix product in float32: left to itself a GPU keeps ten bits of a factor."""
    return jnp.matmul(left, right, precision=jax.lax.Precision.HIGHEST)
