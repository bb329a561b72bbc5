"""Arrays with a row a listing, which double: room that nobody has written to takes no memory.

``np.zeros`` promises that only for the largest arrays. Smaller ones may come from memory that was
used and freed before, which is zeroed by writing to all of it, so that a table that had just
doubled weighed nearly twice what it held.
"""

import mmap
from contextlib import suppress
from typing import Any

import numpy as np

MAPPED_BYTES_MIN = 1 << 16
"""Less than this is not worth pages of its own."""

HUGE_BYTES_MIN = 1 << 22
"""Of so much that is full, huge pages are asked for, as numpy does: rows are touched at random, and
each small page of a large table costs a miss of its own."""

HUGE_ROOM_BYTES_MIN = 1 << 26
"""From here on also where nothing is yet, for a huge page that is hardly used is little of it."""


def room(shape: int | tuple[int, ...], dtype: Any, full: int = 0) -> np.ndarray:
    """Return zeros, of which pages come into being as they are written to.

    Args:
        full: how many of the first rows the caller fills at once.
    """
    dtype, shape = np.dtype(dtype), shape if isinstance(shape, tuple) else (shape,)
    size = dtype.itemsize
    for length in shape:
        size *= length
    if size < MAPPED_BYTES_MIN:
        return np.zeros(shape, dtype=dtype)
    # Private: a process that is forked from this one must not write into its table.
    mapped = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    huge = size if size >= HUGE_ROOM_BYTES_MIN else size * full // shape[0]
    if huge >= HUGE_BYTES_MIN and hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel without huge pages
            mapped.madvise(mmap.MADV_HUGEPAGE, 0, huge - huge % mmap.PAGESIZE)
    return np.frombuffer(mapped, dtype=dtype).reshape(shape)


def grown(array: np.ndarray, rows: int = 0) -> np.ndarray:
    """Return ``array`` twice as long, or doubled as often as ``rows`` need; new cells are zero.

    At once: a table that is restored would else be copied at each doubling.
    """
    assert len(array)
    longer = 2 * len(array)
    while longer < rows:
        longer *= 2
    more = room((longer, *array.shape[1:]), array.dtype, full=len(array))
    more[: len(array)] = array
    return more
