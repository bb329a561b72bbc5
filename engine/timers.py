"""What makes a row be priced again without a delta: a time that falls due, or big work.

Due rows come by ``(due_ms, row)``. The dirty rows that big work marks (a policy change over a
million listings) come by the size of their revenue, then by row, and fill what other rows leave of
a microbatch.
"""

from collections.abc import Callable

import numpy as np

from engine.listing_table import NEVER
from engine.room import grown, room

BLOCK_ROWS = 1024


class Timers:
    """When each row falls due, with a lower bound a block of rows.

    A bound is lowered at once and raised only when its block is looked at, so a row that is
    touched often costs one comparison and not a scan.
    """

    def __init__(self, capacity: int = BLOCK_ROWS) -> None:
        assert capacity % BLOCK_ROWS == 0
        self.due_ms = np.full(capacity, NEVER, dtype=np.int64)  # behind ``_ready``: nothing yet
        self._bounds = np.full(capacity // BLOCK_ROWS, NEVER, dtype=np.int64)
        self._ready = capacity

    def fit(self, rows: int) -> None:
        """Let ``rows`` rows have a time, which does not come until it is set."""
        if rows <= self._ready:
            return
        if len(self.due_ms) < rows:
            self.due_ms = grown(self.due_ms, rows)
        ready = -(-rows // BLOCK_ROWS) * BLOCK_ROWS
        self.due_ms[self._ready : ready] = NEVER
        self._ready = ready
        new = np.full(ready // BLOCK_ROWS - len(self._bounds), NEVER)
        self._bounds = np.append(self._bounds, new)

    def set(self, rows: np.ndarray, due_ms: np.ndarray) -> None:
        """Let each row fall due at its time."""
        self.due_ms[rows] = due_ms
        np.minimum.at(self._bounds, rows // BLOCK_ROWS, due_ms)

    def pause(self, rows: np.ndarray) -> None:
        """Let rows fall due no more, until they are set again."""
        self.due_ms[rows] = NEVER

    def any_due(self, now_ms: int) -> bool:
        """Return whether a row is due."""
        return len(self.due(now_ms, 1)) > 0

    def due(self, now_ms: int, rows_max: int) -> np.ndarray:
        """Return up to ``rows_max`` rows that are due, by ``(due_ms, row)``."""
        blocks = (self._bounds <= now_ms).nonzero()[0]
        if len(blocks) == 0:
            return np.empty(0, dtype=np.int64)
        times = self.due_ms.reshape(-1, BLOCK_ROWS)[blocks]
        self._bounds[blocks] = times.min(axis=1)
        block, within = np.nonzero(times <= now_ms)
        rows = blocks[block] * BLOCK_ROWS + within
        order = np.lexsort((rows, self.due_ms[rows]))
        return rows[order[:rows_max]]

    def restore(self) -> None:
        """Find the bounds of what a checkpoint has filled in."""
        self._bounds = self.due_ms[: self._ready].reshape(-1, BLOCK_ROWS).min(axis=1)


class Backlog:
    """The rows that big work has marked dirty, in the order in which they will be priced.

    The order is sorted once when rows are marked. It is a function of the marks and of the rows'
    standing, which does not change while a row waits (a row that is touched is priced and leaves),
    so a successor finds the same order.
    """

    def __init__(self, capacity: int = 256) -> None:
        self.dirty = room(capacity, bool)
        self.rows = 0  # how many are dirty
        self._queue: np.ndarray | None = None  # None: to be sorted when next needed
        self._next = 0

    def fit(self, rows: int) -> None:
        """Make room for ``rows`` rows."""
        if len(self.dirty) < rows:
            self.dirty = grown(self.dirty, rows)

    def mark(self, rows: np.ndarray) -> None:
        """Mark rows for pricing."""
        self.dirty[rows] = True
        self.rows = int(np.count_nonzero(self.dirty))
        self._queue = None

    def clear(self, rows: np.ndarray) -> None:
        """Take rows off: they are priced now, or are gone."""
        if self.rows:
            self.rows -= int(np.count_nonzero(self.dirty[rows]))
            self.dirty[rows] = False

    def take(self, rows_max: int, revenue_of: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Return the next rows, at most ``rows_max``; they stay dirty until cleared.

        Args:
            revenue_of: from rows to float64[rows], what each row has earned.
        """
        if self.rows == 0 or rows_max <= 0:
            return np.empty(0, dtype=np.int64)
        if self._queue is None:
            waiting = np.flatnonzero(self.dirty)
            self._queue = waiting[np.lexsort((waiting, -standing(revenue_of(waiting))))]
            self._next = 0
        taken: list[np.ndarray] = []
        while rows_max > 0 and self._next < len(self._queue):
            piece = self._queue[self._next : self._next + rows_max]
            self._next += len(piece)
            piece = piece[self.dirty[piece]]
            taken.append(piece)
            rows_max -= len(piece)
        return np.concatenate(taken) if taken else np.empty(0, dtype=np.int64)


def standing(revenue: np.ndarray) -> np.ndarray:
    """Return int8[rows], revenue by powers of two: equal standing is left to the row's number."""
    return np.asarray(np.frexp(np.maximum(revenue, 0.0))[1].astype(np.int8))
